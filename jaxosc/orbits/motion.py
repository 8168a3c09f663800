"""What an orbit does over a stretch of time, folded into sums while it runs: its size, its speed, and its returns.

A section is laid through the start of the stretch, at right angles to the first step. Where a step crosses it from
below, the cubic that has the states and slopes at both ends of the step is followed to the section, and the distance
from there to the start is a *return*: zero, up to O(dt^4), after every period of a closed orbit. Nothing is stored but
the smallest return, how many came closer than a limit, and when the first of these was.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._elementary import sum_rows
from .._results import Result
from ..solvers import Lanes
from .growth import with_those_outside
from .tangents import tangent_step_of

NEWTON_STEPS = 4
"""On a cubic, from the secant on."""


class Motion(eqx.Module):
    """A stretch of time of every lane, the lane axis last.

    **Attributes:** `end` (n, lanes), the last state, where a lane that left stays; `result` int8 codes of `Result`;
    `mean` (n, lanes) state; `size`, the root mean square norm; `spread`, that of y - mean; `speed`, that of y';
    `largest` norm; `first_speed`; `miss`, the smallest return; `hits` int32, how many were below the limit;
    `first_hit`, the time of the first one after the start, NaN without.
    """

    end: Float[Array, "n lanes"]
    result: Int[Array, " lanes"]
    mean: Float[Array, "n lanes"]
    size: Float[Array, " lanes"]
    spread: Float[Array, " lanes"]
    speed: Float[Array, " lanes"]
    largest: Float[Array, " lanes"]
    first_speed: Float[Array, " lanes"]
    miss: Float[Array, " lanes"]
    hits: Int[Array, " lanes"]
    first_hit: Float[Array, " lanes"]


class _Watch(eqx.Module):
    """What travels through the loop. Sums are of displacements from the start: they do not cancel near a rest."""

    step: Int[Array, ""]
    x: Float[Array, "n lanes"]
    slope: Float[Array, "n lanes"]
    result: Int[Array, " lanes"]
    moved: Float[Array, "n lanes"]
    squares: Float[Array, " lanes"]
    speeds: Float[Array, " lanes"]
    largest: Float[Array, " lanes"]
    miss: Float[Array, " lanes"]
    hits: Int[Array, " lanes"]
    first_hit: Float[Array, " lanes"]


def velocity_of(networks: Any, args: Any) -> Callable[[Any, Float[Array, "n lanes"]], Float[Array, "n lanes"]]:
    """y' of all lanes, of `Lanes` or of a vector field f(t, y, args)."""
    if isinstance(networks, Lanes):
        return networks.velocity
    return lambda t, x: jax.vmap(lambda y: jnp.asarray(networks(t, y, args)), in_axes=-1, out_axes=-1)(x)


def watch(
    networks: Any,
    x0: Float[Array, "n lanes"],
    solver: Any,
    args: Any,
    t0: Any,
    dt: Any,
    num_steps: Any,
    close: Float[Array, " lanes"],
    escape_norm: Any,
) -> Motion:
    """Follow every lane for `num_steps` steps of size `dt`; `close`: the limit (lanes,) of a return that counts."""
    step = tangent_step_of(networks, solver, args)
    velocity = velocity_of(networks, args)
    t0, dt, escape_norm = (jnp.asarray(value, x0.dtype) for value in (t0, dt, escape_norm))
    # A step with a deviation of which nobody asks what becomes of it: the compiler leaves it out.
    nothing = jnp.zeros((len(x0), 1, x0.shape[-1]), x0.dtype)
    first = velocity(t0, x0)
    length = jnp.sqrt(sum_rows(first * first))
    normal = first / jnp.where(length > 0, length, 1)[None]

    def one_step(_: Any, loop: _Watch) -> _Watch:
        t = t0 + loop.step.astype(dt.dtype) * dt
        x, _ = step(t, dt, loop.x, nothing)
        slope = velocity(t + dt, x)
        result = with_those_outside(loop.result, x, escape_norm)
        here = (result == Result.successful)[None]
        x, slope = jnp.where(here, x, loop.x), jnp.where(here, slope, loop.slope)
        return _noted(loop, x, slope, result, x0, normal, dt, close)

    loop = jax.lax.fori_loop(0, num_steps, one_step, _at_start(x0, first))
    return _summary(loop, x0, length, jnp.asarray(num_steps, x0.dtype))


def _at_start(x0: Array, slope: Array) -> _Watch:
    zero, none = jnp.zeros_like(x0[0]), jnp.zeros(x0.shape[-1:], jnp.int32)
    return _Watch(
        step=jnp.zeros((), jnp.int32),
        x=x0,
        slope=slope,
        result=none.astype(jnp.int8),
        moved=jnp.zeros_like(x0),
        squares=zero,
        speeds=zero,
        largest=sum_rows(x0 * x0),
        miss=jnp.full_like(zero, jnp.inf),
        hits=none,
        first_hit=jnp.full_like(zero, jnp.nan),
    )


def _noted(
    loop: _Watch, x: Array, slope: Array, result: Array, x0: Array, normal: Array, dt: Array, close: Array
) -> _Watch:
    """The loop after a step to `x`, with what it added to the sums and whether it was a return."""
    away = x - x0
    low, high = (sum_rows(normal * (y - x0)) for y in (loop.x, x))
    crossed = (result == Result.successful) & (low < 0) & (high >= 0)

    def returned() -> tuple[Array, Array]:
        return _landing(loop.x - x0, away, dt * loop.slope, dt * slope, normal)

    fraction, distance = jax.lax.cond(jnp.any(crossed), returned, lambda: (low, low))
    hit = crossed & (distance < close)
    when = (loop.step.astype(dt.dtype) + fraction) * dt
    return _Watch(
        step=loop.step + 1,
        x=x,
        slope=slope,
        result=result,
        moved=loop.moved + away,
        squares=loop.squares + sum_rows(away * away),
        speeds=loop.speeds + sum_rows(slope * slope),
        largest=jnp.maximum(loop.largest, sum_rows(x * x)),
        miss=jnp.where(crossed, jnp.minimum(loop.miss, distance), loop.miss),
        hits=loop.hits + hit,
        first_hit=jnp.where(hit & (loop.hits == 0), when, loop.first_hit),
    )


def _landing(
    before: Array, after: Array, slope0: Array, slope1: Array, normal: Array
) -> tuple[Float[Array, " lanes"], Float[Array, " lanes"]]:
    """The fraction of the step at which its cubic is on the section, and how far from the start it is there."""
    heights = [sum_rows(normal * part) for part in (before, after, slope0, slope1)]

    def cubic(s: Array, low: Array, high: Array, rise0: Array, rise1: Array) -> Array:
        rest = 1 - s
        return rest * rest * ((1 + 2 * s) * low + s * rise0) + s * s * ((3 - 2 * s) * high - rest * rise1)

    low, high, rise0, rise1 = heights
    fraction = jnp.clip(-low / jnp.where(high > low, high - low, 1), 0, 1)
    for _ in range(NEWTON_STEPS):
        value, slope = jax.jvp(lambda s: cubic(s, low, high, rise0, rise1), (fraction,), (jnp.ones_like(fraction),))
        fraction = jnp.clip(fraction - value / jnp.where(slope > 0, slope, jnp.inf), 0, 1)
    place = cubic(fraction[None], before, after, slope0, slope1)
    return fraction, jnp.sqrt(sum_rows(place * place))


def _summary(loop: _Watch, x0: Array, first_speed: Array, count: Array) -> Motion:
    moved = loop.moved / count
    mean = x0 + moved
    variance = jnp.maximum(loop.squares / count - sum_rows(moved * moved), 0)
    return Motion(
        end=loop.x,
        result=loop.result,
        mean=mean,
        size=jnp.sqrt(variance + sum_rows(mean * mean)),
        spread=jnp.sqrt(variance),
        speed=jnp.sqrt(loop.speeds / count),
        largest=jnp.sqrt(loop.largest),
        first_speed=first_speed,
        miss=loop.miss,
        hits=loop.hits,
        first_hit=loop.first_hit,
    )
