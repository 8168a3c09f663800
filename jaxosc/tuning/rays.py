"""The start whose orbit has a wanted frequency: along a ray from rest, as frequencies depend on amplitude.

For tanh-like activations the pair is fastest near rest, where it turns with its linear frequency, and slower the
farther out. The frequency along the ray s y0 is looked at on a grid of s, and between two values of the grid that have
the target between them the root is found by false position with halving (the Illinois rule): it never leaves the
bracket, needs no derivative, and gains digits almost as fast as the secant method.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..fields import AbstractField
from .measures import AbstractMeasure
from .outcomes import Outcome
from .time_scale import fastest_rates
from .tuned import Tuned, stacked
from .turning import fastest_bound, measured_in_groups

SIZES = 2.0 ** np.arange(-6, 5.1, 0.5)
"""Of the largest entry of a start, at which frequencies are looked at: from linear to deep saturation."""

MOST_STEPS = 40


def start_of_frequency(
    networks: AbstractField,
    starts: Float[Array, "members n"],
    targets: Array,
    measure: AbstractMeasure,
    limit: float,
    watch: Any,
) -> Tuned:
    """Starts s y0 with frequencies `targets`; of several s the one nearest to 1. Members (m,), concrete."""
    wanted = np.asarray(targets, np.float64)
    moving = np.asarray(fastest_rates(networks)) > 0

    largest = np.abs(np.asarray(starts, np.float64)).max(axis=1)
    moving &= largest > 0
    factors = SIZES[:, None] / np.where(moving, largest, 1)

    def off(scale: np.ndarray) -> np.ndarray:
        """log(f / target) at the starts scale y0, all measured with the window of the target."""
        fastest = np.where(moving, np.minimum(fastest_bound(networks, 1 / wanted), 2**20), 0)
        found = measured_in_groups(
            networks, starts * jnp.asarray(scale, starts.dtype)[:, None], measure, 1 / wanted, fastest
        )
        frequency = np.asarray(found.frequency, np.float64)
        return np.log(np.where(frequency > 0, frequency, np.nan) / wanted)

    grid = []
    for number, factor in enumerate(factors):
        grid.append(off(factor))
        watch(int(60 * (number + 1) / len(factors)))
    low, high, inside = _bracket(np.stack(grid), factors)
    ends, values = (
        [table[place, np.arange(len(wanted))] for place in (low, high)] for table in (factors, np.stack(grid))
    )
    scale, value, lines = _false_position(off, ends, values, inside, limit, watch)
    reached = inside & (np.abs(value) <= limit)
    result = np.where(reached, Outcome.reached, np.where(inside, Outcome.not_sharp, Outcome.out_of_range))
    result = np.where(moving, result, Outcome.at_rest)
    scale = np.where(inside, scale, 1)
    y0 = starts * jnp.asarray(scale, starts.dtype)[:, None]
    frequency = jnp.asarray(wanted * np.exp(value), starts.dtype)
    error = jnp.zeros_like(frequency)
    return Tuned(networks, y0, frequency, targets, error, jnp.asarray(result, jnp.int8), stacked(lines))


def _bracket(grid: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours (sizes, members) between which the sign changes, those whose factor is nearest to 1; if there are."""
    changes = np.sign(grid[:-1]) * np.sign(grid[1:]) <= 0
    # A line that jumps is no root: between neighbours half an octave apart frequencies change by less than that.
    changes &= np.abs(grid[:-1] - grid[1:]) < np.log(2)
    distance = np.abs(np.log(factors[:-1] * factors[1:]))
    place = np.argmin(np.where(changes, distance, np.inf), axis=0)
    return place, place + 1, changes.any(axis=0)


def _false_position(
    off: Any, ends: list[np.ndarray], values: list[np.ndarray], inside: np.ndarray, limit: float, watch: Any
) -> tuple[np.ndarray, np.ndarray, list[Array]]:
    """Roots between the ends; frequencies of every step go into the list as f / target."""
    (a, b), (fa, fb) = ends, values
    scale, value, lines = b, fb, []
    for step in range(MOST_STEPS):
        slope = np.where(fb == fa, 1, fb - fa)
        scale = np.where(inside, b - fb * (b - a) / slope, 1)
        value = off(scale)
        lines.append(jnp.asarray(np.exp(value)))
        watch(60 + step, reached=float((np.abs(value) <= limit).mean()))
        if not (inside & (np.abs(value) > limit / 2)).any():
            break
        crossed = np.sign(value) != np.sign(fb)
        a, fa = np.where(crossed, b, a), np.where(crossed, fb, fa / 2)
        b, fb = scale, value
    return scale, value, lines
