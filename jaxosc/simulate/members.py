"""From fields and starts with any leading batch axes to one flat list of members, and back.

`zip` lets the batch axes of field and start broadcast against each other as NumPy does; `product` runs every network
from every start: axes of the field first, then those of the start. Nothing is copied until members are asked for, so a
million starts on a thousand networks do not copy a weight a million times; and nothing is computed before that, so that
asking within a `jax.jit` makes the pairing part of that program.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._errors import JaxoscError
from ..fields import AbstractField

PAIRINGS = ("zip", "product")

Shape = tuple[int, ...]


class Members(eqx.Module):
    """Networks and starts as they were given, and how they pair.

    **Attributes:** `field` and `starts` (..., n); `batch_shape`, what results are reshaped to; `later_axes`, how many
    of its last axes the networks have no part in.
    """

    field: AbstractField
    starts: Float[Array | np.ndarray, "*batch n"]
    batch_shape: Shape = eqx.field(static=True)
    later_axes: int = eqx.field(static=True)

    @property
    def count(self) -> int:
        """How many members there are."""
        return math.prod(self.batch_shape)

    def whole(self) -> tuple[AbstractField, Float[Array, "members n"]]:
        """Networks, with one leading batch axis or none if all share one, and starts of all members."""

        def spread(array: Any, own: Shape, core: Shape) -> Array:
            placed = jnp.asarray(array).reshape(own + core)
            return jnp.broadcast_to(placed, self.batch_shape + core).reshape(-1, *core)

        return self._taken(spread)

    def block(self, begin: Any, width: int) -> tuple[AbstractField, Float[Array, "width n"]]:
        """The same of `width` members from number `begin` (may be traced) on, the last one repeated past the end."""
        numbers = jnp.minimum(begin + jnp.arange(width), self.count - 1)

        def picked(array: Array, own: Shape, core: Shape) -> Array:
            return jnp.asarray(array).reshape(-1, *core)[self._places(numbers, own)]

        return self._taken(picked)

    def _taken(self, take: Callable[[Array, Shape, Shape], Array]) -> tuple[AbstractField, Array]:
        """`take` of all that members have of their own, given its batch axes, one for each of all, and the others."""

        def taken(array: Any, own: Shape, later: int) -> Array:
            core = array.shape[len(own) :]
            own = own + (1,) * later
            return take(array, (1,) * (len(self.batch_shape) - len(own)) + own, core)

        starts = taken(self.starts, self.starts.shape[:-1], 0)
        field = self.field
        if not field.batch_shape:
            return field, starts

        def of_networks(tree: Any, own: Shape) -> Any:
            return jax.tree.map(lambda leaf: taken(leaf, own, self.later_axes), tree)

        replaced = {
            "weight": of_networks(field.weight, field.weight.batch_shape),
            "activation": of_networks(field.activation, field.batch_shape),
            "bias": None if field.bias is None else of_networks(field.bias, field.bias.shape[:-1]),
            "leak": of_networks(field.leak, field.leak.shape),
        }
        for name, part in replaced.items():
            if jax.tree.leaves(part):
                field = eqx.tree_at(operator.attrgetter(name), field, part)
        return field, starts

    def _places(self, numbers: Int[Array, " width"], own: Shape) -> Int[Array, " width"]:
        """Where members of these numbers find theirs in a flat array with batch axes `own`, 1 where it is shared."""
        place, stride, turns = jnp.zeros_like(numbers), 1, 1
        for size, own_size in zip(reversed(self.batch_shape), reversed(own), strict=True):
            if own_size > 1:
                place = place + (numbers // turns) % size * stride
            stride, turns = stride * own_size, turns * size
        return place


def batch_axes(field: AbstractField) -> Any:
    """For `jax.vmap` over the networks of a flattened batch: 0 at every array, None at the drive, which all share."""
    axes = jax.tree.map(lambda _: 0, field)
    return eqx.tree_at(
        lambda f: f.drive, axes, jax.tree.map(lambda _: None, field.drive), is_leaf=lambda leaf: leaf is None
    )


def pair_members(field: AbstractField, y0: Float[Array | np.ndarray, "*batch n"], pairing: str) -> Members:
    """Pair the networks of `field` with the starts `y0` (..., n).

    **Raises:** `JaxoscError` when the axes do not broadcast (zip), and for an unknown pairing.
    """
    networks, starts = field.batch_shape, y0.shape[:-1]
    if pairing == "zip":
        try:
            shape = np.broadcast_shapes(networks, starts)
        except ValueError:
            raise JaxoscError(
                f"Got {networks} networks and {starts} starts, expected batch axes that broadcast: match them, or pass"
                ' pairing="product" for every network from every start.'
            ) from None
        return Members(field, y0, shape, 0)
    if pairing == "product":
        return Members(field, y0, networks + starts, len(starts))
    raise JaxoscError(f"Got pairing = {pairing!r}, expected one of {', '.join(PAIRINGS)}.")
