"""Chosen members of a sweep, run again with their states kept: what portraits and energy curves are drawn from.

One place on all axes but activation and solver is chosen by a rule (below), so that every panel shows the
same network and the same start. The runs go through `jaxosc.simulate` with the member's own network, start,
solver and step size.

- neurons: the smallest, where the theory knows most; gain: the one nearest to 1; other axes: their first
  value.
- dt: the middle one of those at which, for most activations, some solver keeps the median energy within a
  tenth and another one does not; without such, the middle one of all.
- draw and ic: the pair whose energy drifts, over all activations and solvers, are nearest to their medians, among those
  that turn around at least five times in the run (where periods were measured and such members exist).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxosc._results import Result
from jaxosc.activations import Identity, Tanh
from jaxosc.fields import AbstractField, CurrentRNN
from jaxosc.oracles import euler_linear_growth, euler_tanh_energy_averaged
from jaxosc.plotting import drift_summary
from jaxosc.plotting.summaries import drift_variable, is_number_axis, value_text
from jaxosc.simulate import simulate
from jaxosc.solvers import ForwardEuler
from jaxosc.sweeps import member, spec_of

if TYPE_CHECKING:
    import xarray

MOST_PANELS, MOST_SOLVERS = 18, 6
_KEPT = 0.1
_FEWEST_TURNS = 5
_DENSE_STEPS = 2000
_SPARSE_TIMES = 1000
_MOST_WORK = 2e9  # steps times n^2: some seconds per member


@dataclass(frozen=True)
class Trajectory:
    """One member run again.

    **Attributes:** `activation`, `solver`: names; `field`, `start` (n,), `dt`; `ts` (times,), the first
    `dense` of which are every step; `ys` (times, n) and `energies` (times,), NaN after an escape; `result`;
    `law`: the theory's energy (times,) and its name, for forward Euler where it is known.
    """

    activation: str
    solver: str
    field: AbstractField
    start: np.ndarray
    dt: float
    ts: Float[np.ndarray, " times"]
    dense: int
    ys: Float[np.ndarray, "times n"]
    energies: Float[np.ndarray, " times"]
    result: Result
    law: tuple[str, Float[np.ndarray, " times"]] | None


def precision(dataset: "xarray.Dataset") -> AbstractContextManager[Any]:
    """JAX in the width of the dataset's floats, whatever the session's setting; for fields built from it."""
    return jax.enable_x64(str(dataset.attrs.get("dtype", "float32")) == "float64")


def chosen_place(dataset: "xarray.Dataset") -> dict[str, int]:
    """The index on every axis but activation and solver, by the rule at the top of the file.

    **Raises:** `JaxoscError` when there is no energy drift to choose by.
    """
    place = dict.fromkeys((str(d) for d in dataset.sizes if d not in ("activation", "solver")), 0)
    place["neurons"] = int(np.argmin(dataset["neurons"].values))
    if is_number_axis(dataset, "gain"):
        gain = np.abs(dataset["gain"].values.astype(float))
        place["gain"] = int(np.argmin(np.abs(np.log(np.maximum(gain, np.finfo(float).tiny)))))
    fixed = {d: [k] for d, k in place.items() if d not in ("dt", "draw", "ic")}
    place["dt"] = telling_dt(dataset.isel(fixed))
    place["draw"], place["ic"] = _middle_member(dataset.isel(fixed | {"dt": [place["dt"]]}))
    return place


def telling_dt(dataset: "xarray.Dataset") -> int:
    """Index of the step size at which solvers differ most visibly: kept within a tenth by one, not by another."""
    median = drift_summary(dataset, ("activation", "solver", "dt"), losses="worst").median
    with_all = np.where(np.isfinite(median), median, np.inf)
    telling = np.sum((with_all.min(axis=1) <= _KEPT) & (with_all.max(axis=1) > _KEPT), axis=0)
    best = np.flatnonzero(telling == telling.max())
    return int(best[(best.size - 1) // 2])


def place_words(dataset: "xarray.Dataset", place: Mapping[str, int]) -> str:
    """The place in words: neurons = 2, gain = 1, dt = 0.1, draw = 3, ic = 0."""
    return ", ".join(f"{dim} = {value_text(dataset[dim].values[index])}" for dim, index in place.items())


def trajectories(dataset: "xarray.Dataset", place: Mapping[str, int]) -> list[list[Trajectory]]:
    """One trajectory per activation (outer list) and solver (inner), at most 18, those named first in the dataset.

    **Raises:** `JaxoscError` when the dataset does not say how to build its members again.
    """
    solvers = min(dataset.sizes["solver"], MOST_SOLVERS)
    activations = min(dataset.sizes["activation"], MOST_PANELS // solvers)
    return [
        [_run_again(dataset, {"activation": i, "solver": j, **place}) for j in range(solvers)]
        for i in range(activations)
    ]


def _middle_member(dataset: "xarray.Dataset") -> tuple[int, int]:
    """The (draw, ic) whose log-drifts deviate least from the medians of their activation and solver."""
    dims = ("activation", "solver", "draw", "ic")
    others = {d: 0 for d in dataset.sizes if d not in dims}
    drift = np.abs(dataset[drift_variable(dataset)].isel(others).transpose(*dims).values)
    codes = dataset["result"].isel(others).transpose(*dims).values
    level = np.log(np.maximum(np.where(codes == int(Result.successful), drift, np.nan), 1e-17))
    finite = np.ma.masked_invalid(level)
    off = np.abs(finite - np.ma.median(finite, axis=(2, 3), keepdims=True)).mean(axis=(0, 1))
    # Members that are not computed yet come last, then those that few combinations bring to the end, then slow ones.
    penalty = 1e6 * np.sum(codes < 0, axis=(0, 1)) + np.ma.filled(off, 1e4)
    if "period" in dataset and "duration" in dataset.attrs:
        turns = float(dataset.attrs["duration"]) * np.nan_to_num(
            1 / dataset["period"].isel(others).transpose(*dims).values
        )
        penalty += 1e2 * (np.max(turns, axis=(0, 1)) < _FEWEST_TURNS)
    draw, ic = np.unravel_index(int(np.argmin(penalty)), penalty.shape)
    return int(draw), int(ic)


def _run_again(dataset: "xarray.Dataset", place: Mapping[str, int]) -> Trajectory:
    """Simulate one member, every step kept at first and fewer later on."""
    labels = {dim: dataset[dim].values[index] for dim, index in place.items()}
    one = member(dataset, **labels)
    with precision(dataset):
        ts, dense = _times(one.dt, one.num_steps, one.field.size)
        solution = simulate(
            one.field,
            one.y0,
            t1=float(ts[-1]),
            dt=one.dt,
            ts=ts,
            solver=one.solver,
            escape_norm=spec_of(dataset).escape_norm,
            throw=False,
        )
        states = np.asarray(solution.ys, dtype=float)
        result = Result(int(solution.result))
        energies = np.asarray(one.field.energy(solution.ys), dtype=float)
        law = euler_law(one.field, np.asarray(one.y0), one.dt, ts) if isinstance(one.solver, ForwardEuler) else None
    taken = int(np.asarray(solution.stats["num_steps"]))
    # `taken` counts good steps only; the states kept after them repeat the last good one
    gone = (ts > one.dt * (taken + 0.5)) & (result != Result.successful)
    return Trajectory(
        activation=value_text(labels["activation"]),
        solver=value_text(labels["solver"]),
        field=one.field,
        start=np.asarray(one.y0),
        dt=one.dt,
        ts=ts,
        dense=dense,
        ys=np.where(gone[:, None], np.nan, states),
        energies=np.where(gone, np.nan, energies),
        result=result,
        law=None if law is None else (law[0], np.where(gone, np.nan, law[1])),
    )


def _times(dt: float, num_steps: int, neurons: int) -> tuple[Float[np.ndarray, " times"], int]:
    """Times to keep states at, all on steps; the first `dense` are every step. Long runs of large networks are cut."""
    steps = min(num_steps, max(int(_MOST_WORK / neurons**2), 100))
    dense = np.arange(min(steps, _DENSE_STEPS) + 1)
    later = np.unique(np.linspace(dense[-1], steps, _SPARSE_TIMES + 1).astype(int))[1:]
    return np.concatenate([dense, later]) * dt, dense.size


def euler_law(
    field: AbstractField, start: np.ndarray, dt: float, ts: Float[np.ndarray, " times"]
) -> tuple[str, Float[np.ndarray, " times"]] | None:
    """Energy under forward Euler by theory and the law's name; None where no closed form is known.

    Linear networks with skew W: each plane of frequency omega grows by `euler_linear_growth` a step, exactly.
    The tanh pair: `euler_tanh_energy_averaged`, which turns into the square-root law at large energies.
    """
    if not isinstance(field, CurrentRNN) or field.bias is not None or float(np.max(np.abs(field.leak))) > 0:
        return None
    matrix = np.asarray(field.weight.matrix(), dtype=float)
    if np.max(np.abs(matrix + matrix.T)) > 1e-6 * max(float(np.max(np.abs(matrix))), 1e-300):
        return None
    if isinstance(field.activation, Identity):
        omega, planes = np.linalg.eigh(1j * matrix)
        part = np.abs(planes.conj().T @ start.astype(float)) ** 2 / 2
        rate = np.log(np.asarray(euler_linear_growth(omega, dt), dtype=float)) / dt
        # the exponent is cut where float64 ends: a member that far out has escaped long before
        return "Euler on a linear network, exact", np.exp(np.minimum(np.outer(ts, rate), 700.0)) @ part
    if isinstance(field.activation, Tanh) and field.size == 2:
        energy0 = jnp.asarray(field.energy(jnp.asarray(start)))
        law: Any = euler_tanh_energy_averaged(jnp.asarray(ts), energy0, matrix[0, 1], dt)
        return "Euler on the tanh pair, averaged over a period", np.asarray(law, dtype=float)
    return None
