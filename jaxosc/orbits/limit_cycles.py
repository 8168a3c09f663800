"""Limit cycles in the strict sense: isolated closed orbits that attract, found from random starts.

A network that conserves an energy has closed orbits in families, none of them isolated. Without skewness an orbit can
be alone, and draw in its neighbours. The search:

1. Starts are drawn, and a transient passes. Who has left by then has escaped; who stands still is at a fixed point.
2. Each late state y* gets a section of its own, through y* and at right angles to the flow. An orbit that comes back to
   y* on it, up to 1e-3 of its size, is close to a closed one; the time it took is about the period.
3. Shooting (`periodic_orbit`) makes it exact, `floquet_multipliers` judges it: one multiplier is 1, that of the flow,
   and if all others are smaller than 1 in size the return map contracts. Then the orbit is isolated and attracts.
4. Every start whose late state lies on the closed orbit, up to 1e-3 of its size, has ended there. Steps 3 and 4 go on
   with those that are left, step 1 with twice the time for those that have not settled.

With an odd sigma and no bias -y(t) is an orbit whenever y(t) is one: a cycle is its own mirror image or one of a pair,
of which one member is found as soon as the other is.

What is proven by that is proven up to rounding and the error of the solver: a contraction with a margin of 1e-2 does
not go away with an error of 1e-9. That there is no other cycle is not proven: one whose basin holds a share p of the
starts is missed by m of them with probability (1 - p)^m.
"""

import dataclasses
import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import is_concrete, require_positive
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..simulate import simulate
from ..simulate.steppers import stepper_of
from ..solvers import lanes_of
from ..structure import structure
from .crossings import Section, poincare_crossings
from .floquet import floquet_multipliers, steps_of_a_turn
from .found_cycles import LimitCycle, LimitCycles, sorted_by_share
from .periodic import periodic_orbit
from .starts import floating, require_count

START_LAWS = ("shell", "box")

CLOSE = 1e-3
"""How near an orbit has to come back, relative to the size of the closed orbit, before it is worth shooting at."""

CROSSINGS = 64
"""Of a section in the time that is waited for a return: far more than a turn has."""

ATTEMPTS = 32
"""Shots in each round: a chaotic orbit comes back by chance, and every shot at it fails."""

SAMPLES = 1024
"""At least so many states are kept of a cycle; on the tangent between two it is straight up to 1e-6 of its size."""


def limit_cycles(
    field: Any,
    *,
    starts: Any = 256,
    law: str = "shell",
    radii: Any = (0.1, 3.0),
    dt: Any = None,
    transient: Any = None,
    window: Any = None,
    rounds: int = 4,
    solver: Any = None,
    escape_norm: Any = 1e3,
    confidence: float = 0.95,
    key: Any = None,
) -> LimitCycles:
    """Isolated closed orbits that attract, with period, multipliers and the share of starts that end there.

    Works outside of JAX transformations. Cost: every start runs for transient + window, those that settle slowly for up
    to 2^rounds as long; 256 starts of n = 2 take seconds, see the module for what is done. Shares are those of the law
    of starts, and no others. Cycles that do not attract are not found; slow ones (margin below about 1e-2) may need a
    longer transient. Accuracy of period and multipliers: that of the solver, with the default about 1e-9.

    **Arguments:**

    - `field`: one `jo.CurrentRNN` or `jo.RateRNN` without drive.
    - `starts`: how many to draw, or starts (m, n) of your own.
    - `law`: "shell": all directions alike and log |y| uniform between the `radii`; "box": every neuron uniform between
      minus and plus the larger radius.
    - `dt`: step size, 0.05 / (|W| + leak) if None, |W| being the spectral norm.
    - `transient`, `window`: how long to wait at first, and for a return (at least the longest period), in units of
      time; 1000 and 400 / (|W| + leak) if None.
    - `rounds`: how often to wait, each time twice as long.
    - `solver`: any that `jo.simulate` takes with fixed steps; `diffrax.Tsit5()` if None, as there is no energy here
      that only a splitting would keep, and errors along a cycle that attracts do not add up.
    - `escape_norm`: a start whose norm exceeds it has escaped. A network without leak may do so slowly.
    - `confidence`: of the intervals of the shares. `key`: `jax.random.key(0)` if None.

    **Returns:** `LimitCycles`; print it.

    **Raises:** `JaxoscError` for networks that cannot have limit cycles: (hidden) skewness without leak, where closed
    orbits come in families (see `periodic_orbit` and `continue_family`), Casimirs or ker W without leak, along which
    they do likewise; for a drive, a batch of networks, traced values and options out of range.
    """
    _check_field(field)
    solver = diffrax.Tsit5() if solver is None else solver
    stepper_of(solver)  # tells what is no solver before anything is compiled
    for name, value in (("escape_norm", escape_norm), ("radii", radii)):
        require_positive(name, value)
    require_count("rounds", rounds)
    if not 0 < confidence < 1:
        raise JaxoscError(f"Got confidence = {confidence}, expected a number between 0 and 1: pass 0.95.")
    y0 = _drawn(field, starts, law, radii, key)
    rate = float(np.linalg.norm(np.asarray(field.weight.matrix(), np.float64), 2) + np.abs(np.asarray(field.leak)))
    times = {"dt": (dt, 0.05), "transient": (transient, 1000.0), "window": (window, 400.0)}
    for name, (value, _) in times.items():
        if value is not None:
            require_positive(name, value)
    chosen = {name: usual / rate if value is None else float(value) for name, (value, usual) in times.items()}
    search = _Search(field, solver, float(escape_norm), rate, y0, chosen["dt"], chosen["window"])
    for number in range(rounds):
        search.wait(chosen["transient"] * 2**number)
        search.look()
        if not search.open.any():
            break
    return search.found(confidence)


def _check_field(field: Any) -> None:
    """Raise one sentence for networks without limit cycles, and for what is no single network."""
    if not isinstance(field, AbstractField):
        raise JaxoscError(f"Got the field {field!r}, expected a jo.CurrentRNN or jo.RateRNN: build one from a weight.")
    if not is_concrete(field):
        raise JaxoscError("Got a traced network, expected plain values: call limit_cycles outside of JAX transforms.")
    if field.batch_shape:
        raise JaxoscError(f"Got networks {field.batch_shape}, expected a single one: call once for each.")
    if field.drive is not None:
        raise JaxoscError("Got a driven network, expected one without drive, whose closed orbits have periods to find.")
    if np.any(np.asarray(field.leak)):
        return
    verdict = structure(field.weight, field.activation)
    if verdict.conservative:
        raise JaxoscError(
            f"Got a W that is {verdict.kind} and no leak, expected a network that conserves no energy: its closed"
            " orbits come in families and none is isolated, so find them with jo.orbits.periodic_orbit and follow them"
            " with jo.orbits.continue_family."
        )
    if verdict.casimirs:
        raise JaxoscError(
            f"Got a W of rank {field.size - verdict.casimirs} < {field.size} and no leak, expected full rank: along"
            " ker W closed orbits come in families and none is isolated, so add a leak or take neurons away."
        )


def _drawn(field: AbstractField, starts: Any, law: str, radii: Any, key: Any) -> Array:
    """The starts (m, n)."""
    if np.ndim(starts):
        y0 = jnp.asarray(floating(field, "starts", starts))
        if y0.ndim != 2:
            raise JaxoscError(f"Got starts of shape {y0.shape}, expected (m, {field.size}), or how many to draw.")
        return y0
    require_count("starts", starts)
    if law not in START_LAWS:
        raise JaxoscError(f"Got law = {law!r}, expected one of {', '.join(START_LAWS)}.")
    if np.shape(radii) != (2,) or radii[0] > radii[1]:
        raise JaxoscError(f"Got radii = {radii!r}, expected the smaller and the larger one: pass (0.1, 3.0).")
    key = jax.random.key(0) if key is None else key
    for_direction, for_length = jax.random.split(key)
    shape, dtype = (starts, field.size), field.dtype
    if law == "box":
        return jax.random.uniform(key, shape, dtype, -radii[1], radii[1])
    direction = jax.random.normal(for_direction, shape, dtype)
    length = jax.random.uniform(for_length, (starts, 1), dtype, math.log(radii[0]), math.log(radii[1]))
    return jnp.exp(length) * direction / jnp.linalg.norm(direction, axis=1, keepdims=True)


@dataclasses.dataclass
class _Returns:
    """Of every start: the time (m,) until its orbit came back, and how near (m,), relative to its size; inf if not."""

    period: np.ndarray
    distance: np.ndarray


@dataclasses.dataclass
class _Track:
    """A cycle by its states (k, n), the unit vectors (k, n) along it, and its size: the diameter of an equal circle."""

    states: np.ndarray
    along: np.ndarray
    size: float

    def away(self, points: np.ndarray) -> np.ndarray:
        """How far from it the points (m, n) are, relative to its size, on sections through its states."""
        squares = np.sum(points**2, axis=1)[:, None] - 2 * points @ self.states.T + np.sum(self.states**2, axis=1)[None]
        nearest = np.argmin(squares, axis=1)
        off, along = points - self.states[nearest], self.along[nearest]
        return np.linalg.norm(off - np.sum(off * along, axis=1)[:, None] * along, axis=1) / self.size


class _Search:
    """The states of all starts, what has become of them, and the cycles found so far."""

    def __init__(
        self,
        field: AbstractField,
        solver: Any,
        escape_norm: float,
        rate: float,
        y0: Array,
        dt: float,
        window: float,
    ) -> None:
        self.field, self.starts, self.states = field, np.asarray(y0), y0
        self.solver, self.dt = solver, dt
        self.escape_norm, self.window, self.duration = escape_norm, window, 0.0
        bias = field.bias
        self.mirrored = field.activation.odd is True and (bias is None or not np.any(np.asarray(bias)))
        eps = float(jnp.finfo(y0.dtype).eps)
        # Below this speed a state stands still: rates of 1e-3 of |W| get there in the usual time.
        self.still = max(1e-6, 100 * eps) * rate * float(np.linalg.norm(self.starts, axis=1).max())
        self.same = max(1e-7, 100 * eps)
        # Multipliers are known to about 1e-8, in float32 to 1e-4; ten times that is not yet a contraction.
        self.least_margin = max(1e-6, 1e4 * eps)
        self.outcomes = np.full(len(y0), "undecided", dtype="<U12")
        self.cycle_of = np.full(len(y0), -1)
        self.cycles: list[LimitCycle] = []
        self.tracks: list[_Track] = []
        self.lanes = lanes_of(field)

    @property
    def open(self) -> np.ndarray:
        """(m,) who has not come to anything yet."""
        return self.outcomes == "undecided"

    def wait(self, duration: float) -> None:
        """Let time pass; who escapes or stands still is marked."""
        run = simulate(
            self.field,
            self.states,
            t1=duration,
            dt=self.dt,
            solver=self.solver,
            escape_norm=self.escape_norm,
            throw=False,
        )
        self.states, self.duration = run.ys[:, -1], self.duration + duration
        self.outcomes[self.open & (np.asarray(run.result) != Result.successful)] = "escaped"
        self.outcomes[self.open & (self.speeds(self.states) <= self.still)] = "fixed_point"

    def look(self) -> None:
        """Assign who is on a known cycle, shoot at the best of the others, and so on until nobody is left."""
        returns = self.returns()
        tried, failed = np.zeros(len(self.starts), bool), False
        for number in range(len(self.cycles)):
            self.assign(number)
        for _ in range(ATTEMPTS):
            hopeful = self.open & ~tried & (returns.distance <= CLOSE)
            if not hopeful.any():
                return
            best = int(np.argmin(np.where(hopeful, returns.distance, np.inf)))
            tried[best] = True
            cycle = self.shoot(self.states[best], float(returns.period[best]))
            if cycle is None:
                if not failed:
                    self.mark_families(returns)
                failed = True
                continue
            known = self.number_of(cycle)
            if known is not None:
                # On their way to it: they need time and no shots.
                same_turn = np.abs(returns.period / cycle.period - 1) <= 0.01
                tried |= same_turn & (self.tracks[known].away(np.asarray(self.states)) <= 0.1)
            elif abs(cycle.margin) <= max(self.least_margin, 10 * cycle.unit_error):
                self.mark_families(returns)
            elif cycle.margin > 0:
                self.add(cycle)

    def returns(self) -> _Returns:
        """When and how near each orbit comes back to where it is now."""
        flow, speed, states = self.flow(self.states), self.speeds(self.states), np.asarray(self.states)
        usable = speed > 0
        normal = np.where(usable[:, None], flow / np.where(usable, speed, 1)[:, None], np.eye(flow.shape[1])[:1])
        record = poincare_crossings(
            self.field,
            self.states,
            t1=self.window,
            dt=self.dt,
            solver=self.solver,
            section=Section(jnp.asarray(normal), jnp.asarray(np.sum(normal * states, axis=1))),
            max_crossings=CROSSINGS,
            escape_norm=self.escape_norm,
        )
        times, away = np.asarray(record.times), np.linalg.norm(np.asarray(record.states) - states[:, None], axis=-1)
        # A circle of this length has this diameter.
        size = speed[:, None] * times / np.pi
        # Up to rounding a state lies on its own section: what is there within a step is the start and no return.
        with np.errstate(invalid="ignore"):
            distances = np.where(times > self.dt, away / np.maximum(size, np.finfo(size.dtype).tiny), np.inf)
        # The first of those that come about as near as any: later ones are further turns.
        least = np.maximum(10 * distances.min(axis=1), CLOSE / 100)
        first = np.argmax(distances <= least[:, None], axis=1)[:, None]
        period, distance = (np.take_along_axis(array, first, axis=1)[:, 0] for array in (times, distances))
        return _Returns(np.where(np.isfinite(distance), period, 1.0), distance)

    def shoot(self, state: Array, period: float) -> LimitCycle | None:
        """The closed orbit near a state that comes back, None where there is none."""
        options = dict(num_steps=steps_of_a_turn(period, self.dt, None), solver=self.solver)
        orbit = periodic_orbit(self.field, state, period, **options)
        size = float(self.speeds(state[None])[0]) * period / np.pi
        moved = float(np.linalg.norm(np.asarray(orbit.y0) - np.asarray(state)))
        good = orbit.result == Result.successful and moved <= size / 2
        # A point of rest closes as well, after any time, and so does an orbit that is run through twice.
        if not good or abs(float(orbit.period) / period - 1) > 0.1:
            return None
        if self.speeds(orbit.y0[None])[0] * period / np.pi < size / 10:
            return None
        found = floquet_multipliers(self.field, orbit.y0, orbit.period, **options)
        multipliers = np.asarray(found.multipliers)
        if not np.isfinite(multipliers).all():
            return None
        return LimitCycle(
            np.asarray(orbit.y0), float(orbit.period), multipliers, float(found.unit_error), float(orbit.residual)
        )

    def add(self, cycle: LimitCycle) -> None:
        """Take a new cycle, and its mirror image, and mark who is on them."""
        number = len(self.cycles)
        self.cycles.append(cycle)
        self.tracks.append(self.track(cycle))
        self.assign(number)
        if not self.mirrored:
            return
        image = dataclasses.replace(cycle, y0=-cycle.y0, mirror=number)
        if self.number_of(image) == number:
            self.cycles[number] = dataclasses.replace(cycle, mirror=number)
            return
        self.cycles[number] = dataclasses.replace(cycle, mirror=number + 1)
        self.cycles.append(image)
        self.tracks.append(self.track(image))
        self.assign(number + 1)

    def track(self, cycle: LimitCycle) -> "_Track":
        """The cycle, point by point."""
        steps = max(SAMPLES, 2 ** math.ceil(math.log2(cycle.period / self.dt)))
        run = simulate(self.field, cycle.y0, t1=cycle.period, dt=cycle.period / steps, solver=self.solver, save_every=1)
        states = run.ys[:-1]
        flow = self.flow(states)
        speed = np.linalg.norm(flow, axis=1)
        return _Track(np.asarray(states), flow / speed[:, None], float(np.mean(speed)) * cycle.period / np.pi)

    def assign(self, number: int) -> None:
        """Mark who is on this cycle."""
        here = self.open & (self.tracks[number].away(np.asarray(self.states)) <= CLOSE)
        self.outcomes[here], self.cycle_of[here] = "limit_cycle", number

    def number_of(self, cycle: LimitCycle) -> int | None:
        """Which of the known cycles this one is: they pass the same point and take the same time."""
        for number, known in enumerate(self.cycles):
            near = self.tracks[number].away(cycle.y0[None])[0] <= CLOSE
            if near and abs(known.period / cycle.period - 1) <= CLOSE:
                return number
        return None

    def mark_families(self, returns: _Returns) -> None:
        """Mark who comes back as near as rounding and solver allow, and has another multiplier of size 1.

        Shooting fails there unless the solver keeps the family: one that loses a little has no closed orbits left.
        """
        back = self.open & (returns.distance <= self.same)
        if not back.any():
            return
        steps = steps_of_a_turn(returns.period[back].max(), self.dt, None)
        periods = np.where(back, returns.period, 1.0)
        found = floquet_multipliers(self.field, self.states, periods, num_steps=steps, solver=self.solver)
        largest = np.abs(np.asarray(found.free)).max(axis=1)
        self.outcomes[back & (np.abs(largest - 1) <= 10 * self.least_margin)] = "family"

    def found(self, confidence: float) -> LimitCycles:
        """The result."""
        cycles, cycle_of = sorted_by_share(self.cycles, self.cycle_of, confidence)
        ends = np.asarray(self.states)
        return LimitCycles(cycles, self.starts, ends, self.outcomes, cycle_of, confidence, self.dt, self.duration)

    def flow(self, states: Array) -> np.ndarray:
        """dy/dt (m, n) at the states."""
        return np.asarray(self.lanes.velocity(jnp.zeros((), states.dtype), states.T)).T

    def speeds(self, states: Array) -> np.ndarray:
        """|dy/dt| (m,)."""
        return np.linalg.norm(self.flow(states), axis=1)
