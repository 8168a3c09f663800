"""Skew weights with a fixed pattern of zeros: a band around the diagonal, or two groups of neurons."""

import math
import operator
from collections.abc import Sequence
from typing import ClassVar, Self, SupportsIndex

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxosc._errors import JaxoscError

from ._base import AbstractWeight
from ._checks import Values, check_vector, checked_dtype, checked_parameters, checked_size, scaled_parameters
from ._draws import mean_square_frequency, normals, times
from ._mirror import bands_above_diagonal, mirrored


class BandedSkew(AbstractWeight):
    """A skew matrix with W[i, j] = 0 for |i - j| > bandwidth: a chain of neurons that meet near ones.

    The k-th off-diagonal holds n - k entries, k = 1 .. bandwidth. `matvec` costs 4 n bandwidth operations up
    to bandwidth SHIFTS_UP_TO, one shifted product for each off-diagonal; a wider band forms the matrix (n^2).

    Args:
        entries: W[0, 1], W[1, 2], ..., then W[0, 2], W[1, 3], ..., shape (..., m) with
            m = bandwidth (2n - bandwidth - 1)/2.
        bandwidth: 1 .. n - 1; n follows from it and the number of entries.

    Raises `JaxoscError` when bandwidth and number of entries fit no n, or an entry is not finite.
    """

    entries: Float[Array, "*batch m"]
    size: int = eqx.field(static=True)
    bandwidth: int = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "Entries of the band above the diagonal are independent, gain * N(0, 1) sqrt((n-1)/(2 m)) with m "
        "their number: the law of DenseSkew when the band is full."
    )
    # On CPU (n = 8 .. 256) shifts ran faster even at bandwidth 16, but they are unrolled and took 0.7 s to compile.
    SHIFTS_UP_TO: ClassVar[int] = 8

    def __init__(self, entries: Values, bandwidth: SupportsIndex) -> None:
        self.entries = checked_parameters("BandedSkew", entries, axes=1)
        self.bandwidth = operator.index(bandwidth)
        count = self.entries.shape[-1]
        # count = b n - b (b + 1)/2
        size, rest = divmod(count + self.bandwidth * (self.bandwidth + 1) // 2, max(self.bandwidth, 1))
        if rest or not 1 <= self.bandwidth < size:
            raise JaxoscError(
                f"BandedSkew got {count} entries for bandwidth {self.bandwidth}, expected n - k of them on "
                "each off-diagonal k = 1 .. bandwidth with 1 <= bandwidth < n; use BandedSkew.from_diagonals."
            )
        self.size = size

    @classmethod
    def from_diagonals(cls, diagonals: Sequence[Values]) -> Self:
        """The weight of given off-diagonals, nearest first, shapes (..., n - 1), (..., n - 2), ...

        Raises `JaxoscError` when there is none, the lengths are others, or a number is not finite.
        """
        arrays = [checked_parameters("BandedSkew.from_diagonals", diagonal, axes=1) for diagonal in diagonals]
        lengths = [array.shape[-1] for array in arrays]
        if not arrays or lengths != [lengths[0] - k for k in range(len(lengths))] or lengths[-1] < 1:
            raise JaxoscError(
                f"BandedSkew.from_diagonals got off-diagonals of lengths {lengths}, expected n - 1, n - 2, "
                "...; start with the one next to the diagonal."
            )
        return cls(jnp.concatenate(arrays, axis=-1), len(arrays))

    @classmethod
    def random(
        cls,
        key: PRNGKeyArray,
        n: SupportsIndex,
        *,
        bandwidth: SupportsIndex = 1,
        gain: ArrayLike = 1.0,
        dtype: DTypeLike = float,
    ) -> Self:
        """Normal entries in the band, of the variance that gives the mean square frequency of all laws.

        The largest frequency of a chain (bandwidth 1) is near 2.2 gain at n = 64, 2.6 gain at n = 512; wider bands
        come close to the 2 gain of `DenseSkew`.

        Raises `JaxoscError` also for a bandwidth outside 1 .. n - 1.
        """
        size = checked_size("BandedSkew", n)
        band = operator.index(bandwidth)
        if not 1 <= band < size:
            raise JaxoscError(f"BandedSkew got bandwidth={band}, expected 1 .. {size - 1} for n={size}; choose fewer.")
        count = band * size - band * (band + 1) // 2
        draws = normals(key, (count,), checked_dtype(dtype))
        return cls(times(draws, math.sqrt((size - 1) / (2 * count)), gain), band)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the entries."""
        return self.entries.shape[:-1]

    @property
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """bandwidth + 1 groups: every (bandwidth + 1)-th neuron."""
        stride = self.bandwidth + 1
        return tuple(tuple(range(first, self.size, stride)) for first in range(stride))

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The banded skew matrix, exactly."""
        return mirrored(self.entries, bands_above_diagonal(self.size, self.bandwidth))

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        if self.bandwidth > self.SHIFTS_UP_TO:
            return jnp.matmul(self.matrix(), v, precision="highest")
        result = jnp.zeros_like(v, jnp.result_type(v, self.entries))
        start = 0
        for offset in range(1, self.bandwidth + 1):
            count = self.size - offset
            diagonal = self.entries[start : start + count]
            result += jnp.pad(diagonal * v[offset:], (0, offset)) - jnp.pad(diagonal * v[:count], (offset, 0))
            start += count
        return result

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        return eqx.tree_at(lambda w: w.entries, self, scaled_parameters(self, self.entries, gain))


class Bipartite(AbstractWeight):
    """Two groups of p and q neurons that meet only each other: W = [[0, B], [-B.T, 0]], n = p + q.

    Frequencies are the singular values of B; |p - q| of them are zero besides. `matvec` costs 4 p q
    operations.

    Args:
        coupling: B, shape (..., p, q): how the second group (the last q neurons) drives the first.

    Raises `JaxoscError` when p or q is 0, or an entry is not finite.
    """

    coupling: Float[Array, "*batch p q"]
    size: int = eqx.field(static=True)
    p: int = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "The p q entries of the coupling are independent, gain * N(0, 1)/sqrt(max(p, q)), "
        "times sqrt(1 - 1/n) for even n = p + q."
    )

    def __init__(self, coupling: Values) -> None:
        self.coupling = checked_parameters("Bipartite", coupling, axes=2)
        self.p, q = self.coupling.shape[-2:]
        self.size = self.p + q
        if min(self.p, q) < 1:
            raise JaxoscError(f"Bipartite got a coupling of shape ({self.p}, {q}), expected p >= 1 and q >= 1.")

    @classmethod
    def random(
        cls,
        key: PRNGKeyArray,
        n: SupportsIndex,
        *,
        p: SupportsIndex | None = None,
        gain: ArrayLike = 1.0,
        dtype: DTypeLike = float,
    ) -> Self:
        """Normal couplings between the first p neurons (n // 2 by default) and the rest.

        Their variance gives the nonzero frequencies the mean square of all laws.
        Raises `JaxoscError` also for p outside 1 .. n - 1.
        """
        size = checked_size("Bipartite", n)
        first = size // 2 if p is None else operator.index(p)
        if not 1 <= first < size:
            raise JaxoscError(f"Bipartite got p={first}, expected 1 .. {size - 1} for n={size}; leave p out.")
        draws = normals(key, (first, size - first), checked_dtype(dtype))
        scale = math.sqrt(mean_square_frequency(size) / max(first, size - first))
        return cls(times(draws, scale, gain))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coupling."""
        return self.coupling.shape[:-2]

    @property
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """The two groups."""
        return tuple(range(self.p)), tuple(range(self.p, self.size))

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The skew block matrix, exactly."""
        index = np.full((self.size, self.size), -1)
        q = self.size - self.p
        index[: self.p, self.p :] = np.arange(self.p * q).reshape(self.p, q)
        return mirrored(self.coupling.reshape(*self.batch_shape, self.p * q), index)

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        first = jnp.matmul(self.coupling, v[self.p :], precision="highest")
        second = jnp.matmul(v[: self.p], self.coupling, precision="highest")
        return jnp.concatenate([first, -second])

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        return eqx.tree_at(lambda w: w.coupling, self, scaled_parameters(self, self.coupling, gain))
