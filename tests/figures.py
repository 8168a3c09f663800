"""Figures without a window, and what is drawn on them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle


def drawn(figure: Figure) -> np.ndarray:
    """Render the figure, so that a collapsed layout or a bad tick would warn, and return its pixels."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def new_figure(width: float = 9.6) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = Figure(figsize=(width, 3))
    FigureCanvasAgg(figure)
    return figure


def cells_of(axes: Axes) -> np.ndarray:
    (mesh,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
    return np.ma.filled(mesh.get_array(), np.nan)


def hatched(axes: Axes) -> int:
    return sum(isinstance(p, Rectangle) and bool(p.get_hatch()) for p in axes.patches)


def circle(times: int = 200) -> tuple[np.ndarray, np.ndarray]:
    ts = np.linspace(0, 2 * np.pi, times)
    return ts, np.stack([np.cos(ts), -np.sin(ts)], axis=-1)
