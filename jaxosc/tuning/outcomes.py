"""What became of a member that was tuned: a code with one sentence of advice each."""

import enum

import jax
import numpy as np
from jaxtyping import Int


class Outcome(enum.IntEnum):
    """Stored as int8 in results of tuning."""

    reached = 0
    not_reached = 1
    not_sharp = 2
    at_rest = 3
    too_slow = 4
    not_closed = 5
    out_of_range = 6

    @property
    def advice(self) -> str:
        """One sentence on what it means and what to try."""
        return _ADVICE[self]


_ADVICE = {
    Outcome.reached: "the frequency is the target, within the tolerance.",
    Outcome.not_reached: (
        "the steps were used up before the frequency was within the tolerance: go on with resume=, or take more steps."
    ),
    Outcome.not_sharp: (
        "the start lies in chaos or between lines near each other, so that its frequency is another one in another"
        " window: let the start move with closed=True, take a smaller start, or a longer Line(turns=...)."
    ),
    Outcome.at_rest: "nothing turns: give a start that is not at rest, and a W that is not zero.",
    Outcome.too_slow: (
        "the line is more than 64 times slower than the fastest mode, too dear to follow: choose another readout or"
        " start, or let the start move with closed=True."
    ),
    Outcome.not_closed: (
        "no closed orbit was found near the linear mode, whose frequency may be a whole fraction of another one: take"
        " another network or readout."
    ),
    Outcome.out_of_range: (
        "no start on its ray has that frequency, which amplitude alone cannot give: let the gain change instead."
    ),
}


def counted_outcomes(result: Int[jax.Array, "..."] | np.ndarray) -> list[str]:
    """For people: how many members ended how, the good ones first, and what to do about the others."""
    codes = np.asarray(result).ravel()
    told = []
    for outcome in Outcome:
        many = int((codes == outcome).sum())
        if many:
            told.append(f"{many:,} of {codes.size:,} {outcome.name.replace('_', ' ')}: {outcome.advice}")
    return told
