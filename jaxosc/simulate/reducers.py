"""Measures taken while the time loop runs, so that no trajectory needs to be stored.

A reducer holds a small state per lane. Cheap ones see every step; those that need a logarithm per neuron see every
`SAMPLE_EVERY`-th step and the last. A frozen lane keeps its state, so reducers need not know which lanes are alive.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._elementary import sum_rows
from .._errors import JaxoscError
from ..solvers import Lanes

LaneStates = Float[Array, "n lanes"]
LaneValues = Float[Array, " lanes"]
Step = Int[Array, ""]

SAMPLE_EVERY = 10
"""Steps between two looks of a sampled reducer: energy at every step would cost up to five times the stepping."""


class AbstractReducer(eqx.Module):
    """A measure of a trajectory, folded step by step. Stateless itself: the state travels through the loop.

    A reducer that a reversible gradient can run back through says so by `reversible` and by three more methods. Going
    back, what the loss makes of its final state is spread over the steps: `credit` gives for a step a value in each
    lane whose derivative is the share of that step, weights that depend on what came later being kept in a note.
    """

    names: eqx.AbstractClassVar[tuple[str, ...]]
    sampled: eqx.AbstractClassVar[bool]
    reversible: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """The state before the first step."""

    @abc.abstractmethod
    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """The state after the step number `step` (from 0), which led from `before` to `after`."""

    @abc.abstractmethod
    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """The measures under `names`, each (lanes,), given the final states."""

    def rewind(self, state: PyTree, cotangent: PyTree) -> PyTree:
        """The note to start back with, from the final state and its cotangent (floats only)."""
        raise JaxoscError(
            f"Got {type(self).__name__} in a reversible gradient, expected a reducer that can be run back."
        )

    def credit(
        self, note: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> tuple[LaneValues, PyTree]:
        """The value (lanes,) of the step for which `update` was called with the same arguments, and the new note."""
        return jnp.zeros_like(after[0]), note

    def credit_start(self, note: PyTree, lanes: Lanes, x: LaneStates) -> LaneValues:
        """The value (lanes,) of the start, where `init` looked."""
        return jnp.zeros_like(x[0])


class EnergyDrift(AbstractReducer):
    """`energy_drift`, (H(t1) - H(0)) / max(|H(0)|, tiny), and `energy_drift_max`, the sampled one largest in size.

    Both are signed. For the non-negative energies of odd activations |H(0)| is H(0).
    """

    names: ClassVar[tuple[str, ...]] = ("energy_drift", "energy_drift_max")
    sampled: ClassVar[bool] = True
    reversible: ClassVar[bool] = True

    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """H at the start, no drift so far, and no step at which it was largest."""
        start = lanes.energy(x)
        return start, jnp.zeros_like(start), jnp.full(start.shape, -1, jnp.int32)

    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """Keep the drift that is larger in size, and when it was."""
        start, worst, at = state
        drift = relative_drift(lanes.energy(after), start)
        larger = jnp.abs(drift) > jnp.abs(worst)
        return start, jnp.where(larger, drift, worst), jnp.where(larger, step, at)

    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """Final drift and largest drift, the final one included."""
        start, worst, _ = state
        final = relative_drift(lanes.energy(x), start)
        return {"energy_drift": final, "energy_drift_max": jnp.where(jnp.abs(final) > jnp.abs(worst), final, worst)}

    def rewind(self, state: PyTree, cotangent: PyTree) -> PyTree:
        """When the largest drift was, the weight of the energy then, and that of the energy at the start."""
        start, worst, at = state
        by_start, by_worst, _ = cotangent
        scale = jnp.maximum(jnp.abs(start), jnp.finfo(start.dtype).tiny)
        _, pull = jax.vjp(relative_drift, start + worst * scale, start)
        then, before = pull(by_worst)
        return at, then, by_start + jnp.where(at >= 0, before, 0)

    def credit(
        self, note: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> tuple[LaneValues, PyTree]:
        """The energy, at the step of the largest drift."""
        at, then, _ = note
        return jnp.where(step == at, then, 0) * lanes.energy(after), note

    def credit_start(self, note: PyTree, lanes: Lanes, x: LaneStates) -> LaneValues:
        """The energy that all drifts refer to."""
        return note[2] * lanes.energy(x)


class FinalEnergyDrift(AbstractReducer):
    """`energy_drift` alone: two energies a run and no logarithm inside the loop."""

    names: ClassVar[tuple[str, ...]] = ("energy_drift",)
    sampled: ClassVar[bool] = True
    reversible: ClassVar[bool] = True

    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """H at the start."""
        return lanes.energy(x)

    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """Nothing on the way."""
        return state

    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """The drift at the end."""
        return {"energy_drift": relative_drift(lanes.energy(x), state)}

    def rewind(self, state: PyTree, cotangent: PyTree) -> PyTree:
        """The weight of the energy at the start."""
        return cotangent

    def credit_start(self, note: PyTree, lanes: Lanes, x: LaneStates) -> LaneValues:
        """The energy at the start."""
        return note * lanes.energy(x)


class Norms(AbstractReducer):
    """`max_norm` over all steps and `final_norm`: Euclidean norms of the state."""

    names: ClassVar[tuple[str, ...]] = ("max_norm", "final_norm")
    sampled: ClassVar[bool] = False
    reversible: ClassVar[bool] = True

    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """The squared norm at the start, and that it is the largest so far."""
        return sum_rows(x * x), jnp.full(x.shape[-1:], -1, jnp.int32)

    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """The larger squared norm, and when it was."""
        largest, at = state
        squared = sum_rows(after * after)
        larger = squared > largest
        return jnp.where(larger, squared, largest), jnp.where(larger, step, at)

    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """Square roots."""
        return {"max_norm": jnp.sqrt(state[0]), "final_norm": jnp.sqrt(sum_rows(x * x))}

    def rewind(self, state: PyTree, cotangent: PyTree) -> PyTree:
        """When the largest norm was, and the weight of its square."""
        return state[1], cotangent[0]

    def credit(
        self, note: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> tuple[LaneValues, PyTree]:
        """The squared norm, at the step where it was largest."""
        at, weight = note
        return jnp.where(step == at, weight, 0) * sum_rows(after * after), note

    def credit_start(self, note: PyTree, lanes: Lanes, x: LaneStates) -> LaneValues:
        """The squared norm, if it was largest at the start."""
        at, weight = note
        return jnp.where(at == -1, weight, 0) * sum_rows(x * x)


class Crossings(AbstractReducer):
    """`period` and `frequency` from upward crossings of zero by neuron 0, their `period_spread` and number `crossings`.

    period = mean time between neighbouring crossings (time units), NaN with fewer than two; frequency = 1/period;
    period_spread = standard deviation of the intervals over their mean, NaN with fewer than three crossings. Crossing
    times are interpolated linearly between steps: an error of O(dt^2) at both ends of the run, O(dt^3) for odd n = 2
    networks, which cross on an inflection. They are kept as whole steps plus a fraction, so float32 loses nothing on
    long runs. On a torus or in chaos this is a mean return time. A reversible gradient of `period_spread` is not to be
    had (NaN): each interval would need the one before it, which a run back has not seen yet.
    """

    names: ClassVar[tuple[str, ...]] = ("period", "frequency", "period_spread", "crossings")
    sampled: ClassVar[bool] = False
    reversible: ClassVar[bool] = True

    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """No crossing yet."""
        count = jnp.zeros(x.shape[-1:], jnp.int32)
        zero = jnp.zeros(x.shape[-1:], x.dtype)
        return count, (count, zero), zero, (zero, zero)

    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """Fold in the interval since the crossing before, if neuron 0 has just crossed upward."""
        count, (last_step, last_fraction), first_interval, (deviation, squares) = state
        low, high = before[0], after[0]
        crossed = (low < 0) & (high >= 0)
        fraction = low / jnp.where(crossed, low - high, 1)
        interval = (step - last_step).astype(low.dtype) + (fraction - last_fraction)
        first_interval = jnp.where(crossed & (count == 1), interval, first_interval)
        counted = crossed & (count >= 1)
        # Deviations from the first interval: the variance does not cancel in float32.
        offset = jnp.where(counted, interval - first_interval, 0)
        sums = (deviation + offset, squares + offset * offset)
        last = (jnp.where(crossed, step, last_step), jnp.where(crossed, fraction, last_fraction))
        return count + crossed, last, first_interval, sums

    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """Means from sums."""
        count, _, first_interval, (deviation, squares) = state
        intervals = jnp.maximum(count - 1, 1).astype(x.dtype)
        mean = first_interval + deviation / intervals
        variance = jnp.maximum(squares / intervals - (deviation / intervals) ** 2, 0)
        period = jnp.where(count >= 2, mean * jnp.abs(dt), jnp.nan)
        spread = jnp.where(count >= 3, jnp.sqrt(variance) / jnp.where(count >= 3, mean, 1), jnp.nan)
        return {"period": period, "frequency": 1 / period, "period_spread": spread, "crossings": count}

    def rewind(self, state: PyTree, cotangent: PyTree) -> PyTree:
        """How many crossings lie before, how many there were, and the weights of the first and of the other intervals.

        The deviations sum interval - first interval, so the first one also bears what all the others take from it.
        """
        count = state[0]
        _, (_, _), by_first, (by_deviation, by_squares) = cotangent
        by_deviation = jnp.where(by_squares == 0, by_deviation, jnp.nan)
        return count, count, by_first - by_deviation * jnp.maximum(count - 2, 0), by_deviation

    def credit(
        self, note: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> tuple[LaneValues, PyTree]:
        """The fraction of the step at which the crossing was: an interval ends there and another begins."""
        remaining, count, by_first, by_other = note
        low, high = before[0], after[0]
        crossed = (low < 0) & (high >= 0)
        fraction = low / jnp.where(crossed, low - high, 1)
        number = remaining - 1
        ends = jnp.where(number == 0, 0, jnp.where(number == 1, by_first, by_other))
        begins = jnp.where(number == count - 1, 0, jnp.where(number == 0, by_first, by_other))
        return jnp.where(crossed, ends - begins, 0) * fraction, (remaining - crossed, count, by_first, by_other)


def relative_drift(energy: Float[Array, "*members"], start: Float[Array, "*members"]) -> Float[Array, "*members"]:
    """(H - H0) / max(|H0|, tiny), signed."""
    return (energy - start) / jnp.maximum(jnp.abs(start), jnp.finfo(start.dtype).tiny)
