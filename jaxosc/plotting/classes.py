"""Maps of orbit classes: which kind of orbit is the most frequent one, over two dimensions of a sweep."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap

from jaxosc._errors import JaxoscError

from .appearance import grid_color, ink_on
from .facets import figure_of, new_axes
from .maps import edges, share_text, tick_axis
from .shares import code_fills, code_handles, hatch_ink
from .summaries import CodeShares, axis_label, code_shares, is_number_axis

if TYPE_CHECKING:
    import xarray


def orbit_classes(
    dataset: "xarray.Dataset",
    x: str,
    y: str,
    *,
    variable: str = "orbit",
    annotate: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Colour each cell by the class that most of its members have, and print their share where it is not all of them.

    All other dimensions are pooled: choose before, as in `dataset.sel(activation="tanh")`, what should not be. Of
    classes that are equally frequent the first in the order of the codes counts. Colours and hatches are those of
    `result_shares`; a cell where nothing is computed yet is left blank.

    **Arguments:** `dataset`: a sweep's; `x`, `y`: two of its dimensions; `variable`: `"orbit"`, `"result"` or any
    int8 variable with CF flags; `annotate`: print shares where they fit; `ax`: `None` makes a new figure.

    **Returns:** the Axes; its first collection holds the codes' places, row by row.

    **Raises:** `JaxoscError` when the variable, its flags or a dimension is missing, and for one dimension twice.
    """
    if x == y:
        raise JaxoscError(f"Got x = y = {x}, expected two dimensions: choose another one.")
    shares = code_shares(dataset, (y, x), variable)
    most = np.argmax(np.nan_to_num(shares.shares), axis=-1)
    computed = shares.members > 0
    axes = new_axes() if ax is None else ax
    fills = code_fills(shares.names, axes)
    room = _room(axes)
    tick_axis(axes, "x", shares.values[x], room[0])
    tick_axis(axes, "y", shares.values[y], room[1])
    _draw_cells(axes, shares, most, computed, fills)
    if annotate:
        _print_shares(axes, shares, most, computed, fills, room)
    if not is_number_axis(dataset, y):  # names are read from the top down
        axes.set_ylim(len(shares.values[y]) - 0.5, -0.5)
    axes.tick_params(length=2)
    axes.set_xlabel(axis_label(dataset, x))
    axes.set_ylabel(axis_label(dataset, y))
    _legend(axes, shares, most[computed], fills)
    return axes


def _room(axes: Axes) -> tuple[float, float]:
    """Width and height of the plotting area in inches, as far as they are known before the layout."""
    figure = figure_of(axes)
    place = axes.get_position()
    return place.width * float(figure.bbox.width) / figure.dpi, place.height * float(figure.bbox.height) / figure.dpi


def _draw_cells(
    axes: Axes,
    shares: CodeShares,
    most: Int[np.ndarray, "y x"],
    computed: np.ndarray,
    fills: list[tuple[str, str]],
) -> None:
    y_edges, x_edges = (edges(shares.values[dim])[0] for dim in shares.dims)
    colors = ListedColormap([color for color, _ in fills])
    look: dict[str, Any] = {"edgecolor": axes.figure.get_facecolor(), "linewidth": 0.4}
    shown = np.ma.masked_where(~computed, most.astype(float))
    axes.pcolormesh(x_edges, y_edges, shown, cmap=colors, vmin=-0.5, vmax=len(fills) - 0.5, **look)
    for k, (color, hatch) in enumerate(fills):
        cells = [
            [(x_edges[i + a], y_edges[j + b]) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
            for j, i in np.argwhere(computed & (most == k))
        ]
        if cells and hatch:
            gid = f"hatch {shares.names[k]}"
            axes.add_collection(
                PolyCollection(
                    cells, facecolors="none", edgecolors=hatch_ink(color), hatch=hatch, linewidths=0, gid=gid
                ),
                autolim=False,
            )


def _print_shares(
    axes: Axes,
    shares: CodeShares,
    most: Int[np.ndarray, "y x"],
    computed: np.ndarray,
    fills: list[tuple[str, str]],
    room: tuple[float, float],
) -> None:
    """Print the share into its cell where 7 pt text fits."""
    rows, columns = most.shape
    if room[0] / columns < 0.38 or room[1] / rows < 0.15:
        return
    y_centre, x_centre = (edges(shares.values[dim])[1] for dim in shares.dims)
    share: Float[np.ndarray, "y x"] = np.take_along_axis(shares.shares, most[..., None], axis=-1)[..., 0]
    for j, i in np.argwhere(computed & (share < 1)):
        back = fills[most[j, i]][0]
        axes.text(
            x_centre[i],
            y_centre[j],
            share_text(share[j, i]),
            ha="center",
            va="center",
            fontsize=7,
            color=ink_on(back),
            bbox={"facecolor": back, "edgecolor": "none", "pad": 0.8},
        )


def _legend(axes: Axes, shares: CodeShares, present: np.ndarray, fills: list[tuple[str, str]]) -> None:
    """Over the picture: the classes that are somewhere the most frequent one."""
    handles = code_handles(shares.names, fills, np.unique(present).tolist())
    if handles:
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(handles), 4))
    axes.set_facecolor(grid_color(axes))
