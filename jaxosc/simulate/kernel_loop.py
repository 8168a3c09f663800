"""The engine's loop for the lanes of one tile, inside a kernel.

Everything about a step is the engine's own `Run`, evaluated on rows and stacks. Only the stride is written again, since
it alone looks at all lanes at once: whether any is outside is a reduction over the tile here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._results import Result
from ..solvers import Lanes
from ..solvers.half_sweeps import HalfSweeps
from ..solvers.states import PlainState
from .engine import Loop, Run
from .reducers import SAMPLE_EVERY
from .row_functions import RowFunction
from .rows import NotInRows, Table, each, fetched, one_row, rebuilt, spread, values_of
from .steppers import AbstractStepper, SplittingStepper

Tile = tuple[int, ...]


class Course(eqx.Module):
    """The loop of a tile and what it is about to do again, as in the engine, with scalars and tiles as rows.

    `going` is positive while a lane of the tile is alive.
    """

    loop: Loop
    again_until: Any
    suspects: Any
    going: Any


class NeuronByNeuron(AbstractStepper):
    """Poisson splitting with one visit as the body of a loop: a stack can be asked for a single row, but for no block.

    The same flows in the same order as `SplittingStepper`, so the same states to rounding.
    """

    order: int = eqx.field(static=True)

    def init(self, lanes: Lanes, t: Array, dt: Array, x: Any) -> None:
        """No memory."""
        return

    def step(self, lanes: Lanes, t: Array, dt: Array, x: Any, memory: Any) -> tuple[Any, None]:
        """One composed splitting step."""
        return HalfSweeps(lanes, self.order, in_one_place=True).step(PlainState(x), t, dt).value(), None


class Programs:
    """The parts of a step for rows or stacks. **Raises:** `NotInRows` if one of them cannot be evaluated so."""

    def __init__(self, run: Run, loop: Loop, *, stacked: bool, missing: frozenset[str]) -> None:
        def stepped(run: Run) -> Run:
            """With steps that a stack can take."""
            if not (stacked and isinstance(run.stepper, SplittingStepper)):
                return run
            stepper = NeuronByNeuron(run.stepper.solver.accuracy)
            return Run(run.lanes, stepper, run.reducers, run.t0, run.dt, run.escape_norm)

        make = functools.partial(RowFunction, missing=missing)
        leaving = jax.ShapeDtypeStruct((1,), bool)
        self.glide = make(lambda run, loop: stepped(run).glide(loop), run, loop)
        self.sample = make(lambda run, loop: run.sample(loop), run, loop)
        self.outside = make(lambda run, loop: run.outside(loop), run, loop)
        self.settled = make(lambda run, *rest: run.settled(*rest), run, loop, loop, leaving)
        if any(one.series for one in (self.sample, self.outside, self.settled)):
            raise NotInRows("a long series of constants outside of the step")


def march_tile(
    programs: Programs, run_at: Callable[[Any], Run], loop: Loop, until: Any, tile: Tile, tables: Sequence[Table]
) -> Loop:
    """The loop at the step number `until`, or when all lanes of the tile have left.

    **Arguments:** `run_at`, the networks and scalars as rows for the use in a turn of a loop, given its number.
    """
    suspects = jnp.zeros(tile, jnp.int32)
    start = Course(loop, one_row(jnp.int32(0)), one_row(suspects), one_row(jnp.int32(1)))
    carried = Carried(start, tile)

    def unfinished(values: Sequence[Any]) -> Any:
        course = carried.rebuilt(values)
        return (course.loop.step[()] < until) & (course.going[()] > 0)

    def stride(values: Sequence[Any]) -> Sequence[Any]:
        return _stride(programs, run_at, carried, values, until, tables)

    return carried.rebuilt(jax.lax.while_loop(unfinished, stride, carried.values(start))).loop


class Carried:
    """How a course travels through a loop of the kernel: as a flat tuple in which every array keeps its shape."""

    def __init__(self, like: Course, tile: Tile) -> None:
        self.tile = tile
        self.leaves, self.tree = jax.tree.flatten(like)
        self.counts = [len(values_of(leaf)) for leaf in self.leaves]
        self.shapes = [np.shape(value) for leaf in self.leaves for value in values_of(leaf)]

    def values(self, course: Course) -> tuple[Any, ...]:
        """The flat tuple."""
        flat = [value for leaf in jax.tree.leaves(course) for value in values_of(leaf)]
        return tuple(spread(value, shape) for value, shape in zip(flat, self.shapes, strict=True))

    def rebuilt(self, values: Sequence[Any]) -> Course:
        """The course again."""
        remaining = iter(values)
        parts = [[next(remaining) for _ in range(count)] for count in self.counts]
        return jax.tree.unflatten(self.tree, map(rebuilt, self.leaves, parts))


def _stride(
    programs: Programs,
    run_at: Callable[[Any], Run],
    carried: Carried,
    values: Sequence[Any],
    until: Any,
    tables: Sequence[Table],
) -> Sequence[Any]:
    """As the engine's `_stride`, for rows."""
    course, tile = carried.rebuilt(values), carried.tile
    before, step = course.loop, course.loop.step[()]
    run, again = run_at(step), course.loop.step[()] < course.again_until[()]
    target = jnp.where(again, step + 1, jnp.minimum((step // SAMPLE_EVERY + 1) * SAMPLE_EVERY, until))

    def with_loop(course: Course, loop: Loop) -> Sequence[Any]:
        return carried.values(Course(loop, course.again_until, course.suspects, course.going))

    def glide(number: Any, values: Sequence[Any]) -> Sequence[Any]:
        course = carried.rebuilt(values)
        return with_loop(course, programs.glide(run_at(number), course.loop, tables=tables))

    after = carried.rebuilt(jax.lax.fori_loop(step, target, glide, values)).loop
    outside = spread(fetched(programs.outside(run, after)[0]), tile)
    back = _any(outside) & ~again & (target > step + 1)
    # What becomes of a lane must not depend on its neighbours: in a stride taken again for others it is not looked at.
    leaving = outside & ((course.suspects[()] > 0) | ~spread(again, tile))
    settled = programs.settled(run, before, after, one_row(leaving).reshape(1))
    loop = jax.tree.map(lambda new, old: _chosen(back, old, new), settled, before)
    suspects = jnp.where(spread(back, tile), outside.astype(jnp.int32), course.suspects[()])
    going = _any(spread(fetched(loop.result[0]) == Result.successful, tile)).astype(jnp.int32)
    again_until = jnp.where(back, target, course.again_until[()])
    values = carried.values(Course(loop, one_row(again_until), one_row(suspects), one_row(going)))

    def sample(values: Sequence[Any]) -> Sequence[Any]:
        course = carried.rebuilt(values)
        return with_loop(course, programs.sample(run, course.loop))

    due = ~back & (loop.step[()] % SAMPLE_EVERY == 0)
    return jax.lax.cond(due, sample, lambda values: values, values)


def _chosen(condition: Any, yes: Any, no: Any) -> Any:
    return each(jnp.where, one_row(condition).reshape((1,) * len(yes.shape)), yes, no)


def _any(flags: Any) -> Any:
    """Whether any lane of the tile has its flag up; by floats, since Triton reduces no booleans."""
    return jnp.max(jnp.where(flags, jnp.ones(flags.shape, jnp.float32), jnp.zeros(flags.shape, jnp.float32))) > 0
