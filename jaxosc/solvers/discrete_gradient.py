"""The discrete gradient method: an implicit step that conserves the energy itself, at any step size.

The gradient of H in y' = S grad H(y) is replaced by the mean of sigma along the step (mean_values.py),

    (y' - y) / dt = W g + b + u(t + dt/2) - leak (y + y') / 2,     g_i = (Phi(y_i') - Phi(y_i)) / (y_i' - y_i).

Then H(y') - H(y) = sum_i d_i g_i (y_i' - y_i), and with y' - y = dt S (d g) this is dt (d g)^T S (d g) = 0. A bias
S c joins as the gradient of c.y; a leak takes dt leak sum_i d_i g_i (y_i + y_i') / 2 out of H. In the rate form
(r' - r) / dt = g - leak (r + r') / 2, where g is the mean along the path from y = W r + b + u(t + dt/2) to the same of
r', which says the same of H(y).

The unknown is the increment d = x' - x, not x': g needs its digits. Plain iteration d <- dt (W g(d) + ...) is the
cheapest while dt |W| is well below 2, where it stops to contract; the lanes it leaves undone get Newton's method with
shortened steps. For skew W and a sigma that never decreases the equation has exactly one solution whatever dt is, as
then g(d) does not decrease either, and Newton's matrix 1 - dt W diag(slopes) always has an inverse.

Source: Gonzalez, *J. Nonlinear Sci.* 6 (1996); McLachlan, Quispel, Robidoux, *Phil. Trans. R. Soc. A* 357 (1999); Cohen
and Hairer, *BIT* 51 (2011) for Poisson systems.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._errors import JaxoscError
from .lanes import Lanes, computed_once, lanes_of
from .mean_values import mean_value
from .poisson_splitting import direction_of, field_of

PLAIN_ITERATIONS = 32
"""The most plain iterations: what float64 takes at dt |W| = 0.6, where they halve the error twice each time."""

ROUNDING_UNITS = 4
"""How near to a solution an iteration may end if rounding lets it no nearer, in units of eps times the state. With 16
an iteration at dt |W| = 1, which but halves its error, ends too soon and the energy drifts five times as much."""

SLACK = 16
"""A lane that ends above that, but not by more than this factor, has met a coarser rounding and no failure."""

SHORTEST_SHARE = 1e-6
"""Of a Newton step. A lane that has no use for a longer one is in a pit that is no solution."""


class DiscreteGradient(diffrax.AbstractSolver):
    """Implicit solver of order 2 that conserves the energy of a skew network to rounding, whatever the step size.

    Cost per step in float64: 12 to 15 iterations at dt |W| = 0.1 (|W| the spectral norm), 20 to 30 at 0.5, in float32
    half of that. Each is like a step of forward Euler with an activation that costs a few (`Tanh`, `Identity`) to ten
    times as much (`Elementwise`: hundreds). Beyond 0.6 it is 32, and 1 (at 1) to 12 (at 20) of Newton's method, which
    take time n^3 and memory n^2 per member. All members of a batch iterate until the last is done.

    Conserved: the energy to rounding, by any dt (skew, symmetrizable, with bias; without leak and drive), for every
    activation whose kinks are known (see mean_values.py); Casimirs to rounding. With a leak the energy obeys a discrete
    law of dissipation. Time-symmetric: a run backward returns to its start. The phase is not better than with other
    methods of order 2, so for the sake of the trajectory take dt |W| of at most 0.5.

    Fails (`solver_failed` in `jo.simulate`, a result that is not successful in Diffrax) where the implicit equation is
    not solved: with dt |W| far beyond 20, or beyond 2 for a sigma that falls somewhere, when it may have no solution or
    many. Not adaptive: it gives no error estimate. Dense output: cubic Hermite, O(dt^4).

    **Arguments:**

    - `rtol`, `atol`: how well the equation is solved: the last change of a component may be atol + rtol times the
      largest component of the state. 0 and 0 (default) go on until rounding stops the iteration. Others save
      iterations and make the energy drift.
    - `max_iterations`: the most iterations of either kind in a step.

    The field must be a `jo.CurrentRNN` or `jo.RateRNN`: the solver needs its W.

    **Raises:** `JaxoscError` for negative tolerances, less than one iteration, and a vector field that is not one of
    these.

    **Source:** Gonzalez 1996; McLachlan, Quispel and Robidoux 1999; Cohen and Hairer 2011.
    """

    rtol: float = eqx.field(static=True, default=0.0)
    atol: float = eqx.field(static=True, default=0.0)
    max_iterations: int = eqx.field(static=True, default=64)

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def __check_init__(self) -> None:
        if not (0 <= self.rtol < 1 and 0 <= self.atol < float("inf")):
            raise JaxoscError(
                f"Got rtol = {self.rtol} and atol = {self.atol}, expected 0 <= rtol < 1 and 0 <= atol: leave them out"
                " for what rounding allows."
            )
        if self.max_iterations < 1:
            raise JaxoscError(f"Got max_iterations = {self.max_iterations}, expected a whole number >= 1.")

    def order(self, terms: Any) -> int:
        """The order of convergence, 2."""
        return 2

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        """No state; checks that the vector field is a network."""
        field_of(terms, "DiscreteGradient")
        return

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: None, made_jump: Any) -> Any:
        """One step, in Diffrax's form: new state, no error estimate, dense output, no state, whether it is solved."""
        control = terms.contr(t0, t1)
        lanes = lanes_of(field_of(terms, "DiscreteGradient"))
        t = jnp.asarray(t0 * direction_of(terms), y0.dtype)
        x1, solved = discrete_gradient_step(self, lanes, t, jnp.asarray(control, y0.dtype), y0[:, None])
        y1 = x1[:, 0]
        k0, k1 = (terms.vf_prod(t, y, args, control) for t, y in ((t0, y0), (t1, y1)))
        failure = diffrax.RESULTS.nonlinear_max_steps_reached
        result = diffrax.RESULTS.where(solved[0], diffrax.RESULTS.successful, failure)
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), None, result

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return terms.vf(t0, y0, args)


def discrete_gradient_step(
    solver: DiscreteGradient,
    lanes: Lanes,
    t: Any,
    dt: Float[Array, ""],
    x: Float[Array, "n lanes"],
    active: Bool[Array, " lanes"] | None = None,
) -> tuple[Float[Array, "n lanes"], Bool[Array, " lanes"]]:
    """One step of size `dt` from time t in every lane, and in which lanes the equation is solved.

    Lanes that are not `active` stay where they are, and keep no others waiting. Derivatives, forward and reverse, are
    those of the solution (implicit function theorem), not of the iterations.
    """
    equation = _equation_of(lanes, t, dt, x, active)
    guess = equation.update(jnp.zeros_like(x))
    aims = jax.lax.stop_gradient(_aims_of(solver, x, guess))

    def solve(residual: Callable[[Array], Array], guess: Array) -> tuple[Array, Array]:
        increment, solved = _solved(equation, guess, aims, solver.max_iterations)
        # As numbers: jax 0.10.2 gives what comes beside the root a tangent of its own dtype, which no bool may have.
        return increment, solved.astype(x.dtype)

    increment, solved = jax.lax.custom_root(
        lambda d: d - equation.update(d), guess, solve, _solve_linearised, has_aux=True
    )
    return x + increment, solved[0] > 0.5


class _Aims(eqx.Module):
    """When a lane has been iterated enough: `asked` for by the tolerances, or held at `rounding`.

    Short of the tolerances it goes on until rounding stops it, seen by a size that no longer halves. With a fixed bound
    instead, what is left just below it keeps its sign for many steps and the energy drifts: at dt |W| = 1 and a bound
    of 8 eps ten times as much. A step of Newton's method from below `near` squares the rest, to 1e-4 eps.
    """

    asked: Float[Array, "1 lanes"]
    rounding: Float[Array, "1 lanes"]
    near: Float[Array, "1 lanes"]

    def met(self, size: Float[Array, "1 lanes"], before: Float[Array, "1 lanes"]) -> Bool[Array, "1 lanes"]:
        """Whether a residual of this `size` is the last, when it was `before` one plain iteration earlier."""
        return (size <= self.asked) | ((size <= self.rounding) & (size > 0.5 * before))

    def met_by_newton(self, size: Float[Array, "1 lanes"], before: Float[Array, "1 lanes"]) -> Bool[Array, "1 lanes"]:
        """The same, one step of Newton's method later."""
        return self.met(size, before) | ((size <= self.rounding) & (before <= self.near))


def _aims_of(solver: DiscreteGradient, x: Array, guess: Array) -> _Aims:
    # The sizes of state and step, as a state of 0 with a bias has no other.
    scale, eps = _largest(x) + _largest(guess), jnp.finfo(x.dtype).eps
    return _Aims(solver.atol + solver.rtol * scale, ROUNDING_UNITS * eps * scale, 0.01 * eps**0.5 * scale)


class _Equation(eqx.Module):
    """The equation d = update(d) of the increments of one step.

    `lanes` without its drive, and with the input at mid-step for bias; `y` where the paths begin, of which sigma is
    averaged; `span` (1, #lanes) the step size, 0 in lanes that stand still; `dt` the step size again, as a scalar.
    """

    lanes: Lanes
    x: Float[Array, "n lanes"]
    y: Float[Array, "n lanes"]
    span: Float[Array, "1 #lanes"]
    dt: Float[Array, ""]

    def update(self, d: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
        """The increments that follow from the mean values along `d`."""
        lanes = self.lanes
        if lanes.form == "rate":
            rate = mean_value(lanes.activation, self.y, lanes.times_matrix(d))
        else:
            # Merged into the product the mean values would be computed again for each of its rows.
            means = computed_once(self.dt, lambda: mean_value(lanes.activation, self.y, d), d)
            rate = lanes.times_matrix(means)
            rate = rate if lanes.bias is None else rate + lanes.bias
        if lanes.leak is None:
            return self.span * rate
        return self._effective_span() * (rate - lanes.leak[None, :] * self.x)

    def jacobian(self, d: Float[Array, "n lanes"]) -> Float[Array, "n n lanes"]:
        """The derivative of d - update(d): 1 - span W diag(slopes), with the slopes first in the rate form."""
        lanes, n = self.lanes, self.x.shape[0]
        path = lanes.times_matrix(d) if lanes.form == "rate" else d
        means = functools.partial(mean_value, lanes.activation, self.y)
        slopes = jax.jvp(means, (path,), (jnp.ones_like(path),))[1]
        slopes = slopes[:, None] if lanes.form == "rate" else slopes[None, :]
        matrix = lanes.matrix if lanes.gain is None else lanes.gain[None, None, :] * lanes.matrix
        return jnp.eye(n, dtype=d.dtype)[:, :, None] - self._effective_span()[None] * (matrix * slopes)

    def _effective_span(self) -> Float[Array, "1 #lanes"]:
        """The step size over what the implicit part of a leak divides by."""
        if self.lanes.leak is None:
            return self.span
        return self.span / (1 + 0.5 * self.span * self.lanes.leak[None, :])


def _equation_of(lanes: Lanes, t: Any, dt: Array, x: Array, active: Array | None) -> _Equation:
    inflow = lanes.input_at(t + 0.5 * dt)
    parts = Lanes(lanes.matrix, lanes.activation, gain=lanes.gain, bias=inflow, leak=lanes.leak, form=lanes.form)
    span = jnp.reshape(dt, (1, 1)) if active is None else jnp.where(active, dt, 0)[None, :]
    return _Equation(parts, x, parts.preactivation(x), span, dt)


def _solved(equation: _Equation, guess: Array, aims: _Aims, max_iterations: int) -> tuple[Array, Array]:
    """The increments, and in which lanes (1, lanes) they solve the equation."""
    # What `guess` tells of standing still: it is the update of 0.
    start = _Search(jnp.zeros_like(guess), -guess, jnp.zeros_like(aims.asked, bool), jnp.zeros((), jnp.int32))
    plain = _by_plain_iteration(equation, start, aims, min(PLAIN_ITERATIONS, max_iterations))
    increment = plain.d - plain.residual

    def finish() -> tuple[Array, Array]:
        # From where the iteration went astray, the start is the better place.
        nearer = plain.size <= start.size
        d, residual = jnp.where(nearer, plain.d, start.d), jnp.where(nearer, plain.residual, start.residual)
        newton = _by_newton(equation, _Search(d, residual, plain.done, start.count), aims, max_iterations)
        solved = newton.done | (newton.size <= SLACK * jnp.maximum(aims.asked, aims.rounding))
        return jnp.where(plain.done, increment, newton.d), solved

    return jax.lax.cond(jnp.all(plain.done), lambda: (increment, plain.done), finish)


class _Search(eqx.Module):
    """Increments, their residuals d - update(d), whether they may stay, and the iterations so far.

    A lane that is done stays as it is while the others go on: what becomes of it must not depend on its neighbours.
    """

    d: Float[Array, "n lanes"]
    residual: Float[Array, "n lanes"]
    done: Bool[Array, "1 lanes"]
    count: Int[Array, ""]

    @property
    def size(self) -> Float[Array, "1 lanes"]:
        """The largest residual of each lane."""
        return _largest(self.residual)

    def moved(self, d: Array, residual: Array, where: Array, met: Callable[[Array, Array], Array]) -> "_Search":
        """One iteration later: at the new `d` in the lanes `where` it is accepted."""
        d, residual = jnp.where(where, d, self.d), jnp.where(where, residual, self.residual)
        return _Search(d, residual, self.done | met(_largest(residual), self.size), self.count + 1)


def _by_plain_iteration(equation: _Equation, start: _Search, aims: _Aims, max_iterations: int) -> _Search:
    """d <- update(d) in all lanes until the last of them is done."""

    def improved(search: _Search) -> _Search:
        d = search.d - search.residual
        return search.moved(d, d - equation.update(d), ~search.done, aims.met)

    return jax.lax.while_loop(lambda search: jnp.any(~search.done) & (search.count < max_iterations), improved, start)


def _by_newton(equation: _Equation, start: _Search, aims: _Aims, max_iterations: int) -> _Search:
    """Newton's method in all lanes, each with steps shortened until its residual falls.

    Optimistix would do this lane by lane: its Newton takes twice as long to compile and misses one in a hundred at
    dt |W| = 5 with `HardTanh` and half of all at 20; its Dogleg misses none, like this, and takes four times as long.
    """

    def improved(state: tuple[_Search, Array]) -> tuple[_Search, Array]:
        search, share = state
        d = search.d - share * _lane_solve(equation.jacobian(search.d), search.residual)
        residual = d - equation.update(d)
        # NaN does not fall either.
        falls = _largest(residual) < (1 - 0.25 * share) * search.size
        share = jnp.where(falls, jnp.minimum(2 * share, 1), share / 4)
        return search.moved(d, residual, falls & ~search.done, aims.met_by_newton), share

    def unfinished(state: tuple[_Search, Array]) -> Array:
        search, share = state
        return jnp.any(~search.done & (share > SHORTEST_SHARE)) & (search.count < max_iterations)

    return jax.lax.while_loop(unfinished, improved, (start, jnp.ones_like(aims.asked)))[0]


def _largest(values: Float[Array, "n lanes"]) -> Float[Array, "1 lanes"]:
    """The largest size in each lane."""
    return jnp.max(jnp.abs(values), axis=0, keepdims=True)


def _solve_linearised(linear: Callable[[Array], Array], right: Array) -> Array:
    """The solution of linear(d) = right (n, lanes), where `linear` mixes the neurons and not the lanes."""
    n, count = right.shape
    units = jnp.broadcast_to(jnp.eye(n, dtype=right.dtype)[:, :, None], (n, n, count))
    return _lane_solve(jnp.swapaxes(jax.vmap(linear)(units), 0, 1), right)


def _lane_solve(matrix: Float[Array, "n n lanes"], right: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
    return jnp.linalg.solve(jnp.moveaxis(matrix, -1, 0), right.T[..., None])[..., 0].T
