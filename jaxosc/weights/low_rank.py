"""Skew weights of low rank: few rotations, and a large kernel of directions that stand still."""

import operator
from typing import ClassVar, Self, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxosc._errors import JaxoscError

from ._base import AbstractWeight
from ._checks import Values, check_vector, checked_dtype, checked_parameters, checked_size, scaled_parameters
from ._draws import mean_square_frequency, normals, times
from ._mirror import mirrored


class LowRankSkew(AbstractWeight):
    """W = U V.T - V U.T with U and V of r columns: rank 2r, so n - 2r directions are Casimirs.

    `matvec` costs 8 n r operations and never forms the matrix. The parameters are not unique: any 2r x 2r
    symplectic mix of the columns of (U, V) gives the same W.

    Args:
        u, v: shape (..., n, r) each, 1 <= 2r <= n.

    Raises `JaxoscError` when the shapes differ, r is 0 or above n // 2, n is below 2, or a number is not
    finite.
    """

    u: Float[Array, "*batch n r"]
    v: Float[Array, "*batch n r"]
    size: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "Entries of U and V are independent, N(0, 1)/sqrt(n), times (1 - 1/n)^(-1/4) for odd n; "
        "U is then multiplied by gain."
    )

    def __init__(self, u: Values, v: Values) -> None:
        self.u = checked_parameters("LowRankSkew", u, axes=2)
        self.v = checked_parameters("LowRankSkew", v, axes=2)
        if self.u.shape != self.v.shape or self.u.dtype != self.v.dtype:
            raise JaxoscError(
                f"LowRankSkew got U of shape {self.u.shape} {self.u.dtype.name} and V of shape "
                f"{self.v.shape} {self.v.dtype.name}, expected the same; make them alike."
            )
        n, columns = self.u.shape[-2:]
        self.size = checked_size("LowRankSkew", n)
        self.rank = _checked_rank(2 * columns, n)

    @classmethod
    def random(
        cls,
        key: PRNGKeyArray,
        n: SupportsIndex,
        *,
        rank: SupportsIndex = 2,
        gain: ArrayLike = 1.0,
        dtype: DTypeLike = float,
    ) -> Self:
        """Normal U and V, of the variance that gives the nonzero frequencies the mean square of all laws.

        The rank is that of W: even, 2 .. n. The largest frequency is near gain for rank 2, 2.3 gain at full
        rank for n = 64, 2.5 gain for n = 512. Raises `JaxoscError` also for another rank.
        """
        size = checked_size("LowRankSkew", n)
        columns = _checked_rank(rank, size) // 2
        u, v = normals(key, (2, size, columns), checked_dtype(dtype))
        # E |W|_F^2 = 2 r n (n - 1) s^4 for entries of variance s^2; the rank 2r times the wanted mean square.
        scale = (mean_square_frequency(size) / (size * (size - 1))) ** 0.25
        return cls(times(u, scale, gain), times(v, scale, 1.0))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of U and V."""
        return self.u.shape[:-2]

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The skew matrix, exactly; n^2 r operations, one column of U and V after the other."""
        left = jnp.moveaxis(jnp.concatenate([self.u, self.v], axis=-1), -1, 0)
        right = jnp.moveaxis(jnp.concatenate([self.v, -self.u], axis=-1), -1, 0)

        def add_column(total: Array, columns: tuple[Array, Array]) -> tuple[Array, None]:
            first, second = columns
            return total + first[..., :, None] * second[..., None, :], None

        # Not two matmuls: on CPU their last bits depend on the size of the batch (seen for 1, 3, 16, 64 members), and a
        # member of an ensemble must not depend on its neighbours. The price: 5 times slower at n = 512, r = 256.
        zeros = jnp.zeros((*self.batch_shape, self.size, self.size), self.u.dtype)
        product, _ = jax.lax.scan(add_column, zeros, (left, right))
        cells = self.size**2
        return mirrored(product.reshape(*self.batch_shape, cells), np.arange(cells).reshape(self.size, self.size))

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        along_v = jnp.matmul(v, self.v, precision="highest")
        along_u = jnp.matmul(v, self.u, precision="highest")
        return jnp.matmul(self.u, along_v, precision="highest") - jnp.matmul(self.v, along_u, precision="highest")

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`: U takes the gain, V stays."""
        return eqx.tree_at(lambda w: w.u, self, scaled_parameters(self, self.u, gain))


def _checked_rank(rank: SupportsIndex, n: int) -> int:
    value = operator.index(rank)
    if value % 2 or not 2 <= value <= n:
        raise JaxoscError(
            f"LowRankSkew got rank {value} for n={n}, expected an even rank from 2 to {2 * (n // 2)}; "
            "a skew matrix has no other."
        )
    return value
