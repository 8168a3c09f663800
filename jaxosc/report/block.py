"""What a report is made of: blocks, and the templates that give them their HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jinja2

from .study import Study

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxosc.report", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Block(Protocol):
    """One section of the page. To add a section, write such a class and put it into `page.BLOCKS`.

    `title` is its heading, `anchor` its address within the page. `html` may raise `JaxoscError`: its sentence
    then stands where the block would have been, and the other blocks are not disturbed.
    """

    title: str
    anchor: str

    def html(self, study: Study) -> str:
        """The inside of the section as HTML, without its heading."""
        ...


@dataclass(frozen=True)
class Table:
    """Numbers behind a picture: a caption, column names, and rows of short words; numbers are right-aligned."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; every value is escaped, unless the template says that it is HTML already."""
    return _TEMPLATES.get_template(template).render(**values)


def paragraph(text: str) -> str:
    """A sentence as an HTML paragraph."""
    return f"<p>{html.escape(text)}</p>"
