"""Energy against time: what each solver does to an invariant, with the law that theory gives drawn on top."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from jaxosc._errors import JaxoscError

from .appearance import grid_color, ink_on, is_dark, legend_above, marks
from .facets import figure_of, fixed_inside, new_axes, panels

_FEWEST_DECADES = 2
_MOST_TICKS = 9


def energy_over_time(
    ts: Real[ArrayLike, " times"],
    energies: Mapping[str, Real[ArrayLike, "_"]],
    *,
    theory: Mapping[str, Real[ArrayLike, "_"]] | None = None,
    relative: bool = True,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one line per solver and the theory's laws over them.

    By default the signed relative drift (H(t) - H(0)) / |H(0)| on a symmetric logarithm: ordinary below the
    smallest decade in which a solver differs from none at all, logarithmic beyond, so that a bounded 1e-6 and
    a growth to 10^3 stand in one picture. A line that ends early belongs to a member that escaped.

    **Arguments:**

    - `ts`: times (times,).
    - `energies`: energy by solver name, each (times,); NaN where the member no longer ran.
    - `theory`: energy by the name of the law, each (times,); drawn thin, in the colour of the ink, named as
      theory.
    - `relative`: drift if true, the energy itself (linear axis) if false.
    - `legend`: draw it.
    - `ax`: `None` makes a new figure.

    **Returns:** the Axes; its lines are the solvers in order, then the laws.

    **Raises:** `JaxoscError` for lengths that differ, or no line at all.
    """
    times = np.asarray(ts)
    laws = dict(theory or {})
    _check(times, {**energies, **laws})
    axes = new_axes() if ax is None else ax
    pencils = marks(len(energies), dark=is_dark(axes))
    drawn = {name: _shown(energy, relative) for name, energy in energies.items()}
    for (name, values), pencil in zip(drawn.items(), pencils, strict=True):
        axes.plot(times, values, color=pencil.color, linestyle=pencil.linestyle, label=name, gid=f"solver {name}")
    ink = ink_on(axes.get_facecolor())
    for name, energy in laws.items():
        values = _shown(energy, relative)
        axes.plot(times, values, color=ink, linewidth=0.9, linestyle=(0, (2, 2.2)), label=f"theory: {name}", zorder=4)
    if relative:
        symmetric_log(axes, list(drawn.values()) + [_shown(law, relative) for law in laws.values()])
    axes.grid(True, color=grid_color(axes))
    axes.set_axisbelow(True)
    axes.set_xlabel("time t")
    axes.set_ylabel("energy drift (H(t) − H(0)) / |H(0)|" if relative else "energy H")
    if legend:
        axes.legend()
    return axes


def energies_over_time(
    ts: Real[ArrayLike, " times"],
    energies: Mapping[str, Mapping[str, Real[ArrayLike, "_"]]],
    *,
    theory: Mapping[str, Mapping[str, Real[ArrayLike, "_"]]] | None = None,
    columns: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """`energy_over_time` in panels, with one legend for all.

    **Arguments:** `ts` (times,); `energies`: by panel name and solver; `theory`: by panel name and law; `columns`:
    panels side by side, at most three by default; `figure`: see `facets.panels`.

    **Returns:** the Axes, shape (panels,).

    **Raises:** `JaxoscError` as `energy_over_time` does.
    """
    wrap = columns or min(len(energies), 3)
    layout = panels(figure, [""], list(energies), wrap=wrap, height=2.4, extra_height=1.1, share=False)
    for index, (axes, (name, lines)) in enumerate(zip(layout.flat, energies.items(), strict=True)):
        energy_over_time(ts, lines, theory=(theory or {}).get(name), legend=False, ax=axes)
        fixed_inside(axes)
        axes.set_ylabel("energy drift (H(t) − H(0)) / |H(0)|" if index % wrap == 0 and wrap > 1 else "")
    if wrap == 1:
        figure_of(layout.flat[0]).supylabel("energy drift (H(t) − H(0)) / |H(0)|")
    entries: dict[str, Line2D] = {}
    for line in (line for axes in layout.flat for line in axes.lines):
        label = "theory" if str(line.get_label()).startswith("theory") else str(line.get_label())
        look: dict[str, Any] = {
            "color": line.get_color(),
            "linestyle": line.get_linestyle(),
            "linewidth": line.get_linewidth(),
        }
        entries.setdefault(label, Line2D([], [], label=label, **look))
    legend_above(layout.flat[0], list(entries.values()))
    return layout.axes[0]


def symmetric_log(axes: Axes, lines: list[np.ndarray], threshold: float | None = None) -> None:
    """Set a symmetric-log y axis that fits `lines`, with at most nine labelled ticks.

    `threshold` is where the linear part ends; by default a tenth of the largest drift of the quietest line.
    """
    peaks = [float(np.nanmax(np.abs(v))) for v in lines if np.any(np.isfinite(v))]
    peaks = [p for p in peaks if p > 0 and np.isfinite(p)] or [1.0]
    top = float(np.ceil(np.log10(max(peaks))))
    if threshold is None:
        bottom = min(np.floor(np.log10(min(peaks))) - 1.0, top - _FEWEST_DECADES)
    else:
        bottom = float(np.log10(threshold))
    bottom = max(bottom, -17.0)
    low = min((float(np.nanmin(v)) for v in lines if np.any(np.isfinite(v))), default=0.0)
    high = max((float(np.nanmax(v)) for v in lines if np.any(np.isfinite(v))), default=0.0)
    linear = 10.0**bottom
    axes.set_yscale("symlog", linthresh=linear, linscale=0.6)
    every = max(1, int(np.ceil((top - bottom) * (2 if low < -linear and high > linear else 1) / (_MOST_TICKS - 1))))
    decades = [10.0**k for k in np.arange(top, bottom - 0.5, -every)]
    axes.set_ylim(-_beyond(-low, linear), _beyond(high, linear))
    axes.yaxis.set_major_locator(FixedLocator([*(-d for d in decades), 0.0, *decades[::-1]]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_power))


def _beyond(value: float, linear: float) -> float:
    """An axis limit a little outside `value`, or the end of the linear part when `value` is inside it."""
    return value * 2.0 if value > linear else linear


def _power(value: float, _: object) -> str:
    if value == 0:
        return "0"
    sign = "−" if value < 0 else ""
    return f"${sign}10^{{{round(np.log10(abs(value)))}}}$"


def _shown(energy: Real[ArrayLike, " times"], relative: bool) -> np.ndarray:
    values = np.asarray(energy, dtype=float)
    if not relative:
        return values
    return (values - values[0]) / max(abs(float(values[0])), float(np.finfo(float).tiny))


def _check(times: np.ndarray, lines: Mapping[str, ArrayLike]) -> None:
    if not lines:
        raise JaxoscError("Got no energy to draw, expected at least one line: give {name: energies}.")
    for name, values in lines.items():
        if np.shape(values) != times.shape:
            raise JaxoscError(
                f"Got {name} of shape {np.shape(values)}, expected {times.shape} like ts: give one energy per time."
            )
