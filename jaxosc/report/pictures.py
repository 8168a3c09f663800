"""A picture in the page: drawn four times (light and dark, for wide and narrow screens), stored inside the HTML.

PNG and not SVG: an SVG of a map with its hatches and letters is larger than its pixels, and letters would
change with the reader's fonts. The browser picks one of the four by itself, so the page needs no script.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from jaxosc.plotting import style

from .block import Table, render

WIDE, NARROW = 9.6, 4.1
"""Inches: on a page of 1,060 and on a telephone of 390 points, 9 pt text then reads like 14 and 11 px text."""

_DPI = {WIDE: 144, NARROW: 190}
_COLORS = 128


@dataclass(frozen=True)
class Variant:
    """One of the four renderings, as a data URI, with its size in pixels."""

    dark: bool
    narrow: bool
    uri: str
    width: int
    height: int


def picture(draw: Callable[[Figure, bool], object], *, alt: str, caption: str, table: Table | None = None) -> Markup:
    """The HTML of one picture with its caption and the numbers behind it.

    **Arguments:** `draw(figure, narrow)`: draws into a matplotlib Figure that is 9.6 or 4.1 inches wide, and
    gives it the height it needs; `alt`: what somebody misses who does not see it; `caption`: under the
    picture; `table`: folded away below.
    """
    variants = {(v.dark, v.narrow): v for v in (_variant(draw, d, n) for d in (False, True) for n in (False, True))}
    return render("picture.html.j2", variants=variants, alt=alt, caption=caption, table=table)


def _variant(draw: Callable[[Figure, bool], object], dark: bool, narrow: bool) -> Variant:
    width = NARROW if narrow else WIDE
    with style(dark):
        figure = Figure(figsize=(width, 3.0), layout="constrained")
        draw(figure, narrow)
        pixels = io.BytesIO()
        figure.savefig(pixels, format="png", dpi=_DPI[width])
    png, size = _fewer_colors(pixels)
    return Variant(dark, narrow, "data:image/png;base64," + base64.b64encode(png).decode("ascii"), *size)


def _fewer_colors(pixels: io.BytesIO) -> tuple[bytes, tuple[int, int]]:
    """The picture with a palette of its own: a third of the bytes, no difference to see."""
    with Image.open(pixels) as image:
        small = image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, format="PNG", optimize=True)
    return out.getvalue(), small.size
