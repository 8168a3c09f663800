"""`simulate`: one call for one network or a million, with fixed or adaptive steps."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField, require_size
from ..solvers import PoissonSplitting, lanes_of
from .adaptive import AdaptiveOptions, run_adaptive
from .engine import DEFAULT_ESCAPE_NORM, SaveTimes, run_lanes
from .members import Members, pair_members
from .reducers import AbstractReducer, FinalEnergyDrift
from .solution import Solution
from .steppers import stepper_of

BLOCK_MEMBERS = 4096
"""Members that run together outside a trace: bounds the memory for weights of their own, and fills the vector units."""


def simulate(
    field: AbstractField,
    y0: Any,
    *,
    t1: Any,
    dt: Any = None,
    t0: Any = 0.0,
    solver: Any = None,
    save_every: int | None = None,
    ts: Any = None,
    reducers: tuple[AbstractReducer, ...] = (),
    throw: bool = True,
    pairing: str = "zip",
    rtol: float | None = None,
    atol: float | None = None,
    escape_norm: float = DEFAULT_ESCAPE_NORM,
    max_steps: int = 1_000_000,
) -> Solution:
    """Integrate one network, or any batch of networks and starts, from t0 to t1.

    Fixed steps (the default) run in the package's own engine; give `rtol` and `atol` for adaptive ones by Diffrax.
    Without `save_every` and `ts` only the final state is kept, and memory does not grow with the number of steps.
    Called with concrete arrays it compiles once for all step sizes, durations, gains and weights of one shape; called
    inside `jax.jit`, `jax.grad` or `jax.vmap` with concrete times it is differentiable forward and backward.

    **Arguments:**

    - `field`: `jo.CurrentRNN` or `jo.RateRNN`, with or without leading batch axes.
    - `y0`: (n,) or (..., n) starts; the dtype is the wider one of `y0` and the weights.
    - `t1`, `t0`: end and begin, in the field's units of time.
    - `dt`: step size. If it does not divide t1 - t0, the next smaller size that does is taken, see `stats["dt"]`. With
      adaptive steps: the first step, None lets the controller choose.
    - `solver`: `jo.solvers.PoissonSplitting(2)` if None; `jo.ForwardEuler()` or any Diffrax solver.
    - `save_every`: keep the start and every so many-th step.
    - `ts`: (times,) ascending times in [t0, t1] at which to keep states; between steps by cubic Hermite interpolation.
    - `reducers`: measures taken inside the loop, such as `jo.Norms()` and `jo.Crossings()`; fixed steps only.
    - `throw`: raise if a single run fails. A batch never raises: look at `result`.
    - `pairing`: "zip" broadcasts the batch axes of field and start; "product" runs every network from every start.
    - `rtol`, `atol`: tolerances of adaptive steps (one given: the other takes the same value).
    - `escape_norm`: a member whose norm exceeds it is frozen and marked `escaped`.
    - `max_steps`: most adaptive steps per member.

    **Returns:** a `Solution`, `ys` (..., times, n).

    **Raises:** `JaxoscError` for wrong shapes, NaN, dt <= 0, t1 <= t0, times outside the run, and options that exclude
    each other; with `throw` also for a single run that failed.
    """
    solver = PoissonSplitting(2) if solver is None else solver
    stepper_of(solver)  # tells what is no solver before anything is compiled
    adaptive = rtol is not None or atol is not None
    y0 = _checked_start(field, y0)
    _check_times(t0, t1, dt, adaptive, escape_norm)
    _check_saving(save_every, ts, t0, t1, reducers, adaptive)
    members = pair_members(field, y0, pairing)
    if adaptive:
        options = AdaptiveOptions(*_tolerances(rtol, atol), dt, max_steps)
        solution = _adaptive(members, solver, options, t0, t1, ts)
    else:
        solution = _fixed(members, solver, reducers, (t0, t1, dt), (save_every, ts), escape_norm)
    if throw and not solution.result.shape and is_concrete(solution.result):
        result = Result(int(solution.result))
        if result is not Result.successful:
            raise JaxoscError(f"The run ended as {result.name}: {result.advice} (throw=False returns it as it is.)")
    return solution


def _fixed(
    members: Members,
    solver: diffrax.AbstractSolver,
    reducers: tuple[AbstractReducer, ...],
    times: tuple[Any, Any, Any],
    saving: tuple[int | None, Any],
    escape_norm: Any,
) -> Solution:
    """Fixed steps in the engine: in blocks outside a trace, all at once and with a static length inside one."""
    t0 = times[0]
    num_steps, dt = _steps(*times)
    save, kept_at = _save_times(t0, dt, num_steps, *saving, members.starts.dtype)
    reducers = (FinalEnergyDrift(), *reducers)
    traced = not is_concrete((members.field, members.starts, t0, dt, escape_norm))
    scalars = dict(t0=jnp.asarray(t0), dt=jnp.asarray(dt), escape_norm=jnp.asarray(escape_norm))
    width = members.count if traced else min(BLOCK_MEMBERS, members.count)
    steps = num_steps if traced else jnp.asarray(num_steps, jnp.int32)
    runs = []
    for begin in range(0, members.count, width):
        block, starts = members.block(begin, width)
        lanes = lanes_of(block)
        runs.append(_run_compiled(lanes, starts.T, solver, reducers, num_steps=steps, save=save, **scalars))
    run = runs[0]
    if len(runs) > 1:
        run = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1)[..., : members.count], *runs)
    states = run.y[None] if run.saved is None else run.saved
    ended_at = jnp.asarray(t0 + num_steps * dt, states.dtype)[None]
    shape = members.batch_shape
    reduced = {name: value.reshape(shape) for name, value in run.reduced.items()}
    return Solution(
        ts=ended_at if kept_at is None else kept_at,
        ys=jnp.moveaxis(states, -1, 0).reshape(*shape, *states.shape[:-1]),
        result=run.result.reshape(shape),
        energy_drift=reduced.pop("energy_drift"),
        reduced=reduced,
        stats={"num_steps": run.num_steps.reshape(shape), "dt": dt, "solver": solver, "engine": "fixed"},
    )


_run_compiled = eqx.filter_jit(run_lanes)


def _adaptive(
    members: Members, solver: diffrax.AbstractSolver, options: AdaptiveOptions, t0: Any, t1: Any, ts: Any
) -> Solution:
    """Adaptive steps by Diffrax, all members in one call."""
    field, starts = members.block(0, members.count)
    dtype = starts.dtype
    kept_at = jnp.asarray([t1] if ts is None else ts, dtype)
    times = jnp.asarray(t0, dtype), jnp.asarray(t1, dtype)
    states, result, num_steps, drift = run_adaptive(field, starts, solver, options, *times, kept_at)
    shape = members.batch_shape
    return Solution(
        ts=kept_at,
        ys=states.reshape(*shape, *states.shape[1:]),
        result=result.reshape(shape),
        energy_drift=drift.reshape(shape),
        reduced={},
        stats={"num_steps": num_steps.reshape(shape), "dt": options.dt, "solver": solver, "engine": "adaptive"},
    )


def _steps(t0: Any, t1: Any, dt: Any) -> tuple[Any, Any]:
    """The number of equal steps from t0 to t1 that are no longer than dt, and their size (dt itself if it divides)."""
    if not is_concrete((t0, t1, dt)):
        num_steps = jnp.ceil((t1 - t0) / dt - 1e-6).astype(jnp.int32)
        return num_steps, (t1 - t0) / num_steps
    duration, size = float(t1) - float(t0), float(dt)
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
    if save_every is not None:
        steps = np.arange(0, num_steps + 1, save_every)
        return SaveTimes(jnp.asarray(steps, jnp.int32)), jnp.asarray(t0 + steps * dt, dtype)
    wanted = np.atleast_1d(np.asarray(ts, np.float64))
    position = np.clip((wanted - float(t0)) / float(dt), 0, num_steps)
    nearest = np.round(position)
    position = np.where(np.abs(position - nearest) < 1e-9 * max(num_steps, 1), nearest, position)
    if np.array_equal(position, np.round(position)):
        return SaveTimes(jnp.asarray(position, jnp.int32)), jnp.asarray(wanted, dtype)
    # The last step is the last one to interpolate over: t1 is its far end.
    steps = np.minimum(np.floor(position), num_steps - 1)
    return SaveTimes(jnp.asarray(steps, jnp.int32), jnp.asarray(position - steps, dtype)), jnp.asarray(wanted, dtype)


def _checked_start(field: AbstractField, y0: Any) -> Array:
    """`y0` as an array of the common dtype."""
    if not isinstance(field, AbstractField):
        raise JaxoscError(f"Got the field {field!r}, expected a jo.CurrentRNN or jo.RateRNN: build one from a weight.")
    y0 = jnp.asarray(y0)
    y0 = y0.astype(jnp.result_type(y0, field.dtype))
    require_size(field, y0)
    require_finite("y0", y0)
    if 0 in y0.shape:
        raise JaxoscError(f"Got y0 of shape {y0.shape}, expected at least one start: drop the empty axis.")
    return y0


def _check_times(t0: Any, t1: Any, dt: Any, adaptive: bool, escape_norm: Any) -> None:
    require_positive("escape_norm", escape_norm)
    require_finite("t0", t0)
    require_finite("t1", t1)
    if dt is None and not adaptive:
        raise JaxoscError("Got no dt, expected a step size: pass dt=..., or rtol=... for adaptive steps.")
    if dt is not None:
        require_positive("dt", dt)
    if is_concrete((t0, t1)) and not t1 > t0:
        raise JaxoscError(f"Got t0 = {t0} and t1 = {t1}, expected t1 > t0: the run needs a positive duration.")


def _check_saving(save_every: Any, ts: Any, t0: Any, t1: Any, reducers: Any, adaptive: bool) -> None:
    if save_every is not None and ts is not None:
        raise JaxoscError("Got both save_every and ts, expected one of them: drop one.")
    if save_every is not None and save_every < 1:
        raise JaxoscError(f"Got save_every = {save_every}, expected a whole number >= 1.")
    if adaptive and save_every is not None:
        raise JaxoscError("Got save_every with adaptive steps, expected times of your own: pass ts=jnp.linspace(...).")
    if adaptive and reducers:
        raise JaxoscError("Got reducers with adaptive steps, expected fixed ones: drop rtol and atol, or the reducers.")
    if ts is None or not is_concrete((ts, t0, t1)):
        return
    wanted = np.atleast_1d(np.asarray(ts, np.float64))
    slack = 1e-6 * (float(t1) - float(t0))
    if wanted.ndim != 1 or not wanted.size or not np.isfinite(wanted).all() or (np.diff(wanted) < 0).any():
        raise JaxoscError(f"Got ts of shape {wanted.shape}, expected finite ascending times (times,): sort them.")
    if wanted[0] < float(t0) - slack or wanted[-1] > float(t1) + slack:
        raise JaxoscError(
            f"Got times from {wanted[0]:g} to {wanted[-1]:g}, expected them within the run, {float(t0):g} to"
            f" {float(t1):g}: change ts or t1."
        )


def _tolerances(rtol: float | None, atol: float | None) -> tuple[Any, Any]:
    given = {"rtol": atol if rtol is None else rtol, "atol": rtol if atol is None else atol}
    for name, value in given.items():
        require_positive(name, value)
    return given["rtol"], given["atol"]
