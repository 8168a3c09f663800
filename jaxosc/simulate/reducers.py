"""Measures taken while the time loop runs, so that no trajectory needs to be stored.

A reducer holds a small state per lane. Cheap ones see every step; those that need a logarithm per neuron see every
`SAMPLE_EVERY`-th step and the last. A frozen lane keeps its state, so reducers need not know which lanes are alive.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..solvers import Lanes

LaneStates = Float[Array, "n lanes"]
LaneValues = Float[Array, " lanes"]
Step = Int[Array, ""]

SAMPLE_EVERY = 10
"""Steps between two looks of a sampled reducer: energy at every step would cost up to five times the stepping."""


class AbstractReducer(eqx.Module):
    """A measure of a trajectory, folded step by step. Stateless itself: the state travels through the loop."""

    names: eqx.AbstractClassVar[tuple[str, ...]]
    sampled: eqx.AbstractClassVar[bool]

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


class EnergyDrift(AbstractReducer):
    """`energy_drift`, (H(t1) - H(0)) / max(|H(0)|, tiny), and `energy_drift_max`, the sampled one largest in size.

    Both are signed. For the non-negative energies of odd activations |H(0)| is H(0).
    """

    names: ClassVar[tuple[str, ...]] = ("energy_drift", "energy_drift_max")
    sampled: ClassVar[bool] = True

    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """H at the start, and no drift so far."""
        start = lanes.energy(x)
        return start, jnp.zeros_like(start)

    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """Keep the drift that is larger in size."""
        start, worst = state
        return start, _larger(relative_drift(lanes.energy(after), start), worst)

    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """Final drift and largest drift, the final one included."""
        start, worst = state
        final = relative_drift(lanes.energy(x), start)
        return {"energy_drift": final, "energy_drift_max": _larger(final, worst)}


class FinalEnergyDrift(AbstractReducer):
    """`energy_drift` alone: two energies a run and no logarithm inside the loop."""

    names: ClassVar[tuple[str, ...]] = ("energy_drift",)
    sampled: ClassVar[bool] = True

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


class Norms(AbstractReducer):
    """`max_norm` over all steps and `final_norm`: Euclidean norms of the state."""

    names: ClassVar[tuple[str, ...]] = ("max_norm", "final_norm")
    sampled: ClassVar[bool] = False

    def init(self, lanes: Lanes, x: LaneStates) -> PyTree:
        """The squared norm at the start."""
        return jnp.sum(x * x, axis=0)

    def update(
        self, state: PyTree, lanes: Lanes, step: Int[Array, ""], before: LaneStates, after: LaneStates
    ) -> PyTree:
        """The larger squared norm."""
        return jnp.maximum(state, jnp.sum(after * after, axis=0))

    def finish(self, state: PyTree, lanes: Lanes, x: LaneStates, dt: Float[Array, ""]) -> dict[str, Array]:
        """Square roots."""
        return {"max_norm": jnp.sqrt(state), "final_norm": jnp.sqrt(jnp.sum(x * x, axis=0))}


class Crossings(AbstractReducer):
    """`period` and `frequency` from upward crossings of zero by neuron 0, their `period_spread` and number `crossings`.

    period = mean time between neighbouring crossings (time units), NaN with fewer than two; frequency = 1/period;
    period_spread = standard deviation of the intervals over their mean, NaN with fewer than three crossings. Crossing
    times are interpolated linearly between steps: an error of O(dt^2) at both ends of the run, O(dt^3) for odd n = 2
    networks, which cross on an inflection. They are kept as whole steps plus a fraction, so float32 loses nothing on
    long runs. On a torus or in chaos this is a mean return time.
    """

    names: ClassVar[tuple[str, ...]] = ("period", "frequency", "period_spread", "crossings")
    sampled: ClassVar[bool] = False

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
        period = jnp.where(count >= 2, mean * dt, jnp.nan)
        spread = jnp.where(count >= 3, jnp.sqrt(variance) / jnp.where(count >= 3, mean, 1), jnp.nan)
        return {"period": period, "frequency": 1 / period, "period_spread": spread, "crossings": count}


def relative_drift(energy: Float[Array, "*members"], start: Float[Array, "*members"]) -> Float[Array, "*members"]:
    """(H - H0) / max(|H0|, tiny), signed."""
    return (energy - start) / jnp.maximum(jnp.abs(start), jnp.finfo(start.dtype).tiny)


def _larger(a: LaneValues, b: LaneValues) -> LaneValues:
    return jnp.where(jnp.abs(a) > jnp.abs(b), a, b)
