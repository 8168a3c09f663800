/* Forward Euler on y' = W tanh(y), as fast as hand-written C makes it: what compiled programs are measured against.

   Built for one size and one type, -DN=8 -DREAL=float (or double), with the vectors and the tanh of jaxosc/native.
   Members are independent, so a few of them run through all their steps before the next ones start, and everything that
   a step touches stays in cache or registers. */

#include <string.h>

#include "vectors.h"

_Static_assert(N % 2 == 0, "two neurons for one division");
_Static_assert(N <= 4 || (N <= 16 ? N % 4 : N % (2 * WIDTH)) == 0, "whole groups of rows, pairs of vectors of large W");

/* Members go across the vectors, GROUPS vectors at a time: enough to hide how long a tanh takes, few enough for the
   sums of some rows to stay in registers. */
#define GROUPS (N <= 4 ? 8 : 4)
#define LANES (GROUPS * WIDTH)

typedef vec block[N][GROUPS];

/* Lane k of a chunk is member begin + k; past the end the last member is done again. */
INLINE long member_of(long begin, long lane, long members) {
  return begin + lane < members ? begin + lane : members - 1;
}

static void gather(block y, const real *y0, long begin, long members) {
  real *lanes = (real *)y;
  for (int i = 0; i < N; i++)
    for (int k = 0; k < LANES; k++) lanes[i * LANES + k] = y0[member_of(begin, k, members) * N + i];
}

static void scatter(const block y, real *out, long begin, long members) {
  const real *lanes = (const real *)y;
  for (int i = 0; i < N; i++)
    for (int k = 0; k < LANES; k++) out[member_of(begin, k, members) * N + i] = lanes[i * LANES + k];
}

INLINE void activate(block t, const block y) {
  /* Not unrolled over i: with all of them in sight the compiler interleaves what does not fit the registers. */
#pragma GCC unroll 1
  for (int i = 0; i < N; i += 2)
#pragma GCC unroll 8
    for (int g = 0; g < GROUPS; g++) tanh_of_two(y[i][g], y[i + 1][g], &t[i][g], &t[i + 1][g]);
}

/* Beyond that so many rows at a time (N is a multiple): their sums and a vector of each group fill the registers. */
#define ROWS 4

INLINE void add_product(block y, const real *w, const block t, real dt) {
#if N <= 4
#pragma GCC unroll 8
  for (int g = 0; g < GROUPS; g++)
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
      vec sum = w[i * N] * t[0][g];
#pragma GCC unroll 4
      for (int j = 1; j < N; j++) sum += w[i * N + j] * t[j][g];
      y[i][g] += dt * sum;
    }
#else
  for (int i = 0; i < N; i += ROWS) {
    vec sum[ROWS][GROUPS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int g = 0; g < GROUPS; g++) sum[r][g] = spread(0);
#pragma GCC unroll 2
    for (int j = 0; j < N; j++)
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int g = 0; g < GROUPS; g++) sum[r][g] += w[(i + r) * N + j] * t[j][g];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int g = 0; g < GROUPS; g++) y[i + r][g] += dt * sum[r][g];
  }
#endif
}

/* One W (N, N) for all; y0 and out (members, N). */
void euler_shared(const real *w, const real *y0, real *out, long members, long steps, real dt) {
  block y, t;
  for (long begin = 0; begin < members; begin += LANES) {
    gather(y, y0, begin, members);
    for (long step = 0; step < steps; step++) {
      activate(t, y);
      add_product(y, w, t, dt);
    }
    scatter(y, out, begin, members);
  }
}

#if N <= 16

/* A W for each, (members, N, N): small ones go across the vectors like the states. */
void euler_own(const real *w, const real *y0, real *out, long members, long steps, real dt) {
  block y, t;
  static vec mine[N][N][GROUPS];
  for (long begin = 0; begin < members; begin += LANES) {
    gather(y, y0, begin, members);
    for (int ij = 0; ij < N * N; ij++)
      for (int k = 0; k < LANES; k++)
        ((real *)mine)[ij * LANES + k] = w[member_of(begin, k, members) * N * N + ij];
    for (long step = 0; step < steps; step++) {
      activate(t, y);
#pragma GCC unroll 4
      for (int g = 0; g < GROUPS; g++)
#pragma GCC unroll 16
        for (int i = 0; i < N; i++) {
          vec sum = mine[i][0][g] * t[0][g];
#pragma GCC unroll 16
          for (int j = 1; j < N; j++) sum += mine[i][j][g] * t[j][g];
          y[i][g] += dt * sum;
        }
    }
    scatter(y, out, begin, members);
  }
}

#else

/* Large ones: the neurons of a member go across the vectors, and a step reads W column by column. A few members at a
   time, so that there are enough sums to hide how long each addition takes. */
#define PARTS (N / WIDTH)
#define TOGETHER (PARTS >= 8 ? 1 : PARTS >= 4 ? 2 : 4)

INLINE void step_together(vec y[TOGETHER][PARTS], const vec columns[TOGETHER][N][PARTS], real dt) {
  vec t[TOGETHER][PARTS], sum[TOGETHER][PARTS];
#pragma GCC unroll 4
  for (int m = 0; m < TOGETHER; m++)
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++) {
      if (p % 2 == 0) tanh_of_two(y[m][p], y[m][p + 1], &t[m][p], &t[m][p + 1]);
      sum[m][p] = spread(0);
    }
  const real *single = (const real *)t;
#pragma GCC unroll 4
  for (int j = 0; j < N; j++)
#pragma GCC unroll 4
    for (int m = 0; m < TOGETHER; m++)
#pragma GCC unroll 16
      for (int p = 0; p < PARTS; p++) sum[m][p] += columns[m][j][p] * single[m * N + j];
#pragma GCC unroll 4
  for (int m = 0; m < TOGETHER; m++)
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++) y[m][p] += dt * sum[m][p];
}

void euler_own(const real *w, const real *y0, real *out, long members, long steps, real dt) {
  static vec y[TOGETHER][PARTS], columns[TOGETHER][N][PARTS];
  for (long begin = 0; begin < members; begin += TOGETHER) {
    for (int m = 0; m < TOGETHER; m++) {
      const long member = member_of(begin, m, members);
      memcpy(y[m], y0 + member * N, sizeof(y[m]));
      for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) ((real *)columns[m])[j * N + i] = w[(member * N + i) * N + j];
    }
    for (long step = 0; step < steps; step++) step_together(y, columns, dt);
    for (int m = 0; m < TOGETHER; m++) memcpy(out + member_of(begin, m, members) * N, y[m], sizeof(y[m]));
  }
}

#endif

/* The two limits: tanh of TANH_COUNT numbers in the first cache, `turns` times ... */
#define TANH_COUNT 2048
static vec tanh_values[TANH_COUNT / WIDTH];
real tanh_turns(real first, long turns) {
  for (int k = 0; k < TANH_COUNT / WIDTH; k++) tanh_values[k] = spread(first * k);
  for (long turn = 0; turn < turns; turn++)
    for (int k = 0; k < TANH_COUNT / WIDTH; k += 4)
#pragma GCC unroll 4
      for (int u = k; u < k + 4; u += 2)
        tanh_of_two(tanh_values[u], tanh_values[u + 1], &tanh_values[u], &tanh_values[u + 1]);
  return tanh_values[1][0];
}

/* ... and sixteen chains of multiply-add in registers, `turns` times; gives something that depends on all. */
#define FMA_CHAINS 16
real fma_turns(real factor, real summand, long turns) {
  vec sums[FMA_CHAINS], total = spread(0), f = spread(factor), s = spread(summand);
#pragma GCC unroll 16
  for (int k = 0; k < FMA_CHAINS; k++) sums[k] = spread(k);
  for (long turn = 0; turn < turns; turn++)
#pragma GCC unroll 16
    for (int k = 0; k < FMA_CHAINS; k++) sums[k] = sums[k] * f + s;
  for (int k = 0; k < FMA_CHAINS; k++) total += sums[k];
  return total[0];
}

/* Numbers in a vector. */
int vector_width(void) { return WIDTH; }
