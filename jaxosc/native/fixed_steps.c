/* Fixed steps of forward Euler or Poisson splitting in many lanes, with the measures that look at every step.

   Compiled for one case: -DN=8 neurons, -DREAL=float (or double), -DSPLITTING (0: Euler, 1: one sweep, 2: pairs of
   sweeps), -DOWN (0: one W for all lanes, 1: a W each), -DBY_NEURON (see below), -DTILES (1: products on the tile unit,
   see tiles.h), -DHOLLOW (1: Euler leaves the diagonal of W out), -DACTIVATION=tanh_of, -DHANDLER=name, and the numbers
   of tanh. The compiler unrolls what N allows.

   A few lanes ("a block") go through all their steps before the next ones start, so that whatever a step touches stays
   in registers and the first cache. What becomes of a lane does not depend on its neighbours: each sum has one order,
   and a lane that leaves is found as the engine in JAX finds it (see `simulate/engine.py`): one look every SAMPLE_EVERY
   steps, and if somebody has left, those steps again with a look at the suspects after each. */

#include <stddef.h>
#include <string.h>

#include "calls.h"
#include "functions.h"
#include "vectors.h"

#define SAMPLE_EVERY 10

/* A compiler that does not know the tile unit leaves the products to the vector units. */
#if TILES && !defined(__AMX_BF16__)
#undef TILES
#define TILES 0
#endif

/* BY_NEURON: a large W of its own goes across the vectors neuron by neuron, read from the first cache in every step,
   where lanes side by side would have to fetch theirs from the second. Not in a splitting, whose neurons wait for each
   other. */
#define PARTS ((N + WIDTH - 1) / WIDTH)

#if BY_NEURON
#define LANES (PARTS >= 8 ? 1 : PARTS >= 4 ? 2 : 4)
#define GROUPS 1
#define STATE (LANES * PARTS * WIDTH)
/* sigma of these lanes is known before a step, see `euler_step.h`. */
#define AHEAD (LANES / 2)
#define FIRST (AHEAD * PARTS + 1)
#else
#define FIRST GROUPS
/* Vectors of lanes: enough to hide how long sigma takes, few enough for sums to stay in registers, and as few as the
   second cache holds the matrices of, with room for other things: where they fill it, they push each other out. */
#define OWN_BYTES ((long)N * N * BYTES)
#define OWN_MOST (3 * 524288)
#if SPLITTING && !OWN
/* More, as each row waits for sigma of the row before, and fewer rows at a time then. */
#define GROUPS (N <= 16 ? 8 : 6)
#define ROWS (N <= 16 ? 2 : N <= 48 ? 3 : 4)
#else
#define GROUPS (OWN && 4 * OWN_BYTES > OWN_MOST ? (2 * OWN_BYTES > OWN_MOST ? 1 : 2) : N <= 4 ? 8 : 4)
/* One vector waits for each sigma in turn, and less the fewer of its rows wait for each other. */
#define ROWS (GROUPS == 2 ? 8 : 4)
#endif
#define LANES (GROUPS * WIDTH)
#define STATE (N * LANES)
#endif

/* Vectors of lanes in a block of those that are left: tiles take two at once, and rows that wait have time for two. */
#define FEW (TILES || (SPLITTING && !OWN) ? 2 : 1)

/* Blocks of rows written out: with more in sight the compiler interleaves what does not fit the registers. */
enum { UNROLLED = N <= 4 ? 16 : 1 };

#include "networks.h"

/* What a call works on; pointers are NULL for what is not measured. */
struct job {
  struct given given;
  const real *x, *sizes;
  long lanes, stages;
  real dt, escape;
  int begin, end, samples, escaped, lost;
  const int8_t *result;
  const int32_t *num_steps, *norm_at, *count, *last_step, *worst_at;
  const real *norm, *last_fraction, *first, *deviation, *squares, *start, *worst;
  real *x1, *norm1, *last_fraction1, *first1, *deviation1, *squares1, *start1, *worst1, *sampled;
  int8_t *result1;
  int32_t *num_steps1, *norm_at1, *count1, *last_step1, *worst_at1;
};

/* The measures of a block: the largest squared norm and its step; crossings of zero by neuron 0; the energy at the
   start, its largest drift and the step of that. Vectors of lanes are read at once, so all start at whole ones. */
struct measures {
  real norm[LANES] ALIGNED, last_fraction[LANES], first[LANES], deviation[LANES], squares[LANES];
  integer norm_at[LANES] ALIGNED;
  int32_t count[LANES], last_step[LANES];
  /* From here on, what a step does not touch. */
  real start[LANES] ALIGNED, worst[LANES] ALIGNED;
  integer worst_at[LANES] ALIGNED;
};

#define TOUCHED offsetof(struct measures, start)

#include "measures.h"

#if SPLITTING
#include "splitting_step.h"
#else
#include "euler_step.h"
#endif

#if !TILES
enum { TILES_BYTES = 0 };
#elif !SPLITTING
#include "euler_tiles.h"
#endif

#if BY_NEURON
/* Steps that nothing looks at, whose states may stay in registers. */
INLINE void unmeasured(vec *y, vec *first, const struct networks *w, const struct job *job, int32_t count) {
  vec z[LANES * PARTS], ahead[FIRST];
#pragma GCC unroll 16
  for (int k = 0; k < LANES * PARTS; k++) z[k] = y[k];
#pragma GCC unroll 16
  for (int k = 0; k < AHEAD * PARTS; k++) ahead[k] = first[k];
#pragma GCC unroll 1
  for (int32_t k = 0; k < count; k++) step(z, ahead, w, job, 1);
#pragma GCC unroll 16
  for (int k = 0; k < LANES * PARTS; k++) y[k] = z[k];
#pragma GCC unroll 16
  for (int k = 0; k < AHEAD * PARTS; k++) first[k] = ahead[k];
}
#endif

/* Steps number `from` to `to` with their measures, at most SAMPLE_EVERY, which nobody looks at. */
INLINE void stretch(real *y, vec *first, struct measures *kept, const struct networks *w, const struct job *job,
                    int32_t from, int32_t to, const int groups) {
  const int lanes = BY_NEURON ? LANES : groups * WIDTH;
  struct course course;
#if BY_NEURON
  if (!job->norm && !job->count) {
    unmeasured((vec *)y, first, w, job, to - from);
    return;
  }
#endif
  if (job->count) begin_course(&course, y, lanes);
#if TILES && !SPLITTING
  stretch_on_tiles((vec *)y, kept, &course, w, job, from, to, groups);
#else
#pragma GCC unroll 1
  for (int32_t k = from; k < to; k++) {
    step((vec *)y, first, w, job, groups);
    measure(kept, &course, (vec *)y, job, k, from, 0, BY_NEURON ? LANES : groups, groups);
  }
#endif
  if (job->count) end_course(kept, &course, from, to, lanes, groups);
}

#define STRETCH(name, groups)                                                                               \
  static __attribute__((noinline)) void name(real *y, vec *first, struct measures *kept,                    \
                                             const struct networks *w, const struct job *job, int32_t from, \
                                             int32_t to) {                                                  \
    stretch(y, first, kept, w, job, from, to, groups);                                                      \
  }

STRETCH(stretch_of_many, GROUPS)
STRETCH(stretch_of_few, FEW)

#define LOOK(name, groups)                                                                     \
  static __attribute__((noinline)) void name(struct measures *kept, real *y, int32_t number) { \
    measure_energy(kept, y, number, BY_NEURON ? LANES : (groups) * WIDTH, groups);             \
  }

LOOK(look_at_many, GROUPS)
LOOK(look_at_few, FEW)

/* One lane back to where it was. */
static void put_back(real *y, const real *y0, struct measures *kept, const struct measures *kept0, int k, int width) {
  for (int i = 0; i < N; i++) *at(y, i, k, width) = *at((real *)y0, i, k, width);
#define BACK(name) kept->name[k] = kept0->name[k]
  BACK(norm), BACK(last_fraction), BACK(first), BACK(deviation), BACK(squares);
  BACK(norm_at), BACK(count), BACK(last_step);
#undef BACK
}

/* Whether the squared norm of a lane, frozen or not, is beyond the limit or no number. */
INLINE int some_outside(const real *norms, real most, const int lanes) {
#if BY_NEURON
  int outside = 0;
  for (int k = 0; k < lanes; k++) outside |= !(norms[k] <= most);
  return outside;
#else
  mask outside = spread(0) != spread(0);
  for (int k = 0; k < lanes; k += WIDTH) outside |= ~(*(const vec *)(norms + k) <= spread(most));
  return anywhere(outside);
#endif
}

/* What steps want of states that they have not led to themselves. */
INLINE void prepare(vec *y, vec *first, const struct networks *w, const int groups) {
#if TILES && !SPLITTING
  split_states(y, w->tiles, groups);
#elif SPLITTING
#pragma GCC unroll 8
  for (int g = 0; g < groups; g++) first[g] = ACTIVATION(y[g]);
#elif BY_NEURON
  activate_lanes(y, first, AHEAD);
#endif
}

#if BY_NEURON
/* The columns of W one after the other, from a few rows and columns at a time: those lines fit the first cache for
   every n. */
static void turn(real *columns, const real *matrix) {
  enum { TILE = 16 };
  for (int top = 0; top < N; top += TILE)
    for (int left = 0; left < N; left += TILE) {
      const int right = left + TILE < N ? left + TILE : N;
      for (int i = top; i < N && i < top + TILE; i++)
#pragma GCC unroll 8
        for (int j = left; j < right; j++) columns[(long)j * PARTS * WIDTH + i] = matrix[(long)i * N + j];
    }
}
#endif

/* The lanes from `begin` on, of which `count` count; the others do the last one again. */
static void run_block(const struct job *job, long begin, int count, vec *own, int groups) {
  const int lanes = BY_NEURON ? LANES : groups * WIDTH;
  const size_t size = sizeof(real) * (BY_NEURON ? STATE : N * lanes);
  real y[STATE] ALIGNED, y0[STATE] ALIGNED, norms[LANES] ALIGNED;
  vec first[FIRST];
  struct measures kept ALIGNED, kept0 ALIGNED;
  struct networks w;
  int8_t result[LANES];
  int32_t num_steps[LANES];
  int frozen = 0;
  /* Steps that all lanes have taken, while none has left. */
  int32_t together = 0;
  void (*const look)(struct measures *, real *, int32_t) = groups == GROUPS ? look_at_many : look_at_few;
  void (*const go)(real *, vec *, struct measures *, const struct networks *, const struct job *, int32_t,
                   int32_t) =
      groups == GROUPS ? stretch_of_many : stretch_of_few;
#define LANE(k) (begin + ((k) < count ? (k) : count - 1))
  memset(y, 0, sizeof y);
  memset(&kept, 0, sizeof kept);
  for (int k = 0; k < lanes; k++) {
    const long lane = LANE(k);
    for (int i = 0; i < N; i++) *at(y, i, k, lanes) = job->x[i * job->lanes + lane];
    result[k] = job->result[lane], num_steps[k] = job->num_steps[lane];
    frozen += result[k] != 0;
    if (job->norm) kept.norm[k] = job->norm[lane], kept.norm_at[k] = job->norm_at[lane];
    if (job->start)
      kept.start[k] = job->start[lane], kept.worst[k] = job->worst[lane], kept.worst_at[k] = job->worst_at[lane];
    if (job->count) {
      kept.count[k] = job->count[lane], kept.last_step[k] = job->last_step[lane];
      kept.last_fraction[k] = job->last_fraction[lane], kept.first[k] = job->first[lane];
      kept.deviation[k] = job->deviation[lane], kept.squares[k] = job->squares[lane];
    }
  }
  memset(w.bias, 0, sizeof w.bias);
  for (int k = 0; k < lanes; k++) take(&w, &job->given, k, LANE(k), lanes);
  w.shared = job->given.matrix, w.own = own;
#if TILES
  struct tiles tiles = tiles_in((char *)own);
  w.tiles = &tiles;
#endif
#if BY_NEURON
  for (int k = 0; k < lanes; k++) turn((real *)own + (long)k * N * PARTS * WIDTH, job->given.matrix + LANE(k) * N * N);
#elif OWN
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++)
      for (int k = 0; k < lanes; k++)
        ((real *)own)[((long)i * N + j) * lanes + k] = job->given.matrix[((long)i * N + j) * job->lanes + LANE(k)];
#endif
  prepare((vec *)y, first, &w, groups);
  int32_t number = job->begin;
  int sample = 0;
  while (number < job->end && frozen < lanes) {
    int32_t next = (number / SAMPLE_EVERY + 1) * SAMPLE_EVERY;
    if (next > job->end) next = job->end;
    memcpy(y0, y, size);
    if (job->norm || job->count) memcpy(&kept0, &kept, TOUCHED);
    go(y, first, &kept, &w, job, number, next);
    square_norms((vec *)y, norms, 0, BY_NEURON ? LANES : groups, groups);
    int leaving = some_outside(norms, job->escape, lanes);
    if (!leaving && !frozen) {
      together += next - number;
    } else {
      int8_t suspect[LANES];
      for (int k = 0; k < lanes; k++) num_steps[k] += together;
      together = leaving = 0;
      for (int k = 0; k < lanes; k++) {
        suspect[k] = result[k] == 0 && !(norms[k] <= job->escape);
        leaving |= suspect[k];
      }
      const int again = leaving && next > number + 1;
      if (again) {
        memcpy(y, y0, size);
        memcpy(&kept, &kept0, TOUCHED);
        prepare((vec *)y, first, &w, groups);
      }
      for (int32_t from = number; from < next; from++) {
        if (again) {
          memcpy(y0, y, size);
          memcpy(&kept0, &kept, TOUCHED);
          go(y, first, &kept, &w, job, from, from + 1);
          square_norms((vec *)y, norms, 0, BY_NEURON ? LANES : groups, groups);
        }
        for (int k = 0; k < lanes; k++) {
          if (result[k] == 0 && suspect[k] && !(norms[k] <= job->escape)) {
            result[k] = is_finite(norms[k]) ? job->escaped : job->lost;
            frozen++;
          }
          if (result[k] != 0)
            put_back(y, y0, &kept, &kept0, k, lanes);
          else
            num_steps[k] += again ? 1 : next - number;
        }
        prepare((vec *)y, first, &w, groups);
        if (!again) break;
      }
    }
    number = next;
    if (job->start && number % SAMPLE_EVERY == 0) look(&kept, y, number);
    if (number % SAMPLE_EVERY == 0 && sample < job->samples) {
      for (int i = 0; i < N; i++)
        for (int k = 0; k < count; k++)
          job->sampled[((long)sample * N + i) * job->lanes + begin + k] = *at(y, i, k, lanes);
      sample++;
    }
  }
  /* Where every lane is frozen, or the run ends before the last sample, the others are where it ended. */
  for (; sample < job->samples; sample++)
    for (int i = 0; i < N; i++)
      for (int k = 0; k < count; k++)
        job->sampled[((long)sample * N + i) * job->lanes + begin + k] = *at(y, i, k, lanes);
  for (int k = 0; k < count; k++) {
    const long lane = begin + k;
    for (int i = 0; i < N; i++) job->x1[i * job->lanes + lane] = *at(y, i, k, lanes);
    job->result1[lane] = result[k], job->num_steps1[lane] = num_steps[k] + together;
    if (job->norm) job->norm1[lane] = kept.norm[k], job->norm_at1[lane] = kept.norm_at[k];
    if (job->start)
      job->start1[lane] = kept.start[k], job->worst1[lane] = kept.worst[k], job->worst_at1[lane] = kept.worst_at[k];
    if (job->count) {
      job->count1[lane] = kept.count[k], job->last_step1[lane] = kept.last_step[k];
      job->last_fraction1[lane] = kept.last_fraction[k], job->first1[lane] = kept.first[k];
      job->deviation1[lane] = kept.deviation[k], job->squares1[lane] = kept.squares[k];
    }
  }
}

/* Operands: x (n, lanes), W (n, n, lanes or 1; by neuron lanes, n, n), gain, bias, leak (or nothing, size 0), sizes of
   the sweeps times dt, scalars (dt, escape_norm^2), numbers (begin, end, codes of escaped and of not finite), result,
   num_steps; norm, its step; count, last step, last fraction, first interval, deviation, squares; energy at the start,
   largest drift, its step (size 0 where not measured).
   Results: x, result, num_steps, the measures in that order, samples (samples, n, lanes). */
XLA_FFI_Error *HANDLER(XLA_FFI_CallFrame *frame) {
  if (answered(frame)) return NULL;
  const real *scalars = IN(6)->data;
  const int32_t *numbers = IN(7)->data;
  const struct job job = {
      .given = NETWORKS, .x = IN(0)->data, .sizes = IN(5)->data, .lanes = LAST(0), .stages = LAST(5),
      .dt = scalars[0], .escape = scalars[1], .begin = numbers[0], .end = numbers[1], .escaped = numbers[2],
      .lost = numbers[3], .samples = (int)RESULT(14)->dims[0], .result = IN(8)->data, .num_steps = IN(9)->data,
      .norm = GIVEN(10), .norm_at = GIVEN(11), .count = GIVEN(12), .last_step = GIVEN(13), .last_fraction = GIVEN(14),
      .first = GIVEN(15), .deviation = GIVEN(16), .squares = GIVEN(17), .start = GIVEN(18), .worst = GIVEN(19),
      .worst_at = GIVEN(20), .x1 = OUT(0), .result1 = OUT(1), .num_steps1 = OUT(2), .norm1 = OUT(3),
      .norm_at1 = OUT(4), .count1 = OUT(5), .last_step1 = OUT(6), .last_fraction1 = OUT(7), .first1 = OUT(8),
      .deviation1 = OUT(9), .squares1 = OUT(10), .start1 = OUT(11), .worst1 = OUT(12), .worst_at1 = OUT(13),
      .sampled = OUT(14)};
  vec *own = NULL;
#if OWN || TILES
  const size_t size = TILES ? TILES_BYTES : BY_NEURON ? sizeof(vec) * LANES * N * PARTS : sizeof(vec) * N * N * GROUPS;
  own = aligned_alloc(BYTES, size);
  if (own == NULL) return no_memory(frame);
  memset(own, 0, size);
#endif
#if TILES
  begin_tiles();
  split_matrix((char *)own, job.given.matrix);
#endif
  long begin = 0;
  for (; job.lanes - begin >= LANES; begin += LANES) run_block(&job, begin, LANES, own, GROUPS);
  /* What is left: in one block if it fills most of it, else in narrow ones. */
  const long narrow = BY_NEURON ? LANES : FEW * WIDTH;
  if (job.lanes - begin > LANES / 2) {
    run_block(&job, begin, (int)(job.lanes - begin), own, GROUPS);
  } else {
    for (; begin < job.lanes; begin += narrow)
      run_block(&job, begin, (int)(job.lanes - begin < narrow ? job.lanes - begin : narrow), own, FEW);
  }
#if TILES
  _tile_release();
#endif
  free(own);
  return NULL;
}
