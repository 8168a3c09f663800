/* The same energy in pairs of numbers, for the difference of two that are nearly equal: what a projection has to undo.

   Evaluated in single numbers, H carries an error of a few units in its last place, and a projection would put it onto
   the state at every step. A pair is a sum that no single number holds; Dekker (*Numer. Math.* 18, 1971) and Knuth have
   the arithmetic. A projected step by Taylor series takes up to a seventh longer for it. */

#ifndef EXACT_ENERGY_H
#define EXACT_ENERGY_H

#include "energy.h"

typedef struct {
  vec high, low;
} pair;

INLINE pair pair_of(vec x) { return (pair){x, spread(0)}; }

/* a + b for numbers of any size. */
INLINE pair sum_of(vec a, vec b) {
  const vec sum = rounded(a + b), taken = rounded(sum - a);
  return (pair){sum, rounded(a - rounded(sum - taken)) + rounded(b - taken)};
}

/* The same where |a| >= |b|. */
INLINE pair renewed(vec a, vec b) {
  const vec sum = rounded(a + b);
  return (pair){sum, b - rounded(sum - a)};
}

INLINE pair added(pair a, pair b) {
  const pair sum = sum_of(a.high, b.high);
  return renewed(sum.high, sum.low + (a.low + b.low));
}

/* A fused multiply-add gives what the product has lost; without one, a little accuracy is lost, no more. */
INLINE pair multiplied(pair a, pair b) {
  const vec product = rounded(a.high * b.high);
  return renewed(product, (a.high * b.high - product) + (a.high * b.low + a.low * b.high));
}

INLINE pair divided(pair a, pair b) {
  const vec ratio = rounded(a.high / b.high);
  const vec product = rounded(ratio * b.high), lost = ratio * b.high - product;
  return renewed(ratio, ((a.high - product) - lost + a.low - ratio * b.low) / b.high);
}

INLINE pair chosen_pair(mask which, pair yes, pair no) {
  return (pair){chosen(which, yes.high, no.high), chosen(which, yes.low, no.low)};
}

/* exp(x) - 1 for x <= 0, with what its sums lost. */
INLINE pair expm1_pair(vec x) {
  vec scale;
  pair r;
  const vec bend = exp_bend(chosen(x < spread(-EXP_MOST), spread(-EXP_MOST), x), &scale, &r.high, &r.low);
  const pair small = renewed(r.high, bend);
  const pair sum = sum_of(scale - 1, rounded(scale * small.high));
  return renewed(sum.high, sum.low + scale * (small.low + r.low));
}

/* As `energy_of`. */
INLINE pair exact_energy_of(const vec *y, const long stride, const int entries) {
  const pair one = pair_of(spread(1));
  pair energy = pair_of(spread(0));
  vec far = spread(0);
  for (int begin = 0; begin < entries; begin += 64) {
    pair inside = pair_of(spread(0));
    for (int start = begin; start < (begin + 64 < entries ? begin + 64 : entries); start += 8) {
      pair above = pair_of(spread(0)), below = one;
      for (int i = start; i < (start + 8 < entries ? start + 8 : entries); i++) {
        const vec x = y[i * stride], size = chosen(x < spread(0), -x, x);
        const mask near = size < spread(NEAR_ZERO);
        const pair m = expm1_pair(-size), rest = added(one, m), base = chosen_pair(near, m, rest);
        const pair p = multiplied(base, base), q = chosen_pair(near, (pair){2 * rest.high, 2 * rest.low}, one);
        energy = added(energy, pair_of(chosen(near, spread(0), size)));
        far += chosen(near, spread(0), spread(1));
        above = added(multiplied(above, added(q, p)), multiplied(p, below));
        below = multiplied(below, q);
      }
      const pair part = divided(above, below);
      inside = added(inside, added(part, multiplied(inside, part)));
    }
    const pair u = added(one, inside);
    vec whole;
    const vec rest = log_parts(u.high, u.low / u.high, &whole);
    energy = added(energy, sum_of(whole, rest));
  }
  return added(energy, sum_of(-far * (real)LOG_2_HIGH, -far * (real)LOG_2_LOW));
}

#endif
