"""Signals from `.csv` files: times in the first column, channels in the others."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from .._errors import JaxoscError


def read_waveform(path: Any) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, "times channels"]]:
    """Times (times,) and channels (times, channels) of a `.csv` file, for `fit_waveform`.

    The first column holds times, every other one a channel. A first row in which not all are numbers is a header and is
    passed over, as are empty rows and rows that begin with #. Columns are parted by commas, or by semicolons or tabs
    where the first row has these and no comma.

    **Raises:** `JaxoscError` for a file that is not there or no text, and for a row of another length or with a field
    that is no finite number: it says which.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise JaxoscError(f"Got the file {path}, which cannot be read ({error}): pass a .csv of text.") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise JaxoscError(f"Got {path} without a row, expected times and channels: fill it.")
    first = lines[0][1]
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    rows = [(number, next(csv.reader([line], delimiter=delimiter))) for number, line in lines]
    if any(_number(field) is None for field in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise JaxoscError(f"Got {path} with a header and no rows, expected times and channels: fill it.")
    width = len(rows[0][1])
    if width < 2:
        raise JaxoscError(f"Got {path} with {width} column, expected times and at least one channel.")
    values = np.array([_values(path, number, row, width) for number, row in rows])
    return values[:, 0], values[:, 1:]


def _values(path: Path, number: int, row: list[str], width: int) -> list[float]:
    if len(row) != width:
        raise JaxoscError(f"Got {len(row)} columns in line {number} of {path}, expected {width} as before: mend it.")
    values = []
    for column, field in enumerate(row, 1):
        value = _number(field)
        if value is None or not math.isfinite(value):
            raise JaxoscError(
                f"Got {field.strip()!r} in line {number}, column {column} of {path}, expected a finite number: mend it."
            )
        values.append(value)
    return values


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None
