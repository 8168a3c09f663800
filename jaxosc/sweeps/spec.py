"""What a sweep is: its axes and settings, checked before any work starts.

    sweep = jo.sweeps.Sweep(activation=["tanh", "relu"], dt=[0.01, 0.1], gain={"start": 0.1, "stop": 10, "num": 9,
                            "scale": "log"}, draws=64, ics=16, duration=500)
    print(sweep.plan())
    data = sweep.run("results")

W = gain (S + asymmetry M): S is drawn by `weight_law` or read from `weight_file`; M is symmetric and random, entries
N(0, 1)/sqrt(n) off the diagonal and N(0, 2)/sqrt(n) on it (variances 1/n and 2/n: the Gaussian orthogonal ensemble).
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import jax.numpy as jnp
import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from .._errors import JaxoscError
from ..simulate.engine import DEFAULT_ESCAPE_NORM
from .axes import Axis
from .catalogue import KINDS, Choice, choices
from .checks import check_spec
from .values import (
    numbers,
    one_of,
    positive,
    read_matrix,
    skew_matrix,
    whole_number,
    whole_numbers,
)

if TYPE_CHECKING:
    import xarray

    from .plan import Plan

ENERGY_LAWS = ("energy", "energy_per_neuron")
START_LAWS = ("normal", "sphere", "uniform", *ENERGY_LAWS)

USUAL_MEASURES = ("energy", "norms", "period")
MEASURES = (*USUAL_MEASURES, "chaos")


def _energy(given: Any) -> float | tuple[float, ...]:
    if np.ndim(given) == 0 and not isinstance(given, Mapping):
        return positive("ic.energy", given)
    return tuple(positive("ic.energy", value) for value in numbers("ic.energy", given))


def _floats(given: Any, info: Any) -> tuple[float, ...] | None:
    return None if given is None else numbers(_name(info), given)


def _positive_floats(given: Any, info: Any) -> tuple[float, ...]:
    return tuple(positive(_name(info), value) for value in numbers(_name(info), given))


def _choices(given: Any, info: Any) -> tuple[Choice, ...] | None:
    return None if given is None else choices(KINDS[_name(info)], given)


def _measures(given: Any) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else list(given)
    wanted = {one_of("measures", measure, MEASURES) for measure in listed}
    return tuple(measure for measure in MEASURES if measure in wanted)


def _axes(given: Any) -> tuple[Axis, ...]:
    if isinstance(given, Mapping):
        given = [_axis_of_table(name, table) for name, table in given.items()]
    listed = tuple(given) if isinstance(given, list | tuple) else (given,)
    wrong = [axis for axis in listed if not isinstance(axis, Axis)]
    if wrong:
        raise JaxoscError(f"Got the axis {wrong[0]!r}, expected jo.sweeps.Axis(name, values, apply): build one.")
    names = [axis.name for axis in listed]
    if len(set(names)) < len(names):
        raise JaxoscError(f"Got the axes {', '.join(names)}, expected different names: rename one.")
    return listed


def _axis_of_table(name: str, table: Any) -> Axis:
    keys = ("values", "apply", "units", "long_name")
    if not isinstance(table, Mapping) or not {"values", "apply"} <= set(table) <= set(keys):
        raise JaxoscError(
            f'Got axes.{name} = {table!r}, expected values, apply = "file.py:function" and, if wanted, units and'
            " long_name: correct that table."
        )
    return Axis(name, **table)


def _name(info: Any) -> str:
    # pydantic's ValidationInfo is a protocol that cannot be checked at runtime, hence Any.
    return str(info.field_name)


_Choices = Annotated[tuple[Choice, ...], BeforeValidator(_choices)]
_Floats = Annotated[tuple[float, ...], BeforeValidator(_floats)]
_PositiveFloats = Annotated[tuple[float, ...], BeforeValidator(_positive_floats)]
_Positive = Annotated[float, BeforeValidator(lambda given, info: positive(_name(info), given))]
_Count = Annotated[int, BeforeValidator(lambda given, info: whole_number(_name(info), given, 1))]
_Dtype = Annotated[str, BeforeValidator(lambda given: one_of("dtype", given, ("float32", "float64")))]
_Seed = Annotated[int, BeforeValidator(lambda given, info: whole_number(_name(info), given, 0))]
_Sizes = Annotated[tuple[int, ...], BeforeValidator(lambda given, info: whole_numbers(_name(info), given, 2))]
_Energy = Annotated[float | tuple[float, ...], BeforeValidator(_energy)]
_LawName = Annotated[str, BeforeValidator(lambda given: one_of("ic.law", given, START_LAWS))]


class Starts(BaseModel):
    """The law of the initial conditions; every start has a random direction of its own per (draw, ic)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    law: _LawName = Field(
        "normal",
        description="normal: entries radius * N(0, 1); sphere: norm = radius; uniform: entries in [-radius, radius];"
        " energy: a random direction, scaled until H(y0) = energy; energy_per_neuron: until H(y0) = energy * n",
    )
    radius: _Positive = Field(1.0, description="size of a start, see law (state units)")
    energy: _Energy | None = Field(
        None, description="H(y0) of every start, or H(y0)/n, see law; a list makes a dimension of the dataset"
    )

    @model_validator(mode="after")
    def _energy_goes_with_its_law(self) -> Self:
        if (self.law in ENERGY_LAWS) != (self.energy is not None):
            raise JaxoscError(
                f"Got ic.law = {self.law!r} with ic.energy = {self.energy}, expected an energy exactly for the laws"
                ' "energy" and "energy_per_neuron": give both or neither.'
            )
        return self

    def level(self, neurons: int, chosen: Any) -> Any:
        """H(y0) of a network of this size, for the energy `chosen` on the axis (None where there is no axis)."""
        energy: Any = self.energy if chosen is None else chosen
        return energy * neurons if self.law == "energy_per_neuron" else energy


def _starts(given: Any) -> Any:
    if isinstance(given, str):
        return {"law": given}
    if not isinstance(given, Mapping | Starts):
        raise JaxoscError(f'Got ic = {given!r}, expected a table such as {{law = "sphere", radius = 1.0}}.')
    return given


_Starts = Annotated[Starts, BeforeValidator(_starts)]


class Sweep(BaseModel):
    """A declared sweep. Every axis takes one value or a list, float axes also `{start, stop, num, scale}`.

    Lists make dimensions of the dataset; `draws` and `ics` make the last two. `leak`, `asymmetry` and `weight_law` are
    dimensions only when they are given. Members are every combination of all of these.

    **Raises:** `JaxoscError`, one sentence, for anything that cannot work.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    activation: _Choices = Field(("tanh",), validate_default=True, description="names, references or objects")
    solver: _Choices = Field(("poisson_splitting",), validate_default=True, description="fixed-step solvers")
    weight_law: _Choices | None = Field(None, description="laws of the random W; dense_skew if not given")
    neurons: _Sizes = Field((8,), description="network sizes n >= 2")
    gain: _Floats = Field((1.0,), description="factors on W")
    dt: _PositiveFloats = Field((0.1,), description="step sizes (time units)")
    leak: _Floats | None = Field(None, description="rates of -leak*y (1/time units)")
    asymmetry: _Floats | None = Field(None, description="factors on the random symmetric part M of W")
    axes: Annotated[tuple[Axis, ...], BeforeValidator(_axes)] = Field((), description="axes of your own")
    draws: _Count = Field(32, description="random weights per combination")
    ics: _Count = Field(32, description="random starts per weight")
    ic: _Starts = Field({}, validate_default=True, description="law of the starts")
    duration: _Positive = Field(100.0, description="time span of a run (time units), rounded to whole steps of dt")
    seed: _Seed = Field(0, description="all random numbers are functions of (seed, draw, ic)")
    measures: Annotated[tuple[str, ...], BeforeValidator(_measures)] = Field(
        USUAL_MEASURES,
        description="what is measured on the way: energy, norms, period; chaos: the largest exponent and MEGNO",
    )
    escape_norm: _Positive = Field(DEFAULT_ESCAPE_NORM, description="a state of larger norm is frozen: escaped")
    dtype: _Dtype = Field(
        default_factory=lambda: np.dtype(jnp.result_type(float)).name,
        description="float32 or float64; the session's default float if not given",
    )
    weight_file: str | None = Field(None, description=".npy or .csv file with one skew matrix S")
    weight_part: Literal["skew"] | None = Field(None, description="skew: take (W - W.T)/2 of the file's matrix")
    normalise: Literal["spectral"] | None = Field(None, description="spectral: scale the file's matrix to norm 1")

    _matrix: np.ndarray | None = PrivateAttr(None)
    _matrix_digest: str = PrivateAttr("")

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**_with_file_facts(settings))
        except ValidationError as error:
            raise JaxoscError(_sentence(error, type(self))) from None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.weight_file is not None:
            path = Path(self.weight_file)
            matrix, self._matrix_digest = read_matrix(path)
            self._matrix = skew_matrix(matrix, path.name, self.weight_part, self.normalise)
        check_spec(self)
        return self

    @property
    def matrix(self) -> np.ndarray | None:
        """The skew matrix (n, n) in float64 that `weight_file` gave, None without one."""
        return self._matrix

    @property
    def matrix_digest(self) -> str:
        """SHA-256 of the weight file, empty without one."""
        return self._matrix_digest

    @property
    def laws(self) -> tuple[Choice, ...]:
        """The weight laws to run: `weight_law`, or dense_skew where it was not given."""
        return self.weight_law or choices(KINDS["weight_law"], "dense_skew")

    @property
    def hash(self) -> str:
        """SHA-256 of what determines the data; chunk sizes, paths and machines do not enter."""
        from .text import spec_hash

        return spec_hash(self)

    def replace(self, **changes: Any) -> "Sweep":
        """The same sweep with some settings changed; a new `weight_file` brings its own size, draws and law."""
        settings = {name: getattr(self, name) for name in self.model_fields_set}
        if "weight_file" in changes:
            settings = {key: settings[key] for key in settings if key not in ("neurons", "weight_law", "draws")}
        return Sweep(**settings | changes)

    def plan(self, **options: Any) -> "Plan":
        """What running would do: combinations, chunks, memory, disk, time; options as in `run`."""
        from .plan import make_plan

        return make_plan(self, **options)

    def run(self, path: str | Path | None = None, **options: Any) -> "xarray.Dataset":
        """Run, or continue, into the Zarr store `path` (None: in memory); see `jo.sweeps.run` for the options."""
        from .runner import run

        return run(self, path, **options)


def _with_file_facts(settings: dict[str, Any]) -> dict[str, Any]:
    """With a weight file: its absolute path, its n, and one draw unless M is random."""
    if settings.get("weight_file") is None:
        return settings
    path = Path(settings["weight_file"]).expanduser().resolve()
    facts: dict[str, Any] = {"neurons": (len(read_matrix(path)[0]),)}
    if settings.get("asymmetry") is None:
        facts["draws"] = 1
    return facts | settings | {"weight_file": str(path)}


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic as one sentence of ours."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        known = list(Starts.model_fields if first["loc"][0] == "ic" else model.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
        return f"Got the unknown setting {where!r}, expected one of the sweep's: {hint}"
    return f"Got {where} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}; correct {where}."
