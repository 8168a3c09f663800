"""Which share of a sweep's orbits is chaotic, and how well that share is known: the numbers of the chaos atlas.

A cell of the atlas is a small sample: some tens of random networks with one orbit each. Its share of chaotic orbits is
an estimate, and beside it stands the interval of true shares that such a sample can come from. The textbook interval
p +- z sqrt(p (1 - p) / m) has no width where all orbits or none are chaotic, which is most of an atlas. Wilson's has
the right width there too: it holds every share p for which the sample lies within z standard deviations *of p*.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._errors import JaxoscError
from .._intervals import wilson_interval as wilson_interval
from .._results import ORBITS

if TYPE_CHECKING:
    import xarray

DECIDED = ("chaotic", "quasi_periodic", "periodic")
"""Orbits that are known to be chaotic or not to be."""

_MEMBERS = ("draw", "ic")


def chaotic_shares(dataset: "xarray.Dataset", confidence: float = 0.95) -> "xarray.Dataset":
    """The share of chaotic orbits in every cell of a sweep, with its interval over the draws.

    A cell is one combination of everything but `draw`; a share is taken among its decided orbits, which are chaotic,
    quasi-periodic or periodic. Orbits of other draws are orbits of other random networks, so that within a cell they
    are independent and the interval is `wilson_interval`. Cells are not independent of each other: the same draw stands
    in all cells of a row of energies or gains. Undecided orbits are left out of the share; where they are many the
    interval says too little, since they need not be chaotic as often as the decided ones.

    **Arguments:** `dataset`: a sweep's with one start for each draw, such as `chaos_study()` gives; members that are
    not computed yet count for nothing; `confidence`: of the interval.

    **Returns:** a dataset of the same dimensions but `draw` and `ic`: `share` (0 to 1, NaN where nobody is decided),
    `low` and `high` (0 and 1 there), `decided` (how many orbits the share is of) and `undecided` (the share of computed
    orbits left out, NaN where none is computed).

    **Raises:** `JaxoscError` without `orbit`, and for several starts of a draw, which are not independent.
    """
    if "orbit" not in dataset or "draw" not in dataset["orbit"].dims:
        raise JaxoscError("Got a dataset without orbits of several draws, expected a sweep's: run chaos_study().")
    starts = dataset.sizes.get("ic", 1)
    if starts > 1:
        raise JaxoscError(
            f"Got {starts} starts of each draw, expected one, since orbits of one network are not independent: choose"
            " with dataset.isel(ic=[0])."
        )
    orbit = dataset["orbit"]
    pooled = [dim for dim in _MEMBERS if dim in orbit.dims]
    codes = _codes(orbit)
    computed = orbit.isin(list(codes.values())).sum(pooled)
    chaotic = (orbit == codes["chaotic"]).sum(pooled)
    decided = orbit.isin([codes[word] for word in DECIDED]).sum(pooled)
    low, high = wilson_interval(chaotic.values, decided.values, confidence)
    share = (chaotic / decided.where(decided > 0)).rename("share")
    found = share.to_dataset().assign(
        low=share.copy(data=low),
        high=share.copy(data=high),
        decided=decided.drop_attrs(),
        undecided=1 - decided / computed.where(computed > 0),
    )
    return _described(found, confidence)


def _codes(orbit: "xarray.DataArray") -> dict[str, int]:
    """Orbit words and their codes, by the variable's own attributes where it has them."""
    words: Sequence[str] = str(orbit.attrs.get("flag_meanings", " ".join(ORBITS))).split()
    values = np.atleast_1d(orbit.attrs.get("flag_values", np.arange(len(words))))
    codes = {word: int(value) for word, value in zip(words, values, strict=True)}
    missing = [word for word in DECIDED if word not in codes]
    if missing:
        raise JaxoscError(f"Got orbits with the words {', '.join(words)}, expected {missing[0]} among them: run again.")
    return codes


def _described(found: "xarray.Dataset", confidence: float) -> "xarray.Dataset":
    names = {
        "share": "share of chaotic orbits among the decided ones",
        "low": f"lower end of the {100 * confidence:g} % Wilson interval over draws",
        "high": f"upper end of the {100 * confidence:g} % Wilson interval over draws",
        "decided": "orbits that are chaotic, quasi-periodic or periodic",
        "undecided": "share of the computed orbits that are none of these",
    }
    for name, long_name in names.items():
        found[name].attrs = {"long_name": long_name, "units": "1"}
    return found
