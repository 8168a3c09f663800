/* The energy of tanh networks, H = sum of log cosh, as `sum_log_cosh` has it: one logarithm for up to 64 neurons. */

#ifndef ENERGY_H
#define ENERGY_H

#include "functions.h"

/* cosh x = 1 + p / q near 0, where small energies keep their digits, and cosh x = exp(|x| - log 2) (1 + p / q) beyond. */
#define NEAR_ZERO 2

/* Of the vectors y[0], y[stride], ..., `entries` of them: their sum, lane by lane. */
INLINE vec energy_of(const vec *y, const long stride, const int entries) {
  vec energy = spread(0);
  for (int begin = 0; begin < entries; begin += 64) {
    vec outside = spread(0), inside = spread(0);
    for (int start = begin; start < (begin + 64 < entries ? begin + 64 : entries); start += 8) {
      /* 1 + above / below is the product of those of the neurons: one division for eight. */
      vec above = spread(0), below = spread(1);
#pragma GCC unroll 8
      for (int i = start; i < (start + 8 < entries ? start + 8 : entries); i++) {
        const vec x = y[i * stride], size = chosen(x < spread(0), -x, x), m = expm1_of(-size), rest = 1 + m;
        const mask near = size < spread(NEAR_ZERO);
        const vec p = chosen(near, m * m, rest * rest), q = chosen(near, 2 * rest, spread(1));
        outside += chosen(near, spread(0), size - (real)LOG_2);
        above = above * (q + p) + p * below;
        below = below * q;
      }
      const vec part = above / below;
      inside = inside + part + inside * part;
    }
    energy += outside + log1p_of(inside);
  }
  return energy;
}

#endif
