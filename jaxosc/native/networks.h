/* The networks of a block of lanes, and rows of their products: every sum in one order, from the first column on. */

/* What the networks of all lanes are made of; pointers are NULL for what there is none of. Lane counts of 1 mean: one
   for all. */
struct given {
  const real *matrix, *gain, *bias, *leak;
  long gain_lanes, bias_lanes, leak_lanes;
};

struct tiles;

/* The networks of a block. */
struct networks {
  struct tiles *tiles;
  const vec *own;
  const real *shared;
  vec gain[GROUPS], leak[GROUPS];
  int has_gain, has_bias, has_leak, plain; /* plain: none of these */
#if BY_NEURON
  vec bias[LANES * PARTS];
#else
  vec bias[N * GROUPS];
#endif
};

/* The number of a neuron in a lane, of whatever has one for each. */
INLINE real *at(real *y, int i, int lane, const int width) {
#if BY_NEURON
  return y + lane * PARTS * WIDTH + i;
#else
  return y + i * width + lane;
#endif
}

/* Gain, leak and bias of a lane into place k of a block. */
static void take(struct networks *w, const struct given *given, int k, long lane, const int width) {
  w->has_gain = given->gain != NULL, w->has_bias = given->bias != NULL, w->has_leak = given->leak != NULL;
  w->plain = !w->has_gain && !w->has_bias && !w->has_leak;
  if (w->has_gain) ((real *)w->gain)[k] = given->gain[given->gain_lanes > 1 ? lane : 0];
  if (w->has_leak) ((real *)w->leak)[k] = given->leak[given->leak_lanes > 1 ? lane : 0];
  for (int i = 0; w->has_bias && i < N; i++)
    *at((real *)w->bias, i, k, width) = given->bias[i * given->bias_lanes + (given->bias_lanes > 1 ? lane : 0)];
}

#if !BY_NEURON

#if OWN
#define WEIGHT(i, j, g) w->own[((i) * N + (j)) * groups + (g)]
#else
#define WEIGHT(i, j, g) w->shared[(i) * N + (j)]
#endif

/* Rows at a time: their sums fill half of the registers. */
#if !defined(ROWS)
#define ROWS (GROUPS <= 2 ? 8 : 4)
#endif

/* sum[r][g] += W[i + r, j] t[j] for `begin` <= j < `end`. */
INLINE void add_rows(vec sum[ROWS][GROUPS], const struct networks *w, const vec *t, int i, const int rows, int begin,
                     int end, const int groups) {
#pragma GCC unroll 2
  for (int j = begin; j < end; j++)
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
      for (int g = 0; g < groups; g++) sum[r][g] += WEIGHT(i + r, j, g) * t[j * groups + g];
}

INLINE void nothing(vec sum[ROWS][GROUPS], const int rows, const int groups) {
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
    for (int g = 0; g < groups; g++) sum[r][g] = spread(0);
}

INLINE vec gained(const struct networks *w, vec sum, int g) { return w->has_gain ? rounded(w->gain[g] * sum) : sum; }

#endif
