/* The Taylor series of a block of lanes, order by order, and the states that it gives.

   Every order needs sums over pairs of all earlier ones, the products with W in between. What they cost is the way of
   the coefficients between the first and the second cache, so each order reads few of them: pairs are added to the sums
   of several orders as soon as both are known (a relaxed product: van der Hoeven, *J. Symbolic Comput.* 34, 2002), for
   four orders at once where the order divides by 4, for two where by 2. A sum that has been begun waits in the place
   of its result. */

#ifndef TAYLOR_SERIES_H
#define TAYLOR_SERIES_H

#include "functions.h"
#include "networks.h"

/* One more row where the same neuron of all orders would fall on few lines of the first cache. */
typedef vec rows[N + (N * GROUPS * BYTES % 1024 == 0)][GROUPS];

/* Up to here an order adds all of its pairs; places for one more where the last two would be begun together. */
enum { FIRST = 4, TERMS = (ORDER + 1) / 2 * 2 };

/* The state, and of order k: of s = tanh, of its slope 1 - s^2, and rate[k] = (k + 1) X_{k+1}, which holds the higher
   orders of the state. Too much for a stack. */
struct series {
  rows x, s[TERMS], slope[TERMS], rate[ORDER];
};

/* Of order k in vector v of the block, neuron after neuron. */
#define S(k) (((vec *)series->s[k])[v])
#define SLOPE(k) (((vec *)series->slope[k])[v])
#define RATE(k) (((vec *)series->rate[k])[v])

/* Rows i to i + count, all their sums at once: each of them waits for its last addition. */
#define EACH(r, g, count)                                      \
  _Pragma("GCC unroll 16") for (int r = 0; r < (count); r++) \
      _Pragma("GCC unroll 4") for (int g = 0; g < GROUPS; g++)

#define UNROLLED_FOR _Pragma("GCC unroll 32") for

/* s and slope of order 0. */
INLINE void expand_tanh(struct series *series, int i, const int count) {
  rows *const x = &series->x, *const s = &series->s[0];
  for (int g = 0; g < GROUPS; g++) {
    if (count == 2)
      tanh_of_two((*x)[i][g], (*x)[i + 1][g], &(*s)[i][g], &(*s)[i + 1][g]);
    else
      (*s)[i][g] = tanh_of((*x)[i][g]);
    for (int v = i * GROUPS + g; v < (i + count) * GROUPS; v += GROUPS) SLOPE(0) = 1 - S(0) * S(0);
  }
}

/* From s' = slope y' and slope = 1 - s^2. `half` has each pair of the square once, but for that with the new s. */
INLINE void finish(struct series *series, int v, int k, const vec sum, const vec half) {
  const vec s = rounded(sum * ((real)1 / k));
  S(k) = s;
  if (k + 1 < ORDER) SLOPE(k) = -2 * (half + S(0) * s);
}

/* Order k < FIRST. */
INLINE void add_all(struct series *series, int begin, int end, const int k) {
#pragma GCC unroll 1
  for (int v = begin; v < end; v++) {
    vec sum = rounded(SLOPE(k - 1) * RATE(0)), half = spread(0);
    UNROLLED_FOR(int j = 1; j < k; j++) sum += SLOPE(k - 1 - j) * RATE(j);
    UNROLLED_FOR(int j = 1; 2 * j < k; j++) half += S(j) * S(k - j);
    if (k % 2 == 0) half += rounded((real)0.5 * S(k / 2)) * S(k / 2);
    finish(series, v, k, sum, half);
  }
}

/* Order k and the begin of the next three: all pairs of orders below k. */
INLINE void begin_four(struct series *series, int begin, int end, const int k) {
  const int orders = TERMS - k < 4 ? TERMS - k : 4;
#pragma GCC unroll 1
  for (int v = begin; v < end; v++) {
    vec sum[4] = {}, half[4] = {};
    UNROLLED_FOR(int j = 0; j < k; j++)
      UNROLLED_FOR(int d = 0; d < orders && d <= j; d++) sum[d] += SLOPE(k - 1 - j + d) * RATE(j);
    UNROLLED_FOR(int d = 1; d < orders; d++) S(k + d) = sum[d];
    UNROLLED_FOR(int j = 1; j < k; j++)
      UNROLLED_FOR(int d = 0; d < orders && d < j; d++) {
        if (2 * j < k + d) half[d] += S(j) * S(k + d - j);
        if (2 * j == k + d) half[d] += rounded((real)0.5 * S(j)) * S(j);
      }
    UNROLLED_FOR(int d = 1; d < orders; d++) SLOPE(k + d) = half[d];
    finish(series, v, k, sum[0], half[0]);
  }
}

/* Order k and the next: what pairs have one of the last two. */
INLINE void add_two(struct series *series, int begin, int end, int k) {
#pragma GCC unroll 1
  for (int v = begin; v < end; v++) {
    vec sum[2] = {S(k), S(k + 1)}, half[2] = {SLOPE(k), SLOPE(k + 1)};
    UNROLLED_FOR(int d = 0; d < 2; d++) {
      UNROLLED_FOR(int j = d; j < d + 2; j++) sum[d] += SLOPE(k + d - 1 - j) * RATE(j);
      UNROLLED_FOR(int j = d; j < d + 2; j++) sum[d] += SLOPE(j) * RATE(k + d - 1 - j);
      UNROLLED_FOR(int j = d + 1; j < d + 3; j++) half[d] += S(j) * S(k + d - j);
    }
    S(k + 1) = sum[1], SLOPE(k + 1) = half[1];
    finish(series, v, k, sum[0], half[0]);
  }
}

/* Order k: what pairs have the last one. */
INLINE void add_one(struct series *series, int begin, int end, int k) {
#pragma GCC unroll 1
  for (int v = begin; v < end; v++) {
    vec sum = S(k), half = SLOPE(k);
    sum += SLOPE(k - 1) * RATE(0);
    sum += SLOPE(0) * RATE(k - 1);
    half += S(1) * S(k - 1);
    finish(series, v, k, sum, half);
  }
}

/* s and slope of order k > 0. */
static void expand_s(struct series *series, int begin, int end, int k) {
  UNROLLED_FOR(int q = 1; q < ORDER; q++) {
    if (q < FIRST && k == q) add_all(series, begin, end, q);
    if (q >= FIRST && q % 4 == 0 && k == q) begin_four(series, begin, end, q);
  }
  if (k >= FIRST && k % 4 == 2) add_two(series, begin, end, k);
  if (k >= FIRST && k % 2 == 1) add_one(series, begin, end, k);
}

/* The rate of order k, and of the next order what needs no other rows. */
INLINE void expand_rate(struct series *series, const struct networks *w, int k, int i, const int count) {
  vec sum[ROWS][GROUPS];
  nothing(sum, count, GROUPS);
  add_rows(sum, w, series->s[k][0], i, count, 0, N, GROUPS);
  EACH(r, g, count) {
    const int v = (i + r) * GROUPS + g;
    vec value = sum[r][g];
    if (!w->plain) {
      value = gained(w, value, g);
      if (k == 0 && w->has_bias) value += w->bias[v];
      if (w->has_leak) value -= w->leak[g] * (k == 0 ? series->x[i + r][g] : rounded(RATE(k - 1) * ((real)1 / k)));
      value = rounded(value);
    }
    RATE(k) = value;
  }
  if (k + 1 < ORDER) expand_s(series, i * GROUPS, (i + count) * GROUPS, k + 1);
}

static void expand(struct series *series, const struct networks *w) {
#pragma GCC unroll 1
  for (int i = 0; i < N / 2 * 2; i += 2) expand_tanh(series, i, 2);
  if (N % 2) expand_tanh(series, N - 1, 1);
#pragma GCC unroll 1
  for (int k = 0; k < ORDER; k++) {
#pragma GCC unroll UNROLLED
    for (int i = 0; i < N / ROWS * ROWS; i += ROWS) expand_rate(series, w, k, i, ROWS);
    if (N % ROWS) expand_rate(series, w, k, N / ROWS * ROWS, N % ROWS);
  }
}

/* The larger size. A NaN may be passed over: it shows in the state that the step leads to. */
INLINE vec larger(vec most, vec x) {
#if defined(__AVX512DQ__)
  enum { LARGER_SIZE = 3, WITHOUT_SIGN = 2 << 2 };
  return sizeof(real) == 4 ? (vec)_mm512_range_ps((__m512)most, (__m512)x, LARGER_SIZE | WITHOUT_SIGN)
                           : (vec)_mm512_range_pd((__m512d)most, (__m512d)x, LARGER_SIZE | WITHOUT_SIGN);
#else
  const vec size = size_of(x);
  return chosen(most < size, size, most);
#endif
}

/* The longest step that the last two terms allow. */
INLINE vec limit(struct series *series, real rtol, real atol, int g) {
  /* Of the state and of those two, every fourth row: each waits for the one before. */
  vec most[4][3] = {};
  for (int i = 0; i < N; i += 4)
    UNROLLED_FOR(int r = 0; r < 4; r++) {
      const int v = (i + r) * GROUPS + g;
      if (i + r >= N) break;
      most[r][0] = larger(most[r][0], ((vec *)series->x)[v]);
      most[r][1] = larger(most[r][1], RATE(ORDER - 2));
      most[r][2] = larger(most[r][2], RATE(ORDER - 1));
    }
  vec sizes[3];
  UNROLLED_FOR(int q = 0; q < 3; q++)
    sizes[q] = larger(larger(most[0][q], most[1][q]), larger(most[2][q], most[3][q]));
  const vec known = log_of(atol + rtol * sizes[0]);
  const vec one = (known - log_of(rounded(sizes[1] * (real)(1. / (ORDER - 1))))) * (real)(1. / (ORDER - 1));
  const vec other = (known - log_of(rounded(sizes[2] * (real)(1. / ORDER)))) * (real)(1. / ORDER);
  return exp_of(chosen(other < one, other, one));
}

/* The states h after the beginning of the step: x + h (rate_0 + h / 2 (rate_1 + h 2 / 3 (rate_2 + ...))). */
INLINE void evaluate(const struct series *series, const vec h, rows x, int g) {
  vec shares[ORDER];
  UNROLLED_FOR(int k = 1; k < ORDER; k++) shares[k] = rounded(h * ((real)k / (k + 1)));
#pragma GCC unroll 1
  for (int v = g; v < N * GROUPS; v += GROUPS) {
    vec value = RATE(ORDER - 1);
    UNROLLED_FOR(int k = ORDER - 1; k > 0; k--) value = value * shares[k] + RATE(k - 1);
    ((vec *)x)[v] = value * h + ((const vec *)series->x)[v];
  }
}

#endif
