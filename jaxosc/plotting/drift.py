"""Energy drift against step size: which solver keeps energy at which price, and with which order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from .appearance import Mark, grid_color, is_dark, legend_above, marks, quiet_color
from .facets import figure_of, fixed_inside, label_axes, panels
from .maps import tick_axis, unfinished_word
from .summaries import DRIFT_FLOOR, axis_label, drift_summary, value_text, when_word

if TYPE_CHECKING:
    import xarray

_GUIDE_GAP = 0.05  # of the height: two names of guides closer than that would overlap


def drift_against_dt(
    dataset: "xarray.Dataset",
    *,
    variable: str | None = None,
    orders: Sequence[float] = (1, 2, 4),
    columns: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Median energy drift against dt on logarithms, one line per solver, one panel per activation.

    Bands reach from the lower to the upper quartile; everything but activation, solver and dt is pooled. A
    hollow marker says that more than half of the members did not finish, a cross at the upper edge that none
    did. Dotted guides show what an error proportional to dt^order would look like. A drift of exactly zero
    stands on the lower edge. With one step size only, the solvers stand side by side with their quartiles as
    bars.

    **Arguments:** `dataset`: a sweep's; `variable`: see `drift_summary`; `orders`: slopes of the guides;
    `columns`: panels side by side; `figure`: see `facets.panels`.

    **Returns:** the Axes, shape (activations,).

    **Raises:** `JaxoscError` when a variable or dimension is missing.
    """
    summary = drift_summary(dataset, ("activation", "solver", "dt"), variable)
    median, lower, upper = (np.maximum(a, DRIFT_FLOOR) for a in (summary.median, summary.lower, summary.upper))
    activations, solvers = ([value_text(v) for v in summary.values[d]] for d in ("activation", "solver"))
    dt = summary.values["dt"].astype(float)
    layout = panels(figure, [""], activations, wrap=columns or min(3, len(activations)), height=2.5, extra_height=1.2)
    limits = _decades(median, lower, upper)
    median, lower, upper = (np.maximum(a, limits[0]) for a in (median, lower, upper))
    pencils = marks(len(solvers), dark=is_dark(layout.flat[0]))
    for index, axes in enumerate(layout.flat):
        _decade_axis(axes, limits)
        if dt.size == 1:
            _side_by_side(axes, solvers, (median[index], lower[index], upper[index]), pencils)
            fixed_inside(axes)
            continue
        tick_axis(axes, "x", dt, layout.size[0])
        for s, pencil in enumerate(pencils):
            quartiles = median[index, s], lower[index, s], upper[index, s]
            _line(axes, dt, quartiles, summary.unfinished[index, s], pencil)
        fixed_inside(axes)
        _guides(axes, dt, limits, orders)
    figure = figure_of(layout.flat[0])
    x_name = axis_label(dataset, "dt") if dt.size > 1 else f"{axis_label(dataset, 'dt')} = {value_text(dt[0])}"
    label_axes(figure, x_name, f"{when_word(summary)} |energy drift|")
    legend_above(layout.flat[0], _legend(layout.flat[0], dataset, solvers, pencils, summary.unfinished))
    return layout.axes[0]


def _decades(median: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    """Limits that hold all medians but exact zeros, and the quartiles unless they lie more than three decades off."""
    counted = median[np.isfinite(median) & (median > DRIFT_FLOOR)]
    if counted.size == 0:
        return 1e-1, 1e1
    low = max(float(np.nanmin(lower)), float(counted.min()) * 1e-3)
    high = min(float(np.nanmax(upper)), float(counted.max()) * 1e3)
    low, high = np.floor(np.log10(low)), np.ceil(np.log10(high))
    return float(10.0 ** (low - 0.3)), float(10.0 ** (max(high, low + 1) + 0.3))


def _decade_axis(axes: Axes, limits: tuple[float, float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(LogLocator(10, numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, axis="y", color=grid_color(axes))
    axes.set_axisbelow(True)


def _line(
    axes: Axes,
    dt: Float[np.ndarray, " steps"],
    quartiles: tuple[np.ndarray, np.ndarray, np.ndarray],
    unfinished: Float[np.ndarray, " steps"],
    pencil: Mark,
) -> None:
    median, lower, upper = quartiles
    axes.fill_between(dt, lower, upper, color=pencil.color, alpha=0.16, linewidth=0)
    axes.plot(dt, median, color=pencil.color, linestyle=pencil.linestyle)
    hollow = unfinished > 0.5
    for mask, face in ((~hollow, pencil.color), (hollow, axes.get_facecolor())):
        axes.plot(
            dt[mask],
            median[mask],
            linestyle="none",
            marker=pencil.marker,
            markersize=5,
            color=pencil.color,
            markerfacecolor=face,
        )
    nobody = np.isnan(median) & (unfinished >= 1)
    if not nobody.any():
        return
    axes.plot(
        dt[nobody],
        np.ones(int(nobody.sum())),
        linestyle="none",
        marker="x",
        markersize=6,
        color=pencil.color,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )


def _guides(axes: Axes, dt: Float[np.ndarray, " steps"], limits: tuple[float, float], orders: Sequence[float]) -> None:
    """A fan of slopes in the lower right corner, which convergent lines leave empty."""
    start = np.sqrt(dt[0] * dt[-1])
    reach = dt[-1] / start
    ends: list[float] = []
    for order in sorted(orders, reverse=True):
        top = min(reach, (limits[1] / limits[0] / 10) ** (1 / order))
        end = order * np.log10(top) / np.log10(limits[1] / limits[0])
        if ends and ends[-1] - end < _GUIDE_GAP:
            continue
        ends.append(end)
        axes.plot(
            [start, start * top],
            [limits[0] * 2, limits[0] * 2 * top**order],
            linestyle=":",
            linewidth=1.0,
            color=quiet_color(axes),
            zorder=1,
        )
        axes.annotate(
            f"dt$^{{{order:g}}}$",
            (start * top, limits[0] * 2 * top**order),
            xytext=(1.5, 0),
            textcoords="offset points",
            fontsize=7,
            color=quiet_color(axes),
            va="center",
            annotation_clip=False,
        )


def _side_by_side(
    axes: Axes,
    solvers: Sequence[str],
    quartiles: tuple[np.ndarray, np.ndarray, np.ndarray],
    pencils: Sequence[Mark],
) -> None:
    """One dot with its quartiles per solver, for a single step size."""
    for place, (pencil, median, lower, upper) in enumerate(zip(pencils, *quartiles, strict=True)):
        if np.isfinite(median):
            axes.plot([place, place], [lower, upper], color=pencil.color, linewidth=4, alpha=0.35)
            axes.plot([place], [median], marker=pencil.marker, color=pencil.color, linestyle="none", markersize=6)
        else:
            axes.plot(
                [place],
                [1.0],
                marker="x",
                color=pencil.color,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
    axes.set_xlim(-0.6, len(solvers) - 0.4)
    axes.set_xticks(range(len(solvers)), [""] * len(solvers))  # the legend names them, with the same markers


def _legend(
    axes: Axes,
    dataset: "xarray.Dataset",
    solvers: Sequence[str],
    pencils: Sequence[Mark],
    unfinished: np.ndarray,
) -> list[Line2D]:
    handles = [
        Line2D([], [], color=p.color, linestyle=p.linestyle, marker=p.marker, markersize=5, label=name)
        for name, p in zip(solvers, pencils, strict=True)
    ]
    word, quiet = unfinished_word(dataset), quiet_color(axes)
    if np.any(unfinished > 0.5):
        hollow: dict[str, Any] = {
            "marker": "o",
            "markerfacecolor": axes.get_facecolor(),
            "color": quiet,
            "linestyle": "none",
        }
        handles.append(Line2D([], [], label=f"hollow: more than half {word}", **hollow))
    if np.any(unfinished >= 1):
        handles.append(Line2D([], [], marker="x", color=quiet, linestyle="none", label=f"cross: all {word}"))
    return handles
