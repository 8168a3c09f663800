"""The tangent map of one step of a solver: how small deviations v from a state x are carried along, in all lanes.

With x -> phi(x) one step of size dt, a deviation becomes D phi(x) v. This is the exact derivative of what the solver
does, not a second equation with an error of its own: a step that keeps an energy or a volume has a tangent map that
knows of it, and exponents pair and vanish as the mathematics says, at any dt.

Poisson splitting has it for the price of more columns. The flow y += dt W[:, i] sigma(y_i) of neuron i leaves y_i
alone, so its tangent map is

    v += dt sigma'(y_i) v_i W[:, i],

the same product with the same column. Every other step, and every vector field that is no network, is differentiated
by `jax.jvp`, which computes the step once for all deviations.

States are (n, lanes) and deviations (n, k, lanes), k of them in each lane: the batch-last layout of the engine.
Source: Benettin, Galgani, Giorgilli, Strelcyn, *Meccanica* 15 (1980), section 3, for exponents from tangent maps.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._elementary import sum_rows
from .._errors import JaxoscError
from ..fields import AbstractField
from ..simulate.steppers import AbstractStepper, SplittingStepper, moved, stepper_of, tableau_of
from ..solvers import Lanes, PoissonSplitting
from ..solvers.affine import has_affine_part
from ..solvers.compositions import COMPOSITIONS
from ..solvers.coordinate_flows import has_groups

States = Float[Array, "n lanes"]
Deviations = Float[Array, "n k lanes"]

UNROLLED_VISITS = 20
"""Up to so many visits of a step are written out; more are a loop (compile time grows)."""


class AbstractTangentStep(eqx.Module):
    """One step of all lanes together with their deviations."""

    @abc.abstractmethod
    def __call__(self, t: Any, dt: Any, x: States, v: Deviations) -> tuple[States, Deviations]:
        """phi(x) and D phi(x) v for the step of size `dt` from time `t`."""


class SplittingTangents(AbstractTangentStep):
    """Poisson splitting of current-form networks neuron by neuron, its tangent map by the formula above.

    Cost: that of 1 + k states. Needs a zero diagonal, no bias, leak or input, and no groups of neurons.
    """

    lanes: Lanes
    order: int = eqx.field(static=True)

    def __call__(self, t: Any, dt: Any, x: States, v: Deviations) -> tuple[States, Deviations]:
        """One composed step."""
        neurons, durations = visits_of(self.lanes.size, self.order)
        if len(neurons) <= UNROLLED_VISITS:
            for i, duration in zip(neurons, durations, strict=True):
                x, v = self._visit(x, v, int(i), float(duration) * dt)
            return x, v
        numbers, times = jnp.asarray(neurons, jnp.int32), jnp.asarray(durations, x.dtype) * dt

        def visit(k: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            return self._visit(*carry, numbers[k], times[k])

        return jax.lax.fori_loop(0, len(neurons), visit, (x, v))

    def _visit(self, x: States, v: Deviations, i: Any, h: Array) -> tuple[States, Deviations]:
        """The flow of neuron i over the time h."""
        own, column, deviation = (
            jax.lax.dynamic_index_in_dim(array, i, axis, keepdims=False)
            for array, axis in ((x, 0), (self.lanes.matrix, 1), (v, 0))
        )
        h = h if self.lanes.gain is None else h * self.lanes.gain
        # JAX's own rule shares the tanh: 1 - tanh^2.
        value, slope = jax.jvp(self.lanes.activation, (own,), (jnp.ones_like(own),))
        return x + column * (h * value)[None], v + column[:, None] * ((h * slope)[None] * deviation)[None]


def visits_of(n: int, order: int) -> tuple[Int[np.ndarray, " visits"], Float[np.ndarray, " visits"]]:
    """The neurons in the order in which a step of Poisson splitting visits them, and for what part of dt each.

    Sweeps go up and down in turn, so the last and the first neuron are visited twice running: that is one visit.
    """
    visits: list[tuple[int, float]] = []
    for number, size in enumerate(COMPOSITIONS[order]):
        for i in reversed(range(n)) if number % 2 else range(n):
            if visits and visits[-1][0] == i:
                visits[-1] = i, visits[-1][1] + size
            else:
                visits.append((i, size))
    return np.array([i for i, _ in visits]), np.array([size for _, size in visits])


class StepTangents(AbstractTangentStep):
    """The step of any stepper of networks, its tangent map by `jax.jvp`.

    The step is taken for what it does to a state: a memory from step to step (a kept slope, what sums have lost) is
    begun anew.
    """

    lanes: Lanes
    stepper: AbstractStepper

    def __call__(self, t: Any, dt: Any, x: States, v: Deviations) -> tuple[States, Deviations]:
        """One step."""
        t, dt = (jnp.asarray(value, x.dtype) for value in (t, dt))

        def step(x: Array) -> Array:
            return self.stepper.step(self.lanes, t, dt, x, self.stepper.init(self.lanes, t, dt, x))[0]

        return pushed_forward(step, x, v)


class FieldTangents(AbstractTangentStep):
    """The step of a Diffrax solver for any vector field f(t, y, args), its tangent map by `jax.jvp`."""

    field: Callable[..., Any]
    args: Any
    solver: diffrax.AbstractSolver

    def __call__(self, t: Any, dt: Any, x: States, v: Deviations) -> tuple[States, Deviations]:
        """One step: explicit Runge-Kutta methods from their tableau, others lane by lane."""
        t, dt = (jnp.asarray(value, x.dtype) for value in (t, dt))
        tableau = tableau_of(self.solver)
        step = self._by_solver if tableau is None else functools.partial(self._by_tableau, tableau)
        return pushed_forward(lambda x: step(t, dt, x), x, v)

    def _by_tableau(self, tableau: diffrax.ButcherTableau, t: Any, dt: Any, x: States) -> States:
        def velocity(t: Any, x: Array) -> Array:
            slope: Array = jax.vmap(lambda y: jnp.asarray(self.field(t, y, self.args)), in_axes=-1, out_axes=-1)(x)
            return slope

        slopes, stage = [velocity(t, x)], x
        for row, node in zip(tableau.a_lower, tableau.c, strict=True):
            stage = moved(x, dt, row, slopes)
            if not (tableau.ssal and len(slopes) == len(tableau.c)):
                slopes.append(velocity(t + float(node) * dt, stage))
        return stage if tableau.ssal else moved(x, dt, tableau.b_sol, slopes)

    def _by_solver(self, t: Any, dt: Any, x: States) -> States:
        term, solver = diffrax.ODETerm(self.field), self.solver
        if isinstance(solver, diffrax.AbstractRungeKutta) and solver.scan_kind is None:
            # Of its loops over stages the usual one can be differentiated backward only.
            solver = dataclasses.replace(solver, scan_kind="lax")

        def one(y: Array) -> Array:
            memory = solver.init(term, t, t + dt, y, self.args)
            y1, _, _, _, result = solver.step(term, t, t + dt, y, self.args, memory, made_jump=False)
            return jnp.where(result == diffrax.RESULTS.successful, y1, jnp.nan)

        stepped: Array = jax.vmap(one, in_axes=-1, out_axes=-1)(x)
        return stepped


def pushed_forward(step: Callable[[Array], Array], x: States, v: Deviations) -> tuple[States, Deviations]:
    """step(x) and its derivative at x along each of the k deviations `v` (n, k, lanes); the step is computed once."""

    def along(deviation: Array) -> tuple[Array, Array]:
        return jax.jvp(step, (x,), (deviation,))

    pushed: tuple[Array, Array] = jax.vmap(along, in_axes=1, out_axes=(None, 1))(v)
    return pushed


def tangent_step_of(networks: Any, solver: Any, args: Any = None) -> AbstractTangentStep:
    """The step with tangents of `Lanes` or of a vector field f(t, y, args), by the cheapest way that is exact.

    **Raises:** `JaxoscError` for what is no Diffrax solver, and for a solver that needs W where there is none.
    """
    if isinstance(networks, Lanes):
        stepper = stepper_of(solver)
        if isinstance(stepper, SplittingStepper) and has_own_tangents(networks, stepper):
            return SplittingTangents(networks, stepper.solver.accuracy)
        return StepTangents(networks.prepared(stepper.use), stepper)
    if not isinstance(solver, diffrax.AbstractSolver):
        raise JaxoscError(
            f"Got the solver {solver!r}, expected one of Diffrax such as diffrax.Tsit5() for a field without weights."
        )
    return FieldTangents(networks, args, solver)


def has_own_tangents(lanes: Lanes, stepper: AbstractStepper) -> bool:
    """Whether `SplittingTangents` (and the loop in C) knows the step of these networks."""
    if not isinstance(stepper, SplittingStepper) or stepper.solver.compensated or stepper.solver.lattice:
        return False
    plain = lanes.hollow and lanes.form == "current" and lanes.drive is None
    return plain and not has_affine_part(lanes) and not has_groups(lanes)


def orthonormalised(v: Deviations) -> tuple[Deviations, Float[Array, "k lanes"]]:
    """Modified Gram-Schmidt of the k deviations of each lane: orthonormal ones, and the length that each had left.

    Written out over lanes: a batch of LAPACK's QR takes 3 to 10 microseconds a matrix for k = 8, this a tenth. The
    lengths are the diagonal of R.
    """
    count = v.shape[1]

    def turn(j: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        v, lengths = carry
        first = jax.lax.dynamic_index_in_dim(v, j, 1, keepdims=False)
        length = jnp.sqrt(sum_rows(first * first))
        unit = first / length[None]
        product = sum_rows(unit[:, None] * v)
        later = (jnp.arange(count) > j)[None, :, None]
        v = jnp.where(later, v - unit[:, None] * product[None], v)
        v = jax.lax.dynamic_update_index_in_dim(v, unit, j, 1)
        return v, jax.lax.dynamic_update_index_in_dim(lengths, length, j, 0)

    done: tuple[Array, Array] = jax.lax.fori_loop(0, count, turn, (v, jnp.ones(v.shape[1:], v.dtype)))
    return done


def normalised(v: Deviations) -> tuple[Deviations, Float[Array, "k lanes"]]:
    """Each deviation at length 1, and the length that it had."""
    length = jnp.sqrt(sum_rows(v * v))
    return v / length[None], length


def solver_for(field: Any, solver: Any) -> Any:
    """`solver`, or where None the usual one: `PoissonSplitting(2)` for networks, `diffrax.Tsit5()` for other fields."""
    if solver is not None:
        return solver
    return PoissonSplitting(2) if isinstance(field, AbstractField) else diffrax.Tsit5()
