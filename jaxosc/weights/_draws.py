"""Random draws that are the same bits in and out of `jax.jit`, and the one meaning of `gain` in all laws."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxosc._checks import require_finite
from jaxosc._errors import JaxoscError


def mean_square_frequency(n: int) -> float:
    """Mean of omega^2 over the nonzero eigenvalues +-i omega that every law gives on average, for gain 1.

    It is (n - 1) / (2 floor(n/2)): 1 for odd n, 1 - 1/n for even n, the value of `DenseSkew`, whose entries are
    N(0, 1)/sqrt(n). So `gain` is the root mean square angular frequency of the linear network (up to that 1/n),
    for every class and size.
    """
    return (n - 1) / (2 * (n // 2))


def normals(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Standard normal numbers."""
    # Without the barrier XLA merges the constant sqrt(2) inside `normal` with a constant that multiplies it later:
    # a draw under jit would then differ in the last bit from the same draw outside.
    return jax.lax.optimization_barrier(jax.random.normal(key, shape, dtype))


def times(draws: Float[Array, "..."], scale: float, gain: ArrayLike) -> Float[Array, "..."]:
    """Draws times (scale * gain), the product of the two scalars taken first for the same reason."""
    factor = jnp.asarray(gain, draws.dtype)
    if factor.shape != ():
        raise JaxoscError(
            f"random got a gain of shape {factor.shape}, expected a scalar; use jax.vmap over keys and gains."
        )
    require_finite("gain", factor)
    return draws * (factor * scale)
