"""The dataset's shape: its dimensions, coordinates, variables and attributes, for disk and memory alike."""

import dataclasses
import datetime
import json
import platform
from importlib import metadata
from typing import Any

import jax
import numpy as np
import xarray

from .._cpu import loops_are_kernels
from .._results import ORBITS, Result
from ..native import loops_are_native
from .spec import Sweep
from .text import spec_hash, spec_json

NOT_COMPUTED = -1
"""What integer variables hold where the ledger has no chunk; never a value of a computed member."""


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One axis of the dataset; `static` axes need a program per value, the others do not."""

    name: str
    values: np.ndarray
    long_name: str
    units: str = "1"
    static: bool = False

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the coordinate; labels have no units."""
        units = {} if self.values.dtype.kind == "U" else {"units": self.units}
        return {"long_name": self.long_name, **units}


@dataclasses.dataclass(frozen=True)
class Variable:
    """One data variable; `kind` "float" is the run's dtype, else a NumPy dtype name."""

    name: str
    kind: str
    attrs: dict[str, Any]

    def dtype(self, sweep: Sweep) -> np.dtype:
        """Its dtype in the data of `sweep`."""
        return np.dtype(sweep.dtype if self.kind == "float" else self.kind)

    @property
    def fill_value(self) -> float | int:
        """What stands where nothing was computed."""
        return np.nan if self.kind == "float" else NOT_COMPUTED


def _flags(words: tuple[str, ...]) -> dict[str, Any]:
    return {"flag_values": list(range(len(words))), "flag_meanings": " ".join(words)}


def _measure(name: str, long_name: str, units: str = "1") -> Variable:
    return Variable(name, "float", {"long_name": long_name, "units": units})


_BY_MEASURE = {
    "energy": (
        _measure("energy_drift", "relative energy drift at the end, (H(t1) - H(0)) / max(|H(0)|, tiny)"),
        _measure("energy_drift_max", "relative energy drift, the largest in size among every tenth step"),
    ),
    "norms": (
        _measure("max_norm", "largest Euclidean norm of the state"),
        _measure("final_norm", "Euclidean norm of the last state"),
    ),
    "period": (
        _measure("period", "mean time between upward zero crossings of neuron 0", "time unit"),
        _measure("frequency", "cycles per unit time, 1/period", "1 / time unit"),
        _measure("period_spread", "standard deviation of the times between crossings over their mean"),
    ),
    "chaos": (
        _measure("lyapunov", "largest Lyapunov exponent, the mean over the run", "1 / time unit"),
        _measure("megno", "mean MEGNO at the end: 2 on tori, above 4 in chaos"),
    ),
}

_ALWAYS = (
    Variable("orbit", "int8", {"long_name": "orbit class as far as streamed measures tell", **_flags(ORBITS)}),
    Variable("result", "int8", {"long_name": "how the run ended", **_flags(tuple(code.name for code in Result))}),
    Variable("num_steps", "int32", {"long_name": "steps until the end or the escape", "units": "1"}),
)


def variables(sweep: Sweep) -> tuple[Variable, ...]:
    """The variables that the sweep's measures give, in the dataset's order."""
    return tuple(variable for measure in sweep.measures for variable in _BY_MEASURE[measure]) + _ALWAYS


def dimensions(sweep: Sweep) -> tuple[Dimension, ...]:
    """All dimensions in the dataset's order; undeclared leak, asymmetry and weight_law have none."""
    made = [
        Dimension("activation", _labels(sweep.activation), "activation", static=True),
        Dimension("solver", _labels(sweep.solver), "solver, fixed steps", static=True),
    ]
    if sweep.weight_law is not None:
        made.append(Dimension("weight_law", _labels(sweep.weight_law), "law of the random weight", static=True))
    made += [
        Dimension("neurons", np.array(sweep.neurons), "number of neurons", static=True),
        Dimension("gain", np.array(sweep.gain), "factor on W"),
        Dimension("dt", np.array(sweep.dt), "step size", "time unit"),
    ]
    if sweep.leak is not None:
        made.append(Dimension("leak", np.array(sweep.leak), "rate of -leak*y", "1 / time unit"))
    if sweep.asymmetry is not None:
        made.append(Dimension("asymmetry", np.array(sweep.asymmetry), "factor on the symmetric part of W"))
    if isinstance(sweep.ic.energy, tuple):
        per_neuron = " per neuron" if sweep.ic.law == "energy_per_neuron" else ""
        made.append(Dimension("energy", np.array(sweep.ic.energy), f"energy of the start{per_neuron}"))
    made += [
        Dimension(axis.name, np.array(axis.values), axis.long_name or axis.name, axis.units) for axis in sweep.axes
    ]
    return (
        *made,
        Dimension("draw", np.arange(sweep.draws), "random weight"),
        Dimension("ic", np.arange(sweep.ics), "random start of the draw"),
    )


def attributes(sweep: Sweep) -> dict[str, Any]:
    """The dataset's attributes at its creation; `finished` is empty and `wall_time_s` zero until it is done."""
    return {
        "Conventions": "CF-1.8",
        "title": "jaxosc sweep",
        "spec": spec_json(sweep),
        "spec_hash": spec_hash(sweep),
        "jaxosc_version": jaxosc_version(),
        "versions": json.dumps(versions()),
        "dtype": sweep.dtype,
        "matmul_precision": "highest",
        "device_kind": jax.devices()[0].device_kind,
        "seed": sweep.seed,
        "duration": sweep.duration,
        "wall_time_s": 0.0,
        "created": utc_now(),
        "finished": "",
    }


def dataset(sweep: Sweep, arrays: dict[str, np.ndarray], attrs: dict[str, Any]) -> xarray.Dataset:
    """The dataset of arrays held in memory, as `xarray.open_zarr` would give it from disk."""
    dims = dimensions(sweep)
    names = [dim.name for dim in dims]
    return xarray.Dataset(
        {variable.name: (names, arrays[variable.name], variable.attrs) for variable in variables(sweep)},
        {dim.name: (dim.name, dim.values, dim.attrs) for dim in dims},
        attrs,
    )


def versions() -> dict[str, str]:
    """Versions of what decides the bits: Python, the packages that compute and store, and how XLA compiles loops."""
    packages = ("jax", "jaxlib", "equinox", "diffrax", "numpy", "xarray", "zarr")
    compiled = "kernels (jo.configure_cpu)" if loops_are_kernels() else "calls (JAX's default)"
    loops = {"cpu_loops": f"{compiled}; C where it can be" if loops_are_native() else compiled}
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages} | loops


def jaxosc_version() -> str:
    """The package's own version."""
    from .. import __version__

    return __version__


def utc_now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _labels(chosen: Any) -> np.ndarray:
    return np.array([choice.label for choice in chosen])
