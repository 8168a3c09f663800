"""Fixed steps: from members to blocks of lanes, through the engine, and back to a `Solution`."""

import math
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..solvers import lanes_of
from .adjoints import Adjoint, Checkpointed, Reversible, choose_adjoint, why_not_reversible
from .chunks import in_chunks, run_in_chunks
from .devices import devices_for, spread
from .engine import LaneRun, SaveTimes, run_lanes
from .members import Members
from .on_device import run_lanes_on_device
from .reducers import AbstractReducer, FinalEnergyDrift
from .reversible import reconstruction_error, run_lanes_reversibly, stops_of
from .solution import Solution
from .steppers import stepper_of

BLOCK_MEMBERS = 4096
"""Members that run together outside a trace: bounds the memory for weights of their own, and fills the vector units."""


class FixedOptions(NamedTuple):
    """What `simulate` was asked for: times and dt, what to keep, and the rules of the run."""

    t0: Any
    t1: Any
    dt: Any
    save_every: int | None
    ts: Any
    escape_norm: Any
    adjoint: Reversible | Checkpointed | None
    throw: bool


class _Job(NamedTuple):
    """What all blocks of members have in common. `scalars` are t0, dt (signed) and escape_norm."""

    solver: diffrax.AbstractSolver
    reducers: tuple[AbstractReducer, ...]
    scalars: tuple[Any, Any, Any]
    num_steps: Any
    save: SaveTimes | None
    adjoint: Adjoint
    single: bool
    devices: tuple[jax.Device, ...]


def run_fixed(
    members: Members, solver: diffrax.AbstractSolver, reducers: tuple[AbstractReducer, ...], options: FixedOptions
) -> Solution:
    """Run in blocks outside a trace, all at once and with a static length inside one.

    **Raises:** `JaxoscError` for traced times where states are to be kept, and as `choose_adjoint`.
    """
    t0, starts = options.t0, members.starts
    num_steps, dt = _steps(t0, options.t1, options.dt)
    save, kept_at = _save_times(t0, dt, num_steps, options.save_every, options.ts, starts.dtype)
    reducers = (FinalEnergyDrift(), *reducers)
    scalars = t0, dt, options.escape_norm
    traced = not is_concrete((members.field, starts, scalars))
    adjoint = choose_adjoint(
        options.adjoint,
        solver,
        reducers,
        traced=traced,
        num_steps=num_steps,
        states=members.count * starts.shape[-1],
        dtype=starts.dtype,
    )
    steps = num_steps if traced else jnp.asarray(num_steps, jnp.int32)
    single = options.throw and not members.batch_shape
    devices = () if traced else devices_for(starts, members.count)
    job = _Job(solver, reducers, scalars, steps, save, adjoint, single, devices)
    width = members.count if traced else min(BLOCK_MEMBERS * len(devices), members.count)
    blocks = [members.block(begin, width) for begin in range(0, members.count, width)]
    run = _joined([_run_block(job, *block) for block in blocks], members.count)
    stats = {
        "num_steps": run.num_steps,
        "dt": abs(dt),
        "solver": solver,
        "engine": "fixed",
        "adjoint": adjoint.sentence,
    }
    if isinstance(options.adjoint, Reversible) and not traced and not why_not_reversible(solver, reducers):
        run, error = _checked_way_back(job, members, run, width, options.adjoint)
        stats["reconstruction_error"] = error.reshape(members.batch_shape)
    stats["num_steps"] = run.num_steps.reshape(members.batch_shape)
    ended_at = jnp.asarray(t0 + num_steps * dt, starts.dtype)[None]
    return _solution(run, members.batch_shape, ended_at if kept_at is None else kept_at, stats)


def _solution(run: LaneRun, shape: tuple[int, ...], ts: Array, stats: dict[str, Any]) -> Solution:
    states = run.y[None] if run.saved is None else run.saved
    reduced = {name: value.reshape(shape) for name, value in run.reduced.items()}
    return Solution(
        ts=ts,
        ys=jnp.moveaxis(states, -1, 0).reshape(*shape, *states.shape[:-1]),
        result=run.result.reshape(shape),
        energy_drift=reduced.pop("energy_drift"),
        reduced=reduced,
        stats=stats,
    )


def _run_block(job: _Job, field: AbstractField, starts: Float[Array, "lanes n"]) -> LaneRun:
    if job.adjoint.kind == "reversible":
        return _run_with_way_back(job, field, starts)
    t0, dt, escape_norm = (jnp.asarray(value) for value in job.scalars)
    lanes = lanes_of(field)
    stepper_of(job.solver).require(lanes)
    options = dict(
        t0=t0,
        dt=dt,
        num_steps=job.num_steps,
        escape_norm=escape_norm,
        save=job.save,
        segments=job.adjoint.segments,
    )
    if isinstance(job.num_steps, int):
        return _run_compiled(lanes, starts.T, job.solver, job.reducers, **options)
    return _run_everywhere_compiled(lanes, starts.T, job.solver, job.reducers, job.devices, **options)


def _run_with_way_back(job: _Job, field: AbstractField, starts: Float[Array, "lanes n"]) -> LaneRun:
    """As `run_lanes`, differentiable in what is traced here: inside the jit everything would be.

    Asked of the field and not of its lanes, since within a trace even those of constants are traced.
    """
    lanes = lanes_of(field)
    weight, bias, leak = (not is_concrete(part) for part in (field.weight, field.bias, field.leak))
    known = dict(matrix=weight, energy_weights=weight, bias=bias, energy_shift=weight or bias, leak=leak)
    lanes_move = jax.tree_util.tree_map_with_path(
        lambda path, leaf: known.get(path[0].name, isinstance(leaf, jax.core.Tracer)), lanes
    )
    return _run_with_way_back_compiled(
        lanes,
        starts.T,
        job.solver,
        job.reducers,
        scalars=_arrays(job.scalars, starts.dtype),
        moving=(
            lanes_move,
            jax.tree.map(lambda leaf: isinstance(leaf, jax.core.Tracer), job.reducers),
            not is_concrete(starts),
            tuple(not is_concrete(value) for value in job.scalars),
        ),
        stops=stops_of(job.save, job.num_steps),
        save=job.save,
        tolerance=job.adjoint.tolerance,
        single=job.single,
    )


_run_compiled = eqx.filter_jit(run_lanes)


@eqx.filter_jit
def _run_everywhere_compiled(
    lanes: Any, y0: Any, solver: Any, reducers: Any, devices: tuple[jax.Device, ...], **options: Any
) -> LaneRun:
    # Within somebody's transformation (no devices) a kernel would have no derivative.
    run = run_lanes_on_device if devices else run_in_chunks
    return spread(lambda lanes, y0: run(lanes, y0, solver, reducers, **options), lanes, y0, devices)


@eqx.filter_jit
def _run_with_way_back_compiled(lanes: Any, y0: Any, solver: Any, reducers: Any, **options: Any) -> LaneRun:
    return in_chunks(lambda lanes, y0: run_lanes_reversibly(lanes, y0, solver, reducers, **options), lanes, y0)


_way_back_compiled = eqx.filter_jit(reconstruction_error)


def _checked_way_back(
    job: _Job, members: Members, run: LaneRun, width: int, adjoint: Reversible
) -> tuple[LaneRun, Float[Array, " members"]]:
    """Go back from the ends: how far from its start each member arrives, and the run with those marked that miss it."""
    errors = []
    for begin in range(0, members.count, width):
        field, starts = members.block(begin, width)
        picked = np.minimum(np.arange(begin, begin + width), members.count - 1)
        scalars = _arrays(job.scalars, starts.dtype)
        steps = run.num_steps[picked]
        lanes = lanes_of(field)
        errors.append(
            _way_back_compiled(lanes, starts.T, run.y[:, picked], job.solver, scalars=scalars, num_steps=steps)
        )
    error = jnp.concatenate(errors)[: members.count]
    lost = (run.result == Result.successful) & ~(error <= adjoint.tolerance_for(error.dtype))
    result = jnp.where(lost, Result.irreversible, run.result).astype(jnp.int8)
    return eqx.tree_at(lambda run: run.result, run, result), error


def _joined(runs: list[LaneRun], count: int) -> LaneRun:
    """One run of `count` lanes from those of the blocks, of which the last repeats a member."""
    if len(runs) == 1:
        return runs[0]
    joined: LaneRun = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1)[..., :count], *runs)
    return joined


def _arrays(scalars: tuple[Any, Any, Any], dtype: Any) -> tuple[Array, Array, Array]:
    t0, dt, escape_norm = (jnp.asarray(value, dtype) for value in scalars)
    return t0, dt, escape_norm


def _steps(t0: Any, t1: Any, dt: Any) -> tuple[Any, Any]:
    """The number of equal steps from t0 to t1 no longer than dt, and their signed size (that of dt if it divides)."""
    if not is_concrete((t0, t1, dt)):
        num_steps = jnp.ceil(jnp.abs(t1 - t0) / dt - 1e-6).astype(jnp.int32)
        return num_steps, (t1 - t0) / num_steps
    duration = float(t1) - float(t0)
    size = math.copysign(float(dt), duration)
    ratio = duration / size
    # float32 times carry an error of 1e-7 of themselves; one part in 10^6 of a step is taken for "divides".
    if abs(ratio - round(ratio)) < 1e-6 * max(ratio, 1):
        return max(round(ratio), 1), size
    return math.ceil(ratio), duration / math.ceil(ratio)


def _save_times(
    t0: Any, dt: Any, num_steps: Any, save_every: int | None, ts: Any, dtype: Any
) -> tuple[SaveTimes | None, Array | None]:
    """Which states the engine keeps, and the times (times,) they belong to; None, None for the final state alone."""
    if save_every is None and ts is None:
        return None, None
    if not is_concrete((t0, dt, ts)):
        raise JaxoscError(
            "Got traced times, expected concrete ones with save_every or ts, since they fix the shape of the result:"
            " pass t0, t1, dt and ts as plain numbers."
        )
    # Concrete also inside `jax.jit`, where a plain conversion would be traced: the way back looks at the steps.
    with jax.ensure_compile_time_eval():
        if save_every is not None:
            steps = np.arange(0, num_steps + 1, save_every)
            return SaveTimes(jnp.asarray(steps, jnp.int32)), jnp.asarray(t0 + steps * dt, dtype)
        wanted = np.atleast_1d(np.asarray(ts, np.float64))
        kept_at = jnp.asarray(wanted, dtype)
        position = np.clip((wanted - float(t0)) / float(dt), 0, num_steps)
        nearest = np.round(position)
        position = np.where(np.abs(position - nearest) < 1e-9 * max(num_steps, 1), nearest, position)
        if np.array_equal(position, np.round(position)):
            return SaveTimes(jnp.asarray(position, jnp.int32)), kept_at
        # The last step is the last one to interpolate over: t1 is its far end.
        steps = np.minimum(np.floor(position), num_steps - 1)
        return SaveTimes(jnp.asarray(steps, jnp.int32), jnp.asarray(position - steps, dtype)), kept_at
