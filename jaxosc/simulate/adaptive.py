"""Adaptive steps: from members to the lane engine or to Diffrax, and back to a `Solution`.

Taylor and the explicit Runge-Kutta solvers run on lanes (adaptive_lanes.py). Diffrax under `jax.vmap` takes what is
left: implicit solvers, input from outside, and runs inside a JAX transformation, since it can be differentiated
backward.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._checks import is_concrete
from .._results import Result
from ..fields import AbstractField
from ..solvers import Lanes, lanes_of
from ..solvers.facts import Facts
from .adaptive_lanes import AdaptiveRun, run_adaptive_lanes
from .adaptive_methods import AbstractMethod, method_of
from .checked_facts import checked_facts, constant
from .devices import devices_for, spread
from .members import Members, batch_axes
from .reducers import relative_drift
from .solution import Solution


class AdaptiveOptions(eqx.Module):
    """How accurate and how long: tolerances, size of the first step (None: chosen), most steps a member.

    Other numbers than `max_steps` are traced, so that a new tolerance compiles nothing anew.
    """

    rtol: Any
    atol: Any
    dt: Any
    escape_norm: Any
    max_steps: int = eqx.field(static=True)

    def traced(self, dtype: Any) -> "AdaptiveOptions":
        """The same as arrays, for a compiled program."""
        return jax.tree.map(lambda value: constant(value, dtype), self)


class _Found(eqx.Module):
    """The parts of a `Solution` in their final shapes."""

    ts: Float[Array, " times"]
    ys: Float[Array, "*batch times n"]
    result: Int[Array, "*batch"]
    num_steps: Int[Array, "*batch"]
    energy_drift: Float[Array, "*batch"]
    lockstep_efficiency: Float[Array, ""]


def run_adaptive(
    members: Members, solver: diffrax.AbstractSolver, options: AdaptiveOptions, t0: Any, t1: Any, ts: Any
) -> Solution:
    """All members in one call, which outside of a trace is one program.

    **Raises:** `JaxoscError` for networks that the solver cannot run.
    """
    dtype = members.starts.dtype
    times = constant(t0, dtype), constant(t1, dtype)
    kept_at = constant(t1 if ts is None else ts, dtype).reshape(-1)
    concrete = is_concrete((members.field, members.starts, times, options, kept_at))
    drive = members.field.drive
    method = method_of(solver, options.rtol, options.atol, dtype) if concrete and drive is None else None
    numbers = options.traced(dtype)
    if method is None:
        found = _by_diffrax(members, solver, numbers, *times, kept_at)
    else:
        facts = checked_facts(members.field, method)
        devices = devices_for((members.field, members.starts), members.count)
        found = _on_lanes(members, method, numbers, *times, kept_at, ts is not None, devices, facts)
    return Solution(
        ts=found.ts if concrete else jnp.asarray(kept_at),  # a program gives constants back in a type of their own
        ys=found.ys,
        result=found.result,
        energy_drift=found.energy_drift,
        reduced={},
        stats={
            "num_steps": found.num_steps,
            "dt": options.dt,
            "solver": solver,
            "engine": "adaptive",
            "lockstep_efficiency": found.lockstep_efficiency,
        },
    )


@eqx.filter_jit
def _on_lanes(
    members: Members,
    method: AbstractMethod,
    options: AdaptiveOptions,
    t0: Any,
    t1: Any,
    kept_at: Any,
    on_the_way: bool,
    devices: tuple[jax.Device, ...],
    facts: Facts,
) -> _Found:
    def run(lanes: Lanes, y0: Array) -> AdaptiveRun:
        return run_adaptive_lanes(
            lanes,
            y0,
            method,
            t0=t0,
            t1=t1,
            rtol=options.rtol,
            atol=options.atol,
            first_step=options.dt,
            escape_norm=options.escape_norm,
            max_steps=options.max_steps,
            ts=jnp.asarray(kept_at) if on_the_way else None,
            allow_native=True,
        )

    field, starts = members.whole()
    lanes = lanes_of(field, facts)
    method.require(lanes)
    ran = spread(run, lanes, starts.T, devices)
    states = jnp.moveaxis(ran.y[None] if ran.saved is None else ran.saved, -1, 0)
    efficiency = jnp.sum(ran.num_steps) / jnp.sum(ran.turns)
    return _found(members, kept_at, states, ran.result, ran.num_steps, ran.energy_drift, efficiency)


def _found(
    members: Members, kept_at: Any, states: Array, result: Array, num_steps: Array, drift: Array, efficiency: Array
) -> _Found:
    """From flat lists of members: `states` (members, times, n), the others (members,)."""
    shape = members.batch_shape
    states = states.reshape(*shape, *states.shape[1:])
    return _Found(
        jnp.asarray(kept_at), states, result.reshape(shape), num_steps.reshape(shape), drift.reshape(shape), efficiency
    )


@eqx.filter_jit
def _by_diffrax(
    members: Members, solver: diffrax.AbstractSolver, options: AdaptiveOptions, t0: Array, t1: Array, ts: Any
) -> _Found:
    """Solve every member with a PID step-size controller, and keep its states at the times `ts`, ascending."""
    field, starts = members.whole()
    axes = batch_axes(field) if field.batch_shape else None

    def one(field: AbstractField, y0: Array) -> tuple[Array, Array, Array, Array]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver,
            t0,
            t1,
            None if options.dt is None else jnp.sign(t1 - t0) * options.dt,
            y0,
            saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts), diffrax.SubSaveAt(t1=True)]),
            stepsize_controller=diffrax.PIDController(rtol=options.rtol, atol=options.atol),
            max_steps=options.max_steps,
            throw=False,
        )
        kept, last = solution.ys
        drift = relative_drift(field.energy(last[0]), field.energy(y0))
        return kept, _code(solution.result, last[0]), solution.stats["num_steps"].astype(jnp.int32), drift

    states, result, num_steps, drift = jax.vmap(one, in_axes=(axes, 0))(field, starts)
    return _found(members, ts, states, result, num_steps, drift, jnp.mean(num_steps / jnp.max(num_steps)))


def _code(result: diffrax.RESULTS, last: Float[Array, " n"]) -> Array:
    """Diffrax's word on one member in ours."""
    code = jnp.where(result == diffrax.RESULTS.successful, Result.successful, Result.solver_failed)
    code = jnp.where(result == diffrax.RESULTS.max_steps_reached, Result.max_steps_reached, code)
    lost = (code == Result.successful) & ~jnp.all(jnp.isfinite(last))
    return jnp.where(lost, Result.non_finite, code).astype(jnp.int8)
