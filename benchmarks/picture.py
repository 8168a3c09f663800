"""The picture of the work-precision benchmark: a column for each n, a row for each question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxosc import plotting
from jaxosc.plotting.appearance import Mark, marks

from .comparison import Point
from .methods import ENGINE, OURS

LEAST_ERROR = 1e-16
"""Errors of zero are drawn here."""


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
    """Ours solid with full markers, our engine with Diffrax's solvers dash-dotted, peers dashed with hollow markers."""
    families = {point.method: point.family for point in points}
    ours = [method for method, family in families.items() if family == OURS]
    others = [method for method in families if method not in ours]
    kinds: dict[str, Mark] = {}
    for names in (ours, others):
        kinds |= dict(zip(names, marks(len(names), dark=False), strict=True))
    return {method: _look(kinds[method], families[method]) for method in (*ours, *others)}


def _look(mark: Mark, family: str) -> dict[str, Any]:
    line = {OURS: "-", ENGINE: "-."}.get(family, (0, (4, 1.5)))
    fill = "full" if family == OURS else "none"
    width = 1.6 if family == OURS else 1.1
    look = dict(color=mark.color, marker=mark.marker, linestyle=line, fillstyle=fill)
    return look | dict(linewidth=width, markersize=5)


def _line(look: dict[str, Any], label: str) -> Line2D:
    return Line2D([], [], label=label, **look)
