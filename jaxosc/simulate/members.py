"""From fields and starts with any leading batch axes to one flat list of members, and back.

`zip` lets the batch axes of field and start broadcast against each other as NumPy does; `product` runs every network
from every start: axes of the field first, then those of the start. Members are only index pairs until a block of them
is run, so a million starts on a thousand networks do not copy a weight a million times.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..fields import AbstractField

PAIRINGS = ("zip", "product")


class Members(eqx.Module):
    """A flat list of members: `field_index[k]` and `start_index[k]` say which network and which start make member k.

    **Attributes:** `field` with all batch axes flattened to one (or none, when every member shares it); `starts`
    (s, n); `batch_shape`, what results are reshaped to.
    """

    field: AbstractField
    starts: Float[Array, "s n"]
    field_index: np.ndarray
    start_index: np.ndarray
    batch_shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def count(self) -> int:
        """How many members there are."""
        return len(self.start_index)

    def block(self, begin: int, width: int) -> tuple[AbstractField, Float[Array, "width n"]]:
        """Networks and starts of `width` members from number `begin` on, the last one repeated past the end."""
        picked = np.minimum(np.arange(begin, begin + width), self.count - 1)
        starts = self.starts[self.start_index[picked]]
        if not self.field.batch_shape:
            return self.field, starts
        indices = self.field_index[picked]
        pick = jax.tree.map(
            lambda leaf, axis: leaf if axis is None else leaf[indices], self.field, batch_axes(self.field)
        )
        return pick, starts


def batch_axes(field: AbstractField) -> Any:
    """For `jax.vmap` over the networks of a flattened batch: 0 at every array, None at the drive, which all share."""
    axes = jax.tree.map(lambda _: 0, field)
    return eqx.tree_at(
        lambda f: f.drive, axes, jax.tree.map(lambda _: None, field.drive), is_leaf=lambda leaf: leaf is None
    )


def pair_members(field: AbstractField, y0: Float[Array, "*batch n"], pairing: str) -> Members:
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
        padded_networks, padded_starts = networks, starts
    elif pairing == "product":
        shape = networks + starts
        padded_networks, padded_starts = networks + (1,) * len(starts), starts
    else:
        raise JaxoscError(f"Got pairing = {pairing!r}, expected one of {', '.join(PAIRINGS)}.")
    return Members(
        field=_flattened(field),
        starts=y0.reshape(-1, y0.shape[-1]),
        field_index=_flat_index(padded_networks, shape),
        start_index=_flat_index(padded_starts, shape),
        batch_shape=shape,
    )


def _flat_index(own: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    numbers = np.arange(int(np.prod(own))).reshape(own)
    return np.broadcast_to(numbers, shape).reshape(-1)


def _flattened(field: AbstractField) -> AbstractField:
    """The same networks with their batch axes flattened into one leading axis of every array."""
    batch = field.batch_shape
    if not batch:
        return field

    def flat(leaf: Any, own_batch: tuple[int, ...]) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        core = leaf.shape[len(own_batch) :]
        padded = leaf.reshape((1,) * (len(batch) - len(own_batch)) + leaf.shape)
        return jnp.broadcast_to(padded, batch + core).reshape(-1, *core)

    weight = jax.tree.map(lambda leaf: flat(leaf, field.weight.batch_shape), field.weight)
    bias = None if field.bias is None else flat(field.bias, field.bias.shape[:-1])
    leak = flat(field.leak, field.leak.shape)
    replaced = eqx.tree_at(lambda f: (f.weight, f.leak), field, (weight, leak))
    return eqx.tree_at(lambda f: f.bias, replaced, bias, is_leaf=lambda leaf: leaf is None)
