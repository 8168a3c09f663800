/* Fixed steps of Poisson splitting in many lanes together with K tangents each, and how fast these grow.

   Compiled for one case: -DN=8 neurons, -DTANGENTS=8, -DREAL=double, -DOWN (0: one W for all lanes, 1: a W each),
   -DORTHOGONAL (0: tangents are only set to length 1, 1: Gram-Schmidt), -DACTIVATION=tanh_of, -DHANDLER=name, and the
   numbers of tanh.

   The flow of neuron j adds h W[:, j] sigma(y_j) to the state and h W[:, j] sigma'(y_j) v_j to a tangent v: the same
   product with the same column. So state and tangents are the columns of one array, each row with its pushes, and a row
   hears of the pushes of others when it is visited itself (see splitting_step.h). What is still open after a step is
   left to the next one and paid when the tangents are looked at: n^2 multiplications a column and step.

   Rows wait for each other's sigma, so a few vectors of lanes ("groups") go side by side, as many as the first cache
   holds; these go through all their steps before the next ones start. */

#include <string.h>

#include "calls.h"
#include "functions.h"

#define COLUMNS (TANGENTS + 1)

/* States, tangents, two kinds of pushes, and W, of one vector of lanes. */
#define GROUP_BYTES (BYTES * N * (3 * COLUMNS + OWN * N))

#define BY_NEURON 0
#define GROUPS (4 * GROUP_BYTES <= 32768 ? 4 : 2 * GROUP_BYTES <= 65536 ? 2 : 1)
#define LANES (GROUPS * WIDTH)

#include "networks.h"

/* For WEIGHT. */
enum { groups = GROUPS };

/* All columns of a row in a group. */
#define ROW(i, g) (((i) * GROUPS + (g)) * COLUMNS)
#define WHOLE (N * GROUPS * COLUMNS)

/* Columns at a time: their sums stay in registers. */
#define TILE (COLUMNS <= 12 ? COLUMNS : 8)
#define TILED (COLUMNS / TILE * TILE)

struct job {
  struct given given;
  const real *x, *v, *sizes;
  long lanes, stages, samples;
  real escape;
  int steps, intervals, escaped, lost;
  const int8_t *result;
  real *x1, *v1, *growth1, *megno1, *mean1;
  int8_t *result1;
};

/* sigma' from y and s = sigma(y). */
INLINE vec tanh_of_slope(vec y, vec s) { return 1 - s * s; }
INLINE vec identity_of_slope(vec y, vec s) { return spread(1); }
INLINE vec softsign_of_slope(vec y, vec s) {
  const vec rest = 1 - chosen(s < 0, -s, s);
  return rest * rest;
}
INLINE vec hard_tanh_of_slope(vec y, vec s) { return chosen(y == s, spread(1), spread(0)); }

#define SLOPE_OF(name) name##_slope
#define SLOPE(name) SLOPE_OF(name)

INLINE vec root(vec x) {
  vec y;
#pragma GCC unroll 16
  for (int k = 0; k < WIDTH; k++) y[k] = sizeof(real) == 4 ? __builtin_sqrtf(x[k]) : __builtin_sqrt(x[k]);
  return y;
}

/* Some columns of row i hear of the pushes of rows `from` to `to`. */
INLINE void hear_some(vec *row, const struct networks *w, const vec *pushes, int i, int g, int from, int to,
                      const int columns) {
  vec sum[TILE];
#pragma GCC unroll 16
  for (int c = 0; c < columns; c++) sum[c] = spread(0);
#pragma GCC unroll 2
  for (int j = from; j < to; j++)
#pragma GCC unroll 16
    for (int c = 0; c < columns; c++) sum[c] += WEIGHT(i, j, g) * pushes[ROW(j, 0) + c];
#pragma GCC unroll 16
  for (int c = 0; c < columns; c++) row[c] += gained(w, sum[c], g);
}

INLINE void hear(vec *y, const struct networks *w, const vec *pushes, int i, int from, int to) {
#pragma GCC unroll 1
  for (int g = 0; g < GROUPS; g++) {
    vec *row = y + ROW(i, g);
    const vec *heard = pushes + ROW(0, g);
#pragma GCC unroll 1
    for (int c = 0; c < TILED; c += TILE) hear_some(row + c, w, heard + c, i, g, from, to, TILE);
    if (COLUMNS % TILE) hear_some(row + TILED, w, heard + TILED, i, g, from, to, COLUMNS % TILE);
  }
}

/* The pushes of row i over the time h: `one` gets them, `more` gets them on top of what it has. */
INLINE void push(const vec *y, vec *one, vec *more, int i, real h) {
  vec s[GROUPS], slope[GROUPS];
#pragma GCC unroll 4
  for (int g = 0; g < GROUPS; g++) {
    const vec own = y[ROW(i, g)], value = ACTIVATION(own);
    s[g] = rounded(h * value), slope[g] = rounded(h * SLOPE(ACTIVATION)(own, value));
  }
#pragma GCC unroll 1
  for (int g = 0; g < GROUPS; g++) {
    const vec *row = y + ROW(i, g);
    vec *first = one + ROW(i, g), *second = more + ROW(i, g);
    first[0] = s[g], second[0] += s[g];
#pragma GCC unroll 16
    for (int c = 1; c < COLUMNS; c++) {
      const vec next = rounded(slope[g] * row[c]);
      first[c] = next, second[c] += next;
    }
  }
}

/* One step; `down` keeps the pushes that rows below have not heard of yet. */
INLINE void step(vec *y, vec *up, vec *down, const struct networks *w, const struct job *job) {
  const real *h = job->sizes;
  if (job->stages == 1) {
#pragma GCC unroll 1
    for (int i = 0; i < N; i++) {
      hear(y, w, down, i, 0, i);
      push(y, up, down, i, h[0]);
    }
#pragma GCC unroll 1
    for (int i = 0; i < N - 1; i++) hear(y, w, up, i, i + 1, N);
    memset(down, 0, sizeof(vec) * WHOLE);
    return;
  }
#pragma GCC unroll 1
  for (long k = 0; k < job->stages; k += 2) {
#pragma GCC unroll 1
    for (int i = 0; i < N; i++) {
      hear(y, w, down, i, 0, i);
      push(y, up, down, i, i == N - 1 ? h[k] + h[k + 1] : h[k]);
    }
#pragma GCC unroll 1
    for (int i = N - 2; i >= 0; i--) {
      hear(y, w, up, i, i + 1, N);
      push(y, down, up, i, h[k + 1]);
    }
  }
}

/* Tangents of a group become orthogonal, or only of length 1; gives how long each was. */
INLINE void lengths(vec *y, vec *norms, const int orthogonal) {
#pragma GCC unroll 1
  for (int a = 1; a < COLUMNS; a++) {
    vec square = spread(0);
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) square += y[ROW(i, 0) + a] * y[ROW(i, 0) + a];
    norms[a - 1] = root(square);
    const vec inverse = 1 / norms[a - 1];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) y[ROW(i, 0) + a] = rounded(inverse * y[ROW(i, 0) + a]);
#pragma GCC unroll 1
    for (int b = a + 1; orthogonal && b < COLUMNS; b++) {
      vec product = spread(0);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) product += y[ROW(i, 0) + a] * y[ROW(i, 0) + b];
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) y[ROW(i, 0) + b] -= rounded(product) * y[ROW(i, 0) + a];
    }
  }
}

static __attribute__((noinline)) void interval(vec *y, const struct networks *w, const struct job *job) {
  vec up[WHOLE], down[WHOLE];
  memset(down, 0, sizeof down);
#pragma GCC unroll 1
  for (int k = 0; k < job->steps; k++) step(y, up, down, w, job);
#pragma GCC unroll 1
  for (int i = 1; i < N; i++) hear(y, w, down, i, 0, i);
}

/* What a group has been through. MEGNO is in units of an interval: 2 / T times the sum of t d(log |v|). */
struct growth {
  vec total[TANGENTS], weighted, megno, means;
  int8_t result[WIDTH];
};

/* One look: which lanes have left. Those have no growth from now on. */
INLINE mask look(const vec *y, int8_t *result, const struct job *job) {
  vec square = spread(0);
  for (int i = 0; i < N; i++) square += y[ROW(i, 0)] * y[ROW(i, 0)];
  mask alive;
  for (int k = 0; k < WIDTH; k++) {
    if (result[k] == 0 && !(square[k] <= job->escape))
      result[k] = (int8_t)(is_finite(square[k]) ? job->escaped : job->lost);
    alive[k] = -(result[k] == 0);
  }
  return alive;
}

static __attribute__((noinline)) void renormalise(vec *y, struct growth *growth, const struct job *job, real number) {
  const vec no_number = spread(0) / spread(0);
  const mask alive = look(y, growth->result, job);
  vec norms[TANGENTS];
  lengths(y, norms, ORTHOGONAL);
#pragma GCC unroll 1
  for (int c = 0; c < TANGENTS; c++) {
    norms[c] = chosen(alive, log_of(norms[c]), no_number);
    growth->total[c] += norms[c];
  }
  growth->weighted += (number - (real)0.5) * norms[0];
  const vec now = 2 * growth->weighted / number;
  growth->means += (growth->megno + now) / 2;
  growth->megno = now;
}

#if !ORTHOGONAL
/* The volume that the tangents span, factor by factor. */
static __attribute__((noinline)) void volume(const vec *y, struct growth *growth, const struct job *job) {
  const vec no_number = spread(0) / spread(0);
  const mask alive = look(y, growth->result, job);
  vec copy[WHOLE], norms[TANGENTS];
  memcpy(copy, y, sizeof(vec) * (ROW(N - 1, 0) + COLUMNS));
  lengths(copy, norms, 1);
  for (int c = 0; c < TANGENTS; c++) growth->total[c] = chosen(alive, log_of(norms[c]), no_number);
}
#endif

/* The lanes from `begin` on, of which `count` count; the others do the last one again. */
static void run_block(const struct job *job, long begin, int count, vec *own) {
  vec y[WHOLE];
  struct networks w;
  struct growth growth[GROUPS];
#define LANE(k) (begin + ((k) < count ? (k) : count - 1))
  memset(growth, 0, sizeof growth);
  for (int k = 0; k < LANES; k++) {
    const long lane = LANE(k);
    const int g = k / WIDTH, part = k % WIDTH;
    growth[g].result[part] = job->result[lane];
    take(&w, &job->given, k, lane, LANES);
    for (int i = 0; i < N; i++) {
      y[ROW(i, g)][part] = job->x[i * job->lanes + lane];
      for (int c = 0; c < TANGENTS; c++)
        y[ROW(i, g) + c + 1][part] = job->v[((long)i * TANGENTS + c) * job->lanes + lane];
    }
#if OWN
    for (int i = 0; i < N * N; i++) own[i * GROUPS + g][part] = job->given.matrix[i * job->lanes + lane];
#endif
  }
  w.shared = job->given.matrix, w.own = own;
  long number = 0;
  for (long sample = 0; sample < job->samples; sample++) {
    for (int g = 0; g < GROUPS; g++) memset(growth[g].total, 0, sizeof growth[g].total);
    for (int k = 0; k < job->intervals; k++) {
      interval(y, &w, job);
      number++;
      for (int g = 0; g < GROUPS; g++) renormalise(y + ROW(0, g), &growth[g], job, (real)number);
    }
#if !ORTHOGONAL
    for (int g = 0; g < GROUPS; g++) volume(y + ROW(0, g), &growth[g], job);
#endif
    for (int k = 0; k < count; k++) {
      const struct growth *mine = &growth[k / WIDTH];
      const long place = sample * job->lanes + begin + k;
      for (int c = 0; c < TANGENTS; c++)
        job->growth1[(sample * TANGENTS + c) * job->lanes + begin + k] = mine->total[c][k % WIDTH];
      job->megno1[place] = mine->megno[k % WIDTH];
      job->mean1[place] = number ? mine->means[k % WIDTH] / (real)number : 0;
    }
  }
  for (int k = 0; k < count; k++) {
    const int g = k / WIDTH, part = k % WIDTH;
    job->result1[begin + k] = growth[g].result[part];
    for (int i = 0; i < N; i++) {
      job->x1[i * job->lanes + begin + k] = y[ROW(i, g)][part];
      for (int c = 0; c < TANGENTS; c++)
        job->v1[((long)i * TANGENTS + c) * job->lanes + begin + k] = y[ROW(i, g) + c + 1][part];
    }
  }
}

/* Operands: x (n, lanes), W (n, n, lanes or 1), gain, bias, leak (or nothing, size 0), tangents v (n, k, lanes), sizes
   of the sweeps times dt, the squared escape norm, numbers (steps in an interval, intervals in a sample, codes of
   escaped and of not finite), result.
   Results: x, v, result, growth (samples, k, lanes): sums of logarithms over a sample, or where tangents are only
   scaled the logarithms of the volume that they span, factor by factor; MEGNO and its mean (samples, lanes). */
XLA_FFI_Error *HANDLER(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return NULL;
  const int32_t *numbers = IN(8)->data;
  const struct job job = {
      .given = NETWORKS, .x = IN(0)->data, .v = IN(5)->data, .sizes = IN(6)->data, .lanes = LAST(0),
      .stages = LAST(6), .samples = RESULT(3)->dims[0], .escape = *(const real *)IN(7)->data, .steps = numbers[0],
      .intervals = numbers[1], .escaped = numbers[2], .lost = numbers[3], .result = IN(9)->data, .x1 = OUT(0),
      .v1 = OUT(1), .result1 = OUT(2), .growth1 = OUT(3), .megno1 = OUT(4), .mean1 = OUT(5)};
  vec *own = NULL;
#if OWN
  own = aligned_alloc(BYTES, sizeof(vec) * N * N * GROUPS);
  if (own == NULL) return no_memory(frame);
#endif
  for (long begin = 0; begin < job.lanes; begin += LANES)
    run_block(&job, begin, (int)(job.lanes - begin < LANES ? job.lanes - begin : LANES), own);
  free(own);
  return NULL;
}
