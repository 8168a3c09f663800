"""The part of `benchmarks.tuning` on pairs: targets, values and gradients against the closed form."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxosc as jo
from jaxosc.tuning import EventReturns, PairFormula, Returns, orbit_frequency, tune_frequency
from jaxosc.weights import RotationBlocks

from . import harness
from .harness import print_table

RATIO = 8
PAIR_TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True)
class PairRow:
    """Tuned pairs: by how much 1 / pair_period is off its target."""

    name: str
    count: int
    reached: float
    worst: float
    cpu: float
    wall: float
    first: float


@dataclasses.dataclass(frozen=True)
class GradientRow:
    """Largest relative difference from the closed form."""

    name: str
    count: int
    value: float
    omega: float
    start: float


def ratios(generator: np.random.Generator, count: int) -> np.ndarray:
    """Even on a logarithmic scale."""
    return np.exp(generator.uniform(-np.log(RATIO), np.log(RATIO), count))


def once_warm(run: Callable[[], Any], warm: Callable[[], Any] | None = None) -> tuple[Any, float, float, float]:
    """The result of a second call, its CPU and wall seconds, and the wall seconds of the first, which compiles."""
    job = harness.Job(run, warm)
    first = job.first()
    result, cpu, wall = job.timed(1)
    return result, cpu, wall, first


def pairs(count: int, few: int, event_rtols: tuple[float, ...]) -> tuple[list[PairRow], list[GradientRow]]:
    """n = 2: success of `count` pairs, and agreement of the first `few` with the closed form."""
    generator = np.random.default_rng([1, 2])
    omega = np.exp(generator.uniform(np.log(0.1), np.log(10), count))
    starts = generator.standard_normal((count, 2))
    field = jo.CurrentRNN(RotationBlocks(jnp.asarray(omega[:, None])))
    energy = field.energy(jnp.asarray(starts))
    targets = ratios(generator, count) / np.asarray(jo.oracles.pair_period(energy, omega))
    rows = []
    for name, measure in (("closed form (default)", None), ("Returns()", Returns())):

        def run(measure: Any = measure) -> Any:
            return tune_frequency(field, starts, targets, measure=measure, progress=False)

        found, cpu, wall, first = once_warm(run)
        tuned = np.asarray(found.field.weight.angular_frequencies)[:, 0]
        again = np.asarray(jo.oracles.pair_period(found.field.energy(found.y0), tuned))
        off = np.abs(1 / (again * targets) - 1)
        rows.append(PairRow(name, count, float(np.mean(off <= PAIR_TOLERANCE)), off.max(), cpu, wall, first))
    return rows, gradients(omega[:few], starts[:few], event_rtols)


def gradients(omega: np.ndarray, starts: np.ndarray, event_rtols: tuple[float, ...]) -> list[GradientRow]:
    """Values and gradients of all measures; members do not meet, so that of a sum holds that of each."""
    near = 1 / jo.oracles.pair_period(jo.CurrentRNN(RotationBlocks(omega[:, None])).energy(jnp.asarray(starts)), omega)

    def total(omega: Any, starts: Any, measure: Any) -> Any:
        field = jo.CurrentRNN(RotationBlocks(omega[:, None]))
        if measure is None:
            energy = jnp.sum(jnp.log(jnp.cosh(starts)), axis=1)
            frequencies = 1 / jo.oracles.pair_period(energy, omega)
        else:
            frequencies = orbit_frequency(field, starts, measure=measure, near=near).frequency
        return jnp.sum(frequencies), frequencies

    def found(measure: Any) -> Any:
        by = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
        (_, value), (of_omega, of_start) = by(jnp.asarray(omega), jnp.asarray(starts), measure)
        return np.asarray(value), np.asarray(of_omega), np.asarray(of_start)

    exact, rows = found(None), []
    for measure in (PairFormula(), Returns(), *map(EventReturns, event_rtols)):
        mine = found(measure)
        # Relative to the length of a member's gradient: one of its entries may be next to zero.
        apart = [
            np.max(np.linalg.norm((a - b).reshape(len(a), -1), axis=1) / np.linalg.norm(b.reshape(len(b), -1), axis=1))
            for a, b in zip(mine, exact, strict=True)
        ]
        name = f"EventReturns({measure.rtol:g})" if isinstance(measure, EventReturns) else f"{type(measure).__name__}()"
        rows.append(GradientRow(name, len(omega), *map(float, apart)))
    return rows


def print_pairs(rows: list[PairRow], agreement: list[GradientRow]) -> None:
    """Two tables."""
    lines = [
        [
            row.name,
            f"{row.count:,}",
            f"{100 * row.reached:.1f} %",
            f"{row.worst:.1e}",
            f"{row.wall:.3g}",
            f"{row.cpu:.3g}",
            f"{1e3 * row.cpu / max(row.reached * row.count, 1):.3g}",
            f"{row.first:.3g}",
        ]
        for row in rows
    ]
    columns = ["n = 2", "pairs", "<= 1e-10", "worst", "wall s", "CPU s", "CPU ms per success", "first call, s"]
    print_table("Pairs tuned, judged by the closed form", columns, lines)
    columns = ["measure", "pairs", "value", "by omega", "by y0"]
    lines = [
        [row.name, str(row.count), f"{row.value:.1e}", f"{row.omega:.1e}", f"{row.start:.1e}"] for row in agreement
    ]
    print_table("Largest relative difference from the closed form of frequencies and gradients", columns, lines)
