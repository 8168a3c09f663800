/* Forward Euler: x + dt (gain W sigma(x) + bias - leak x) in every lane of a block. */

/* sigma of two neurons of a lane. */
INLINE void activate_two(vec x, vec y, vec *s, vec *t) {
  if (ACTIVATION == tanh_of) {
    tanh_of_two(x, y, s, t);
  } else {
    *s = ACTIVATION(x);
    *t = ACTIVATION(y);
  }
}

#if BY_NEURON

/* sigma of so many lanes. Never for two at once: what becomes of one does not depend on its neighbours. */
INLINE void activate_lanes(const vec *y, vec *t, const int lanes) {
#pragma GCC unroll 16
  for (int k = 0; k < lanes * PARTS; k++) {
    if (PARTS % 2)
      t[k] = ACTIVATION(y[k]);
    else if (k % 2 == 0)
      activate_two(y[k], y[k + 1], &t[k], &t[k + 1]);
  }
}

/* Sums of every second column, where the others alone are too few to hide how long an addition takes. */
#define CHAINS (LANES > 1 ? 2 : 1)

INLINE void add_column(vec sum[][2], const real *single, const struct networks *w, const int begin, const int lanes,
                       int j, const int chain) {
#pragma GCC unroll 4
  for (int m = 0; m < lanes; m++)
#pragma GCC unroll 16
    for (int p = 0; p < PARTS; p++)
      sum[m * PARTS + p][chain] += w->own[((begin + m) * N + j) * PARTS + p] * single[m * PARTS * WIDTH + j];
}

/* Lanes `begin` and so many on, from their sigma. */
INLINE void advance_lanes(vec *y, const vec *t, const struct networks *w, const struct job *job, const int begin,
                          const int lanes) {
  vec sum[LANES * PARTS][2];
  const real *single = (const real *)t;
#pragma GCC unroll 16
  for (int k = 0; k < lanes * PARTS; k++) sum[k][0] = sum[k][1] = spread(0);
#pragma GCC unroll 2
  for (int j = 0; j < N / CHAINS * CHAINS; j += CHAINS)
#pragma GCC unroll 2
    for (int c = 0; c < CHAINS; c++) add_column(sum, single, w, begin, lanes, j + c, c);
  if (N % CHAINS) add_column(sum, single, w, begin, lanes, N - 1, 0);
#pragma GCC unroll 16
  for (int k = 0; k < lanes * PARTS; k++) {
    const int place = begin * PARTS + k, lane = place / PARTS;
    vec rate = CHAINS == 1 ? sum[k][0] : sum[k][0] + sum[k][1];
    if (!w->plain) {
      if (w->has_gain) rate = rounded(rate * ((const real *)w->gain)[lane]);
      if (w->has_bias) rate += w->bias[place];
      if (w->has_leak) rate -= ((const real *)w->leak)[lane] * y[place];
    }
    y[place] += job->dt * rate;
  }
}

/* sigma takes long and sums are long, so each is begun beside the other: half of the lanes are a sigma ahead. */
INLINE void step(vec *y, vec *first, const struct networks *w, const struct job *job, const int groups) {
  vec t[(LANES - AHEAD) * PARTS];
  activate_lanes(y + AHEAD * PARTS, t, LANES - AHEAD);
  if (AHEAD) {
    advance_lanes(y, first, w, job, 0, AHEAD);
    activate_lanes(y, first, AHEAD);
  }
  advance_lanes(y, t, w, job, AHEAD, LANES - AHEAD);
}

#else

/* Vector k of states after the step, from what it is and W brings to it. */
INLINE vec advanced(vec y, vec sum, const struct networks *w, real dt, int k, int g, const int plain) {
  if (!plain) {
    sum = gained(w, sum, g);
    if (w->has_bias) sum += w->bias[k];
    if (w->has_leak) sum -= w->leak[g] * y;
  }
  return y + dt * sum;
}

INLINE void advance(vec *y, vec sum, const struct networks *w, const struct job *job, int k, int g) {
  y[k] = advanced(y[k], sum, w, job->dt, k, g, w->plain);
}

#if OWN || N <= 4

/* No weight serves two lanes, or all stay in registers: vector by vector, so that sigma of all neurons is loaded once
   for many rows. */
INLINE void euler_rows(vec *y, const vec *t, const struct networks *w, const struct job *job, int g, int i,
                       const int rows, const int groups) {
  vec sum[8];
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) sum[r] = spread(0);
#pragma GCC unroll 16
  for (int j = 0; j < N; j++)
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
      if (!HOLLOW || j != i + r) sum[r] += WEIGHT(i + r, j, g) * t[j * groups + g];
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) advance(y, sum[r], w, job, (i + r) * groups + g, g);
}

INLINE void euler_all(vec *y, const vec *t, const struct networks *w, const struct job *job, const int groups) {
#if N == 2 && HOLLOW && !OWN
  if (w->plain) {
    /* A row is one product, which dt W does for both factors. */
    const real above = job->dt * WEIGHT(0, 1, 0), below = job->dt * WEIGHT(1, 0, 0);
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) {
      y[g] += above * t[groups + g];
      y[groups + g] += below * t[g];
    }
    return;
  }
#endif
#pragma GCC unroll 8
  for (int g = 0; g < groups; g++) {
#pragma GCC unroll 2
    for (int i = 0; i < N / 8 * 8; i += 8) euler_rows(y, t, w, job, g, i, 8, groups);
    if (N % 8) euler_rows(y, t, w, job, g, N / 8 * 8, N % 8, groups);
  }
}

#else

INLINE void euler_rows(vec *y, const vec *t, const struct networks *w, const struct job *job, int i, const int rows,
                       const int groups) {
  vec sum[ROWS][GROUPS];
  nothing(sum, rows, groups);
#if HOLLOW
  add_rows(sum, w, t, i, rows, 0, i, groups);
#pragma GCC unroll 8
  for (int j = 0; j < rows; j++)
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
      for (int g = 0; g < groups; g++)
        if (j != r) sum[r][g] += WEIGHT(i + r, i + j, g) * t[(i + j) * groups + g];
  add_rows(sum, w, t, i, rows, i + rows, N, groups);
#else
  add_rows(sum, w, t, i, rows, 0, N, groups);
#endif
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) advance(y, sum[r][g], w, job, (i + r) * groups + g, g);
}

INLINE void euler_all(vec *y, const vec *t, const struct networks *w, const struct job *job, const int groups) {
#pragma GCC unroll UNROLLED
  for (int i = 0; i < N / ROWS * ROWS; i += ROWS) euler_rows(y, t, w, job, i, ROWS, groups);
  if (N % ROWS) euler_rows(y, t, w, job, N / ROWS * ROWS, N % ROWS, groups);
}

#endif

INLINE void step(vec *y, vec *first, const struct networks *w, const struct job *job, const int groups) {
  vec t[N * GROUPS];
  /* Not unrolled over the rows: with all of them in sight the compiler interleaves what does not fit the registers. */
#pragma GCC unroll 1
  for (int i = 0; i < N / 2 * 2; i += 2)
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) {
      const int k = i * groups + g;
      activate_two(y[k], y[k + groups], &t[k], &t[k + groups]);
    }
  if (N % 2)
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) t[(N - 1) * groups + g] = ACTIVATION(y[(N - 1) * groups + g]);
  euler_all(y, t, w, job, groups);
}

#endif
