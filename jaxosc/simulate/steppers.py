"""One step of a fixed-step solver in every lane at once: the seam through which solvers enter the engine.

`stepper_of` chooses: forward Euler and Poisson splitting have steps of their own, every explicit Runge-Kutta solver of
Diffrax is run from its public tableau, and any other Diffrax solver is called lane by lane under `jax.vmap`.
"""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._errors import JaxoscError
from ..solvers import ForwardEuler, Lanes, PoissonSplitting
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

    The stages are a loop and not written out: XLA merges written-out stages into kernels that compute every earlier
    slope again (measured three times slower for Tsit5 at n = 8), and takes longer to compile them.
    """

    tableau: diffrax.ButcherTableau = eqx.field(static=True)

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The first slope, where it is the last one of the step before."""
        return lanes.velocity(x) if self.tableau.fsal else None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """All stages in turn. Autonomous field: the nodes c of the tableau play no role."""
        tableau = self.tableau
        stages = len(tableau.a_lower) + 1
        rows = np.zeros((stages, stages))
        for i, row in enumerate(tableau.a_lower, start=1):
            rows[i, : len(row)] = row
        weights = jnp.asarray(rows, x.dtype)

        def stage(i: Any, slopes: Array) -> Array:
            row = jax.lax.dynamic_index_in_dim(weights, i, keepdims=False)
            slope = lanes.velocity(x + dt * _combination(row, slopes))
            return jax.lax.dynamic_update_index_in_dim(slopes, slope, i, axis=0)

        first = lanes.velocity(x) if memory is None else memory
        slopes = jnp.zeros((stages, *x.shape), x.dtype).at[0].set(first)
        slopes = jax.lax.fori_loop(1, stages, stage, slopes)
        x1 = x + dt * _combination(jnp.asarray(tableau.b_sol, x.dtype), slopes)
        return x1, slopes[-1] if tableau.fsal else None


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


def _combination(weights: Float[Array, " stages"], slopes: Float[Array, "stages n lanes"]) -> LaneStates:
    total = weights[0] * slopes[0]
    for k in range(1, len(slopes)):
        total = total + weights[k] * slopes[k]
    return total
