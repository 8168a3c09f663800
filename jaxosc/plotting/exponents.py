"""Lyapunov exponents on their way to what they are: each against the time over which it was averaged.

What has converged is level at the end, pairs lie on both sides of zero at the same distance, and the exponents of a
torus go on falling like log(t) / t: on a logarithmic axis of time one sees which of these it is.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from jaxosc._errors import JaxoscError
from jaxosc._results import Result
from jaxosc.orbits import LyapunovSpectrum

from .appearance import grid_color, is_dark, marks, quiet_color
from .facets import new_axes

_LEGEND_UP_TO = 12
_BAR: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "capsize": 3.5, "elinewidth": 1.2, "zorder": 3}
_HEADROOM = 1.35  # over the largest exponent of the time that counts


def lyapunov_convergence(
    spectrum: LyapunovSpectrum, *, member: int | tuple[int, ...] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the running averages of the exponents of one member, with their standard errors at the end.

    Exponents that must pair have one colour, the upper one a solid line and the lower one a dashed line. The legend
    gives up to twelve, from the largest down, with one standard error. The picture is as high as the exponents of the
    second half of the axis of time need; what happens before may leave it.

    **Arguments:** `spectrum`: of `jo.orbits.lyapunov_spectrum`; `member`: which one of a batch, an index; `ax`: `None`
    makes a new figure.

    **Returns:** the Axes; its lines with the ids "exponent 1", "exponent 2", ... are those of `series`.

    **Raises:** `JaxoscError` for a batch without `member`, one that is not there, and one that left.
    """
    place = _place(spectrum, member)
    series, final, error = (
        np.asarray(array, dtype=float)[place] for array in (spectrum.series, spectrum.exponents, spectrum.error)
    )
    times = np.asarray(spectrum.ts, dtype=float)
    paired = bool(np.isfinite(np.asarray(spectrum.pairing_residual)[place]))
    axes = new_axes() if ax is None else ax
    axes.axhline(0.0, color=quiet_color(axes), linewidth=0.9, zorder=1)
    groups = _groups(len(final), paired)
    pencils = dict(zip(groups, marks(len(groups), dark=is_dark(axes)), strict=True))
    for i in range(len(final)):
        group = next(group for group in groups if i in group)
        pencil = pencils[group]
        style = pencil.linestyle if not paired else "-" if i == group[0] else (0, (4, 2))
        label = f"$\\lambda_{{{i + 1}}}$ = {_with_error(final[i], error[i])}" if i < _LEGEND_UP_TO else None
        axes.plot(times, series[:, i], color=pencil.color, linestyle=style, label=label, gid=f"exponent {i + 1}")
        axes.errorbar(times[-1], final[i], yerr=error[i], color=pencil.color, **_BAR)
    _frame(axes, times, series)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.8)
    return axes


def _place(spectrum: LyapunovSpectrum, member: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The index of the member, checked."""
    batch = spectrum.exponents.shape[:-1]
    place = () if member is None else tuple(np.atleast_1d(member).tolist())
    if len(place) != len(batch):
        raise JaxoscError(f"Got member = {member} of a batch of shape {batch}, expected an index of one of them.")
    if not all(-size <= index < size for index, size in zip(place, batch, strict=True)):
        raise JaxoscError(f"Got member = {member}, which is not in a batch of shape {batch}: take a smaller index.")
    result = Result(int(np.asarray(spectrum.result)[place]))
    if result is not Result.successful:
        raise JaxoscError(f"Got a member that {_ENDS[result]}, expected one with exponents: choose another one.")
    return place


_ENDS = {
    Result.escaped: "escaped",
    Result.non_finite: "became NaN or infinite",
    Result.max_steps_reached: "ran out of steps",
    Result.solver_failed: "the solver gave up",
    Result.irreversible: "could not be run back",
}


def _groups(count: int, paired: bool) -> list[tuple[int, ...]]:
    """Exponents of one colour: pairs from the outside in, or each for itself."""
    if not paired:
        return [(i,) for i in range(count)]
    return [tuple(sorted({i, count - 1 - i})) for i in range((count + 1) // 2)]


def _with_error(value: float, error: float) -> str:
    """A value to the place of the first digit of its error, of the second one where the first is a 1."""
    if not error > 0:
        return f"{value:+.4g}"
    exponent = int(np.floor(np.log10(error)))
    places = max(0, (1 if error < 2 * 10.0**exponent else 0) - exponent)
    return f"{value:+.{places}f} ± {error:.{places}f}".replace("-", "−")


def _frame(axes: Axes, times: Float[np.ndarray, " times"], series: Float[np.ndarray, "times exponents"]) -> None:
    """Scales, limits and words."""
    axes.set_xscale("log")
    axes.set_xlim(times[0], times[-1] * (times[-1] / times[0]) ** 0.04)
    late = series[times >= np.sqrt(times[0] * times[-1])]
    low, high = min(0.0, float(late.min())), max(0.0, float(late.max()))
    edge = (_HEADROOM - 1) * (high - low or 1.0) / 2
    axes.set_ylim(low - edge, high + edge)
    axes.grid(True, color=grid_color(axes))
    axes.set_axisbelow(True)
    axes.set_xlabel("time t")
    axes.set_ylabel("exponents averaged up to t [1 / time unit]")
