"""A dataset like a sweep's, made from formulas instead of simulations: for tests of what draws and reports it."""

import json

import numpy as np
import xarray

ORBITS = "fixed_point periodic quasi_periodic chaotic escaping collapsing undecided"
RESULTS = "successful escaped non_finite max_steps_reached solver_failed"
DURATION = 100.0


def synthetic_sweep(
    activations=("identity", "tanh", "rectified_tanh"),
    solvers=("euler", "poisson_splitting", "tsit5"),
    neurons=(2, 8),
    gain=(0.5, 1.0, 2.0),
    dt=tuple(10.0 ** np.linspace(-2, 0, 9)),
    draws=4,
    ics=4,
) -> xarray.Dataset:
    """The dims, variables and attributes of a sweep; drifts follow the laws of each solver, with a seeded scatter."""
    shape = len(activations), len(solvers), len(neurons), len(gain), len(dt), draws, ics
    rng = np.random.default_rng(7)
    scatter = np.exp(0.7 * rng.standard_normal(shape[2:]))
    drift = np.empty(shape)
    escaped = np.zeros(shape, dtype=bool)
    step = (np.asarray(gain)[:, None] * np.asarray(dt)[None, :])[None, :, :, None, None]  # dt times frequency
    for i, activation in enumerate(activations):
        for j, solver in enumerate(solvers):
            drift[i, j] = _drift(activation, solver, step, np.asarray(dt)[:, None, None]) * scatter
            if activation == "identity":
                escaped[i, j] = drift[i, j] > 1e12
            if activation == "rectified_tanh":
                escaped[i, j] = rng.random(shape[2:]) < 0.6
    result = np.where(escaped, 1, 0).astype(np.int8)
    orbit = np.where(escaped, 4, 1).astype(np.int8)
    nan = np.where(escaped, np.nan, 1.0)
    frequency = nan * np.broadcast_to(np.asarray(gain)[:, None, None, None] / (2 * np.pi), shape)
    dims = ("activation", "solver", "neurons", "gain", "dt", "draw", "ic")
    floats = {
        "energy_drift": drift * nan,
        "energy_drift_max": drift * nan,
        "max_norm": nan,
        "final_norm": nan,
        "period": 1 / frequency,
        "frequency": frequency,
        "period_spread": 0.01 * nan,
    }
    flags = {"orbit": (orbit, ORBITS), "result": (result, RESULTS)}
    return xarray.Dataset(
        {name: (dims, values) for name, values in floats.items()}
        | {
            name: (
                dims,
                codes,
                {"flag_values": np.arange(len(words.split()), dtype=np.int8), "flag_meanings": words},
            )
            for name, (codes, words) in flags.items()
        }
        | {
            "num_steps": (dims, np.broadcast_to(np.round(DURATION / np.asarray(dt))[:, None, None], shape).astype("i4"))
        },
        coords={
            "activation": list(activations),
            "solver": list(solvers),
            "neurons": ("neurons", np.asarray(neurons), {"units": "1", "long_name": "neurons n"}),
            "gain": ("gain", np.asarray(gain), {"units": "1", "long_name": "gain"}),
            "dt": ("dt", np.asarray(dt), {"units": "time unit", "long_name": "step size dt"}),
            "draw": np.arange(draws),
            "ic": np.arange(ics),
        },
        attrs={
            "spec": json.dumps({"activation": list(activations), "duration": DURATION, "seed": 0}),
            "spec_hash": "0" * 16,
            "jaxosc_version": "0.1.0",
            "versions": json.dumps({"jaxosc": "0.1.0", "jax": "0.10.2"}),
            "dtype": "float64",
            "matmul_precision": "highest",
            "device_kind": "cpu",
            "seed": 0,
            "duration": DURATION,
            "wall_time_s": 12.5,
            "created": "2026-01-02T03:04:05Z",
            "finished": "2026-01-02T03:04:18Z",
            "Conventions": "CF-1.8",
        },
    )


def _drift(activation: str, solver: str, step: np.ndarray, dt: np.ndarray) -> np.ndarray:
    """The size of the relative energy drift for one activation and solver; `step` is dt times frequency."""
    if solver == "euler" and activation == "identity":
        # the base is 1 + dt^2 w^2 a step; the exponent is cut where it would overflow
        return np.expm1(np.minimum(np.log1p(step**2) * DURATION / dt, 600.0))
    if solver == "euler":
        return np.sqrt((0.25 + np.log(4)) ** 2 + 2 * step**2 / dt * DURATION) / 0.25 - np.log(4) / 0.25 - 1
    if solver == "tsit5":
        return -1e-4 * step**5 * DURATION / dt * 10
    return 0.05 * step**2


def synthetic_atlas(
    activation=("tanh", "softsign"),
    weight_law=("dense_skew", "bipartite"),
    neurons=(2, 4, 8),
    energy=(0.1, 3.0),
    draws=16,
) -> xarray.Dataset:
    """The orbits of a chaos study: chaotic the more often the more neurons and energy, a few of them undecided."""
    dims = ("activation", "solver", "weight_law", "neurons", "gain", "dt", "energy", "draw", "ic")
    shape = len(activation), 1, len(weight_law), len(neurons), 1, 1, len(energy), draws, 1
    rng = np.random.default_rng(3)
    growth = (np.asarray(neurons)[:, None, None, None, None, None] - 3) * np.asarray(energy)[:, None, None] / 6
    words = ORBITS.split()
    orbit = np.where(rng.random(shape) < growth, words.index("chaotic"), words.index("quasi_periodic"))
    orbit = np.where(rng.random(shape) < 0.05, words.index("undecided"), orbit).astype(np.int8)
    flags = {"flag_values": np.arange(len(words), dtype=np.int8), "flag_meanings": ORBITS}
    return xarray.Dataset(
        {"orbit": (dims, orbit, flags), "result": (dims, np.zeros(shape, np.int8))},
        coords={
            "activation": list(activation),
            "solver": ["poisson_splitting_4"],
            "weight_law": list(weight_law),
            "neurons": ("neurons", np.asarray(neurons), {"units": "1", "long_name": "number of neurons"}),
            "gain": [1.0],
            "dt": ("dt", [0.2], {"units": "time unit", "long_name": "step size dt"}),
            "energy": ("energy", np.asarray(energy), {"units": "1", "long_name": "energy of the start per neuron"}),
            "draw": np.arange(draws),
            "ic": [0],
        },
    )
