/* The energy of tanh networks, H = sum of log cosh, as `sum_log_cosh` has it: one logarithm for many neurons. */

#ifndef ENERGY_H
#define ENERGY_H

#include "functions.h"

/* cosh x = 1 + p / q near 0, where small energies keep their digits, and exp(|x| - log 2) (1 + p / q) beyond. */
#define NEAR_ZERO 2

/* Neurons for one logarithm: so many that the products of their q and 1 + p / q stay numbers of the type. */
#define ONE_LOGARITHM (sizeof(real) == 4 ? 24 : 64)

/* The p and q above from tanh(x / 2) = r: cosh x = 1 + 2 r^2 / (1 - r^2), and exp(-2 |x|) = ((1 - |r|) / (1 + |r|))^2.
   An exponential would cost more. */
INLINE void cosh_parts(vec x, mask near, vec *p, vec *q) {
  vec above, below;
  half_tanh_parts(x, &above, &below);
  above = size_of(above);
  const vec less = below - above, more = below + above;
  *p = rounded(chosen(near, above + above, less) * chosen(near, above, less));
  *q = rounded(more * chosen(near, less, more));
}

/* Of the vectors y[0], y[stride], ..., `entries` of them: their sum, lane by lane. */
INLINE vec energy_of(const vec *y, const long stride, const int entries) {
  vec energy = spread(0);
  for (int begin = 0; begin < entries; begin += ONE_LOGARITHM) {
    const int end = begin + ONE_LOGARITHM < entries ? begin + ONE_LOGARITHM : entries;
    /* 1 + above / below is the product of those of the neurons: one division for eight. */
    vec outside = spread(0), above = spread(0), below = spread(1);
    for (int start = begin; start < end; start += 8) {
      if (start > begin) above = above / below, below = spread(1);
#pragma GCC unroll 8
      for (int i = start; i < (start + 8 < end ? start + 8 : end); i++) {
        const vec x = y[i * stride], size = size_of(x);
        const mask near = size < spread(NEAR_ZERO);
        vec p, q;
        cosh_parts(x, near, &p, &q);
        outside += chosen(near, spread(0), size - (real)LOG_2);
        above = above * (q + p) + rounded(p * below);
        below = below * q;
      }
    }
    energy += outside + log1p_of_ratio(above, below);
  }
  return energy;
}

#endif
