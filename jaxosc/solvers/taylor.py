"""The Taylor method: as many derivatives as the tolerance asks for, and the longest step that they allow.

x(t + h) = sum_k X_k h^k up to k = p, with the coefficients of taylor_series.py. The last two say how long a step may be
before it is taken, so that no step is ever tried in vain:

    h = min over k of p - 1 and p of (tolerance / |X_k|)^(1/k).

At p = 1 - ln(tolerance) / 2 this is 1/e^2 of the radius of convergence, where work over step is least. The polynomial
of a step is its dense output, as accurate as the step itself.

Source: Jorba and Zou, *Experimental Mathematics* 14 (2005); Corliss and Chang, *ACM TOMS* 8 (1982).
"""

import math
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import JaxoscError
from .lanes import Lanes, lanes_of
from .poisson_splitting import direction_of, field_of
from .taylor_series import require_series, taylor_coefficients

LEAST_ORDER, MOST_ORDER, DEFAULT_ORDER = 4, 30, 12


class Taylor(diffrax.AbstractAdaptiveSolver):
    """Taylor series of high order: the most accurate orbit for a given time, at tolerances from 1e-6 to rounding.

    `jo.simulate(field, y0, t1=..., solver=jo.solvers.Taylor(), rtol=1e-12)` chooses order and step sizes. With fixed
    steps, and in Diffrax, the order is 12 unless given. Cost of a step of order p: one sigma, p products with W, and
    0.75 p^2 (tanh, sigmoid) to 1.5 p^2 multiplications a neuron. Conserved: Casimirs to rounding; the energy as well as
    the tolerance follows the orbit, which at 1e-15 is a random walk of rounding. For an energy that stays for ever wrap
    it, `jo.solvers.EnergyProjection(jo.solvers.Taylor())`. Dense output: the polynomial of the step. Error estimate in
    Diffrax: the last term.

    **Arguments:** `order`, 4 to 30 or None: by the tolerance where there is one, 12 elsewhere.

    The field must be a `jo.CurrentRNN` or `jo.RateRNN` without drive, its activation one of Identity, Tanh, Arctan,
    Erf, Algebraic and Sigmoid: a function with a kink has no series there.

    **Raises:** `JaxoscError` for another order, vector field or activation, and for a drive.

    **Source:** Jorba and Zou 2005.
    """

    degree: int | None = eqx.field(static=True)

    term_structure: ClassVar = diffrax.ODETerm

    def __init__(self, order: int | None = None) -> None:
        if order is not None and order not in range(LEAST_ORDER, MOST_ORDER + 1):
            raise JaxoscError(
                f"Got Taylor(order={order!r}), expected a whole number from {LEAST_ORDER} to {MOST_ORDER}, or None to"
                " choose it by the tolerance."
            )
        self.degree = order

    def __repr__(self) -> str:
        return "Taylor()" if self.degree is None else f"Taylor(order={self.degree})"

    @property
    def interpolation_cls(self) -> Any:  # type: ignore[override]  # a property, as in Diffrax's own wrappers
        """The polynomial of the step."""
        return TaylorInterpolation

    def order(self, terms: Any) -> int:
        """The order of convergence."""
        return self.known_order

    @property
    def known_order(self) -> int:
        """The order where no tolerance says one."""
        return DEFAULT_ORDER if self.degree is None else self.degree

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        """No memory; checks the vector field."""
        require_series(lanes_of(field_of(terms, "Taylor")))

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: None, made_jump: Any) -> Any:
        """One step, in Diffrax's form: new state, error estimate, dense output, no memory, success."""
        lanes, h = lanes_of(field_of(terms, "Taylor")), jnp.asarray(t1 - t0, y0.dtype)
        series = taylor_coefficients(lanes, y0[:, None], self.known_order, h)
        # Under a wrapper that runs backward Diffrax's time is the negative of the field's.
        coefficients = jnp.stack([term[:, 0] * direction_of(terms) ** k for k, term in enumerate(series)])
        y1 = polynomial(coefficients, h)
        error = coefficients[-1] * h**self.known_order
        return y1, error, dict(coefficients=coefficients), None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return terms.vf(t0, y0, args)


class TaylorInterpolation(diffrax.AbstractLocalInterpolation):
    """The polynomial of a step from t0 to t1, with its coefficients (order + 1, n)."""

    t0: Any  # type: ignore[misc]  # Diffrax's own interpolations declare them so as well
    t1: Any  # type: ignore[misc]
    coefficients: Any

    def evaluate(self, t0: Any, t1: Any | None = None, left: bool = True) -> Any:
        """The state at t0, or its increment from t0 to t1."""
        if t1 is not None:
            return self.evaluate(t1) - self.evaluate(t0)
        with jax.numpy_dtype_promotion("standard"):
            return polynomial(self.coefficients, t0 - self.t0)


def order_for(rtol: float, atol: float, dtype: Any) -> int:
    """The order at which work over step size is least."""
    tolerance = max(float(rtol), float(atol), float(np.finfo(dtype).eps))
    return int(np.clip(math.ceil(1 - 0.5 * math.log(tolerance)), 8, 24))


def step_limit(series: list[Float[Array, "n lanes"]], tolerance: Float[Array, " lanes"]) -> Float[Array, " lanes"]:
    """How long a step (lanes,) may be for an error of `tolerance` in the largest component; inf at an equilibrium."""
    limits = [
        # A power would cost as much as an order of the series.
        (jnp.log(tolerance) - jnp.log(jnp.max(jnp.abs(series[k]), axis=0))) / k
        for k in (len(series) - 2, len(series) - 1)
    ]
    return jnp.exp(jnp.minimum(*limits))


def polynomial(coefficients: Any, h: Any) -> Any:
    """sum_k X_k h^k by Horner's rule; the coefficients a list or an array along its first axis."""
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = total * h + coefficients[k]
    return total


def taylor_step(order: int, lanes: Lanes, dt: Float[Array, ""], x: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
    """One step of size `dt` in every lane."""
    return polynomial(taylor_coefficients(lanes, x, order, dt), dt)
