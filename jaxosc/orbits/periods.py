"""The period of an orbit: after how long it comes back to where it was.

A section is laid through the start, at right angles to the velocity there: a closed orbit has to pass it again in the
same direction, and the first time that it does so *at the same place* it has closed. It may have passed elsewhere in
between, so the number m of crossings in a period is found first: the smallest for which crossings j and j + m are at
one place for every j. The period is then the mean over as many whole returns as there are.

Where no m closes the orbit, on a torus or in chaos, there is no period; the mean time between crossings is given in
its place, `closed` says so, and the error is as large as it scatters.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import is_concrete, require_finite
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..simulate import simulate
from ..simulate.engine import DEFAULT_ESCAPE_NORM
from ..solvers import PoissonSplitting, lanes_of
from .crossings import CrossingRecord, Section, crossings_of, section_of
from .samples import crossings_in_samples
from .starts import Prepared, counted, held_still, prepare, require_count, require_times

LEAST_RETURNS = 4
"""Crossings that a run of unknown length must have before it counts as long enough."""

MOST_DOUBLINGS = 10
"""Of that run, from about two turns of the fastest linear mode on."""


class Period(eqx.Module):
    """The period of one orbit or of a batch.

    **Attributes:**

    - `period`: (...) in units of time, NaN where the orbit did not come back in time; `error`: (...) an estimate of its
      absolute error, from a run with twice the step and from the scatter of single returns.
    - `closed`: (...) whether the orbit came back to its start; elsewhere `period` is a mean time between crossings.
    - `miss`: (...) by how much the returns missed each other, relative to the size of the orbit.
    - `crossings_per_period`: (...) int32 m, 1 where nothing closed; `returns`: (...) int32, over how many the mean is.
    - `result`: (...) int8 codes of `jo.Result`.
    """

    period: Float[Array, "*batch"]
    error: Float[Array, "*batch"]
    closed: Bool[Array, "*batch"]
    miss: Float[Array, "*batch"]
    crossings_per_period: Int[Array, "*batch"]
    returns: Int[Array, "*batch"]
    result: Int[Array, "*batch"]

    @property
    def frequency(self) -> Float[Array, "*batch"]:
        """1 / period, in cycles per unit of time."""
        return 1 / self.period

    @property
    def angular_frequency(self) -> Float[Array, "*batch"]:
        """2 pi / period, in radians per unit of time."""
        return 2 * jnp.pi / self.period

    def __repr__(self) -> str:
        if not is_concrete(jax.tree.leaves(self)):
            return "Period (inside a JAX transformation)"
        period, error, closed = (np.asarray(value) for value in (self.period, self.error, self.closed))
        if period.ndim == 0:
            what = f"period {period:.12g} +- {error:.1g}" if closed else f"mean return {period:.6g} +- {error:.1g}"
            how = f"closed to {float(self.miss):.1g}" if closed else "not closed"
            return f"Period({what}, {how}, {int(self.returns)} returns)"
        known = np.isfinite(period)
        middle = f", median {np.median(period[known]):.6g}" if known.any() else ""
        return f"Period({counted('closed', closed)}{middle}, largest error {_largest(error):.1g})"


def period(
    field: Any,
    y0: Any,
    *,
    dt: Any = None,
    t1: Any = None,
    t0: Any = 0.0,
    solver: Any = None,
    section: Any = None,
    max_crossings: int = 64,
    max_per_period: int = 8,
    tolerance: Any = None,
    transient: Any = 0.0,
    pairing: str = "zip",
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
) -> Period:
    """The period of the orbit of a network through `y0`, or of a trajectory that is there already.

    `period(field, y0, dt=...)` follows the orbit; `period(ts, ys)` looks at states (..., times, n) at ascending times
    (times,), between which it interpolates by polynomials through six of them: O(spacing^6).
    Error, with the default solver at dt = 0.05 and spectral norm 1: about 1e-10 of the period. Cost: that of the run
    and half as much again, for the error. Differentiable forward and backward in parameters and start when `t1` and
    `dt` are plain numbers (implicit function theorem, to rounding): memory then grows with the steps.

    **Arguments:**

    - `field`, `y0`, `dt`, `t0`, `solver`, `pairing`, `escape_norm`, `max_crossings`: as in `poincare_crossings`.
    - `t1`: end of the run, the transient included. None runs twice as long again and again until every orbit has
      crossed four times, or for 1,000 turns of the fastest linear mode.
    - `section`: as in `poincare_crossings`; None lays one through the start (through the mean of a trajectory).
    - `max_per_period`: the largest number of crossings in a period that is tried.
    - `tolerance`: a return that misses by less, relative to the size of the orbit, closes it. None: 1e-5, in float32
      1e-4. On tori returns within a hundred turns miss by 1e-3 and more.
    - `transient`: run for that long first, so that an orbit can settle on its limit cycle.

    **Returns:** a `Period`. **Raises:** `JaxoscError` as `poincare_crossings`, without dt, and for a `t1` that is
    missing within a transformation.
    """
    require_count("max_crossings", max_crossings, 2)
    require_count("max_per_period", max_per_period)
    most = (max_crossings, min(max_per_period, max_crossings - 1))
    if not isinstance(field, AbstractField):
        fine, coarse, size = crossings_in_samples(field, y0, section, max_crossings)
        return _period_compiled(fine, coarse, size, tolerance, most[1], np.float64(1))
    solver = PoissonSplitting(4) if solver is None else solver
    dt = _step_size(dt)
    ready, t0 = _settled(field, y0, solver, pairing, (t0, t1, dt, section, escape_norm), transient)
    laid = _section_through(ready, t0) if section is None else section_of(section, ready.members)
    if t1 is None:
        t1 = _long_enough(ready, laid, solver, (t0, dt, escape_norm), max_crossings)
    elif is_concrete((t0, t1)) and not t1 > t0:
        raise JaxoscError(f"Got t1 = {t1}, expected more than t0 + transient = {t0}: raise it or leave it out.")
    require_times(t0, t1, dt)
    fine = crossings_of(ready, laid, solver, (t0, t1, dt, escape_norm), "up", max_crossings)
    # The error is not differentiated, so neither is the run that it is estimated from.
    coarse = crossings_of(
        held_still(ready), laid, solver, held_still((t0, t1, 2 * dt, escape_norm)), "up", max_crossings
    )
    better = np.float64(2.0 ** (solver.order(None) or 1) - 1)
    return _period_compiled(fine, coarse, _speed(ready, t0), tolerance, most[1], better)


def _step_size(dt: Any) -> Any:
    if dt is None:
        raise JaxoscError("Got no dt, expected a step size for the run: pass dt=0.05, or a trajectory as (ts, ys).")
    return dt


def _settled(field: Any, y0: Any, solver: Any, pairing: str, others: Any, transient: Any) -> tuple[Prepared, Any]:
    """Members ready to run, after the transient, and the time then."""
    require_finite("transient", transient)
    t0, dt, escape_norm = others[0], others[2], others[4]
    ready = prepare(field, y0, solver, pairing, others)
    if is_concrete(transient) and not np.asarray(transient) > 0:
        return ready, t0
    options = dict(solver=solver, pairing=pairing, escape_norm=escape_norm, throw=False)
    later = simulate(field, ready.members.starts, t0=t0, t1=t0 + transient, dt=dt, **options)
    members = eqx.tree_at(lambda m: m.starts, ready.members, later.ys[..., -1, :])
    return ready._replace(members=members), t0 + transient


@eqx.filter_jit
def _velocities(members: Any, facts: Any, t0: Any) -> tuple[Array, Array]:
    """(..., n) of all members, and their starts likewise."""
    field, starts = members.whole()
    rates = lanes_of(field, facts).velocity(jnp.asarray(t0, starts.dtype), starts.T).T
    shape = (*members.batch_shape, starts.shape[-1])
    return rates.reshape(shape), starts.reshape(shape)


def _section_through(ready: Prepared, t0: Any) -> Section:
    """At right angles to the velocity of the start. It stays where it is when parameters move: periods do not care."""
    rates, starts = _velocities(held_still(ready.members), ready.facts, held_still(t0))
    length = jnp.sqrt(jnp.sum(rates * rates, axis=-1, keepdims=True))
    # At rest any direction will do: nothing ever crosses.
    normal = jnp.where(length > 0, rates / jnp.where(length > 0, length, 1), jnp.ones_like(rates))
    return Section(normal, jnp.sum(normal * starts, axis=-1))


def _speed(ready: Prepared, t0: Any) -> Float[Array, "*batch"]:
    rates, _ = _velocities(held_still(ready.members), ready.facts, held_still(t0))
    return jnp.sqrt(jnp.sum(rates * rates, axis=-1))


def _long_enough(ready: Prepared, section: Section, solver: Any, scalars: tuple[Any, Any, Any], most: int) -> Any:
    """An end of the run by which every orbit has crossed a few times, if it ever does."""
    if ready.traced:
        raise JaxoscError("Got no t1 within a JAX transformation, expected a plain number: pass t1=... .")
    t0, dt, escape_norm = scalars
    weight = ready.members.field.weight.matrix()
    fastest = float(np.linalg.norm(np.asarray(weight, np.float64), 2, axis=(-2, -1)).max())
    duration = 4 * np.pi / max(fastest, np.finfo(np.float64).tiny)
    for _ in range(MOST_DOUBLINGS):
        found = crossings_of(ready, section, solver, (t0, t0 + duration, dt, escape_norm), "up", most)
        waiting = (found.count < LEAST_RETURNS) & (found.result == Result.successful)
        if not bool(jnp.any(waiting)):
            break
        duration *= 2
    return t0 + duration


@eqx.filter_jit
def _period_compiled(
    fine: CrossingRecord, coarse: CrossingRecord, size: Array, tolerance: Any, most: int, better: Any
) -> Period:
    """`size`: the speed at the start, or the size of the orbit where dt is 1 (samples)."""
    miss, closed, per_period = _closing(fine, size, tolerance, most)
    value, returns = _mean_return(fine, per_period)
    other, _ = _mean_return(coarse, per_period)
    half = jnp.maximum(returns // 2, 1)
    first, second = (_mean_between(fine, per_period, *span) for span in ((0 * half, half), (returns - half, returns)))
    scatter = jnp.abs(first - second) / 2
    eps = jnp.finfo(value.dtype).eps
    error = jnp.abs(other - value) / jnp.asarray(better, value.dtype) + scatter + 4 * eps * jnp.abs(value)
    return Period(
        period=value,
        error=jax.lax.stop_gradient(error),
        closed=closed,
        miss=jax.lax.stop_gradient(miss),
        crossings_per_period=per_period,
        returns=returns,
        result=fine.result,
    )


def _closing(record: CrossingRecord, speed: Array, tolerance: Any, most: int) -> tuple[Array, Array, Array]:
    """How far returns miss, whether that counts as closed, and of how many crossings a return consists."""
    dtype = record.times.dtype
    limit = jnp.asarray(max(1e-5, 1e3 * float(jnp.finfo(dtype).eps)) if tolerance is None else tolerance, dtype)
    first = _mean_between(record, jnp.ones_like(record.count), 0 * record.count, jnp.maximum(record.count - 1, 1))
    size = speed * jnp.abs(first) / (2 * jnp.pi)
    misses = []
    for apart in range(1, most + 1):
        moved = record.states[..., apart:, :] - record.states[..., :-apart, :]
        distance = jnp.sqrt(jnp.sum(moved * moved, axis=-1))
        farthest = jnp.max(jnp.where(jnp.isnan(distance), 0, distance), axis=-1)
        misses.append(jnp.where(record.count > apart, farthest / size, jnp.inf))
    all_misses = jnp.stack(misses, axis=-1)
    best = jnp.min(all_misses, axis=-1, keepdims=True)
    closed = best[..., 0] <= limit
    # Errors that are near the limit must not make two turns of one: ten times the best miss is as good as the best.
    good = all_misses <= jnp.maximum(limit, 10 * best)
    place = jnp.where(closed, jnp.argmax(good, axis=-1), 0)
    return jnp.take_along_axis(all_misses, place[..., None], axis=-1)[..., 0], closed, (place + 1).astype(jnp.int32)


def _mean_return(record: CrossingRecord, per_period: Array) -> tuple[Array, Array]:
    returns = jnp.maximum(record.count - 1, 0) // per_period
    return _mean_between(record, per_period, 0 * returns, returns), returns


def _mean_between(record: CrossingRecord, per_period: Array, begin: Array, end: Array) -> Float[Array, "*batch"]:
    """The mean return from return number `begin` to number `end`, NaN without one."""

    def at(values: Array, number: Array) -> Array:
        return jnp.take_along_axis(values, (number * per_period)[..., None], axis=-1)[..., 0]

    whole = at(record.steps, end) - at(record.steps, begin)
    parts = at(record.fractions, end) - at(record.fractions, begin)
    count = jnp.where(end > begin, end - begin, 1).astype(parts.dtype)
    return jnp.where(end > begin, record.dt * (whole + parts) / count, jnp.nan)


def _largest(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else float("nan")
