"""One member of a sweep taken out again: its network, start and step, for a closer look with `jo.simulate`."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..fields import AbstractField
from ..solvers import lanes_of
from ..weights import DenseSkew
from .ensemble import Ensemble, precision, sized_starts
from .kernel import on_energy_level
from .networks import Place, build_network
from .schema import Dimension, dimensions
from .spec import Sweep
from .text import sweep_of_json


@dataclasses.dataclass(frozen=True)
class Member:
    """One member: `jo.simulate(m.field, m.y0, t1=m.num_steps * m.dt, dt=m.dt, solver=m.solver)` repeats its run.

    **Attributes:** `field`; `y0` (n,); `solver`; `dt`; `num_steps`; `place`, its coordinates by dimension.
    """

    field: AbstractField
    y0: Float[Array, " n"]
    solver: diffrax.AbstractSolver
    dt: float
    num_steps: int
    place: dict[str, Any]


def spec_of(data: xarray.Dataset) -> Sweep:
    """The sweep that a dataset came from, by its `spec` attribute.

    **Raises:** `JaxoscError` when it was made with Python objects that no reference names.
    """
    if "spec" not in data.attrs:
        raise JaxoscError("Got a dataset without the attribute 'spec', expected one that a sweep made: load its store.")
    return sweep_of_json(data.attrs["spec"])


def member(source: Sweep | xarray.Dataset, **place: Any) -> Member:
    """The member at `place`: a value (for floats, the nearest) for every dimension that is longer than one.

        m = jo.sweeps.member(data, activation="tanh", solver="euler", neurons=8, gain=1, dt=0.1, draw=3, ic=0)

    **Raises:** `JaxoscError` for a dimension that is unknown or missing, and for a value that is not on it.
    """
    sweep = source if isinstance(source, Sweep) else spec_of(source)
    dims = dimensions(sweep)
    unknown = sorted(set(place) - {dim.name for dim in dims})
    if unknown:
        raise JaxoscError(
            f"Got the dimension {unknown[0]!r}, expected some of {', '.join(dim.name for dim in dims)}: drop it."
        )
    index = {dim.name: _index(dim, place.get(dim.name)) for dim in dims}
    found = {dim.name: dim.values[index[dim.name]].item() for dim in dims}
    dt = sweep.dt[index["dt"]]
    with precision(sweep.dtype):
        field, y0 = _network_and_start(sweep, index)
    solver = sweep.solver[index["solver"]].value
    return Member(field, y0, solver, dt, max(round(sweep.duration / dt), 1), found)


def _network_and_start(sweep: Sweep, index: dict[str, int]) -> tuple[AbstractField, Array]:
    law = sweep.laws[index.get("weight_law", 0)].value
    activation = sweep.activation[index["activation"]].value
    ensemble = Ensemble(sweep, law, sweep.neurons[index["neurons"]])
    draw, ic = np.array([index["draw"]]), np.array([index["ic"]])

    def value(name: str, values: Any) -> Any:
        return None if values is None else jnp.asarray(values[index[name]], sweep.dtype)

    place = Place(
        value("gain", sweep.gain),
        value("leak", sweep.leak),
        value("asymmetry", sweep.asymmetry),
        tuple(value(axis.name, axis.values) for axis in sweep.axes),
    )
    if sweep.matrix is None:
        weight = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), ensemble.weights(draw))
    else:
        weight = DenseSkew.from_matrix(sweep.matrix.astype(sweep.dtype))
    symmetric = None if sweep.asymmetry is None else jnp.asarray(ensemble.symmetric_parts(draw)[0])
    field = build_network(weight, symmetric, activation, sweep.axes, place)
    start = sized_starts(sweep.ic.law, sweep.ic.radius, jnp.asarray(ensemble.starts(draw, ic)))
    if sweep.ic.energy is not None:
        level = sweep.ic.energy[index["energy"]] if isinstance(sweep.ic.energy, tuple) else None
        start = on_energy_level(lanes_of(field), start.T, sweep.ic.level(field.size, level)).T
    return field, start[0]


def _index(dim: Dimension, wanted: Any) -> int:
    """Where on the dimension the value is."""
    if wanted is None:
        if len(dim.values) == 1:
            return 0
        raise JaxoscError(
            f"Got no value for the dimension {dim.name!r}, which has {len(dim.values)}, expected one of them: give it."
        )
    if dim.values.dtype.kind == "f":
        return int(np.argmin(np.abs(dim.values - float(wanted))))
    found = np.flatnonzero(dim.values == wanted)
    if not found.size:
        raise JaxoscError(
            f"Got {dim.name} = {wanted!r}, expected one of {', '.join(map(str, dim.values[:8].tolist()))}"
            f"{', ...' if len(dim.values) > 8 else ''}: choose one of these."
        )
    return int(found[0])
