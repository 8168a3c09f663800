"""Limit cycles that a search found, and what became of every start: counts, shares of basins and their intervals.

The share of starts that end on a cycle estimates the share of its basin under the law by which starts were drawn. How
well it is known from so many starts Wilson's interval says (`jo.sweeps.wilson_interval`).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._errors import JaxoscError
from .._intervals import wilson_interval

OUTCOMES = ("limit_cycle", "fixed_point", "escaped", "family", "undecided")
"""What a start can come to; "family" are closed orbits that are not isolated, and undecided is who needs more time."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LimitCycle:
    """One isolated closed orbit that attracts.

    **Attributes:**

    - `y0`: (n,) a state on it; `period` in units of time.
    - `multipliers`: (n,) complex Floquet multipliers: first the one of the flow, which is 1, then the others from the
      largest in size down.
    - `unit_error`: |multiplier of the flow - 1|: how far to trust the others.
    - `residual`: by how much it misses to close, relative to |y0|.
    - `starts`: how many starts ended on it; `share` of all, with its `interval` (low, high).
    - `mirror`: the number of the cycle -y among all that were found: its own where it is symmetric, None where sigma is
      not odd or a bias breaks the symmetry.
    """

    y0: np.ndarray
    period: float
    multipliers: np.ndarray
    unit_error: float
    residual: float
    starts: int = 0
    share: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    mirror: int | None = None

    @property
    def frequency(self) -> float:
        """1 / period, in cycles per unit of time."""
        return 1 / self.period

    @property
    def margin(self) -> float:
        """1 - |largest multiplier but for that of the flow|: > 0 says that it is isolated and attracts."""
        return float(1 - np.abs(self.multipliers[1:]).max())

    @property
    def stable(self) -> bool:
        """Whether `margin` is > 0 by more than it is known."""
        return self.margin > 10 * self.unit_error

    def __repr__(self) -> str:
        return f"LimitCycle({self.told()})"

    def told(self) -> str:
        """Its numbers in one line."""
        low, high = self.interval
        largest = self.multipliers[1:3]
        shown = ", ".join(_plain_number(value) for value in largest) + (", ..." if len(self.multipliers) > 3 else "")
        return (
            f"share {self.share:.3f} [{low:.3f}, {high:.3f}] of {self.starts:,} starts, period {self.period:.10g},"
            f" frequency {self.frequency:.6g}, multipliers 1, {shown}, margin {self.margin:.3g}"
        )


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class LimitCycles:
    """All limit cycles that a search found, those with the largest share of basins first, and the rest of the starts.

    It is a sequence of `LimitCycle`: `len`, iteration and numbers work.

    **Attributes:**

    - `cycles`: tuple of `LimitCycle`.
    - `starts`: (m, n) where the search began; `ends`: (m, n) the states it saw last.
    - `outcomes`: (m,) words of `OUTCOMES`; `cycle_of`: (m,) the number of the cycle, -1 for the other outcomes.
    - `confidence`: of the intervals. `dt`: the step size of the search. `duration`: units of time that were waited.
    """

    cycles: tuple[LimitCycle, ...]
    starts: np.ndarray
    ends: np.ndarray
    outcomes: np.ndarray
    cycle_of: np.ndarray
    confidence: float
    dt: float
    duration: float

    def __len__(self) -> int:
        return len(self.cycles)

    def __iter__(self) -> Iterator[LimitCycle]:
        return iter(self.cycles)

    def __getitem__(self, number: int) -> LimitCycle:
        return self.cycles[number]

    @property
    def counts(self) -> dict[str, int]:
        """How many starts came to what, by the words of `OUTCOMES`; they add up to all."""
        return {word: int((self.outcomes == word).sum()) for word in OUTCOMES}

    @property
    def shares(self) -> dict[str, float]:
        """The same as shares of all starts, which add up to 1."""
        return {word: count / len(self.starts) for word, count in self.counts.items()}

    def interval(self, outcome: str) -> tuple[float, float]:
        """Wilson's interval for the share of an outcome.

        **Raises:** `JaxoscError` for a word that is none.
        """
        if outcome not in OUTCOMES:
            raise JaxoscError(f"Got outcome {outcome!r}, expected one of {', '.join(OUTCOMES)}.")
        low, high = wilson_interval(self.counts[outcome], len(self.starts), self.confidence)
        return float(low), float(high)

    @property
    def conclusion(self) -> str:
        """What was found, in one sentence."""
        counts, m = self.counts, len(self.starts)
        if self.cycles:
            which = "one limit cycle" if len(self) == 1 else f"{len(self)} limit cycles"
            return f"{counts['limit_cycle']:,} of {m:,} starts ended on {which}."
        if counts["family"]:
            return (
                f"{counts['family']:,} of {m:,} starts lie on closed orbits that come in families: none is isolated, so"
                " none is a limit cycle; follow them with jo.orbits.periodic_orbit."
            )
        return f"None of {m:,} starts ended on a limit cycle."

    def __repr__(self) -> str:
        lines = [f"LimitCycles of a network with n = {self.starts.shape[1]}: {self.conclusion}"]
        for number, cycle in enumerate(self.cycles):
            lines.append(f"  {number}  {cycle.told()}{self._mirror_words(number)}")
        others = {word: count for word, count in self.counts.items() if count and word != "limit_cycle"}
        told = ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in others.items())
        lines.append(f"  other starts: {told or 'none'}")
        return "\n".join(lines)

    def _mirror_words(self, number: int) -> str:
        mirror = self.cycles[number].mirror
        if mirror is None:
            return ""
        return ", its own mirror image" if mirror == number else f", mirror image of {mirror}"


def sorted_by_share(
    cycles: list[LimitCycle], cycle_of: np.ndarray, confidence: float
) -> tuple[tuple[LimitCycle, ...], np.ndarray]:
    """The cycles with their counts, the most visited first, and `cycle_of` (m,) in their new numbers."""
    counts = np.array([int((cycle_of == number).sum()) for number in range(len(cycles))], int)
    order = np.argsort(-counts, kind="stable")
    place: dict[Any, int] = {int(old): new for new, old in enumerate(order)}
    m = len(cycle_of)
    lows, highs = wilson_interval(counts, m, confidence)
    counted = tuple(
        dataclasses.replace(
            cycles[old],
            starts=int(counts[old]),
            share=float(counts[old] / m),
            interval=(float(lows[old]), float(highs[old])),
            mirror=place.get(cycles[old].mirror),
        )
        for old in order
    )
    return counted, np.array([place.get(int(old), -1) for old in cycle_of], int)


def _plain_number(value: complex) -> str:
    return f"{value.real:.4g}" if value.imag == 0 else f"{value:.4g}"
