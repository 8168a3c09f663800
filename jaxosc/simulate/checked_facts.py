"""What is asked of values, and made of them, before they disappear into a compiled program."""

from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from .._checks import is_concrete
from ..fields import AbstractField
from ..solvers import Lanes, lanes_of
from ..solvers.facts import Facts, facts_of
from .members import Members


class _Judge(Protocol):
    """A stepper or an adaptive method."""

    @property
    def looks_at_values(self) -> bool: ...

    def require(self, lanes: Lanes) -> None: ...


def checked_facts(field: AbstractField, judge: _Judge) -> Facts:
    """What the values of these networks show, once the judge has seen that they suit.

    **Raises:** as `judge.require`, which is asked again within the program and raises there what shapes show.
    """
    facts = facts_of(field)
    if judge.looks_at_values and (facts.leaks or field.bias is not None):
        networks, _ = Members(field, jnp.zeros(field.size), field.batch_shape, 0).whole()
        judge.require(lanes_of(networks))
    return facts


def constant(value: Any, dtype: Any) -> Any:
    """An array of that dtype, for a compiled program; what is known stays with NumPy.

    A conversion by JAX takes as long as many steps, and is a program of its own.
    """
    return np.asarray(value, dtype) if is_concrete(value) else jnp.asarray(value, dtype)
