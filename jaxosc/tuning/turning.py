"""Networks of any speed made to turn once in a unit of time, and the frequency that follows.

The frequency of an orbit is not known before it has been measured, and how long and how finely to look depends on it.
So each network is first run as fast as its fastest linear mode turns once, measured, run by what was measured faster
or slower, and so on: `time_scale` makes each round exact, and two to four rounds settle it. Members whose fastest mode
turns much faster than the measured line need shorter steps; those of similar need go together.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import is_concrete
from .._errors import JaxoscError
from ..fields import AbstractField
from ..orbits.starts import floating, held_still
from .measures import AbstractMeasure, Measured, checked_measure
from .time_scale import as_members, fastest_rates, rescaled

MOST_ROUNDS = 4

SETTLED = 0.3
"""A network that turns by no more than this too fast or too slow is measured as well as one that turns once."""

MOST_FASTEST = 64
"""So many times in a turn of the measured line the fastest mode may turn; slower lines are left, too dear."""

BLOCK_NUMBERS = 2**24
"""Most numbers of a trajectory block, so that a spectrum of many members stays within memory (128 MiB in float64)."""


class Turning(eqx.Module):
    """Networks made to turn about once: `factor` (members,) by which each was sped up, `measured` then, and `fastest`
    (members,) the bound on turns of its fastest mode, a power of two, 0 where it was not followed.
    """

    factor: Float[Array, " members"]
    measured: Measured
    fastest: Int[np.ndarray, " members"]
    moving: Bool[np.ndarray, " members"]


def orbit_frequency(field: Any, y0: Any, *, measure: Any = None, near: Any = None, pairing: str = "zip") -> Measured:
    """The frequency of the orbit of a network through `y0`, as a function of both that can be differentiated.

    The measure is a closed form for the pair, returns to a section for other pairs, and the dominant spectral line for
    larger networks. Differentiable forward and backward; relative error of value and gradient: 1e-15 (closed form),
    1e-11 and 1e-10 (`Returns`), 1e-8 to 1e-11 (`Line` on tori, by how near other lines are).

    **Arguments:**

    - `field`, `y0` (..., n), `pairing`: as in `jo.simulate`.
    - `measure`: `jo.tuning.PairFormula()`, `Returns()`, `EventReturns()`, `Line()`, `Rotation()`; None as above.
    - `near`: (...) the frequency within a few per cent. None looks for it; within a transformation it has to be given,
      and steps are then chosen for a fastest mode that turns up to eight times in a turn of the line.

    **Returns:** `Measured`, frequencies (...) in cycles per unit of time and errors; NaN where there is none.

    **Raises:** `JaxoscError` for wrong shapes, driven networks, a measure that refuses the network, and a missing
    `near` within a transformation.

    Example: `jax.grad(lambda w: orbit_frequency(jo.CurrentRNN(w), y0, near=0.13).frequency)(weight)`.
    """
    networks, starts, shape = members_of(field, y0, pairing)
    measure = checked_measure(measure, field)
    still = held_still((networks, starts))
    if near is not None:
        factor = jnp.broadcast_to(1 / jnp.asarray(near, starts.dtype), shape).reshape(-1)
        fastest = fastest_bound(still[0], factor) if is_concrete((networks, near)) else 8 * np.ones(len(starts), int)
    elif is_concrete((networks, starts)):
        turning = made_to_turn(networks, starts, measure)
        factor, fastest = turning.factor, turning.fastest
    else:
        raise JaxoscError("Got no near within a JAX transformation, expected the frequency roughly: measure it before.")
    found = frequency_at(networks, starts, measure, factor, int(max(fastest.max(), 1)))
    return Measured(found.frequency.reshape(shape), found.error.reshape(shape))


def members_of(field: Any, y0: Any, pairing: str) -> tuple[AbstractField, Float[Array, "members n"], tuple[int, ...]]:
    """`as_members` after the checks that every way of tuning makes.

    **Raises:** `JaxoscError` for what is no network without drive, and no start of its size.
    """
    if not isinstance(field, AbstractField):
        raise JaxoscError(f"Got the field {field!r}, expected a jo.CurrentRNN or jo.RateRNN: build one from a weight.")
    if field.drive is not None:
        raise JaxoscError("Got a driven network, expected one without drive, whose frequencies are its own.")
    return as_members(field, floating(field, "y0", y0), pairing)


def frequency_at(
    networks: AbstractField, starts: Float[Array, "members n"], measure: AbstractMeasure, factor: Array, fastest: int
) -> Measured:
    """Frequencies of members that turn once when run `factor` times as fast; differentiable, `factor` is not."""
    factor = jax.lax.stop_gradient(factor)
    quick, begins = rescaled(networks, starts, factor)
    found = measure.of_turning(quick, begins, fastest)
    return Measured(found.frequency / factor, found.error / factor)


def made_to_turn(
    networks: AbstractField, starts: Float[Array, "members n"], measure: AbstractMeasure, tell: Any = None
) -> Turning:
    """Speed every member up until it turns about once in a unit of time, and measure it then; concrete members only.

    `factor` is measured roughly, in a few rounds. The run that counts is then one of fixed length in the network's own
    time, so that what it says is exactly `time_scale`: a network twice as fast gives twice the frequency, to rounding.
    """
    networks, starts = held_still((networks, starts))
    rates = np.asarray(fastest_rates(networks), np.float64)
    moving = rates > np.finfo(starts.dtype).tiny
    factor = 2 * np.pi / np.where(moving, rates, 1)
    waiting, cheap = moving, measure.rough()
    for round in range(MOST_ROUNDS):
        fastest = fastest_bound(networks, factor)
        waiting = waiting & (fastest <= MOST_FASTEST)
        if not waiting.any():
            break
        found = measured_in_groups(networks, starts, cheap, factor, np.where(waiting, fastest, 0))
        turns = np.asarray(found.frequency) * factor
        moving = moving & (~waiting | (turns > 0))
        waiting = waiting & moving
        factor = np.where(waiting, factor / np.where(waiting, turns, 1), factor)
        waiting = waiting & (np.abs(np.log(np.where(waiting, turns, 1))) > np.log(1 + SETTLED))
        if tell is not None:
            tell((round + 1) / (MOST_ROUNDS + 1))
    fastest = fastest_bound(networks, factor)
    fastest = np.where(moving & (fastest <= MOST_FASTEST), fastest, 0)
    measured = measured_in_groups(networks, starts, measure, factor, fastest)
    return Turning(jnp.asarray(factor, starts.dtype), measured, fastest, moving)


def fastest_bound(networks: AbstractField, factor: Any) -> Int[np.ndarray, " members"]:
    """How often the fastest mode of each member may turn in a unit of time at that factor: a power of two >= 1."""
    turns = np.asarray(fastest_rates(networks), np.float64) * np.asarray(factor) / (2 * np.pi)
    return (2 ** np.ceil(np.log2(np.clip(turns * 0.95, 1, 2.0**40)))).astype(int)


def measured_in_groups(
    networks: AbstractField,
    starts: Array,
    measure: AbstractMeasure,
    factor: Any,
    fastest: Int[np.ndarray, " members"],
) -> Measured:
    """Frequencies of all members that turn about once at the given factors; NaN where `fastest` is 0.

    Members of equal `fastest` go side by side, in blocks that fit into memory.
    """
    factor = np.asarray(factor, np.float64)
    if not measure.numbers(1):
        fastest = np.minimum(fastest, 1)
    frequencies, errors = np.full(len(factor), np.nan), np.full(len(factor), np.nan)
    for bound in np.unique(fastest[fastest > 0]):
        members = np.nonzero(fastest == bound)[0]
        size = _block_size(len(members), int(bound), measure, networks.size)
        for begin in range(0, len(members), size):
            mine = members[begin : begin + size]
            # A block of one length is one compiled program; the last member fills it up.
            padded = np.concatenate([mine, np.full(size - len(mine), mine[-1])])
            speed = jnp.asarray(factor[padded], starts.dtype)
            quick, begins = _taken_and_rescaled(networks, starts, padded, speed)
            found = measure.of_turning(quick, begins, int(bound))
            frequencies[mine] = np.asarray(found.frequency)[: len(mine)]
            errors[mine] = np.asarray(found.error)[: len(mine)]
    dtype = starts.dtype
    return Measured(jnp.asarray(frequencies / factor, dtype), jnp.asarray(errors / factor, dtype))


@eqx.filter_jit
def _taken_and_rescaled(
    networks: AbstractField, starts: Array, members: Int[Array | np.ndarray, " some"], speed: Array
) -> tuple[AbstractField, Array]:
    networks, starts = jax.tree.map(lambda leaf: leaf[members], (networks, starts))
    return rescaled(networks, starts, speed)


def _block_size(count: int, fastest: int, measure: AbstractMeasure, neurons: int) -> int:
    """A power of sixteen from 16 on, so that there are few lengths to compile for, or as many as fit into memory."""
    fitting = max(1, BLOCK_NUMBERS // (max(1, measure.numbers(fastest)) * neurons))
    return int(min(count if count == 1 else 16 ** math.ceil(math.log(count, 16)), 2 ** int(math.log2(fitting))))
