"""Random sets of frequencies for `jo.tuning.design`: how many it reaches, and whether still longer runs agree.

    python -m benchmarks.design [--quick] [--out DIR]

**The sets.** m frequencies are uniform in [0.25, 1], divided by the largest, and drawn again while they are resonant:
while |k.f| < 0.02 for a whole-number k with |k_1| + ... + |k_m| <= 4, or < 0.005 for one with up to 6. The column
"linear" says how far the frequencies of the orbit are from those of the linear network: what a guess would miss by.

**The judge** knows nothing but the network and its start: it takes the planes from the eigenvectors of W, runs
twice as long as the verification within `design`, by `PoissonSplitting(8)` at another step, and looks for the strongest
line in each plane. A set that was reached is right if all of its lines are within the tolerance there.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import cyclopts
import jax
import numpy as np

import jaxosc as jo
from jaxosc.tuning.resonances import relations

from . import harness
from .harness import print_table, say

OUT = Path("build/benchmarks")

TOLERANCE = 1e-5
WANTED = 0.95
"""Of the sets of the main row."""

CLEARANCE = {4: 0.02, 6: 0.005}
"""Orders and how far from relations of up to them sets are."""

TURNS = 6_400


@dataclasses.dataclass(frozen=True)
class Case:
    """So many sets of m frequencies in n neurons at one energy; the main one is what is asked for."""

    m: int
    n: int
    energy: float
    sets: int
    main: bool = False

    def __str__(self) -> str:
        return f"m = {self.m}, n = {self.n}, H = {self.energy:g}"


CASES = (
    Case(4, 8, 0.28, 100, main=True),
    Case(4, 8, 0.2, 100),
    Case(2, 4, 0.5, 100),
    Case(2, 4, 2.0, 100),
    Case(3, 6, 0.3, 40),
    Case(4, 12, 0.4, 40),
)

QUICK = (Case(2, 4, 0.3, 4, main=True),)


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of a case.

    `right`: of those reached, by the judge; `linear`: the largest relative distance of linear frequencies from wanted
    ones, median over the sets reached, `least_linear` the smallest; `error` and `judged`: the largest of those reached.
    """

    case: Case
    reached: int
    right: int
    linear: float
    least_linear: float
    error: float
    judged: float
    frames: float
    seconds: float
    targets: Any
    errors: Any
    reasons: list[str]


def random_sets(generator: np.random.Generator, count: int, m: int) -> np.ndarray:
    """(count, m) by the law above, the fastest 1."""
    ks = relations(m, max(CLEARANCE))
    least = np.where(np.abs(ks).sum(axis=1) <= 4, CLEARANCE[4], CLEARANCE[6])
    sets: list[np.ndarray] = []
    while len(sets) < count:
        drawn = generator.uniform(0.25, 1, m)
        drawn = drawn / drawn.max()
        if (np.abs(ks @ drawn) >= least).all():
            sets.append(drawn)
    return np.array(sets)


def lines_in_planes(field: Any, y0: np.ndarray, m: int, turns: int, steps: int, every: int, order: int) -> np.ndarray:
    """The strongest line (sets, m) in each plane of W, ordered by linear frequency; one set at a time, for memory."""
    found = []
    for k in range(len(y0)):
        one = jax.tree.map(lambda leaf, k=k: leaf[k] if leaf.ndim > 1 else leaf, field)
        run = jo.simulate(
            one,
            y0[k],
            t1=float(turns),
            dt=1 / steps,
            save_every=every,
            solver=jo.solvers.PoissonSplitting(order),
        )
        _, vectors = np.linalg.eigh(1j * np.asarray(one.weight.matrix()))
        along = np.asarray(run.ys) @ np.conj(vectors[:, -m:])
        planes = np.stack([along.real, along.imag], axis=-1).transpose(1, 0, 2)
        found.append(np.asarray(jo.orbits.frequency(run.ts, planes).frequency))
    return np.array(found)


def measure(case: Case, seed: int, turns: int = TURNS) -> Row:
    """Design and judge."""
    targets = random_sets(np.random.default_rng([seed, case.m]), case.sets, case.m)
    begin = time.perf_counter()
    result = jo.tuning.design(targets, case.n, energy=case.energy, tolerance=TOLERANCE, key=jax.random.key(seed))
    seconds = time.perf_counter() - begin
    reached = np.flatnonzero(np.asarray(result.reached))
    some = jax.tree.map(lambda leaf: leaf[reached] if leaf.ndim > 1 else leaf, result.field)
    lines = lines_in_planes(some, np.asarray(result.y0)[reached], case.m, turns, 29, 5, 8)
    off = np.abs(np.sort(lines, axis=1) / np.sort(targets[reached], axis=1) - 1).max(axis=1, initial=0)
    linear = np.abs(np.asarray(result.targets / result.linear_frequencies) - 1).max(axis=1)[reached]
    left = np.flatnonzero(~np.asarray(result.reached))
    return Row(
        case,
        len(reached),
        int((off <= TOLERANCE).sum()),
        float(np.median(linear)),
        float(linear.min(initial=np.inf)),
        float(np.asarray(result.error)[reached].max(initial=0)),
        float(off.max(initial=0)),
        float(np.mean(np.asarray(result.frames))),
        seconds,
        targets,
        np.asarray(result.error),
        [f"{k}: {result.reasons[k]}" for k in left],
    )


def print_rows(rows: list[Row]) -> None:
    """A line for each case."""
    lines = [
        [
            str(row.case),
            f"{row.reached} of {row.case.sets}",
            str(row.right),
            f"{100 * row.linear:.1f} % ({100 * row.least_linear:.1f} %)",
            f"{row.error:.1g}",
            f"{row.judged:.1g}",
            f"{row.frames:.0f}",
            f"{row.seconds:.0f} s",
        ]
        for row in rows
    ]
    columns = ["", "reached", "right", "linear (least)", "error", "judged", "frames per set", "wall time"]
    print_table(f"Sets of frequencies reached to {TOLERANCE:g}", columns, lines)


def main(*, quick: bool = False, out: Path = OUT, only: str = "") -> None:
    """Design, judge, print, and write OUT/design.json.

    Parameters
    ----------
    quick
        Four easy sets and shorter runs of the judge: a check that everything runs.
    only
        Cases whose name contains this.
    """
    rows = []
    for case in QUICK if quick else CASES:
        if only in str(case):
            rows.append(measure(case, seed=1, turns=1600 if quick else TURNS))
            say(f"{case}: {rows[-1].reached} of {case.sets} reached")
            for reason in rows[-1].reasons:
                say(f"  {reason}")
    print_rows(rows)
    for row in rows:
        if row.case.main:
            passed = row.right >= WANTED * row.case.sets
            say(f"{row.case}: wanted {WANTED:.0%} reached and right by the judge: {'reached' if passed else 'missed'}.")
    harness.write_json(out / "design.json", {"machine": harness.machine(), "rows": rows})


if __name__ == "__main__":
    harness.restart_on_one_core(for_speed=True)
    cyclopts.run(main)
