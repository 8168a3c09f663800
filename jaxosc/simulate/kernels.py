"""The fixed-step loop as one kernel for a GPU or TPU: a tile of lanes stays on the chip from its first step to its last.

Left to XLA every operation of every step is a kernel of its own, and states travel to memory and back between them.
Here one Pallas kernel (Triton on NVIDIA, Mosaic on TPU) holds the whole loop. It is made from the engine's own `Run`,
see rows.py, so steppers, reducers and the treatment of lanes that leave exist once; only the stride, in which a tile
looks at all of its lanes, is written again. The start and the end of a run are the engine's own, outside the kernel.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as mosaic, triton
from jaxtyping import Array, Float

from .._results import Result
from ..solvers import Lanes
from ..solvers.lanes import own_axes
from .engine import DEFAULT_ESCAPE_NORM, LaneRun, Loop, Run
from .reducers import SAMPLE_EVERY, AbstractReducer
from .rows import Load, RowFunction, fetched, in_rows, one_row, spread
from .steppers import stepper_of

COLUMNS = 128
"""Lanes side by side in a tile: a row of a TPU's registers, and the threads of four warps."""

KEPT_ENTRIES = 64
"""Up to this many entries of W stay in registers; more are fetched where they are used."""


@dataclasses.dataclass(frozen=True)
class Platform:
    """What differs from chip to chip: lanes in a tile, where numbers shared by all lanes lie, options, what is missing."""

    tile: tuple[int, int]
    shared: Any
    options: Any
    missing: frozenset[str]


PLATFORMS = {
    "cuda": Platform((1, COLUMNS), pl.BlockSpec(), triton.CompilerParams(num_warps=4, num_stages=1), frozenset({"erf"})),
    "tpu": Platform(
        (8, COLUMNS),
        pl.BlockSpec(memory_space=mosaic.SMEM),
        mosaic.CompilerParams(dimension_semantics=("parallel",), vmem_limit_bytes=100 * 2**20),
        frozenset({"atan"}),
    ),
}


class Pace(eqx.Module):
    """The course of a tile: its loop, and what it is about to do again (as in the engine)."""

    loop: Any
    again_until: Any
    suspects: Any
    going: Any


class Programs:
    """The parts of a step, for rows of lanes."""

    def __init__(self, run: Run, loop: Loop, missing: frozenset[str]) -> None:
        leaving = jax.ShapeDtypeStruct((1,), bool)
        make = functools.partial(RowFunction, missing=missing)
        self.glide = make(lambda run, loop: run.glide(loop), run, loop)
        self.sample = make(lambda run, loop: run.sample(loop), run, loop)
        self.outside = make(lambda run, loop: run.outside(loop), run, loop)
        self.settled = make(lambda run, *rest: run.settled(*rest), run, loop, loop, leaving)


def run_lanes_in_kernel(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    t0: Any,
    dt: Any,
    num_steps: Any,
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
    platform: str = "cuda",
    interpret: bool = False,
) -> LaneRun:
    """As `run_lanes`."""
    chip = PLATFORMS[platform]
    scalars = [jnp.asarray(value, y0.dtype) for value in (t0, dt, escape_norm)]
    run = Run(lanes, stepper_of(solver), reducers, *scalars)
    loop = Run(lanes.prepared(), run.stepper, reducers, *scalars).start(y0)
    run_axes = eqx.tree_at(lambda run: run.lanes, jax.tree.map(lambda _: None, run), own_axes(lanes))
    shared_axes = jax.tree.leaves(run_axes, is_leaf=lambda leaf: leaf is None)
    run_leaves, run_tree = jax.tree.flatten(run)
    own = [axis is not None for axis in shared_axes]
    loop = eqx.tree_at(lambda loop: loop.result, loop, loop.result.astype(jnp.int32))
    loop_leaves, loop_tree = jax.tree.flatten(loop)
    assert loop_leaves[0].shape == ()
    count = y0.shape[-1]
    programs = Programs(
        jax.tree.unflatten(run_tree, [_one_lane(leaf) if mine else leaf for leaf, mine in zip(run_leaves, own)]),
        jax.tree.unflatten(loop_tree, [loop_leaves[0], *map(_one_lane, loop_leaves[1:])]),
        chip.missing,
    )
    per_tile = chip.tile[0] * chip.tile[1]
    tiles = -(-count // per_tile)

    def tiled(array):
        padded = jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, tiles * per_tile - count)])
        return padded.reshape(*array.shape[:-1], tiles * chip.tile[0], chip.tile[1])

    def block(array):
        lead = array.shape[:-1]
        return pl.BlockSpec((*lead, *chip.tile), lambda k: (*(0 for _ in lead), k, 0))

    inputs = [tiled(leaf) if mine else jnp.ravel(leaf) for leaf, mine in zip(run_leaves, own)]
    specs = [block(leaf) if mine else chip.shared for leaf, mine in zip(run_leaves, own)]
    states = [tiled(leaf) for leaf in loop_leaves[1:]]
    state_specs = [block(leaf) for leaf in loop_leaves[1:]]
    until = jnp.asarray(num_steps, jnp.int32)[None]

    def kernel(*refs):
        until_ref, refs = refs[0], refs[1:]
        run_refs, refs = refs[: len(inputs)], refs[len(inputs) :]
        state_refs, out_refs = refs[: len(states)], refs[len(states) :]
        keep = lanes.size**2 <= KEPT_ENTRIES
        rows_of_run = jax.tree.unflatten(
            run_tree,
            [
                _rows_of(ref, leaf.shape, mine, keep or leaf.ndim < 2)
                for ref, leaf, mine in zip(run_refs, run_leaves, own)
            ],
        )
        loop = jax.tree.unflatten(
            loop_tree,
            [one_row(jnp.int32(0)), *(_rows_of(ref, leaf.shape, True, True) for ref, leaf in zip(state_refs, loop_leaves[1:]))],
        )
        end = march(programs, rows_of_run, loop, until_ref[0], chip.tile)
        for ref, rows in zip(out_refs, jax.tree.leaves(end)[1:]):
            for index in np.ndindex(*rows.shape[:-1]):
                ref[index] = spread(rows[(*index, 0)], chip.tile)

    ends = pl.pallas_call(
        kernel,
        grid=(tiles,),
        in_specs=[chip.shared, *specs, *state_specs],
        out_specs=state_specs,
        out_shape=[jax.ShapeDtypeStruct(s.shape, s.dtype) for s in states],
        compiler_params=None if interpret else chip.options,
        interpret=interpret,
        name="fixed_steps",
    )(until, *inputs, *states)
    ends = [e.reshape(*leaf.shape[:-1], -1)[..., :count] for e, leaf in zip(ends, loop_leaves[1:])]
    loop = jax.tree.unflatten(loop_tree, [until[0], *ends])
    loop = eqx.tree_at(lambda loop: loop.result, loop, loop.result.astype(jnp.int8))
    return Run(lanes.prepared(), run.stepper, reducers, *scalars).finish(loop, None)


def _one_lane(leaf):
    return jax.ShapeDtypeStruct((*leaf.shape[:-1], 1), leaf.dtype)


def _rows_of(ref, shape, own, keep):
    if own:
        load = lambda index: Load(lambda: ref[index[:-1]])
        shape = (*shape[:-1], 1)
    else:
        load = lambda index: Load(lambda: ref[int(np.ravel_multi_index(index, shape)) if shape else 0])
    return in_rows(shape, lambda index: fetched(load(index)) if keep else load(index))


def march(programs, run, loop, until, tile):
    def flat(pace):
        return tuple(fetched(v) for array in jax.tree.leaves(pace) for v in array.flat)

    start = Pace(loop, one_row(jnp.int32(0)), one_row(jnp.zeros(tile, jnp.int32)), one_row(jnp.int32(1)))
    tree = jax.tree.structure(start)
    shapes = [a.shape for a in jax.tree.leaves(start)]
    scalar = [np.shape(v) == () for v in flat(start)]

    def unflat(values):
        values = iter(values)
        return jax.tree.unflatten(tree, [in_rows(shape, lambda _: next(values)) for shape in shapes])

    def same(values):
        return tuple(v if s else spread(v, tile) for v, s in zip(values, scalar))

    def unfinished(values):
        pace = unflat(values)
        return (pace.loop.step[()] < until) & (pace.going[()] > 0)

    def loop_with(pace, loop):
        return Pace(loop, pace.again_until, pace.suspects, pace.going)

    def stride(values):
        pace = unflat(values)
        before = pace.loop
        step = before.step[()]
        again = step < pace.again_until[()]
        target = jnp.where(again, step + 1, jnp.minimum((step // SAMPLE_EVERY + 1) * SAMPLE_EVERY, until))

        def glide(_, values):
            pace = unflat(values)
            return same(flat(loop_with(pace, programs.glide(run, pace.loop))))

        after = unflat(jax.lax.fori_loop(step, target, glide, values)).loop
        outside = fetched(programs.outside(run, after)[0])
        back = _any(outside) & ~again & (target > step + 1)
        leaving = outside & ((pace.suspects[()] > 0) | ~jnp.broadcast_to(again, tile))
        row = np.empty((1,), object)
        row[0] = leaving
        settled = programs.settled(run, before, after, row)
        pick = lambda new, old: one_row_like(new, old, back, tile)
        loop = jax.tree.map(pick, settled, before)
        going = _any(fetched(loop.result[0]) == Result.successful).astype(jnp.int32)
        pace = Pace(
            loop,
            one_row(jnp.where(back, target, pace.again_until[()])),
            one_row(jnp.where(jnp.broadcast_to(back, tile), outside.astype(jnp.int32), pace.suspects[()])),
            one_row(going),
        )
        values = same(flat(pace))
        due = ~back & (loop.step[()] % SAMPLE_EVERY == 0)

        def sample(values):
            pace = unflat(values)
            return same(flat(loop_with(pace, programs.sample(run, pace.loop))))

        return jax.lax.cond(due, sample, lambda v: v, values)

    end = unflat(jax.lax.while_loop(unfinished, stride, same(flat(start))))
    return end.loop


def one_row_like(new, old, back, tile):
    def one(index):
        a, b = fetched(new[index]), fetched(old[index])
        if np.shape(a) == () and np.shape(b) == ():
            return jnp.where(back, b, a)
        return jnp.where(jnp.broadcast_to(back, tile), spread(b, tile), spread(a, tile))

    return in_rows(new.shape, one)


def _any(row):
    return jnp.max(jnp.where(row, 1.0, 0.0).astype(jnp.float32)) > 0
