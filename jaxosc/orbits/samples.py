"""Crossings of a trajectory that was sampled before anybody asked, by polynomials through neighbouring samples.

Between two samples on different sides of the section the polynomial through six of them, three on each side where the
trajectory has them, is solved by bisection for the time on the section: an error of O(spacing^6). The polynomial
through four, O(spacing^4), says how far it can be trusted.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete, require_finite
from .._errors import JaxoscError
from .._results import Result
from .crossings import CrossingRecord, Section, crosses

WIDTHS = (6, 4)
"""Samples that a polynomial goes through: of the crossings, and of those that they are compared with."""

BISECTIONS = 60
"""More than a float64 has digits."""


def checked_samples(ts: Any, ys: Any, least: int = WIDTHS[0]) -> tuple[Float[Array, " times"], Array]:
    """Times (times,) and states (..., times, n) as arrays of one dtype.

    **Raises:** `JaxoscError` for shapes that do not fit, NaN, fewer than `least` samples, and times that do not ascend.
    """
    ts, ys = jnp.asarray(ts), jnp.asarray(ys)
    dtype = jnp.result_type(ys, float if not jnp.issubdtype(ys.dtype, jnp.floating) else ys)
    if ts.ndim != 1 or ys.ndim < 2 or ys.shape[-2] != ts.shape[0]:
        raise JaxoscError(
            f"Got times of shape {ts.shape} and states of shape {ys.shape}, expected (times,) and (..., times, n):"
            " pass solution.ts and solution.ys, or a field and its start."
        )
    if len(ts) < least:
        raise JaxoscError(f"Got {len(ts)} samples, expected at least {least}: save more often.")
    require_finite("ts", ts)
    require_finite("ys", ys)
    if is_concrete(ts) and not (np.diff(np.asarray(ts)) > 0).all():
        raise JaxoscError("Got times that do not ascend, expected each later than the one before: sort them.")
    return ts.astype(dtype), ys.astype(dtype)


def crossings_in_samples(ts: Any, ys: Any, section: Any, most: int) -> tuple[CrossingRecord, CrossingRecord, Array]:
    """Upward crossings by polynomials through six samples and through four, and the speed (...) where they are.

    Without a section: the hyperplane through the mean, at right angles to the direction in which most happens.
    """
    ts, ys = checked_samples(ts, ys)
    if section is not None and not isinstance(section, int | Section):
        raise JaxoscError(f"Got section = {section!r}, expected a jo.orbits.Section, the number of a neuron or None.")
    n = ys.shape[-1]
    if isinstance(section, int):
        if section not in range(n):
            raise JaxoscError(f"Got the section of neuron {section}, expected a number from 0 to {n - 1}.")
        section = Section(jnp.zeros(n, ys.dtype).at[section].set(1))
    if section is not None and section.normal.shape != (n,):
        raise JaxoscError(f"Got a section with a normal of shape {section.normal.shape}, expected ({n},).")
    return _crossings_compiled(ts, ys, section, most)


@eqx.filter_jit
def _crossings_compiled(ts: Array, ys: Array, section: Section | None, most: int) -> Any:
    def one(ys: Array) -> Any:
        normal, offset = _section_of(ts, ys) if section is None else (section.normal, section.offset)
        records = [_record(ts, ys, normal.astype(ys.dtype), offset.astype(ys.dtype), most, width) for width in WIDTHS]
        rates = jnp.diff(ys, axis=0) / jnp.diff(ts)[:, None]
        speed = jnp.sqrt(jnp.mean(jnp.sum(rates * rates, axis=1)))
        return *records, speed

    for _ in ys.shape[:-2]:
        one = jax.vmap(one)
    fine, coarse, speed = one(ys)
    return *(eqx.tree_at(lambda r: r.dt, record, jnp.ones((), ys.dtype)) for record in (fine, coarse)), speed


def _section_of(ts: Array, ys: Float[Array, "times n"]) -> tuple[Array, Array]:
    ys = jax.lax.stop_gradient(ys)
    mean = jnp.sum(jnp.diff(ts)[:, None] * (ys[1:] + ys[:-1]), axis=0) / (2 * (ts[-1] - ts[0]))
    moved = ys - mean[None]
    _, vectors = jnp.linalg.eigh(jnp.matmul(moved.T, moved, precision="highest"))
    return vectors[:, -1], jnp.sum(vectors[:, -1] * mean)


def _record(ts: Array, ys: Array, normal: Array, offset: Array, most: int, width: int) -> CrossingRecord:
    values = jnp.sum(ys * normal[None], axis=1) - offset
    crossed = crosses(values[:-1], values[1:], (True, False))
    number = jnp.cumsum(crossed, dtype=jnp.int32)
    slot = jnp.where(crossed, number - 1, most)
    places = jnp.full(most, -1, jnp.int32).at[slot].set(jnp.arange(len(crossed), dtype=jnp.int32), mode="drop")
    times, states = jax.vmap(lambda place: _on_section(ts, ys, values, place, width))(jnp.maximum(places, 0))
    there = places >= 0
    times, states = jnp.where(there, times, jnp.nan), jnp.where(there[:, None], states, jnp.nan)
    count = jnp.minimum(number[-1], most)
    # Times as they are in the place of fractions: samples need not be equally spaced.
    whole = jnp.zeros_like(places)
    return CrossingRecord(
        times, states, count, number[-1] - count, whole, times, jnp.int8(Result.successful), jnp.ones((), ys.dtype)
    )


def _on_section(ts: Array, ys: Array, values: Array, place: Array, width: int) -> tuple[Array, Array]:
    """Time and state between the samples number `place` and the next at which the section is passed."""
    begin = jnp.clip(place - width // 2 + 1, 0, len(ts) - width)
    near = jax.lax.dynamic_slice_in_dim(ts, begin, width)
    states = jax.lax.dynamic_slice_in_dim(ys, begin, width)
    heights = jax.lax.dynamic_slice_in_dim(values, begin, width)
    origin, length = ts[place], ts[place + 1] - ts[place]
    nodes = (near - origin) / length

    def halved(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        below = jnp.sum(_weights(nodes, middle) * heights) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    zero = jnp.zeros((), ts.dtype)
    low, high = jax.lax.fori_loop(0, BISECTIONS, halved, jax.lax.stop_gradient((zero, zero + 1)))
    found = jax.lax.stop_gradient((low + high) / 2)
    value, slope = jax.jvp(lambda s: jnp.sum(_weights(nodes, s) * heights), (found,), (jnp.ones_like(found),))
    fraction = found - value / jax.lax.stop_gradient(jnp.where(slope == 0, 1, slope))
    return origin + length * fraction, jnp.sum(_weights(nodes, fraction)[:, None] * states, axis=0)


def _weights(nodes: Float[Array, " width"], at: Float[Array, ""]) -> Float[Array, " width"]:
    """Of the samples at `nodes` in the polynomial through them, at `at`."""
    apart = nodes[:, None] - nodes[None, :]
    other = ~jnp.eye(len(nodes), dtype=bool)
    top = jnp.where(other, (at - nodes)[None, :], 1)
    return jnp.prod(top / jnp.where(other, apart, 1), axis=1)
