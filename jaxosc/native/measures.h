/* Measures of a block of lanes: the energy of tanh networks, H = sum of log cosh, the norms, and crossings of zero.

   As the reducers of `simulate/reducers.py`, whose states these are. */

#include "energy.h"

/* The squared norm of every lane. */
INLINE void square_norms(const vec *y, real *norms, const int groups) {
#if BY_NEURON
#pragma GCC unroll 4
  for (int m = 0; m < LANES; m++) {
    vec sum = rounded(y[m * PARTS] * y[m * PARTS]);
#pragma GCC unroll 16
    for (int p = 1; p < PARTS; p++) sum += y[m * PARTS + p] * y[m * PARTS + p];
    norms[m] = total(sum);
  }
#else
#pragma GCC unroll 8
  for (int g = 0; g < groups; g++) {
    vec sum = rounded(y[g] * y[g]);
#pragma GCC unroll UNROLLED
    for (int i = 1; i < N; i++) sum += y[i * groups + g] * y[i * groups + g];
    ((vec *)norms)[g] = sum;
  }
#endif
}

/* As `Norms.update`. */
INLINE void measure_norms(struct measures *kept, const vec *y, int32_t number, const int lanes, const int groups) {
  real norms[LANES] ALIGNED;
  square_norms(y, norms, groups);
  for (int k = 0; k < lanes; k++) {
    const int larger = norms[k] > kept->norm[k];
    kept->norm[k] = larger ? norms[k] : kept->norm[k];
    kept->norm_at[k] = larger ? number : kept->norm_at[k];
  }
}

/* As `Crossings.update`, for lanes `begin` to `end`. */
INLINE void measure_crossings_of(struct measures *kept, const real *low, real *y, int32_t number, const int begin,
                                 const int end, const int width) {
  for (int k = begin; k < end; k++) {
    const real high = *at(y, 0, k, width);
    if (!(low[k] < 0 && high >= 0)) continue;
    const real fraction = low[k] / (low[k] - high);
    const real interval = (real)(number - kept->last_step[k]) + (fraction - kept->last_fraction[k]);
    if (kept->count[k] == 1) kept->first[k] = interval;
    if (kept->count[k] >= 1) {
      const real offset = interval - kept->first[k];
      kept->deviation[k] += offset;
      kept->squares[k] += offset * offset;
    }
    kept->last_step[k] = number;
    kept->last_fraction[k] = fraction;
    kept->count[k]++;
  }
}

/* Few steps are crossings. */
INLINE void measure_crossings(struct measures *kept, const real *low, real *y, int32_t number, const int lanes,
                              const int width) {
#if !BY_NEURON
  for (int begin = 0; begin < lanes; begin += WIDTH) {
    if (!anywhere((*(const vec *)(low + begin) < spread(0)) & (*(vec *)(y + begin) >= spread(0)))) continue;
    measure_crossings_of(kept, low, y, number, begin, begin + WIDTH, width);
  }
#else
  measure_crossings_of(kept, low, y, number, 0, lanes, width);
#endif
}

/* As `EnergyDrift.update`. */
INLINE void measure_energy(struct measures *kept, real *y, int32_t number, const int lanes, const int groups) {
  const real tiny = sizeof(real) == 4 ? 1.17549435e-38 : 2.2250738585072014e-308;
  real energies[LANES] ALIGNED;
#if BY_NEURON
  /* Neurons go across the vectors; those that fill the last one are at zero, where log cosh is. */
  for (int m = 0; m < LANES; m++) energies[m] = total(energy_of((const vec *)y + m * PARTS, 1, PARTS));
#else
  for (int g = 0; g < groups; g++) ((vec *)energies)[g] = energy_of((const vec *)y + g, groups, N);
#endif
  for (int k = 0; k < lanes; k++) {
    const real scale = kept->start[k] < 0 ? -kept->start[k] : kept->start[k];
    const real drift = (energies[k] - kept->start[k]) / (scale > tiny ? scale : tiny);
    const int larger = (drift < 0 ? -drift : drift) > (kept->worst[k] < 0 ? -kept->worst[k] : kept->worst[k]);
    kept->worst[k] = larger ? drift : kept->worst[k];
    kept->worst_at[k] = larger ? number : kept->worst_at[k];
  }
}
