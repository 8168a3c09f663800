"""Hidden skewness: W = S diag(d) is not skew, yet conserves a weighted energy."""

import math
from typing import ClassVar, Self, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxosc._checks import is_concrete, require_positive
from jaxosc._errors import JaxoscError

from ._base import AbstractWeight
from ._checks import Values, check_vector, checked_dtype, checked_parameters, checked_size
from ._draws import normals, times
from .dense import DenseSkew


class Symmetrizable(AbstractWeight):
    """W = S diag(d), S skew and d > 0: D^(1/2) W D^(-1/2) is skew, and sum_i d_i potential(y_i) is conserved.

    The parameter is log d. It is held within +-log(largest float)/2 before exponentiation, so d is positive
    and finite whatever a fit does to it; outside that range (d below 8e-20 or above 1e19 in float32) its
    gradient is zero.

    Args:
        skew_part: S, any weight whose class is skew.
        log_energy_weights: log d, shape (..., n) with the batch axes of S, and its dtype.

    Raises `JaxoscError` when S is not skew, shapes or dtypes do not fit, or a number is not finite.
    """

    skew_part: AbstractWeight
    log_energy_weights: Float[Array, "*batch n"]
    size: int = eqx.field(static=True)
    skew: ClassVar[bool] = False
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "S has the law of DenseSkew times exp(-spread^2/2) and d is independent of it, lognormal: "
        "log d ~ N(0, spread^2), spread 0.5 unless given."
    )

    def __init__(self, skew_part: AbstractWeight, log_energy_weights: Values) -> None:
        self.skew_part = skew_part
        self.log_energy_weights = checked_parameters("Symmetrizable", log_energy_weights, axes=1)
        self.size = skew_part.size
        if not skew_part.skew:
            raise JaxoscError(f"Symmetrizable got {skew_part!r}, expected a skew weight; use DenseSkew.")
        expected = (*skew_part.batch_shape, skew_part.size)
        log_d = self.log_energy_weights
        if log_d.shape != expected or log_d.dtype != skew_part.dtype:
            raise JaxoscError(
                f"Symmetrizable got log d of shape {log_d.shape} {log_d.dtype.name}, expected {expected} "
                f"{skew_part.dtype.name} like {skew_part!r}; give every neuron one number."
            )

    @classmethod
    def from_energy_weights(cls, skew_part: AbstractWeight, d: Values) -> Self:
        """The weight S diag(d) of given d > 0, shape (..., n).

        `energy_weights()` returns d to about one rounding of log d. Raises `JaxoscError` where a concrete d is not
        positive or outside the range of the class; a traced one is checked when the program runs (`eqx.error_if`).
        """
        values = checked_parameters("Symmetrizable.from_energy_weights", d, axes=1).astype(skew_part.dtype)
        require_positive("d", values)
        log_d = jnp.log(values)
        limit = _log_limit(skew_part.dtype)
        outside = ~(jnp.abs(log_d) <= limit)
        if not is_concrete(outside):
            log_d = eqx.error_if(log_d, outside, "Symmetrizable needs every d > 0, and neither tiny nor huge.")
        elif outside.any():
            raise JaxoscError(
                f"Symmetrizable.from_energy_weights got d from {float(values.min()):.3g} to {float(values.max()):.3g}, "
                f"expected {math.exp(-limit):.1g} to {math.exp(limit):.1g} in {skew_part.dtype.name}; divide d by its "
                "mean and multiply S by it."
            )
        return cls(skew_part, log_d)

    @classmethod
    def random(
        cls,
        key: PRNGKeyArray,
        n: SupportsIndex,
        *,
        spread: float = 0.5,
        gain: ArrayLike = 1.0,
        dtype: DTypeLike = float,
    ) -> Self:
        """S like `DenseSkew.random`, d lognormal with median 1; spread 0 gives d = 1.

        The factor of S makes the mean square frequency that of `DenseSkew` whatever the spread, as d is independent
        of S and its mean is exp(spread^2/2). The largest frequency and the spectral norm are larger: near 2.2 and
        3.2 gain for n = 64. Raises `JaxoscError` also for a spread that is negative or not finite.
        """
        size = checked_size("Symmetrizable", n)
        if not 0 <= spread < math.inf:
            raise JaxoscError(
                f"Symmetrizable got spread={spread}, expected a finite spread >= 0; leave it out for 0.5."
            )
        real = checked_dtype(dtype)
        skew_key, weight_key = jax.random.split(key)
        # A mean of 1 for d would need a difference in log d: under jit on CPU it is fused with the product before it,
        # and the draw is another in its last bit than outside jit. Products alone are not touched.
        scale = math.exp(-(spread**2) / 2) / math.sqrt(size)
        entries = times(normals(skew_key, (size * (size - 1) // 2,), real), scale, gain)
        return cls(DenseSkew(entries), times(normals(weight_key, (size,), real), spread, 1.0))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of log d."""
        return self.log_energy_weights.shape[:-1]

    @property
    def colours(self) -> tuple[tuple[int, ...], ...] | None:
        """Those of S."""
        return self.skew_part.colours

    def energy_weights(self) -> Float[Array, "*batch n"]:
        """d > 0, finite: `sum_i d_i potential(y_i)` is conserved."""
        limit = _log_limit(self.dtype)
        # Without the barrier XLA merges the bounds with those of its exp, in another way for few members than for many:
        # d differs in the last bit (float32, JAX 0.12), and a member must not depend on its neighbours.
        held = jax.lax.optimization_barrier(jnp.clip(self.log_energy_weights, -limit, limit))
        return jnp.exp(held)

    def matrix(self) -> Float[Array, "*batch n n"]:
        """S diag(d); its diagonal is exactly zero."""
        return self.skew_part.matrix() * self.energy_weights()[..., None, :]

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        return self.skew_part.matvec(self.energy_weights() * v)

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`: S takes the gain, d stays."""
        return eqx.tree_at(lambda w: w.skew_part, self, self.skew_part.scaled(gain))


def _log_limit(dtype: jnp.dtype) -> int:
    """The largest |log d|: half of what exp can hold, so that products of two d stay finite."""
    return math.floor(0.5 * math.log(float(jnp.finfo(dtype).max)))
