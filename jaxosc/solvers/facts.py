"""What the values of a network show, for programs that are compiled around it and see no values.

Taken outside of a trace and handed to `lanes_of` within one, so that building the lanes is part of the program.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from .._checks import is_concrete
from ..fields import AbstractField
from ..weights import AbstractWeight


class Facts(NamedTuple):
    """`leaks`: the leak is not known to be zero; `hollow` and `skew`: as in `Lanes`, by class or by value."""

    leaks: bool
    hollow: bool
    skew: bool


def facts_of(field: AbstractField) -> Facts:
    """What is true of all networks of a field, with any batch axes. A weight that tells it by class is not formed."""
    weight, kind = field.weight, type(field.weight)
    leaks = not (is_concrete(field.leak) and not np.any(np.asarray(field.leak)))
    skew = kind.skew or _has_energy_weights(weight)
    if (kind.hollow and skew) or not is_concrete(weight):
        return Facts(leaks, kind.hollow, skew)
    matrix = np.asarray(_matrix_of(weight))
    hollow = kind.hollow or not np.any(np.diagonal(matrix, axis1=-2, axis2=-1))
    return Facts(leaks, hollow, skew or np.array_equal(matrix, -np.swapaxes(matrix, -2, -1)))


def _has_energy_weights(weight: AbstractWeight) -> bool:
    return jax.eval_shape(_energy_weights_of, weight) is not None


def _energy_weights_of(weight: AbstractWeight) -> Array | None:
    return weight.energy_weights()


def _matrix_of(weight: AbstractWeight) -> Array:
    """(..., n, n), batch or not."""
    form = type(weight).matrix
    for _ in weight.batch_shape:
        form = jax.vmap(form)
    return form(weight)
