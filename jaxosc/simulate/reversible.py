"""Gradients by running back: a derivative rule for the whole time loop that stores its end and nothing else.

Backward in time the loop finds x_k from x_{k+1} by a step of -dt, and pulls the cotangent of x_{k+1} through the step
from x_k. What the loss saw on the way comes in at its step: the cotangents of saved states, and the shares of the
reducers, each of which says for a step which value has to be differentiated with which weight (`credit`).

Frozen lanes stay frozen on the way back: the forward run says how many steps each lane took.
Source for reversible adjoints: Maclaurin, Duvenaud and Adams, ICML 2015; Zhuang et al., ICLR 2021 (ALF).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._results import Result
from ..solvers import Lanes
from ..solvers.splitting_adjoint import SplittingWayBack
from .engine import LaneRun, Loop, Run, SaveTimes, between_steps, march
from .reducers import SAMPLE_EVERY, AbstractReducer
from .steppers import stepper_of


class Stops(eqx.Module):
    """After how many steps states are kept for the loss, each number once and ascending, and where the run ends.

    `at` and `after` say which of the kept states belong to the times of a `SaveTimes` and, with fractions, which to the
    ends of the steps that are interpolated over.
    """

    num_steps: Int[Array, ""]
    kept: Int[Array, " kept"]
    at: Int[Array, " times"] | None = None
    after: Int[Array, " times"] | None = None


def stops_of(save: SaveTimes | None, num_steps: int) -> Stops:
    """The stops of a run; the step numbers must be concrete."""
    if save is None:
        return Stops(jnp.asarray(num_steps, jnp.int32), jnp.zeros(0, jnp.int32))
    steps = np.asarray(save.steps)
    later = steps if save.fractions is None else steps + 1
    kept = np.unique(np.concatenate([steps, later])).astype(np.int32)
    at, after = (jnp.asarray(np.searchsorted(kept, wanted), jnp.int32) for wanted in (steps, later))
    return Stops(jnp.asarray(num_steps, jnp.int32), jnp.asarray(kept), at, after)


class _Rules(eqx.Module):
    """How well the start must be met, and whether a single run that misses it raises."""

    tolerance: float = eqx.field(static=True)
    single: bool = eqx.field(static=True)


def run_lanes_reversibly(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    scalars: tuple[Array, Array, Array],
    moving: PyTree,
    stops: Stops,
    save: SaveTimes | None,
    tolerance: float,
    single: bool,
) -> LaneRun:
    """As `run_lanes`, with the reversible derivative rule.

    **Arguments:** those of `run_lanes` and: `stops`, see `stops_of`; `scalars`, (t0, dt, escape_norm); `moving`, for
    each leaf of (lanes, reducers, y0, scalars) whether it is differentiated: constants get no cotangent, as
    accumulating the one of a weight would cost as much as a step; `tolerance`, see `Reversible`; `single`, whether a
    start that is missed raises.
    """
    run = Run(lanes, stepper_of(solver), reducers, *scalars)
    moving_lanes, moving_reducers, moving_start, moving_scalars = moving
    moving_run = eqx.tree_at(
        lambda run: (run.lanes, run.reducers, run.t0, run.dt, run.escape_norm),
        jax.tree.map(lambda _: False, run),
        (moving_lanes, moving_reducers, *moving_scalars),
    )
    end, kept = _differentiable(run, y0, (moving_run, moving_start), stops, _Rules(tolerance, single))
    if save is None:
        return run.finish(end, None)
    states = kept[stops.at]
    if save.fractions is not None:
        states = between_steps(run, save, states, kept[stops.after], end.num_steps)
    return run.finish(end, states)


def _differentiable(run: Run, x0: Array, chosen: PyTree, stops: Stops, rules: _Rules) -> tuple[Loop, Array]:
    """The loop at the end of the run and the states (kept, n, lanes) at the stops, with the derivative rule."""
    wanted = jax.tree.map(lambda leaf, moves: moves and _is_float(leaf), (run, x0), chosen)
    moving, resting = eqx.partition((run, x0), wanted)
    arrays, static = eqx.partition(resting, eqx.is_array)

    @jax.custom_vjp
    def core(moving: PyTree, arrays: PyTree, stops: Stops) -> tuple[Loop, Array]:
        run, x0 = eqx.combine(moving, arrays, static)
        return _forward(run, x0, stops)

    def forward(moving: PyTree, arrays: PyTree, stops: Stops) -> tuple[Any, Any]:
        end, kept = core(moving, arrays, stops)
        return (end, kept), (moving, arrays, stops, end)

    def backward(residuals: Any, cotangents: Any) -> tuple[PyTree, None, None]:
        moving, arrays, stops, end = residuals
        return _backward(moving, eqx.combine(arrays, static), stops, end, cotangents, rules), None, None

    core.defvjp(forward, backward)
    return core(moving, arrays, stops)


def reconstruction_error(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    end: Float[Array, "n lanes"],
    solver: Any,
    *,
    scalars: tuple[Array, Array, Array],
    num_steps: Int[Array, " lanes"],
) -> Float[Array, " lanes"]:
    """How far from `y0` a run back from `end` arrives, in every lane and relative to the size of `y0`.

    **Arguments:** `num_steps`, what each lane took; the others as `run_lanes_reversibly`.
    """
    run, most = Run(lanes, stepper_of(solver), (), *scalars), jnp.max(num_steps)

    def body(back: Any, carry: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        step = most - 1 - back
        return _before(run, step, *carry, step < num_steps)

    memory = run.stepper.init(run.lanes, run.time(most), -run.dt, end)
    found, _ = jax.lax.fori_loop(0, most, body, (end, memory))
    return _distance(found, y0, end)


def _forward(run: Run, x0: Array, stops: Stops) -> tuple[Loop, Array]:
    loop = run.start(x0)
    if not stops.kept.size:
        return march(run, loop, stops.num_steps), jnp.zeros((0, *x0.shape), x0.dtype)

    def to_next(loop: Loop, step: Array) -> tuple[Loop, Array]:
        loop = march(run, loop, step)
        return loop, loop.x

    loop, kept = jax.lax.scan(to_next, loop, jnp.append(stops.kept, stops.num_steps))
    return loop, kept[:-1]


def _backward(
    moving: PyTree, resting: PyTree, stops: Stops, end: Loop, cotangents: tuple[Loop, Array], rules: _Rules
) -> PyTree:
    """The cotangent of (run, x0), NaN where the backward run missed the start."""
    end_cotangent, kept_cotangent = cotangents
    run, x0 = eqx.combine(moving, resting)
    (moving_run, moving_start), (resting_run, _) = moving, resting
    notes = tuple(
        reducer.rewind(state, cotangent)
        for reducer, state, cotangent in zip(run.reducers, end.states, end_cotangent.states, strict=True)
    )

    seen = _Seen(end, stops, kept_cotangent)
    cotangent = _Cotangent(end_cotangent.x, jnp.asarray(stops.kept.size - 1, jnp.int32))
    way = _own_way(run, moving_run)
    if way is None:
        found, cotangent, gradient, notes = _back_by_jax(run, (moving_run, resting_run), seen, cotangent, notes)
    else:
        found, cotangent, gradient = _back_by_rule(run, moving_run, way, seen, cotangent)
    adjoint = seen.joined(cotangent, 0).state

    def at_start(moving_run: PyTree, x: Array) -> Array:
        run = eqx.combine(moving_run, resting_run)
        shares = [r.credit_start(note, run.lanes, x) for r, note in zip(run.reducers, notes, strict=True)]
        return sum(shares, jnp.zeros_like(x[0]))

    _, pull = jax.vjp(at_start, moving_run, x0)
    pulled, share = pull(jnp.ones_like(x0[0]))
    gradient = jax.tree.map(jnp.add, gradient, pulled)
    return _refused(gradient, adjoint + share, _distance(found, x0, end.x), moving_start is not None, rules)


class _Cotangent(eqx.Module):
    """The cotangent of the states on the way back, and the number of the next stop to come (-1: none)."""

    state: Float[Array, "n lanes"]
    waiting: Int[Array, ""]


class _Seen(eqx.Module):
    """What the forward run left, and the cotangents (kept, n, lanes) of the states that the loss saw."""

    end: Loop
    stops: Stops
    kept: Float[Array, "kept n lanes"]

    def joined(self, cotangent: _Cotangent, step: Any) -> _Cotangent:
        """What the loss saw of the states after `step` steps joins their cotangent."""
        if not self.stops.kept.size:
            return cotangent
        waiting = cotangent.waiting
        due = (waiting >= 0) & (self.stops.kept[waiting] == step)
        return _Cotangent(cotangent.state + jnp.where(due, self.kept[waiting], 0), waiting - due)

    def next_stop(self, cotangent: _Cotangent) -> Array:
        """After how many steps the next stop comes, 0 if there is none before the start."""
        if not self.stops.kept.size:
            return jnp.zeros_like(self.stops.num_steps)
        return jnp.where(cotangent.waiting >= 0, self.stops.kept[cotangent.waiting], 0)


def _own_way(run: Run, moving_run: PyTree) -> SplittingWayBack | None:
    """The stepper's own rule, where nobody differentiates what it does not know: times and the eyes of reducers."""
    watching = any(type(reducer).credit is not AbstractReducer.credit for reducer in run.reducers)
    if watching or moving_run.t0 is not None or moving_run.dt is not None:
        return None
    return run.stepper.way_back(run.lanes, moving_run.lanes)


def _back_by_jax(
    run: Run, parts: tuple[PyTree, PyTree], seen: _Seen, cotangent: _Cotangent, notes: Any
) -> tuple[Array, _Cotangent, PyTree, Any]:
    """The loop back with JAX's rules for a step, for every symmetric stepper and with the shares of the reducers."""
    moving_run, resting_run = parts

    def body(back: Any, carry: Any) -> Any:
        x, memory, cotangent, gradient, notes = carry
        step = seen.stops.num_steps - 1 - back
        active = step < seen.end.num_steps
        before, memory = _before(run, step, x, memory, active)
        cotangent = seen.joined(cotangent, step + 1)

        def observed(moving_run: PyTree, before: Array) -> Any:
            return _observed(eqx.combine(moving_run, resting_run), step, before, active, notes)

        _, pull, notes = jax.vjp(observed, moving_run, before, has_aux=True)
        pulled, state = pull((cotangent.state, jnp.ones_like(x[0])))
        gradient = jax.tree.map(jnp.add, gradient, pulled)
        return before, memory, _Cotangent(state, cotangent.waiting), gradient, notes

    nothing = jax.tree.map(jnp.zeros_like, moving_run)
    carry = (seen.end.x, seen.end.memory, cotangent, nothing, notes)
    found, _, cotangent, gradient, notes = jax.lax.fori_loop(0, seen.stops.num_steps, body, carry)
    return found, cotangent, gradient, notes


def _back_by_rule(
    run: Run, moving_run: PyTree, way: SplittingWayBack, seen: _Seen, cotangent: _Cotangent
) -> tuple[Array, _Cotangent, PyTree]:
    """The loop back with the stepper's own rule.

    Who is frozen, and what the loss saw, is asked between stretches of steps: asked in each step, it would be computed
    again in every operation of the step that reads the states.
    """

    def step_back(back: Any, carry: Any) -> Any:
        after, x, adjoint, parts = carry
        return after, *way.step(run.time(after - 1 - back), run.dt, x, adjoint, parts)

    def stretch_back(carry: Any) -> Any:
        after, x, cotangent, parts = carry
        cotangent = seen.joined(cotangent, after)
        active = (after <= seen.end.num_steps)[None, :]
        # Frozen lanes go back from zero with a cotangent of zero: they add nothing, and no NaN. One step only, since
        # zero need not be at rest.
        before = jnp.where(jnp.all(active), seen.next_stop(cotangent), after - 1)
        moving = jnp.where(active, x, 0), jnp.where(active, cotangent.state, 0)
        _, earlier, pulled, parts = jax.lax.fori_loop(0, after - before, step_back, (after, *moving, parts))
        state = jnp.where(active, pulled, cotangent.state)
        return before, jnp.where(active, earlier, x), _Cotangent(state, cotangent.waiting), parts

    start = (seen.stops.num_steps, seen.end.x, cotangent, way.start(seen.end.x))
    _, found, cotangent, parts = jax.lax.while_loop(lambda carry: carry[0] > 0, stretch_back, start)
    gradient = eqx.tree_at(
        lambda run: (run.lanes.matrix, run.lanes.bias, run.lanes.leak),
        jax.tree.map(jnp.zeros_like, moving_run),
        way.finish(parts),
        is_leaf=lambda leaf: leaf is None,
    )
    return found, cotangent, gradient


def _observed(run: Run, step: Array, before: Array, active: Array, notes: tuple[PyTree, ...]) -> Any:
    """One step and the shares of the reducers in it; frozen lanes keep their state and step from zero, unseen."""
    started = jnp.where(active[None, :], before, 0)
    memory = run.stepper.init(run.lanes, run.time(step), run.dt, started)
    stepped, _ = run.stepper.step(run.lanes, run.time(step), run.dt, started, memory)
    after = jnp.where(active[None, :], stepped, before)
    total, noted = jnp.zeros_like(before[0]), []
    for reducer, note in zip(run.reducers, notes, strict=True):
        if reducer.sampled:
            due = (step + 1) % SAMPLE_EVERY == 0
            share, note = jax.lax.cond(
                due,
                lambda after, note, reducer=reducer: reducer.credit(note, run.lanes, step + 1, after, after),
                lambda after, note: (jnp.zeros_like(after[0]), note),
                after,
                note,
            )
        else:
            share, note = reducer.credit(note, run.lanes, step, before, after)
        total = total + share
        noted.append(note)
    return (after, total), tuple(noted)


def _before(run: Run, step: Any, x: Array, memory: PyTree, active: Array) -> tuple[Array, PyTree]:
    """The states before step number `step`, by a step of -dt from its end."""
    t = run.time(step) + run.dt
    earlier, memory = run.stepper.step(run.lanes, t, -run.dt, x, memory)
    # A frozen lane's memory went on forward, perhaps to NaN, and for fewer steps if all were frozen: begin anew.
    fresh = run.stepper.init(run.lanes, t, -run.dt, x)
    memory = jax.tree.map(lambda moved, begun: jnp.where(active[None, :], moved, begun), memory, fresh)
    return jnp.where(active[None, :], earlier, x), memory


def _distance(found: Array, start: Array, end: Array) -> Float[Array, " lanes"]:
    """Relative to the start. One at rest has no size of its own: there the end counts, up to 1, where sigma bends."""
    size, later = (jnp.max(jnp.abs(x), axis=0) for x in (start, end))
    scale = jnp.maximum(size, jnp.minimum(later, 1))
    return jnp.max(jnp.abs(found - start), axis=0) / jnp.maximum(scale, jnp.finfo(start.dtype).tiny)


def _refused(gradient: PyTree, start_gradient: Array, error: Array, with_start: bool, rules: _Rules) -> PyTree:
    """The cotangents, with NaN in the lanes that missed their start, and in whatever these share with others."""
    missed = ~(error <= rules.tolerance)
    if rules.single:
        message = f"{Result.irreversible.name}: {Result.irreversible.advice}"
        gradient, start_gradient = eqx.error_if((gradient, start_gradient), missed, message)
    lanes = missed.shape[0]

    def marked(path: tuple[Any, ...], leaf: Array) -> Array:
        # The last axis of a parameter of drive or activation is no lane, whatever its length.
        shared = any(getattr(key, "name", "") in ("drive", "activation", "reducers") for key in path)
        own = not shared and leaf.ndim > 0 and leaf.shape[-1] == lanes
        return jnp.where(missed if own else jnp.any(missed), jnp.nan, leaf)

    with jax.numpy_rank_promotion("allow"):
        gradient = jax.tree_util.tree_map_with_path(marked, gradient)
        return gradient, (marked((), start_gradient) if with_start else None)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
