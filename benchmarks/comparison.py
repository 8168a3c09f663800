"""Who wins, where and why: the two questions of the work-precision benchmark, answered from its points alone.

(a) Long runs: at equal time and equal accuracy of the motion, how far is our solvers' energy error below a peer's?
(b) Short runs: at equal time, how does the best state error of ours compare with the best of the peers?
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .methods import ENGINE, OURS, PEER

EQUAL_TIME = 1.25
"""Times within this factor count as equal: the spread of a median on a machine that others use too."""

WANTED_RATIO = 100.0
"""(a) asks for an energy error this many times below the peer's."""

WANTED_SHARE = 2.0
"""(b) asks for a state error at most this many times the best peer's."""

NOTHING = 1.0
"""A state error of the size of the states: whoever has it knows nothing of them, and wins nothing."""

ROUNDING = 1e-12
"""Periods and states closer than this to the truth are equally accurate: what is left is rounding, and chaos."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One method with one setting on one problem.

    **Attributes:** `is_long`: of a long run; `t1`: its end; `microseconds` of CPU time per member and unit of time;
    `spread` of its rounds over their median; `evaluations` of the activation of all neurons per unit of time;
    `state_error` at t = 100 with this setting; `energy_error`, the largest until t1; `period_error` (long runs of the
    pair, else NaN); each the median over members; `compile_seconds`, the first call.
    """

    n: int
    is_long: bool
    t1: float
    method: str
    family: str
    knob: str
    setting: float
    members: int
    microseconds: float
    spread: float
    evaluations: float
    state_error: float
    energy_error: float
    period_error: float
    compile_seconds: float

    @property
    def name(self) -> str:
        """The method with its setting."""
        return f"{self.method} ({self.knob} = {self.setting:g})"

    @property
    def accuracy(self) -> float:
        """What "equally accurate" means for a long run: the period of the pair, the state at t = 100 elsewhere."""
        return max(self.period_error if self.n == 2 else self.state_error, ROUNDING)


@dataclasses.dataclass(frozen=True)
class EnergyAnswer:
    """(a) for one point of a peer: our point of least energy error that is as fast and as accurate, None if none is."""

    peer: Point
    ours: Point | None
    ratio: float
    reason: str


@dataclasses.dataclass(frozen=True)
class StateAnswer:
    """(b) for one point of the peers' best: our error in its time over its error (of ours, of ours with the engine)."""

    peer: Point
    ratio: float
    ratio_of_splittings: float
    reason: str


def energy_answers(points: Sequence[Point]) -> list[EnergyAnswer]:
    """(a) for every long point of every peer."""
    long = [point for point in points if point.is_long]
    return [_energy_answer(peer, long) for peer in long if peer.family == PEER]


def _energy_answer(peer: Point, long: Sequence[Point]) -> EnergyAnswer:
    ours = [point for point in long if point.n == peer.n and point.family == OURS]
    accurate = [point for point in ours if point.accuracy <= peer.accuracy]
    equal = [point for point in accurate if point.microseconds <= EQUAL_TIME * peer.microseconds]
    if equal:
        best = min(equal, key=lambda point: point.energy_error)
        ratio = peer.energy_error / best.energy_error
        return EnergyAnswer(peer, best, ratio, "" if ratio >= WANTED_RATIO else _why_close(peer, best))
    if not accurate:
        return EnergyAnswer(peer, None, math.nan, "none of our points here follows the motion as accurately")
    fastest = min(accurate, key=lambda point: point.microseconds)
    return EnergyAnswer(peer, None, math.nan, f"our first as accurate, {_compared(fastest, peer)}")


def _why_close(peer: Point, ours: Point) -> str:
    if peer.energy_error < WANTED_RATIO * rounding_walk(peer):
        return f"its own energy is at rounding ({peer.energy_error:.0e}), {WANTED_RATIO:g} times below which nothing is"
    return f"{ours.name} has the least energy error in that time"


def rounding_walk(point: Point) -> float:
    """What a random walk of roundings alone does to a relative energy: eps sqrt(steps), a step in each unit of time."""
    return float(np.finfo(float).eps * math.sqrt(point.t1))


def state_answers(points: Sequence[Point], floor: dict[int, float]) -> list[StateAnswer]:
    """(b) for every point of the peers' best, by n; errors below `floor[n]`, that of the reference, count as it."""
    answers = []
    for n in sorted({point.n for point in points}):
        short = [point for point in points if point.n == n and not point.is_long and point.state_error < NOTHING]
        mine = [point for point in short if point.family in (OURS, ENGINE)]
        splittings = [point for point in short if point.family == OURS]
        for peer in front([point for point in short if point.family == PEER], floor[n]):
            least = max(peer.state_error, floor[n])
            all_ours, own = (error_at(peer.microseconds, set_, floor[n]) / least for set_ in (mine, splittings))
            reason = "" if all_ours <= WANTED_SHARE else _why_peer_wins(peer, mine, least)
            answers.append(StateAnswer(peer, all_ours, own, reason))
    return answers


def front(points: Sequence[Point], floor: float) -> list[Point]:
    """The points that no other beats in both time and state error, from the fastest on."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: point.microseconds):
        if not best or max(point.state_error, floor) < max(best[-1].state_error, floor):
            best.append(point)
    return best


def error_at(microseconds: float, points: Sequence[Point], floor: float) -> float:
    """The least state error in that time: on a method's line through its points (log-log), or of any faster point."""
    errors = [max(p.state_error, floor) for p in points if p.microseconds <= EQUAL_TIME * microseconds]
    for method in {point.method for point in points}:
        line = sorted((p.microseconds, max(p.state_error, floor)) for p in points if p.method == method)
        times, values = np.log(np.array(line)).T
        if times[0] <= math.log(microseconds) <= times[-1]:
            errors.append(math.exp(np.interp(math.log(microseconds), times, values)))
    return min(errors, default=math.inf)


def _why_peer_wins(peer: Point, ours: Sequence[Point], error: float) -> str:
    as_good = [point for point in ours if point.state_error <= error]
    if not as_good:
        closest = min(ours, key=lambda point: point.state_error)
        return f"none of our points comes to {error:.0e}; {closest.name} has {closest.state_error:.0e}"
    return f"our first as accurate, {_compared(min(as_good, key=lambda point: point.microseconds), peer)}"


def _compared(ours: Point, peer: Point) -> str:
    """Time as number of evaluations times time of an evaluation, ours over the peer's."""
    evaluations = ours.evaluations / peer.evaluations
    price = (ours.microseconds / ours.evaluations) / (peer.microseconds / peer.evaluations)
    return (
        f"{ours.name}, takes {ours.microseconds / peer.microseconds:.2g} times as long: {evaluations:.2g} times the"
        f" evaluations, each at {price:.2g} of the price"
    )
