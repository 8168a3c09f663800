"""Weights whose parameters are the entries themselves: all of the skew ones, and all of any."""

import math
from typing import ClassVar, Self, SupportsIndex

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxosc._checks import is_concrete
from jaxosc._errors import JaxoscError

from ._base import AbstractWeight
from ._checks import (
    Values,
    check_square,
    check_vector,
    checked_dtype,
    checked_parameters,
    checked_size,
    concrete_skew,
    scaled_parameters,
    skew_tolerance,
    triangle_side,
)
from ._draws import normals, times
from ._mirror import mirrored, rows_above_diagonal


class DenseSkew(AbstractWeight):
    """Any skew matrix, by its n(n-1)/2 entries above the diagonal, row by row.

    `matvec` costs 2 n^2 operations and n^2 memory: it forms the matrix and multiplies, which on CPU was
    faster than two scattered sums over the entries for n = 64 and 512, alone and in batches.

    Args:
        entries: shape (..., n(n-1)/2): W[0, 1], W[0, 2], ..., W[1, 2], ...; n follows from their number.

    Raises `JaxoscError` when the number of entries is no n(n-1)/2 with n >= 2, or one is not finite.
    """

    entries: Float[Array, "*batch m"]
    size: int = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = "Entries above the diagonal are independent, gain * N(0, 1)/sqrt(n)."

    def __init__(self, entries: Values) -> None:
        self.entries = checked_parameters("DenseSkew", entries, axes=1)
        count = self.entries.shape[-1]
        size = triangle_side(count)
        if size is None or size < 2:
            raise JaxoscError(
                f"DenseSkew got {count} entries, expected n(n-1)/2 of them (1, 3, 6, 10, ...) for n neurons; "
                "use DenseSkew.from_matrix for a full matrix."
            )
        self.size = size

    @classmethod
    def from_matrix(cls, matrix: Values) -> Self:
        """The weight of a skew matrix, shape (n, n).

        Skew means max |W + W.T| <= 10 n eps max |W|, eps that of the matrix's own dtype: products such as
        T S T.T leave about n roundings in an entry. What is kept is the skew part (W - W.T)/2, which is W
        itself, bit for bit, when W is exactly skew.

        Raises `JaxoscError` when W is not square, smaller than 2 x 2, not finite, or not skew, and then says
        by how much and where. Under `jax.jit` the last two are found when the program runs (`eqx.error_if`).
        """
        if is_concrete(matrix):
            array = checked_parameters("DenseSkew.from_matrix", concrete_skew("DenseSkew.from_matrix", matrix), axes=2)
        else:
            array = _traced_skew(checked_parameters("DenseSkew.from_matrix", matrix, axes=2))
        rows, columns = np.triu_indices(array.shape[0], 1)
        return cls((0.5 * array - 0.5 * array.T)[rows, columns])

    @classmethod
    def random(cls, key: PRNGKeyArray, n: SupportsIndex, *, gain: ArrayLike = 1.0, dtype: DTypeLike = float) -> Self:
        """Entries gain * N(0, 1)/sqrt(n), the law of (A - A.T)/sqrt(2) for A with such entries.

        Mean square frequency gain^2 (1 - 1/n) for even n, gain^2 for odd n; spectral norm near 2 gain for
        large n.
        """
        size = checked_size("DenseSkew", n)
        draws = normals(key, (size * (size - 1) // 2,), checked_dtype(dtype))
        return cls(times(draws, 1 / math.sqrt(size), gain))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the entries."""
        return self.entries.shape[:-1]

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The skew matrix, exactly."""
        return mirrored(self.entries, rows_above_diagonal(self.size))

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        return jnp.matmul(self.matrix(), v, precision="highest")

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        return eqx.tree_at(lambda w: w.entries, self, scaled_parameters(self, self.entries, gain))


class Unconstrained(AbstractWeight):
    """Any n x n matrix: no structure is promised, so nothing need be conserved.

    Args:
        entries: the matrix, shape (..., n, n).

    Raises `JaxoscError` when it is not square, smaller than 2 x 2, or not finite.
    """

    entries: Float[Array, "*batch n n"]
    size: int = eqx.field(static=True)
    skew: ClassVar[bool] = False
    hollow: ClassVar[bool] = False
    law: ClassVar[str] = (
        "All n^2 entries are independent, gain * N(0, 1)/sqrt(n); "
        "for large n the eigenvalues fill the disk of radius gain."
    )

    def __init__(self, entries: Values) -> None:
        self.entries = checked_parameters("Unconstrained", entries, axes=2)
        check_square("Unconstrained", self.entries.shape[-2:])
        self.size = self.entries.shape[-1]

    @classmethod
    def random(cls, key: PRNGKeyArray, n: SupportsIndex, *, gain: ArrayLike = 1.0, dtype: DTypeLike = float) -> Self:
        """Entries gain * N(0, 1)/sqrt(n), the diagonal too.

        The typical entry and the spectral norm (near 2 gain for large n) are those of `DenseSkew`; the
        eigenvalues are complex numbers within about gain of 0, so `gain` is not a root mean square frequency
        here.
        """
        size = checked_size("Unconstrained", n)
        draws = normals(key, (size, size), checked_dtype(dtype))
        return cls(times(draws, 1 / math.sqrt(size), gain))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the entries."""
        return self.entries.shape[:-2]

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The matrix as it was given."""
        return self.entries

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        return jnp.matmul(self.entries, v, precision="highest")

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        return eqx.tree_at(lambda w: w.entries, self, scaled_parameters(self, self.entries, gain))


def _traced_skew(array: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The traced matrix, tied to a check of its values when the program runs."""
    check_square("DenseSkew.from_matrix", array.shape)
    largest = jnp.max(jnp.abs(array))
    good = jnp.max(jnp.abs(array + array.T)) <= skew_tolerance(array.shape[0], array.dtype) * largest
    return eqx.error_if(
        array,
        ~(good & jnp.isfinite(largest)),
        "DenseSkew.from_matrix got a matrix that is not skew (or not finite), expected W.T == -W up to "
        "rounding; use its skew part (W - W.T)/2 or Unconstrained(W).",
    )
