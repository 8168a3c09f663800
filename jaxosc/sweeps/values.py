"""Reading the settings of a sweep: numbers, ranges and files become tuples, or one sentence says what is wrong."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import JaxoscError
from .fingerprint import digest_of_file

_RANGE_KEYS = {"start", "stop", "num", "scale"}


def numbers(name: str, given: Any) -> tuple[float, ...]:
    """Finite different floats from one number, a list, an array, or `{start, stop, num, scale="linear" | "log"}`.

    **Raises:** `JaxoscError` for anything else; `name` is the setting's name in its sentence.
    """
    if isinstance(given, Mapping):
        given = _range(name, given)
    values = tuple(_number(name, value) for value in _listed(given))
    if not values:
        raise JaxoscError(f"Got an empty list for {name}, expected at least one number: give one.")
    _refuse_repeats(name, values)
    return values


def whole_numbers(name: str, given: Any, at_least: int) -> tuple[int, ...]:
    """Different ints >= `at_least` from one or a list. **Raises:** `JaxoscError`."""
    values = tuple(whole_number(name, value, at_least) for value in _listed(given))
    if not values:
        raise JaxoscError(f"Got an empty list for {name}, expected whole numbers >= {at_least}: give one.")
    _refuse_repeats(name, values)
    return values


def whole_number(name: str, given: Any, at_least: int, below: int = 2**31) -> int:
    """An int in [at_least, below). **Raises:** `JaxoscError`."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(given, bool | np.bool_) or not value.is_integer() or not at_least <= value < below:
        raise JaxoscError(
            f"Got {name} = {given!r}, expected a whole number from {at_least} to {below - 1}: correct {name}."
        )
    return int(given)


def positive(name: str, given: Any) -> float:
    """A finite float > 0. **Raises:** `JaxoscError`."""
    value = _number(name, given)
    if value <= 0:
        raise JaxoscError(f"Got {name} = {given!r}, expected a number > 0: give a positive {name}.")
    return value


def one_of(name: str, given: Any, known: Sequence[str]) -> str:
    """One word of a short list. **Raises:** `JaxoscError` that lists them."""
    if given not in known:
        raise JaxoscError(f"Got {name} = {given!r}, expected one of {', '.join(known)}: choose one of these.")
    return str(given)


def read_matrix(path: Path) -> tuple[np.ndarray, str]:
    """The matrix (n, n) in float64 that a .npy or .csv file holds, and the SHA-256 of the file.

    **Raises:** as `read_matrix_as_stored`.
    """
    return read_matrix_as_stored(path).astype(np.float64), digest_of_file(path)


def read_matrix_as_stored(path: Path) -> np.ndarray:
    """The matrix (n, n) that a .npy or .csv file holds, in the dtype in which it is stored (float64 for .csv).

    A .csv file has one row a line, numbers parted by commas, and no header.

    **Raises:** `JaxoscError` when the file is missing, of another kind, not square, below 2 x 2, or not finite.
    """
    if not path.is_file():
        raise JaxoscError(f"Got weight_file = {str(path)!r}, but there is no such file: correct the path.")
    if path.suffix not in (".npy", ".csv"):
        raise JaxoscError(f"Got weight_file = {path.name!r}, expected a .npy or .csv file: save the matrix as one.")
    try:
        read = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
        matrix = np.asarray(read, np.float64)  # refuses what are no real numbers
    except (ValueError, TypeError, EOFError) as error:
        raise JaxoscError(
            f"Got weight_file = {path.name!r}, which does not read as real numbers ({error}), expected a matrix saved"
            " by numpy.save, or comma-separated numbers without a header: save it anew."
        ) from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
        raise JaxoscError(
            f"Got a matrix of shape {matrix.shape} in {path.name}, expected (n, n) with n >= 2: save a square matrix."
        )
    bad = int((~np.isfinite(matrix)).sum())
    if bad:
        raise JaxoscError(f"Got {bad} NaN or infinite entries in {path.name}, expected finite numbers: clean it first.")
    return np.asarray(read)


def skew_matrix(matrix: np.ndarray, name: str, part: str | None, normalise: str | None) -> np.ndarray:
    """The skew matrix a sweep runs: `matrix` itself if it is skew, or its skew part if that was asked for.

    `part="skew"` takes (W - W.T)/2; `normalise="spectral"` divides by the spectral norm afterwards. Skew means
    max |W + W.T| <= 10 n eps max |W| (float64), as for `DenseSkew.from_matrix`.

    **Raises:** `JaxoscError` for a matrix that is not skew when no part was asked for (it says by how much), and for
    one without a skew part.
    """
    largest, defect = np.abs(matrix).max(), np.abs(matrix + matrix.T).max()
    if part is None and defect > 10 * len(matrix) * np.finfo(np.float64).eps * largest:
        raise JaxoscError(
            f"Got a matrix in {name} that is not skew (max |W + W.T| = {defect:.3g} where max |W| = {largest:.3g}),"
            ' expected W.T == -W: set weight_part = "skew" to take its skew part (W - W.T)/2.'
        )
    skew = 0.5 * matrix - 0.5 * matrix.T
    norm = np.linalg.norm(skew, 2)
    if norm == 0:
        raise JaxoscError(f"Got a matrix in {name} without a skew part, expected W != W.T: nothing would ever move.")
    return skew / norm if normalise == "spectral" else skew


def _listed(given: Any) -> list[Any]:
    if isinstance(given, np.ndarray):
        return list(np.ravel(given).tolist())
    return list(given) if isinstance(given, list | tuple | range) else [given]


def _number(name: str, given: Any) -> float:
    try:
        value = math.nan if isinstance(given, bool | str) else float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise JaxoscError(f"Got {name} = {given!r}, expected a finite number: correct {name}.")
    return value


def _range(name: str, given: Mapping[str, Any]) -> list[float]:
    unknown = sorted(set(given) - _RANGE_KEYS)
    missing = sorted({"start", "stop", "num"} - set(given))
    if unknown or missing:
        what = f"the unknown key {unknown[0]!r}" if unknown else f"no {missing[0]!r}"
        raise JaxoscError(
            f'Got {what} in the range for {name}, expected {{start, stop, num, scale = "linear" or "log"}}.'
        )
    start, stop = _number(f"{name}.start", given["start"]), _number(f"{name}.stop", given["stop"])
    num = whole_number(f"{name}.num", given["num"], 1)
    if one_of(f"{name}.scale", given.get("scale", "linear"), ("linear", "log")) == "linear":
        return np.linspace(start, stop, num).tolist()
    if start <= 0 or stop <= 0:
        raise JaxoscError(f"Got the log range {start:g} to {stop:g} for {name}, expected both > 0: use a linear range.")
    return np.geomspace(start, stop, num).tolist()


def _refuse_repeats(name: str, values: tuple[float, ...]) -> None:
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise JaxoscError(f"Got {name} = {twice} twice, expected different values: drop one.")
