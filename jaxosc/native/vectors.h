/* Vectors as wide as the machine has them, and activations on them. Vectors are GCC's; clang knows them too. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>

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
typedef __typeof__((vec){} < (vec){}) mask;

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

/* Whether a mask has any bit. */
INLINE int anywhere(mask which) {
  typedef int64_t words __attribute__((vector_size(BYTES)));
  const words all = (words)which;
  int64_t any = 0;
#pragma GCC unroll 8
  for (int k = 0; k < BYTES / 8; k++) any |= all[k];
  return any != 0;
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

/* x P(x^2) / Q(x^2), clamped where tanh has rounded to 1; the numbers come with the command line. */
static const real TOP[] = {TANH_TOP}, BOTTOM[] = {TANH_BOTTOM};

INLINE vec tanh_of(vec x) {
  x = clamped(x, TANH_MOST);
  const vec square = x * x;
  return x * polynomial(TOP, LENGTH(TOP), square) / polynomial(BOTTOM, LENGTH(BOTTOM), square);
}

INLINE vec identity_of(vec x) { return x; }

INLINE vec softsign_of(vec x) { return x / (1 + chosen(x < 0, -x, x)); }

INLINE vec hard_tanh_of(vec x) { return clamped(x, 1); }

#endif
