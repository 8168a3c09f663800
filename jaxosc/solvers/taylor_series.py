"""The Taylor series in time of an orbit, order by order, in every lane at once.

With x(t + h) = sum_k X_k h^k the equation x' = W sigma(x) + b - leak x reads (k + 1) X_{k+1} = W S_k + b [k = 0] - leak
X_k, where S_k are the coefficients of s = sigma(y), and y = x, or W x + b in the rate form. What is needed of sigma is
S_k from Y_0 ... Y_k, and the chain rule gives it: s' = g y' with g = sigma'(y), that is

    k S_k = sum_j G_{k-1-j} (j + 1) Y_{j+1},

and each sigma of `SLOPES` knows how its slope g goes on, at the price of one more convolution. A step of order p costs
one sigma, p products with W and 0.75 p^2 to 1.5 p^2 multiplications a neuron.

Source: Griewank and Walther, *Evaluating Derivatives*, chapter 13; Jorba and Zou, *Experimental Mathematics* 14 (2005).
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..activations import AbstractActivation, Algebraic, Arctan, Erf, Identity, Sigmoid, Tanh
from .lanes import Lanes, computed_once

Coefficients = list[Float[Array, "n lanes"]]
"""Those of orders 0, 1, ... of one quantity, as far as they are known."""


class Slope(NamedTuple):
    """How the coefficients of g = sigma'(y) go on.

    **Attributes:** `following(s, g, squares)` gives G_k, k >= 1, from S_0 ... S_k, G_0 ... G_{k-1} and the coefficients
    0 ... k of y^2, which are computed if it `needs_squares` and are an empty list otherwise.
    """

    following: Callable[[Coefficients, Coefficients, Coefficients], Array]
    needs_squares: bool = False


def _constant(s: Coefficients, g: Coefficients, squares: Coefficients) -> Array:
    """sigma = y: g = 1."""
    return jnp.zeros_like(g[0])


def _of_tanh(s: Coefficients, g: Coefficients, squares: Coefficients) -> Array:
    """g = 1 - s^2."""
    return -_square(s, len(g))


def _of_sigmoid(s: Coefficients, g: Coefficients, squares: Coefficients) -> Array:
    """g = s - s^2."""
    return s[-1] - _square(s, len(g))


def _gaussian(s: Coefficients, g: Coefficients, squares: Coefficients) -> Array:
    """g = c exp(-y^2), so g' = -(y^2)' g."""
    k = len(g)
    return _sum(-j / k * squares[j] * g[k - j] for j in range(1, k + 1))


def _power(a: float) -> Callable[[Coefficients, Coefficients, Coefficients], Array]:
    """g = (1 + y^2)^a, so (1 + y^2) g' = a (y^2)' g."""

    def following(s: Coefficients, g: Coefficients, squares: Coefficients) -> Array:
        k = len(g)
        return _sum(((a + 1) * j / k - 1) * squares[j] * g[k - j] for j in range(1, k + 1)) / (1 + squares[0])

    return following


SLOPES: dict[type[AbstractActivation], Slope] = {
    Identity: Slope(_constant),
    Tanh: Slope(_of_tanh),
    Arctan: Slope(_power(-1.0), needs_squares=True),
    Erf: Slope(_gaussian, needs_squares=True),
    Algebraic: Slope(_power(-1.5), needs_squares=True),
    Sigmoid: Slope(_of_sigmoid),
}
"""The activations whose orbits have a Taylor series at every point, and a rule for it."""


def require_series(lanes: Lanes) -> None:
    """Raise one sentence if the orbits of these networks have no series that this file knows."""
    if type(lanes.activation) not in SLOPES:
        known = ", ".join(sorted(kind.__name__ for kind in SLOPES))
        raise JaxoscError(
            f"Got {lanes.activation!r} with Taylor, expected an activation whose series is known ({known}): use a"
            " Runge-Kutta solver, such as diffrax.Dopri8(), which needs none."
        )
    if lanes.drive is not None:
        raise JaxoscError(
            "Got a field with a drive in Taylor, expected none, since u(t) has no known series: use a Runge-Kutta"
            " solver, such as diffrax.Dopri8()."
        )


def taylor_coefficients(
    lanes: Lanes, x: Float[Array, "n lanes"], order: int, dt: Float[Array, ""]
) -> list[Float[Array, "n lanes"]]:
    """X_0 ... X_order of every lane at the states `x`; `dt` is any number that is not zero, see `computed_once`.

    **Raises:** as `require_series`.
    """
    require_series(lanes)
    slope = SLOPES[type(lanes.activation)]
    once = functools.partial(computed_once, dt, like=x)
    state, y = [x], [once(lambda: lanes.preactivation(x))] if lanes.form == "rate" else [x]
    s: Coefficients = []
    g: Coefficients = []
    y_rates: Coefficients = []
    squares: Coefficients = []
    for k in range(order):
        s.append(once(functools.partial(_activated, lanes, y, y_rates, g)))
        rate = once(functools.partial(_rate, lanes, s[k], state[k], first=k == 0))
        y_rates.append(rate if lanes.form == "current" else once(functools.partial(lanes.times_matrix, rate)))
        state.append(rate / (k + 1))
        if slope.needs_squares:
            squares.append(once(functools.partial(_square, y, k)))
        following = functools.partial(slope.following, s, g, squares) if k else functools.partial(_slope, lanes, y[0])
        if k + 1 < order:
            g.append(once(following))
            y.append(y_rates[k] / (k + 1))
    return state


def _activated(lanes: Lanes, y: Coefficients, y_rates: Coefficients, g: Coefficients) -> Array:
    """S_k by the chain rule, k = len(y_rates); sigma itself for k = 0."""
    k = len(y_rates)
    return lanes.activation(y[0]) if not k else _sum(g[k - 1 - j] * y_rates[j] for j in range(k)) / k


def _slope(lanes: Lanes, y: Array) -> Array:
    return lanes.activation.derivative(y)


def _rate(lanes: Lanes, s: Array, x: Array, first: bool) -> Array:
    """(k + 1) X_{k+1}."""
    rate = s if lanes.form == "rate" else lanes.times_matrix(s)
    if first and lanes.form == "current" and lanes.bias is not None:
        rate = rate + lanes.bias
    return rate if lanes.leak is None else rate - lanes.leak[None, :] * x


def _square(a: Coefficients, k: int) -> Array:
    """Coefficient k of a^2."""
    twice = [2 * a[j] * a[k - j] for j in range((k + 1) // 2)]
    return _sum(twice if k % 2 else [*twice, a[k // 2] * a[k // 2]])


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, terms)
