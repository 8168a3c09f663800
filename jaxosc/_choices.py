"""Which layout, form and width the time loops use: every choice that was measured and not derived, in one table.

`python -m benchmarks.choices` measures the alternatives on the machine at hand. Figures below are ns per neuron and
step on one core (AVX-512, 2 MiB of L2), with JAX's default settings unless "flags" (`jo.configure_cpu`) is said. Code
reads these names when it is traced, as `_choices.NAME`, so that they can be overridden in a process.

Two kinds: a *form* decides the order of a sum, so another one changes the last digits of results; a *width* decides how
many lanes go together, which changes no bit.
"""

from typing import Literal

Use = Literal["once", "stages", "pieces"]
"""What a step does with W: one product with the whole of it, one for each stage, or products with pieces of it."""

UNROLLED_UP_TO = 11
"""A form. Up to this n a product with a shared W is a sum of columns; beyond, a matrix product (crossing 8-16)."""

OWN_COLUMNS_UP_TO = 16
"""A form. The same for lanes with a W of their own: sums of columns still win at 16, products of each lane at 24.

Beyond, XLA merges the stages of Tsit5 with the sums and computes tanh again for every row: at n = 32 22 (float32) and
52-123 (float64) instead of 16 and 31 with products, at n = 64 206 instead of 44.
"""

ONE_PRODUCT_COLUMNS_UP_TO = {("calls", 4): 32, ("calls", 8): 16, ("kernels", 4): 64, ("kernels", 8): 64}
"""A form. The same for a step with one product only (Euler), by what loops are (see `configure_cpu`) and itemsize.

Columns and products at n = 32: float32 1.9 and 2.5, flags 1.4 and 2.1; float64 4.8 and 4.2, flags 3.1 and 3.8. At
n = 64: float32 4.3 and 3.3, flags 3.0 and 4.0; float64, flags, 5.5 and 6.5. At n = 128 columns take 80.
"""

CHUNK_BYTES = 2**14
"""A width. What the states of a chunk take. Half of that and four times as much are slower, by up to a half, for some
of Euler, order-2 splitting, Tsit5 and Dopri8 at n = 2, 8 and 32, in both dtypes, with shared and own weights."""

MOST_LANES = 1024
"""A width. Beyond this a chunk gains nothing."""

ACCELERATOR_LANES = 2**20
"""A width. Lanes that go together on a GPU or TPU: it has no such cache, and wants many. Adaptive Taylor steps of 4,096
lanes on an H100, all at once and 1,024 at a time: 1.8 and 3.6 ms (n = 2), 5.9 and 18 (8), 20 and 70 (32)."""

KERNEL_UP_TO = {("cuda", "once"): 8, ("cuda", "pieces"): 32}
"""A form. Up to this n Euler ("once") and splitting ("pieces") run in the kernel of a GPU. Euler at n = 32 takes as
long without (17 ps a neuron and step on an H100, with W of its own 74 and 87); all others gain 2 to 24 times."""

LEAST_LANES = 256
"""A width. Below this the fixed cost of an operation rules."""

LEAST_OWN_LANES = 128
"""A width. The same with weights of their own, which crowd the cache; from `LARGE_FROM` on they decide alone."""

LARGE_FROM = 17
"""A width. From this n on own weights are large: the next three choices hold instead of those above."""

OWN_BYTES = {"columns": 2**18, "product": 2**20, "pieces": 2**20}
"""A width. What the own weights of a chunk may take of L2, by the form of its products. Euler, products, n = 128, with
8, 16, 32, 128 lanes: float32 8.2, 6.9, 12, 21, float64 13, 23, 41, 42. Columns, flags, n = 64, with 8, 16, 32, 128:
float32 4.6, 3.0, 3.9, 6.5; float64 5.5, 7.1, 7.4, 21."""

LEAST_LARGE_LANES = {"columns": 8, "product": 4, "pieces": 16}
"""A width. Splitting works on few rows at a time, so only lanes fill the vector units: n = 128 in float64 with 8, 16,
32 lanes takes 100, 74, 95."""

MOST_LARGE_LANES = {"columns": 128, "product": 32, "pieces": 128}
"""A width. Products gain nothing beyond 32, and lose with flags (Tsit5, n = 32: 17 with 32 lanes, 22 with 128); the
calls of splitting want more (n = 32, with 16, 64, 128: 23, 8.2, 6.6)."""

NATIVE_UP_TO = 256
"""A form. Up to this n there are loops in C (see `jaxosc.native`); beyond, products of matrices rule, which XLA has."""

TILES_FROM, TILES_FILLED = 20, 0.69
"""Forms. From this n on, and where at least this part of the blocks of 32 neurons is filled, products of a shared W in
float32 are made on the tile unit, where there is one. Forward Euler without and with it: n = 16 0.37 and 0.44, 24 0.45
and 0.39, 32 0.51 and 0.37, 33 0.53 and 0.73, 40 0.61 and 0.63, 48 0.70 and 0.67, 128 1.50 and 0.82, 256 3.0 and 1.3."""

HOLLOW_UP_TO = 16
"""A form. Up to this n Euler in C leaves a diagonal of zeros out: a product of n for each neuron."""

NATIVE_LANES = {"shared": 512, "own": 128, "neurons": 4096, "growth": 512}
"""A width. Lanes that a loop in C gets at once; it has narrower blocks of its own."""

NATIVE_SAMPLE_BYTES = 2**17
"""A width. What the states may take that a loop in C brings back for measures that do not look at every step."""

CHUNK_LANES, CHUNK_LANES_OF_FEW = 64, 256
"""Widths. Lanes that go in lockstep with adaptive steps: more of them wait longer for the slowest, fewer do not fill
the vector units. Measured with Taylor at n = 2, 8, 32 and rtol 1e-6, 1e-15: 64 is best or nearly so, but for n = 2
where operations are calls: there 256 take 0.7 of the time."""

FEW_NEURONS = 4
"""A width. Up to this n an adaptive step is so short that the calls rule."""

SINGLES_UP_TO = 10
"""A form. Up to this n a dense splitting sweep is written out neuron by neuron; beyond, it goes block by block."""

BLOCK = 8
"""A form. Neurons in a dense block (n = 32 and 128, own and shared W: 4 and 16 were slower)."""


def own_columns_up_to(use: Use, itemsize: int, kernels: bool) -> int:
    """Up to which n a product with an own W is a sum of columns; `kernels`, as `loops_are_kernels`."""
    if use != "once":
        return OWN_COLUMNS_UP_TO
    return ONE_PRODUCT_COLUMNS_UP_TO["kernels" if kernels else "calls", 8 if itemsize > 4 else 4]


def large_lanes(n: int, itemsize: int, use: Use, kernels: bool) -> float:
    """How many lanes with a large W of their own go together."""
    form = "pieces" if use == "pieces" else "columns" if n <= own_columns_up_to(use, itemsize, kernels) else "product"
    fitting = OWN_BYTES[form] / (n * n * itemsize)
    return min(max(fitting, LEAST_LARGE_LANES[form]), MOST_LARGE_LANES[form])


def tiles_pay(n: int) -> bool:
    """Whether blocks of 32 neurons are filled enough for the tile unit to be faster."""
    return n >= TILES_FROM and n / (32 * -(-n // 32)) >= TILES_FILLED
