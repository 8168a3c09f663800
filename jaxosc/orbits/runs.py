"""From a field and starts to a run with deviations, and back to the batch axes of the members.

What `lyapunov_spectrum`, `megno` and `gali` have in common: checks of what a person passes in, pairing of networks and
starts, one compiled program for all members.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from ..fields import AbstractField
from ..simulate.checked_facts import checked_facts
from ..simulate.devices import devices_for, spread
from ..simulate.members import Members, pair_members
from ..simulate.steppers import stepper_of
from ..solvers import lanes_of
from ..solvers.facts import Facts
from .growth import Growth, Schedule, grow, schedule_of
from .starts import floating
from .tangents import solver_for


class Options(NamedTuple):
    """What a run with deviations was asked for; the arguments of `lyapunov_spectrum` of the same names."""

    t0: Any
    t1: Any
    dt: Any
    transient: Any
    renormalise_every: Any
    samples: int
    solver: Any
    pairing: str
    escape_norm: Any
    args: Any
    key: Any


class Found(NamedTuple):
    """The run of all members, whose axes come last in `growth`; how it was cut up; `size` is n.

    `later_axes`: of how many of the members' last axes the networks have no part.
    """

    growth: Growth
    schedule: Schedule
    size: int
    batch_shape: tuple[int, ...]
    later_axes: int = 0

    def of_networks(self, value: Array) -> Array:
        """What each network has one of, for each member."""
        return jnp.broadcast_to(value.reshape(*value.shape, *(1,) * self.later_axes), self.batch_shape)


def run_with_deviations(field: Any, y0: Any, options: Options, count: int | None, *, orthogonal: bool) -> Found:
    """Run every member with `count` deviations (None: as many as there are neurons).

    **Raises:** `JaxoscError` for what cannot be run, before anything is compiled.
    """
    y0 = _checked_start(field, y0)
    n = y0.shape[-1]
    count = n if count is None else count
    _check(options, count, n)
    solver, dtype = solver_for(field, options.solver), y0.dtype
    schedule = schedule_of(
        options.t0, options.t1, options.dt, options.transient, options.samples, options.renormalise_every
    ).cast(dtype)
    frame = frame_of(options.key, n, count, dtype)
    traced = not is_concrete((field, y0, schedule, options.args, options.escape_norm))
    settings = dict(samples=options.samples, orthogonal=orthogonal, allow_native=not traced)
    if not isinstance(field, AbstractField):
        shape, flat = y0.shape[:-1], jnp.asarray(y0).reshape(-1, n).T
        growth = _grow_compiled(field, flat, frame, solver, schedule, options.escape_norm, options.args, settings)
        return Found(_unflattened(growth, shape), schedule, n, shape)
    stepper_of(solver)  # tells what is no solver before anything is compiled
    members = pair_members(field, y0, options.pairing)
    facts = None if traced else checked_facts(field, stepper_of(solver))
    devices = () if traced else devices_for((field, y0), members.count)
    growth = _grow_members_compiled(members, frame, solver, schedule, options.escape_norm, facts, devices, settings)
    shape = members.batch_shape
    return Found(_unflattened(growth, shape), schedule, n, shape, members.later_axes)


def frame_of(key: Any, n: int, count: int, dtype: Any) -> Float[Array, "n k"]:
    """Orthonormal deviations to start with, the same ones for all members.

    A random frame, so that none of them lies in a part of a network that does not hear of the rest.
    """
    with jax.ensure_compile_time_eval():
        key = jax.random.key(0) if key is None else key
    # Drawn in float32, so that runs in both types start with the same frame.
    frame, _ = jnp.linalg.qr(jax.random.normal(key, (n, count), jnp.float32).astype(dtype))
    return frame


@eqx.filter_jit
def _grow_compiled(
    field: Any, y0: Array, frame: Array, solver: Any, schedule: Schedule, escape_norm: Any, args: Any, settings: Any
) -> Growth:
    return grow(field, y0, frame, solver, schedule, escape_norm, args=args, **settings)


@eqx.filter_jit
def _grow_members_compiled(
    members: Members,
    frame: Array,
    solver: Any,
    schedule: Schedule,
    escape_norm: Any,
    facts: Facts | None,
    devices: tuple[jax.Device, ...],
    settings: Any,
) -> Growth:
    field, starts = members.whole()
    lanes = lanes_of(field, facts)
    stepper_of(solver).require(lanes)

    def run(lanes: Any, y0: Array) -> Growth:
        return grow(lanes, y0, frame, solver, schedule, escape_norm, **settings)

    return spread(run, lanes, starts.T, devices)


def _unflattened(growth: Growth, shape: tuple[int, ...]) -> Growth:
    return jax.tree.map(lambda array: array.reshape(*array.shape[:-1], *shape), growth)


def _checked_start(field: Any, y0: Any) -> Array | np.ndarray:
    if isinstance(field, AbstractField):
        return floating(field, "y0", y0)
    if not callable(field):
        raise JaxoscError(
            f"Got the field {field!r}, expected a jo.CurrentRNN, a jo.RateRNN or a function f(t, y, args): pass one."
        )
    y0 = y0 if isinstance(y0, np.ndarray) else jnp.asarray(y0)
    if not jnp.issubdtype(y0.dtype, jnp.floating):
        y0 = y0.astype(jnp.result_type(float))
    require_finite("y0", y0)
    if y0.ndim == 0 or 0 in y0.shape:
        raise JaxoscError(f"Got y0 of shape {y0.shape}, expected (..., n) with at least one start: pass one.")
    return y0


def _check(options: Options, count: int, n: int) -> None:
    require_positive("dt", options.dt)
    require_positive("escape_norm", options.escape_norm)
    require_positive("renormalise_every", options.renormalise_every)
    for name in ("t0", "t1", "transient"):
        require_finite(name, getattr(options, name))
    if count not in range(1, n + 1):
        raise JaxoscError(f"Got {count} deviations, expected a whole number from 1 to n = {n}: ask for fewer.")
    if not (isinstance(options.samples, int) and options.samples >= 4):
        raise JaxoscError(
            f"Got samples = {options.samples!r}, expected a whole number >= 4, which the error estimate needs."
        )
    times = options.t0, options.t1, options.transient
    if is_concrete(times) and not (options.transient >= 0 and options.t1 - options.t0 > options.transient):
        raise JaxoscError(
            f"Got t0 = {options.t0}, t1 = {options.t1} and transient = {options.transient}, expected t1 > t0 +"
            " transient >= t0: the run needs time that counts."
        )
