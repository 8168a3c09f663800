"""What checks the signatures of jaxosc while the tests run; conftest.py puts it on every function of the package."""

from typing import Any, Self, TypeVar

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintPep3119Exception

Checked = TypeVar("Checked")

_beartype = beartype(
    conf=BeartypeConf(
        # Beartype knows `Self` only in classes that it decorates whole; the hook decorates methods one by one.
        hint_overrides=FrozenDict({Self: Any}),
        # As type checkers have it: an int is welcome where a float is asked for.
        is_pep484_tower=True,
    )
)


def check(thing: Checked) -> Checked:
    """The function or class with its annotations enforced.

    One that takes a protocol which cannot be asked at run time (pydantic's ValidationInfo) stays as it is.
    """
    try:
        return _beartype(thing)
    except BeartypeDecorHintPep3119Exception:
        return thing
