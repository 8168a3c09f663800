"""The picture of the work-precision benchmark: a column for each n, a row for each question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxosc import plotting

from .comparison import Point
from .methods import ENGINE, OURS

LEAST_ERROR = 1e-16
"""Errors of zero are drawn here."""

COLOURS = {
    "PoissonSplitting": "Blues",
    "EnergyProjection": "Oranges",
    "Taylor": "Purples",
    "engine": "Greens",
    "PairSplitting": "RdPu",
    "DiscreteGradient": "Wistia",
    "heyoka": "Reds",
    "diffrax": "Greys",
    "others": "copper",
}
"""Which methods are kin, by how their names begin, and the map their shades are from."""

SHADES, ALONE = (0.4, 0.9), 0.65
"""Which part of a map many share, and where one stands alone."""

MARKERS = "osD^vP*Xhp<>"


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw all points and write the picture."""
    sizes = sorted({point.n for point in points})
    looks = _looks(points)
    with plotting.style():
        figure, panels = plt.subplots(
            3, len(sizes), figsize=(1.2 + 3.1 * len(sizes), 10.4), layout="constrained", squeeze=False, sharey="row"
        )
        for column, n in zip(panels.T, sizes, strict=True):
            here = [point for point in points if point.n == n]
            short, long = ([p for p in here if p.is_long is is_long] for is_long in (False, True))
            _panel(column[0], short, "microseconds", "state_error", looks)
            _panel(column[1], short, "evaluations", "state_error", looks)
            _panel(column[2], long, "microseconds", "energy_error", looks)
            column[0].set_title(f"n = {n}\nstate error at t = 100")
            column[1].set_title("the same against work")
            column[2].set_title(f"energy error until t = {long[0].t1:,.0f}" if long else "")
            column[0].set_xlabel("CPU time, µs per member and unit time")
            column[1].set_xlabel("activation evaluations per neuron and unit time")
            column[2].set_xlabel("CPU time, µs per member and unit time")
        panels[0, 0].set_ylabel("largest error of a neuron")
        panels[1, 0].set_ylabel("largest error of a neuron")
        panels[2, 0].set_ylabel("largest relative energy error")
        handles = [_line(look, label=method) for method, look in looks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, 1 + len(sizes)))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _panel(axes: Axes, points: Sequence[Point], x: str, y: str, looks: dict[str, dict[str, Any]]) -> None:
    for method, look in looks.items():
        line = sorted((getattr(p, x), max(getattr(p, y), LEAST_ERROR)) for p in points if p.method == method)
        if line:
            axes.loglog(*zip(*line, strict=True), **look)
    axes.set_ylim(LEAST_ERROR / 3, 1e3 if y == "energy_error" else 30)
    axes.grid(True)


def _looks(points: Sequence[Point]) -> dict[str, dict[str, Any]]:
    """A look of its own for each method: kin share a colour and differ in shade and marker.

    Ours solid with full markers, our engine with Diffrax's solvers dash-dotted, peers dashed with hollow markers.
    """
    kin: dict[str, list[str]] = {}
    families = {point.method: point.family for point in points}
    for method, family in families.items():
        kin.setdefault(_kin(method, family), []).append(method)
    looks = {}
    for name in COLOURS:
        methods = kin.get(name, [])
        shades = [ALONE] if len(methods) == 1 else np.linspace(*SHADES, len(methods))
        for number, (method, shade) in enumerate(zip(methods, shades, strict=True)):
            look = _look(families[method])
            looks[method] = look | dict(color=colormaps[COLOURS[name]](shade), marker=MARKERS[number % len(MARKERS)])
    return looks


def _kin(method: str, family: str) -> str:
    if family == ENGINE:
        return "engine"
    fitting = [word for word in COLOURS if method.startswith(word)]
    return fitting[0] if fitting else "others"


def _look(family: str) -> dict[str, Any]:
    line = {OURS: "-", ENGINE: "-."}.get(family, (0, (4, 1.5)))
    fill = "full" if family == OURS else "none"
    return dict(linestyle=line, fillstyle=fill, linewidth=1.6 if family == OURS else 1.1, markersize=5)


def _line(look: dict[str, Any], label: str) -> Line2D:
    return Line2D([], [], label=label, **look)
