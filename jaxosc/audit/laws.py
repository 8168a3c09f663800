"""Which law an error follows: exact, bounded, growing like the square root of time, linearly, or exponentially.

Three questions, in this order, each asked of windows of the run (windows.py) and not of single states:

1. Is the error what rounding alone would leave? A random walk of roundings grows like sqrt(steps), and where the same
   rounding repeats in every step it adds up: the bound is eps (4 n sqrt(1 + steps) + steps / 2), at every time, early
   ones too: a small error that is there at once is no rounding.
2. Does it drift at all? The means of the windows are forecast: each law is fitted to the first part of the run and
   asked for the next. A constant is the forecast of a bounded error. Near-regular orbits wander for long without
   drifting, and a wander is easily fitted by a line afterwards; what a wander does not do is to follow the line.
   A trend smaller than the oscillation within a window has to be forecast ten times better than by the constant, a
   larger one only visibly better; one below a fiftieth of the oscillation is beyond what windows resolve.
3. Which law forecasts best? The simpler one unless the other is better by a margin. An energy that the network itself
   changes, and that settles at another level than its start, like that of an orbit drawn to a limit cycle, has left
   exponentially: it was not kept.

All of it is repeated on pieces of the run that begin later or end earlier. The verdict is what most pieces say, the
confidence is their share: a law that needs the whole run to be seen is not believed much.
"""

import dataclasses

import numpy as np

from .fits import (
    BOUNDED,
    EXACT,
    EXPONENTIAL,
    LINEAR,
    SETTLING,
    SQRT,
    Series,
    Values,
    fit,
    line,
    power_of,
    rate_of,
    settled,
)

_WALK = 4.0  # a step rounds each of the n coordinates n times over, at a third of eps each
_REPEATED = 0.5  # of eps: what a linear or saturated network, where every step is alike, was seen to lose a step

FEWEST_POINTS = 8
"""Windows (or samples) below which no law is fitted."""

_PIECES = ((0, 1), (0, 1), (0.1, 1), (0.2, 1), (0.35, 1), (0.5, 1), (0, 0.85), (0, 0.7), (0.15, 0.85), (0.1, 0.6))
_SPLITS = (0.4, 0.5, 0.6, 0.7)
_SEEN_SHARE = 0.02  # of the oscillation: what the ends of a window leave of it in a mean is below that
_MARGIN = 0.25  # in ln of the forecast error: by how much a law has to beat a simpler one
_STRAIGHT = 0.1  # change of ln v below which all laws are straight: what bends there are fluctuations of the rate
_MOVING = 0.3  # change of ln v over the last half that is no settling down, whatever can be forecast
_RUSHING = 2.0  # the same, beyond what any slower law does: t^3 at least
_LEFT = 10.0  # oscillations between start and present level that are more than a start at an unlucky phase


@dataclasses.dataclass(frozen=True)
class Law:
    """The law of one series.

    **Attributes:** `verdict`, one of `VERDICTS`; `rate` and `exponent`, see `Finding`; `confidence` in [0, 1];
    `hidden`, the drift per unit time that could hide behind a bounded error; `level`, where the quantity settles, in
    units of its start.
    """

    verdict: str
    rate: float | None
    exponent: float | None
    confidence: float
    hidden: float = 0.0
    level: float | None = None


def rounding_bound(steps: Values, n: int, eps: float) -> Values:
    """The largest relative error (k,) that rounding is allowed after so many `steps` (k,) of n neurons."""
    return eps * (_WALK * n * np.sqrt(1.0 + steps) + _REPEATED * steps)


def exact_law(sizes: Values, bounds: Values, duration: float) -> Law | None:
    """The law of errors of these `sizes` (k,) if they stay within `bounds` (k,), else None.

    The confidence is 1 up to a quarter of the bound and 1/2 at the bound.
    """
    ratio = float(np.max(sizes / bounds))
    if not ratio <= 1:
        return None
    return Law(EXACT, None, None, float(1 - 0.25 * np.log2(max(4 * ratio, 1.0))), float(bounds[-1] / duration))


def law_of_error(sizes: Values, bounds: Values, series: Series) -> Law | None:
    """The law of a quantity whose errors have these `sizes` (k,) and its windows this `series`; None in a short run."""
    duration = float(series.times[-1]) if len(series.times) else 1.0
    exact = exact_law(sizes, bounds, duration)
    if exact is not None or len(series.times) < FEWEST_POINTS:
        return exact
    law = law_of(series)
    # Just above what rounding may do, it is half a guess which of the two it was.
    doubt = min(0.5 + 0.25 * np.log2(np.max(sizes / bounds)), 1.0)
    return dataclasses.replace(law, confidence=float(law.confidence * doubt))


def law_of(series: Series) -> Law:
    """The law of a series that is not exact."""
    pieces = [piece for piece in (series.piece(*ends) for ends in _PIECES) if len(piece.times) >= FEWEST_POINTS]
    name, confidence = _elected([_law_name(piece) for piece in pieces])
    if name == BOUNDED and series.may_settle and _has_left(series):
        name = SETTLING
    hidden = (series.swing + 0.5 * float(np.ptp(series.means))) / float(series.times[-1])
    if name == BOUNDED:
        return Law(BOUNDED, None, None, confidence, hidden)
    if name == SETTLING:
        rate, level = settled(series)
        return Law(EXPONENTIAL, -rate, None, confidence, hidden, level)
    exponent = None if name == EXPONENTIAL else power_of(series)
    return Law(name, rate_of(series, name), exponent, confidence, hidden)


def law_of_distance(times: Values, distances: Values) -> Law:
    """The law of a distance > 0 (k,) that starts near zero: a power of time, or exponential growth.

    Powers below 0.2 count as bounded and below 0.75 as a square root; a larger one is called linear and its exponent
    says what it is (a steady loss of energy shears the phase like t^2).
    """
    votes = []
    for begin, end in _PIECES:
        part = slice(round(begin * len(times)), round(end * len(times)))
        if len(times[part]) >= FEWEST_POINTS:
            votes.append(_name_of_distance(times[part], np.log(distances[part])))
    name, confidence = _elected(votes)
    level = np.log(distances)
    if name == EXPONENTIAL:
        return Law(name, line(times, level)[0], None, confidence)
    power = line(np.log(times), level)[0]
    return Law(name, float(distances[-1] / times[-1] ** max(power, 0)), power, confidence)


def _elected(votes: list[str]) -> tuple[str, float]:
    """What most votes say, the first one where it is a tie, and their share; pieces too short to vote count against."""
    counts = {name: votes.count(name) for name in votes}
    best = max(counts.values())
    winner = next(name for name in votes if counts[name] == best)
    return winner, best / len(_PIECES)


def _law_name(series: Series) -> str:
    """The law of one piece of the run."""
    if series.relative and _still_moves(series, _RUSHING):
        return EXPONENTIAL
    noise = _noise(series)
    scores = {name: _forecast_score(series, name, noise) for name in series.laws}
    trend = LINEAR
    for name in series.laws[2:]:
        # A positive quantity that falls like a square root is settling instead.
        if scores[name] < scores[trend] - _MARGIN and not (name == SQRT and series.relative and _falls(series)):
            trend = name
    if series.relative and abs(float(np.log(series.means[-1] / series.means[0]))) < _STRAIGHT:
        trend = LINEAR
    if _drifts(series, trend, scores[trend] - scores[BOUNDED]) or (series.relative and _still_moves(series, _MOVING)):
        return trend
    return BOUNDED


def _drifts(series: Series, trend: str, advantage: float) -> bool:
    """Whether the trend is there, given the ln of its forecast error over that of a constant."""
    fitted = fit(series, trend)(series.times)
    change = abs(float(fitted[-1] - fitted[0]))
    # What is slower than a window swings from one to the next.
    swing = series.swing + float(np.sqrt(2 * np.mean((series.means - fitted) ** 2)))
    swings = np.inf if swing == 0 else change / swing
    if swings < _SEEN_SHARE:
        return False
    allowed = np.clip(0.9 * min(swings / 1.5, 1.0) ** 4, 0.1, 0.9)
    return bool(advantage < np.log(allowed))


def _falls(series: Series) -> bool:
    return bool(series.means[-1] < series.means[0])


def _still_moves(series: Series, least: float) -> bool:
    """Whether a positive quantity keeps falling or growing in the last half, by more than `least` in its logarithm."""
    increments = np.diff(np.log(series.piece(0.5, 1).means))
    moved = abs(float(np.sum(increments)))
    return moved > least and moved > 0.9 * float(np.sum(np.abs(increments)))


def _has_left(series: Series) -> bool:
    """Whether a bounded quantity now oscillates about another level than its start."""
    later = series.piece(0.5, 1).means
    swing = series.swing + float(np.sqrt(2) * np.std(later))
    return abs(float(np.median(later)) - series.start) > _LEFT * swing


def _forecast_score(series: Series, name: str, noise: float) -> float:
    """Mean over several splits of ln of the forecast error (root mean square) of one law, with `noise` added to it."""
    count, weights = len(series.times), series.weights
    scores = []
    for split in _SPLITS:
        known = max(round(split * count), 4)
        future = slice(known, min(known + max(known * 2 // 3, 3), count))
        forecast = fit(series.piece(0, known / count), name)(series.times[future])
        errors = (forecast - series.means[future]) * weights[future]
        scores.append(0.5 * np.log(np.mean(np.minimum(errors**2, 1e12)) + noise**2))
    return float(np.mean(scores))


def _noise(series: Series) -> float:
    """What no smooth law can forecast: a tenth of the scatter from window to window, by second differences."""
    second = np.diff(series.means * series.weights, 2) if not series.relative else np.diff(np.log(series.means), 2)
    # The summand keeps the square of nothing from being nothing.
    return 0.1 * float(np.sqrt(np.mean(second**2) / 6)) + 1e-100


def _name_of_distance(times: Values, level: Values) -> str:
    """The law of one piece, from the logarithms of the distances."""
    (power, by_power), (slope, by_slope) = (_line_and_error(clock, level) for clock in (np.log(times), times))
    if slope * (times[-1] - times[0]) > 1 and by_slope < by_power:
        return EXPONENTIAL
    return BOUNDED if power < 0.2 else SQRT if power < 0.75 else LINEAR


def _line_and_error(clock: Values, level: Values) -> tuple[float, float]:
    slope, offset = line(clock, level)
    return slope, float(np.mean((level - offset - slope * clock) ** 2))
