"""How every picture looks: light or dark, colours that the colour-blind can tell apart, marks beside colour.

Nothing here runs on import: matplotlib's global settings change only inside `with style(...)`, and come back
after.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.patches import Patch
from matplotlib.rcsetup import cycler

# Okabe & Ito's eight colours (Color Universal Design, 2008), ordered so that neighbours differ in lightness
# too. Yellow is left out on white paper, and the two blues change places on black, where the deep one would
# drown.
_ON_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_ON_DARK = ("#56B4E9", "#E69F00", "#1FC29A", "#CC79A7", "#F0E442", "#D55E00", "#FFFFFF")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (3, 3)), (0, (9, 2)))
_HATCHES = ("", "///", "xxx", "...", "\\\\\\", "++", "oo")

_LIGHT_PAPER = {
    "paper": "#ffffff",
    "panel": "#ffffff",
    "ink": "#1b1f24",
    "quiet": "#59636e",
    "grid": "#dfe3e8",
}
_DARK_PAPER = {
    "paper": "#14181d",
    "panel": "#14181d",
    "ink": "#e6e9ed",
    "quiet": "#a2acb7",
    "grid": "#333b44",
}


@contextmanager
def style(dark: bool = False) -> Iterator[None]:
    """Draw in the package's light or dark look, and restore the caller's settings afterwards.

    Build *and* save the figure inside the block: matplotlib reads some settings only when it writes the file.

    **Arguments:** `dark`: light ink on dark paper when true.
    """
    paper = _DARK_PAPER if dark else _LIGHT_PAPER
    settings: Any = {  # `Any`, because matplotlib types each key on its own
        "figure.facecolor": paper["paper"],
        "savefig.facecolor": paper["paper"],
        "axes.facecolor": paper["panel"],
        "axes.edgecolor": paper["quiet"],
        "axes.labelcolor": paper["ink"],
        "axes.titlecolor": paper["ink"],
        "text.color": paper["ink"],
        "xtick.color": paper["quiet"],
        "ytick.color": paper["quiet"],
        "xtick.labelcolor": paper["ink"],
        "ytick.labelcolor": paper["ink"],
        "grid.color": paper["grid"],
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.6,
        "axes.prop_cycle": cycler(color=list(_ON_DARK if dark else _ON_LIGHT)),
        "font.size": 9.0,
        "axes.titlesize": 9.5,
        "axes.labelsize": 9.0,
        "figure.labelsize": 9.5,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(settings):
        yield


@dataclass(frozen=True)
class Mark:
    """How one category is drawn: colour, marker, line style and hatch, so that colour never stands alone."""

    color: str
    marker: str
    linestyle: Any
    hatch: str


def marks(count: int, *, dark: bool) -> list[Mark]:
    """`count` distinct marks; beyond seven the colours come round again with another line style and hatch."""
    colors = _ON_DARK if dark else _ON_LIGHT
    size = len(colors)
    return [
        Mark(
            colors[i % size],
            _MARKERS[(i + i // size) % len(_MARKERS)],
            _LINES[(i + i // size) % len(_LINES)],
            _HATCHES[(i + i // size) % len(_HATCHES)],
        )
        for i in range(count)
    ]


def is_dark(axes: Axes) -> bool:
    """Whether the Axes' own background is dark, whoever chose it (`style`, or the caller's settings)."""
    return luminance(axes.get_facecolor()) < 0.4


def luminance(color: Any) -> float:
    """Relative luminance of a colour, 0 (black) to 1 (white), after WCAG 2.1."""
    rgb = np.asarray(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def ink_on(color: Any) -> str:
    """Black or white, whichever reads better on `color` (the crossing of the two WCAG contrast ratios)."""
    return "#000000" if luminance(color) > 0.179 else "#ffffff"


def time_colormap(*, dark: bool) -> LinearSegmentedColormap:
    """Viridis without the end that would vanish in the background; late is nearest to the ink."""
    part = np.linspace(0.95, 0.22, 256) if dark else np.linspace(0.88, 0.05, 256)
    colors = mpl.colormaps["viridis"](part[::-1] if dark else part)
    return LinearSegmentedColormap.from_list("time", colors)


def quiet_color(axes: Axes) -> str:
    """The colour of guides and remarks that must not compete with the data."""
    return (_DARK_PAPER if is_dark(axes) else _LIGHT_PAPER)["quiet"]


def grid_color(axes: Axes) -> str:
    """The colour of grid lines and level sets behind the data."""
    return (_DARK_PAPER if is_dark(axes) else _LIGHT_PAPER)["grid"]


def hatch_patch(label: str, hatch: str, axes: Axes) -> Patch:
    """A legend entry for a hatch drawn over cells of any colour."""
    return Patch(
        facecolor=grid_color(axes),
        edgecolor=ink_on(grid_color(axes)),
        hatch=hatch,
        linewidth=0.5,
        label=label,
    )


def legend_above(axes: Axes, handles: Sequence[Artist]) -> None:
    """One legend for the whole figure, over its panels, in as many columns as its width can hold."""
    figure = axes.figure
    width = float(figure.bbox.width) / figure.get_dpi()
    # 0.075 in is the mean width of a character of 8.5 pt sans serif; 0.55 in holds the handle and the gap.
    needs = [0.55 + 0.075 * len(str(handle.get_label())) for handle in handles]
    columns = len(handles) if sum(needs) < 0.95 * width else max(1, int(width / max(needs)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
