"""What the constructors of weights ask of their arguments; each failure is one sentence."""

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from jaxosc._checks import require_finite
from jaxosc._errors import JaxoscError

from ._base import AbstractWeight

Values: TypeAlias = ArrayLike | Sequence[Any]


def checked_size(name: str, n: SupportsIndex, at_least: int = 2) -> int:
    """n as an int, or an error naming the class."""
    size = operator.index(n)
    if size < at_least:
        raise JaxoscError(f"{name} got n={size}, expected n >= {at_least}; use more neurons.")
    return size


def checked_dtype(dtype: DTypeLike) -> jnp.dtype:
    """A real float type that this session can hold; Python's `float` is the session's default."""
    wanted = jnp.result_type(float) if dtype is float else np.dtype(dtype)
    if not jnp.issubdtype(wanted, jnp.floating):
        raise JaxoscError(f"A weight got dtype={wanted.name}, expected a real float; use float32 or float64.")
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise JaxoscError(
            f"A weight got dtype={wanted.name} in a session without 64-bit numbers; "
            "use float32 or set jax_enable_x64 first."
        )
    return wanted


def checked_parameters(name: str, values: Values, *, axes: int) -> Float[Array, "..."]:
    """Values as a real float array with at least `axes` axes; finite, where they are concrete."""
    array = jnp.asarray(values)
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool:
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise JaxoscError(f"{name} got parameters of dtype {array.dtype.name}, expected real numbers.")
    if array.ndim < axes:
        raise JaxoscError(
            f"{name} got parameters of shape {array.shape}, expected at least {axes} "
            f"{'axis' if axes == 1 else 'axes'}; pass an array."
        )
    require_finite(f"{name} parameter", array)
    return array


def check_vector(weight: AbstractWeight, v: Array) -> None:
    """Error unless the weight is a single one and v a single vector of its size."""
    if weight.batch_shape:
        raise JaxoscError(
            f"matvec got {weight!r}, a batch, expected a single weight; "
            "use jax.vmap(lambda weight, v: weight.matvec(v))(weights, vectors)."
        )
    if v.shape != (weight.size,):
        raise JaxoscError(
            f"matvec of {weight!r} got a vector of shape {v.shape}, expected {(weight.size,)}; use jax.vmap for many."
        )


def scaled_parameters(weight: AbstractWeight, parameters: Array, gain: ArrayLike) -> Array:
    """Parameters times a gain that is a scalar or has one value for each member of the batch."""
    factor = jnp.asarray(gain, parameters.dtype)
    if factor.shape not in ((), weight.batch_shape):
        raise JaxoscError(
            f"scaled of {weight!r} got a gain of shape {factor.shape}, expected () or {weight.batch_shape}; "
            "for many gains on one weight use jax.vmap(weight.scaled)(gains)."
        )
    require_finite("gain", factor)
    if factor.ndim:
        factor = jnp.expand_dims(factor, tuple(range(factor.ndim, parameters.ndim)))
    return parameters * factor


def triangle_side(count: int) -> int | None:
    """The n with n(n-1)/2 == count, or None where there is none."""
    n = (1 + math.isqrt(1 + 8 * count)) // 2
    return n if n * (n - 1) // 2 == count else None


def check_square(name: str, shape: tuple[int, ...]) -> None:
    """Error unless the shape is (n, n) with n >= 2."""
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise JaxoscError(f"{name} got a matrix of shape {shape}, expected (n, n) with n >= 2; use a square matrix.")


def skew_tolerance(n: int, dtype: jnp.dtype) -> float:
    """The largest |W + W.T| over the largest |W| that passes for rounding."""
    return 10 * n * float(jnp.finfo(dtype).eps)


def concrete_skew(name: str, matrix: Values) -> np.ndarray:
    """The matrix as a NumPy array of its own dtype, after all checks of its values."""
    array = np.asarray(matrix)
    check_square(name, array.shape)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == bool:
        array = array.astype(np.float64)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise JaxoscError(f"{name} got dtype {array.dtype}, expected real numbers; drop the rest.")
    wide = array.astype(np.float64)
    require_finite("The matrix W", wide)
    largest = np.abs(wide).max()
    with np.errstate(over="ignore"):
        defect = np.abs(wide + wide.T)
    i, j = (int(k) for k in np.unravel_index(np.argmax(defect), defect.shape))
    tolerance = skew_tolerance(len(wide), array.dtype) * largest
    if defect[i, j] > tolerance:
        raise JaxoscError(
            f"{name} got a matrix with max |W + W.T| = {defect[i, j]:.3g} at [{i}, {j}] "
            f"where max |W| = {largest:.3g}, expected at most {tolerance:.3g} ({array.dtype.name} rounding); "
            "use its skew part (W - W.T)/2, or Unconstrained(W) to keep it as it is."
        )
    return array
