"""One step of a fixed-step solver in every lane at once: the seam through which solvers enter the engine.

`stepper_of` chooses: the package's own solvers have steps of their own, every explicit Runge-Kutta solver of Diffrax is
run from its public tableau, and any other Diffrax solver is called lane by lane under `jax.vmap`.
"""

import abc
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._choices import Use
from .._errors import JaxoscError
from .._results import Result
from ..solvers import (
    DiscreteGradient,
    EnergyProjection,
    ForwardEuler,
    Lanes,
    PairSplitting,
    PoissonSplitting,
    Taylor,
)
from ..solvers.compositions import SWEEPS_PER_STEP
from ..solvers.discrete_gradient import discrete_gradient_step
from ..solvers.energy_projection import first_energy, projected, require_conservative
from ..solvers.lanes import computed_once, own_axes
from ..solvers.pair_splitting import first_place, pair_step
from ..solvers.poisson_splitting import require_runnable, splitting_step
from ..solvers.splitting_adjoint import SplittingWayBack, has_way_back
from ..solvers.taylor import taylor_step
from ..solvers.taylor_series import require_series

LaneStates = Float[Array, "n lanes"]


class AbstractStepper(eqx.Module):
    """A one-step map x(t) -> x(t + dt) of all lanes, with a memory of its own from step to step.

    `nan_means`: what became of a lane whose new state is not finite. `symmetric`: a step of -dt undoes one of dt, to
    rounding. `tape_per_step`: about how many states JAX keeps of a step to differentiate it backward.
    `looks_at_values`: `require` has a use for the values of a leak or bias: ask it outside of a trace too. `use`: what
    a step does with W, from which layout and chunks follow.
    """

    nan_means: ClassVar[Result] = Result.non_finite
    looks_at_values: ClassVar[bool] = False
    use: ClassVar[Use] = "pieces"

    @property
    def symmetric(self) -> bool:
        """False unless a stepper knows better."""
        return False

    def way_back(self, lanes: Lanes, moving: Lanes) -> SplittingWayBack | None:
        """A rule of its own for undoing and differentiating a step at once, None where JAX's have to do.

        `moving` has arrays where cotangents are wanted, and None elsewhere.
        """
        return None

    @property
    def tape_per_step(self) -> int:
        """A guess that serves those who know nothing better."""
        return 30

    def require(self, lanes: Lanes) -> None:
        """Raise one sentence if these networks are known not to suit, of which values show outside of a trace only."""
        return

    @abc.abstractmethod
    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The memory before the first step (None for most)."""

    @abc.abstractmethod
    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """The states (n, lanes) after one step of size dt from time t, and the new memory."""


class EulerStepper(AbstractStepper):
    """x + dt f(x)."""

    use: ClassVar[Use] = "once"

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """No memory."""
        return None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One forward Euler step."""
        return x + dt * lanes.velocity(t, x), None


class SplittingStepper(AbstractStepper):
    """Poisson splitting."""

    solver: PoissonSplitting

    @property
    def symmetric(self) -> bool:
        """All but order 1, whose inverse is the backward sweep."""
        return self.solver.accuracy > 1

    def way_back(self, lanes: Lanes, moving: Lanes) -> SplittingWayBack | None:
        """Where sums are plain and flows are single neurons or groups."""
        if self.solver.compensated or self.solver.lattice or not has_way_back(lanes, self.solver.accuracy):
            return None
        wanted = (moving.matrix is not None, moving.bias is not None, moving.leak is not None)
        return SplittingWayBack(lanes, self.solver.accuracy, wanted)

    @property
    def tape_per_step(self) -> int:
        """A few states for each sweep."""
        return 4 * SWEEPS_PER_STEP[self.solver.accuracy]

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """What rounding lost so far, in the compensated mode."""
        require_runnable(self.solver, lanes)
        return jnp.zeros_like(x) if self.solver.compensated else None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One composed splitting step."""
        return splitting_step(self.solver, lanes, t, dt, x, memory)


class PairStepper(AbstractStepper):
    """Pair splitting."""

    @property
    def symmetric(self) -> bool:
        """A palindrome."""
        return True

    @property
    def tape_per_step(self) -> int:
        """The ends of all planes before each round, and the way back to y: 55 at n = 8, 6 more for each neuron."""
        return 55

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The coordinates of the planes, where nothing but them moves the states."""
        return first_place(lanes, x)

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One palindrome of planes."""
        return pair_step(lanes, t, dt, x, memory)


class DiscreteGradientStepper(AbstractStepper):
    """The discrete gradient method; a lane whose equation is not solved becomes NaN, and is not tried again."""

    solver: DiscreteGradient

    nan_means: ClassVar[Result] = Result.solver_failed

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """Which lanes have been solved so far: all."""
        return jnp.ones(x.shape[-1:], bool)

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One step. A lane that failed would keep the others waiting for its last iteration in every later one."""
        x1, solved = discrete_gradient_step(self.solver, lanes, t, dt, x, active=memory)
        solved = solved & memory
        return jnp.where(solved[None, :], x1, jnp.nan), solved


class RungeKuttaStepper(AbstractStepper):
    """An explicit Runge-Kutta method from a Diffrax tableau; the last slope is kept when the method reuses it (FSAL).

    Stage states and slopes stand behind `computed_once`: left to itself, XLA merges the stages into kernels that
    compute the earlier slopes again for every neuron (Tsit5 at n = 8: 3 times slower with tanh, 100 with the identity).
    """

    tableau: diffrax.ButcherTableau = eqx.field(static=True)

    use: ClassVar[Use] = "stages"

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The first slope, where it is the last one of the step before."""
        return lanes.velocity(t, x) if self.tableau.fsal else None

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """All stages in turn."""
        slopes = [lanes.velocity(t, x) if memory is None else memory]
        for row, node in zip(self.tableau.a_lower, self.tableau.c, strict=True):
            stage = computed_once(dt, functools.partial(moved, x, dt, row, slopes), x)
            slopes.append(computed_once(dt, functools.partial(_velocity, lanes, t + float(node) * dt, stage), x))
        # With the last stage at the new state (SSAL), it is that state.
        x1 = stage if self.tableau.ssal else moved(x, dt, self.tableau.b_sol, slopes)
        return x1, slopes[-1] if self.tableau.fsal else None


class TaylorStepper(AbstractStepper):
    """Taylor series of a fixed order."""

    use: ClassVar[Use] = "stages"

    order: int = eqx.field(static=True)

    @property
    def tape_per_step(self) -> int:
        """Three series, and what their convolutions keep."""
        return 3 * self.order + self.order**2 // 4

    def require(self, lanes: Lanes) -> None:
        """The series of the activation must be known."""
        require_series(lanes)

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """No memory."""
        require_series(lanes)

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """The polynomial at dt."""
        return taylor_step(self.order, lanes, dt, x), None


class ProjectedStepper(AbstractStepper):
    """The steps of another stepper, each projected back to the energy of the start."""

    stepper: AbstractStepper

    looks_at_values: ClassVar[bool] = True

    @property
    def tape_per_step(self) -> int:
        """A dozen more than without."""
        return self.stepper.tape_per_step + 12

    def require(self, lanes: Lanes) -> None:
        """They must conserve their energy."""
        require_conservative(lanes)

    def init(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates) -> PyTree:
        """The energy of the start, and the memory of the stepper."""
        return first_energy(lanes, x), self.stepper.init(lanes, t, dt, x)

    def step(self, lanes: Lanes, t: Array, dt: Array, x: LaneStates, memory: PyTree) -> tuple[LaneStates, PyTree]:
        """One step and its projection; a last slope that is kept is off by as little as that moved."""
        energy, own = memory
        x1, own = self.stepper.step(lanes, t, dt, x, own)
        x1 = computed_once(dt, lambda: x1, x)
        return projected(lanes, dt, x1, energy), (energy, own)


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
        lanes = eqx.tree_at(lambda lanes: lanes.by_lane, lanes, None, is_leaf=_is_none)
        own = own_axes(lanes)

        def single(lanes: Lanes, x: Array, *rest: PyTree) -> Any:
            # Mapped arrays have lost their lane axis, shared ones have it with length one: give it back to the first.
            lane = jax.tree.map(
                lambda axis, array: array if axis is None else array[..., None], own, lanes, is_leaf=_is_none
            )
            term = diffrax.ODETerm(lambda t, x, args: lane.velocity(t, x[:, None])[:, 0])
            return function(term, x, *rest)

        return lambda x, *rest: jax.vmap(single, in_axes=(own, -1, *(0 for _ in rest)))(lanes, x, *rest)


def stepper_of(solver: Any) -> AbstractStepper:
    """The stepper that runs `solver` with fixed steps.

    **Raises:** `JaxoscError` for anything that is not a Diffrax solver.
    """
    if isinstance(solver, EnergyProjection):
        return ProjectedStepper(stepper_of(solver.solver))
    if isinstance(solver, ForwardEuler | diffrax.Euler):
        return EulerStepper()
    if isinstance(solver, PoissonSplitting):
        return SplittingStepper(solver)
    if isinstance(solver, PairSplitting):
        return PairStepper()
    if isinstance(solver, DiscreteGradient):
        return DiscreteGradientStepper(solver)
    if isinstance(solver, Taylor):
        return TaylorStepper(solver.known_order)
    tableau = tableau_of(solver)
    if tableau is not None:
        return RungeKuttaStepper(tableau)
    if isinstance(solver, diffrax.AbstractSolver):
        return VmappedStepper(solver)
    raise JaxoscError(
        f"Got the solver {solver!r}, expected an instance such as jo.ForwardEuler(), jo.solvers.PoissonSplitting(2) or"
        " diffrax.Tsit5(): pass an instance, not a name or a class."
    )


def tableau_of(solver: Any) -> diffrax.ButcherTableau | None:
    """The coefficients of an explicit Runge-Kutta solver of a single term; None for any other solver."""
    # Diffrax's wrappers, such as `HalfSolver`, count as instances of the class that they wrap.
    if not isinstance(solver, diffrax.AbstractERK) or isinstance(solver, diffrax.AbstractWrappedSolver):
        return None
    return solver.tableau if isinstance(solver.tableau, diffrax.ButcherTableau) else None


def moved(x: LaneStates, dt: Array, weights: Any, slopes: list[LaneStates]) -> LaneStates:
    """x + dt times the weighted sum of the slopes."""
    terms = [float(weight) * slope for weight, slope in zip(weights, slopes, strict=True) if weight != 0]
    return x + dt * functools.reduce(operator.add, terms)


def _velocity(lanes: Lanes, t: Array, x: LaneStates) -> LaneStates:
    return lanes.velocity(t, x)


def _is_none(leaf: Any) -> bool:
    return leaf is None
