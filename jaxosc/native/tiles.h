/* Products of one float32 W for all lanes on the tile unit of a processor (AMX), which multiplies numbers of 8 digits.

   A float32 is the sum of three such numbers, its pieces. Of the nine products of pieces the six largest are made: what
   is left out is smaller than float32's rounding. They are added up in float32 by the unit. It takes them 16 rows by 32
   columns by 16 lanes at a time, and so costs a third of what the vector units take. */

#include <immintrin.h>

/* A tile holds 16 rows of 64 bytes. Of W, a block is two tiles of 16 rows and 32 columns; of activations, a tile is 32
   neurons in one vector of lanes, two neighbours in each place; of sums, 16 neurons in one vector of lanes. */
enum { TILE = 1024, PIECES = 3, PRODUCTS = 6, EDGE = 32, EDGES = (N + EDGE - 1) / EDGE };

/* Pieces of W [rows][columns][piece][two tiles]; of the activations now and after the step [piece][neurons][lanes]. */
struct tiles {
  char *matrix, *active, *next;
};

enum {
  MATRIX_BYTES = EDGES * EDGES * PIECES * 2 * TILE,
  ACTIVE_BYTES = PIECES * EDGES * GROUPS * TILE,
  NEXT_AT = MATRIX_BYTES + (EDGES > 1 ? ACTIVE_BYTES : 0),
  TILES_BYTES = NEXT_AT + ACTIVE_BYTES
};

INLINE struct tiles tiles_in(char *space) {
  return (struct tiles){space, space + MATRIX_BYTES, space + NEXT_AT};
}

static void begin_tiles(void) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape ALIGNED = {.palette = 1};
  for (int k = 0; k < 8; k++) shape.bytes[k] = 64, shape.rows[k] = 16;
  _tile_loadconfig(&shape);
}

/* The compiler does not know what tiles read: what is before this has been written. */
#define WRITTEN __asm__ volatile("" ::: "memory")

/* Pieces of W by rounding, so that what the products leave out has no sign in common. */
static void split_matrix(char *pieces, const real *matrix) {
  for (int tile = 0; tile < EDGES * EDGES * 2; tile++) {
    const int rows = tile / (2 * EDGES) * EDGE + tile % 2 * 16, columns = tile / 2 % EDGES * EDGE;
    char *to = pieces + (long)(tile / 2 * PIECES * 2 + tile % 2) * TILE;
    for (int r = 0; r < 16; r++)
      for (int half = 0; half < 2; half++) {
        const int i = rows + r, j = columns + 16 * half, left = i < N && j < N ? (N - j < 16 ? N - j : 16) : 0;
        vec rest = (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << left) - 1), matrix + (left ? (long)i * N + j : 0));
        for (int p = 0; p < PIECES; p++) {
          const mask bits = (mask)rest, piece = bits + 0x7fff + (bits >> 16 & 1);
          _mm256_store_si256((__m256i *)(to + p * 2 * TILE + r * 64 + half * 32),
                             _mm512_cvtepi32_epi16((__m512i)(piece >> 16)));
          rest -= (vec)(piece & ~0xffff);
        }
      }
  }
}

/* Pieces of two neighbours by cutting, which is cheapest, into a row of each piece's tile: the upper halves of both. */
INLINE void split_two(vec x, vec y, char *to) {
  /* Bytes 2 and 3 of four to 0 and 1. */
  const __m512i upper = _mm512_set4_epi32(0x0f0e0f0e, 0x0b0a0b0a, 0x07060706, 0x03020302);
#pragma GCC unroll 3
  for (int p = 0; p < PIECES; p++) {
    *(__m512i *)(to + (long)p * (ACTIVE_BYTES / PIECES)) =
        _mm512_mask_shuffle_epi8((__m512i)y, 0x3333333333333333, (__m512i)x, upper);
    x -= (vec)((mask)x & ~0xffff), y -= (vec)((mask)y & ~0xffff);
  }
}

/* The sums of 32 rows in two vectors of lanes are in tiles 0 to 3. */
#define ZERO_SUMS \
  _tile_zero(0);  \
  _tile_zero(1);  \
  _tile_zero(2);  \
  _tile_zero(3)

#define LOAD_ROWS(matrix, piece)                       \
  _tile_loadd(4, matrix + (piece) * 2 * TILE, 64);     \
  _tile_loadd(5, matrix + (piece) * 2 * TILE + TILE, 64)

#define LOAD_LANES(active, piece)                                       \
  _tile_loadd(6, active + (long)(piece) * (ACTIVE_BYTES / PIECES), 64); \
  _tile_loadd(7, active + (long)(piece) * (ACTIVE_BYTES / PIECES) + TILE, 64)

#define ADD_PRODUCT        \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)

/* The products of a block, the smallest first; `beside(k)` is done after k of them. */
#define ADD_PRODUCTS(matrix, active, beside) \
  LOAD_ROWS(matrix, 2);                      \
  LOAD_LANES(active, 0);                     \
  ADD_PRODUCT;                               \
  beside(1);                                 \
  LOAD_ROWS(matrix, 1);                      \
  ADD_PRODUCT;                               \
  beside(2);                                 \
  LOAD_LANES(active, 1);                     \
  ADD_PRODUCT;                               \
  beside(3);                                 \
  LOAD_ROWS(matrix, 0);                      \
  ADD_PRODUCT;                               \
  beside(4);                                 \
  LOAD_LANES(active, 2);                     \
  ADD_PRODUCT;                               \
  beside(5);                                 \
  LOAD_LANES(active, 0);                     \
  ADD_PRODUCT;                               \
  beside(PRODUCTS)

/* As rows of `width` vectors. */
#define STORE_SUMS(to, width)                                                   \
  _tile_stored(0, (char *)(to), (width) * 64);                                  \
  _tile_stored(1, (char *)(to) + 64, (width) * 64);                             \
  _tile_stored(2, (char *)(to) + 16 * (width) * 64, (width) * 64);              \
  _tile_stored(3, (char *)(to) + 16 * (width) * 64 + 64, (width) * 64)

/* Where the pieces are: of W, rows and columns in numbers of blocks; of neurons, in two vectors of lanes. */
INLINE const char *matrix_at(const struct tiles *tiles, int rows, int columns) {
  return tiles->matrix + ((long)rows * EDGES + columns) * PIECES * 2 * TILE;
}

INLINE char *active_at(char *active, int neurons, int g) { return active + ((long)neurons * GROUPS + g) * TILE; }
