"""The options of `jaxosc sweep` and its kin, as groups that `--help` shows, and what they mean as settings."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from ._errors import JaxoscError

if TYPE_CHECKING:
    from .sweeps import Sweep

AXES = Group(
    "Axes",
    help="One value or several: --dt 0.1,0.2 or --dt 0.01:1:9 (start:stop:num) or --dt 0.01:1:9:log.",
    sort_key=1,
)
MEMBERS = Group("Members and measures", sort_key=2)
MATRIX = Group("A matrix of your own", sort_key=3)
RUNNING = Group("Running", sort_key=4)

_Given = list[str] | None


def option(help: str, **settings: Any) -> Any:
    """How an option is shown: no default value, no negative form."""
    return Parameter(help=help, negative="", show_default=False, **settings)


@Parameter(name="*", group=AXES)
@dataclasses.dataclass(frozen=True)
class Axes:
    """Overrides of the axes; None keeps what the spec or the default study says."""

    activation: Annotated[_Given, option('names, or "file.py:object" for your own')] = None
    solver: Annotated[_Given, option("euler, poisson_splitting, poisson_splitting_4, tsit5, ...")] = None
    weight_law: Annotated[_Given, option("dense_skew, circulant, banded_skew, ...")] = None
    neurons: Annotated[_Given, option("network sizes n, at least 2")] = None
    gain: Annotated[_Given, option("factors on W", allow_leading_hyphen=True)] = None
    dt: Annotated[_Given, option("step sizes")] = None
    leak: Annotated[_Given, option("rates of -leak*y", allow_leading_hyphen=True)] = None
    asymmetry: Annotated[_Given, option("factors on the symmetric part of W", allow_leading_hyphen=True)] = None

    def settings(self) -> dict[str, Any]:
        """What was given, as settings of `Sweep`."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        words = ("activation", "solver", "weight_law")
        return {name: _words(value) if name in words else _numbers(name, value) for name, value in given.items()}


@Parameter(name="*", group=MEMBERS)
@dataclasses.dataclass(frozen=True)
class Members:
    """Overrides of how many members there are, where they start and what is measured."""

    draws: Annotated[int | None, option("random weights per combination")] = None
    ics: Annotated[int | None, option("initial conditions per weight")] = None
    ic_law: Annotated[str | None, option("normal, sphere, uniform, energy or energy_per_neuron")] = None
    radius: Annotated[float | None, option("size of a start")] = None
    energy: Annotated[_Given, option("energies of the starts; --ic-law energy, or energy_per_neuron")] = None
    duration: Annotated[float | None, option("time span of a run")] = None
    seed: Annotated[int | None, option("all random numbers follow from it")] = None
    measures: Annotated[_Given, option("some of energy, norms, period, chaos")] = None
    escape_norm: Annotated[float | None, option("a state of larger norm is frozen as escaped")] = None

    def settings(self) -> dict[str, Any]:
        """What was given, as settings of `Sweep`."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        starts = {key: given.pop(name) for key, name in _STARTS.items() if name in given}
        if "energy" in starts:
            starts.setdefault("law", "energy")
            levels = _numbers("energy", starts["energy"])
            # One energy is no dimension of the dataset.
            starts["energy"] = levels[0] if isinstance(levels, list) and len(levels) == 1 else levels
        if "measures" in given:
            given["measures"] = _words(given["measures"])
        return given | ({"ic": starts} if starts else {})


_STARTS = {"law": "ic_law", "radius": "radius", "energy": "energy"}


@Parameter(name="*", group=MATRIX)
@dataclasses.dataclass(frozen=True)
class Matrix:
    """A weight matrix from a file instead of random draws."""

    weight: Annotated[Path | None, option(".npy or .csv file with one square matrix")] = None
    weight_part: Annotated[str | None, option("skew: take the skew part (W - W.T)/2 of the file's matrix")] = None
    normalise: Annotated[str | None, option("spectral: divide by the spectral norm")] = None

    def settings(self) -> dict[str, Any]:
        """What was given, as settings of `Sweep`."""
        found = {"weight_file": self.weight, "weight_part": self.weight_part, "normalise": self.normalise}
        return {name: str(value) for name, value in found.items() if value is not None}


@Parameter(name="*", group=RUNNING)
@dataclasses.dataclass(frozen=True)
class Running:
    """What work may take and what follows it; nothing here changes the data."""

    memory: Annotated[str | None, option('memory bound, such as "2 GB"; a quarter of the machine if not given')] = None
    workers: Annotated[int | None, option("blocks at the same time; one per core if not given")] = None
    report: Annotated[bool, Parameter(help="draw the report at the end", show_default=False)] = True

    def options(self) -> dict[str, Any]:
        """What was given, as options of `Sweep.plan`, `Sweep.run` and `sweeps.resume`."""
        given = {"memory": self.memory, "workers": self.workers}
        return {name: value for name, value in given.items() if value is not None}


def study_of(spec: Path | None, settings: dict[str, Any]) -> "Sweep":
    """The study of a spec file or of a name, with these settings in place of its own; a file comes before a name."""
    from . import sweeps

    if spec is None:
        return sweeps.default_study(**settings)
    if str(spec) in sweeps.STUDIES and not spec.exists():
        return sweeps.STUDIES[str(spec)](**settings)
    return sweeps.load_spec(spec, **settings)


def _words(given: list[str]) -> list[str]:
    return [word.strip() for entry in given for word in entry.split(",") if word.strip()]


def _numbers(name: str, given: list[str]) -> Any:
    """Numbers from "0.1,0.2", or the range that "start:stop:num[:scale]" describes; `Sweep` checks them."""
    words = _words(given)
    ranges = [word for word in words if ":" in word]
    try:
        if not ranges:
            return [float(word) for word in words]
        (only,) = words
        start, stop, num, *scale = only.split(":")
        (word,) = scale or ["linear"]
        return {"start": float(start), "stop": float(stop), "num": int(num), "scale": word}
    except ValueError:
        raise JaxoscError(
            f"Got --{name.replace('_', '-')} {' '.join(given)}, expected numbers such as 0.1,0.2 or one range"
            " start:stop:num or start:stop:num:log: correct it."
        ) from None
