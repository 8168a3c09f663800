"""Adaptive steps in every lane at once: each lane has a clock and a step size of its own, all share one program.

Under `jax.vmap` an adaptive solver runs every member as long as the slowest, in a layout that is slow for small
networks. Here lanes that are expected to need the same number of steps run together (chunks.py), and a lane that has
arrived costs nothing but its place. Methods say how a step is made and how long the next one may be
(adaptive_methods.py); this file holds the clock, what becomes of lanes that fail, and the states kept on the way.

Frozen by failure, a lane keeps its last good state. The loop ends with the last lane that moves, so it cannot be
differentiated backward.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .. import _choices
from .._cpu import loops_are_kernels
from .._elementary import sum_rows
from .._results import Result
from ..solvers import Lanes
from .adaptive_methods import AbstractMethod, Attempt, Setting
from .chunks import in_chunks
from .native_adaptive import native_adaptive_loop, travel_natively
from .reducers import relative_drift


class AdaptiveRun(eqx.Module):
    """What a run of lanes leaves behind, the lane axis last.

    **Attributes:** `y` (n, lanes) final states; `result` (lanes,) int8 codes of `Result`; `num_steps` (lanes,) int32
    steps tried; `turns` (lanes,) int32 steps for which the lane held its place, so that num_steps / turns tells how
    much of the lockstep was work; `energy_drift` (lanes,); `saved` (times, n, lanes) or None.
    """

    y: Float[Array, "n lanes"]
    result: Int[Array, " lanes"]
    num_steps: Int[Array, " lanes"]
    turns: Int[Array, " lanes"]
    energy_drift: Float[Array, " lanes"]
    saved: Float[Array, "times n lanes"] | None


class _Journey(eqx.Module):
    """What stays the same through the loop. `wanted`, ascending times since the start at which to keep states."""

    setting: Setting
    method: AbstractMethod
    escape_norm: Float[Array, ""]
    max_steps: Int[Array, ""]
    wanted: Float[Array, " times"] | None


class _Loop(eqx.Module):
    """What travels through the loop.

    `elapsed + lost` is the time since the start, in two parts since a sum of a million steps would lose digits.
    """

    x: Float[Array, "n lanes"]
    elapsed: Float[Array, " lanes"]
    lost: Float[Array, " lanes"]
    result: Int[Array, " lanes"]
    num_steps: Int[Array, " lanes"]
    turns: Int[Array, ""]
    memory: PyTree


class _Kept(eqx.Module):
    """The states kept so far: the first `count` (lanes,) times of `states`."""

    count: Int[Array, " lanes"]
    states: Float[Array, "times n lanes"]


def run_adaptive_lanes(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    method: AbstractMethod,
    *,
    t0: Any,
    t1: Any,
    rtol: Any,
    atol: Any,
    first_step: Any = None,
    escape_norm: Any,
    max_steps: Any,
    ts: Float[Array, " times"] | None = None,
    allow_native: bool = False,
) -> AdaptiveRun:
    """Run every lane from t0 to t1 with steps of its own size, those that are alike together.

    **Arguments:** `lanes`: the networks; `y0` (n, lanes) their starts; `method`, as `method_of`; `t0`, `t1`, `rtol`,
    `atol`, `escape_norm`, `max_steps`: scalars, may be traced; `first_step`: of that size, None lets the method choose;
    `ts`: (times,) when to keep states, in the order of the run; `allow_native`: in C where that can be, which has no
    derivative.

    **Returns:** an `AdaptiveRun`. Call it inside a `jax.jit` of your own.
    """
    dtype = y0.dtype
    begin, end, rtol, atol, escape_norm = (jnp.asarray(value, dtype) for value in (t0, t1, rtol, atol, escape_norm))
    direction = jnp.sign(end - begin)
    wanted = None if ts is None else (ts.astype(dtype) - begin) * direction

    in_c = native_adaptive_loop(lanes, dtype, method) if allow_native else None
    if in_c is not None:
        setting = Setting(lanes, direction, jnp.abs(end - begin), rtol, atol)
        x, result, num_steps, turns, states = travel_natively(in_c, setting, y0, escape_norm, max_steps, wanted)
        drift = relative_drift(lanes.energy(x), lanes.energy(y0))
        return AdaptiveRun(x, result, num_steps, turns, drift, None if ts is None else states)

    def run(lanes: Lanes, y0: Array) -> AdaptiveRun:
        setting = Setting(lanes.prepared(), direction, jnp.abs(end - begin), rtol, atol)
        journey = _Journey(setting, method, escape_norm, jnp.asarray(max_steps, jnp.int32), wanted)
        return _travel(journey, y0, first_step)

    order = jnp.argsort(method.expected_cost(lanes, y0))
    return in_chunks(run, lanes, y0, width=chunk_width(lanes.size), order=order)


def chunk_width(n: int) -> int:
    """How many lanes of n neurons run together."""
    if jax.default_backend() != "cpu":
        return _choices.ACCELERATOR_LANES
    few = n <= _choices.FEW_NEURONS and not loops_are_kernels()
    return _choices.CHUNK_LANES_OF_FEW if few else _choices.CHUNK_LANES


def _travel(journey: _Journey, y0: Array, first_step: Any) -> AdaptiveRun:
    count = y0.shape[-1]
    zeros, nothing = jnp.zeros(count, y0.dtype), jnp.zeros(count, jnp.int32)
    memory = journey.method.init(journey.setting, y0, first_step)
    loop = _Loop(y0, zeros, zeros, nothing.astype(jnp.int8), nothing, jnp.zeros((), jnp.int32), memory)

    def unfinished(loop: _Loop) -> Array:
        return jnp.any(_moving(journey, loop))

    saved = None
    if journey.wanted is None:
        loop = jax.lax.while_loop(unfinished, lambda loop: _step(journey, loop), loop)
    else:
        kept = _Kept(nothing, jnp.zeros((journey.wanted.size, *y0.shape), y0.dtype))
        loop, kept = jax.lax.while_loop(
            lambda carry: unfinished(carry[0]), lambda carry: _stage(journey, *carry), (loop, kept)
        )
        # What a lane did not live to see is where it stopped.
        seen = jnp.arange(journey.wanted.size)[:, None] < kept.count[None, :]
        saved = jnp.where(seen[:, None, :], kept.states, loop.x[None])
    lanes = journey.setting.lanes
    drift = relative_drift(lanes.energy(loop.x), lanes.energy(y0))
    turns = jnp.broadcast_to(loop.turns, (count,))
    return AdaptiveRun(loop.x, loop.result, loop.num_steps, turns, drift, saved)


def _moving(journey: _Journey, loop: _Loop) -> Bool[Array, " lanes"]:
    return (loop.result == Result.successful) & (loop.elapsed < journey.setting.duration)


def _step(journey: _Journey, loop: _Loop) -> _Loop:
    """One step in each lane that moves, as far as it is accepted."""
    moving = _moving(journey, loop)
    tried, left = _attempt(journey, loop)
    accepted = moving & tried.accepted
    arrives = tried.size >= left
    elapsed, lost = _sum_in_two_parts(loop.elapsed, loop.lost + tried.size)
    elapsed, lost = jnp.where(arrives, journey.setting.duration, elapsed), jnp.where(arrives, 0, lost)
    why = _failure(journey, loop, tried, elapsed, lost)
    going_on = accepted & (why == Result.successful)
    num_steps = loop.num_steps + moving
    late = (num_steps >= journey.max_steps) & ~(going_on & arrives) & (why == Result.successful)
    result = jnp.where(moving, jnp.where(late, Result.max_steps_reached, why), loop.result).astype(jnp.int8)
    return _Loop(
        x=jnp.where(going_on, tried.x, loop.x),
        elapsed=jnp.where(going_on, elapsed, loop.elapsed),
        lost=jnp.where(going_on, lost, loop.lost),
        result=result,
        num_steps=num_steps,
        turns=loop.turns + 1,
        memory=journey.method.remembered(loop.memory, tried, moving, going_on),
    )


def _attempt(journey: _Journey, loop: _Loop) -> tuple[Attempt, Array]:
    """The next step, and the time (lanes,) that is left before it."""
    left = (journey.setting.duration - loop.elapsed) - loop.lost
    return journey.method.attempt(journey.setting, loop.x, loop.memory, left), left


def _failure(journey: _Journey, loop: _Loop, tried: Attempt, elapsed: Array, lost: Array) -> Array:
    """Why a lane cannot go on, `successful` where it can."""
    size = sum_rows(tried.x * tried.x)
    # A step that was rejected may well be no number; one without a size leads nowhere.
    broken = ~jnp.isfinite(tried.size + jnp.where(tried.accepted, size, 0)) & ~(tried.size == jnp.inf)
    stuck = (elapsed == loop.elapsed) & (lost == loop.lost)
    why = jnp.where(stuck, Result.solver_failed, Result.successful)
    why = jnp.where(tried.accepted & (size > journey.escape_norm**2), Result.escaped, why)
    return jnp.where(broken, Result.non_finite, why)


def _sum_in_two_parts(large: Array, small: Array) -> tuple[Array, Array]:
    """large + small rounded, and what rounding lost; |large| >= |small| or nearly (Dekker 1971)."""
    total = large + small
    return total, small - (total - large)


def _stage(journey: _Journey, loop: _Loop, kept: _Kept) -> tuple[_Loop, _Kept]:
    """Steps until one passes a wanted time in any lane, and the states at all that it passed.

    That step is made once more, for its dense output: carried along from step to step, or with a look at the wanted
    times within the loop of steps, it would make every step three times as dear.
    """
    _, due = _due(journey, kept)

    def goes_on(carry: tuple[_Loop, _Loop]) -> Array:
        _, now = carry
        return jnp.any(_moving(journey, now)) & ~jnp.any(due(now, kept.count))

    before, now = jax.lax.while_loop(
        goes_on, lambda carry: (carry[1], _step(journey, carry[1])), (loop, _step(journey, loop))
    )
    return now, _keep(journey, before, now, kept)


def _due(journey: _Journey, kept: _Kept) -> tuple[Array, Callable[[_Loop, Array], Array]]:
    """The wanted times, and a function that says which lanes have passed theirs, given how many each has kept."""
    wanted = journey.wanted
    assert wanted is not None
    last = wanted.size - 1

    def due(now: _Loop, count: Array) -> Bool[Array, " lanes"]:
        return (count <= last) & (wanted[jnp.minimum(count, last)] <= now.elapsed)

    return wanted, due


def _keep(journey: _Journey, before: _Loop, now: _Loop, kept: _Kept) -> _Kept:
    """What is kept after the step from `before` to `now`, one wanted time a lane in each turn."""
    wanted, due = _due(journey, kept)
    tried, _ = _attempt(journey, before)
    lane = jnp.arange(now.x.shape[-1])

    def keep(kept: _Kept) -> _Kept:
        here, place = due(now, kept.count), jnp.minimum(kept.count, wanted.size - 1)
        since = (wanted[place] - before.elapsed) - before.lost
        states = journey.method.between(journey.setting, before.x, tried, jnp.clip(since, 0, tried.size))
        states = jnp.where(here[None, :], states, kept.states[place, :, lane].T)
        return _Kept(kept.count + here, kept.states.at[place, :, lane].set(states.T))

    return jax.lax.while_loop(lambda kept: jnp.any(due(now, kept.count)), keep, kept)
