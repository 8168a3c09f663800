"""From a dataset of members to the numbers behind a map: medians, quartiles and shares per cell.

A *cell* is one combination of the kept dimensions. All other dimensions (draws, starts, and whatever else the
caller does not keep) are pooled: their members stand side by side in the cell's median and shares.

A member that did not end `successful` has no energy drift to compare, so the median is over those that did,
and the share that did not is given beside it: one number without the other would flatter a solver that loses
its worst cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int

from jaxosc._errors import JaxoscError
from jaxosc._results import Result

if TYPE_CHECKING:
    import xarray

MEMBER_DIMS = ("draw", "ic")
DRIFT_FLOOR = 1e-17
"""Drifts below this are drawn at it: a tenth of float64's rounding."""


@dataclass(frozen=True)
class DriftSummary:
    """Per cell: quartiles of |relative energy drift| over the members that finished, and who did not.

    `median`, `lower`, `upper` (quartiles; NaN where nobody finished), `unfinished` (share, 0 to 1; NaN where
    nothing is computed yet) and `members` (computed so far) have one axis per entry of `dims`.
    """

    dims: tuple[str, ...]
    values: dict[str, np.ndarray]
    variable: str
    pooled: tuple[str, ...]
    median: Float[np.ndarray, "..."]
    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]
    unfinished: Float[np.ndarray, "..."]
    members: Int[np.ndarray, "..."]


@dataclass(frozen=True)
class CodeShares:
    """Per cell: which share of the computed members carries each code.

    `shares` has one axis per entry of `dims` and a last one over `names`; it is NaN where nothing is computed
    yet.
    """

    dims: tuple[str, ...]
    values: dict[str, np.ndarray]
    names: tuple[str, ...]
    shares: Float[np.ndarray, "... codes"]
    members: Int[np.ndarray, "..."]


def drift_summary(
    dataset: "xarray.Dataset",
    keep: Sequence[str],
    variable: str | None = None,
    *,
    losses: Literal["apart", "worst"] = "apart",
) -> DriftSummary:
    """Quartiles of the energy drift's magnitude, and the share of members that did not finish, per cell.

    **Arguments:** `dataset`: a sweep's; `keep`: the dimensions that cells differ in; `variable`: `"energy_drift_max"`
    (largest magnitude over time) unless the dataset lacks it, then `"energy_drift"` (at the end); `losses`: `"apart"`
    leaves members that did not finish out of the quartiles, `"worst"` counts them as infinitely far off, which is the
    fair way to rank solvers.

    **Raises:** `JaxoscError` when the variable or a dimension is missing.
    """
    variable = drift_variable(dataset) if variable is None else variable
    keep = tuple(keep)
    pooled = _pooled(dataset, variable, keep)
    parts = [
        _quartiles(np.abs(drift), codes, losses)
        for drift, codes in zip(_rows(dataset, variable, keep), _rows(dataset, "result", keep), strict=True)
    ]
    lower, median, upper, unfinished, members = (np.stack(column) for column in zip(*parts, strict=True))
    return DriftSummary(keep, _axis_values(dataset, keep), variable, pooled, median, lower, upper, unfinished, members)


def code_shares(dataset: "xarray.Dataset", keep: Sequence[str], variable: str = "result") -> CodeShares:
    """The share of each code of an int8 variable with CF flags (`result`, `orbit`), per cell.

    **Raises:** `JaxoscError` when the variable or a dimension is missing.
    """
    keep = tuple(keep)
    _pooled(dataset, variable, keep)
    codes_of = flags(dataset, variable)
    rows, counts = [], []
    for codes in _rows(dataset, variable, keep):
        known = np.stack([np.sum(codes == code, axis=-1) for code in codes_of.values()], axis=-1)
        total = known.sum(axis=-1)
        rows.append(np.where(total[..., None] > 0, known / np.maximum(total, 1)[..., None], np.nan))
        counts.append(total)
    return CodeShares(keep, _axis_values(dataset, keep), tuple(codes_of), np.stack(rows), np.stack(counts))


def drift_variable(dataset: "xarray.Dataset") -> str:
    """The name of the best energy-drift variable that the dataset holds."""
    for name in ("energy_drift_max", "energy_drift"):
        if name in dataset:
            return name
    raise JaxoscError(
        f"Got a dataset with {_held(dataset)}, expected energy_drift_max or energy_drift: run the sweep with the "
        "measure energy to see its drift."
    )


def flags(dataset: "xarray.Dataset", variable: str) -> dict[str, int]:
    """Names and codes of a flag variable, from its CF attributes `flag_values` and `flag_meanings`."""
    attributes = dataset[variable].attrs
    if "flag_values" in attributes and "flag_meanings" in attributes:
        codes = np.atleast_1d(np.asarray(attributes["flag_values"]))
        return dict(zip(str(attributes["flag_meanings"]).split(), (int(code) for code in codes), strict=True))
    if variable == "result":
        return {code.name: int(code) for code in Result}
    raise JaxoscError(
        f"Got the variable {variable} without the attributes flag_values and flag_meanings, expected both to name "
        "its codes: set them as the CF conventions say."
    )


def varied(dataset: "xarray.Dataset") -> tuple[str, ...]:
    """The declared axes with more than one value, in the dataset's order, without draws and starts."""
    return tuple(str(d) for d, size in dataset.sizes.items() if size > 1 and d not in MEMBER_DIMS)


def is_number_axis(dataset: "xarray.Dataset", dim: str) -> bool:
    """Whether the coordinate of `dim` holds numbers (and not names)."""
    return bool(np.issubdtype(dataset[dim].dtype, np.number))


def axis_label(dataset: "xarray.Dataset", dim: str) -> str:
    """`name (long_name) [units]` of a coordinate, as far as its attributes say."""
    attributes = dataset[dim].attrs if dim in dataset.coords else {}
    name = str(attributes.get("long_name", dim))
    name = name if dim in name.replace(",", " ").split() else f"{dim} ({name})"
    units = str(attributes.get("units", ""))
    return name if units in ("", "1", "dimensionless") else f"{name} [{units}]"


def when_word(summary: DriftSummary) -> str:
    """Which drift a summary is of: the `largest` during the run, or the `final` one."""
    return "largest" if summary.variable == "energy_drift_max" else "final"


def value_text(value: object) -> str:
    """One coordinate value as a short word: as few digits as keep a number within 2 %, at least two."""
    if not isinstance(value, (float, np.floating)):
        return str(value)
    number = float(value)
    words = [f"{number:.{digits}g}" for digits in (2, 3)]
    return words[0] if abs(float(words[0]) - number) <= 0.02 * abs(number) else words[1]


def _held(dataset: "xarray.Dataset") -> str:
    """The dataset's variables in words, for messages."""
    return ", ".join(sorted(map(str, dataset.data_vars))) or "no variable"


def _axis_values(dataset: "xarray.Dataset", keep: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {dim: np.asarray(dataset[dim].values) for dim in keep}


def _pooled(dataset: "xarray.Dataset", variable: str, keep: tuple[str, ...]) -> tuple[str, ...]:
    """The dimensions of `variable` that are not kept; raises when something asked for is missing."""
    for name in (variable, "result"):
        if name not in dataset:
            raise JaxoscError(
                f"Got a dataset with {_held(dataset)}, expected the variable {name}: run the sweep with that measure."
            )
    dims = tuple(str(d) for d in dataset[variable].dims)
    missing = [dim for dim in keep if dim not in dims]
    if missing:
        raise JaxoscError(f"Got the dimension {missing[0]}, expected one of {', '.join(dims)}: choose among these.")
    return tuple(dim for dim in dims if dim not in keep)


def _rows(dataset: "xarray.Dataset", variable: str, keep: tuple[str, ...]) -> list[np.ndarray]:
    """The variable as one array per value of the first kept dimension, members last.

    Read row by row, because a store can be larger than the memory of the machine that draws it.
    """
    array = dataset[variable]
    pooled = [d for d in array.dims if d not in keep]
    rows = []
    for index in range(array.sizes[keep[0]]):
        row = array.isel({keep[0]: index}).transpose(*keep[1:], *pooled).values
        rows.append(row.reshape(*row.shape[: len(keep) - 1], -1))
    return rows


def _quartiles(
    magnitude: np.ndarray, codes: np.ndarray, losses: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median, upper quartile; share that did not finish; computed members."""
    computed = np.isin(codes, [int(code) for code in Result])
    finished = computed & (codes == int(Result.successful)) & np.isfinite(magnitude)
    counted = np.where(finished, magnitude, np.where(computed & (losses == "worst"), np.inf, np.nan))
    # Sorting puts the missing ones (NaN) last; nanquantile would do it too, but warns at every empty cell.
    ordered = np.sort(counted, axis=-1)
    members, count = computed.sum(axis=-1), finished.sum(axis=-1)
    lower, median, upper = (_quantile(ordered, members if losses == "worst" else count, q) for q in (0.25, 0.5, 0.75))
    unfinished = np.where(members > 0, 1.0 - count / np.maximum(members, 1), np.nan)
    return lower, median, upper, unfinished, members


def _quantile(ordered: np.ndarray, count: np.ndarray, q: float) -> np.ndarray:
    """Linear-interpolated quantile of the first `count` entries of the last, sorted axis; NaN where none."""
    position = q * np.maximum(count - 1, 0)
    below = np.floor(position).astype(int)
    above = np.ceil(position).astype(int)
    low = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
    with np.errstate(invalid="ignore"):  # inf - inf, where both neighbours were lost
        between = low + (high - low) * (position - below)
    return np.where(low == high, low, between)
