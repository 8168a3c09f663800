"""What measures cost that look on while a run goes: energy drift, largest norm, period.

    python -m benchmarks.measures [--quick] [--out DIR]

The same steps by `jo.simulate` under `jo.configure_cpu()`, with no measure, with each alone and with all: crossings and
norms at every step, the energy at every tenth. Asked for: all of them cost at most 35 % at n = 8. Beside the time
stands whether the states are the same to the bit, and how far the largest norm is from that of the states themselves,
saved at every step.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cyclopts
import jax.numpy as jnp
import numpy as np

import jaxosc as jo

from . import harness
from .harness import Job, Rules, Timing, print_table, say
from .problems import own_problem_of, problem_of

OUT = Path("build/benchmarks")

DT = 2.0**-5

MOST = 1.35
"""Time with all measures over that of the steps alone."""

ASKED = 8
"""The n for which that is asked."""

SOLVERS = {
    "Euler": jo.ForwardEuler(),
    "splitting, order 1": jo.solvers.PoissonSplitting(1),
    "splitting, order 2": jo.solvers.PoissonSplitting(2),
}

BARE, ALL = "bare", "all"
MEASURES: dict[str, tuple[Any, ...]] = {
    BARE: (),
    "energy": (jo.EnergyDrift(),),
    "norm": (jo.Norms(),),
    "period": (jo.Crossings(),),
    ALL: (jo.EnergyDrift(), jo.Norms(), jo.Crossings()),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """`members` of each size, and neuron-steps in a run of them."""

    members: int
    sizes: tuple[int, ...]
    work: int
    rules: Rules


FULL = Study(4096, (2, 8, 32), 400_000_000, Rules(rounds=7, sample=0.1, long=30.0))
QUICK = Study(64, (8,), 1_000_000, Rules(rounds=1, sample=0.01, long=1.0))


@dataclasses.dataclass(frozen=True)
class Row:
    """One solver and size: timings by measures, whether these change no bit, and the error of the largest norm."""

    solver: str
    n: int
    own: bool
    timings: dict[str, Timing]
    same_states: bool
    norm_error: float

    def ratio(self, name: str) -> float:
        """Time over that of the steps alone."""
        return self.timings[name].seconds / self.timings[BARE].seconds


def measured(solver: str, n: int, own: bool, study: Study) -> Row:
    """All sets of measures in turn."""
    problem = (own_problem_of if own else problem_of)(n, study.members).cast("float32")
    field, starts = problem.field, jnp.asarray(problem.starts)
    steps = max(20, study.work // (study.members * n))
    run = functools.partial(jo.simulate, field, starts, t1=steps * DT, dt=DT, solver=SOLVERS[solver])
    jobs = {name: Job(functools.partial(run, reducers=reducers)) for name, reducers in MEASURES.items()}
    found = harness.measure(jobs, study.rules)
    solutions = {name: solution for name, (_, solution) in found.items()}
    bare = solutions[BARE].ys
    same = all(bool(jnp.array_equal(bare, solution.ys, equal_nan=True)) for solution in solutions.values())
    return Row(solver, n, own, {name: timing for name, (timing, _) in found.items()}, same, _norm_error(run, steps))


def _norm_error(run: Any, steps: int) -> float:
    """Relative, against the norms of the states of the first steps, all of them saved."""
    t1 = min(steps, 100) * DT
    wanted = np.linalg.norm(np.asarray(run(t1=t1, save_every=1).ys, np.float64), axis=-1).max(axis=1)
    found = np.asarray(run(t1=t1, reducers=(jo.Norms(),)).reduced["max_norm"])
    return float(np.max(np.abs(found - wanted) / wanted))


def main(*, quick: bool = False, out: Path = OUT) -> None:
    """Measure, print, and write OUT/measures.json.

    Parameters
    ----------
    quick
        Small sizes: a check that everything runs, no measurement.
    """
    study = QUICK if quick else FULL
    record: dict[str, Any] = {"machine": harness.machine(), "study": study}
    rows = [measured(solver, n, own, study) for own in (False, True) for n in study.sizes for solver in SOLVERS]
    lines = [
        [
            f"{row.solver}, {'own' if row.own else 'shared'} W, n = {row.n}",
            *(f"{row.ratio(name):.2f}" for name in MEASURES),
            f"{100 * max(timing.spread for timing in row.timings.values()):.0f} %",
            "yes" if row.same_states else "NO",
            f"{row.norm_error:.0e}",
        ]
        for row in rows
    ]
    columns = ["", *MEASURES, "spread", "same bits", "norm error"]
    print_table(f"{study.members:,} members, float32: time over that of the steps alone", columns, lines)
    asked = [row for row in rows if row.n == ASKED]
    reached = sum(row.ratio(ALL) <= MOST for row in asked)
    say(f"At n = {ASKED} all measures cost at most {100 * (MOST - 1):.0f} % in {reached} of {len(asked)} cases.")
    harness.write_json(out / "measures.json", record | {"rows": rows, "reached": reached})


if __name__ == "__main__":
    harness.restart_on_one_core(for_speed=True)
    cyclopts.run(main)
