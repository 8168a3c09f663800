"""Phase portraits: an orbit in the plane, with the level sets of the energy it should stay on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import matplotlib.patheffects as effects
import numpy as np
from jaxtyping import ArrayLike, Real
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from jaxosc._errors import JaxoscError
from jaxosc.fields import AbstractField
from jaxosc.simulate import Solution

from .appearance import ink_on, is_dark, quiet_color, time_colormap
from .facets import DEFAULT_WIDTH, Panels, fixed_inside, label_axes, new_axes, new_figure, panels

_ORBIT = "orbit"
_GRID = 121  # points a side for the level sets: smooth at print size, 15k energies


def phase_portrait(
    solution: Any,
    *,
    field: AbstractField | None = None,
    ts: Real[ArrayLike, "_"] | None = None,
    coordinates: tuple[int, int] | None = None,
    limit: float | None = None,
    remarks: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one orbit, coloured from early to late, its start marked by a ring.

    Two neurons give the plane itself, with level sets of H behind (when `field` is given). More are
    projected: on the chosen `coordinates`, or else on the first two principal components of the orbit.

    **Arguments:**

    - `solution`: a `Solution` of one member, or its states (times, n).
    - `field`: for the energy of the level sets.
    - `ts`: times of the colours (times,); default the solution's, or the index.
    - `coordinates`: two neurons, counted from 0.
    - `limit`: the orbit is drawn until its Euclidean norm first exceeds it; half the side of the picture around the
      origin in a plane of neurons. Default: all of the orbit.
    - `remarks`: say in the picture when the orbit left it.
    - `ax`: `None` makes a new figure.

    **Returns:** the Axes; its `LineCollection` holds the orbit.

    **Raises:** `JaxoscError` for several members at once, fewer than two finite states, or neurons that do
    not exist.
    """
    states, times = _orbit(solution, ts)
    states, times, left = _until(states, times, limit)
    plane, names = _project(states, coordinates)
    axes = new_axes() if ax is None else ax
    flat = states.shape[1] == 2 or coordinates is not None
    centre, half = _view(plane, limit, flat=flat)
    axes.set_xlim(centre[0] - half, centre[0] + half)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    axes.set_aspect("equal")
    if field is not None and states.shape[1] == 2 and coordinates in (None, (0, 1)):
        _level_sets(axes, field, states[0], centre, half)
    _draw_orbit(axes, plane, times)
    axes.plot(
        *plane[:1].T,
        marker="o",
        markersize=7,
        markerfacecolor="none",
        markeredgecolor=_ink(axes),
        linestyle="",
    )
    if remarks and left is not None:
        _remark(axes, f"leaves at t = {left:.3g}")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, symmetric=True))
    return axes


@dataclass(frozen=True)
class Orbit:
    """One orbit of a grid of portraits: states (times, n), their times (times,), and the field for its level sets."""

    states: Real[np.ndarray, "times n"]
    ts: Real[np.ndarray, " times"]
    field: AbstractField | None = None


def phase_portraits(
    orbits: Mapping[str, Mapping[str, Orbit]],
    *,
    columns: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> np.ndarray:
    """Portraits in rows and columns, all with the same colours of time; see `phase_portrait`.

    The frames of one row are the same: nearly twice the start's norm, or what the quietest orbit of the row needs, so
    that one sees an orbit leave its level set.

    **Arguments:** `orbits`: by row name and column name, the same columns in every row; `columns`: panels side by side
    (`None`: as many as there are columns); `figure`: see `facets.panels`.

    **Returns:** the Axes, shape (rows, columns).
    """
    rows, names = list(orbits), list(next(iter(orbits.values())))
    wrap = columns if columns is not None or len(rows) > 1 else min(len(names), 3)
    across = min(wrap or len(names), len(rows) * len(names))
    figure = new_figure(DEFAULT_WIDTH, DEFAULT_WIDTH) if figure is None else figure
    height = min((float(figure.bbox.width) / figure.dpi - 0.9) / across, 3.0)
    layout = panels(figure, rows, names, wrap=wrap, height=height, extra_height=1.0, share=False)
    end = max(float(orbit.ts[-1]) for row in orbits.values() for orbit in row.values())
    plane = all(orbit.states.shape[1] == 2 for row in orbits.values() for orbit in row.values())
    for (i, j), axes in layout.items():
        row = orbits[rows[i]]
        orbit = row[names[j]]
        phase_portrait(orbit.states, field=orbit.field, ts=orbit.ts, limit=_frame(list(row.values())), ax=axes)
        for collection in axes.collections:
            if collection.get_gid() == _ORBIT:
                collection.set_clim(0.0, end)
        fixed_inside(axes)
        axes.tick_params(length=2)
        if plane:
            axes.set(xlabel="", ylabel="")
    if plane:
        label_axes(figure, "y[0]", "y[1]")
    _time_bar(figure, layout, end)
    return layout.axes


def _frame(row: list[Orbit]) -> float:
    """Half the side of a row's frames."""
    norms = [float(np.nanmax(np.linalg.norm(orbit.states, axis=1))) for orbit in row]
    return max(1.8 * float(np.linalg.norm(row[0].states[0])), 1.15 * min(norms))


def _time_bar(figure: Figure | SubFigure, layout: Panels, end: float) -> None:
    colors = ScalarMappable(Normalize(0.0, end), time_colormap(dark=is_dark(layout.flat[0])))
    bar = figure.colorbar(colors, ax=layout.flat, location="top", aspect=50, shrink=0.6, pad=0.01)
    bar.set_label("time t")
    bar.outline.set_visible(False)


def _orbit(solution: Any, ts: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """States (times, n) and times up to the last finite state."""
    if isinstance(solution, Solution):
        states, times = (
            np.asarray(solution.ys, dtype=float),
            np.asarray(solution.ts if ts is None else ts, dtype=float),
        )
    else:
        states = np.asarray(solution, dtype=float)
        times = np.arange(states.shape[0], dtype=float) if ts is None else np.asarray(ts, dtype=float)
    if states.ndim != 2 or times.shape != states.shape[:1]:
        raise JaxoscError(
            f"Got states of shape {states.shape} and times of shape {times.shape}, expected "
            "(times, n) and (times,): choose one member, as in ys[3]."
        )
    finite = np.all(np.isfinite(states), axis=1)
    count = states.shape[0] if finite.all() else int(np.argmin(finite))
    if count < 2 or states.shape[1] < 2:
        raise JaxoscError(
            f"Got an orbit of {count} finite states of {states.shape[1]} neurons, expected two or more of "
            "each: save states with save_every or ts."
        )
    return states[:count], times[:count]


def _until(states: np.ndarray, times: np.ndarray, limit: float | None) -> tuple[np.ndarray, np.ndarray, float | None]:
    """The orbit up to and with its first state outside `limit`, and when that was (None: never)."""
    outside = np.linalg.norm(states, axis=1) > (np.inf if limit is None else limit)
    if not outside.any():
        return states, times, None
    # one more than two points, so that even an orbit that starts outside leaves a line to draw
    last = max(int(np.argmax(outside)), 1)
    return states[: last + 1], times[: last + 1], float(times[last])


def _project(states: np.ndarray, coordinates: tuple[int, int] | None) -> tuple[np.ndarray, tuple[str, str]]:
    """Points in the plane and names of its axes.

    Principal axes are those of the orbit's scatter, but the states themselves are projected, so the origin
    stays at 0.
    """
    size = states.shape[1]
    if coordinates is None and size > 2:
        centred = states - states.mean(axis=0, keepdims=True)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        share = 100 * singular[:2] ** 2 / max(float(np.sum(singular**2)), float(np.finfo(float).tiny))
        return states @ axes[:2].T, (f"component 1 ({share[0]:.0f} %)", f"component 2 ({share[1]:.0f} %)")
    first, second = (0, 1) if coordinates is None else coordinates
    if not (0 <= first < size and 0 <= second < size):
        raise JaxoscError(
            f"Got coordinates {coordinates}, expected two of 0 to {size - 1}: the network has {size} neurons."
        )
    return states[:, [first, second]], (f"y[{first}]", f"y[{second}]")


def _view(plane: np.ndarray, limit: float | None, *, flat: bool) -> tuple[np.ndarray, float]:
    """Centre and half side of the shown square: around the origin in a plane of neurons, else around the orbit."""
    if limit is not None and flat:
        return np.zeros(2), float(limit)
    low, high = plane.min(axis=0), plane.max(axis=0)
    centre = np.zeros(2) if flat else (low + high) / 2
    half = float(np.max(np.abs(plane - centre)))
    return centre, 1.12 * half if half > 0 else 1.0


def _level_sets(axes: Axes, field: AbstractField, start: np.ndarray, centre: np.ndarray, half: float) -> None:
    """Contours of H, spread evenly over the picture; the dashed one is the start's own."""
    x, y = (middle + np.linspace(-half, half, _GRID) for middle in centre)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    energy = np.asarray(field.energy(jnp.asarray(grid))).reshape(_GRID, _GRID)
    own = float(field.energy(jnp.asarray(start)))
    levels = np.unique(np.quantile(energy, np.linspace(0.04, 0.96, 9)))
    quiet = quiet_color(axes)
    if levels.size > 1:
        axes.contour(x, y, energy, levels=levels, colors=quiet, linewidths=0.5, alpha=0.45, zorder=0)
    if energy.min() < own < energy.max():
        axes.contour(x, y, energy, levels=[own], colors=quiet, linewidths=1.1, linestyles="--", zorder=1)


def _draw_orbit(axes: Axes, plane: np.ndarray, times: np.ndarray) -> None:
    segments = np.stack([plane[:-1], plane[1:]], axis=1)
    orbit = LineCollection(
        list(segments),
        cmap=time_colormap(dark=is_dark(axes)),
        linewidths=1.0,
        capstyle="round",
        zorder=2,
        gid=_ORBIT,
    )
    orbit.set_array(times[:-1])
    orbit.set_clim(float(times[0]), float(times[-1]))
    axes.add_collection(orbit, autolim=False)


def _ink(axes: Axes) -> str:
    return ink_on(axes.get_facecolor())


def _remark(axes: Axes, text: str) -> None:
    """A word in the upper left corner, with a halo so that the orbit does not run through it."""
    axes.text(
        0.03,
        0.97,
        text,
        transform=axes.transAxes,
        ha="left",
        va="top",
        fontsize=7.5,
        color=_ink(axes),
        path_effects=[effects.withStroke(linewidth=2.5, foreground=axes.get_facecolor())],
    )
