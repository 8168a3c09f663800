"""Members spread over all local devices, each with its own part and its own time loop.

Nothing is exchanged on the way: a loop that asks "is any lane alive" of all devices would wait for all in every step
(`shard_map` keeps the question to the device, automatic sharding would not). What becomes of a lane does not depend on
the device or on the lanes beside it, so one device and eight give the same bits. Results stay where they were computed.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from ..solvers import Lanes
from ..solvers.lanes import own_axes

Found = TypeVar("Found")

LEAST_SHARE = 64
"""Members that a device must get for its sake to be asked."""


def devices_for(parts: Any, count: int) -> tuple[jax.Device, ...]:
    """The devices that `count` members made of these arrays are spread over.

    Where one of them was put somewhere on purpose, they run there.
    """
    devices = tuple(jax.local_devices())
    placed = [leaf for leaf in jax.tree.leaves(parts) if isinstance(leaf, jax.Array) and leaf.committed]
    if placed:
        return tuple(placed[0].devices())[:1]
    return devices if count >= LEAST_SHARE * len(devices) else devices[:1]


def spread(
    run: Callable[[Lanes, Float[Array, "n lanes"]], Found],
    lanes: Lanes,
    y0: Float[Array, "n lanes"],
    devices: tuple[jax.Device, ...],
) -> Found:
    """`run` of these lanes on the devices, an equal share each; its results have the lane axis last.

    Call it inside a `jax.jit` of your own.
    """
    if len(devices) <= 1:
        return run(lanes, y0)
    count, axes = y0.shape[-1], own_axes(lanes)
    missing = -count % len(devices)

    def padded(axis: int | None, array: Any) -> Any:
        return array if axis is None or not missing else jnp.concatenate([array, array[..., :missing]], axis=-1)

    def spec(axis: int | None, array: Any) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * (array.ndim - 1), "members")

    lanes, y0 = _over(padded, axes, lanes), padded(-1, y0)
    shapes: Any = jax.eval_shape(run, lanes, y0)
    together = jax.shard_map(
        run,
        mesh=Mesh(np.array(devices), ("members",)),
        in_specs=(_over(spec, axes, lanes), spec(-1, y0)),
        out_specs=jax.tree.map(lambda shape: spec(-1, shape), shapes),
        check_vma=False,
    )
    found: Found = jax.tree.map(lambda array: array[..., :count], together(lanes, y0))
    return found


def _over(function: Callable[[int | None, Any], Any], axes: Lanes, lanes: Lanes) -> Any:
    return jax.tree.map(function, axes, lanes, is_leaf=lambda leaf: leaf is None)
