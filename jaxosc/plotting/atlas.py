"""The chaos atlas: which share of random networks is chaotic, by size, energy, weight law and activation.

Cells are equally large whatever the numbers on the axes, because each of them holds words: the share, and under it how
well a sample of some tens of networks knows it.
"""

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from jaxosc._errors import JaxoscError

from .appearance import grid_color, ink_on, is_dark, legend_above
from .facets import Panels, figure_of, fixed_inside, label_axes, panels
from .maps import share_text
from .summaries import axis_label, value_text

if TYPE_CHECKING:
    import xarray

_X, _Y, _ROWS, _COLUMNS = "energy", "neurons", "activation", "weight_law"

DOUBTFUL_FROM = 0.05
"""The share of undecided orbits above which a cell is marked."""

_CORNER = [(0.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 0.0)]  # a marker
_CELL_HEIGHT = 0.31  # inches: two lines of text and air
_NARROW = 6.0  # inches


def chaos_atlas(
    dataset: "xarray.Dataset",
    *,
    confidence: float = 0.95,
    annotate: bool = True,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """The share of chaotic orbits against the energy of the start and the number of neurons, in each cell in percent.

    One panel for each activation (rows) and weight law (columns). Under each share stands, smaller, the interval of
    true shares that the draws are compatible with. A corner is cut where more than 5 % of the orbits are undecided,
    which count neither way. A cell without a decided orbit is grey. The numbers are those of
    `jo.sweeps.chaotic_shares`.

    **Arguments:** `dataset`: of the study `jo.sweeps.chaos_study()`, with one start for each draw; `confidence`: of
    the intervals; `annotate`: print the numbers where they fit; `figure`: see `facets.panels`.

    **Returns:** the Axes, shape (activations, weight laws).

    **Raises:** `JaxoscError` without energies and sizes as dimensions, for several values of any further one, and as
    `chaotic_shares` does.
    """
    from jaxosc.sweeps import chaotic_shares  # only here: it loads xarray and zarr, which other pictures do without

    shares = _in_panels(chaotic_shares(dataset, confidence))
    rows, columns, neurons, energies = ([value_text(v) for v in shares[dim].values] for dim in shares["share"].dims)
    layout = panels(figure, rows, columns, wrap=None if len(rows) > 1 else 3, height=_CELL_HEIGHT * len(neurons) + 0.1)
    printed = _printed(layout, len(neurons), len(energies)) if annotate else ()
    mappable = ScalarMappable(Normalize(0.0, 1.0), _colormap(dark=is_dark(layout.flat[0])))
    for (i, j), axes in layout.items():
        cells = {str(name): values.values[i, j] for name, values in shares.data_vars.items()}
        _draw_cells(axes, cells["share"], mappable)
        _cut_corners(axes, cells, mappable)
        if printed:
            _print_shares(axes, cells, mappable, printed)
        axes.set_xticks(range(len(energies)), energies)
        axes.set_yticks(range(len(neurons)), neurons)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        fixed_inside(axes)
    label_axes(figure_of(layout.flat[0]), axis_label(dataset, _X), axis_label(dataset, _Y))
    _color_bar(layout, mappable)
    handles = _handles(layout.flat[0], shares)
    if "interval" in printed:
        words = f"small print: {100 * confidence:g} % interval over {dataset.sizes['draw']} draws"
        handles.insert(0, Line2D([], [], linestyle="none", label=words))
    if handles:
        legend_above(layout.flat[0], handles)
    return layout.axes


def _in_panels(shares: "xarray.Dataset") -> "xarray.Dataset":
    """The shares with the dimensions of rows, columns, y and x; raises for what does not fit on one page."""
    for needed in (_X, _Y):
        if needed not in shares.sizes:
            known = ", ".join(map(str, shares.sizes))
            raise JaxoscError(
                f"Got a dataset over {known}, expected {needed} too: declare several, as chaos_study() does."
            )
    kept = (_ROWS, _COLUMNS, _Y, _X)
    for dim, size in shares.sizes.items():
        if dim not in kept and size > 1:
            raise JaxoscError(f"Got {size} values of {dim}, expected one: choose with dataset.isel({dim}=[0]).")
    shares = shares.isel({dim: 0 for dim in shares.sizes if dim not in kept}, drop=True)
    for panel in (_ROWS, _COLUMNS):
        shares = shares if panel in shares.sizes else shares.expand_dims({panel: [""]})
    return shares.transpose(*kept)


def _colormap(*, dark: bool) -> LinearSegmentedColormap:
    """From nearly the paper (nobody is chaotic) to what stands out most from it (all are)."""
    part = np.linspace(0.16, 0.93, 256) if dark else np.linspace(0.97, 0.30, 256)
    return LinearSegmentedColormap.from_list("chaos", mpl.colormaps["magma"](part))


def _draw_cells(axes: Axes, share: np.ndarray, mappable: ScalarMappable) -> None:
    axes.set_facecolor(grid_color(axes))
    rows, columns = share.shape
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(share),
        cmap=mappable.get_cmap(),
        vmin=0.0,
        vmax=1.0,
        edgecolor=axes.figure.get_facecolor(),
        linewidth=0.8,
    )


def _cut_corners(axes: Axes, cells: dict[str, np.ndarray], mappable: ScalarMappable) -> None:
    """A triangle in the upper right corner of doubtful cells, of one size whatever the size of the cells."""
    place = np.argwhere(cells["undecided"] > DOUBTFUL_FROM)
    if not len(place):
        return
    corner: Any = _CORNER
    inks = [ink_on(_cell_color(axes, cells["share"][j, i], mappable)) for j, i in place]
    # Two points inwards: on the border of the cell a white corner would not be seen.
    inside = axes.transData + ScaledTranslation(-2 / 72, -2 / 72, axes.figure.dpi_scale_trans)
    look: dict[str, Any] = {"s": 50, "linewidths": 0, "gid": "doubtful", "zorder": 2, "transform": inside}
    axes.scatter(place[:, 1] + 0.5, place[:, 0] + 0.5, marker=corner, c=inks, **look)


def _printed(layout: Panels, rows: int, columns: int) -> tuple[str, ...]:
    """What cells are large enough for: the share and its interval, the share alone, or nothing."""
    width, height = layout.size[0] / columns, layout.size[1] / rows
    if width < 0.33 or height < 0.15:
        return ()
    return ("share", "interval") if width >= 0.42 and height >= 0.24 else ("share",)


def _print_shares(axes: Axes, cells: dict[str, np.ndarray], mappable: ScalarMappable, printed: tuple[str, ...]) -> None:
    """The share of each cell in its middle, or over its interval."""
    for j, i in np.argwhere(cells["decided"] > 0):
        look: dict[str, Any] = {
            "xy": (i, j),
            "textcoords": "offset points",
            "ha": "center",
            "color": ink_on(_cell_color(axes, cells["share"][j, i], mappable)),
        }
        share = share_text(cells["share"][j, i])
        if "interval" not in printed:
            axes.annotate(share, xytext=(0, 0), va="center", fontsize=7, **look)
            continue
        interval = f"{100 * cells['low'][j, i]:.0f}–{100 * cells['high'][j, i]:.0f}"
        axes.annotate(share, xytext=(0, -1.5), va="bottom", fontsize=8, **look)
        axes.annotate(interval, xytext=(0, -2.5), va="top", fontsize=5.8, **look)


def _cell_color(axes: Axes, share: float, mappable: ScalarMappable) -> Any:
    return mappable.to_rgba(np.asarray(share)) if np.isfinite(share) else grid_color(axes)


def _color_bar(layout: Panels, mappable: ScalarMappable) -> None:
    """One bar for all panels: at the right of a wide figure, over a narrow one that cannot spare the width."""
    figure = figure_of(layout.flat[0])
    narrow = float(figure.bbox.width) / figure.dpi < _NARROW
    place: dict[str, Any] = (
        {"location": "top", "aspect": 40} if narrow else {"location": "right", "aspect": 28, "shrink": 0.9}
    )
    bar = figure.colorbar(mappable, ax=layout.flat, pad=0.02, **place)
    bar.set_label("chaotic orbits")
    bar.locator = FixedLocator([0, 0.25, 0.5, 0.75, 1])
    bar.formatter = PercentFormatter(1.0, decimals=0)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _handles(axes: Axes, shares: "xarray.Dataset") -> list[Artist]:
    """What a corner and a grey cell mean, as far as there are any."""
    handles: list[Artist] = []
    if bool((shares["undecided"] > DOUBTFUL_FROM).any()):
        middle: Any = [(x + 0.5, y + 0.5) for x, y in _CORNER]
        look: dict[str, Any] = {"marker": middle, "markersize": 6, "linestyle": "none", "markeredgewidth": 0}
        label = f"more than {100 * DOUBTFUL_FROM:g} % undecided"
        handles.append(Line2D([], [], color=ink_on(axes.figure.get_facecolor()), label=label, **look))
    if bool((shares["decided"] == 0).any()):
        handles.append(Patch(facecolor=grid_color(axes), linewidth=0, label="none decided"))
    return handles
