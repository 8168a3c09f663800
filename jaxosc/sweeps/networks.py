"""One member's network, from its weight draw and its place on the axes; the same function in and out of a trace."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..activations import AbstractActivation
from ..fields import AbstractField, CurrentRNN
from ..weights import AbstractWeight, Unconstrained
from .axes import Axis


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a network sits on the lane axes: scalars, or None for an axis that is not declared.

    A gain of None leaves the factor to whoever runs the network (lanes of different gain that share W).
    """

    gain: Any = None
    leak: Any = None
    asymmetry: Any = None
    custom: tuple[Any, ...] = ()


def build_network(
    weight: AbstractWeight,
    symmetric: Float[Array, "n n"] | None,
    activation: AbstractActivation,
    axes: tuple[Axis, ...],
    place: Place,
) -> AbstractField:
    """The field of W = gain (S + asymmetry M), with leak, and then every custom axis applied in order.

    **Arguments:** `weight` is S; `symmetric` is M (n, n), needed when `place.asymmetry` is given.

    **Raises:** `JaxoscError` when the function of an axis does not return a field of the same n and activation.
    """
    if place.asymmetry is not None:
        assert symmetric is not None
        weight = Unconstrained(weight.matrix() + place.asymmetry * symmetric)
    if place.gain is not None:
        weight = weight.scaled(place.gain)
    field: AbstractField = CurrentRNN(weight, activation, leak=0.0 if place.leak is None else place.leak)
    for axis, value in zip(axes, place.custom, strict=True):
        changed = axis.apply(field, value)
        if not isinstance(changed, CurrentRNN):
            raise JaxoscError(
                f"Got {type(changed).__name__} from the function of axis {axis.name!r}, expected the jo.CurrentRNN that"
                " it was given, with another weight, bias or leak: return eqx.tree_at(...) of the field."
            )
        if changed.size != field.size or not _same(changed.activation, activation):
            raise JaxoscError(
                f"Got another n or activation from the function of axis {axis.name!r}, expected those it was given:"
                " declare the axes neurons or activation for that."
            )
        if changed.drive is not None:
            raise JaxoscError(
                f"Got a drive from the function of axis {axis.name!r}, expected none, since the lanes of a sweep share"
                " no input: use jo.simulate for driven networks."
            )
        field = changed
    return field


def _same(one: AbstractActivation, other: AbstractActivation) -> bool:
    """Whether two activations are the same structure with the very same arrays; values may be traced."""
    (arrays, static), (others, other_static) = (eqx.partition(part, eqx.is_array) for part in (one, other))
    same = zip(jax.tree.leaves(arrays), jax.tree.leaves(others), strict=False)
    return bool(static == other_static) and all(a is b for a, b in same)
