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
from jaxtyping import Array, Float

from .._checks import is_concrete
from .._results import Result
from ..fields import AbstractField
from ..solvers import Lanes, lanes_of
from .adaptive_lanes import AdaptiveRun, run_adaptive_lanes
from .adaptive_methods import AbstractMethod, Tolerances, method_of
from .devices import devices_for, spread
from .members import Members, batch_axes
from .reducers import relative_drift
from .solution import Solution


class AdaptiveOptions(eqx.Module):
    """How accurate and how long: tolerances, size of the first step (None: chosen), most steps a member."""

    rtol: Any
    atol: Any
    dt: Any
    escape_norm: Any
    max_steps: int = eqx.field(static=True)


def run_adaptive(
    members: Members, solver: diffrax.AbstractSolver, options: AdaptiveOptions, t0: Any, t1: Any, ts: Any
) -> Solution:
    """All members in one call. **Raises:** `JaxoscError` for networks that the solver cannot run."""
    field, starts = members.block(0, members.count)
    dtype = starts.dtype
    times = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
    kept_at = jnp.asarray([t1] if ts is None else ts, dtype)
    concrete = is_concrete((field, starts, times, options, kept_at))
    method = method_of(solver, options.rtol, options.atol, dtype) if concrete and field.drive is None else None
    if method is None:
        states, result, num_steps, drift = _by_diffrax(field, starts, solver, options, *times, kept_at)
        efficiency = jnp.mean(num_steps / jnp.max(num_steps))
    else:
        lanes = lanes_of(field)
        method.require(lanes)
        devices = devices_for(members.starts, members.count)
        run = _on_lanes(lanes, starts.T, method, options, *times, None if ts is None else kept_at, devices)
        states = jnp.moveaxis(run.y[None] if run.saved is None else run.saved, -1, 0)
        result, num_steps, drift = run.result, run.num_steps, run.energy_drift
        efficiency = jnp.sum(num_steps) / jnp.sum(run.turns)
    shape = members.batch_shape
    return Solution(
        ts=kept_at,
        ys=states.reshape(*shape, *states.shape[1:]),
        result=result.reshape(shape),
        energy_drift=drift.reshape(shape),
        reduced={},
        stats={
            "num_steps": num_steps.reshape(shape),
            "dt": options.dt,
            "solver": solver,
            "engine": "adaptive",
            "lockstep_efficiency": efficiency,
        },
    )


@eqx.filter_jit
def _on_lanes(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    method: AbstractMethod,
    options: AdaptiveOptions,
    t0: Array,
    t1: Array,
    ts: Float[Array, " times"] | None,
    devices: tuple[jax.Device, ...],
) -> AdaptiveRun:
    def run(lanes: Lanes, y0: Array) -> AdaptiveRun:
        return run_adaptive_lanes(
            lanes,
            y0,
            method,
            t0=t0,
            t1=t1,
            tolerances=Tolerances(jnp.asarray(options.rtol, y0.dtype), jnp.asarray(options.atol, y0.dtype)),
            first_step=options.dt,
            escape_norm=options.escape_norm,
            max_steps=options.max_steps,
            ts=ts,
        )

    return spread(run, lanes, y0, devices)


@eqx.filter_jit
def _by_diffrax(
    field: AbstractField,
    y0: Float[Array, "members n"],
    solver: diffrax.AbstractSolver,
    options: AdaptiveOptions,
    t0: Array,
    t1: Array,
    ts: Float[Array, " times"],
) -> tuple[Array, Array, Array, Array]:
    """Solve every member of a flat batch with a PID step-size controller.

    **Arguments:** `field` with one leading batch axis or none; `y0` (members, n); `ts` (times,) ascending, when to keep
    states.

    **Returns:** states (members, times, n), result codes, steps taken and energy drift at `t1` (members,).
    """
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

    return jax.vmap(one, in_axes=(axes, 0))(field, y0)


def _code(result: diffrax.RESULTS, last: Float[Array, " n"]) -> Array:
    """Diffrax's word on one member in ours."""
    code = jnp.where(result == diffrax.RESULTS.successful, Result.successful, Result.solver_failed)
    code = jnp.where(result == diffrax.RESULTS.max_steps_reached, Result.max_steps_reached, code)
    lost = (code == Result.successful) & ~jnp.all(jnp.isfinite(last))
    return jnp.where(lost, Result.non_finite, code).astype(jnp.int8)
