"""What happened to some quantities in each stretch of a run, taken inside the time loop, so that nothing is aliased.

States that are kept every so many steps see a fast oscillation as a slow one whenever its period is near a multiple of
the stride, and a slow oscillation looks like drift. Here every step counts: the extremes of each quantity in up to 256
narrow windows, and its means in wide ones, weighted by a bump that is zero at both ends (weighted Birkhoff averages),
so that a period that does not fit into a window leaves almost nothing in its mean.

Source: Das, Saiki, Sander, Yorke, *Nonlinearity* 30 (2017) for the weighted averages.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..simulate import AbstractReducer, Lanes

NARROW_WINDOWS = 256
WIDE = 4
"""Narrow windows in a wide one, where the run is long enough for wide ones."""

_WIDE_FROM = 4 * NARROW_WINDOWS  # steps; in a shorter run every window would hold one or two


class AbstractMeasure(eqx.Module):
    """Some numbers that a lane has at every step; only runs of one lane are measured."""

    @abc.abstractmethod
    def begin(self, lanes: Lanes, x: Float[Array, "n lanes"]) -> tuple[Float[Array, " q"], PyTree]:
        """The numbers at the start, and a memory."""

    @abc.abstractmethod
    def proceed(
        self, lanes: Lanes, step: Int[Array, ""], before: Float[Array, "n lanes"], after: Array, memory: PyTree
    ) -> tuple[Float[Array, " q"], PyTree]:
        """The numbers after step number `step` from `before` to `after`, and the new memory."""


class Windows(AbstractReducer):
    """The reducer: `measure` in windows of `narrow` and `wide` steps; made by `windows_of`, read by `read_windows`."""

    measure: AbstractMeasure
    narrow: Int[Array, ""]
    wide: Int[Array, ""]
    names: ClassVar[tuple[str, ...]] = ("start", "low", "high", "sums")
    sampled: ClassVar[bool] = False

    def init(self, lanes: Lanes, x: Float[Array, "n lanes"]) -> PyTree:
        """Empty windows."""
        start, memory = self.measure.begin(lanes, x)
        empty = jnp.zeros((NARROW_WINDOWS, start.size), x.dtype)
        sums = jnp.zeros((NARROW_WINDOWS, start.size + 1), x.dtype)
        return start, memory, (empty + jnp.inf, empty - jnp.inf), sums

    def update(
        self,
        state: PyTree,
        lanes: Lanes,
        step: Int[Array, ""],
        before: Float[Array, "n lanes"],
        after: Float[Array, "n lanes"],
    ) -> PyTree:
        """Put the deviations from the start after one step into their windows."""
        start, memory, (low, high), sums = state
        now, memory = self.measure.proceed(lanes, step, before, after, memory)
        change = now - start
        place = ((step % self.wide).astype(now.dtype) + 0.5) / self.wide.astype(now.dtype)
        bump = jnp.square(place * (1 - place))
        narrow = step // self.narrow
        sums = sums.at[step // self.wide].add(jnp.append(bump * change, bump))
        return start, memory, (low.at[narrow].min(change), high.at[narrow].max(change)), sums

    def finish(self, state: PyTree, lanes: Lanes, x: Float[Array, "n lanes"], dt: Float[Array, ""]) -> dict[str, Array]:
        """The windows as they are."""
        start, _, (low, high), sums = state
        return dict(start=start, low=low, high=high, sums=sums)


def window_widths(num_steps: int) -> tuple[int, int]:
    """Steps of a narrow and of a wide window, so that no more narrow ones are needed than there are."""
    narrow = -(-num_steps // NARROW_WINDOWS)
    return narrow, narrow * WIDE if num_steps >= _WIDE_FROM else narrow


def windows_of(measure: AbstractMeasure, num_steps: int) -> Windows:
    """The reducer for a run of so many steps; runs of any length share one compiled program."""
    narrow, wide = window_widths(num_steps)
    return Windows(measure, jnp.asarray(narrow, jnp.int32), jnp.asarray(wide, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Windowed:
    """Deviations from the start, per window.

    **Attributes:** `start` (q,) values; `steps` (k,), the last step of each narrow window; `low`, `high` (k, q);
    `middles` (m,), the middle of each wide window in steps; `means` (m, q).
    """

    start: Float[np.ndarray, " q"]
    steps: Float[np.ndarray, " k"]
    low: Float[np.ndarray, "k q"]
    high: Float[np.ndarray, "k q"]
    middles: Float[np.ndarray, " m"]
    means: Float[np.ndarray, "m q"]

    def sizes(self, column: int) -> Float[np.ndarray, " k"]:
        """The largest absolute deviation of one quantity in each narrow window."""
        return np.maximum(np.abs(self.low[:, column]), np.abs(self.high[:, column]))

    def swing(self, column: int) -> float:
        """Half of what one quantity oscillates within a wide window, the median of all."""
        group = max(len(self.steps) // max(len(self.middles), 1), 1)
        count = len(self.steps) // group * group
        high = self.high[:count, column].reshape(-1, group).max(axis=1)
        low = self.low[:count, column].reshape(-1, group).min(axis=1)
        return 0.5 * float(np.median(high - low))


def read_windows(reduced: dict[str, Any], num_steps: int) -> Windowed:
    """What `Windows` measured in a run of `num_steps` good steps; windows that are not full are left out."""
    narrow, wide = window_widths(num_steps)
    start, low, high, sums = (np.asarray(reduced[name], np.float64) for name in Windows.names)
    full, full_wide = num_steps // narrow, num_steps // wide
    return Windowed(
        start=start,
        steps=narrow * np.arange(1.0, full + 1),
        low=low[:full],
        high=high[:full],
        middles=wide * (np.arange(full_wide) + 0.5),
        means=sums[:full_wide, :-1] / sums[:full_wide, -1:],
    )
