"""How an adaptive step is made in every lane: the seam through which solvers enter the adaptive loop.

Taylor knows before a step how long it may be, and never tries in vain. An explicit Runge-Kutta method tries, compares
the two results of its tableau, and tries again where they differ too much; sizes follow Diffrax's default controller
(`PIDController` with its integral part alone), so that the steps are those of Diffrax.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from .._elementary import sum_rows
from ..solvers import EnergyProjection, Lanes, Taylor
from ..solvers.energy_projection import first_energy, projected, require_conservative
from ..solvers.lanes import computed_once
from ..solvers.taylor import order_for, polynomial, step_limit
from ..solvers.taylor_series import require_series, taylor_coefficients
from .steppers import moved, tableau_of

LaneStates = Float[Array, "n lanes"]
LaneValues = Float[Array, " lanes"]

SAFETY, LEAST_FACTOR, MOST_FACTOR = 0.9, 0.2, 10.0
"""Diffrax's: the next step is that share of what the error allows, between a fifth and ten times the last."""


class Setting(eqx.Module):
    """The networks of a run, without input from outside, and what holds for all of its steps.

    **Attributes:** `direction`: 1, or -1 in a run backward, in which sizes of steps are positive all the same;
    `duration` > 0; `rtol`, `atol`: an error of atol + rtol |x| is allowed in a step.
    """

    lanes: Lanes
    direction: Float[Array, ""]
    duration: Float[Array, ""]
    rtol: Float[Array, ""]
    atol: Float[Array, ""]

    def allowed(self, size: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The error that a state of this size may have."""
        return self.atol + self.rtol * size

    def once(self, compute: Callable[[], LaneStates], x: LaneStates) -> LaneStates:
        """`computed_once`: the duration is a number that is not zero, which the compiler cannot know."""
        return computed_once(self.duration, compute, x)

    def velocity(self, x: LaneStates) -> LaneStates:
        """dx/dt, at any time."""
        return self.lanes.velocity(jnp.zeros_like(self.duration), x)


class Attempt(eqx.Module):
    """A step that was tried: `size` >= 0 of it (lanes,), where it led, whether to go there, and what a method keeps."""

    x: LaneStates
    size: LaneValues
    accepted: Bool[Array, " lanes"]
    memory: PyTree
    dense: Any


class AbstractMethod(eqx.Module):
    """One adaptive solver on lanes. `looks_at_values`: as in `AbstractStepper`."""

    looks_at_values: ClassVar[bool] = False

    def require(self, lanes: Lanes) -> None:
        """Raise one sentence if these networks are known not to suit."""
        return

    @abc.abstractmethod
    def expected_cost(self, lanes: Lanes, x: LaneStates) -> LaneValues:
        """A number that grows with the steps a lane will need."""

    @abc.abstractmethod
    def init(self, setting: Setting, x: LaneStates, first_step: Any) -> PyTree:
        """The memory before the first step."""

    @abc.abstractmethod
    def attempt(self, setting: Setting, x: LaneStates, memory: PyTree, left: LaneValues) -> Attempt:
        """A step no longer than what is `left`."""

    @abc.abstractmethod
    def between(self, setting: Setting, x: LaneStates, tried: Attempt, since: LaneValues) -> LaneStates:
        """The states `since` the beginning of the step at `x`, 0 <= since <= tried.size."""

    def remembered(self, memory: PyTree, tried: Attempt, moving: Array, accepted: Array) -> PyTree:
        """The memory after the step; lanes that do not move keep theirs."""
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), tried.memory, memory)


class TaylorMethod(AbstractMethod):
    """Taylor series, of an order chosen for the tolerance."""

    order: int = eqx.field(static=True)

    def require(self, lanes: Lanes) -> None:
        """The series of the activation must be known."""
        require_series(lanes)

    def expected_cost(self, lanes: Lanes, x: LaneStates) -> LaneValues:
        """How fast the lanes begin or, better, how large W is, where they have their own."""
        return _expected_speed(lanes, x)

    def init(self, setting: Setting, x: LaneStates, first_step: Any) -> PyTree:
        """No memory."""
        return None

    def attempt(self, setting: Setting, x: LaneStates, memory: PyTree, left: LaneValues) -> Attempt:
        """The longest step that the last two terms allow."""
        series = taylor_coefficients(setting.lanes, x, self.order, setting.duration)
        tolerance = setting.allowed(jnp.max(jnp.abs(x), axis=0))
        size = jnp.minimum(step_limit(series, tolerance), left)
        x1 = setting.once(lambda: polynomial(series, setting.direction * size[None, :]), x)
        return Attempt(x1, size, jnp.ones(size.shape, bool), None, series)

    def between(self, setting: Setting, x: LaneStates, tried: Attempt, since: LaneValues) -> LaneStates:
        """The polynomial of the step."""
        return polynomial(tried.dense, setting.direction * since[None, :])


class RungeKuttaMethod(AbstractMethod):
    """An explicit Runge-Kutta method from a Diffrax tableau with an embedded error estimate.

    The memory is the first slope of the next step and its size.
    """

    solver: diffrax.AbstractERK

    @property
    def tableau(self) -> diffrax.ButcherTableau:
        """The coefficients."""
        tableau = self.solver.tableau
        assert isinstance(tableau, diffrax.ButcherTableau)
        return tableau

    @property
    def order(self) -> int:
        """The order of convergence."""
        order = self.solver.order(None)
        assert order is not None
        return order

    def expected_cost(self, lanes: Lanes, x: LaneStates) -> LaneValues:
        """How fast the lanes begin or, better, how large W is, where they have their own."""
        return _expected_speed(lanes, x)

    def init(self, setting: Setting, x: LaneStates, first_step: Any) -> PyTree:
        """The first slope, and the first step, chosen as by Hairer, Norsett and Wanner, II.4 (Diffrax takes 0.01)."""
        slope = setting.velocity(x)
        if first_step is not None:
            return slope, jnp.broadcast_to(jnp.asarray(first_step, x.dtype), x.shape[-1:])
        scale = setting.allowed(jnp.abs(x))
        size, speed = _norm(x / scale), _norm(slope / scale)
        small = (size < 1e-5) | (speed < 1e-5)
        trial = jnp.where(small, 1e-6, 0.01 * size / jnp.where(small, 1, speed))
        there = setting.velocity(x + setting.direction * trial[None, :] * slope)
        bend = _norm((there - slope) / scale) / trial
        most = jnp.maximum(speed, bend)
        flat = most <= 1e-15
        second = jnp.where(
            flat,
            jnp.maximum(1e-6, trial * 1e-3),
            (0.01 / jnp.where(flat, 1, most)) ** (1 / self.order),
        )
        return slope, jnp.minimum(100 * trial, second)

    def attempt(self, setting: Setting, x: LaneStates, memory: PyTree, left: LaneValues) -> Attempt:
        """All stages, the two results, and what their difference says about this step and the next one."""
        slope, wished = memory
        size = jnp.minimum(wished, left)
        dt = setting.direction * size[None, :]
        slopes = [slope]
        for row in self.tableau.a_lower:
            stage = setting.once(functools.partial(moved, x, dt, row, slopes), x)
            slopes.append(setting.once(functools.partial(setting.velocity, stage), x))
        x1 = stage if self.tableau.ssal else moved(x, dt, self.tableau.b_sol, slopes)
        error = moved(jnp.zeros_like(x), dt, self.tableau.b_error, slopes)
        scale = setting.allowed(jnp.maximum(jnp.abs(x), jnp.abs(x1)))
        ratio = _norm(error / scale)
        accepted = ratio < 1
        factor = SAFETY * ratio ** (-1 / self.order)
        factor = jnp.clip(factor, jnp.where(accepted, 1.0, LEAST_FACTOR), jnp.where(accepted, MOST_FACTOR, SAFETY))
        # A state that is no number asks for the least.
        factor = jnp.where(jnp.isfinite(ratio), factor, LEAST_FACTOR)
        last = slopes[-1] if self.tableau.fsal else setting.velocity(x1)
        return Attempt(x1, size, accepted, (last, size * factor), (x1, dt, jnp.stack(slopes)))

    def between(self, setting: Setting, x: LaneStates, tried: Attempt, since: LaneValues) -> LaneStates:
        """The solver's own interpolation."""
        x1, dt, slopes = tried.dense

        def one(x0: Array, x1: Array, k: Array, part: Array) -> Array:
            dense = self.solver.interpolation_cls(t0=jnp.zeros_like(part), t1=jnp.ones_like(part), y0=x0, y1=x1, k=k)
            return dense.evaluate(part)

        part = since / jnp.where(tried.size == 0, 1, tried.size)
        return jax.vmap(one, in_axes=-1, out_axes=-1)(x, x1, slopes * dt[None], part)

    def remembered(self, memory: PyTree, tried: Attempt, moving: Array, accepted: Array) -> PyTree:
        """A slope is used again at the same place; the size is that of the next try, here or there."""
        slope, size = tried.memory
        return jnp.where(accepted, slope, memory[0]), jnp.where(moving, size, memory[1])


class ProjectedMethod(AbstractMethod):
    """Another method, each of whose steps is projected back to the energy of the start, which is remembered."""

    method: AbstractMethod

    looks_at_values: ClassVar[bool] = True

    def require(self, lanes: Lanes) -> None:
        """They must conserve their energy."""
        require_conservative(lanes)
        self.method.require(lanes)

    def expected_cost(self, lanes: Lanes, x: LaneStates) -> LaneValues:
        """That of the other."""
        return self.method.expected_cost(lanes, x)

    def init(self, setting: Setting, x: LaneStates, first_step: Any) -> PyTree:
        """The energy of the start, and the memory of the other."""
        return first_energy(setting.lanes, x), self.method.init(setting, x, first_step)

    def attempt(self, setting: Setting, x: LaneStates, memory: PyTree, left: LaneValues) -> Attempt:
        """A step of the other and its projection."""
        energy, own = memory
        tried = self.method.attempt(setting, x, own, left)
        x1 = projected(setting.lanes, setting.duration, setting.once(lambda: tried.x, x), energy)
        return Attempt(x1, tried.size, tried.accepted, tried.memory, (tried, energy))

    def between(self, setting: Setting, x: LaneStates, tried: Attempt, since: LaneValues) -> LaneStates:
        """As the other, projected."""
        other, energy = tried.dense
        states = setting.once(lambda: self.method.between(setting, x, other, since), x)
        return projected(setting.lanes, setting.duration, states, energy)

    def remembered(self, memory: PyTree, tried: Attempt, moving: Array, accepted: Array) -> PyTree:
        """The energy never changes."""
        energy, own = memory
        return energy, self.method.remembered(own, tried, moving, accepted)


def method_of(solver: Any, rtol: float, atol: float, dtype: Any) -> AbstractMethod | None:
    """The method that runs `solver` on lanes with these tolerances, None where Diffrax has to do it."""
    if isinstance(solver, EnergyProjection):
        method = method_of(solver.solver, rtol, atol, dtype)
        return None if method is None else ProjectedMethod(method)
    if isinstance(solver, Taylor):
        return TaylorMethod(order_for(rtol, atol, dtype) if solver.degree is None else solver.degree)
    tableau = tableau_of(solver)
    return RungeKuttaMethod(solver) if tableau is not None and np.any(tableau.b_error) else None


def _expected_speed(lanes: Lanes, x: LaneStates) -> LaneValues:
    """The Frobenius norm of each lane's gain W, to which steps are nearly proportional; the first speed if W is shared.

    Chunks of 64 out of 512 lanes at rtol 1e-6: own W of gain 0.1 to 30, 0.43 / 0.57 / 0.68 of the lockstep is work at
    n = 2 / 8 / 32 (0.44 / 0.59 / 0.69 if the steps were known before, 0.10 / 0.17 / 0.19 unsorted); shared W, 0.96 /
    0.81 / 0.90 (0.92 / 0.75 / 0.88 unsorted).
    """
    if lanes.matrix.shape[-1] == 1 and lanes.gain is None:
        return _norm(lanes.velocity(jnp.zeros((), x.dtype), x))
    size = jnp.sqrt(jnp.sum(lanes.matrix * lanes.matrix, axis=(0, 1)))
    return size if lanes.gain is None else jnp.abs(lanes.gain) * size


def _norm(x: LaneStates) -> LaneValues:
    """The root of the mean square, as Diffrax takes it."""
    return jnp.sqrt(sum_rows(x * x) / x.shape[0])
