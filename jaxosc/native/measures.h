/* Measures of a block of lanes: the energy of tanh networks, H = sum of log cosh, the norms, and crossings of zero.

   As the reducers of `simulate/reducers.py`, whose states these are. `begin` to `end`: which vectors of lanes, or by
   neuron which lanes. */

#include "energy.h"

/* The squared norm of every lane. */
INLINE void square_norms(const vec *y, real *norms, const int begin, const int end, const int groups) {
#if BY_NEURON
#pragma GCC unroll 4
  for (int m = begin; m < end; m++) {
    vec sum = rounded(y[m * PARTS] * y[m * PARTS]);
#pragma GCC unroll 16
    for (int p = 1; p < PARTS; p++) sum += y[m * PARTS + p] * y[m * PARTS + p];
    norms[m] = total(sum);
  }
#else
#pragma GCC unroll 8
  for (int g = begin; g < end; g++) {
    vec sum = rounded(y[g] * y[g]);
#pragma GCC unroll UNROLLED
    for (int i = 1; i < N; i++) sum += y[i * groups + g] * y[i * groups + g];
    ((vec *)norms)[g] = sum;
  }
#endif
}

/* As `Norms.update`. */
INLINE void measure_norms(struct measures *kept, const vec *y, int32_t number, const int begin, const int end,
                          const int groups) {
  real norms[LANES] ALIGNED;
  square_norms(y, norms, begin, end, groups);
#if BY_NEURON
  for (int k = begin; k < end; k++) {
    const int larger = norms[k] > kept->norm[k];
    kept->norm[k] = larger ? norms[k] : kept->norm[k];
    kept->norm_at[k] = larger ? number : kept->norm_at[k];
  }
#else
#pragma GCC unroll 8
  for (int g = begin; g < end; g++) {
    vec *most = (vec *)kept->norm + g;
    mask *at = (mask *)kept->norm_at + g;
    const vec norm = ((const vec *)norms)[g];
    const mask larger = norm > *most;
    *most = chosen(larger, norm, *most);
    *at = (mask)chosen(larger, (vec)((mask){} + number), (vec)*at);
  }
#endif
}

/* As `Crossings.update`, for lane k, which has crossed zero upward with step `number`. */
INLINE void measure_crossing(struct measures *kept, const real low, const real high, int32_t number, const int k) {
  const real fraction = low / (low - high);
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

/* Where neuron 0 of every lane has been since the beginning of a stretch, and bits of the lanes of a vector that have
   crossed zero upward in each step. */
struct course {
  real heights[SAMPLE_EVERY + 1][LANES] ALIGNED;
#if !BY_NEURON
  uint16_t crossed[GROUPS][SAMPLE_EVERY];
#endif
};

INLINE void begin_course(struct course *course, real *y, const int lanes) {
  for (int k = 0; k < lanes; k++) course->heights[0][k] = *at(y, 0, k, lanes);
}

/* After `place` steps. */
INLINE void follow(struct course *course, const vec *y, const int place, const int begin, const int end) {
#if BY_NEURON
  for (int k = begin; k < end; k++) course->heights[place][k] = *at((real *)y, 0, k, LANES);
#else
#pragma GCC unroll 8
  for (int g = begin; g < end; g++) {
    course->crossed[g][place - 1] = (uint16_t)rises(((const vec *)course->heights[place - 1])[g], y[g]);
    ((vec *)course->heights[place])[g] = y[g];
  }
#endif
}

/* Crossings are rare, and looked for where there is one. */
INLINE void end_course(struct measures *kept, const struct course *course, int32_t from, int32_t to, const int lanes,
                       const int groups) {
#if BY_NEURON
  for (int32_t k = from; k < to; k++)
    for (int lane = 0; lane < lanes; lane++) {
      const real low = course->heights[k - from][lane], high = course->heights[k - from + 1][lane];
      if (low < 0 && high >= 0) measure_crossing(kept, low, high, k, lane);
    }
#else
  for (int g = 0; g < groups; g++)
    for (int place = 0; place < to - from; place++)
      for (unsigned bits = course->crossed[g][place]; bits; bits &= bits - 1) {
        const int lane = g * WIDTH + __builtin_ctz(bits);
        measure_crossing(kept, course->heights[place][lane], course->heights[place + 1][lane], from + place, lane);
      }
#endif
}

/* All that looks at every step, after step `number` of a stretch that has begun with number `from`. */
INLINE void measure(struct measures *kept, struct course *course, const vec *y, const struct job *job, int32_t number,
                    int32_t from, const int begin, const int end, const int groups) {
  if (job->norm) measure_norms(kept, y, number, begin, end, groups);
  if (job->count) follow(course, y, number - from + 1, begin, end);
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
#if BY_NEURON
  for (int k = 0; k < lanes; k++) {
    const real scale = kept->start[k] < 0 ? -kept->start[k] : kept->start[k];
    const real drift = (energies[k] - kept->start[k]) / (scale > tiny ? scale : tiny);
    const int larger = (drift < 0 ? -drift : drift) > (kept->worst[k] < 0 ? -kept->worst[k] : kept->worst[k]);
    kept->worst[k] = larger ? drift : kept->worst[k];
    kept->worst_at[k] = larger ? number : kept->worst_at[k];
  }
#else
  for (int g = 0; g < groups; g++) {
    vec *worst = (vec *)kept->worst + g;
    mask *at = (mask *)kept->worst_at + g;
    const vec start = ((const vec *)kept->start)[g], scale = size_of(start);
    const vec drift = (((const vec *)energies)[g] - start) / chosen(scale > spread(tiny), scale, spread(tiny));
    const mask larger = size_of(drift) > size_of(*worst);
    *worst = chosen(larger, drift, *worst);
    *at = (mask)chosen(larger, (vec)((mask){} + number), (vec)*at);
  }
#endif
}
