"""Poisson splitting: one coordinate of the energy at a time, each solved exactly.

y' = W sigma(y) splits into n fields, the i-th driven by sigma(y_i) alone: y' = W[:, i] sigma(y_i). If W has a zero
diagonal, y_i stands still in it, so its flow is exact and as cheap as a column of Euler's step:

    y <- y + dt W[:, i] sigma(y_i).

Doing i = 1..n in order is chi(dt), backward is its adjoint chi*(dt); compositions.py raises the order. Every factor is
the exact flow of a Poisson system with the same W, so for skew W (also hidden) the numerical solution follows a
modified energy: H oscillates and does not drift, however long the run. Casimirs hold to rounding.

- Diagonal entries (`Unconstrained` weights): the scalar equation of a coordinate is then solved by one step of the
  classical fourth-order Runge-Kutta method, accurate enough for every order offered here; nothing is conserved then.
- Bias and leak: x' = b - leak x is solved exactly, before the first and after the last coordinate.
- Rate form: r_i <- r_i + dt sigma(y_i) with y = W r + b kept up to date, conjugate to the above.

Source: McLachlan, *Phys. Rev. Lett.* 71 (1993) for splitting of Poisson systems; Hairer, Lubich, Wanner, VII.4.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..fields import AbstractField
from .compositions import COMPOSITIONS
from .lanes import Lanes, computed_once, lanes_of

UNROLLED_SWEEP_UP_TO = 16
"""Up to this n a sweep is written out; beyond, it is a loop over columns (compile time grows with n)."""


class PoissonSplitting(diffrax.AbstractSolver):
    """Explicit splitting solver of order 1, 2 or 4 that keeps the energy of a skew network for ever.

    Cost per step: 1, 2 or 12 sweeps, each as much work as one step of forward Euler. Conserved: Casimirs to rounding;
    the energy to O(dt^order) for all times (skew, symmetrizable, with bias; without leak). Time-symmetric at orders 2
    and 4. Fails (energy error grows) when dt times the spectral norm of W nears 2; use at most 0.25 (order 2) or 0.5
    (order 4) for good accuracy. Not adaptive: it gives no error estimate. Dense output: cubic Hermite, O(dt^4).

    **Arguments:**

    - `order`: 1 (forward sweep), 2 (palindromic), 4 (Blanes and Moan 2002, six stages). Default 2.

    The field must be a `jo.CurrentRNN` or `jo.RateRNN`: the solver needs its W.

    **Raises:** `JaxoscError` for another order, and for a vector field that is not one of these.

    **Source:** McLachlan 1993; Blanes and Moan, J. Comput. Appl. Math. 142 (2002), table 2.
    """

    coefficients: tuple[float, ...] = eqx.field(static=True, repr=False)
    accuracy: int = eqx.field(static=True)

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def __init__(self, order: int = 2):
        if order not in COMPOSITIONS:
            raise JaxoscError(
                f"Got PoissonSplitting(order={order!r}), expected one of {sorted(COMPOSITIONS)}: choose one of these."
            )
        self.accuracy = order
        self.coefficients = COMPOSITIONS[order]

    def __repr__(self) -> str:
        return f"PoissonSplitting(order={self.accuracy})"

    def order(self, terms: Any) -> int:
        """The order of convergence."""
        return self.accuracy

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        """No state; checks that the vector field is a network."""
        _field_of(terms)
        return

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: None, made_jump: Any) -> Any:
        """One step, in Diffrax's form: new state, no error estimate, dense output, no state, success."""
        control = terms.contr(t0, t1)
        lanes = lanes_of(_field_of(terms))
        y1 = splitting_step(lanes, y0[:, None], jnp.asarray(control, y0.dtype), self.coefficients)[:, 0]
        k0, k1 = (terms.vf_prod(t, y, args, control) for t, y in ((t0, y0), (t1, y1)))
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return terms.vf(t0, y0, args)


def splitting_step(
    lanes: Lanes, x: Float[Array, "n lanes"], dt: Float[Array, ""], coefficients: tuple[float, ...]
) -> Float[Array, "n lanes"]:
    """One step of size `dt` of the composition of chi and chi* with the given coefficients, in every lane."""
    for stage, coefficient in enumerate(coefficients):
        substep = functools.partial(_substep, lanes, x, coefficient * dt, backward=stage % 2 == 1)
        # Left together, more than two sweeps are merged into kernels that repeat the earlier ones (10 times slower).
        x = substep() if len(coefficients) <= 2 else computed_once(dt, substep, x)
    return x


def _substep(lanes: Lanes, x: Array, dt: Array, backward: bool) -> Array:
    """chi(dt) = (bias and leak, then coordinates 1..n), or its adjoint, the reverse of it."""
    if not backward:
        x = _affine_flow(lanes, x, dt)
    x = _sweep(lanes, x, dt, backward)
    return _affine_flow(lanes, x, dt) if backward else x


def _affine_flow(lanes: Lanes, x: Array, dt: Array) -> Array:
    """The exact flow of x' = bias - leak x (the bias of the rate form acts inside sigma instead)."""
    bias = None if lanes.form == "rate" else lanes.bias
    if lanes.leak is None:
        return x if bias is None else x + dt * bias
    exponent = -lanes.leak[None, :] * dt
    decayed = jnp.exp(exponent) * x
    if bias is None:
        return decayed
    # expm1(z)/z -> 1 at z = 0, where a lane without leak would divide zero by zero.
    safe = jnp.where(exponent == 0, 1, exponent)
    return decayed + dt * bias * jnp.where(exponent == 0, 1, jnp.expm1(safe) / safe)


def _sweep(lanes: Lanes, x: Array, dt: Array, backward: bool) -> Array:
    """The exact flows of coordinates 1..n (or n..1) one after the other."""
    n = lanes.size
    y = lanes.preactivation(x)

    def flow(i: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        y, r = state
        row, column = _slice(y, i), _column(lanes, i)
        push = _coordinate_push(lanes, row, column, i, dt)
        r = jax.lax.dynamic_update_slice_in_dim(r, _slice(r, i) + push, i, axis=0) if lanes.form == "rate" else r
        return y + column * push, r

    state = (y, x)
    if n <= UNROLLED_SWEEP_UP_TO:
        for i in reversed(range(n)) if backward else range(n):
            state = flow(i, state)
    else:
        state = jax.lax.fori_loop(0, n, lambda k, s: flow(n - 1 - k if backward else k, s), state)
    return state[1] if lanes.form == "rate" else state[0]


def _coordinate_push(lanes: Lanes, row: Array, column: Array, i: Any, dt: Array) -> Array:
    """The integral of sigma(y_i) over dt while y_i' = w_ii sigma(y_i): dt sigma(y_i) when w_ii = 0."""
    activation = lanes.activation
    if lanes.hollow:
        return dt * activation(row)
    own = _slice(column, i)
    k1 = activation(row)
    k2 = activation(row + 0.5 * dt * own * k1)
    k3 = activation(row + 0.5 * dt * own * k2)
    k4 = activation(row + dt * own * k3)
    return dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _column(lanes: Lanes, i: Any) -> Array:
    column = lanes.matrix[:, i] if isinstance(i, int) else jax.lax.dynamic_index_in_dim(lanes.matrix, i, 1, False)
    return column if lanes.gain is None else lanes.gain[None, :] * column


def _slice(array: Array, i: Any) -> Array:
    return array[i : i + 1] if isinstance(i, int) else jax.lax.dynamic_slice_in_dim(array, i, 1, axis=0)


def _field_of(terms: Any) -> AbstractField:
    """The network inside Diffrax's term, which `diffeqsolve` wraps (a public `.term` each) to run backward in time."""
    term = terms
    while not isinstance(term, diffrax.ODETerm):
        term = term.term
    if not isinstance(term.vector_field, AbstractField):
        raise JaxoscError(
            f"Got the vector field {term.vector_field!r}, expected a jo.CurrentRNN or jo.RateRNN, whose weight"
            " PoissonSplitting needs: build one, or use a Runge-Kutta solver such as diffrax.Tsit5()."
        )
    return term.vector_field
