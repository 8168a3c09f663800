"""Energy projection: after each step of any solver, back to the level set of the energy that the run started on.

An explicit Runge-Kutta method of high order follows an orbit closely and loses energy slowly, for ever. What it lost in
a step is known, e = H(y) - H(y0), and so is a direction that gives it back and leaves the Casimirs alone: with
y' = f = S grad H the vector S f lies in the range of S, and grad H . S f = -|f|^2. So

    y <- y + (e / |f|^2) S f

is a step of Newton's method for H(y) = H(y0). The second derivative of H along the way, q = (S f) . sigma'(y) S f,
makes it one of Halley's, at the price of a product and without a second energy: e (1 + e q / (2 |f|^4)) / |f|^2 for the
factor leaves e^3 of e, that is rounding.

The projected motion stays on the orbit's level set, at the place where the solver put it: the phase is the solver's.

Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration*, IV.4 (standard projection, there along grad H, which
would move the Casimirs).
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._checks import is_concrete
from .._elementary import sum_rows
from .._errors import JaxoscError
from .lanes import Lanes, computed_once, lane_product, lanes_of
from .poisson_splitting import field_of


class EnergyProjection(diffrax.AbstractSolver):
    """Any solver, made to keep the energy of a skew network to rounding, for ever.

    The most accurate way to follow an orbit for a long time at small dt: `EnergyProjection(diffrax.Dopri8())`. Order
    and error estimate are those of the solver. Cost per step: that of the solver and two products with W, sigma, its
    derivative and an energy. Conserved: the energy to rounding while the solver's own error in a step is below about
    1e-5 of it (beyond, its third power); Casimirs as by the solver, which is to rounding for Runge-Kutta
    methods. **Not conserved:** phase-space volume and the symmetry under a run backward; a phase error grows as fast as
    the solver lets it. Take `PoissonSplitting` for large steps and for statistics of chaos. Dense output: that of the
    solver, off by what the projection moved.

    **Arguments:** `solver`, any Diffrax solver for `diffrax.ODETerm`s, such as `diffrax.Dopri8()`.

    The field must be a `jo.CurrentRNN` or `jo.RateRNN` with a weight that is skew, also hidden, without leak and drive,
    and a bias in the range of W if any: only then is there an energy to keep.

    **Raises:** `JaxoscError` for something that is no Diffrax solver and for fields without a conserved energy.

    **Source:** Hairer, Lubich, Wanner, IV.4.
    """

    solver: diffrax.AbstractSolver

    term_structure: ClassVar = diffrax.ODETerm

    def __init__(self, solver: Any = None) -> None:
        solver = diffrax.Dopri8() if solver is None else solver
        if not isinstance(solver, diffrax.AbstractSolver):
            raise JaxoscError(
                f"Got EnergyProjection({solver!r}), expected a Diffrax solver: pass an instance, as diffrax.Dopri8()."
            )
        self.solver = solver

    def __repr__(self) -> str:
        return f"EnergyProjection({type(self.solver).__name__})"

    @property
    def interpolation_cls(self) -> Any:  # type: ignore[override]  # a property, as in Diffrax's own wrappers
        """That of the solver."""
        return self.solver.interpolation_cls

    def order(self, terms: Any) -> int | None:
        """The order of convergence of the solver."""
        return self.solver.order(terms)

    def error_order(self, terms: Any) -> Any:
        """That of the solver's error estimate."""
        return self.solver.error_order(terms)

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> PyTree:
        """The solver's own state, and the energy () of the start; checks the vector field."""
        lanes = lanes_of(field_of(terms, "EnergyProjection"))
        return self.solver.init(terms, t0, t1, y0, args), first_energy(lanes, y0[:, None])[0]

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: PyTree, made_jump: Any) -> Any:
        """The solver's step, with the new state projected."""
        own, energy = solver_state
        y1, error, dense, own, result = self.solver.step(terms, t0, t1, y0, args, own, made_jump)
        lanes = lanes_of(field_of(terms, "EnergyProjection"))
        return projected(lanes, t1 - t0, y1[:, None], energy[None])[:, 0], error, dense, (own, energy), result

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return self.solver.func(terms, t0, y0, args)


def first_energy(lanes: Lanes, x: Float[Array, "n lanes"]) -> Float[Array, " lanes"]:
    """The energy that a run from `x` is to keep; NaN in lanes that keep none and of which only the run can know it.

    **Raises:** as `require_conservative`.
    """
    require_conservative(lanes)
    energy = lanes.energy(x)
    # A leak that cannot be looked at is nearly always the zero that nobody gave.
    energy = energy if lanes.leak is None else jnp.where(lanes.leak == 0, energy, jnp.nan)
    if lanes.energy_shift is None or lanes.bias is None:
        return energy
    return jnp.where(_bias_in_range(lanes, lanes.energy_shift, lanes.bias), energy, jnp.nan)


def require_conservative(lanes: Lanes) -> None:
    """Raise one sentence if the networks are known to keep no energy."""
    what = next(_obstacles(lanes), None)
    if what is not None:
        raise JaxoscError(
            f"Got {what} in EnergyProjection, expected a network that conserves its energy: skew W (also hidden,"
            " jo.weights.Symmetrizable), no leak, no drive, a bias in the range of W. Use the solver without the"
            " projection."
        )


def _obstacles(lanes: Lanes) -> Iterator[str]:
    if not lanes.skew:
        yield "a weight that is not skew"
    if lanes.leak is not None and is_concrete(lanes.leak):
        yield "a leak"
    if lanes.drive is not None:
        yield "a drive"
    shift, bias = lanes.energy_shift, lanes.bias
    if shift is None or bias is None or not is_concrete(lanes):
        return
    if not np.all(np.asarray(_bias_in_range(lanes, shift, bias))):
        yield "a bias outside of the range of W"


def _bias_in_range(lanes: Lanes, shift: Array, bias: Array) -> Bool[Array, " #lanes"]:
    """Whether the shift c solves S c = bias, as the energy needs, to a thousand roundings of its terms."""
    c = shift if lanes.energy_weights is None else shift / lanes.energy_weights
    missed = jnp.max(jnp.abs(lane_product(lanes.matrix, c) - bias), axis=0)
    terms = jnp.max(lane_product(jnp.abs(lanes.matrix), jnp.abs(c)) + jnp.abs(bias), axis=0)
    return missed <= 1e3 * jnp.finfo(missed.dtype).eps * terms


def projected(
    lanes: Lanes, dt: Float[Array, ""], x: Float[Array, "n lanes"], energy: Float[Array, " lanes"]
) -> Float[Array, "n lanes"]:
    """The states near `x` (n, lanes) with that energy (lanes,), on the same Casimir levels; `dt` of the step, not 0."""
    # Merged into one kernel each row of a product would compute the other product again.
    flow = computed_once(dt, lambda: _flow(lanes, x), x)
    weighted = flow if lanes.energy_weights is None else flow / lanes.energy_weights
    # How y moves; in the rate form it is moved by W times what is added to the state.
    direction = computed_once(dt, lambda: lanes.times_matrix(weighted), x)
    curvature = lanes.activation.derivative(lanes.preactivation(x)) * direction * direction
    curvature = curvature if lanes.energy_weights is None else curvature * lanes.energy_weights
    squared = sum_rows(flow * flow)
    # At an equilibrium there is no direction, and the solver loses nothing. Written so that a NaN energy shows.
    moves = ~(squared <= jnp.finfo(x.dtype).eps * jnp.abs(energy))
    step = jnp.where(moves, (lanes.energy(x) - energy) / jnp.where(moves, squared, 1), 0)
    step = step + 0.5 * step * step * sum_rows(curvature) / jnp.where(moves, squared, 1)
    return x + step[None, :] * (direction if lanes.form == "current" else weighted)


def _flow(lanes: Lanes, x: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
    """How y moves without leak: W sigma(y) + b, in the rate form W sigma(y)."""
    velocity = lanes.velocity(0.0, x)
    return lanes.times_matrix(velocity) if lanes.form == "rate" else velocity
