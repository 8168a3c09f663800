"""Elementary functions in forms that keep their digits: no cancellation near 0, no overflow far away.

Each takes an array of any shape and follows its dtype; errors are a few units in the last place. Do not differentiate
them: a branch that is not taken may divide by zero, and turns the gradient into NaN. Callers give a rule of their own.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_2 = math.log(2)
# x - log1p(x) with r = x / (2 + x): log1p(x) = 2 artanh(r), so it is r x - 2 r^3 (1/3 + r^2/5 + r^4/7 + ...).
# Up to x = 1/2 it has r^2 <= 1/25 and twelve terms leave 1e-18.
_ARTANH_SERIES = tuple(1 / (2 * k + 3) for k in range(12))
# exp(x) - 1 - x = x^2 (1/2! + x/3! + ...): for |x| <= 1/2 fourteen terms leave 1e-18.
_EXP_SERIES = tuple(1 / math.factorial(k + 2) for k in range(14))


def log_cosh(y: Float[Array, "*shape"], tilt: Float[Array, "*shape"] | float = 0.0) -> Float[Array, "*shape"]:
    """tilt + log cosh(y); a `tilt` of +-y, which cancels |y| far out, costs no digit (the sigmoid needs that).

    With m = expm1(-|y|): cosh(y) - 1 = m^2 / (2 (1 + m)) up to |y| = 2, and log cosh(y) = |y| - log 2
    + log1p(exp(-2 |y|)) beyond, under one shared log1p.
    """
    outside, inside = _log_cosh_parts(y, tilt)
    return outside + jnp.log1p(inside)


def sum_log_cosh(y: Float[Array, "n *rest"]) -> Float[Array, "*rest"]:
    """The sum of log cosh(y) over the first axis, with one logarithm for 64 entries: it is what costs most.

    From inside <= 2.77 and log1p(a) + log1p(b) = log1p(a + b + a b), where nothing cancels and 64 factors stay below
    1e37, so that float32 does not overflow. Good to (1 + log2 n) times the rounding of `log_cosh`.
    """
    outside, inside = _log_cosh_parts(y, 0.0)
    products = [_folded(inside[begin : begin + 64], lambda a, b: a + b + a * b) for begin in range(0, y.shape[0], 64)]
    return sum_rows(outside) + sum(jnp.log1p(product) for product in products)


def sum_rows(values: Float[Array, "n *rest"]) -> Float[Array, "*rest"]:
    """The sum over the first axis, by halves: in an order that does not depend on how many columns there are.

    XLA's own reduction chooses its order by the other axes, so that a member would get other last digits in another
    company.
    """
    return _folded(values, operator.add)


def _folded(rows: Array, combine: Callable[[Array, Array], Array]) -> Array:
    """One row from many: the first half combined with the second until one is left."""
    while (count := rows.shape[0]) > 1:
        half = count // 2
        paired = combine(rows[:half], rows[half : 2 * half])
        rows = jnp.concatenate([paired, rows[2 * half :]]) if count % 2 else paired
    return rows[0]


def _log_cosh_parts(y: Array, tilt: Any) -> tuple[Array, Array]:
    """(outside, inside) with tilt + log cosh(y) = outside + log1p(inside), 0 <= inside <= cosh(2) - 1."""
    size = jnp.abs(y)
    m = jnp.expm1(-size)
    near = size < 2
    inside = jnp.where(near, m * m / (2 * (1 + m)), jnp.square(1 + m))
    return jnp.where(near, tilt, (tilt + size) - LOG_2), inside


def sech_squared(y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1 / cosh(y)^2; the shorter 1 - tanh(y)^2 has no digit left beyond |y| = 9 (float32) or 19 (float64)."""
    e = jnp.exp(-2 * jnp.abs(y))
    return 4 * e / jnp.square(1 + e)


def gaussian(y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(-y^2), 0 beyond |y| = 30, where it underflows in float64 too.

    Rounding y^2 = 600 would cost 600 units. `head` has few enough bits that its square is exact, and the rest of y^2
    is small.
    """
    y = jnp.clip(y, -30, 30)
    head = jnp.round(y * 128) / 128
    # Not exp(a) * exp(b): XLA rewrites that to exp(a + b), which is the rounded square again.
    main = jnp.exp(-head * head)
    return main + main * jnp.expm1(-(y - head) * (y + head))


def minus_log1p(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x - log(1 + x) for x >= 0; by a series up to 1/2, where log1p(x) is 4.3 times the difference."""
    r = x / (2 + x)
    series = r * x - 2 * r * jnp.square(r) * _horner(jnp.square(r), _ARTANH_SERIES)
    return jnp.where(x < 0.5, series, x - jnp.log1p(x))


def expm1_minus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(x) - 1 - x for x <= 0; by a series down to -1/2, where expm1(x) is 3.7 times the difference."""
    return jnp.where(x > -0.5, jnp.square(x) * _horner(x, _EXP_SERIES), jnp.expm1(x) - x)


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    """coefficients[0] + coefficients[1] x + coefficients[2] x^2 + ..."""
    return functools.reduce(lambda total, c: total * x + c, reversed(coefficients), jnp.zeros_like(x))
