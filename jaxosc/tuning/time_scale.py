"""The same orbit run faster or slower: what every other way of tuning a frequency is measured against.

With W, bias and leak all c times as large, y(t) becomes y(c t): the orbit stays and every frequency on it is multiplied
by c, exactly, chaos and all. In the rate form r' = sigma(W r + b) - leak r the state shrinks, r(c t)/c, as W and leak
grow, and y = W r + b is again the same. So one frequency alone needs no gradient, and networks of any speed can be
measured with one step size and one window once they are made to turn about once in a unit of time.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..fields import AbstractField, RateRNN
from ..simulate.members import pair_members


def rescaled(
    field: AbstractField, y0: Float[Array, "*batch n"], factor: Float[Array, "*batch"]
) -> tuple[AbstractField, Float[Array, "*batch n"]]:
    """Network and start whose orbit is that of `field` from `y0` run `factor` times as fast.

    Network, start and factor have the same batch axes. Exact up to one rounding of each parameter.

    **Raises:** `JaxoscError` for a driven network, whose input keeps its own time.
    """
    if field.drive is not None:
        raise JaxoscError("Got a driven network, expected one without drive, whose frequencies are its own.")
    weight, leak = field.weight.scaled(factor), jnp.broadcast_to(field.leak, factor.shape) * factor
    field = eqx.tree_at(lambda f: (f.weight, f.leak), field, (weight, leak))
    if isinstance(field, RateRNN):
        return field, y0 / factor[..., None]
    if field.bias is None:
        return field, y0
    return eqx.tree_at(lambda f: f.bias, field, field.bias * factor[..., None]), y0


def as_members(
    field: AbstractField, y0: Any, pairing: str = "zip"
) -> tuple[AbstractField, Float[Array, "members n"], tuple[int, ...]]:
    """Networks and starts as one flat batch in which each has a network of its own, and the batch axes they had."""
    members = pair_members(field, y0, pairing)
    networks, starts = members.whole()
    if not networks.batch_shape:
        count = len(starts)
        networks = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), networks)
    return networks, starts, members.batch_shape


def fastest_rates(field: AbstractField) -> Float[Array, "*batch"]:
    """Of each network the spectral norm of W, the largest angular frequency of y' = W y when W is skew."""
    return jnp.linalg.norm(field.weight.matrix(), 2, axis=(-2, -1))
