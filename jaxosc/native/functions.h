/* Elementary functions of vectors, to a few units in the last place. */

#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#include "vectors.h"

#define LOG_2 0.693147180559945309417232121458

/* log(2) in two parts, the first of few digits: its products with small whole numbers are exact. */
#define LOG_2_HIGH (sizeof(real) == 4 ? 0.693359375 : 0.693147180369123816490)
#define LOG_2_LOW (LOG_2 - LOG_2_HIGH)

/* exp(x) = 2^k exp(r), |r| <= log(2) / 2: 2^k and exp(r) - 1 - r, with as many terms of the series as the type has
   digits for. r is the sum of two numbers, of which the second is what rounding the first has lost. x within the range
   of the type. */
INLINE vec exp_bend(vec x, vec *scale, vec *r, vec *lost) {
  static const real series[] = {0.5, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880,
                                1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};
  /* Added to a number of moderate size it leaves the nearest whole number in the last bits. */
  const real shift = sizeof(real) == 4 ? 12582912. : 6755399441055744.;
  const vec moved = x * (real)(1 / LOG_2) + shift, k = moved - shift;
  const mask power = ((mask)moved - (mask)spread(shift) + (sizeof(real) == 4 ? 127 : 1023)) << DIGITS;
  const vec most = x - k * (real)LOG_2_HIGH;
  *scale = (vec)power;
  *r = most - k * (real)LOG_2_LOW;
  *lost = (most - *r) - k * (real)LOG_2_LOW;
  return *r * *r * polynomial(series, sizeof(real) == 4 ? 7 : 12, *r);
}

/* 2^k, and exp(r) - 1. */
INLINE vec exp_parts(vec x, vec *scale) {
  vec r, lost;
  const vec bend = exp_bend(x, scale, &r, &lost);
  return r + bend;
}

/* Beyond, the power of two is none. */
#define EXP_MOST (sizeof(real) == 4 ? 87 : 708)

INLINE vec exp_of(vec x) {
  vec scale;
  const vec small = exp_parts(clamped(x, EXP_MOST), &scale);
  return scale * small + scale;
}

/* k log(2) + log(m) in two parts, for f = (m - 1) / (m + 1), m in [2/3, 3/2]: k times the first part of log(2) and the
   rest, to which `more` is added. */
INLINE vec log_rest(mask k, vec f, vec more, vec *whole) {
  static const real series[] = {2.,      2. / 3,  2. / 5,  2. / 7,  2. / 9, 2. / 11,
                                2. / 13, 2. / 15, 2. / 17, 2. / 19, 2. / 21};
  const vec times = __builtin_convertvector(k, vec);
  *whole = times * (real)LOG_2_HIGH;
  return f * polynomial(series, sizeof(real) == 4 ? 5 : 11, f * f) + (more + times * (real)LOG_2_LOW);
}

/* log(u) in two parts, as above, with m in [sqrt(1/2), sqrt(2)). Of numbers too small to be normal it is too large, at
   most by the digits that they have lost. */
INLINE vec log_parts(vec u, vec more, vec *whole) {
  const mask middle = (mask)spread((real)0.70710678118654752440), exponent = ((mask)u - middle) >> DIGITS;
  const vec m = (vec)((mask)u - (exponent << DIGITS));
  return log_rest(exponent, (m - 1) / (m + 1), more, whole);
}

/* log(x) for x >= 0; of 0 about -1e2 (float) or -7e2 (double), smaller than of any other number. */
INLINE vec log_of(vec x) {
  vec whole;
  const vec rest = log_parts(x, spread(0), &whole);
  return chosen(x == x, whole + rest, x);
}

/* log(1 + above / below) for above >= 0 and below > 0, small ones to their last digits, for one division. */
INLINE vec log1p_of_ratio(vec above, vec below) {
  const vec sum = below + above;
  /* The difference of the bits is the exponent of the ratio, and its digits to a tenth. */
  const mask exponent = ((mask)sum - (mask)below + ((integer)1 << (DIGITS - 1))) >> DIGITS;
  const vec scaled = (vec)((mask)below + (exponent << DIGITS));
  vec whole;
  const vec rest = log_rest(exponent, chosen(exponent == 0, above, sum - scaled) / (sum + scaled), spread(0), &whole);
  return whole + rest;
}

#endif
