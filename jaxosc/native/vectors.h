/* Vectors as wide as the machine has them, and activations on them. Vectors are GCC's; clang knows them too. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef REAL real;

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

/* Bits after the point of a number of this type. */
#define DIGITS (sizeof(real) == 4 ? 23 : 52)

#define WIDTH (BYTES / (int)sizeof(real))
#define ALIGNED __attribute__((aligned(BYTES)))
#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(BYTES)));
/* Whole numbers as long as a number of this type, and vectors of them, which comparisons give. */
typedef __typeof__(__builtin_choose_expr(sizeof(real) == 4, (int32_t)0, (int64_t)0)) integer;
typedef integer mask __attribute__((vector_size(BYTES)));

/* A value that is rounded before it is used: where a product has two uses, or a branch between, the compiler may or may
   not make it a part of a fused multiply-add, and chose differently for many lanes and for few. */
INLINE vec rounded(vec x) {
#if defined(__x86_64__)
  __asm__("" : "+v"(x));
#elif defined(__aarch64__)
  __asm__("" : "+w"(x));
#endif
  return x;
}

INLINE vec spread(real x) { return (vec){} + x; }

INLINE int is_finite(real x) { return x - x == 0; }

INLINE real total(vec x) {
  real sum = x[0];
  for (int k = 1; k < WIDTH; k++) sum += x[k];
  return sum;
}

/* There is no vector minimum in C: a comparison gives a mask, and the compiler makes one instruction of this. A NaN
   stays one, as it is the first operand of the comparison that fails. */
INLINE vec chosen(mask which, vec yes, vec no) { return (vec)((which & (mask)yes) | (~which & (mask)no)); }

/* |x|, by its bits. */
INLINE vec size_of(vec x) { return (vec)((mask)x & ~((integer)1 << (8 * sizeof(real) - 1))); }

/* Whether a mask has any bit. */
INLINE int anywhere(mask which) {
#if defined(__AVX512F__)
  return _mm512_test_epi64_mask((__m512i)which, (__m512i)which) != 0;
#else
  typedef int64_t words __attribute__((vector_size(BYTES)));
  const words all = (words)which;
  int64_t any = 0;
#pragma GCC unroll 8
  for (int k = 0; k < BYTES / 8; k++) any |= all[k];
  return any != 0;
#endif
}

/* A bit for each place where x is negative and y is not. */
INLINE unsigned rises(vec x, vec y) {
#if defined(__AVX512F__)
  return sizeof(real) == 4
             ? _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask((__m512)x, (__m512)(vec){}, _CMP_LT_OQ), (__m512)y,
                                       (__m512)(vec){}, _CMP_GE_OQ)
             : _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask((__m512d)x, (__m512d)(vec){}, _CMP_LT_OQ), (__m512d)y,
                                       (__m512d)(vec){}, _CMP_GE_OQ);
#else
  unsigned bits = 0;
  for (int k = 0; k < WIDTH; k++) bits |= (unsigned)(x[k] < 0 && y[k] >= 0) << k;
  return bits;
#endif
}

INLINE vec clamped(vec x, real most) {
  x = chosen(x > spread(most), spread(most), x);
  return chosen(x < spread(-most), spread(-most), x);
}

INLINE vec polynomial(const real *coefficients, int length, vec x) {
  vec sum = spread(coefficients[length - 1]);
#pragma GCC unroll 16
  for (int k = length - 2; k >= 0; k--) sum = sum * x + coefficients[k];
  return sum;
}

#define LENGTH(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* As `clamped`, in one instruction where there is one, which may make `most` of a NaN: for what is added to the number
   that it comes from, and does not hide it. */
INLINE vec within(vec x, real most) {
#if defined(__AVX512DQ__)
  enum { SMALLER_SIZE = 2 };
  return sizeof(real) == 4 ? (vec)_mm512_range_ps((__m512)x, (__m512)spread(most), SMALLER_SIZE)
                           : (vec)_mm512_range_pd((__m512d)x, (__m512d)spread(most), SMALLER_SIZE);
#else
  return clamped(x, most);
#endif
}

/* The numbers of `rational_tanh.py` come with the command line. */
static const real TOP[] = {TANH_TOP}, BOTTOM[] = {TANH_BOTTOM};

/* tanh(x / 2) = p / q. */
INLINE void half_tanh_parts(vec x, vec *p, vec *q) {
  x = within(x, TANH_MOST);
  const vec square = x * x;
  *p = x * polynomial(TOP, LENGTH(TOP), square);
  *q = polynomial(BOTTOM, LENGTH(BOTTOM), square);
}

/* tanh x = 2 above / below. */
INLINE void tanh_parts(vec x, vec *above, vec *below) {
  vec p, q;
  half_tanh_parts(x, &p, &q);
  *above = p * q;
  *below = rounded(q * q) + p * p;
}

INLINE vec tanh_of(vec x) {
  vec above, below;
  tanh_parts(x, &above, &below);
  return (above + above) / below;
}

/* tanh of two neurons of a lane for one division, which takes as long as half of the rest. */
INLINE void tanh_of_two(vec x, vec y, vec *s, vec *t) {
  vec above_x, below_x, above_y, below_y;
  tanh_parts(x, &above_x, &below_x);
  tanh_parts(y, &above_y, &below_y);
  const vec share = 2 / (below_x * below_y);
  *s = above_x * below_y * share;
  *t = above_y * below_x * share;
}

INLINE vec identity_of(vec x) { return x; }

INLINE vec softsign_of(vec x) { return x / (1 + chosen(x < 0, -x, x)); }

INLINE vec hard_tanh_of(vec x) { return clamped(x, 1); }

#endif
