"""A picture in the page: drawn four times (light and dark, for wide and narrow screens), stored inside the HTML.

Pixels and not SVG: an SVG of a map with its hatches and letters is larger, and its letters change with the reader's
fonts. The browser picks one of the four by itself, so the page needs no script.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxosc.plotting import webp

from .block import Table, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, NARROW = 9.6, 4.1
"""Inches: on a page of 1,060 and on a telephone of 390 points, 9 pt text then reads like 14 and 11 px text."""

_DPI = {WIDE: 144, NARROW: 190}


@dataclass(frozen=True)
class Variant:
    """One of the four renderings, as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def picture(draw: "Callable[[Figure, bool], object]", *, alt: str, caption: str, table: Table | None = None) -> str:
    """The HTML of one picture with its caption and the numbers behind it.

    **Arguments:** `draw(figure, narrow)`: draws into a matplotlib Figure that is 9.6 or 4.1 inches wide, and gives it
    the height it needs; `alt`: what somebody misses who does not see it; `caption`: under the picture; `table`: folded
    away below.
    """
    variants = {(dark, narrow): _variant(draw, dark, narrow) for dark in (False, True) for narrow in (False, True)}
    return render("picture.html.j2", variants=variants, alt=alt, caption=caption, table=table)


def _variant(draw: "Callable[[Figure, bool], object]", dark: bool, narrow: bool) -> Variant:
    width = NARROW if narrow else WIDE
    file, (across, down) = webp(lambda figure: draw(figure, narrow), width=width, dpi=_DPI[width], dark=dark)
    return Variant("data:image/webp;base64," + base64.b64encode(file).decode("ascii"), across, down)
