"""The sentence that explains a verdict."""

from collections.abc import Callable

import numpy as np

from .verdicts import CHAOTIC, METHODS, REGULAR, Findings, Rule, otherwise


def reason(found: Findings, k: int) -> str:
    """Why member number `k` was judged as it was."""
    sentence = SENTENCES[Rule(int(found.rule[k]))](found, k)
    against = [name for name, says in zip(METHODS, otherwise(found)[k], strict=True) if says]
    return sentence + (f"; {' and '.join(against)} said otherwise." if against else ".")


def _growth(found: Findings, k: int) -> str:
    return (
        f"after {found.turns[k]:.4g} turns the mean MEGNO is {found.megno[k]:.3g}, the largest exponent"
        f" {found.exponent[k] * found.turn[k]:.2g} a turn and GALI_2 1e{found.gali[k]:.0f}"
    )


def _undecided(found: Findings, k: int) -> str:
    if not np.isfinite(found.megno[k]):
        return "no motion was found whose speed could be measured"
    votes = found.votes[k]
    words = [
        f"{name} says {'chaotic' if vote == CHAOTIC else 'regular' if vote == REGULAR else 'nothing'}"
        for name, vote in zip(METHODS[:3], votes[:3], strict=True)
    ]
    return f"{_growth(found, k)}: {', '.join(words)}"


def _torus(found: Findings, k: int) -> str:
    return f"it stays bounded, never returned to less than {found.miss[k]:.1g} of its size, and {_growth(found, k)}"


SENTENCES: dict[Rule, Callable[[Findings, int], str]] = {
    Rule.none: _undecided,
    Rule.rest: lambda found, k: "it starts at rest and stays there",
    Rule.settled: lambda found, k: f"it has come to rest: what still moves is {found.size[k]:.1g} in size",
    Rule.leak: lambda found, k: "the leak takes energy from every state and nothing gives any",
    Rule.decay: lambda found, k: f"its norm fell to {found.ratio[k]:.1g} of the largest and was still falling",
    Rule.left: lambda found, k: f"it left: from the norm {found.largest[k]:.3g} beyond `escape_norm`",
    Rule.growth: lambda found, k: f"its norm grows with every doubling of time and has reached {found.largest[k]:.3g}",
    Rule.straight: lambda found, k: f"it moves away straight and has reached the norm {found.largest[k]:.3g}",
    Rule.rank_two: lambda found, k: "W has rank 2 and the level sets of energy and Casimirs are closed curves",
    Rule.returns: lambda found, k: (
        f"it came back to within {found.miss[k]:.1g} of its size, again and again after {found.period[k]:.6g}"
    ),
    Rule.chaos: _growth,
    Rule.torus: _torus,
}
