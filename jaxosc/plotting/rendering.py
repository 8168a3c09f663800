"""A picture as the bytes of a file, without pyplot: for pages that hold their pictures inside."""

import io
from collections.abc import Callable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from .appearance import style


def webp(
    draw: Callable[[Figure], object], *, width: float, dpi: float, dark: bool = False
) -> tuple[bytes, tuple[int, int]]:
    """Draw with `style(dark)` into a figure `width` inches wide; `draw` gives it its height.

    **Returns:** a lossless WebP file, and its width and height in pixels.

    Lossless WebP takes less than half the bytes of PNG, and every browser since 2020 shows it. Not `Figure.savefig`,
    which draws a figure with a layout engine twice.
    """
    with style(dark):
        figure = Figure(figsize=(width, 3.0), dpi=dpi, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    file = io.BytesIO()
    # method 2 of 6: higher ones take as long as the drawing itself, for one percent of the bytes
    imsave(file, pixels, format="webp", pil_kwargs={"lossless": True, "method": 2})
    return file.getvalue(), (pixels.shape[1], pixels.shape[0])
