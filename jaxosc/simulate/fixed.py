"""Fixed steps: from members to blocks of lanes, through the engine, and back to a `Solution`."""

import math
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import is_concrete
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..solvers import lanes_of
from ..solvers.facts import Facts
from .adjoints import Adjoint, Checkpointed, Reversible, choose_adjoint, why_not_reversible
from .checked_facts import checked_facts, constant
from .chunks import in_chunks, run_in_chunks
from .devices import devices_for, spread
from .engine import LaneRun, SaveTimes, run_lanes
from .members import Members
from .on_device import load_kernels, run_lanes_on_device
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


class _Found(eqx.Module):
    """The parts of a `Solution` in their final shapes."""

    ts: Float[Array, " times"]
    ys: Float[Array, "*batch times n"]
    result: Int[Array, "*batch"]
    num_steps: Int[Array, "*batch"]
    reduced: dict[str, Array]


def run_fixed(
    members: Members, solver: diffrax.AbstractSolver, reducers: tuple[AbstractReducer, ...], options: FixedOptions
) -> Solution:
    """Run in blocks outside a trace, all at once and with a static length inside one.

    Outside, what fits one block is one program: pairing, lanes, time loop and all parts of the solution.

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
    single = options.throw and not members.batch_shape
    job = _Job(solver, reducers, scalars, num_steps, save, adjoint, single)
    stats: dict[str, Any] = {}
    if kept_at is None:
        kept_at = constant([t0 + num_steps * dt], starts.dtype)
    if traced:
        found = _found(_run_traced(job, *members.whole()), kept_at, members.batch_shape)
    else:
        asked = options.adjoint if isinstance(options.adjoint, Reversible) else None
        back = None if asked is None or why_not_reversible(solver, reducers) else asked
        found, error = _run_concrete(job, members, kept_at, back)
        stats = {} if error is None else {"reconstruction_error": error}
    reduced = dict(found.reduced)
    return Solution(
        ts=found.ts,
        ys=found.ys,
        result=found.result,
        energy_drift=reduced.pop("energy_drift"),
        reduced=reduced,
        stats={
            "num_steps": found.num_steps,
            "dt": abs(dt),
            "solver": solver,
            "engine": "fixed",
            "adjoint": adjoint.sentence,
            **stats,
        },
    )


def _run_concrete(
    job: _Job, members: Members, kept_at: Any, adjoint: Reversible | None
) -> tuple[_Found, Float[Array, "*batch"] | None]:
    """In one program if one block holds all, else in blocks. With `adjoint` also how far from the starts a run back
    from the ends arrives; members that miss theirs are marked.
    """
    load_kernels()
    stepper, dtype = stepper_of(job.solver), members.starts.dtype
    devices = devices_for((members.field, members.starts), members.count)
    width = BLOCK_MEMBERS * len(devices)
    # NumPy's: each conversion by JAX would take as long as several steps.
    t0, dt, escape_norm = (np.asarray(value, dtype) for value in job.scalars)
    options = dict(
        t0=t0, dt=dt, num_steps=np.asarray(job.num_steps, np.int32), escape_norm=escape_norm, save=job.save, segments=0
    )
    if members.count <= width and adjoint is None:
        facts = checked_facts(members.field, stepper)
        return _run_all_compiled(members, kept_at, job.solver, job.reducers, devices, facts, **options), None
    width = min(width, members.count)
    runs, errors = [], []
    for begin in range(0, members.count, width):
        field, starts = _block_compiled(members, np.asarray(begin, np.int32), width)
        facts = checked_facts(field, stepper)
        run = _run_block_compiled(field, starts, job.solver, job.reducers, devices, facts, **options)
        if adjoint is not None:
            tolerance = adjoint.tolerance_for(dtype)
            run, error = _way_back_compiled(
                field, starts, run, job.solver, facts, scalars=(t0, dt, escape_norm), tolerance=tolerance
            )
            errors.append(error)
        runs.append(run)
    return _joined_compiled(runs, errors, kept_at, members.batch_shape)


def _run_traced(job: _Job, field: AbstractField, starts: Float[Array, "lanes n"]) -> LaneRun:
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
    # Within somebody's transformation a kernel would have no derivative.
    return _run_in_chunks_compiled(lanes, starts.T, job.solver, job.reducers, **options)


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
_run_in_chunks_compiled = eqx.filter_jit(run_in_chunks)


@eqx.filter_jit
def _run_all_compiled(
    members: Members,
    kept_at: Any,
    solver: Any,
    reducers: Any,
    devices: tuple[jax.Device, ...],
    facts: Facts,
    **options: Any,
) -> _Found:
    run = _run_block(*members.whole(), solver, reducers, devices, facts, **options)
    return _found(run, kept_at, members.batch_shape)


def _run_block(
    field: AbstractField,
    starts: Float[Array, "lanes n"],
    solver: Any,
    reducers: Any,
    devices: tuple[jax.Device, ...],
    facts: Facts,
    **options: Any,
) -> LaneRun:
    lanes = lanes_of(field, facts)
    stepper_of(solver).require(lanes)
    return spread(
        lambda lanes, y0: run_lanes_on_device(lanes, y0, solver, reducers, **options), lanes, starts.T, devices
    )


# A program for any number of blocks: those that cut and join them are small, and are compiled for each number.
_run_block_compiled = eqx.filter_jit(_run_block)


@eqx.filter_jit
def _block_compiled(members: Members, begin: Any, width: int) -> tuple[AbstractField, Float[Array, "width n"]]:
    return members.block(begin, width)


@eqx.filter_jit
def _joined_compiled(
    runs: list[LaneRun], errors: list[Array], kept_at: Any, shape: tuple[int, ...]
) -> tuple[_Found, Float[Array, "*batch"] | None]:
    """One run of all members from those of the blocks, of which the last repeats a member."""

    def joined(*parts: Array) -> Array:
        return jnp.concatenate(parts, axis=-1)[..., : math.prod(shape)]

    error = joined(*errors).reshape(shape) if errors else None
    return _found(jax.tree.map(joined, *runs), kept_at, shape), error


def _found(run: LaneRun, kept_at: Any, shape: tuple[int, ...]) -> _Found:
    states = run.y[None] if run.saved is None else run.saved
    return _Found(
        ts=kept_at if isinstance(kept_at, jax.Array) else jnp.asarray(kept_at),
        ys=jnp.moveaxis(states, -1, 0).reshape(*shape, *states.shape[:-1]),
        result=run.result.reshape(shape),
        num_steps=run.num_steps.reshape(shape),
        reduced={name: value.reshape(shape) for name, value in run.reduced.items()},
    )


@eqx.filter_jit
def _run_with_way_back_compiled(lanes: Any, y0: Any, solver: Any, reducers: Any, **options: Any) -> LaneRun:
    return in_chunks(lambda lanes, y0: run_lanes_reversibly(lanes, y0, solver, reducers, **options), lanes, y0)


@eqx.filter_jit
def _way_back_compiled(
    field: AbstractField,
    starts: Float[Array, "lanes n"],
    run: LaneRun,
    solver: Any,
    facts: Facts,
    *,
    scalars: tuple[Any, Any, Any],
    tolerance: float,
) -> tuple[LaneRun, Float[Array, " lanes"]]:
    """Go back from the ends: how far from its start each lane arrives, and the run with those marked that miss it."""
    lanes = lanes_of(field, facts)
    error = reconstruction_error(lanes, starts.T, run.y, solver, scalars=scalars, num_steps=run.num_steps)
    lost = (run.result == Result.successful) & ~(error <= tolerance)
    result = jnp.where(lost, Result.irreversible, run.result).astype(jnp.int8)
    return eqx.tree_at(lambda run: run.result, run, result), error


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
