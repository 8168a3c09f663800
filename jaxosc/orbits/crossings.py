"""When and where an orbit passes through a section, as accurately as the solver that follows it.

A section is a hyperplane normal.y = offset. A step of the solver that leads from one side to the other is found by a
change of sign, and its start is kept. Then a *fraction of that very step* is sought that ends on the section: theta in
[0, 1] with

    normal . phi(theta dt, y) = offset,

where phi(dt, .) is the one-step map. The point found is one of the solver's own, of its order and on its energy, which
no polynomial through the ends of the step is: the cubic Hermite polynomial is good to O(dt^4) only and leaves the
energy. Times and states are differentiable, forward and backward, in everything.
Source: Henon, *Physica D* 5 (1982), for landing on a section in one step; the fraction of a step is elementary.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import is_concrete, require_finite
from .._errors import JaxoscError
from ..simulate.chunks import in_chunks
from ..simulate.devices import spread
from ..simulate.engine import DEFAULT_ESCAPE_NORM, SaveTimes, run_lanes
from ..simulate.members import Members
from ..simulate.reducers import AbstractReducer
from ..simulate.steppers import stepper_of
from ..solvers import Lanes, PoissonSplitting, lanes_of
from ..solvers.facts import Facts
from .landing import landed
from .starts import Prepared, counted, prepare, require_count, require_times, steps_between

DIRECTIONS = {"up": (True, False), "down": (False, True), "both": (True, True)}
"""By name: whether crossings count from below to above, and from above to below."""


class Section(eqx.Module):
    """The hyperplane normal.y = offset; what lies "above" it has normal.y > offset.

    **Attributes:** `normal` (..., n), of any length but zero; `offset` (...). Leading axes, if any, are those of the
    members.
    """

    normal: Float[Array, "*batch n"]
    offset: Float[Array, "*batch"]

    def __init__(self, normal: Any, offset: Any = 0.0):
        normal = jnp.asarray(normal)
        if not jnp.issubdtype(normal.dtype, jnp.floating):
            normal = normal.astype(jnp.result_type(float))
        require_finite("normal", normal)
        require_finite("offset", offset)
        if normal.ndim == 0:
            raise JaxoscError(f"Got the normal {normal}, expected a vector (n,): one entry for each neuron.")
        if is_concrete(normal) and not np.any(np.asarray(normal), axis=-1).all():
            raise JaxoscError("Got a normal of zeros, expected a direction: the section would be nowhere.")
        self.normal = normal
        self.offset = jnp.broadcast_to(jnp.asarray(offset, normal.dtype), normal.shape[:-1])


class CrossingRecord(eqx.Module):
    """Crossings of a section by one orbit or by a batch, in the order of time.

    **Attributes:** (k = `max_crossings`)

    - `times`: (..., k) in units of time, NaN beyond `count`.
    - `states`: (..., k, n) on the section, NaN beyond `count`.
    - `count`: (...) int32, how many are kept.
    - `missed`: (...) int32, how many came later and found no place: not zero means that `max_crossings` was too small.
    - `steps`, `fractions`: (..., k) the same times as whole steps after t0 and the rest in units of `dt`: differences
      of these keep their digits in float32, whatever the length of the run.
    - `result`: (...) int8 codes of `jo.Result`; `dt`: the step size.
    """

    times: Float[Array, "*batch k"]
    states: Float[Array, "*batch k n"]
    count: Int[Array, "*batch"]
    missed: Int[Array, "*batch"]
    steps: Int[Array, "*batch k"]
    fractions: Float[Array, "*batch k"]
    result: Int[Array, "*batch"]
    dt: Float[Array, ""]

    def intervals(self, apart: int = 1) -> Float[Array, "*batch intervals"]:
        """(..., k - apart) from each crossing to the one `apart` later, NaN where there is none."""
        whole = self.steps[..., apart:] - self.steps[..., :-apart]
        return self.dt * (whole + (self.fractions[..., apart:] - self.fractions[..., :-apart]))

    def __repr__(self) -> str:
        batch, (k, n) = self.states.shape[:-2], self.states.shape[-2:]
        who = " x ".join(map(str, batch)) + " orbits" if batch else "one orbit"
        first = f"CrossingRecord of {who}, n = {n}, up to {k} each"
        if not is_concrete(jax.tree.leaves(self)):
            return f"{first} (inside a JAX transformation)"
        counts, times = np.asarray(self.count), np.asarray(self.times)
        kept = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else f"{counts.min()}"
        when = f", t = {np.nanmin(times):.6g} .. {np.nanmax(times):.6g}" if counts.any() else ""
        lines = [first, f"  kept    {kept}{when}"]
        missed = np.asarray(self.missed)
        if missed.any():
            lines.append(f"  missed  {counted('orbits', missed > 0)} crossed more often: raise max_crossings")
        failed = np.asarray(self.result) != 0
        if failed.any():
            lines.append(f"  result  {counted('orbits', failed)} left early")
        return "\n".join(lines)


def poincare_crossings(
    field: Any,
    y0: Any,
    *,
    t1: Any,
    dt: Any,
    t0: Any = 0.0,
    solver: Any = None,
    section: Any = None,
    direction: str = "up",
    max_crossings: int = 64,
    pairing: str = "zip",
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
) -> CrossingRecord:
    """All crossings of a section between t0 and t1, times and states, in a buffer of fixed size.

    Each is a point of the solver's own, found by a fraction of a step: see the module. Error: that of the solver, with
    the default at dt = 0.05 about 1e-10 of a time. Cost: that of the run, and about eight steps for each crossing.
    Memory: `max_crossings` states for each member. A start on the section does not count, and two crossings
    within one step are not seen.

    **Arguments:**

    - `field`: `jo.CurrentRNN` or `jo.RateRNN`, with or without batch axes; `y0`: (..., n) starts; `pairing`: as in
      `jo.simulate`.
    - `t0`, `t1`, `dt`: begin, end > t0 and step size > 0, in units of time; dt becomes a little smaller if it does not
      divide the run. Within a transformation they should be plain numbers: traced ones have no reverse derivative.
    - `solver`: `jo.solvers.PoissonSplitting(4)` if None, or any that `jo.simulate` takes with fixed steps.
    - `section`: a `Section`, the number of a neuron (whose zero it is), None for neuron 0.
    - `direction`: "up" (from normal.y < offset to >=), "down" or "both".
    - `max_crossings`: how many have a place; later ones are counted in `missed`.
    - `escape_norm`: a member whose norm exceeds it has left.

    **Returns:** a `CrossingRecord`. **Raises:** `JaxoscError` for wrong shapes, NaN, dt <= 0, t1 <= t0, and an unknown
    direction or neuron.
    """
    solver = PoissonSplitting(4) if solver is None else solver
    require_times(t0, t1, dt)
    require_count("max_crossings", max_crossings)
    if direction not in DIRECTIONS:
        raise JaxoscError(f"Got direction = {direction!r}, expected one of {', '.join(DIRECTIONS)}.")
    ready = prepare(field, y0, solver, pairing, (t0, t1, dt, section, escape_norm))
    section = section_of(section, ready.members)
    return crossings_of(ready, section, solver, (t0, t1, dt, escape_norm), direction, max_crossings)


def crossings_of(
    ready: Prepared, section: Section, solver: Any, times: tuple[Any, Any, Any, Any], direction: str, most: int
) -> CrossingRecord:
    """`poincare_crossings` of what has been checked; `times`: t0, t1, dt and escape_norm."""
    t0, t1, dt, escape_norm = times
    num_steps, dt = steps_between(t0, t1, dt)
    dtype = ready.members.starts.dtype
    scalars = jnp.asarray(t0, dtype), jnp.asarray(dt, dtype), jnp.asarray(escape_norm, dtype)
    stored = ready.traced and isinstance(num_steps, int)
    num_steps = num_steps if stored else jnp.asarray(num_steps, jnp.int32)
    return _record_compiled(
        ready.members, section, solver, scalars, num_steps, ready.facts, ready.devices, DIRECTIONS[direction], most
    )


def section_of(section: Any, members: Members) -> Section:
    """The section as such, whatever way it was named, in the dtype of the states.

    **Raises:** `JaxoscError` for a neuron that is not there and a normal of another length.
    """
    n, dtype = members.starts.shape[-1], members.starts.dtype
    section = 0 if section is None else section
    if isinstance(section, int):
        if section not in range(n):
            raise JaxoscError(f"Got the section of neuron {section}, expected a number from 0 to {n - 1}.")
        return Section(jnp.zeros(n, dtype).at[section].set(1))
    if not isinstance(section, Section):
        raise JaxoscError(f"Got section = {section!r}, expected a jo.orbits.Section, the number of a neuron or None.")
    batch = section.normal.shape[:-1]
    fits = section.normal.shape[-1] == n and batch in ((), members.batch_shape)
    if not fits:
        raise JaxoscError(
            f"Got a section with a normal of shape {section.normal.shape}, expected ({n},) or"
            f" {(*members.batch_shape, n)}: one entry for each neuron."
        )
    return Section(section.normal.astype(dtype), section.offset.astype(dtype))


class _Recorder(AbstractReducer):
    """Keeps the starts of the steps that cross, and their numbers."""

    normal: Float[Array, "n lanes"]
    offset: Float[Array, " lanes"]
    ways: tuple[bool, bool] = eqx.field(static=True)
    most: int = eqx.field(static=True)

    names: ClassVar[tuple[str, ...]] = ("total", "steps", "before")
    sampled: ClassVar[bool] = False

    def init(self, lanes: Lanes, x: Array) -> PyTree:
        count = jnp.zeros(x.shape[-1:], jnp.int32)
        steps = jnp.full((self.most, *x.shape[-1:]), -1, jnp.int32)
        return count, steps, jnp.zeros((self.most, *x.shape), x.dtype)

    def update(self, state: PyTree, lanes: Lanes, step: Array, before: Array, after: Array) -> PyTree:
        total, *kept = state
        crossed = crosses(self.value(before), self.value(after), self.ways)
        slot, lane = jnp.where(crossed, total, self.most), jnp.arange(len(total))

        def write(kept: list[Array]) -> list[Array]:
            steps, states = kept
            # A slot past the end drops what is written.
            steps = steps.at[slot, lane].set(step, mode="drop")
            return [steps, states.at[slot, :, lane].set(before.T, mode="drop")]

        # Few steps are crossings; the buffer is large.
        return (total + crossed, *jax.lax.cond(jnp.any(crossed), write, lambda kept: kept, kept))

    def finish(self, state: PyTree, lanes: Lanes, x: Array, dt: Array) -> dict[str, Array]:
        return dict(zip(self.names, state, strict=True))

    def value(self, x: Float[Array, "n lanes"]) -> Float[Array, " lanes"]:
        return jnp.sum(self.normal * x, axis=0) - self.offset


def crosses(low: Array, high: Array, ways: tuple[bool, bool]) -> Bool[Array, "*shape"]:
    """Whether a step from section value `low` to `high` crosses; one that ends on the section does."""
    up, down = (low < 0) & (high >= 0), (low > 0) & (high <= 0)
    return up | down if ways == (True, True) else up if ways[0] else down


@eqx.filter_jit
def _record_compiled(
    members: Members,
    section: Section,
    solver: Any,
    scalars: tuple[Array, Array, Array],
    num_steps: Any,
    facts: Facts | None,
    devices: tuple[jax.Device, ...],
    ways: tuple[bool, bool],
    most: int,
) -> CrossingRecord:
    field, starts = members.whole()
    lanes, (lanes_n, n), shape = lanes_of(field, facts), starts.shape, members.batch_shape
    stepper_of(solver).require(lanes)
    batch = section.normal.shape[:-1]
    normal = jnp.broadcast_to(section.normal.reshape(*batch, n) if batch else section.normal, (*shape, n))
    offset = jnp.broadcast_to(section.offset, shape)
    # One array, so that lanes and all that belongs to them are cut into chunks and spread over devices alike.
    stacked = jnp.concatenate([starts.T, normal.reshape(lanes_n, n).T, offset.reshape(1, lanes_n)])

    def run(lanes: Lanes, stacked: Array) -> tuple[Array, ...]:
        recorder = _Recorder(stacked[n : 2 * n], stacked[2 * n], ways, most)
        return _run(lanes, stacked[:n], solver, recorder, scalars, num_steps)

    def in_parts(lanes: Lanes, stacked: Array) -> tuple[Array, ...]:
        return in_chunks(run, lanes, stacked)

    found = run(lanes, stacked) if isinstance(num_steps, int) else spread(in_parts, lanes, stacked, devices)
    total, steps, fractions, states, result = (
        jnp.moveaxis(array, -1, 0).reshape(*shape, *array.shape[:-1]) for array in found
    )
    count = jnp.minimum(total, most)
    # Whole steps are counted as integers: t0 + dt * step would lose the fraction in float32.
    times = scalars[0] + scalars[1] * (steps.astype(fractions.dtype) + fractions)
    return CrossingRecord(times, states, count, total - count, steps, fractions, result, scalars[1])


def _run(
    lanes: Lanes, y0: Array, solver: Any, recorder: _Recorder, scalars: tuple[Array, Array, Array], num_steps: Any
) -> tuple[Array, Array, Array, Array, Array]:
    """Total, steps, fractions, states and result, the lane axis last."""
    t0, dt, escape_norm = scalars
    options = dict(t0=t0, dt=dt, num_steps=num_steps, escape_norm=escape_norm)
    if isinstance(num_steps, int):
        # Differentiated backward a loop keeps every state anyway: keep them, and look for crossings afterwards.
        every = SaveTimes(jnp.arange(num_steps + 1, dtype=jnp.int32))
        done = run_lanes(lanes, y0, solver, (), save=every, **options)
        assert done.saved is not None
        total, steps, before = _picked(recorder, done.saved)
    else:
        done = run_lanes(lanes, y0, solver, (recorder,), **options)
        total, steps, before = (done.reduced[name] for name in recorder.names)
    begin = t0 + dt * steps.astype(dt.dtype)
    fractions, states = landed(lanes, stepper_of(solver), recorder.normal, recorder.offset, begin, dt, before)
    there = steps >= 0
    fractions = jnp.where(there, fractions, jnp.nan)
    return total, steps, fractions, jnp.where(there[:, None], states, jnp.nan), done.result


def _picked(recorder: _Recorder, saved: Float[Array, "times n lanes"]) -> tuple[Array, Array, Array]:
    """What `recorder` would have kept of these states."""
    values = jax.vmap(recorder.value)(saved)
    crossed = crosses(values[:-1], values[1:], recorder.ways)
    number = jnp.cumsum(crossed, axis=0, dtype=jnp.int32)
    lane = jnp.arange(saved.shape[-1])[None, :]
    step = jnp.arange(len(crossed), dtype=jnp.int32)[:, None]
    slot = jnp.where(crossed, number - 1, recorder.most)
    steps = jnp.full((recorder.most, saved.shape[-1]), -1, jnp.int32)
    steps = steps.at[slot, lane].set(jnp.broadcast_to(step, slot.shape), mode="drop")
    before = jnp.moveaxis(saved[jnp.maximum(steps, 0), :, lane], 1, -1)
    return number[-1], steps, before
