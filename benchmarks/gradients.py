"""Time and memory of gradients: running back, checkpoints, a stored tape, and Diffrax's adjoint of the same solver.

    python -m benchmarks.gradients [--quick] [--out DIR]

The gradient of a loss on the final state, with respect to the weight that all members share and to all starts, through
N steps of `PoissonSplitting(2)`. Asked for: a reversible gradient in less than half the time that Diffrax's recursive
checkpoints take for the same steps, and in at most 4.5 forward runs. Every gradient is compared with that of
`jo.Checkpointed()`.

The full run takes about five minutes of one core, most of them for Diffrax.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import jaxosc as jo

from . import harness
from .harness import Job, Rules, Timing, print_table, say

OUT = Path("build/benchmarks")

DT = 0.1

SOLVER = jo.solvers.PoissonSplitting(2)

WANTED_SHARE = 0.5
"""Most time of a reversible gradient over that of Diffrax's recursive checkpoints on the same steps."""

WANTED_RATIO = 4.5
"""Most time of a reversible gradient over that of a forward run."""

FORWARD, REVERSIBLE, CHECKPOINTED, STORED = "forward run", "jo.Reversible()", "jo.Checkpointed()", "stored tape"
DIFFRAX, DIFFRAX_EULER = "diffrax RecursiveCheckpointAdjoint", "the same, diffrax.Euler (half the work)"

Loss = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Study:
    """`members` of `neurons`; `steps` of the long comparison and of the one with a stored tape; `memory` at which N.

    `memory_of`: of which ways.
    """

    members: int
    neurons: int
    steps: int
    stored_steps: int
    memory: tuple[int, ...]
    memory_of: tuple[str, ...]
    rules: Rules


# 500 steps: the longest run whose tape `jo.simulate` stores (256 MB), for 1,000 members of eight neurons in float64.
FULL = Study(
    members=1000,
    neurons=8,
    steps=10_000,
    stored_steps=500,
    memory=(1_000, 10_000, 100_000, 1_000_000),
    memory_of=(REVERSIBLE, CHECKPOINTED, DIFFRAX, DIFFRAX_EULER),
    rules=Rules(rounds=3, sample=0.5, long=60.0),
)
QUICK = Study(
    members=64,
    neurons=2,
    steps=400,
    stored_steps=100,
    memory=(100, 400),
    memory_of=(REVERSIBLE, CHECKPOINTED),
    rules=Rules(rounds=1, sample=0.02, long=1.0),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to differentiate `steps` steps.

    **Attributes:** `ratio`: CPU time over that of the forward run of the same length; `difference`: of the gradients
    with respect to weight and starts from those of `jo.Checkpointed()`, largest entry over largest entry (NaN where the
    solver is another).
    """

    name: str
    steps: int
    timing: Timing
    ratio: float
    difference: float


def problem_of(study: Study) -> tuple[jo.weights.DenseSkew, Any, Any]:
    """A weight of gain 1/2, starts of size 0.3 (regular orbits, as running back asks for), and where they should go."""
    weight = jo.weights.DenseSkew.random(jax.random.key(0), study.neurons, gain=0.5, dtype=jnp.float64)
    starts, target = np.random.default_rng(0).standard_normal((2, study.members, study.neurons))
    return weight, jnp.asarray(0.3 * starts), jnp.asarray(0.3 * target)


def losses(target: Any, steps: int) -> dict[str, Loss]:
    """(weight, starts) to the mean squared distance of the final states from `target`, by each way to differentiate."""
    ours = {REVERSIBLE: jo.Reversible(), CHECKPOINTED: jo.Checkpointed(), STORED: None}
    found: dict[str, Loss] = {name: _simulated(adjoint, target, steps) for name, adjoint in ours.items()}
    for name, solver in ((DIFFRAX, SOLVER), (DIFFRAX_EULER, diffrax.Euler())):
        found[name] = _by_diffrax(solver, target, steps)
    return found


def _simulated(adjoint: Any, target: Any, steps: int) -> Loss:
    def loss(weight: Any, starts: Any) -> Any:
        options = dict(t1=steps * DT, dt=DT, solver=SOLVER, adjoint=adjoint)
        return jnp.mean((jo.simulate(jo.CurrentRNN(weight), starts, **options).ys[:, 0] - target) ** 2)

    return loss


def _by_diffrax(solver: Any, target: Any, steps: int) -> Loss:
    """`diffeqsolve` under `vmap`, at its best for a known number of steps: exact `max_steps`, failures as values."""

    def one(weight: Any, y0: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(jo.CurrentRNN(weight)),
            solver,
            0.0,
            steps * DT,
            DT,
            y0,
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.ConstantStepSize(),
            adjoint=diffrax.RecursiveCheckpointAdjoint(),
            max_steps=steps,
            throw=False,
        ).ys[-1]

    return lambda weight, starts: jnp.mean((jax.vmap(one, in_axes=(None, 0))(weight, starts) - target) ** 2)


@functools.cache
def compiled_gradient(study: Study, name: str, steps: int) -> Any:
    """The compiled program of (weight, starts) to loss and gradients, for its time and its memory."""
    weight, starts, target = problem_of(study)
    loss = losses(target, steps)[name]
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(weight, starts).compile()


def measure_times(study: Study, steps: int, names: Sequence[str]) -> list[Row]:
    """A row for the forward run and for each of `names`, among which is what gradients are compared with."""
    weight, starts, target = problem_of(study)
    forward = jax.jit(losses(target, steps)[REVERSIBLE])
    jobs = {FORWARD: Job(functools.partial(forward, weight, starts))}
    for name in names:
        jobs[name] = Job(functools.partial(compiled_gradient(study, name, steps), weight, starts))
    measured = harness.measure(jobs, study.rules)
    true = measured[CHECKPOINTED][1][1]
    rows = []
    for name, (timing, result) in measured.items():
        comparable = name not in (FORWARD, DIFFRAX_EULER)
        difference = _difference(result[1], true) if comparable else float("nan")
        rows.append(Row(name, steps, timing, timing.seconds / measured[FORWARD][0].seconds, difference))
    return rows


def _difference(found: Any, true: Any) -> float:
    """The larger one of weight's and starts' largest difference over the largest entry."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True)
    return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)


def measure_memory(study: Study) -> dict[str, dict[int, float]]:
    """Temporary memory of the compiled gradient in MB, by way and number of steps; nothing is run."""
    return {
        name: {
            steps: compiled_gradient(study, name, steps).memory_analysis().temp_size_in_bytes / 2**20
            for steps in study.memory
        }
        for name in study.memory_of
    }


def print_rows(study: Study, rows: Sequence[Row]) -> None:
    """Times beside the agreement of the gradients."""
    columns = ["gradient by", "CPU seconds", "spread", "over forward", "ns/neuron/step", "from Checkpointed"]
    lines = [
        [
            row.name,
            f"{row.timing.seconds:.3g}",
            f"{100 * row.timing.spread:.0f} %",
            f"{row.ratio:.2f}",
            f"{1e9 * row.timing.seconds / (study.members * study.neurons * row.steps):.3g}",
            "-" if np.isnan(row.difference) else f"{row.difference:.1e}",
        ]
        for row in rows
    ]
    print_table(f"{study.members} members, n = {study.neurons}, {rows[0].steps:,} steps of {SOLVER!r}", columns, lines)


def print_memory(memory: dict[str, dict[int, float]]) -> None:
    """A column for each number of steps."""
    steps = list(next(iter(memory.values())))
    lines = [[name, *(f"{sizes[number]:,.1f}" for number in steps)] for name, sizes in memory.items()]
    print_table("Temporary memory, MB", ["gradient by", *(f"{number:,} steps" for number in steps)], lines)


def answers(rows: Sequence[Row]) -> dict[str, Any]:
    """The two figures that are asked for, and sentences."""
    by_name = {row.name: row for row in rows}
    reversible, peer, euler = by_name[REVERSIBLE], by_name[DIFFRAX], by_name[DIFFRAX_EULER]
    share = reversible.timing.seconds / peer.timing.seconds
    against_euler = reversible.timing.seconds / euler.timing.seconds
    sentences = [
        f"{REVERSIBLE} takes {share:.2f} of the time of {DIFFRAX} on the same steps (wanted: at most {WANTED_SHARE:g}):"
        f" {_verdict(share, WANTED_SHARE)}.",
        f"{REVERSIBLE} takes {reversible.ratio:.2f} forward runs (wanted: at most {WANTED_RATIO:g}):"
        f" {_verdict(reversible.ratio, WANTED_RATIO)}.",
        f"Against Diffrax's Euler, half the work, it takes {against_euler:.2f} of the time.",
    ]
    return {"share": share, "ratio": reversible.ratio, "share of Euler": against_euler, "sentences": sentences}


def _verdict(value: float, most: float) -> str:
    return "reached" if value <= most else f"missed by a factor of {value / most:.2f}"


def main(*, quick: bool = False, out: Path = OUT) -> None:
    """Measure, print, and write OUT/gradients.json.

    Parameters
    ----------
    quick
        Small sizes: a check that everything runs, no measurement.
    """
    study = QUICK if quick else FULL
    record: dict[str, Any] = {"machine": harness.machine(), "study": study}
    short = measure_times(study, study.stored_steps, (CHECKPOINTED, REVERSIBLE, STORED))
    print_rows(study, short)
    rows = measure_times(study, study.steps, (CHECKPOINTED, REVERSIBLE, DIFFRAX, DIFFRAX_EULER))
    print_rows(study, rows)
    memory = measure_memory(study)
    print_memory(memory)
    found = answers(rows)
    for sentence in found["sentences"]:
        say(sentence)
    harness.write_json(out / "gradients.json", record | {"rows": short + rows, "memory": memory, "answers": found})


if __name__ == "__main__":
    harness.restart_on_one_core(for_speed=True)
    cyclopts.run(main)
