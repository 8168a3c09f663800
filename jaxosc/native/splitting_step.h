/* One step of a Poisson splitting in every lane of a block.

   A step is chi(h_1), chi*(h_2), chi(h_3), ... A row needs to hear of the pushes of others only when it is visited
   itself: going up, of what the rows below have pushed since it was visited going down, and the other way round. So a
   sweep reads half of W, and what is open at the end is paid once in a step: for order 2, 1.5 n^2 multiplications and
   not 2 n^2. `up` are the pushes that rows below still have to hear of, `down` those for the rows above. */

INLINE void sweep_up(vec *y, vec *up, vec *down, vec *first, const struct networks *w, real h, real turn,
                     int i, const int rows, const int groups) {
  vec sum[ROWS][GROUPS];
  nothing(sum, rows, groups);
  add_rows(sum, w, down, i, rows, 0, i, groups);
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) {
    const int k = i + r;
#pragma GCC unroll 8
    for (int q = 0; q < r; q++)
#pragma GCC unroll 8
      for (int g = 0; g < groups; g++) sum[r][g] += WEIGHT(k, i + q, g) * down[(i + q) * groups + g];
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) {
      vec s;
      if (k == 0) {
        s = first[g];
      } else {
        y[k * groups + g] += gained(w, sum[r][g], g);
        s = ACTIVATION(y[k * groups + g]);
      }
      /* The last row is visited by both sweeps at once. */
      const vec push = rounded((k == N - 1 ? h + turn : h) * s);
      up[k * groups + g] = push;
      down[k * groups + g] += push;
    }
  }
}

INLINE void sweep_down(vec *y, vec *up, vec *down, vec *first, const struct networks *w, real h, int i, const int rows,
                       const int groups) {
  vec sum[ROWS][GROUPS];
  nothing(sum, rows, groups);
  add_rows(sum, w, up, i, rows, i + rows, N, groups);
#pragma GCC unroll 8
  for (int r = rows - 1; r >= 0; r--) {
    const int k = i + r;
    if (k == N - 1) continue;
#pragma GCC unroll 8
    for (int q = r + 1; q < rows; q++)
#pragma GCC unroll 8
      for (int g = 0; g < groups; g++) sum[r][g] += WEIGHT(k, i + q, g) * up[(i + q) * groups + g];
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) {
      y[k * groups + g] += gained(w, sum[r][g], g);
      const vec s = ACTIVATION(y[k * groups + g]), push = rounded(h * s);
      if (k == 0) first[g] = s;
      up[k * groups + g] += push;
      down[k * groups + g] = push;
    }
  }
}

/* y += W p, of which the rows above (or below) the diagonal are still open. */
INLINE void settle(vec *y, const vec *p, const struct networks *w, const int above, int i, const int rows,
                   const int groups) {
  vec sum[ROWS][GROUPS];
  nothing(sum, rows, groups);
  add_rows(sum, w, p, i, rows, above ? i + rows : 0, above ? N : i, groups);
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
    for (int q = above ? r + 1 : 0; q < (above ? rows : r); q++)
#pragma GCC unroll 8
      for (int g = 0; g < groups; g++) sum[r][g] += WEIGHT(i + r, i + q, g) * p[(i + q) * groups + g];
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) y[(i + r) * groups + g] += gained(w, sum[r][g], g);
  }
}

#define WHOLE (N / ROWS * ROWS)

#define EACH_BLOCK_UP(call, ...)                                              \
  do {                                                                        \
    _Pragma("GCC unroll UNROLLED") for (int i = 0; i < WHOLE; i += ROWS)      \
        call(__VA_ARGS__, i, ROWS, groups);                                   \
    if (N % ROWS) call(__VA_ARGS__, WHOLE, N % ROWS, groups);                 \
  } while (0)

#define EACH_BLOCK_DOWN(call, ...)                                            \
  do {                                                                        \
    if (N % ROWS) call(__VA_ARGS__, WHOLE, N % ROWS, groups);                 \
    _Pragma("GCC unroll UNROLLED") for (int i = WHOLE - ROWS; i >= 0; i -= ROWS) \
        call(__VA_ARGS__, i, ROWS, groups);                                   \
  } while (0)

INLINE void step(vec *y, vec *first, const struct networks *w, const struct job *job, const int groups) {
  vec up[N * GROUPS], down[N * GROUPS];
  const real *h = job->sizes;
  for (int k = 0; k < N * groups; k++) down[k] = spread(0);
#if SPLITTING == 1
  EACH_BLOCK_UP(sweep_up, y, up, down, first, w, h[0], 0);
  EACH_BLOCK_UP(settle, y, up, w, 1);
#pragma GCC unroll 8
  for (int g = 0; g < groups; g++) first[g] = ACTIVATION(y[g]);
#else
#pragma GCC unroll 1
  for (long k = 0; k < job->stages; k += 2) {
    EACH_BLOCK_UP(sweep_up, y, up, down, first, w, h[k], h[k + 1]);
    EACH_BLOCK_DOWN(sweep_down, y, up, down, first, w, h[k + 1]);
  }
  EACH_BLOCK_UP(settle, y, down, w, 0);
#endif
}
