"""Orbit classes from streamed measures alone: only what they can support, and "undecided" for the rest.

The rules, first match wins (norms are Euclidean):

1. escaping: frozen by `escape_norm` or a non-finite state; or, where theory binds the orbit to a level set, an end at
   more than 10 sqrt(n) times the start's norm and at the largest norm seen. On a level set of an energy whose potential
   is even and convex or grows at least linearly the norm cannot change by more than about sqrt(n).
2. collapsing: the norm ended below 1/1000 of its largest; no level set allows that either (n < 10^5).
3. fixed_point: at the speed it ended with, it would move less than 1e-6 of its norm in the whole duration again.
4. periodic: n <= 3, skew W, no leak, asymmetry or axis of one's own (level sets of H and the Casimir are then curves),
   H kept within 1 %, and at least three crossings whose intervals agree to 1 % (linear interpolation of the crossings
   errs by O(dt^2), below that for dt |W| < 0.3).

5. chaotic, quasi_periodic: where chaos was measured and theory binds the orbit to a level set, a mean MEGNO above 4, or
   below 2.5 after at least 100 crossings. On 930 orbits of known truth a bound of 2.5 was right in 96 % at 100 periods
   and in 98.4 % at 500; between the two bounds a longer run is needed, and the orbit stays undecided.
"""

from typing import Any

import numpy as np

from .._results import ORBITS, Result
from ..orbits.verdicts import MEGNO_CHAOTIC, MEGNO_REGULAR
from .plan import Combination
from .spec import Sweep

ESCAPE_FACTOR = 10.0
COLLAPSE_FACTOR = 1e-3
REST_FACTOR = 1e-6
PERIODIC_TOLERANCE = 1e-2
FEWEST_CROSSINGS = 3
FEWEST_TURNS = 100


def classify(
    sweep: Sweep, combination: Combination, measured: dict[str, np.ndarray], disturbed: np.ndarray
) -> np.ndarray:
    """Orbit flags (int8, indices into `ORBITS`) of the members of a block, from what its program returned.

    `disturbed` says which members have a leak or an asymmetry that is not zero.
    """
    conservative = _conservative(sweep, combination) & ~disturbed
    bound = conservative & (combination.activation.value.monotone is True)
    start, end = measured["start_norm"], measured["end_norm"]
    largest = measured.get("max_norm", np.maximum(start, end))
    with np.errstate(all="ignore"):
        left = (measured["result"] != Result.successful) | (
            bound & (end > ESCAPE_FACTOR * np.sqrt(combination.neurons) * start) & (end >= 0.9 * largest)
        )
        collapsed = end < COLLAPSE_FACTOR * largest
        rests = measured["end_speed"] * sweep.duration < REST_FACTOR * end
        closed = conservative & (combination.neurons <= 3) & _regular(measured)
        # On the closed orbits of two or three neurons nothing grows but in proportion to the time.
        chaotic, torus = _by_growth(measured, bound & (combination.neurons > 3))
    rules = {
        "escaping": left,
        "collapsing": collapsed,
        "fixed_point": rests,
        "periodic": closed,
        "chaotic": chaotic,
        "quasi_periodic": torus,
    }
    found = np.select(
        list(rules.values()),
        [ORBITS.index(name) for name in rules],
        ORBITS.index("undecided"),
    )
    return found.astype(np.int8)


def _regular(measured: dict[str, np.ndarray]) -> Any:
    """Whether crossings are regular and the energy is kept; False without these measures."""
    if not {"period_spread", "energy_drift_max"} <= measured.keys():
        return False
    steady = measured["period_spread"] < PERIODIC_TOLERANCE
    kept = np.abs(measured["energy_drift_max"]) < PERIODIC_TOLERANCE
    return steady & kept & (measured["crossings"] >= FEWEST_CROSSINGS)


def _by_growth(measured: dict[str, np.ndarray], bound: Any) -> tuple[Any, Any]:
    """Which bound members are chaotic, and which run on tori; nobody where chaos was not measured."""
    megno = measured.get("megno")
    if megno is None:
        return False, False
    turns = measured.get("crossings", np.zeros(megno.shape, int))
    return bound & (megno > MEGNO_CHAOTIC), bound & (megno < MEGNO_REGULAR) & (turns >= FEWEST_TURNS)


def _conservative(sweep: Sweep, combination: Combination) -> bool:
    """Whether theory knows a conserved energy of the undisturbed network with d = 1."""
    skew = sweep.matrix is not None or combination.law.value.skew
    return skew and not sweep.axes
