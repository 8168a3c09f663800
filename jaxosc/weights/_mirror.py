"""How parameters become a matrix that is skew bit for bit."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

UpperIndex = Int[np.ndarray, "n n"]


def mirrored(entries: Float[Array, "*batch m"], index: UpperIndex) -> Float[Array, "*batch n n"]:
    """The skew matrix with `W[i, j] = entries[index[i, j]]` for i < j; zero where the index is negative.

    `index` counts only above the diagonal. Each pair (i, j), (j, i) reads one and the same number and one of the two
    is negated, so `W.T == -W` holds exactly. Forming `P - P.T` instead is not safe: a compiler may fuse a product into
    the subtraction, with one rounding instead of two, on one side only (U V.T - V U.T of rank 2 under jit on CPU: a
    third of the cells were off by one rounding, the diagonal too). A gather with a constant index was also 2 to 4 times
    faster than a scatter on CPU for batches and for n = 512, and 20 times in the gradient at n = 512.
    """
    above = np.triu(index >= 0, 1)
    below = above.T
    source = np.where(below, index.T, np.where(above, index, 0)).astype(np.int32)
    values = entries[..., source]
    sign = jnp.broadcast_to(above.astype(np.int8) - below.astype(np.int8), values.shape)
    return jnp.where(sign > 0, values, jnp.where(sign < 0, -values, jnp.zeros_like(values)))


def rows_above_diagonal(n: int) -> UpperIndex:
    """Counts the entries above the diagonal row by row: (0, 1), (0, 2), ..., (1, 2), ...; -1 elsewhere."""
    index = np.full((n, n), -1)
    index[np.triu_indices(n, 1)] = np.arange(n * (n - 1) // 2)
    return index


def bands_above_diagonal(n: int, bandwidth: int) -> UpperIndex:
    """Counts the entries of the first `bandwidth` off-diagonals, one after another; -1 elsewhere."""
    index = np.full((n, n), -1)
    start = 0
    for offset in range(1, bandwidth + 1):
        rows = np.arange(n - offset)
        index[rows, rows + offset] = start + rows
        start += n - offset
    return index
