"""Skew weights whose eigenvalues are known in closed form: independent rotations, and circulant coupling."""

import math
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


class RotationBlocks(AbstractWeight):
    """Independent rotations: planes (0, 1), (2, 3), ... with blocks [[0, omega], [-omega, 0]].

    Eigenvalues are +-i omega_k, and one 0 for odd n, whose last neuron is uncoupled. `matvec` costs n
    operations.

    Args:
        angular_frequencies: omega, shape (..., n // 2), in radians per unit time; the sign is the sense of
            rotation.
        size: n, twice their number (the default) or one more.

    Raises `JaxoscError` when the size does not fit their number, there is none, or one is not finite.
    """

    angular_frequencies: Float[Array, "*batch planes"]
    size: int = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "Angular frequencies are independent, of the semicircle law with mean square "
        "gain^2 (n-1)/(2 floor(n/2)), the spectrum of DenseSkew for large n."
    )

    def __init__(self, angular_frequencies: Values, size: SupportsIndex | None = None) -> None:
        self.angular_frequencies = checked_parameters("RotationBlocks", angular_frequencies, axes=1)
        planes = self.angular_frequencies.shape[-1]
        self.size = checked_size("RotationBlocks", 2 * planes if size is None else size)
        if self.size // 2 != planes:
            raise JaxoscError(
                f"RotationBlocks got {planes} angular frequencies for n={self.size}, expected n // 2 = "
                f"{self.size // 2}; leave size out, or pass {2 * planes} or {2 * planes + 1}."
            )

    @classmethod
    def from_frequencies(cls, frequencies: Values, size: SupportsIndex | None = None) -> Self:
        """The weight of given frequencies, shape (..., n // 2), in cycles per unit time."""
        return cls(2 * math.pi * checked_parameters("RotationBlocks", frequencies, axes=1), size)

    @classmethod
    def random(cls, key: PRNGKeyArray, n: SupportsIndex, *, gain: ArrayLike = 1.0, dtype: DTypeLike = float) -> Self:
        """Frequencies of the semicircle law on [-R, R], R = 2 gain sqrt((n-1)/(2 floor(n/2))).

        The mean square is R^2/4. Drawn as the first coordinate of a point that is uniform in the disk of
        radius R.
        """
        size = checked_size("RotationBlocks", n)
        real = checked_dtype(dtype)
        radius_key, angle_key = jax.random.split(key)
        radius = jnp.sqrt(jax.random.uniform(radius_key, (size // 2,), real))
        angle = jax.random.uniform(angle_key, (size // 2,), real, maxval=2 * math.pi)
        position = jax.lax.optimization_barrier(radius * jnp.cos(angle))  # see `normals`
        return cls(times(position, 2 * math.sqrt(mean_square_frequency(size)), gain), size)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the angular frequencies."""
        return self.angular_frequencies.shape[:-1]

    @property
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """The first neurons of all planes, and the second ones."""
        return tuple(range(0, self.size, 2)), tuple(range(1, self.size, 2))

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The block-diagonal skew matrix, exactly."""
        index = np.full((self.size, self.size), -1)
        planes = np.arange(self.size // 2)
        index[2 * planes, 2 * planes + 1] = planes
        return mirrored(self.angular_frequencies, index)

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        paired = 2 * (self.size // 2)
        first, second = v[:paired:2], v[1:paired:2]
        turned = jnp.stack([self.angular_frequencies * second, -self.angular_frequencies * first], axis=-1)
        return jnp.pad(turned.reshape(paired), (0, self.size - paired))

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        new = scaled_parameters(self, self.angular_frequencies, gain)
        return eqx.tree_at(lambda w: w.angular_frequencies, self, new)


class Circulant(AbstractWeight):
    """Coupling by distance around a ring: W[i, j] = c[(i - j) mod n], skew because c[n-k] = -c[k].

    (A circulant matrix that is skew; "skew-circulant" often names another family, with a sign change at the
    seam.) Eigenvalues are -2i sum_k c_k sin(2 pi j k / n), j = 0 .. n-1: zero for j = 0, and for j = n/2 when
    n is even, so the rank is n - 1 for odd n and n - 2 for even n. `matvec` costs n^2 operations up to n =
    FFT_FROM - 1, and n log n by the fast Fourier transform from there; the transform's rounding is about eps
    |W| |v| in each component.

    Args:
        coefficients: c_1, c_2, ..., shape (..., (n - 1) // 2); c_0 = 0, and c_{n/2} = 0 for even n.
        size: n >= 3 (the only 2 x 2 one is zero).

    Raises `JaxoscError` when n is below 3, the number of coefficients is not (n - 1) // 2, or one is not
    finite.
    """

    coefficients: Float[Array, "*batch m"]
    size: int = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "Coefficients c_1 .. c_{(n-1)//2} are independent, gain * N(0, 1)/sqrt(n), "
        "times sqrt(1 - 1/n) for even n; the other half are their negatives."
    )
    # On CPU the transform was as fast or faster from n = 64 on for one vector, from 32 on for 64 vectors.
    FFT_FROM: ClassVar[int] = 64

    def __init__(self, coefficients: Values, size: SupportsIndex) -> None:
        self.coefficients = checked_parameters("Circulant", coefficients, axes=1)
        self.size = checked_size("Circulant", size, at_least=3)
        count = self.coefficients.shape[-1]
        if count != (self.size - 1) // 2:
            raise JaxoscError(
                f"Circulant got {count} coefficients for n={self.size}, expected (n - 1) // 2 = "
                f"{(self.size - 1) // 2}; pass c_1, c_2, ... only, the rest follows."
            )

    @classmethod
    def random(cls, key: PRNGKeyArray, n: SupportsIndex, *, gain: ArrayLike = 1.0, dtype: DTypeLike = float) -> Self:
        """Coefficients of variance gain^2 / n, times 1 - 1/n for even n; n >= 3.

        The mean square of the nonzero frequencies is then that of every other law. The largest grows with n like
        sqrt(log n): near 2.3 gain at n = 64, 3.1 gain at n = 512.
        """
        size = checked_size("Circulant", n, at_least=3)
        draws = normals(key, ((size - 1) // 2,), checked_dtype(dtype))
        return cls(times(draws, math.sqrt(mean_square_frequency(size) / size), gain), size)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the coefficients."""
        return self.coefficients.shape[:-1]

    @property
    def colours(self) -> tuple[tuple[int, ...], ...] | None:
        """For even n the pairs of opposite neurons, as c_{n/2} = 0; for odd n all neurons meet."""
        half, odd = divmod(self.size, 2)
        return None if odd else tuple((i, i + half) for i in range(half))

    def first_column(self) -> Float[Array, "*batch n"]:
        """W[:, 0]: all n coefficients, c_0 = 0 first."""
        c = self.coefficients
        zero = jnp.zeros((*c.shape[:-1], 1), c.dtype)
        middle = [zero] if self.size % 2 == 0 else []
        return jnp.concatenate([zero, c, *middle, -c[..., ::-1]], axis=-1)

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The circulant skew matrix, exactly."""
        neuron = np.arange(self.size)
        return self.first_column()[..., (neuron[:, None] - neuron[None, :]) % self.size]

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        # There is no Fourier transform of 16-bit floats.
        wide = jnp.finfo(jnp.result_type(self.coefficients, v)).bits >= 32
        if self.size >= self.FFT_FROM and wide:
            return jnp.fft.irfft(jnp.fft.rfft(self.first_column()) * jnp.fft.rfft(v), self.size)
        return jnp.matmul(self.matrix(), v, precision="highest")

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        return eqx.tree_at(lambda w: w.coefficients, self, scaled_parameters(self, self.coefficients, gain))
