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

/* Vectors of lanes: one where that keeps the coefficients of all orders near the first cache, or a W of each lane near
   the second. Beyond 32 neurons the products rule, which want two. Few enough rows at a time for their sums to stay in
   registers. */
#define BLOCK_BYTES ((long)N * N * BYTES)
#define GROUPS (OWN && 2 * BLOCK_BYTES > 1048576 ? 1 : N <= 4 ? 4 : N > 16 && N <= 32 ? 1 : 2)
#define ROWS (GROUPS == 1 ? 16 : GROUPS == 2 ? 8 : 4)
#define LANES (GROUPS * WIDTH)

enum { UNROLLED = N <= 8 ? 8 : 1 };

#include "taylor_series.h"

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
  integer moves[LANES] ALIGNED; /* -1 or 0: a mask. */
  int arrives[LANES];
#if PROJECTED
  real energy[LANES] ALIGNED, energy_low[LANES] ALIGNED;
  int starts[LANES], any_starts;
#endif
};

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

/* The states near x of the energies kept: a step of Halley's along the flow of the flow. */
static void project(rows x, const struct networks *w, const struct slots *slots) {
  rows s, flow, direction;
  for (int i = 0; i < N; i++)
    for (int g = 0; g < GROUPS; g++) s[i][g] = tanh_of(x[i][g]);
  product(w, s, flow);
  product(w, flow, direction);
  for (int g = 0; g < GROUPS; g++) {
    vec squared = spread(0), bend = spread(0);
    for (int i = 0; i < N; i++) {
      const vec d = direction[i][g], f = flow[i][g], t = s[i][g];
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
    for (int i = 0; i < N; i++) x[i][g] += step * direction[i][g];
  }
}

#endif

/* Lane number `lane` into slot k, or nothing (-1). */
static void fill(const struct job *job, struct slots *slots, rows x, struct networks *w, vec *own, int k, long lane) {
  slots->lane[k] = lane;
  slots->elapsed[k] = slots->lost[k] = 0;
  slots->num_steps[k] = slots->turns[k] = slots->kept[k] = slots->moves[k] = 0;
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
  slots->moves[k] = -(why == 0);
  if (why == 0 && !arrives && slots->num_steps[k] >= job->most_steps) why = job->late;
  slots->why[k] = why, slots->arrives[k] = arrives;
  slots->next_elapsed[k] = elapsed, slots->next_lost[k] = lost;
}

/* Whether nothing happens to any lane with this step but that it goes on; then time has gone on. */
INLINE int all_go_on(const struct job *job, struct slots *slots, const real *squares) {
  vec elapsed[GROUPS], lost[GROUPS];
  mask happens = (mask){};
  for (int g = 0; g < GROUPS; g++) {
    /* As `judge`. */
    const vec since = ((vec *)slots->elapsed)[g], rest = ((vec *)slots->lost)[g], size = ((vec *)slots->size)[g];
    const vec left = (job->duration - since) - rest, small = rest + size, square = ((const vec *)squares)[g];
    elapsed[g] = since + small, lost[g] = small - (elapsed[g] - since);
    const vec finite = size + square;
    happens |= (size >= left) | ((elapsed[g] == since) & (lost[g] == rest)) | (square > spread(job->escape));
    happens |= ~(finite - finite == spread(0));
  }
  if (anywhere(happens)) return 0;
  for (int k = 0; k < LANES; k++)
    if (slots->num_steps[k] + 1 >= job->most_steps) return 0;
  for (int k = 0; k < LANES; k++) slots->num_steps[k]++, slots->turns[k]++;
  for (int g = 0; g < GROUPS; g++) ((vec *)slots->elapsed)[g] = elapsed[g], ((vec *)slots->lost)[g] = lost[g];
  return 1;
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
    for (int g = 0; g < GROUPS; g++) evaluate(series, job->direction * ((vec *)since)[g], x, g);
#if PROJECTED
    project(x, w, slots);
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
  rows *const x = &series->x;
  struct slots slots = {};
  struct networks w = {.own = own, .shared = job->given.matrix};
  long next = 0;
  int running = 0;
  for (int k = 0; k < LANES; k++) {
    const long lane = next < job->lanes ? next++ : -1;
    running += lane >= 0;
    slots.last[k] = -1;
    fill(job, &slots, *x, &w, own, k, lane);
  }
  if (job->duration <= 0) running = 0;
  while (running > 0) {
    rows x1;
    real squares[LANES] ALIGNED;
#if PROJECTED
    look_at_starts(&slots, *x, &w);
#endif
    expand(series, &w);
    for (int g = 0; g < GROUPS; g++) {
      const vec left = (job->duration - ((vec *)slots.elapsed)[g]) - ((vec *)slots.lost)[g];
      const vec most = limit(series, job->rtol, job->atol, g), size = chosen(left < most, left, most);
      evaluate(series, job->direction * size, x1, g);
      ((vec *)slots.size)[g] = size;
    }
#if PROJECTED
    project(x1, &w, &slots);
#endif
    for (int g = 0; g < GROUPS; g++) {
      vec square = spread(0);
      for (int i = 0; i < N; i++) square += x1[i][g] * x1[i][g];
      ((vec *)squares)[g] = square;
    }
    if (running == LANES && job->times == 0 && all_go_on(job, &slots, squares)) {
      for (int v = 0; v < N * GROUPS; v++) ((vec *)*x)[v] = ((vec *)x1)[v];
      continue;
    }
    for (int k = 0; k < LANES; k++) {
      if (slots.lane[k] >= 0) judge(job, &slots, k, squares[k]);
      /* Nobody is left: an empty place counts for the lane that had it. */
      else if (slots.last[k] >= 0) job->turns[slots.last[k]]++;
    }
    if (job->times > 0) keep(job, &slots, series, &w);
    for (int i = 0; i < N; i++)
      for (int g = 0; g < GROUPS; g++) (*x)[i][g] = chosen(((mask *)slots.moves)[g], x1[i][g], (*x)[i][g]);
    for (int k = 0; k < LANES; k++) {
      if (slots.lane[k] < 0) continue;
      if (slots.moves[k]) slots.elapsed[k] = slots.next_elapsed[k], slots.lost[k] = slots.next_lost[k];
      if (slots.why[k] == 0 && !slots.arrives[k]) continue;
      leave(job, &slots, *x, k);
      const long following = next < job->lanes ? next++ : -1;
      fill(job, &slots, *x, &w, own, k, following);
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
