"""Shares of the codes that members carry: how runs ended (`result`), or what their orbits are (`orbit`)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from .appearance import grid_color, ink_on, is_dark, legend_above, marks
from .facets import figure_of, fixed_inside, label_axes, panels
from .summaries import axis_label, code_shares, value_text

if TYPE_CHECKING:
    import xarray

# Places in the palette and hatches: green and plain for what one hopes for, vermillion and hatched for what one may not
# overlook, the paper's own grey for what nobody knows.
_FILLS = {
    "successful": (2, ""),
    "escaped": (1, "///"),
    "non_finite": (3, "xxx"),
    "max_steps_reached": (4, "..."),
    "solver_failed": (6, "oo"),
    "periodic": (2, ""),
    "quasi_periodic": (0, "\\\\\\"),
    "chaotic": (3, "xxx"),
    "escaping": (1, "///"),
    "collapsing": (4, "..."),
    "fixed_point": (5, "||"),
}


def result_shares(
    dataset: "xarray.Dataset",
    variable: str = "result",
    *,
    columns: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Stacked bars of the share of each code against dt, one panel per activation and solver.

    With a single step size there is one panel per activation, and a bar per solver.

    **Arguments:** `dataset`: a sweep's; `variable`: `"result"`, `"orbit"` or any int8 variable with CF flags;
    `columns`: panels side by side (`None`: one column per solver); `figure`: see `facets.panels`.

    **Returns:** the Axes, shape (activations, solvers), or (activations, 1) for a single step size.

    **Raises:** `JaxoscError` when the variable, its flags or a dimension is missing.
    """
    shares = code_shares(dataset, ("activation", "solver", "dt"), variable)
    one_dt = shares.shares.shape[2] == 1
    activations, solvers = ([value_text(v) for v in shares.values[d]] for d in ("activation", "solver"))
    if one_dt:
        layout = panels(figure, activations, [""], wrap=columns or min(3, len(activations)), height=1.8)
        bars, labels = shares.shares[:, :, 0][:, None], solvers
    else:
        wrap = columns if columns is not None or len(activations) > 1 else min(3, len(solvers))
        layout = panels(figure, activations, solvers, wrap=wrap, height=1.2)
        bars, labels = shares.shares, [value_text(v) for v in shares.values["dt"]]
    present = [k for k in range(len(shares.names)) if np.nansum(bars[..., k]) > 0]
    fills = code_fills(shares.names, layout.flat[0])
    for index, axes in layout.items():
        _stack(axes, bars[index], present, fills)
        _tick(axes, labels, layout.size[0])
        fixed_inside(axes)
    figure = figure_of(layout.flat[0])
    label_axes(figure, "solver" if one_dt else axis_label(dataset, "dt"), "share of members")
    handles = code_handles(shares.names, fills, present)
    if handles:
        legend_above(layout.flat[0], handles)
    return layout.axes


def code_fills(names: tuple[str, ...], axes: Axes) -> list[tuple[str, str]]:
    """Colour and hatch of each code: the same for the same word in every figure; unknown words take free places."""
    palette = marks(7 + len(names), dark=is_dark(axes))
    taken = {_FILLS[name][0] for name in names if name in _FILLS}
    free = (place for place in range(len(palette)) if place not in taken)
    found = []
    for name in names:
        place, hatch = _FILLS[name] if name in _FILLS else (next(free), "++")
        found.append((grid_color(axes), "..") if name == "undecided" else (palette[place].color, hatch))
    return found


def code_handles(names: tuple[str, ...], fills: list[tuple[str, str]], present: Iterable[int]) -> list[Patch]:
    """Legend entries of the codes that are `present`, by their places in `names`."""
    return [
        Patch(
            facecolor=fills[k][0],
            edgecolor=hatch_ink(fills[k][0]),
            hatch=fills[k][1],
            linewidth=0,
            label=names[k].replace("_", " "),
        )
        for k in present
    ]


def _stack(axes: Axes, bars: np.ndarray, present: list[int], fills: list[tuple[str, str]]) -> None:
    """Bars over one another; a missing bar means that nothing is computed there yet."""
    places, bottom = np.arange(bars.shape[0]), np.zeros(bars.shape[0])
    for k in present:
        height = np.nan_to_num(bars[:, k])
        axes.bar(
            places,
            height,
            width=0.86,
            bottom=bottom,
            color=fills[k][0],
            hatch=fills[k][1],
            edgecolor=hatch_ink(fills[k][0]),
            linewidth=0,
        )
        bottom = bottom + height
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def hatch_ink(color: str) -> str:
    """Half-transparent black or white: a hatch that is seen and does not shout."""
    return f"{ink_on(color)}88"


def _tick(axes: Axes, labels: list[str], width: float) -> None:
    """As many bar labels as `width` inches hold; a few long names are slanted instead of dropped."""
    need = 0.085 * max(len(label) for label in labels) + 0.08
    room = width / len(labels)
    slant = need > room and len(labels) <= 6
    every = 1 if slant else max(1, int(np.ceil(need / room)))
    places = list(range(0, len(labels), every))
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.tick_params(length=2)
    axes.set_xticks(places, [labels[p] for p in places])
    if slant:
        for text in axes.get_xticklabels():
            text.set(rotation=25, ha="right", rotation_mode="anchor")
