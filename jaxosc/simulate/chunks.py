"""Members in chunks that fit the cache, each through its whole time loop before the next one starts.

A step touches every state of every lane a few times. With thousands of lanes these arrays are larger than the cache and
each step waits for memory; a chunk stays in the cache from its first step to its last. It also ends when its own lanes
have all left, and not when the last of all has. What becomes of a lane does not depend on the chunk it is in.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _choices
from .._cpu import loops_are_kernels
from ..solvers import Lanes
from ..solvers.lanes import own_axes
from .engine import LaneRun, run_lanes
from .native_loop import march_natively, native_loop
from .reducers import AbstractReducer
from .steppers import stepper_of

Found = TypeVar("Found")
"""What a run of lanes leaves behind: arrays with the lane axis last."""


def chunk_lanes(lanes: Lanes, dtype: Any, use: _choices.Use = "pieces") -> int:
    """How many lanes run together: a power of two. `use`, what a step does with W."""
    if jax.default_backend() != "cpu":
        return _choices.ACCELERATOR_LANES
    itemsize, own = np.dtype(dtype).itemsize, lanes.matrix.shape[-1] > 1
    if own and lanes.size >= _choices.LARGE_FROM:
        width = _choices.large_lanes(lanes.size, itemsize, use, loops_are_kernels())
    else:
        least = _choices.LEAST_OWN_LANES if own else _choices.LEAST_LANES
        width = np.clip(_choices.CHUNK_BYTES / (lanes.size * itemsize), least, _choices.MOST_LANES)
    return int(2 ** np.floor(np.log2(width)))


def run_in_chunks(
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    allow_native: bool = False,
    **options: Any,
) -> LaneRun:
    """As `run_lanes`, chunk by chunk. Call it inside a `jax.jit` of your own.

    `allow_native`: in C where that can be, which has no derivative.
    """
    in_c, count = native_loop(lanes, y0.dtype, solver, reducers) if allow_native else None, y0.shape[-1]
    if in_c is None:
        width = chunk_lanes(lanes, y0.dtype, stepper_of(solver).use)
    else:
        form = "neurons" if in_c.case.by_neuron else "own" if in_c.case.own else "shared"
        most = _choices.NATIVE_LANES[form]
        width = -(-count // -(-count // most))  # all alike, so that nothing is done twice
        options["forward"] = functools.partial(march_natively, in_c)
    return in_chunks(lambda lanes, y0: run_lanes(lanes, y0, solver, reducers, **options), lanes, y0, width)


def in_chunks(
    run: Callable[[Lanes, Float[Array, "n lanes"]], Found],
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    width: int | None = None,
    order: Int[Array, " lanes"] | None = None,
) -> Found:
    """`run` of these lanes and starts, chunk by chunk; its rules of differentiation hold for the whole.

    **Arguments:** `run`, whose results have the lane axis last; `width`, lanes in a chunk, `chunk_lanes` if None;
    `order`, which lanes to take first, second and so on: those that belong together. Results are in the order of the
    lanes whatever it is.
    """
    count = y0.shape[-1]
    width = chunk_lanes(lanes, y0.dtype) if width is None else width
    if count <= width:
        return run(lanes, y0)
    chunks = -(-count // width)

    def chunk(number: Array) -> Found:
        # The last chunk ends with the last lane, and does some of the one before again.
        begin = jnp.minimum(number * width, count - width)
        if order is None:
            return run(*_sliced(lanes, y0, lambda array: jax.lax.dynamic_slice_in_dim(array, begin, width, -1)))
        mine = jax.lax.dynamic_slice_in_dim(order, begin, width)
        return run(*_sliced(lanes, y0, lambda array: jnp.take(array, mine, axis=-1)))

    runs = jax.lax.map(chunk, jnp.arange(chunks))
    twice = chunks * width - count
    back = None if order is None else jnp.argsort(order)

    def joined(parts: Array) -> Array:
        """(chunks, ..., width) to (..., count)."""
        flat = jnp.moveaxis(parts, 0, -2).reshape(*parts.shape[1:-1], -1)
        if twice:
            border = (chunks - 1) * width
            flat = jnp.concatenate([flat[..., :border], flat[..., border + twice :]], axis=-1)
        return flat if back is None else jnp.take(flat, back, axis=-1)

    found: Found = jax.tree.map(joined, runs)
    return found


def _sliced(lanes: Lanes, y0: Array, part: Callable[[Array], Array]) -> tuple[Lanes, Array]:
    """`part` of the lanes and their starts; what all share stays whole."""
    mine = jax.tree.map(
        lambda axis, array: array if axis is None else part(array),
        own_axes(lanes),
        lanes,
        is_leaf=lambda leaf: leaf is None,
    )
    return mine, part(y0)
