/* Adaptive steps by Taylor series in many lanes, for tanh networks.

   Compiled for one case: -DN=8 neurons, -DREAL=float (or double), -DORDER=8 terms, -DOWN (0: one W for all lanes, 1: a
   W each), -DPROJECTED (1: each step ends on the energy of the start), -DHANDLER=name, and the numbers of tanh. As
   `solvers/taylor_series.py`, `solvers/energy_projection.py` and `simulate/adaptive_lanes.py`.

   Lanes go through their steps side by side in the slots of a block. A lane that has arrived makes room for the next
   one, so that nobody waits for the slowest. What becomes of a lane does not depend on its neighbours. */

#include <math.h>
#include <string.h>

#include "calls.h"
#include "exact_energy.h"
#include "functions.h"
#include "vectors.h"

/* Vectors of lanes: one where that brings the coefficients of all orders near the first cache, from which each order
   reads those of all before, or a W of each lane into the second. Beyond 32 neurons the products rule, which want two.
   Few enough rows at a time for their sums to stay in registers. */
#define BLOCK_BYTES ((long)N * N * BYTES)
#define GROUPS (OWN && 2 * BLOCK_BYTES > 1048576 ? 1 : N <= 4 ? 4 : N > 16 && N <= 32 ? 1 : 2)
#define ROWS (GROUPS == 1 ? 16 : GROUPS == 2 ? 8 : 4)
#define LANES (GROUPS * WIDTH)

enum { UNROLLED = N <= 8 ? 8 : 1 };

#include "networks.h"

struct job {
  struct given given;
  const real *x;
  long lanes;
  real direction, duration, rtol, atol, escape;
  int32_t most_steps, escaped, lost, stuck, late;
  const real *wanted;
  long times;
  real *x1, *saved;
  int8_t *result;
  int32_t *num_steps, *turns;
};

/* Slots: which lane is where (-1: none) and was there last, how far it is and gets with the next step, how many wanted
   times it has kept, and the energy that it keeps. */
struct slots {
  long lane[LANES], last[LANES], kept[LANES];
  real elapsed[LANES], lost[LANES], next_elapsed[LANES], next_lost[LANES], size[LANES] ALIGNED;
  int32_t num_steps[LANES], turns[LANES], why[LANES];
  int arrives[LANES], moves[LANES];
#if PROJECTED
  real energy[LANES] ALIGNED, energy_low[LANES] ALIGNED;
  int starts[LANES], any_starts;
#endif
};

/* One more row where the same neuron of all orders would fall on few lines of the first cache. */
typedef vec rows[N + (N * GROUPS * BYTES % 1024 == 0)][GROUPS];

/* Coefficients of order k in all slots: of the state, of s = tanh, of its slope 1 - s^2, and rate[k] = (k + 1) X_{k+1}.
   Too much for a stack. */
struct series {
  rows state[ORDER + 1], s[ORDER], slope[ORDER], rate[ORDER];
};

/* Rows i to i + count, all their sums at once: each of them waits for its last addition. */
#define EACH(r, g, count)                                      \
  _Pragma("GCC unroll 16") for (int r = 0; r < (count); r++) \
      _Pragma("GCC unroll 4") for (int g = 0; g < GROUPS; g++)

/* s of order 0. */
INLINE void expand_tanh(struct series *series, int i, const int count) {
  rows *const state = series->state, *const s = series->s;
  for (int g = 0; g < GROUPS; g++) {
    if (count % 2) {
      s[0][i][g] = tanh_of(state[0][i][g]);
    } else {
      for (int r = i; r < i + count; r += 2)
        tanh_of_two(state[0][r][g], state[0][r + 1][g], &s[0][r][g], &s[0][r + 1][g]);
    }
  }
}

/* s of order k > 0, from s' = slope y'. */
INLINE void expand_s(struct series *series, int k, int i, const int count) {
  rows *const s = series->s, *const slope = series->slope, *const rate = series->rate;
  const vec share = spread((real)1 / k);
  vec sum[ROWS][GROUPS];
  EACH(r, g, count) sum[r][g] = rounded(slope[k - 1][i + r][g] * rate[0][i + r][g]);
#pragma GCC unroll 1
  for (int j = 1; j < k; j++)
    EACH(r, g, count) sum[r][g] += slope[k - 1 - j][i + r][g] * rate[j][i + r][g];
  EACH(r, g, count) s[k][i + r][g] = sum[r][g] * share;
}

/* The rate of order k and the next order of the state. */
INLINE void expand_state(struct series *series, const struct networks *w, int k, int i, const int count) {
  rows *const state = series->state, *const s = series->s, *const rate = series->rate;
  const vec share = spread((real)1 / (k + 1));
  vec sum[ROWS][GROUPS];
  nothing(sum, count, GROUPS);
  add_rows(sum, w, s[k][0], i, count, 0, N, GROUPS);
  EACH(r, g, count) {
    vec value = sum[r][g];
    if (!w->plain) {
      value = gained(w, value, g);
      if (k == 0 && w->has_bias) value += w->bias[(i + r) * GROUPS + g];
      if (w->has_leak) value -= w->leak[g] * state[k][i + r][g];
      value = rounded(value);
    }
    rate[k][i + r][g] = value;
    state[k + 1][i + r][g] = value * share;
  }
}

/* The slope of order k: -(s^2)_k, and 1 more for k = 0. */
INLINE void expand_slope(struct series *series, int k, int i, const int count) {
  rows *const s = series->s, *const slope = series->slope;
  vec sum[ROWS][GROUPS];
  nothing(sum, count, GROUPS);
#pragma GCC unroll 1
  for (int j = 0; j < (k + 1) / 2; j++)
    EACH(r, g, count) sum[r][g] += s[j][i + r][g] * s[k - j][i + r][g];
  EACH(r, g, count) {
    sum[r][g] = rounded(2 * sum[r][g]);
    if (k % 2 == 0) sum[r][g] += s[k / 2][i + r][g] * s[k / 2][i + r][g];
    slope[k][i + r][g] = k == 0 ? 1 - sum[r][g] : -sum[r][g];
  }
}

#define EACH_BLOCK(call, ...)                                              \
  do {                                                                     \
    _Pragma("GCC unroll UNROLLED") for (int i = 0; i < N / ROWS * ROWS; i += ROWS) \
        call(__VA_ARGS__, i, ROWS);                                        \
    if (N % ROWS) call(__VA_ARGS__, N / ROWS * ROWS, N % ROWS);            \
  } while (0)

static void expand(struct series *series, const struct networks *w) {
#pragma GCC unroll 1
  for (int i = 0; i < N / 2 * 2; i += 2) expand_tanh(series, i, 2);
  if (N % 2) expand_tanh(series, N - 1, 1);
  for (int k = 0; k < ORDER; k++) {
    if (k > 0) EACH_BLOCK(expand_s, series, k);
    EACH_BLOCK(expand_state, series, w, k);
    if (k + 1 < ORDER) EACH_BLOCK(expand_slope, series, k);
  }
}

INLINE vec largest(rows x, int g) {
  vec most = size_of(x[0][g]);
  for (int i = 1; i < N; i++) {
    const vec size = size_of(x[i][g]);
    /* A NaN stays. */
    most = chosen((most < size) | (size != size), size, most);
  }
  return most;
}

/* The longest step that the last two terms allow. */
INLINE vec limit(rows *state, const struct job *job, int g) {
  const vec tolerance = job->atol + job->rtol * largest(state[0], g), known = log_of(tolerance);
  const vec one = (known - log_of(largest(state[ORDER - 1], g))) * (real)(1. / (ORDER - 1));
  const vec other = (known - log_of(largest(state[ORDER], g))) * (real)(1. / ORDER);
  return exp_of(chosen(other < one, other, one));
}

#if PROJECTED

/* The energies of lanes that have just come. One with a leak keeps none. */
static void look_at_starts(struct slots *slots, rows x, const struct networks *w) {
  if (!slots->any_starts) return;
  real energies[LANES] ALIGNED, lows[LANES] ALIGNED;
  for (int g = 0; g < GROUPS; g++) {
    const pair energy = exact_energy_of(x[0] + g, GROUPS, N);
    ((vec *)energies)[g] = energy.high, ((vec *)lows)[g] = energy.low;
  }
  for (int k = 0; k < LANES; k++) {
    if (!slots->starts[k]) continue;
    slots->energy[k] = w->has_leak && ((const real *)w->leak)[k] != 0 ? NAN : energies[k];
    slots->energy_low[k] = lows[k];
  }
  memset(slots->starts, 0, sizeof slots->starts);
  slots->any_starts = 0;
}

/* gain W t. */
static void product(const struct networks *w, rows t, rows out) {
#define EACH_PRODUCT(i, count)                                                        \
  do {                                                                                \
    vec sum[ROWS][GROUPS];                                                            \
    nothing(sum, count, GROUPS);                                                      \
    add_rows(sum, w, t[0], i, count, 0, N, GROUPS);                                   \
    EACH(r, g, count) out[(i) + r][g] = rounded(gained(w, sum[r][g], g));             \
  } while (0)
#pragma GCC unroll UNROLLED
  for (int i = 0; i < N / ROWS * ROWS; i += ROWS) EACH_PRODUCT(i, ROWS);
  if (N % ROWS) EACH_PRODUCT(N / ROWS * ROWS, N % ROWS);
}

/* The states near x of the energies kept: a step of Halley's along the flow of the flow. Overwrites coefficients that
   only the expansion needed. */
static void project(struct series *series, rows x, const struct networks *w, const struct slots *slots) {
  rows *const s = &series->s[0], *const flow = &series->rate[0], *const direction = &series->slope[0];
  for (int i = 0; i < N; i++)
    for (int g = 0; g < GROUPS; g++) (*s)[i][g] = tanh_of(x[i][g]);
  product(w, *s, *flow);
  product(w, *flow, *direction);
  for (int g = 0; g < GROUPS; g++) {
    vec squared = spread(0), bend = spread(0);
    for (int i = 0; i < N; i++) {
      const vec d = (*direction)[i][g], f = (*flow)[i][g], t = (*s)[i][g];
      squared += f * f;
      bend += rounded(1 - t * t) * rounded(d * d);
    }
    const vec energy = ((const vec *)slots->energy)[g], size = chosen(energy < spread(0), -energy, energy);
    /* At an equilibrium there is no direction, and nothing is lost. Written so that a NaN shows. */
    const mask rests = squared <= size * (sizeof(real) == 4 ? 1.1920929e-07f : 2.220446049250313e-16);
    const vec by = chosen(rests, spread(1), squared);
    const pair now = exact_energy_of(x[0] + g, GROUPS, N);
    const vec off = rounded(now.high - energy) + (now.low - ((const vec *)slots->energy_low)[g]);
    vec step = off / by;
    step = chosen(rests, spread(0), step + rounded((real)0.5 * step * step) * bend / by);
    for (int i = 0; i < N; i++) x[i][g] += step * (*direction)[i][g];
  }
}

#endif

/* Lane number `lane` into slot k, or nothing (-1). */
static void fill(const struct job *job, struct slots *slots, rows x, struct networks *w, vec *own, int k, long lane) {
  slots->lane[k] = lane;
  slots->elapsed[k] = slots->lost[k] = 0;
  slots->num_steps[k] = slots->turns[k] = slots->kept[k] = 0;
#if PROJECTED
  slots->starts[k] = slots->any_starts = 1;
#endif
  for (int i = 0; i < N; i++) ((real *)x)[i * LANES + k] = lane < 0 ? 0 : job->x[i * job->lanes + lane];
  if (lane < 0) return;
  take(w, &job->given, k, lane, LANES);
#if OWN
  for (long ij = 0; ij < N * N; ij++) ((real *)own)[ij * LANES + k] = job->given.matrix[ij * job->lanes + lane];
#endif
}

/* The states h after the beginning of the step. */
INLINE void evaluate(rows *state, const vec h, rows x, int g) {
  for (int i = 0; i < N; i++) {
    vec value = state[ORDER][i][g];
#pragma GCC unroll 4
    for (int k = ORDER - 1; k >= 0; k--) value = value * h + state[k][i][g];
    x[i][g] = value;
  }
}

/* What becomes of the lane in slot k, whose step has led to a state of this squared norm. */
static void judge(const struct job *job, struct slots *slots, int k, real square) {
  const real size = slots->size[k], left = (job->duration - slots->elapsed[k]) - slots->lost[k];
  const real small = slots->lost[k] + size;
  real elapsed = slots->elapsed[k] + small, lost = small - (elapsed - slots->elapsed[k]);
  const int arrives = size >= left;
  if (arrives) elapsed = job->duration, lost = 0;
  int32_t why = elapsed == slots->elapsed[k] && lost == slots->lost[k] ? job->stuck : 0;
  if (square > job->escape) why = job->escaped;
  if (!is_finite(size + square) && !(size > 0 && !is_finite(size) && size == size)) why = job->lost;
  slots->num_steps[k]++, slots->turns[k]++;
  slots->moves[k] = why == 0;
  if (why == 0 && !arrives && slots->num_steps[k] >= job->most_steps) why = job->late;
  slots->why[k] = why, slots->arrives[k] = arrives;
  slots->next_elapsed[k] = elapsed, slots->next_lost[k] = lost;
}

/* Keeps the states at the wanted times that the step has passed, one a lane in each turn. */
static void keep(const struct job *job, struct slots *slots, struct series *series, const struct networks *w) {
  for (;;) {
    rows x;
    real since[LANES] ALIGNED;
    int due[LANES], any = 0;
    for (int k = 0; k < LANES; k++) {
      const long place = slots->kept[k];
      due[k] = slots->lane[k] >= 0 && slots->moves[k] && place < job->times &&
               job->wanted[place] <= slots->next_elapsed[k];
      any |= due[k];
      real after = due[k] ? (job->wanted[place] - slots->elapsed[k]) - slots->lost[k] : 0;
      after = after > slots->size[k] ? slots->size[k] : after;
      since[k] = after < 0 ? 0 : after;
    }
    if (!any) return;
    for (int g = 0; g < GROUPS; g++) evaluate(series->state, job->direction * ((vec *)since)[g], x, g);
#if PROJECTED
    project(series, x, w, slots);
#endif
    for (int k = 0; k < LANES; k++) {
      if (!due[k]) continue;
      real *to = job->saved + slots->kept[k]++ * N * job->lanes + slots->lane[k];
      for (int i = 0; i < N; i++) to[i * job->lanes] = ((real *)x)[i * LANES + k];
    }
  }
}

/* The lane in slot k has come to its end, in the state x. */
static void leave(const struct job *job, struct slots *slots, rows x, int k) {
  const long lane = slots->lane[k];
  for (int i = 0; i < N; i++) {
    const real value = ((real *)x)[i * LANES + k];
    job->x1[i * job->lanes + lane] = value;
    /* What it did not live to see is where it stopped. */
    for (long time = slots->kept[k]; time < job->times; time++) job->saved[(time * N + i) * job->lanes + lane] = value;
  }
  job->result[lane] = slots->why[k], job->num_steps[lane] = slots->num_steps[k], job->turns[lane] = slots->turns[k];
  slots->last[k] = lane;
}

static void run(const struct job *job, vec *own, struct series *series) {
  rows *const state = series->state;
  struct slots slots = {};
  struct networks w = {.own = own, .shared = job->given.matrix};
  long next = 0;
  int running = 0;
  for (int k = 0; k < LANES; k++) {
    const long lane = next < job->lanes ? next++ : -1;
    running += lane >= 0;
    slots.last[k] = -1;
    fill(job, &slots, state[0], &w, own, k, lane);
  }
  if (job->duration <= 0) running = 0;
  while (running > 0) {
    rows x1;
    real squares[LANES] ALIGNED;
#if PROJECTED
    look_at_starts(&slots, state[0], &w);
#endif
    expand(series, &w);
    for (int g = 0; g < GROUPS; g++) {
      const vec left = (job->duration - ((vec *)slots.elapsed)[g]) - ((vec *)slots.lost)[g];
      const vec most = limit(state, job, g), size = chosen(left < most, left, most);
      evaluate(state, job->direction * size, x1, g);
      ((vec *)slots.size)[g] = size;
    }
#if PROJECTED
    project(series, x1, &w, &slots);
#endif
    for (int g = 0; g < GROUPS; g++) {
      vec square = spread(0);
      for (int i = 0; i < N; i++) square += x1[i][g] * x1[i][g];
      ((vec *)squares)[g] = square;
    }
    for (int k = 0; k < LANES; k++) {
      if (slots.lane[k] >= 0) judge(job, &slots, k, squares[k]);
      /* Nobody is left: an empty place counts for the lane that had it. */
      else if (slots.last[k] >= 0) job->turns[slots.last[k]]++;
    }
    if (job->times > 0) keep(job, &slots, series, &w);
    for (int k = 0; k < LANES; k++) {
      if (slots.lane[k] < 0) continue;
      if (slots.moves[k]) {
        slots.elapsed[k] = slots.next_elapsed[k], slots.lost[k] = slots.next_lost[k];
        for (int i = 0; i < N; i++) ((real *)state[0])[i * LANES + k] = ((real *)x1)[i * LANES + k];
      }
      if (slots.why[k] == 0 && !slots.arrives[k]) continue;
      leave(job, &slots, state[0], k);
      const long following = next < job->lanes ? next++ : -1;
      fill(job, &slots, state[0], &w, own, k, following);
      if (following < 0) running--;
    }
  }
}

/* Operands: x (n, lanes), W (n, n, lanes or 1), gain, bias, leak (or nothing, size 0), scalars (direction, duration,
   rtol, atol, escape_norm^2), numbers (most steps, codes of escaped, not finite, stuck and too many steps), the times
   (times,) since the beginning at which states are wanted, ascending.
   Results: x, result, num_steps, turns, states (times, n, lanes). */
XLA_FFI_Error *HANDLER(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return NULL;
  const real *scalars = IN(5)->data;
  const int32_t *numbers = IN(6)->data;
  const struct job job = {
      .given = NETWORKS, .x = IN(0)->data, .lanes = LAST(0), .direction = scalars[0],
      .duration = scalars[1], .rtol = scalars[2], .atol = scalars[3], .escape = scalars[4], .most_steps = numbers[0],
      .escaped = numbers[1], .lost = numbers[2], .stuck = numbers[3], .late = numbers[4], .wanted = IN(7)->data,
      .times = LAST(7), .x1 = OUT(0), .result = OUT(1), .num_steps = OUT(2), .turns = OUT(3), .saved = OUT(4)};
  const size_t matrices = OWN ? sizeof(vec) * N * N * GROUPS : 0;
  struct series *series = aligned_alloc(BYTES, sizeof(struct series) + matrices);
  if (series == NULL) return no_memory(frame);
  memset(series, 0, sizeof(struct series) + matrices);
  run(&job, (vec *)(series + 1), series);
  free(series);
  return NULL;
}
