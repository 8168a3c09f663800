"""One step of a fixed-step solver in every lane at once: the seam through which solvers enter the engine.

`stepper_of` chooses: forward Euler and Poisson splitting have steps of their own, every explicit Runge-Kutta solver of
Diffrax is run from its public tableau, and any other Diffrax solver is called lane by lane under `jax.vmap`.
"""

import abc
import functools
import operator
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._errors import JaxoscError
from ..solvers import ForwardEuler, Lanes, PoissonSplitting
from ..solvers.lanes import computed_once
from ..solvers.poisson_splitting import splitting_step

LaneStates = Float[Array, "n lanes"]


class AbstractStepper(eqx.Module):
    """A one-step map x(t) -> x(t + dt) of all lanes, with a memory of its own from step to step."""

    @abc.abstractmethod
    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The memory before the first step (None for most)."""

    @abc.abstractmethod
    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """The states (n, lanes) after one step of size dt from time t, and the new memory."""


class EulerStepper(AbstractStepper):
    """x + dt f(x)."""

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """No memory."""
        return None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One forward Euler step."""
        return x + dt * lanes.velocity(x), None


class SplittingStepper(AbstractStepper):
    """Poisson splitting with the given composition."""

    coefficients: tuple[float, ...] = eqx.field(static=True)

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """No memory."""
        return None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One composed splitting step."""
        return splitting_step(lanes, x, dt, self.coefficients), None


class RungeKuttaStepper(AbstractStepper):
    """An explicit Runge-Kutta method from a Diffrax tableau; the last slope is kept when the method reuses it (FSAL).

    Stage states and slopes stand behind `computed_once`: left to itself, XLA merges the stages into kernels that
    compute the earlier slopes again for every neuron (Tsit5 at n = 8: 3 times slower with tanh, 100 with the identity).
    """

    tableau: diffrax.ButcherTableau = eqx.field(static=True)

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The first slope, where it is the last one of the step before."""
        return lanes.velocity(x) if self.tableau.fsal else None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """All stages in turn. Autonomous field: the nodes c of the tableau play no role."""
        slopes = [lanes.velocity(x) if memory is None else memory]
        for row in self.tableau.a_lower:
            stage = computed_once(dt, functools.partial(_moved, x, dt, row, slopes), x)
            slopes.append(computed_once(dt, functools.partial(_velocity, lanes, stage), x))
        # With the last stage at the new state (SSAL), it is that state.
        x1 = stage if self.tableau.ssal else _moved(x, dt, self.tableau.b_sol, slopes)
        return x1, slopes[-1] if self.tableau.fsal else None


class VmappedStepper(AbstractStepper):
    """Any Diffrax solver, called for each lane under `jax.vmap`: correct for all, fast for none."""

    solver: diffrax.AbstractSolver

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The solver's own state, one per lane on the leading axis."""
        return self._per_lane(lambda term, x: self.solver.init(term, t, t + dt, x, None), lanes)(x)

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One step of the solver in each lane; a lane in which the solver fails becomes NaN."""

        def one(term: diffrax.ODETerm, x: Array, memory: PyTree) -> tuple[Array, PyTree]:
            x1, _, _, memory, result = self.solver.step(term, t, t + dt, x, None, memory, made_jump=False)
            return jnp.where(result == diffrax.RESULTS.successful, x1, jnp.nan), memory

        x1, memory = self._per_lane(one, lanes)(x, memory)
        return x1.T, memory

    def _per_lane(self, function: Callable[..., Any], lanes: Lanes) -> Callable[..., Any]:
        own = jax.tree.map(lambda array: -1 if array.shape[-1] > 1 else None, lanes)

        def single(lanes: Lanes, x: Array, *rest: PyTree) -> Any:
            # Mapped arrays have lost their lane axis, shared ones have it with length one: give it back to the first.
            lane = jax.tree.map(lambda array, axis: array if axis is None else array[..., None], lanes, own)
            term = diffrax.ODETerm(lambda t, x, args: lane.velocity(x[:, None])[:, 0])
            return function(term, x, *rest)

        return lambda x, *rest: jax.vmap(single, in_axes=(own, -1, *(0 for _ in rest)))(lanes, x, *rest)


def stepper_of(solver: Any) -> AbstractStepper:
    """The stepper that runs `solver` with fixed steps.

    **Raises:** `JaxoscError` for anything that is not a Diffrax solver.
    """
    if isinstance(solver, ForwardEuler | diffrax.Euler):
        return EulerStepper()
    if isinstance(solver, PoissonSplitting):
        return SplittingStepper(solver.coefficients)
    if isinstance(solver, diffrax.AbstractERK) and isinstance(solver.tableau, diffrax.ButcherTableau):
        return RungeKuttaStepper(solver.tableau)
    if isinstance(solver, diffrax.AbstractSolver):
        return VmappedStepper(solver)
    raise JaxoscError(
        f"Got the solver {solver!r}, expected an instance such as jo.ForwardEuler(), jo.solvers.PoissonSplitting(2) or"
        " diffrax.Tsit5(): pass an instance, not a name or a class."
    )


def _moved(x: LaneStates, dt: Array, weights: Any, slopes: list[LaneStates]) -> LaneStates:
    """x + dt times the weighted sum of the slopes."""
    terms = [float(weight) * slope for weight, slope in zip(weights, slopes, strict=True) if weight != 0]
    return x + dt * functools.reduce(operator.add, terms)


def _velocity(lanes: Lanes, x: LaneStates) -> LaneStates:
    return lanes.velocity(x)
