"""From runs to verdicts, on the host: who is decided, by which rule, and who has to run longer.

The order of the questions is the order of what can be mistaken for what: an escape looks like chaos and a decay like a
torus, so boundedness and rest come first, then returns, then growth of deviations.
"""

import dataclasses
import enum
from typing import Any

import numpy as np

from .._results import ORBITS, Result
from .evidence import FIRST_TURNS, LEAST_STEPS, RETURN_TURNS, Runs, System


class Rule(enum.IntEnum):
    """By which rule a member was judged."""

    none = 0
    rest = 1
    settled = 2
    leak = 3
    decay = 4
    left = 5
    growth = 6
    straight = 7
    rank_two = 8
    returns = 9
    chaos = 10
    torus = 11


KINDS = {
    Rule.none: "undecided",
    Rule.rest: "fixed_point",
    Rule.settled: "fixed_point",
    Rule.leak: "collapsing",
    Rule.decay: "collapsing",
    Rule.left: "escaping",
    Rule.growth: "escaping",
    Rule.straight: "escaping",
    Rule.rank_two: "periodic",
    Rule.returns: "periodic",
    Rule.chaos: "chaotic",
    Rule.torus: "quasi_periodic",
}

CODE_OF = np.array([ORBITS.index(KINDS[rule]) for rule in Rule], np.int8)

METHODS = ("megno", "exponent", "gali", "returns")
ABSTAINS, REGULAR, CHAOTIC = 0, 1, 2

STRETCHES = 5
"""Of an orbit that may not be bounded: 1, 1, 2, 4, 8 times the first; doubtful ones get `MORE_STRETCHES` more."""
MORE_STRETCHES = 2

GROWS_BY, SHRINKS_TO = 1.3, 0.9
"""In each of the last three doublings of the time; sqrt(2) is the growth of Euler's spurious energy, 1 a bounded
orbit's."""
COLLAPSED = 1e-3
STRAIGHT = 0.99
RATE = 5.5
"""Over the number of turns: growth a turn in the second half. Deviations that grow in proportion to the time have
2 log 2 = 1.4, chaos with a mean MEGNO of 4 has 8; at 300 turns it is 0.018."""
MEGNO_REGULAR, MEGNO_CLEAR, MEGNO_CHAOTIC = 2.5, 2.3, 4.0


@dataclasses.dataclass
class Findings:
    """What was found of every member, (members,) each; NaN where nobody had to ask."""

    rule: np.ndarray
    turn: np.ndarray
    turns: np.ndarray
    size: np.ndarray
    largest: np.ndarray
    ratio: np.ndarray
    miss: np.ndarray
    period: np.ndarray
    megno: np.ndarray
    exponent: np.ndarray
    gali: np.ndarray
    result: np.ndarray
    votes: np.ndarray
    state: np.ndarray

    @classmethod
    def nothing(cls, system: System) -> "Findings":
        """Of members that have not run."""
        count = system.count
        unknown = {
            f.name: np.full(count, np.nan)
            for f in dataclasses.fields(cls)
            if f.name not in ("rule", "result", "votes", "state")
        }
        return cls(
            rule=np.zeros(count, np.int8),
            result=np.zeros(count, np.int8),
            votes=np.zeros((count, len(METHODS)), np.int8),
            state=np.array(system.starts),
            **unknown,
        )

    @property
    def open(self) -> np.ndarray:
        """Numbers of the members without a verdict."""
        return np.flatnonzero(self.rule == Rule.none)

    def decide(self, who: np.ndarray, where: np.ndarray, rule: Rule) -> None:
        """Judge those of `who` that `where` holds for, unless they have been."""
        mine = who[where & (self.rule[who] == Rule.none)]
        self.rule[mine] = rule


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long is run, in turns: with deviations at first, how often four times as long for doubtful ones, and before
    anything counts (None: as long as it takes to see that an orbit neither escapes nor settles).
    """

    turns: float
    longer: int
    transient: float | None
    tolerance: float


def judge(system: System, effort: Effort) -> Findings:
    """All questions in turn."""
    runs, found = Runs(system), Findings.nothing(system)
    with np.errstate(all="ignore"):
        _ask_where_it_stays(runs, found)
        _ask_where_it_goes(runs, found, effort)
        _ask_for_returns(runs, found, found.open, effort)
        _ask_for_growth(runs, found, effort)
        _ask_again_after_longer(runs, found, effort)
    return found


def _first_unit(system: System, who: np.ndarray) -> np.ndarray:
    """A turn of the fastest linear mode; a function tells no speed but by its dt."""
    if system.has_weights:
        return 2 * np.pi / system.fastest[who]
    return np.full(len(who), LEAST_STEPS * float(system.dt))


def _learn_turn(found: Findings, who: np.ndarray, unit: np.ndarray, seen: dict[str, Any]) -> None:
    """`unit` is what times and speeds of `seen` refer to."""
    spread, speed = seen["spread"], seen["speed"]
    turn = 2 * np.pi * spread / np.where(speed > 0, speed, np.nan)
    found.turn[who], found.size[who], found.largest[who] = turn, spread, seen["largest"]


def _ask_where_it_stays(runs: Runs, found: Findings) -> None:
    """Bound members: how large and how fast their orbits are. Theory has excluded escape and decay."""
    system = runs.system
    found.decide(np.arange(system.count), system.decays, Rule.leak)
    who = np.flatnonzero(system.bound)
    if not len(who):
        return
    unit = _first_unit(system, who)
    seen = runs.watch(who, found.state[:, who], unit, 4 * FIRST_TURNS)
    _learn(found, who, unit, seen, system)
    found.decide(who, _rests(system, seen, unit), Rule.rest)
    found.decide(who, seen["result"] != Result.successful, Rule.left)


def _learn(found: Findings, who: np.ndarray, unit: np.ndarray, seen: dict[str, Any], system: System) -> None:
    scale = unit if system.has_weights else np.ones_like(unit)
    _learn_turn(found, who, unit, seen)
    found.turn[who] *= scale
    found.result[who] = seen["result"]


def _rests(system: System, seen: dict[str, Any], unit: np.ndarray) -> np.ndarray:
    """Whether y' = 0 at the start, up to the rounding of a point of rest.

    Asked of the field: a splitting rests elsewhere, by O(dt^4).
    """
    speed = seen["first_speed"] * (1.0 if system.has_weights else unit)
    at_rest: np.ndarray = speed <= 100 * system.eps * seen["size"]
    return at_rest


def _ask_where_it_goes(runs: Runs, found: Findings, effort: Effort) -> None:
    """Free members: whether they escape, settle or collapse, by stretches that double the time."""
    system = runs.system
    who = np.flatnonzero(~system.bound & (found.rule == Rule.none))
    if not len(who):
        return
    unit = _first_unit(system, who)
    if not system.has_weights:
        # A function tells its speed in a first run.
        seen = runs.watch(who, found.state[:, who], unit, FIRST_TURNS)
        _learn(found, who, unit, seen, system)
        turn = found.turn[who]
        usual = np.nanmedian(turn) if np.isfinite(turn).any() else unit[0]
        unit = np.full(len(who), np.clip(usual, 4 * float(system.dt), 4096 * float(system.dt)))
    first = FIRST_TURNS if effort.transient is None else max(effort.transient / 2 ** (STRETCHES - 1), 1.0)
    start = np.sqrt((found.state[:, who] ** 2).sum(axis=0))
    history = [{"largest": start, "size": start, "spread": np.full(len(who), np.inf)}]
    for number in range(STRETCHES + MORE_STRETCHES):
        turns = first * 2 ** max(number - 1, 0)
        waiting = np.flatnonzero(found.rule[who] == Rule.none)
        if number >= STRETCHES:
            waiting = waiting[_trend(history, waiting) != 0]
        if not len(waiting):
            break
        mine = who[waiting]
        seen = runs.watch(mine, found.state[:, mine], unit[waiting], turns)
        before = found.state[:, mine]
        _learn(found, mine, unit[waiting], seen, system)
        latest = {name: values.copy() for name, values in history[-1].items()}
        for name in latest:
            latest[name][waiting] = seen[name]
        history.append(latest)
        found.state[:, mine] = seen["end"]
        _judge_stretch(runs, found, mine, seen, before, turns, number, history, waiting, unit[waiting])
    waiting = np.flatnonzero(found.rule[who] == Rule.none)
    if len(waiting):
        trend, mine = _trend(history, waiting), who[waiting]
        found.decide(mine, trend == 1, Rule.growth)
        found.decide(mine, trend == 2, Rule.decay)
        found.decide(mine, trend == 3, Rule.settled)


def _judge_stretch(
    runs: Runs, found: Findings, who: np.ndarray, seen: dict[str, Any], before: np.ndarray, turns: float, number: int,
    history: list[dict[str, np.ndarray]], waiting: np.ndarray, unit: np.ndarray,
) -> None:  # fmt: skip
    """What one stretch can tell."""
    system = runs.system
    clock = np.ones_like(unit) if system.has_weights else unit
    eps, size = system.eps, seen["size"]
    found.decide(who, seen["result"] != Result.successful, Rule.left)
    moved = seen["speed"] * turns * clock
    if number == 0:
        found.decide(who, _rests(system, seen, unit), Rule.rest)
    sizes = np.stack([stretch["size"][waiting] for stretch in history])
    most = sizes.max(axis=0)
    shrank = sizes[-1] / sizes[-2]
    found.ratio[who] = sizes[-1] / most
    gone = (sizes[-1] < COLLAPSED * most) & (shrank < SHRINKS_TO) & (number >= 2)
    found.decide(who, gone | (sizes[-1] < 1e-12 * most), Rule.decay)
    # Rounding keeps a state at rest moving by a few hundred eps.
    found.decide(who, (seen["spread"] <= eps**0.6 * size) & (number >= 2), Rule.settled)
    away = np.sqrt(((seen["end"] - before) ** 2).sum(axis=0))
    if number >= STRETCHES - 1:
        # Over 128 turns: nothing that comes back is so straight.
        found.decide(who, (away > STRAIGHT * moved) & (seen["largest"] > 1.01 * sizes[0]), Rule.straight)


def _trend(history: list[dict[str, np.ndarray]], waiting: np.ndarray) -> np.ndarray:
    """1 grows, 2 shrinks to nothing, 3 settles, 0 none of these, by the last three doublings."""

    def ratios(name: str) -> np.ndarray:
        rows = np.stack([stretch[name][waiting] for stretch in history[-4:]])
        return rows[1:] / np.where(rows[:-1] > 0, rows[:-1], 1)

    grows = (ratios("largest") > GROWS_BY).all(axis=0)
    shrinks = (ratios("size") < SHRINKS_TO).all(axis=0)
    settles = (ratios("spread") < SHRINKS_TO).all(axis=0)
    return np.select([grows, shrinks, settles], [1, 2, 3], 0)


def _usable(found: Findings, who: np.ndarray) -> np.ndarray:
    return who[np.isfinite(found.turn[who]) & (found.turn[who] > 0)]


def _ask_for_returns(runs: Runs, found: Findings, who: np.ndarray, effort: Effort) -> None:
    """Whether an orbit comes back to where it is, twice."""
    who = _usable(found, who)
    if not len(who):
        return
    turn, size = found.turn[who], found.size[who]
    seen = runs.watch(who, found.state[:, who], turn, RETURN_TURNS, effort.tolerance * size)
    unit = turn if runs.system.has_weights else 1.0
    found.miss[who] = seen["miss"] / size
    closes = seen["hits"] >= 2
    found.period[who] = np.where(closes, seen["first_hit"] * unit, np.nan)
    found.votes[who, METHODS.index("returns")] = np.where(closes, REGULAR, ABSTAINS)
    found.decide(who, seen["result"] != Result.successful, Rule.left)
    found.decide(who, runs.system.closed[who], Rule.rank_two)
    found.decide(who, closes, Rule.returns)


def _ask_for_growth(runs: Runs, found: Findings, effort: Effort) -> None:
    """Chaos or torus, by the growth of deviations; four times as long where methods doubt or disagree."""
    turns = effort.turns
    for round_number in range(effort.longer + 1):
        who = _usable(found, found.open)
        if not len(who):
            return
        _measure_growth(runs, found, who, turns)
        chaotic, regular = _clearly(found, who, last=round_number == effort.longer)
        found.decide(who, found.result[who] != Result.successful, Rule.left)
        found.decide(who, chaotic, Rule.chaos)
        found.decide(who, regular, Rule.torus)
        turns *= 4


def _measure_growth(runs: Runs, found: Findings, who: np.ndarray, turns: float) -> None:
    turn = found.turn[who]
    grown = runs.grow(who, found.state[:, who], turn, turns)
    per_time = grown["rate"] / (turn if runs.system.has_weights else np.median(turn))
    # Of a function all members run for the same time.
    gali = np.maximum(grown["gali"] / np.log(10), np.log10(runs.system.eps))
    length = np.full(len(who), turns) if runs.system.has_weights else turns * np.median(turn) / turn
    found.megno[who], found.exponent[who], found.gali[who] = grown["megno"], per_time, gali
    found.turns[who], found.result[who] = length, grown["result"]
    rate = per_time * turn
    # In chaos GALI_2 falls exponentially, down to rounding; on a closed orbit like 1/t or 1/t^2, on tori not.
    parallel = max(-8.0, np.log10(8 * runs.system.eps))
    usual = -2.2 * np.log10(length) - 0.5
    found.votes[who, 0] = _word(grown["megno"] < MEGNO_REGULAR, grown["megno"] > MEGNO_CHAOTIC)
    found.votes[who, 1] = _word(rate < RATE / length, rate > RATE / length)
    # An attracting cycle draws all deviations into its own direction, too.
    tells = runs.system.conserves[who] & (len(found.state) > 1)
    found.votes[who, 2] = np.where(tells, _word(gali > np.maximum(usual, parallel), gali <= parallel), ABSTAINS)


def _word(regular: np.ndarray, chaotic: np.ndarray) -> np.ndarray:
    return np.select([regular, chaotic], [REGULAR, CHAOTIC], ABSTAINS)


def _clearly(found: Findings, who: np.ndarray, last: bool) -> tuple[np.ndarray, np.ndarray]:
    votes, megno = found.votes[who], found.megno[who]
    says = [(votes[:, :3] == word).sum(axis=1) for word in (REGULAR, CHAOTIC)]
    chaotic = (megno > MEGNO_CHAOTIC) & (says[1] >= 2) & (says[0] == 0)
    regular = (megno < (MEGNO_REGULAR if last else MEGNO_CLEAR)) & (says[1] == 0)
    if last:
        chaotic |= (says[1] >= 2) & (megno > MEGNO_REGULAR)
        regular |= (says[0] >= 2) & (megno < MEGNO_REGULAR)
    return chaotic, regular


NEARLY = 5e-2
"""Returns that miss by less are asked for again, after a longer transient: a cycle may attract slowly."""


def _ask_again_after_longer(runs: Runs, found: Findings, effort: Effort) -> None:
    """Free members that look like tori and nearly close."""
    system = runs.system
    for _ in range(2):
        nearly = ~system.bound & np.isin(found.rule, (Rule.torus, Rule.none)) & (found.miss < NEARLY)
        who = _usable(found, np.flatnonzero(nearly))
        if not len(who):
            return
        turns = 16.0 * FIRST_TURNS * 4
        seen = runs.watch(who, found.state[:, who], found.turn[who], turns)
        found.state[:, who] = seen["end"]
        was = found.rule[who].copy()
        found.rule[who] = Rule.none
        _ask_for_returns(runs, found, who, effort)
        # What deviations did before the cycle was reached says nothing of it.
        found.votes[who[found.rule[who] == Rule.returns], :3] = ABSTAINS
        found.rule[who] = np.where(found.rule[who] == Rule.none, was, found.rule[who])


def confidence(found: Findings, effort: Effort) -> np.ndarray:
    """From 0.5 on the border of a rule to 1 far from it; every method that says otherwise takes a fifth."""
    with np.errstate(all="ignore"):
        far: dict[Rule, Any] = {
            Rule.none: 0.0,
            Rule.rest: 0.99,
            Rule.settled: 0.98,
            Rule.leak: 1.0,
            Rule.decay: 0.98,
            Rule.left: 0.99,
            Rule.growth: 0.95,
            Rule.straight: 0.98,
            Rule.rank_two: 1.0,
            Rule.returns: 1 - 0.5 * np.clip(found.miss / effort.tolerance, 0, 1),
            Rule.chaos: 1 - 0.5 * np.exp(-np.maximum(found.megno - MEGNO_REGULAR, 0) / 1.5),
            Rule.torus: 0.98 - 0.48 * np.exp(-np.maximum(MEGNO_REGULAR - found.megno, 0) / 0.15),
        }
    values = [np.broadcast_to(value, found.rule.shape) for value in far.values()]
    value = np.select([found.rule == rule for rule in far], values)
    return value * 0.8 ** otherwise(found).sum(axis=1)


def otherwise(found: Findings) -> np.ndarray:
    """(members, methods): which of them said the other word of regular and chaotic."""
    regular = np.isin(found.rule, (Rule.rank_two, Rule.returns, Rule.torus))
    meant = np.select([regular, found.rule == Rule.chaos], [REGULAR, CHAOTIC], ABSTAINS)
    votes = found.votes
    return (meant[:, None] != 0) & (votes != 0) & (votes != meant[:, None])
