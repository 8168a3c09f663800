"""How often and how fast a frequency is tuned: ours beside matched trajectories, matched spectra and SciPy.

    python -m benchmarks.tuning [--quick] [--starts N] [--out DIR]

**n = 2.** Random pairs, targets 1/8 to 8 times their frequency; success is 1e-10 by the closed form. Values and
gradients of every measure are held against the closed form too.

**n = 8.** Dense random networks (gain 1, entries N(0, 1) of the start), the readout is neuron 0, targets are 1/8 to 8
times the frequency of the fastest linear mode. All methods get the same networks, starts and targets, peers the first
of them, as they are slower. Whoever tuned it, a network is judged alike: `jo.orbits.frequency` finds the dominant line
of neuron 0, the strongest where there are several or the run is chaotic, in a fresh run of 256 periods of the target by
`PoissonSplitting(6)`. Success is 1e-6, and 1e-3 beside it.

Learning rates are the best of three on a pilot of other networks, by the mean loss. Every method is timed once, as
ratios are large: peers without what they compile, ours at n = 8 with it. CPU time is what is compared. The full run
takes some ten minutes.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import jax
import jax.numpy as jnp
import numpy as np

import jaxosc as jo
from jaxosc.tuning import tune_frequency
from jaxosc.weights import DenseSkew

from . import harness
from .harness import print_table, say
from .tuning_pairs import PAIR_TOLERANCE, GradientRow, PairRow, once_warm, pairs, print_pairs, ratios
from .tuning_peers import Peer, by_scipy, log_spectrum, mismatch, trainer

OUT = Path("build/benchmarks")

NEURONS = 8
AGREEMENT = 1e-9
TIGHT, LOOSE = 1e-6, 1e-3
WANTED_SHARE, WANTED_OVER = 0.99, 10

JUDGED_PERIODS, JUDGED_SAMPLES, JUDGED_STEPS = 256, 16, 64
"""Of the run that judges: periods of the target; samples and steps per turn of the fastest linear mode."""

JUDGED_BLOCK = 2**21
"""Samples at once."""

RATES = (0.01, 0.03, 0.1)

TRAJECTORY = Peer("MSE, 3 periods, gain", mismatch, 3)
PEERS = (
    TRAJECTORY,
    Peer("MSE, 3 periods, all weights", mismatch, 3, "weights"),
    Peer("log spectrum, 4 periods, gain", log_spectrum, 4),
)
HORIZONS = (Peer("MSE, 1 period, gain", mismatch, 1), Peer("MSE, 8 periods, gain", mismatch, 8))


@dataclasses.dataclass(frozen=True)
class Study:
    """How many: pairs and those whose gradients are compared; starts, and starts of the methods that take longer."""

    pairs: int
    gradients: int
    starts: int
    kept: int
    peers: int
    horizons: int
    scipy: int
    pilot: int
    iterations: int
    event_rtols: tuple[float, ...]


FULL = Study(
    pairs=1000,
    gradients=128,
    starts=1000,
    kept=32,
    peers=100,
    horizons=32,
    scipy=32,
    pilot=50,
    iterations=300,
    event_rtols=(1e-10, 1e-12),
)
QUICK = Study(
    pairs=16,
    gradients=4,
    starts=4,
    kept=0,
    peers=2,
    horizons=0,
    scipy=1,
    pilot=2,
    iterations=4,
    event_rtols=(1e-10,),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One method at n = 8: `off`, how far each is off its target as judged; `first`, wall seconds of compiling, where
    that is not in the others.
    """

    name: str
    off: list[float]
    cpu: float
    wall: float
    first: float = float("nan")
    note: str = ""

    def share(self, tolerance: float) -> float:
        """Of the starts that came as near as that."""
        return float(np.mean(np.asarray(self.off) <= tolerance))

    def per_success(self, tolerance: float) -> float:
        """CPU seconds, infinite where nothing succeeded."""
        successes = self.share(tolerance) * len(self.off)
        return self.cpu / successes if successes else float("inf")


@dataclasses.dataclass(frozen=True)
class Problem:
    """Dense networks (members, n, n), starts (members, n) and targets (members,)."""

    matrices: np.ndarray
    starts: np.ndarray
    targets: np.ndarray

    def first(self, count: int) -> "Problem":
        """The first members."""
        return Problem(self.matrices[:count], self.starts[:count], self.targets[:count])

    @property
    def field(self) -> jo.CurrentRNN:
        """The networks."""
        return network(self.matrices)


def network(matrices: np.ndarray) -> jo.CurrentRNN:
    """Of skew matrices (members, n, n)."""
    return jo.CurrentRNN(DenseSkew(jnp.asarray(matrices[..., *np.triu_indices(matrices.shape[-1], 1)])))


def problem_of(count: int, seed: int) -> Problem:
    """Networks of gain 1, the entries of their starts N(0, 1)."""
    generator = np.random.default_rng([seed, NEURONS])
    entries = np.triu(generator.standard_normal((count, NEURONS, NEURONS)), 1) / np.sqrt(NEURONS)
    matrices = entries - np.swapaxes(entries, 1, 2)
    fastest = np.linalg.norm(matrices, 2, axis=(1, 2)) / (2 * np.pi)
    starts = generator.standard_normal((count, NEURONS))
    return Problem(matrices, starts, fastest * ratios(generator, count))


def judged(problem: Problem, matrices: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How far the dominant line of neuron 0 of each tuned network is off the target, relative; infinite if none."""
    # In time measured in periods of the target: it is exactly the same orbit.
    scaled = matrices / problem.targets[:, None, None]
    turns = np.linalg.norm(scaled, 2, axis=(1, 2)) / (2 * np.pi)
    bounds = 2 ** np.ceil(np.log2(np.clip(turns, 1, 128))).astype(int)
    off = np.full(len(turns), np.inf)
    for bound in np.unique(bounds):
        members = np.flatnonzero(bounds == bound)
        size = min(len(members), max(1, JUDGED_BLOCK // (JUDGED_PERIODS * JUDGED_SAMPLES * int(bound))))
        for begin in range(0, len(members), size):
            mine = members[begin : begin + size]
            # The last block is filled up, so that one program is compiled for each bound.
            padded = np.concatenate([mine, np.full(size - len(mine), mine[-1])])
            run = jo.simulate(
                network(scaled[padded]),
                starts[padded],
                t1=float(JUDGED_PERIODS),
                dt=1 / (JUDGED_STEPS * int(bound)),
                solver=jo.solvers.PoissonSplitting(6),
                save_every=JUDGED_STEPS // JUDGED_SAMPLES,
                throw=False,
            )
            found = np.asarray(jo.orbits.frequency(run.ts, run.ys[..., :1]).frequency)[: len(mine)]
            off[mine] = np.where(np.isfinite(found), np.abs(found - 1), np.inf)
    return off


def ours(problem: Problem, closed: bool) -> Row:
    """`tune_frequency`, with the start moved onto a closed orbit or kept."""
    options: Any = dict(closed=closed, measure=LINE, progress=False)
    found, cpu, wall = harness.timed(
        lambda: tune_frequency(problem.field, problem.starts, problem.targets, **options), 1
    )
    off = judged(problem, np.asarray(found.field.weight.matrix()), np.asarray(found.y0))
    failed = np.flatnonzero(off > TIGHT)
    told = found.reasons()
    for k in failed[:MOST_TOLD] if closed else []:
        say(f"ours, closed, start {k}: judged {off[k]:.1e} off; {told[k]}")
    counted: dict[str, int] = {}
    for code in np.asarray(found.result)[failed]:
        name = jo.tuning.Outcome(int(code)).name
        counted[name] = counted.get(name, 0) + 1
    note = ", ".join(f"{many} {name}" for name, many in counted.items())
    name = "ours, closed=True" if closed else "ours, start kept"
    return Row(name, off.tolist(), cpu, wall, note=note and f"not within {TIGHT:g}, by what it said: {note}")


LINE = jo.tuning.Line(readout=0)
MOST_TOLD = 12


def peer_row(peer: Peer, problem: Problem, pilot: Problem, iterations: int) -> Row:
    """The peer at the learning rate whose mean loss was least in the pilot."""
    train = trainer(peer, iterations)

    def given(of: Problem, rate: float) -> tuple[jax.Array, jax.Array, jax.Array]:
        return jnp.asarray(of.matrices / of.targets[:, None, None]), jnp.asarray(of.starts), jnp.asarray(rate)

    losses = {rate: float(np.mean(np.nan_to_num(train(*given(pilot, rate))[1], posinf=1e3))) for rate in RATES}
    best = min(losses, key=lambda rate: losses[rate])
    arguments = given(problem, best)
    begin = time.perf_counter()
    compiled = train.lower(*arguments).compile()
    first = time.perf_counter() - begin
    (scaled, _), cpu, wall = harness.timed(lambda: compiled(*arguments), 1)
    off = judged(problem, np.asarray(scaled) * problem.targets[:, None, None], problem.starts)
    return Row(peer.name, off.tolist(), cpu, wall, first, f"{iterations} iterations of Adam({best:g})")


def scipy_row(problem: Problem) -> Row:
    """One start after the other."""
    scaled = problem.matrices / problem.targets[:, None, None]

    def run() -> np.ndarray:
        return np.stack([by_scipy(matrix, y0) for matrix, y0 in zip(scaled, problem.starts, strict=True)])

    matrices, cpu, wall, first = once_warm(run, lambda: by_scipy(scaled[0], problem.starts[0]))
    off = judged(problem, matrices * problem.targets[:, None, None], problem.starts)
    return Row("scipy brentq on the peak", off.tolist(), cpu, wall, first, "32 periods")


def rows_of(study: Study) -> list[Row]:
    """n = 8, all methods."""
    problem, pilot = problem_of(study.starts, 1), problem_of(study.pilot, 2)
    jobs: list[Callable[[], Row]] = [lambda: ours(problem, closed=True)]
    for peer in PEERS:
        jobs.append(partial(peer_row, peer, problem.first(study.peers), pilot, study.iterations))
    for peer in HORIZONS if study.horizons else ():
        few, fewer = problem.first(study.horizons), pilot.first(study.horizons // 2)
        jobs.append(partial(peer_row, peer, few, fewer, study.iterations))
    jobs.append(lambda: scipy_row(problem.first(study.scipy)))
    if study.kept:
        jobs.append(lambda: ours(problem.first(study.kept), closed=False))
    rows = []
    for job in jobs:
        rows.append(job())
        say(f"{rows[-1].name}: {100 * rows[-1].share(TIGHT):.1f} % within {TIGHT:g}, {rows[-1].cpu:.3g} s.")
    return rows


def print_rows(rows: list[Row]) -> None:
    """A line for each method."""
    base = rows[0].per_success(TIGHT)
    lines = [
        [
            row.name,
            f"{len(row.off):,}",
            f"{100 * row.share(TIGHT):.1f}",
            f"{100 * row.share(LOOSE):.1f}",
            f"{np.median(row.off):.1e}",
            f"{row.first:.2g}" if np.isfinite(row.first) else "in CPU",
            f"{row.wall:.3g}",
            f"{row.cpu:.3g}",
            f"{row.per_success(TIGHT):.3g}",
            f"{row.per_success(LOOSE):.3g}",
            f"{row.per_success(TIGHT) / base:.3g}",
            f"{row.per_success(LOOSE) / base:.3g}",
        ]
        for row in rows
    ]
    columns = ["n = 8", "starts", "% 1e-6", "% 1e-3", "median", "compile", "wall", "CPU", "/1e-6", "/1e-3", "x", "x"]
    title = "One frequency; seconds; /1e-6: CPU per success at that; x: either over ours at 1e-6"
    print_table(title, columns, lines)
    for row in rows:
        if row.note:
            say(f"{row.name}: {row.note}.")


def answers(pair_rows: list[PairRow], agreement: list[GradientRow], rows: list[Row]) -> dict[str, bool]:
    """What is wanted, and whether it is so; peers get the benefit of the loose tolerance."""
    mine = rows[0]
    peer = next(row for row in rows if row.name == TRAJECTORY.name)
    worst = {row.name: max(row.value, row.omega, row.start) for row in agreement}
    return {
        f"n = 2: all within {PAIR_TOLERANCE:g}": pair_rows[0].reached == 1,
        **{f"n = 2: {name} within {AGREEMENT:g} of the closed form": off <= AGREEMENT for name, off in worst.items()},
        f"n = 8: at least 99 % within {TIGHT:g}": mine.share(TIGHT) >= WANTED_SHARE,
        "n = 8: 10 times the success of trajectories, both at 1e-6": mine.share(TIGHT)
        >= WANTED_OVER * peer.share(TIGHT),
        "n = 8: 10 times the success of trajectories at 1e-3": mine.share(TIGHT) >= WANTED_OVER * peer.share(LOOSE),
        "n = 8: no slower per success than trajectories at 1e-3": mine.per_success(TIGHT) <= peer.per_success(LOOSE),
    }


def main(*, quick: bool = False, starts: int | None = None, out: Path = OUT) -> None:
    """Measure, print, and write OUT/tuning.json.

    Parameters
    ----------
    quick
        A few members: a check that everything runs, no measurement.
    starts
        Of ours, at n = 2 and 8; 1,000 by default.
    """
    study = QUICK if quick else FULL
    if starts is not None:
        study = dataclasses.replace(study, pairs=starts, starts=starts)
    record: dict[str, Any] = {"machine": harness.machine(), "study": study}
    pair_rows, agreement = pairs(study.pairs, study.gradients, study.event_rtols)
    print_pairs(pair_rows, agreement)
    rows = rows_of(study)
    print_rows(rows)
    found = answers(pair_rows, agreement, rows)
    for wanted, so in found.items():
        say(f"{wanted}: {'reached' if so else 'missed'}.")
    versions = record["machine"]["versions"]
    say(f"{record['machine']['processor']}; " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    shares = {row.name: {"1e-6": row.share(TIGHT), "1e-3": row.share(LOOSE)} for row in rows}
    record |= {"pairs": pair_rows, "agreement": agreement, "rows": rows, "shares": shares, "answers": found}
    harness.write_json(out / "tuning.json", record)


if __name__ == "__main__":
    harness.restart_on_one_core(for_speed=True)
    cyclopts.run(main)
