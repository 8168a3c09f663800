"""The page itself: which blocks a report has, and how they become one file."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

from jaxosc import sweeps
from jaxosc._errors import JaxoscError

from .block import Block, paragraph, render
from .closeups import EnergyOverTime, Portraits
from .headline import Headline
from .keeps import Keeps
from .overviews import DriftAgainstDt, Shares, StabilityMaps
from .record import Reproduce, Spec
from .study import Study

if TYPE_CHECKING:
    import xarray

BLOCKS: tuple[Block, ...] = (
    Headline(),
    StabilityMaps(),
    DriftAgainstDt(),
    Portraits(),
    EnergyOverTime(),
    Keeps(),
    Shares("result", "How the runs ended", "Shares of the result codes."),
    Shares(
        "orbit",
        "What the orbits are",
        "Shares of the orbit classes, as far as measures taken during the run can tell; the rest is undecided.",
    ),
    Spec(),
    Reproduce(),
)
"""The blocks of a report, in their order on the page."""

_KEEP_BYTES = 10**9


def write(
    data: Union[str, Path, "xarray.Dataset"],
    out: str | Path | None = None,
    *,
    blocks: Sequence[Block] = BLOCKS,
) -> Path:
    """Write the report of a sweep as one HTML file that needs nothing else, and return where it is.

    **Arguments:** `data`: a store's folder, or a dataset; `out`: the file (default: `report.html` in the
    folder); `blocks`: what stands on the page.

    **Raises:** `JaxoscError` when `data` is no sweep, or a dataset comes without `out`, or the file cannot be
    written.
    """
    study, out = _study(data, out)
    study.require()
    page = render("page.html.j2", name=_name(study), sections=[_section(block, study) for block in blocks])
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise JaxoscError(
            f"Got the file {out}, expected one that can be written ({error.strerror}): choose another place."
        ) from error
    return out


def _study(data: Union[str, Path, "xarray.Dataset"], out: str | Path | None) -> tuple[Study, Path]:
    if isinstance(data, str | Path):
        path = Path(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "[0-9,]+ of [0-9,]+ chunks")  # the page says it in its first sentences
            dataset = sweeps.load(path)
        return Study(_in_memory(dataset), path), Path(out) if out is not None else path / "report.html"
    if out is None:
        raise JaxoscError('Got a dataset without a place for its report, expected a file name: give out="report.html".')
    return Study(data), Path(out)


def _in_memory(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """Read the data once instead of once per block, unless it is too large to be kept."""
    return dataset.load() if dataset.nbytes <= _KEEP_BYTES else dataset


def _section(block: Block, study: Study) -> tuple[Block, str]:
    """A block and its HTML, or the sentence that says why there is none."""
    try:
        return block, block.html(study)
    except JaxoscError as reason:
        return block, f'<div class="absent">{paragraph(f"Not shown. {reason}")}</div>'


def _name(study: Study) -> str:
    return study.path.resolve().name if study.path is not None else "sweep"
