"""The fixed-step time loop: all lanes together, reducers folded in, members that leave frozen where they are.

The loop knows nothing of solvers (a stepper does) nor of measures (reducers do). With a traced number of steps one
compiled program serves every dt and duration, ends early when no lane is alive, and cannot be differentiated backward;
with a Python int it is a `scan` of that length, which can.
"""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._elementary import sum_rows
from .._results import Result
from ..solvers import Lanes
from .reducers import SAMPLE_EVERY, AbstractReducer
from .steppers import AbstractStepper, stepper_of

DEFAULT_ESCAPE_NORM = 1e6
"""A state of this Euclidean norm has left: a bounded network never comes near, an exploding one passes in no time."""


class SaveTimes(eqx.Module):
    """Where to keep states: after `steps[k]` whole steps, and the fraction `fractions[k]` in [0, 1] of the next one.

    `fractions` None means exactly on the steps. Steps ascend.
    """

    steps: Int[Array, " times"]
    fractions: Float[Array, " times"] | None = None


class LaneRun(eqx.Module):
    """What a run leaves behind, the lane axis last.

    **Attributes:** `y` (n, lanes) final states; `result` (lanes,) int8 codes of `Result`; `num_steps` (lanes,) int32
    steps until the end or the escape; `reduced` measures by name, each (lanes,); `saved` (times, n, lanes) or None.
    """

    y: Float[Array, "n lanes"]
    result: Int[Array, " lanes"]
    num_steps: Int[Array, " lanes"]
    reduced: dict[str, Array]
    saved: Float[Array, "times n lanes"] | None = None


class Loop(eqx.Module):
    """What travels through the loop."""

    step: Int[Array, ""]
    x: Float[Array, "n lanes"]
    result: Int[Array, " lanes"]
    num_steps: Int[Array, " lanes"]
    memory: PyTree
    states: tuple[PyTree, ...]


class Course(eqx.Module):
    """The loop with what it is about to do again: steps of one up to `again_until`, looking at the `suspects`."""

    loop: Loop
    again_until: Int[Array, ""]
    suspects: Bool[Array, " lanes"]


class Run(eqx.Module):
    """What stays the same through the loop."""

    lanes: Lanes
    stepper: AbstractStepper
    reducers: tuple[AbstractReducer, ...]
    t0: Float[Array, ""]
    dt: Float[Array, ""]
    escape_norm: Float[Array, ""]

    def start(self, x: Float[Array, "n lanes"]) -> Loop:
        count = jnp.zeros(x.shape[-1:], jnp.int32)
        states = tuple(reducer.init(self.lanes, x) for reducer in self.reducers)
        memory = self.stepper.init(self.lanes, self.t0, self.dt, x)
        return Loop(jnp.zeros((), jnp.int32), x, count.astype(jnp.int8), count, memory, states)

    def trial(self, loop: Loop) -> tuple[Array, PyTree]:
        """The states one step later, before anybody asks whether they are allowed."""
        return self.stepper.step(self.lanes, self.time(loop.step), self.dt, loop.x, loop.memory)

    def time(self, step: Array) -> Array:
        """When step number `step` begins."""
        return self.t0 + step.astype(self.dt.dtype) * self.dt

    def glide(self, loop: Loop) -> Loop:
        """One step with the cheap reducers, which nobody looks at: lanes that left go on all the same."""
        x, memory = self.trial(loop)
        states = self._update(loop.states, loop, x, sampled=False)
        return Loop(loop.step + 1, x, loop.result, loop.num_steps, memory, states)

    def outside(self, loop: Loop) -> Array:
        """Which lanes have left, or are no numbers any more, although nobody has frozen them yet."""
        # Written so that NaN counts as outside.
        inside = sum_rows(loop.x * loop.x) <= self.escape_norm**2
        return (loop.result == Result.successful) & ~inside

    def settled(self, before: Loop, after: Loop, leaving: Array) -> Loop:
        """`after` with the `leaving` lanes frozen at `before` from now on, like those that were frozen there."""
        moving = (before.result == Result.successful) & ~leaving
        chosen = jax.tree.map(
            lambda new, old: jnp.where(moving, new, old), (after.x, after.states), (before.x, before.states)
        )
        why = jnp.where(jnp.isfinite(sum_rows(after.x * after.x)), Result.escaped, self.stepper.nan_means).astype(
            jnp.int8
        )
        result = jnp.where(leaving, why, before.result)
        taken = jnp.where(moving, after.step - before.step, 0)
        return Loop(after.step, chosen[0], result, before.num_steps + taken, after.memory, chosen[1])

    def advance(self, loop: Loop) -> Loop:
        """One step, after which lanes that left are frozen at their last good state."""
        after = self.glide(loop)
        return self.settled(loop, after, self.outside(after))

    def sample(self, loop: Loop) -> Loop:
        """The look of the sampled reducers at the present state."""
        states = self._update(loop.states, loop, loop.x, sampled=True)
        return eqx.tree_at(lambda loop: loop.states, loop, states)

    def finish(self, loop: Loop, saved: Array | None) -> LaneRun:
        reduced: dict[str, Array] = {}
        for reducer, state in zip(self.reducers, loop.states, strict=True):
            reduced |= reducer.finish(state, self.lanes, loop.x, self.dt)
        return LaneRun(loop.x, loop.result, loop.num_steps, reduced, saved)

    def _update(self, states: tuple[PyTree, ...], loop: Loop, x: Array, sampled: bool) -> tuple[PyTree, ...]:
        return tuple(
            reducer.update(state, self.lanes, loop.step, loop.x, x) if reducer.sampled is sampled else state
            for reducer, state in zip(self.reducers, states, strict=True)
        )


def run_lanes(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    t0: Any,
    dt: Any,
    num_steps: Any,
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
    save: SaveTimes | None = None,
    segments: int = 0,
    forward: Callable[..., Loop] | None = None,
) -> LaneRun:
    """Run `num_steps` steps of size `dt` in every lane.

    **Arguments:**

    - `lanes`: the networks; `y0`: (n, lanes) their starts, whose dtype the run keeps.
    - `solver`: `jo.ForwardEuler()`, `jo.solvers.PoissonSplitting(...)` or any Diffrax solver.
    - `reducers`: measures to fold in; sampled ones look every `SAMPLE_EVERY` steps.
    - `t0`, `dt`, `escape_norm`: scalars, may be traced.
    - `num_steps`: an int32 scalar (may be traced; early end; forward derivatives only), or a Python int (a scan).
    - `save`: which states to keep; none by default.
    - `segments`: keep that many checkpoints for differentiation backward, instead of all steps (0).
    - `forward`: another way to march on, `forward(run, loop, until)`, with a traced number of steps.

    **Returns:** a `LaneRun`. Call it inside a `jax.jit` of your own. **Raises:** as `stepper_of`.
    """
    dtype = y0.dtype
    scalars = [jnp.asarray(value, dtype) for value in (t0, dt, escape_norm)]
    stepper = stepper_of(solver)
    run = Run(lanes.prepared(stepper.use), stepper, reducers, *scalars)
    loop = run.start(y0)
    forward = functools.partial(march, segments=segments) if forward is None else forward
    if save is None:
        return run.finish(forward(run, loop, num_steps), None)
    if isinstance(num_steps, int):
        return _scan_and_gather(run, loop, num_steps, save, segments)

    def to_next_save(loop: Loop, at: SaveTimes) -> tuple[Loop, Array]:
        loop = forward(run, loop, at.steps)
        return loop, _between(run, loop, at.fractions)

    # The end of the run is one more stop of the same loop: a loop of its own would be compiled a second time.
    end = jnp.asarray(num_steps, save.steps.dtype)
    fractions = None if save.fractions is None else jnp.append(save.fractions, 0)
    loop, saved = jax.lax.scan(to_next_save, loop, SaveTimes(jnp.append(save.steps, end), fractions))
    return run.finish(loop, saved[:-1])


def march(run: Run, loop: Loop, until: Any, segments: int = 0) -> Loop:
    """Advance to the step number `until`, sampling every `SAMPLE_EVERY` steps."""
    if isinstance(until, int):
        strides, rest = divmod(until, SAMPLE_EVERY)

        def stride_of(loop: Loop, _: None) -> tuple[Loop, None]:
            return run.sample(_scan(run.advance, loop, SAMPLE_EVERY)), None

        loop, _ = scan_in_segments(stride_of, loop, strides, segments)
        return _scan(run.advance, loop, rest)

    def unfinished(course: Course) -> Array:
        loop = course.loop
        return (loop.step < until) & jnp.any(loop.result == Result.successful)

    course = Course(loop, jnp.zeros((), jnp.int32), jnp.zeros(loop.result.shape, bool))
    loop = jax.lax.while_loop(unfinished, lambda course: _stride(run, course, until), course).loop
    # When every lane is frozen the loop ends early, but time goes on.
    return eqx.tree_at(lambda loop: loop.step, loop, jnp.maximum(loop.step, until))


def _stride(run: Run, course: Course, until: Any) -> Course:
    """Steps up to the next sample, and one look at the lanes: looking at each step would cost as much as stepping.

    If a lane is found outside, the stride is taken again in steps of one, each with a look at those that were.
    """
    before, again = course.loop, course.loop.step < course.again_until
    # Samples fall on multiples of SAMPLE_EVERY whether or not the run stops to save in between.
    target = jnp.where(again, before.step + 1, jnp.minimum((before.step // SAMPLE_EVERY + 1) * SAMPLE_EVERY, until))
    after = jax.lax.fori_loop(before.step, target, lambda _, loop: run.glide(loop), before)
    # What becomes of a lane must not depend on its neighbours: in a stride taken again for others it is not looked at.
    outside = run.outside(after)
    back = jnp.any(outside) & ~again & (target > before.step + 1)
    settled = run.settled(before, after, outside & (course.suspects | ~again))
    loop = jax.tree.map(lambda new, old: jnp.where(back, old, new), settled, before)
    loop = _sample_if_due(run, loop, ~back)
    return Course(loop, jnp.where(back, target, course.again_until), jnp.where(back, outside, course.suspects))


def _sample_if_due(run: Run, loop: Loop, moved: Any = True) -> Loop:
    due = moved & (loop.step % SAMPLE_EVERY == 0)
    # A lambda, since JAX hashes the function and a bound method hashes the arrays of its module.
    return jax.lax.cond(due, lambda loop: run.sample(loop), lambda loop: loop, loop)


def scan_in_segments(body: Callable[..., Any], loop: Loop, length: int, segments: int) -> tuple[Loop, Any]:
    """`jax.lax.scan` of `length` turns; differentiated backward it keeps `segments` states (0: all) and computes again.

    Turns that do not fill a segment follow at the end.
    """
    if not segments or length <= segments:
        return jax.lax.scan(body, loop, length=length)
    turns, rest = divmod(length, segments)

    @jax.checkpoint
    def segment(loop: Loop, _: None) -> tuple[Loop, Any]:
        return jax.lax.scan(body, loop, length=turns)

    loop, kept = jax.lax.scan(segment, loop, length=segments)
    loop, last = jax.lax.scan(body, loop, length=rest)
    kept = jax.tree.map(lambda a, b: jnp.concatenate([a.reshape(-1, *a.shape[2:]), b]), kept, last)
    return loop, kept


def _scan(function: Callable[[Loop], Loop], loop: Loop, length: int) -> Loop:
    return jax.lax.scan(lambda loop, _: (function(loop), None), loop, length=length)[0]


def _between(run: Run, loop: Loop, fraction: Array | None) -> Array:
    """The states `fraction` of a step later, by the cubic Hermite polynomial; frozen lanes as they are."""
    if fraction is None:
        return loop.x
    after, _ = run.trial(loop)
    between = hermite(run, loop.step, loop.x, after, fraction)
    return jnp.where((loop.result == Result.successful)[None, :], between, loop.x)


def hermite(run: Run, step: Array, before: Array, after: Array, fraction: Array) -> Array:
    """The cubic that has the states and slopes at both ends of step number `step`, at `fraction` of it: O(dt^4)."""
    zero, one = jnp.zeros_like(run.dt), jnp.ones_like(run.dt)
    t = run.time(step)
    polynomial = diffrax.ThirdOrderHermitePolynomialInterpolation(
        t0=zero,
        t1=one,
        y0=before,
        y1=after,
        k0=run.dt * run.lanes.velocity(t, before),
        k1=run.dt * run.lanes.velocity(t + run.dt, after),
    )
    return polynomial.evaluate(fraction)


def _scan_and_gather(run: Run, loop: Loop, num_steps: int, save: SaveTimes, segments: int) -> LaneRun:
    """The differentiable run with saving: backward differentiation stores every state anyway, so keep and pick."""

    def body(loop: Loop, _: None) -> tuple[Loop, Array]:
        loop = run.advance(loop)
        sampled = _sample_if_due(run, loop)
        return sampled, loop.x

    start = loop.x
    loop, later = scan_in_segments(body, loop, num_steps, segments)
    states = jnp.concatenate([start[None], later])
    saved = states[save.steps]
    if save.fractions is not None:
        after = states[jnp.minimum(save.steps + 1, num_steps)]
        saved = between_steps(run, save, saved, after, loop.num_steps)
    return run.finish(loop, saved)


def between_steps(
    run: Run, save: SaveTimes, before: Array, after: Array, num_steps: Int[Array, " lanes"]
) -> Float[Array, "times n lanes"]:
    """The states at the fractions of `save`, from those (times, n, lanes) before and after; frozen lanes as they are.

    **Arguments:** `num_steps`, what each lane took.
    """
    between = jax.vmap(lambda k, a, b, s: hermite(run, k, a, b, s))(save.steps, before, after, save.fractions)
    return jnp.where((save.steps[:, None] < num_steps[None, :])[:, None, :], between, before)
