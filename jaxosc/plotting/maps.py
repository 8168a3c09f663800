"""Stability maps: how far the energy drifts, and who escapes, against step size and gain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from jaxosc._errors import JaxoscError
from jaxosc._results import Result

from .appearance import grid_color, hatch_patch, ink_on, legend_above
from .facets import Panels, figure_of, fixed_inside, label_axes, panels
from .summaries import (
    DRIFT_FLOOR,
    DriftSummary,
    axis_label,
    drift_summary,
    flags,
    is_number_axis,
    value_text,
    varied,
    when_word,
)

if TYPE_CHECKING:
    import xarray

_COLORS = "viridis"
_HATCH = "////"
_NARROW = 6.0  # inches
_WORST = 1.0  # log10 of the drift where the colours end


@dataclass(frozen=True)
class MapAxes:
    """Which dimension a stability map spends on what: `x`, `y`, `rows` and `columns` of its panels."""

    x: str
    y: str
    rows: str | None
    columns: str | None

    @property
    def kept(self) -> tuple[str, ...]:
        """The dimensions that are not pooled, panels first."""
        return tuple(dim for dim in (self.rows, self.columns, self.y, self.x) if dim is not None)


def map_axes(dataset: "xarray.Dataset", x: str | None = None, y: str | None = None) -> MapAxes:
    """Choose what a map of this dataset shows: `dt` against `gain`, as long as both vary.

    An axis with a single value would make a map of one line, so its place goes to the next declared axis of
    numbers, then to `solver`, then to `activation`; what is left of these two makes the panels.

    **Raises:** `JaxoscError` for a dimension that the dataset does not have.
    """
    for asked in (x, y):
        if asked is not None and asked not in dataset.sizes:
            known = ", ".join(str(d) for d in dataset.sizes)
            raise JaxoscError(f"Got the dimension {asked}, expected one of {known}: choose among these.")
    numbers = [d for d in varied(dataset) if d in dataset.coords and is_number_axis(dataset, d)]
    order = [d for d in ("dt", "gain") if d in numbers] + [d for d in numbers if d not in ("dt", "gain")]
    order += [d for d in ("solver", "activation") if d in dataset.sizes]
    first = x if x is not None else next(d for d in order if d != y)
    second = y if y is not None else next(d for d in order if d != first)
    rows, columns = (d if d in dataset.sizes and d not in (first, second) else None for d in ("activation", "solver"))
    return MapAxes(first, second, rows, columns)


def stability_map(
    dataset: "xarray.Dataset",
    *,
    x: str | None = None,
    y: str | None = None,
    variable: str | None = None,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    annotate: bool = True,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Median energy drift per cell, one panel per activation and solver.

    Colour is log10 of the median over draws and starts (and any axis that is not shown) of the largest
    relative energy drift, among the members that finished. The share of those that did not finish is printed
    where it fits, and the cell is hatched where it exceeds one half.

    **Arguments:** `dataset`: a sweep's; `x`, `y`: dimensions (see `map_axes`); `variable`: see
    `drift_summary`; `columns`: panels side by side (`None`: one column per solver); `limits`: of the colours,
    as log10, to compare figures; `annotate`: print shares; `figure`: see `facets.panels`.

    **Returns:** the Axes, shape (activations, solvers).

    **Raises:** `JaxoscError` when a variable or dimension is missing.
    """
    axes_of = map_axes(dataset, x, y)
    summary = drift_summary(dataset, axes_of.kept, variable)
    rows, names = _panel_names(dataset, axes_of.rows), _panel_names(dataset, axes_of.columns)
    shape = len(rows), len(names), len(dataset[axes_of.y]), len(dataset[axes_of.x])
    level = drift_level(summary).reshape(shape)
    unfinished = summary.unfinished.reshape(shape)
    wrap = columns if columns is not None or len(rows) > 1 else min(len(names), 3)
    layout = panels(figure, rows, names, wrap=wrap, height=_panel_height(shape[2]), extra_height=1.25)
    low, high = color_limits(level) if limits is None else limits
    mappable = ScalarMappable(Normalize(low, high), mpl.colormaps[_COLORS])
    for index, axes in layout.items():
        _draw_cells(axes, dataset, axes_of, level[index], mappable)
        _draw_losses(axes, dataset, axes_of, level[index], unfinished[index], mappable)
        if annotate:
            _print_losses(axes, dataset, axes_of, level[index], unfinished[index], mappable, layout)
        fixed_inside(axes)
    _finish(layout, dataset, axes_of, summary, mappable)
    return layout.axes


def unfinished_word(dataset: "xarray.Dataset") -> str:
    """What to call the members that did not finish: `escaped` where nothing worse happened."""
    codes = {name: code for name, code in flags(dataset, "result").items() if code != int(Result.successful)}
    present = [name for name, code in codes.items() if bool((dataset["result"] == code).any())]
    return "escaped" if present in ([], ["escaped"]) else "escaped or failed"


def _panel_names(dataset: "xarray.Dataset", dim: str | None) -> list[str]:
    return [""] if dim is None else [value_text(v) for v in dataset[dim].values]


def _panel_height(rows: int) -> float:
    return float(np.clip(0.26 * rows, 1.1, 3.0))


def drift_level(summary: DriftSummary) -> Float[np.ndarray, "..."]:
    """log10 of the median drift, what the colours of a map stand for; NaN where nobody finished."""
    return np.log10(np.maximum(summary.median, DRIFT_FLOOR))


def color_limits(level: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Whole decades around the levels, at least one wide, ending at ten times the energy.

    Beyond that nothing is left of the orbit, and the colours are worth more where solvers differ. Drifts of exactly
    zero do not count either: a dead network would stretch the colours down to rounding.
    """
    counted = level[np.isfinite(level) & (level > np.log10(DRIFT_FLOOR))]
    if counted.size == 0:
        return -1.0, 0.0
    low, high = float(np.floor(counted.min())), float(np.ceil(counted.max()))
    low, high = min(low, _WORST - 1), min(high, _WORST)
    return (low, high) if high > low else (low, low + 1.0)


def edges(
    values: Sequence[object] | np.ndarray,
) -> tuple[Float[np.ndarray, " edges"], Float[np.ndarray, " cells"], bool]:
    """Cell borders and centres of an axis, and whether it is logarithmic.

    Positive increasing numbers that span a factor of three or more are drawn on a logarithm, other increasing
    numbers as they are, and names (or unordered numbers) one unit apart.
    """
    array = np.asarray(values)
    numeric = np.issubdtype(array.dtype, np.number) and bool(np.all(np.diff(array) > 0))
    if not numeric or array.size < 2:
        return np.arange(array.size + 1) - 0.5, np.arange(array.size, dtype=float), False
    centre = array.astype(float)
    log = bool(centre[0] > 0 and centre[-1] / centre[0] >= 3)
    scale = np.log10(centre) if log else centre
    middle = (scale[1:] + scale[:-1]) / 2
    border = np.concatenate([[2 * scale[0] - middle[0]], middle, [2 * scale[-1] - middle[-1]]])
    return (10.0**border if log else border), centre, log


def tick_axis(axes: Axes, which: str, values: np.ndarray, room: float) -> None:
    """Put ticks at the values, as many labelled as `room` inches hold; logarithmic where `edges` says so."""
    _, centre, log = edges(values)
    labels = [value_text(v) for v in values]
    if which == "x":
        need = 0.085 * max(len(label) for label in labels) + 0.08  # inches, for 8 pt sans serif
    else:
        need = 0.17
    every = max(1, int(np.ceil(len(labels) * need / room)))
    shown = set(range(0, len(labels), every))
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log" if log else "linear")
    axis.set_major_locator(FixedLocator(list(centre[sorted(shown)])))
    axis.set_minor_locator(FixedLocator(list(centre)) if len(shown) < len(labels) else NullLocator())
    by_place = {float(centre[i]): labels[i] for i in shown}
    axis.set_major_formatter(
        FuncFormatter(lambda place, _: by_place[min(by_place, key=lambda known: abs(known - place))])
    )
    axis.set_minor_formatter(FuncFormatter(lambda place, _: ""))


def _draw_cells(
    axes: Axes,
    dataset: "xarray.Dataset",
    axes_of: MapAxes,
    level: Float[np.ndarray, "y x"],
    mappable: ScalarMappable,
) -> None:
    x_edges, y_edges = edges(dataset[axes_of.x].values)[0], edges(dataset[axes_of.y].values)[0]
    axes.set_facecolor(grid_color(axes))
    axes.pcolormesh(
        x_edges,
        y_edges,
        np.ma.masked_invalid(level),
        cmap=mappable.get_cmap(),
        vmin=mappable.get_clim()[0],
        vmax=mappable.get_clim()[1],
        edgecolor=axes.figure.get_facecolor(),
        linewidth=0.4,
    )


def _draw_losses(
    axes: Axes,
    dataset: "xarray.Dataset",
    axes_of: MapAxes,
    level: Float[np.ndarray, "y x"],
    unfinished: Float[np.ndarray, "y x"],
    mappable: ScalarMappable,
) -> None:
    """Hatch the cells where more than half of the members did not finish."""
    x_edges, y_edges = edges(dataset[axes_of.x].values)[0], edges(dataset[axes_of.y].values)[0]
    for j, i in np.argwhere(unfinished > 0.5):
        width, height = x_edges[i + 1] - x_edges[i], y_edges[j + 1] - y_edges[j]
        ink = ink_on(_cell_color(axes, level[j, i], mappable))
        axes.add_patch(
            Rectangle((x_edges[i], y_edges[j]), width, height, fill=False, hatch=_HATCH, linewidth=0, edgecolor=ink)
        )


def _print_losses(
    axes: Axes,
    dataset: "xarray.Dataset",
    axes_of: MapAxes,
    level: Float[np.ndarray, "y x"],
    unfinished: Float[np.ndarray, "y x"],
    mappable: ScalarMappable,
    layout: Panels,
) -> None:
    """Print the unfinished share into its cell where the cell is wide and high enough for 6.5 pt text."""
    width, height = layout.size[0] / level.shape[1], layout.size[1] / level.shape[0]
    if width < 0.25 or height < 0.13:
        return
    x_centre, y_centre = edges(dataset[axes_of.x].values)[1], edges(dataset[axes_of.y].values)[1]
    for j, i in np.argwhere(unfinished > 0):
        back = _cell_color(axes, level[j, i], mappable)
        axes.text(
            x_centre[i],
            y_centre[j],
            share_text(unfinished[j, i]).removesuffix("%"),
            ha="center",
            va="center",
            fontsize=6.5,
            color=ink_on(back),
            bbox={"facecolor": back, "edgecolor": "none", "pad": 0.6} if unfinished[j, i] > 0.5 else None,
        )


def _cell_color(axes: Axes, level: float, mappable: ScalarMappable) -> Any:
    """The colour that a cell is painted in."""
    return mappable.to_rgba(np.asarray(level)) if np.isfinite(level) else grid_color(axes)


def share_text(share: float) -> str:
    """A share as a percentage that never rounds a few to none, nor nearly all to all."""
    percent = 100.0 * share
    if 0 < percent < 1:
        return "<1%"
    if 99 < percent < 100:
        return ">99%"
    return f"{percent:.0f}%"


def _finish(
    layout: Panels,
    dataset: "xarray.Dataset",
    axes_of: MapAxes,
    summary: DriftSummary,
    mappable: ScalarMappable,
) -> None:
    """Ticks, axis names, the colour bar that all panels share, and what the hatch means."""
    for axes in layout.flat:
        axes.tick_params(length=2)
        tick_axis(axes, "x", dataset[axes_of.x].values, layout.size[0])
        tick_axis(axes, "y", dataset[axes_of.y].values, layout.size[1])
        if not is_number_axis(dataset, axes_of.y):  # names are read from the top down
            axes.set_ylim(len(dataset[axes_of.y]) - 0.5, -0.5)
    figure = figure_of(layout.flat[0])
    label_axes(figure, axis_label(dataset, axes_of.x), axis_label(dataset, axes_of.y))
    _color_bar(figure, layout, summary, mappable)
    word = unfinished_word(dataset)
    if np.any(summary.unfinished > 0):
        legend_above(
            layout.flat[0],
            [hatch_patch(f"more than half {word}; printed: % {word}", _HATCH, layout.flat[0])],
        )


def _color_bar(figure: Figure | SubFigure, layout: Panels, summary: DriftSummary, mappable: ScalarMappable) -> None:
    """One bar for all panels: at the right of a wide figure, over a narrow one that cannot spare the width."""
    level, (low, high) = drift_level(summary), mappable.get_clim()
    beyond = {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[bool(np.any(level < low)), bool(np.any(level > high))]
    narrow = float(figure.bbox.width) / figure.dpi < _NARROW
    place: dict[str, Any] = (
        {"location": "top", "aspect": 40} if narrow else {"location": "right", "aspect": 28, "shrink": 0.9}
    )
    bar = figure.colorbar(mappable, ax=layout.flat, pad=0.02, extend=beyond, extendfrac=0.03, **place)
    bar.set_label(f"median of the {when_word(summary)} |energy drift|")
    bar.locator = MaxNLocator(7, integer=True)
    bar.formatter = FuncFormatter(lambda level, _: f"$10^{{{level:.0f}}}$")
    bar.update_ticks()
    bar.outline.set_visible(False)
