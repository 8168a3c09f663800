"""The fixed-step loop as one kernel for a GPU or TPU: a tile of lanes stays on the chip from first step to last.

Left to XLA every operation of a step is a kernel of its own there, and all states travel to memory and back between
two of them. Here one Pallas kernel (Triton on NVIDIA, Mosaic on TPU) holds the whole loop with its reducers. It is made
from the engine's own functions (row_functions.py), so it runs what the engine runs; the start of a run and its end are
the engine's own, outside of the kernel.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as mosaic, triton
from jaxtyping import Array, Float

from ..solvers import Lanes
from ..solvers.lanes import own_axes
from .engine import DEFAULT_ESCAPE_NORM, LaneRun, Loop, Run
from .kernel_loop import Programs, march_tile
from .leaves import Leaf
from .reducers import AbstractReducer
from .rows import NotInRows, Table, one_row
from .steppers import EulerStepper, SplittingStepper, stepper_of

KEPT_ENTRIES = 64
"""Up to this many entries of W stay in registers; more are fetched where they are used."""


@dataclasses.dataclass(frozen=True)
class Platform:
    """What differs from chip to chip.

    **Attributes:**

    - `tile`: the lanes of a tile where states are rows; `stack_bytes`: the size of a state where they are stacks.
    - `rows_up_to`: beyond this n states are stacks; `most_neurons`: beyond this n there is no kernel.
    - `dtypes`: of the states; `missing`: operations that its compiler lacks.
    - `shared`: where the numbers lie that all lanes share.
    - `hoists`: the compiler fetches everything before a loop, if it can, until registers overflow.
    """

    tile: tuple[int, ...]
    stack_bytes: int
    rows_up_to: int
    most_neurons: int
    dtypes: tuple[str, ...]
    missing: frozenset[str]
    shared: Any
    hoists: bool

    def tile_of(self, padded: int | None, dtype: Any) -> tuple[int, ...]:
        """The shape of a tile."""
        return self.tile if padded is None else (self.stack_bytes // (padded * np.dtype(dtype).itemsize),)

    def options(self, stacked: bool) -> Any:
        """What its compiler is told."""
        if self.hoists:
            # A stack in one warp: its rows are summed without leaving the warp.
            return triton.CompilerParams(num_warps=1 if stacked else 4, num_stages=1)
        # The states of 1,024 lanes with a W of their own at n = 64 take 16 MiB, held twice; the default is 16.
        return mosaic.CompilerParams(dimension_semantics=("parallel",), vmem_limit_bytes=100 * 2**20)


PLATFORMS = {
    "cuda": Platform(
        tile=(128,),
        stack_bytes=1024,
        rows_up_to=8,
        most_neurons=64,
        dtypes=("float32", "float64"),
        missing=frozenset({"erf"}),
        shared=pl.BlockSpec(),
        hoists=True,
    ),
    "tpu": Platform(
        tile=(8, 128),
        stack_bytes=1024,
        rows_up_to=64,
        most_neurons=64,
        dtypes=("float32",),
        missing=frozenset({"atan"}),
        shared=pl.BlockSpec(memory_space=mosaic.SMEM),
        hoists=False,
    ),
}


def has_kernel(
    lanes: Lanes, y0: Float[Array, "n lanes"], solver: Any, reducers: tuple[AbstractReducer, ...], platform: str
) -> bool:
    """Whether `run_lanes_in_kernel` can run this: Euler or plain Poisson splitting, without a drive.

    Activations and reducers may be anything that is elementwise in the lanes and made of operations that rows know.
    """
    chip, stepper = PLATFORMS[platform], stepper_of(solver)
    plain = isinstance(stepper, EulerStepper) or (
        isinstance(stepper, SplittingStepper) and not stepper.solver.compensated and not stepper.solver.lattice
    )
    fits = lanes.size <= chip.most_neurons * 4 // y0.dtype.itemsize
    if not plain or lanes.drive is not None or not fits or str(y0.dtype) not in chip.dtypes:
        return False
    leaves, tree = jax.tree.flatten((lanes, y0, solver, reducers))
    if not all(isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for leaf in leaves):
        return False
    return _can_be_made(tree, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves), platform)


@functools.lru_cache(maxsize=256)
def _can_be_made(tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...], platform: str) -> bool:
    def make(arguments: Any) -> None:
        lanes, y0, solver, reducers = arguments
        run = _run_of(lanes, solver, reducers, (0.0, 0.1, 1.0), y0.dtype)
        _Plan(run, run.start(y0), PLATFORMS[platform])

    try:
        jax.eval_shape(make, jax.tree.unflatten(tree, shapes))
    except NotInRows:
        return False
    return True


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
    platform: str,
    interpret: bool = False,
) -> LaneRun:
    """As `run_lanes` without saving, for what `has_kernel` allows; not differentiable.

    States agree with those of `run_lanes` up to the order of summation. Lanes may be any number: the last tile is
    filled up with networks at rest.

    **Arguments:** `platform`, "cuda" or "tpu"; `interpret`, evaluate the kernel anywhere,
    slowly. **Raises:** `NotInRows` for what `has_kernel` excludes.
    """
    chip = PLATFORMS[platform]
    run = _run_of(lanes, solver, reducers, (t0, dt, escape_norm), y0.dtype)
    ready = eqx.tree_at(lambda run: run.lanes, run, lanes.prepared())
    plan = _Plan(run, ready.start(y0), chip)
    ends = plan.call(jnp.asarray(num_steps, jnp.int32), interpret)
    return ready.finish(ends, None)


def _run_of(lanes: Lanes, solver: Any, reducers: Any, scalars: tuple[Any, Any, Any], dtype: Any) -> Run:
    t0, dt, escape_norm = (jnp.asarray(value, dtype) for value in scalars)
    return Run(lanes, stepper_of(solver), reducers, t0, dt, escape_norm)


def _own_leaves(run: Run) -> list[bool]:
    """Which leaves of a run differ from lane to lane."""

    def of_part(axis: int | None, array: Any) -> bool | None:
        return None if array is None else axis is not None

    of_lanes = jax.tree.map(of_part, own_axes(run.lanes), run.lanes, is_leaf=lambda leaf: leaf is None)
    flags = eqx.tree_at(lambda run: run.lanes, jax.tree.map(lambda _: False, run), of_lanes)
    return jax.tree.leaves(flags)


class _Plan:
    """A run and its start, laid out in tiles."""

    def __init__(self, run: Run, loop: Loop, chip: Platform) -> None:
        size, dtype = run.lanes.size, loop.x.dtype
        padded = None if size <= chip.rows_up_to else 1 << (size - 1).bit_length()
        self.chip, self.padded, self.tile = chip, padded, chip.tile_of(padded, dtype)
        self.count = loop.x.shape[-1]
        self.run, self.run_tree = jax.tree.flatten(run)
        own = _own_leaves(run)
        # Codes of results as wide as a register. The number of the step, first of all leaves, is the same for all.
        loop = eqx.tree_at(lambda loop: loop.result, loop, loop.result.astype(jnp.int32))
        (_, *self.loop), self.loop_tree = jax.tree.flatten(loop)
        self.run_leaves = [Leaf.of(array, mine, size, padded) for array, mine in zip(self.run, own, strict=True)]
        self.loop_leaves = [Leaf.of(array, True, size, padded) for array in self.loop]
        one_run = jax.tree.unflatten(self.run_tree, [leaf.one_lane for leaf in self.run_leaves])
        step = jax.ShapeDtypeStruct((), jnp.int32)
        one_loop = jax.tree.unflatten(self.loop_tree, [step, *(leaf.one_lane for leaf in self.loop_leaves)])
        self.programs = Programs(one_run, one_loop, stacked=padded is not None, missing=chip.missing)

    def call(self, num_steps: Array, interpret: bool) -> Loop:
        """The loop after `num_steps` steps."""
        tile, shared = self.tile, self.chip.shared
        tiles = -(-self.count // int(np.prod(tile)))
        lay_out = functools.partial(Leaf.laid_out, tiles=tiles, tile=tile)
        networks = list(map(lay_out, self.run_leaves, self.run))
        states = list(map(lay_out, self.loop_leaves, self.loop))
        series = [jnp.asarray(one) for one in self.programs.glide.series]
        state_specs = [leaf.spec(tile, shared) for leaf in self.loop_leaves]
        network_specs = [leaf.spec(tile, shared) for leaf in self.run_leaves]
        ends = pl.pallas_call(
            functools.partial(self.kernel, len(series)),
            grid=(tiles,),
            in_specs=[shared, *(shared for _ in series), *network_specs, *state_specs],
            out_specs=state_specs,
            out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in states],
            compiler_params=None if interpret else self.chip.options(self.padded is not None),
            interpret=interpret,
            name="fixed_steps",
        )(num_steps[None], *series, *networks, *states)
        ends = [leaf.taken_back(array, self.count) for leaf, array in zip(self.loop_leaves, ends, strict=True)]
        loop = jax.tree.unflatten(self.loop_tree, [num_steps, *ends])
        return eqx.tree_at(lambda loop: loop.result, loop, loop.result.astype(jnp.int8))

    def kernel(self, tables: int, until: Any, *refs: Any) -> None:
        """What runs for each tile."""
        series, refs = refs[:tables], refs[tables:]
        networks, refs = refs[: len(self.run)], refs[len(self.run) :]
        states, ends = refs[: len(self.loop)], refs[len(self.loop) :]
        kept = [
            leaf.rows(ref) if leaf.entries <= KEPT_ENTRIES or not leaf.is_matrix else None
            for leaf, ref in zip(self.run_leaves, networks, strict=True)
        ]

        def run_at(moment: Any) -> Run:
            moment = moment if self.chip.hoists else None
            rows = [
                leaf.loads(ref, moment) if rows is None else rows
                for rows, leaf, ref in zip(kept, self.run_leaves, networks, strict=True)
            ]
            return jax.tree.unflatten(self.run_tree, rows)

        rows = [leaf.rows(ref) for leaf, ref in zip(self.loop_leaves, states, strict=True)]
        loop = jax.tree.unflatten(self.loop_tree, [one_row(jnp.int32(0)), *rows])
        lists = [Table(functools.partial(_entry, ref), ref.shape[0]) for ref in series]
        end = march_tile(self.programs, run_at, loop, until[0], self.tile, lists)
        for leaf, ref, rows in zip(self.loop_leaves, ends, jax.tree.leaves(end)[1:], strict=True):
            leaf.store(ref, rows, self.tile)


def _entry(ref: Any, place: Any) -> Any:
    return ref[place]
