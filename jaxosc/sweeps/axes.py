"""Axes of the user's own, beside those that every sweep knows."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .._errors import JaxoscError
from .fingerprint import fingerprint, load_reference
from .values import numbers

STATIC_AXES = ("activation", "solver", "weight_law", "neurons")
"""Axes along which every value is a program of its own: names, and the size n."""

RESERVED_NAMES = (*STATIC_AXES, "gain", "dt", "leak", "asymmetry", "draw", "ic")


@dataclasses.dataclass(frozen=True)
class Axis:
    """A declared axis of numbers with your own meaning.

    **Arguments:**

    - `name`: the dimension's name in the dataset, a Python identifier.
    - `values`: finite numbers: a list, an array, or `{"start": .., "stop": .., "num": .., "scale": "log"}`.
    - `apply`: `apply(field, value) -> field`, called for one network with gain, leak and asymmetry already in place.
      It may change `weight`, `bias` and `leak`, not the activation nor n. It is traced by JAX: `value` is a scalar
      array of the run's dtype. Or a reference, "file.py:function" or "module:function".
    - `units`, `long_name`: attributes of the coordinate.

    **Raises:** `JaxoscError` for a name that is taken or no identifier, bad values, and an `apply` that is no function.

    Example: a constant input of several sizes.

        jo.sweeps.Axis("drive", [0, 0.1, 1], lambda field, value: eqx.tree_at(
            lambda f: f.bias, field, value * jnp.ones(field.size), is_leaf=lambda leaf: leaf is None))
    """

    name: str
    values: Any
    apply: Any
    units: str = "1"
    long_name: str = ""
    reference: str | None = dataclasses.field(default=None, init=False)
    fingerprint: str = dataclasses.field(default="", init=False)

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in RESERVED_NAMES:
            raise JaxoscError(
                f"Got an axis named {self.name!r}, expected an identifier that is none of {', '.join(RESERVED_NAMES)}:"
                " choose another name."
            )
        function, reference, digest = _function_of(self.name, self.apply)
        made = {"values": numbers(f"axes.{self.name}.values", self.values), "apply": function}
        for name, value in (made | {"reference": reference, "fingerprint": digest}).items():
            object.__setattr__(self, name, value)  # the way of frozen dataclasses


def _function_of(name: str, apply: Any) -> tuple[Callable[..., Any], str | None, str]:
    """The function, its reference if it has one, and its fingerprint."""
    loaded = load_reference(apply) if isinstance(apply, str) and ":" in apply else None
    function = loaded.value if loaded else apply
    if not callable(function):
        raise JaxoscError(
            f"Got axes.{name}.apply = {apply!r}, expected a function apply(field, value) -> field, or a reference to"
            ' one as "file.py:function".'
        )
    if loaded:
        return function, loaded.reference, loaded.fingerprint
    return function, None, fingerprint(function)
