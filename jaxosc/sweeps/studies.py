"""Studies by name, each a declared sweep that `jaxosc sweep NAME` runs: the default one, and the chaos atlas."""

from collections.abc import Callable
from typing import Any

from .spec import Sweep


def default_study(**changes: Any) -> Sweep:
    """The study that `jaxosc sweep` runs when nothing is declared; `changes` as in `Sweep.replace`.

    For which activation, solver, gain and step size does a network keep oscillating?
    """
    study = Sweep(
        activation=("identity", "tanh", "rectified_tanh"),
        solver=("euler", "poisson_splitting", "tsit5"),
        dt={"start": 0.01, "stop": 1.0, "num": 9, "scale": "log"},
        neurons=(2, 8),
        gain=(0.5, 1.0, 2.0),
        draws=32,
        ics=32,
        duration=100.0,
    )
    return study.replace(**changes) if changes else study


def chaos_study(**changes: Any) -> Sweep:
    """The chaos atlas: which share of orbits is chaotic, by size, energy, weight law and activation.

    One orbit of each network, so that members are independent and the share of a cell has a binomial interval
    (`jo.sweeps.chaotic_shares`, `jo.plotting.chaos_atlas`). Energies are per neuron: the same typical |y_i| at every
    size. Gain 1 makes the mean period about 2 pi; some networks are many times slower, hence the duration.
    """
    study = Sweep(
        activation=("tanh", "softsign", "hard_tanh"),
        weight_law=("dense_skew", "banded_skew", "bipartite"),
        neurons=(2, 3, 4, 5, 6, 8, 12, 16),
        ic={"law": "energy_per_neuron", "energy": (0.01, 0.1, 1.0, 3.0)},
        dt=0.1,
        draws=64,
        ics=1,
        duration=10_000.0,
        measures=("energy", "period", "chaos"),
        dtype="float64",
    )
    return study.replace(**changes) if changes else study


STUDIES: dict[str, Callable[..., Sweep]] = {"default": default_study, "chaos": chaos_study}
"""By the names of the command line."""
