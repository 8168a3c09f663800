"""Poincare sections: where orbits pass through a plane, one dot for each passage.

On such a picture an orbit shows what it is: a closed one leaves a few points, a torus a closed curve, chaos a cloud.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxosc._errors import JaxoscError
from jaxosc.orbits import CrossingRecord

from .appearance import is_dark, marks, time_colormap
from .facets import new_axes

_LEGEND_UP_TO = 16
_EQUAL_UP_TO = 3.0  # a longer picture would waste the page


def poincare_section(
    record: CrossingRecord,
    *,
    neurons: tuple[int, int] = (1, 2),
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the states in which orbits cross a section, a colour for each orbit.

    Up to seven orbits have a colour of their own; more are coloured in their order from the first to the last, as
    `phase_portrait` colours time, which suits a batch of rising energies. Both axes have the same scale, unless one is
    more than three times as long as the other. Orbits that left are drawn up to there.

    **Arguments:**

    - `record`: of `jo.orbits.poincare_crossings`, for one orbit or a batch.
    - `neurons`: whose states to draw across and up, counted from 0. The default suits a section through the zero of
      neuron 0.
    - `names`: of the orbits, for a legend; in the order of the flattened batch.
    - `ax`: `None` makes a new figure.

    **Returns:** the Axes; its collection holds the dots, orbit by orbit.

    **Raises:** `JaxoscError` for neurons that do not exist, another number of names, and a record without a crossing.
    """
    states = np.asarray(record.states, dtype=float)
    most, size = states.shape[-2:]
    if not all(neuron in range(size) for neuron in neurons):
        raise JaxoscError(f"Got neurons {neurons} of a record with n = {size}, expected two of 0 to {size - 1}.")
    states = states.reshape(-1, most, size)
    if names is not None and len(names) != len(states):
        raise JaxoscError(f"Got {len(names)} names, expected {len(states)}: one for each orbit.")
    kept = np.arange(most) < np.asarray(record.count).reshape(-1, 1)
    if not kept.any():
        raise JaxoscError("Got a record without a crossing, expected one or more: choose a longer run or a section.")
    orbit = np.nonzero(kept)[0]
    dots = states[kept][:, list(neurons)]
    axes = new_axes() if ax is None else ax
    colors = _colors(len(states), dark=is_dark(axes))
    look: dict[str, Any] = {"s": _area(len(dots)), "linewidths": 0, "rasterized": True, "gid": "dots"}
    axes.scatter(dots[:, 0], dots[:, 1], c=[colors[i] for i in orbit], **look)
    axes.margins(0.06)
    across, up = np.ptp(dots, axis=0)
    if across <= _EQUAL_UP_TO * up and up <= _EQUAL_UP_TO * across:
        axes.set_aspect("equal")
    axes.set_xlabel(f"y[{neurons[0]}]")
    axes.set_ylabel(f"y[{neurons[1]}]")
    if names is not None:
        _legend(axes, names, colors)
    return axes


def _colors(count: int, *, dark: bool) -> list[str]:
    if count <= 7:
        return [mark.color for mark in marks(count, dark=dark)]
    return [mpl.colors.to_hex(color) for color in time_colormap(dark=dark)(np.linspace(0, 1, count))]


def _area(dots: int) -> float:
    """Of a dot, in square points: a few dots are seen, and many do not run into one another."""
    return float(np.clip(6000 / dots, 1.0, 5.0))


def _legend(axes: Axes, names: Sequence[str], colors: Sequence[str]) -> None:
    """At the right of the picture, of all orbits or of as many, evenly chosen, as the height holds."""
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), _LEGEND_UP_TO)).round().astype(int))
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "markeredgewidth": 0}
    handles = [Line2D([], [], color=colors[i], label=names[i], **look) for i in shown]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handletextpad=0.2)
