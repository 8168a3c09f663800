"""Families of closed orbits: the period as a function of the energy, found orbit by orbit and as theory has it."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from jaxosc._errors import JaxoscError
from jaxosc._results import Result
from jaxosc.orbits import PeriodicOrbit

from .appearance import grid_color, ink_on, is_dark, marks, quiet_color, time_colormap
from .facets import new_axes

_DOTS_UP_TO = 60
_LOG_FROM = 30.0  # the ratio of the ends of an axis from which on it is logarithmic
_THEORY_POINTS = 200


def period_energy(
    family: PeriodicOrbit,
    *,
    theory: Callable[[Any], Any] | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw period against energy of one continued family, or of a batch of them.

    A dot is one orbit that was found; where some were not the line has a gap, and the corner says how many. With a
    closed form up to 60 orbits are dots alone. An axis whose ends differ by a factor of 30 or more is logarithmic.

    **Arguments:**

    - `family`: of `jo.orbits.continue_family`, members (m,) or (..., m).
    - `theory`: the closed form, from energies (k,) to periods (k,), such as `lambda energy:
      jo.oracles.pair_period(energy, omega)`; drawn thin and dashed between the smallest and the largest energy.
    - `names`: of the families, for a legend; in the order of the flattened batch.
    - `ax`: `None` makes a new figure.

    **Returns:** the Axes; its lines are the families in order, then the closed form.

    **Raises:** `JaxoscError` for a single orbit, a family without a found orbit, another number of names, and a closed
    form that gives other shapes.
    """
    if family.period.ndim == 0:
        raise JaxoscError("Got a single orbit, expected a family: pass what jo.orbits.continue_family found.")
    size = family.period.shape[-1]
    energy, period = (np.asarray(array, dtype=float).reshape(-1, size) for array in (family.energy, family.period))
    found = np.asarray(family.result).reshape(-1, size) == Result.successful
    if not found.any():
        raise JaxoscError("Got a family of which no orbit was found, expected one or more: start from a better guess.")
    if names is not None and len(names) != len(energy):
        raise JaxoscError(f"Got {len(names)} names, expected {len(energy)}: one for each family.")
    axes = new_axes() if ax is None else ax
    _draw_families(axes, energy, period, found, names, lines=theory is None)
    if theory is not None:
        _draw_theory(axes, theory, energy[found])
    axes.set_xlabel("energy H")
    axes.set_ylabel("period T [time unit]")
    _scales(axes, energy[found], period[found])
    lost = int(np.sum(~found))
    if lost:
        text = f"{lost} of {found.size} orbits not found"
        axes.text(0.98, 0.03, text, transform=axes.transAxes, ha="right", fontsize=8, color=quiet_color(axes))
    if names is not None or theory is not None:
        axes.legend(loc="best")
    return axes


def _draw_families(
    axes: Axes, energy: np.ndarray, period: np.ndarray, found: np.ndarray, names: Sequence[str] | None, *, lines: bool
) -> None:
    looks = _looks(len(energy), dark=is_dark(axes))
    if energy.shape[-1] > _DOTS_UP_TO:
        looks = [look | {"marker": ""} for look in looks]
    elif not lines:  # dots on the line of the closed form
        looks = [{"marker": "o", "markersize": 4} | look | {"linestyle": "none"} for look in looks]
    for i, look in enumerate(looks):
        label = names[i] if names is not None else "found" if len(energy) == 1 else None
        axes.plot(energy[i], np.where(found[i], period[i], np.nan), label=label, gid=f"family {i}", **look)


def _looks(count: int, *, dark: bool) -> list[dict[str, Any]]:
    """Marks for a few families; thin lines in the order of the batch, coloured as time is, for many."""
    if count <= 7:
        return [
            {"color": mark.color, "linestyle": mark.linestyle, "marker": mark.marker, "markersize": 4}
            for mark in marks(count, dark=dark)
        ]
    colors = time_colormap(dark=dark)(np.linspace(0, 1, count))
    return [{"color": mpl.colors.to_hex(color), "linewidth": 0.9} for color in colors]


def _draw_theory(axes: Axes, theory: Callable[[Any], Any], energies: np.ndarray) -> None:
    low, high = float(energies.min()), float(energies.max())
    space = np.geomspace if low > 0 else np.linspace
    where = space(low, high, _THEORY_POINTS)
    periods = np.asarray(theory(where), dtype=float)
    if periods.shape != where.shape:
        raise JaxoscError(
            f"Got a closed form that gives {periods.shape} for energies of {where.shape}, expected as many periods."
        )
    ink = ink_on(axes.get_facecolor())
    axes.plot(where, periods, color=ink, linewidth=0.9, linestyle=(0, (2, 2.2)), label="closed form", zorder=4)


def _scales(axes: Axes, energies: np.ndarray, periods: np.ndarray) -> None:
    for axis, setter, values in ((axes.xaxis, axes.set_xscale, energies), (axes.yaxis, axes.set_yscale, periods)):
        if values.min() > 0 and values.max() >= _LOG_FROM * values.min():
            setter("log")
            axis.set_major_locator(LogLocator(10, numticks=9))
            axis.set_minor_formatter(NullFormatter())
    axes.grid(True, color=grid_color(axes))
    axes.set_axisbelow(True)
