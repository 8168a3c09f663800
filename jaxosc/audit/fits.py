"""A quantity in windows of a run, and the laws that can be fitted to it: a constant and four ways of leaving it.

    bounded       v = a
    linear_drift  v = a + b t
    sqrt_drift    v = a + b sqrt(t + c),  0 <= c <= the run: forward Euler is late in its square root by c
    exponential   v = a exp(b t)
    settling      v = a + b exp(-c t): an exponential approach to another level

All are linear in a and b (in ln v the exponential is), and c is one of a list: no iteration that could fail.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, " _"]
Clocks = Float[np.ndarray, "_ _"]

EXACT, BOUNDED, SQRT, LINEAR, EXPONENTIAL = "exact", "bounded", "sqrt_drift", "linear_drift", "exponential"
VERDICTS = (EXACT, BOUNDED, SQRT, LINEAR, EXPONENTIAL)
"""From the best to the worst."""

SETTLING = "settling"
"""A law but no verdict of its own: it left its start exponentially."""

_SETTLING_RATES = np.geomspace(1.5, 60.0, 15)  # in units of 1/run: slower ones are straight, faster ones are over
_OFFSETS = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 19)])  # in units of the run


@dataclasses.dataclass(frozen=True)
class Series:
    """A quantity in windows of a run.

    **Attributes:** `times` (k,) of the windows' middles; `means` (k,) of the quantity; `start`, its value at time 0;
    `swing`, half of what it oscillates within a window; `relative`: the quantity is positive and errors count relative
    to it, which also offers the exponential laws; `may_settle`: what changes it is the network itself, and not a solver
    whose errors end with the motion.
    """

    times: Values
    means: Values
    start: float
    swing: float
    relative: bool
    may_settle: bool = False

    @property
    def weights(self) -> Values:
        """Of the windows' errors."""
        return 1 / self.means if self.relative else np.ones_like(self.means)

    @property
    def laws(self) -> tuple[str, ...]:
        """What can be fitted, simple laws first."""
        return (BOUNDED, LINEAR, SQRT, EXPONENTIAL, SETTLING) if self.relative else (BOUNDED, LINEAR, SQRT)

    def piece(self, begin: float, end: float) -> "Series":
        """The windows between two shares of the run."""
        count = len(self.times)
        part = slice(round(begin * count), round(end * count))
        return dataclasses.replace(self, times=self.times[part], means=self.means[part])


def fit(series: Series, name: str) -> Callable[[Values], Values]:
    """The law called `name`, fitted by weighted least squares, as a function of time."""
    t, v = series.times, series.means
    if name == EXPONENTIAL:
        slope, level = line(t, np.log(v))
        return lambda at: np.exp(np.minimum(level + slope * at, 700.0))
    if name == BOUNDED:
        share = series.weights**2 / np.sum(series.weights**2)
        level = float(np.sum(share * v))
        return lambda at: np.full_like(at, level)
    constants = _constants(name, t)
    levels, slopes, errors = fit_lines(_clocks(name, constants, t), v, series.weights)
    best = int(np.argmin(errors))
    level, slope, constant = levels[best], slopes[best], constants[best : best + 1]
    return lambda at: level + slope * _clocks(name, constant, at)[0]


def fit_lines(clocks: Clocks, v: Values, weights: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, slopes and mean squared errors of v = level + slope * clock, for each clock."""
    share = weights**2 / np.sum(weights**2)
    middle = float(share @ v)
    offsets = clocks - (clocks @ share)[:, None]
    slopes = (offsets @ (share * (v - middle))) / (offsets**2 @ share)
    errors = (v - middle - slopes[:, None] * offsets) ** 2 @ share
    return middle - slopes * (clocks @ share), slopes, errors


def line(x: Values, y: Values) -> tuple[float, float]:
    """Slope and level of y = level + slope * x, all points alike."""
    levels, slopes, _ = fit_lines(x[None], y, np.ones_like(x))
    return float(slopes[0]), float(levels[0])


def rate_of(series: Series, name: str) -> float:
    """Per unit time: the slope, the coefficient of sqrt(t), or the exponent."""
    if name == EXPONENTIAL:
        later = series.piece(0.5, 1)  # an energy can fall linearly before it decays
        return line(later.times, np.log(later.means))[0]
    clock = np.sqrt(series.times) if name == SQRT else series.times
    return float(fit_lines(clock[None], series.means, series.weights)[1][0])


def power_of(series: Series) -> float:
    """d ln|change since the start| / d ln t over the second half of the run."""
    later = series.piece(0.5, 1)
    change = np.abs(later.means - series.start)
    return line(np.log(later.times), np.log(np.maximum(change, np.finfo(float).tiny)))[0]


def settled(series: Series) -> tuple[float, float]:
    """Rate and level of the exponential approach to another level."""
    rates = _SETTLING_RATES / series.times[-1]
    levels, _, errors = fit_lines(np.exp(-rates[:, None] * series.times), series.means, np.ones_like(series.means))
    best = int(np.argmin(errors))
    return float(rates[best]), float(levels[best])


def _constants(name: str, t: Values) -> Values:
    """The values to try for c."""
    if name == LINEAR:
        return np.zeros(1)
    return _OFFSETS * t[-1] if name == SQRT else _SETTLING_RATES / (t[-1] - t[0])


def _clocks(name: str, constants: Values, at: Values) -> Clocks:
    """What the quantity may be linear in, a row for each c."""
    if name == LINEAR:
        return at[None]
    if name == SQRT:
        return np.sqrt(at + constants[:, None])
    return np.exp(-constants[:, None] * at)
