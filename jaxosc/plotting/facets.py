"""Small multiples: one panel per combination of two lists of names, labelled only where the eye needs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from jaxosc._errors import JaxoscError

DEFAULT_WIDTH = 9.6
"""Inches; at 9 pt this puts about 150 characters side by side, the most that a screen page can show."""

_LEGEND_AND_LABELS = 0.95  # inches of height that the axis label, the legend and the title need together

_ROW_NAME = "row name"  # stands outside its panel, at the right


@dataclass(frozen=True)
class Panels:
    """The panels of a figure.

    `axes` has shape (rows, columns) of the *names*, however they are wrapped on paper; `size` is the
    estimated width and height of one panel's plotting area in inches (an estimate, because the layout is only
    solved when drawn).
    """

    axes: np.ndarray
    size: tuple[float, float]

    def items(self) -> Iterator[tuple[tuple[int, int], Axes]]:
        """Each panel with its (row, column) of the names."""
        rows, columns = self.axes.shape
        for i in range(rows):
            for j in range(columns):
                yield (i, j), self.axes[i, j]

    @property
    def flat(self) -> list[Axes]:
        """All panels, row by row."""
        return list(self.axes.flat)


def panels(
    figure: Figure | SubFigure | None,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    wrap: int | None = None,
    height: float = 1.7,
    extra_height: float = _LEGEND_AND_LABELS,
    share: bool = True,
) -> Panels:
    """Lay out `len(rows) * len(columns)` panels.

    With `wrap=None` and more than one row they form a table with its names at the top and the left. Otherwise
    they flow, `wrap` in a line, each with its own title.

    **Arguments:** `figure`: `None` makes a new pyplot figure; a `Figure` keeps its width and is given the
    height that its panels need; a `SubFigure` is used as it is. `height`: of one panel, inches. `share`: same
    axes everywhere.

    **Raises:** `JaxoscError` for a `wrap` below one.
    """
    if wrap is not None and wrap < 1:
        raise JaxoscError(f"Got columns = {wrap}, expected at least 1: give the number of panels side by side.")
    count = len(rows) * len(columns)
    table = len(rows) > 1 and (wrap is None or wrap == len(columns))
    across = len(columns) if table else min(count, wrap or 3)
    down = -(-count // across)
    figure = _figure(figure, down * (height + (0.0 if table else 0.28)) + extra_height)
    grid = figure.subplots(down, across, sharex=share, sharey=share, squeeze=False)
    used, spare = list(grid.flat[:count]), list(grid.flat[count:])
    for axes in spare:
        axes.remove()
    named = np.array(used, dtype=object).reshape(len(rows), len(columns))
    if share:
        _label_outer(used, across)
    size = (_inches(figure)[0] - 1.0) / across - 0.2, height - (0.3 if table else 0.1)
    _titles(named, rows, columns, size[0], table=table)
    return Panels(named, (max(size[0], 0.2), max(size[1], 0.2)))


def label_axes(figure: Figure | SubFigure, x: str, y: str) -> None:
    """Name the axes once for all panels."""
    figure.supxlabel(x)
    figure.supylabel(y)


def fixed_inside(axes: Axes) -> None:
    """Tell the layout that nothing drawn in the panel so far reaches out of it: most of a layout's time is asking."""
    for artist in (*axes.collections, *axes.patches, *axes.lines, *axes.texts):
        artist.set_in_layout(artist.get_gid() == _ROW_NAME)


def figure_of(axes: Axes) -> Figure | SubFigure:
    """The figure (or sub-figure) that an Axes lives in."""
    figure = axes.get_figure(root=False)
    assert figure is not None, "an Axes that a plot function draws in belongs to a figure"
    return figure


def new_axes() -> Axes:
    """One Axes in a new pyplot figure, for plot functions called without one."""
    return new_figure().add_subplot()


def new_figure(width: float | None = None, height: float | None = None) -> Figure:
    """A new pyplot figure, which a notebook or a window shows; inches, by default the caller's own setting."""
    import matplotlib.pyplot as plt  # only here: pyplot picks a backend and keeps figures alive

    size = None if width is None or height is None else (width, height)
    return plt.figure(figsize=size, layout="constrained")


def _figure(figure: Figure | SubFigure | None, height: float) -> Figure | SubFigure:
    if figure is None:
        return new_figure(DEFAULT_WIDTH, height)
    if isinstance(figure, Figure):
        figure.set_size_inches(_inches(figure)[0], height)
        if figure.get_layout_engine() is None:
            figure.set_layout_engine("constrained")
    return figure


def _inches(figure: Figure | SubFigure) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    return float(figure.bbox.width) / figure.dpi, float(figure.bbox.height) / figure.dpi


def _titles(named: np.ndarray, rows: Sequence[str], columns: Sequence[str], width: float, *, table: bool) -> None:
    # 0.085 in is the mean width of a character of 9.5 pt sans serif
    fits = 0.085 * (max(map(len, rows)) + max(map(len, columns)) + 3) <= width
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axes = named[i, j]
            if not table:
                words = [name for name in (row, column) if name]
                axes.set_title((" · " if fits else "\n").join(words))
                continue
            if i == 0:
                axes.set_title(column)
            if j == len(columns) - 1:
                axes.annotate(
                    row,
                    (1.0, 0.5),
                    xytext=(6, 0),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    rotation=270,
                    va="center",
                    ha="left",
                    fontsize="medium",
                    gid=_ROW_NAME,
                )


def _label_outer(used: list[Axes], across: int) -> None:
    """Tick labels at the left edge, and wherever no panel stands below (a wrapped last line may be short)."""
    for index, axes in enumerate(used):
        axes.tick_params(labelleft=index % across == 0, labelbottom=index + across >= len(used))
