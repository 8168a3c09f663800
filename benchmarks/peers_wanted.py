"""What was asked for, and how far it is: ratios of medians, ours against the limits and against the peers."""

import dataclasses
import math
from collections.abc import Sequence

from .peers_fixed import BARE, DIFFRAX, FLAGS, IN_C, OURS, SPLITTING, TORCH, Found

SIZES = (2, 8, 32, 128)

SHARE = dict(zip(SIZES, (0.9, 0.9, 0.8, 0.8), strict=True))
"""Least speed of ours over that of C."""

SPLITTING_COST = dict(zip(SIZES, (2.5, 2.5, 3.0, 3.0), strict=True))
"""Most time of an order-2 splitting step over that of an Euler step: two sweeps, each in sequence."""

LEAD = {
    (DIFFRAX, False): dict(zip(SIZES, (7.0, 2.2, 2.7, 1.9), strict=True)),
    (DIFFRAX, True): dict(zip(SIZES, (6.0, 2.5, 2.2, 5.0), strict=True)),
    (TORCH, False): dict(zip(SIZES, (10.0, 7.0, 3.0, 2.0), strict=True)),
    (TORCH, True): dict.fromkeys(SIZES, 15.0),
}
"""Least speed of ours over that of a peer, in float32, for one W and a W each."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One ratio: what of which case, as `ours` is configured and without flags; at least `wanted`, or at most."""

    question: str
    case: str
    configured: float
    plain: float
    wanted: float
    at_least: bool

    @property
    def verdict(self) -> str:
        """Of the configured one."""
        miss = self.wanted / self.configured if self.at_least else self.configured / self.wanted
        return "reached" if miss <= 1 else f"missed by {miss:.2f}"


def answers(found: Sequence[Found]) -> list[Answer]:
    """All questions that these cases can answer."""
    answered = [answer for one in found if one.case.n in SIZES for answer in _of_case(one)]
    return [answer for answer in answered if math.isfinite(answer.configured)]


def _of_case(found: Found) -> list[Answer]:
    case = found.case
    n, name = case.n, case.name
    configured, plain = found.of(OURS + FLAGS), found.of(OURS)

    def speed_over(theirs: float) -> tuple[float, float]:
        return theirs / configured, theirs / plain

    splitting = found.of(SPLITTING + FLAGS) / configured, found.of(SPLITTING) / plain
    both = [
        Answer("speed over C", name, *speed_over(found.of(IN_C)), SHARE[n], True),
        Answer("splitting over Euler", name, *splitting, SPLITTING_COST[n], False),
    ]
    if not case.own:
        both.insert(1, Answer("speed over roofline", name, *speed_over(found.roofline), SHARE[n], True))
    if case.dtype != "float32":
        return both
    leads = [
        Answer(f"speed over {peer}", name, *speed_over(found.of(peer)), wanted[n], True)
        for (peer, own), wanted in LEAD.items()
        if own is case.own
    ]
    return both + leads


def of_bare(found: Found) -> float:
    """Time of ours over that of the best bare loop in JAX: what the engine adds to what the compiler can do."""
    return min(found.of(OURS + FLAGS), found.of(OURS)) / min(found.of(BARE + FLAGS), found.of(BARE))
