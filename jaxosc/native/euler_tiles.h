/* Steps of forward Euler with products on the tile unit.

   A share of a step are 32 rows in two vectors of lanes: their sums, on the tile unit, then their new states and
   activations, on the vector units. The sums of a share are made while the vector units work on the share before, of
   other lanes if need be, so that neither unit waits for the other; evenly, since for some time after each product
   additions of vectors have one port only. */

#include "tiles.h"

struct share {
  int row, g;
  int32_t number;
  char *next;
  vec sums[EDGE][2];
};

/* Neurons i to `end` of a share: their states, activations, and the pieces of these. In functions of their own, so that
   all that the loop needs is in registers. */
INLINE void finish(vec *y, const struct share *share, const struct networks *w, real dt, int i, int end,
                   const int groups, const int plain) {
  const vec(*sums)[2] = share->sums + (i - share->row);
  char *to = active_at(share->next, share->row / EDGE, share->g) + (i - share->row) * 32;
  const int g = share->g;
  for (; i < end; i += 2, sums += 2, to += 64) {
    const int k = i * groups + g, single = N % 2 && i == N - 1;
#pragma GCC unroll 2
    for (int side = 0; side < 2; side++) {
      const vec x = advanced(y[k + side], sums[0][side], w, dt, k + side, g + side, plain);
      vec s, t = spread(0);
      if (single) {
        s = ACTIVATION(x);
      } else {
        const int other = k + side + groups;
        const vec z = advanced(y[other], sums[1][side], w, dt, other, g + side, plain);
        activate_two(x, z, &s, &t);
        y[other] = z;
      }
      y[k + side] = x;
      split_two(s, t, to + side * TILE);
    }
  }
}

#define FINISH(name, groups, plain)                                                                                  \
  static __attribute__((noinline)) void name(vec *y, const struct share *share, const struct networks *w, real dt, \
                                             int i, int end) {                                                       \
    finish(y, share, w, dt, i, end, groups, plain);                                                                  \
  }

FINISH(finish_plain, GROUPS, 1)
FINISH(finish_any, GROUPS, 0)
FINISH(finish_few, FEW, 0)

/* The activations of states that no step has led to. */
static void split_states(vec *y, struct tiles *tiles, const int groups) {
  for (int i = 0; i < N; i += 2)
    for (int g = 0; g < groups; g++) {
      vec s, t = spread(0);
      if (i == N - 1)
        s = ACTIVATION(y[i * groups + g]);
      else
        activate_two(y[i * groups + g], y[(i + 1) * groups + g], &s, &t);
      split_two(s, t, active_at(tiles->active, i / EDGE, g) + i % EDGE * 32);
    }
}

/* Makes the sums of one share, where there is one, and finishes another. */
INLINE void work_on(struct share *summed, struct share *finished, vec *y, const struct networks *w,
                    const struct job *job, const int groups) {
  int i = finished ? finished->row : N;
  const int begin = i, end = i + EDGE < N ? i + EDGE : N, rows = end - begin;
  void (*const go_on)(vec *, const struct share *, const struct networks *, real, int, int) =
      groups == FEW ? finish_few : w->plain ? finish_plain : finish_any;
/* A part of the share that is finished, after `done` of the products of pieces. */
#define GO_ON_BESIDE(done)                                                                      \
  do {                                                                                          \
    const int until = begin + (rows * (block * PRODUCTS + (done)) / (EDGES * PRODUCTS) & ~1);   \
    if (i < until) go_on(y, finished, w, job->dt, i, until), i = until;                         \
  } while (0)
  WRITTEN;
  if (summed) {
    ZERO_SUMS;
#pragma GCC unroll 1
    for (int block = 0; block < EDGES; block++) {
      const char *matrix = matrix_at(w->tiles, summed->row / EDGE, block);
      const char *lanes = active_at(w->tiles->active, block, summed->g);
      ADD_PRODUCTS(matrix, lanes, GO_ON_BESIDE);
    }
  }
  if (i < end) go_on(y, finished, w, job->dt, i, end);
  if (summed) {
    STORE_SUMS(summed->sums, 2);
  }
}

/* Steps number `from` to `to` with their measures, as `stretch`. */
INLINE void stretch_on_tiles(vec *y, struct measures *kept, struct course *course, const struct networks *w,
                             const struct job *job, int32_t from, int32_t to, const int groups) {
  struct share shares[2], *finished = NULL;
  struct tiles *tiles = w->tiles;
  int32_t number = from;
  int row = 0, g = 0;
#pragma GCC unroll 1
  for (int place = 0; number < to || finished; place ^= 1) {
    /* With two vectors of lanes in all, the next sums want what this share brings. */
    struct share *summed = number < to && (groups > 2 || !finished) ? &shares[place] : NULL;
    if (summed) summed->row = row, summed->g = g, summed->number = number, summed->next = tiles->next;
    work_on(summed, finished, y, w, job, groups);
    if (finished && finished->row + EDGE >= N)
      measure(kept, course, y, job, finished->number, from, finished->g, finished->g + 2, groups);
    finished = summed;
    if (!summed) continue;
    row += EDGE;
    if (row < N) continue;
    row = 0, g += 2;
    if (g < groups) continue;
    g = 0, number++;
    char *const active = tiles->active;
    tiles->active = tiles->next, tiles->next = active;
  }
}
