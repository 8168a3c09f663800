"""Pictures of tuning: frequencies on their way to the target, and frequency against energy."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxosc._errors import JaxoscError
from jaxosc.tuning import FrequencyCurve, Tuned

from .appearance import grid_color, ink_on, is_dark, marks, quiet_color
from .facets import new_axes

_MOST_LINES = 200


def tuning_history(tuned: Tuned, *, ax: Axes | None = None) -> Axes:
    """Draw the frequency of every member, relative to its target, from the first look to the last.

    Members that reached the target are thin lines of one colour, the others dashed ones of another; of more than 200
    members evenly chosen ones are drawn, and the corner says so.

    **Arguments:** `tuned`: of `jo.tuning.tune_frequency`; `ax`: `None` makes a new figure.

    **Returns:** the Axes. **Raises:** `JaxoscError` for a history without a frequency.
    """
    history = np.asarray(tuned.history, dtype=float)
    ratio = history.reshape(len(history), -1) / np.ravel(np.asarray(tuned.target, dtype=float))
    reached = np.ravel(np.asarray(tuned.reached))
    if not np.isfinite(ratio).any():
        raise JaxoscError("Got a history without a frequency, expected one of members that turn: see its reasons().")
    axes = new_axes() if ax is None else ax
    shown = np.unique(np.linspace(0, len(reached) - 1, min(len(reached), _MOST_LINES)).astype(int))
    good, bad = marks(2, dark=is_dark(axes))
    for member in shown:
        look: Any = dict(color=good.color) if reached[member] else dict(color=bad.color, linestyle="--")
        positive = np.where(ratio[:, member] > 0, ratio[:, member], np.nan)
        axes.plot(positive, linewidth=0.9, marker="o", markersize=2, alpha=0.7, **look)
    axes.axhline(1, color=ink_on(axes.get_facecolor()), linewidth=0.8, zorder=1)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("step")
    axes.set_ylabel("frequency / target")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, color=grid_color(axes))
    drawn = "" if len(shown) == len(reached) else f", {len(shown)} drawn"
    text = f"{int(reached.sum()):,} of {len(reached):,} reached{drawn}"
    axes.text(0.98, 0.03, text, transform=axes.transAxes, ha="right", fontsize=8, color=quiet_color(axes))
    return axes


def frequency_energy(
    curve: FrequencyCurve, *, theory: Callable[[Any], Any] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw frequency against energy of a family of closed orbits.

    **Arguments:** `curve`: of `jo.tuning.frequency_curve`; `theory`: from energies (k,) to frequencies (k,), drawn thin
    and dashed; `ax`: `None` makes a new figure.

    **Returns:** the Axes. **Raises:** `JaxoscError` for a curve without a found orbit.
    """
    found = np.asarray(curve.found)
    if not found.any():
        raise JaxoscError("Got a curve of which no orbit was found, expected one or more: take smaller energies.")
    axes = new_axes() if ax is None else ax
    energy, frequency = np.asarray(curve.energy)[found], np.asarray(curve.frequency)[found]
    look = marks(1, dark=is_dark(axes))[0]
    line = "none" if theory is not None else "-"
    axes.plot(energy, frequency, color=look.color, marker="o", markersize=4, linestyle=line, label="closed orbits")
    if theory is not None:
        where = np.linspace(energy.min(), energy.max(), 200)
        ink = ink_on(axes.get_facecolor())
        axes.plot(
            where, np.asarray(theory(where)), color=ink, linewidth=0.9, linestyle=(0, (2, 2.2)), label="closed form"
        )
        axes.legend(loc="best")
    axes.set_xlabel("energy H")
    axes.set_ylabel("frequency [cycles / time unit]")
    axes.grid(True, color=grid_color(axes))
    axes.set_axisbelow(True)
    return axes
