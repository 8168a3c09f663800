"""Networks and starts as a person passes them in, checked, paired, and laid out side by side.

What crossings, periods and periodic orbits have in common before their work begins.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from ..fields import AbstractField, require_size
from ..simulate.checked_facts import checked_facts
from ..simulate.devices import devices_for
from ..simulate.members import Members, pair_members
from ..simulate.steppers import stepper_of
from ..solvers.facts import Facts


class Prepared(NamedTuple):
    """Members ready to run. `traced`: within somebody's transformation; `facts`: None where the field is traced."""

    members: Members
    facts: Facts | None
    devices: tuple[jax.Device, ...]
    traced: bool


def prepare(field: Any, y0: Any, solver: Any, pairing: str = "zip", others: Any = ()) -> Prepared:
    """Pair networks and starts (..., n) for runs by `solver`; `others` is what else may be traced.

    **Raises:** `JaxoscError` for what is no network, no solver, or no start of its size.
    """
    stepper = stepper_of(solver)
    if not isinstance(field, AbstractField):
        raise JaxoscError(f"Got the field {field!r}, expected a jo.CurrentRNN or jo.RateRNN: build one from a weight.")
    members = pair_members(field, floating(field, "y0", y0), pairing)
    traced = not is_concrete((field, y0, others))
    facts = None
    if is_concrete(field):
        with jax.ensure_compile_time_eval():
            facts = checked_facts(field, stepper)
    devices = () if traced else devices_for((field, members.starts), members.count)
    return Prepared(members, facts, devices, traced)


def floating(field: AbstractField, name: str, y: Any) -> Float[Array | np.ndarray, "*batch n"]:
    """States (..., n) in the wider dtype of theirs and the network's.

    **Raises:** `JaxoscError` for another n, NaN, and no state at all.
    """
    y = y if isinstance(y, np.ndarray) else jnp.asarray(y)
    if y.dtype != field.dtype:
        y = y.astype(jnp.result_type(y, field.dtype))
    require_size(field, y)
    require_finite(name, y)
    if 0 in y.shape:
        raise JaxoscError(f"Got {name} of shape {y.shape}, expected at least one state: drop the empty axis.")
    return y


def require_times(t0: Any, t1: Any, dt: Any) -> None:
    """Raise one sentence unless t0 < t1 are finite and dt > 0 (traced values pass)."""
    require_finite("t0", t0)
    require_finite("t1", t1)
    require_positive("dt", dt)
    for name, value in (("t0", t0), ("t1", t1), ("dt", dt)):
        if np.ndim(value):
            raise JaxoscError(f"Got {name} of shape {np.shape(value)}, expected one number for all members.")
    if is_concrete((t0, t1)) and not t1 > t0:
        raise JaxoscError(f"Got t0 = {t0} and t1 = {t1}, expected t1 > t0: exchange them.")


def steps_between(t0: Any, t1: Any, dt: Any) -> tuple[Any, Any]:
    """The number of equal steps from t0 to t1 no longer than dt, and their size: plain numbers if the times are."""
    if not is_concrete((t0, t1, dt)):
        count = jnp.ceil((t1 - t0) / dt - 1e-6).astype(jnp.int32)
        return count, (t1 - t0) / count
    duration = float(t1) - float(t0)
    steps = max(1, math.ceil(duration / float(dt) - 1e-6))
    return steps, duration / steps


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raise one sentence unless `value` is a whole number >= `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise JaxoscError(f"Got {name} = {value!r}, expected a whole number >= {least}.")


def counted(name: str, flags: Any) -> str:
    """For people: "3 of 10 NAME"."""
    flags = np.asarray(flags)
    return f"{int(flags.sum()):,} of {flags.size:,} {name}"


def held_still(tree: Any) -> Any:
    """The same without derivatives."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.core.Tracer) else leaf, tree)
