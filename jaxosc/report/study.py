"""The dataset of a report, with what several blocks ask of it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxosc._errors import JaxoscError
from jaxosc._results import Result
from jaxosc.plotting.summaries import MEMBER_DIMS, value_text, varied

from .trajectories import Trajectory, chosen_place, trajectories

if TYPE_CHECKING:
    import xarray

_MOST_SPLITS = 4
"""Pictures of one kind in a report: with more, nobody compares them any longer, and axes are pooled instead."""

_ZERO_IS_NONE = ("leak", "asymmetry")
_FIXED_AXES = ("activation", "solver", "neurons", "gain", "dt", *MEMBER_DIMS)
_KNOWN_AXES = (*_FIXED_AXES, "weight_law", *_ZERO_IS_NONE)


@dataclass(frozen=True)
class Study:
    """A sweep's dataset, finished or not, and the folder it came from (None: only in memory)."""

    dataset: "xarray.Dataset"
    path: Path | None = None

    @cached_property
    def result_counts(self) -> dict[str, int]:
        """How many computed members ended with each code, by activation and in the codes' order, zero counts too."""
        return {code.name: int(sum(counts[code] for counts in self.results_by_activation.values())) for code in Result}

    @cached_property
    def results_by_activation(self) -> dict[str, dict[Result, int]]:
        """Members per result code, for each activation."""
        self.require("result")
        found = {}
        for index, name in enumerate(self.names("activation")):
            codes = self.dataset["result"].isel(activation=index).values
            found[name] = {code: int(np.sum(codes == int(code))) for code in Result}
        return found

    @cached_property
    def disturbing_axes(self) -> list[str]:
        """Declared axes along which the network itself may gain or lose energy, whatever the solver does."""
        found = [dim for dim in _ZERO_IS_NONE if dim in self.dataset.sizes and np.any(self.dataset[dim] != 0)]
        if "weight_law" in self.dataset.sizes and "unconstrained" in self.dataset["weight_law"].values:
            found.append("weight_law")
        return found + [str(dim) for dim in self.dataset.sizes if dim not in _KNOWN_AXES]

    @cached_property
    def conserving(self) -> "xarray.Dataset | None":
        """The part whose networks are known to conserve their energy: no leak, no asymmetry; None without such."""
        kept = {
            dim: np.flatnonzero(self.dataset[dim].values == 0) for dim in self.disturbing_axes if dim in _ZERO_IS_NONE
        }
        if len(kept) < len(self.disturbing_axes) or any(indices.size == 0 for indices in kept.values()):
            return None
        return self.dataset.isel(kept)

    @cached_property
    def place(self) -> dict[str, int]:
        """The chosen member's index on every axis but activation and solver, see `trajectories`."""
        self.require("result")
        return chosen_place(self.dataset)

    @cached_property
    def trajectories(self) -> list[list[Trajectory]]:
        """The chosen member run again, per activation and solver."""
        return trajectories(self.dataset, self.place)

    @property
    def computed(self) -> int:
        """Members that are done."""
        return sum(self.result_counts.values())

    @property
    def declared(self) -> int:
        """Members that the spec asks for."""
        return int(self.dataset["result"].size)

    def names(self, dim: str) -> list[str]:
        """The values of an axis as words."""
        return [value_text(value) for value in self.dataset[dim].values]

    def require(self, *variables: str) -> None:
        """Raise `JaxoscError` with one sentence when the dataset lacks a variable or an axis that every sweep has."""
        for name in _FIXED_AXES:
            if name not in self.dataset.sizes:
                raise JaxoscError(
                    f"Got a dataset without the axis {name}, expected {', '.join(_FIXED_AXES)}: give that of a "
                    "sweep, and keep axes that you select from (sel with a list)."
                )
        for name in variables:
            if name not in self.dataset:
                raise JaxoscError(
                    f"Got a dataset without the variable {name}, expected it for this part: it holds "
                    f"{', '.join(sorted(map(str, self.dataset.data_vars))) or 'none'}."
                )

    def splits(self, *shown: str) -> Iterator[tuple[str, "xarray.Dataset"]]:
        """The dataset cut along the varied axes that a picture does not show, with the name of each piece.

        Axes are cut in the dataset's order as long as there are at most four pieces; the others are left for the
        picture to pool.
        """
        cut: list[str] = []
        pieces = 1
        for dim in varied(self.dataset):
            if dim not in (*shown, *MEMBER_DIMS) and pieces * self.dataset.sizes[dim] <= _MOST_SPLITS:
                cut.append(dim)
                pieces *= self.dataset.sizes[dim]
        for indices in itertools.product(*(range(self.dataset.sizes[dim]) for dim in cut)):
            chosen = dict(zip(cut, indices, strict=True))
            label = ", ".join(f"{dim} = {self.names(dim)[index]}" for dim, index in chosen.items())
            yield label, self.dataset.isel({dim: [index] for dim, index in chosen.items()})

    def pooled_words(self, dataset: "xarray.Dataset", *shown: str) -> str:
        """Which varied axes a picture of `dataset` pools: "draws, starts and gain"."""
        words = ["draws", "starts", *(dim for dim in varied(dataset) if dim not in shown)]
        return " and ".join([", ".join(words[:-1]), words[-1]])
