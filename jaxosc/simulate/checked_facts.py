"""What is asked of the values of networks before they disappear into a compiled program."""

from typing import Protocol

import jax.numpy as jnp

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
