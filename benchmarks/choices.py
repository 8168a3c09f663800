"""Whether the choices in `jaxosc/_choices.py` are right on this machine: each one beside its alternatives.

    python -m benchmarks.choices [--quick] [--flags] [--only NAME] [--out DIR]

A choice is overridden in this process, all compiled programs are dropped, and the same run is timed. Runs are of the
engine itself, without the checks of `jo.simulate`. Candidates that come to the same program here (a border between two
sizes that n is not between) show what the noise is. `--flags` measures with `jo.configure_cpu()`, which has choices of
its own. The full run takes about ten minutes of one core.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

import jaxosc as jo
from jaxosc import _choices
from jaxosc._cpu import loops_are_kernels
from jaxosc.simulate.adaptive_lanes import run_adaptive_lanes
from jaxosc.simulate.adaptive_methods import method_of
from jaxosc.simulate.chunks import run_in_chunks
from jaxosc.simulate.reducers import EnergyDrift
from jaxosc.solvers import lanes_of

from . import harness
from .harness import Job, Rules, Timing, print_table, say
from .problems import own_problem_of, problem_of

OUT = Path("build/benchmarks")

DT, TOLERANCE = 2.0**-7, 1e-4

WITHIN = 1.1
"""A choice is right if it takes at most so many times what the best candidate takes: less is noise."""

EULER, SPLITTING, TSIT5, ADAPTIVE = "Euler", "PoissonSplitting(2)", "Tsit5", "Taylor, adaptive"

SOLVERS: dict[str, Any] = {
    EULER: jo.ForwardEuler(),
    SPLITTING: jo.solvers.PoissonSplitting(2),
    TSIT5: diffrax.Tsit5(),
    ADAPTIVE: jo.solvers.Taylor(),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A run: `members` of n neurons, of one W or one each, through `steps` steps (or to t = steps dt).

    `measured`: with an energy that loops in C do not know.
    """

    solver: str
    n: int
    own: bool
    members: int
    steps: int
    dtype: str = "float32"
    measured: bool = False

    @property
    def name(self) -> str:
        """For tables and files."""
        what = ", softsign, energy" if self.measured else ""
        return f"{self.solver}, {self.dtype}, {'own' if self.own else 'shared'} W, n = {self.n}{what}"


@dataclasses.dataclass(frozen=True)
class Question:
    """A constant, or one entry of a table, and what else it could be; `cases`, runs that it is for."""

    constant: str
    candidates: tuple[Any, ...]
    cases: tuple[Case, ...]
    entry: Any = None

    @property
    def name(self) -> str:
        """For tables and files."""
        return self.constant if self.entry is None else f"{self.constant}[{self.entry!r}]"

    @property
    def chosen(self) -> Any:
        """What the table says."""
        value = getattr(_choices, self.constant)
        return value if self.entry is None else value[self.entry]

    @property
    def all_candidates(self) -> tuple[Any, ...]:
        """Those of the question and the table's choice."""
        return tuple(sorted({*self.candidates, self.chosen}))

    def value(self, candidate: Any) -> Any:
        """The constant with the candidate in its place."""
        return candidate if self.entry is None else {**getattr(_choices, self.constant), self.entry: candidate}


@dataclasses.dataclass(frozen=True)
class Answer:
    """Seconds of each candidate in one case, as timings, and what the table chose."""

    question: Question
    case: Case
    chosen: Any
    timings: Mapping[Any, Timing]

    @property
    def over_best(self) -> dict[Any, float]:
        """Times over the best."""
        best = min(timing.seconds for timing in self.timings.values())
        return {candidate: timing.seconds / best for candidate, timing in self.timings.items()}

    @property
    def is_right(self) -> bool:
        """Whether the table's choice is near the best."""
        return self.over_best[self.chosen] <= WITHIN

    def record(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "constant": self.question.name,
            "case": self.case.name,
            "chosen": self.chosen,
            "over_best": self.over_best,
            "is_right": self.is_right,
            "timings": {candidate: timing.record() for candidate, timing in self.timings.items()},
        }


def questions() -> list[Question]:
    """All of them, for the settings in force."""
    loops = "kernels" if loops_are_kernels() else "calls"

    def one(solver: str, n: int, own: bool = True, dtype: str = "float32") -> Case:
        # About a fifth of a second: 1e7 neuron-steps of Euler at n = 32.
        members = max(128, min(2048, 2**19 // n**2)) if own else 4096
        work = {EULER: 1, SPLITTING: 3, TSIT5: 7, ADAPTIVE: 40}[solver]
        return Case(solver, n, own, members, max(10, int(3e8 / (members * n * work * (n + 8)))), dtype)

    def both(solver: str, n: int) -> tuple[Case, Case]:
        return one(solver, n), one(solver, n, dtype="float64")

    shared = [one(EULER, 8, own=False), one(EULER, 16, own=False)]
    pieces = one(SPLITTING, 32), one(SPLITTING, 32, own=False)
    small = one(EULER, 2, own=False), one(TSIT5, 8, own=False), one(SPLITTING, 8, own=False)
    return [
        Question("UNROLLED_UP_TO", (7, 16), tuple(shared)),
        Question("OWN_COLUMNS_UP_TO", (8, 32), (one(TSIT5, 16), one(TSIT5, 32))),
        Question("ONE_PRODUCT_COLUMNS_UP_TO", (16, 32, 64), (one(EULER, 32), one(EULER, 64)), (loops, 4)),
        Question(
            "ONE_PRODUCT_COLUMNS_UP_TO",
            (16, 32, 64),
            (one(EULER, 32, dtype="float64"), one(EULER, 64, dtype="float64")),
            (loops, 8),
        ),
        Question("CHUNK_BYTES", (2**13, 2**16), small),
        Question("MOST_LANES", (512, 2048), small[:1]),
        Question("LEAST_LANES", (64, 128, 512), (one(EULER, 32, own=False), one(SPLITTING, 32, own=False))),
        Question("LEAST_OWN_LANES", (32, 64, 256), (one(EULER, 16), one(SPLITTING, 16))),
        Question("LARGE_FROM", (12, 33), (one(EULER, 16), one(TSIT5, 32))),
        Question("OWN_BYTES", (2**17, 2**18, 2**19), both(EULER, 32), "columns"),
        Question("OWN_BYTES", (2**18, 2**19, 2**21), (*both(EULER, 128), *both(TSIT5, 128)), "product"),
        Question("OWN_BYTES", (2**19, 2**21), both(SPLITTING, 64), "pieces"),
        Question("LEAST_LARGE_LANES", (4, 16), (one(EULER, 64, dtype="float64"),), "columns"),
        Question("LEAST_LARGE_LANES", (2, 8), (one(EULER, 256),), "product"),
        Question("LEAST_LARGE_LANES", (8, 32), both(SPLITTING, 128), "pieces"),
        Question("MOST_LARGE_LANES", (32, 64), (one(EULER, 24),), "columns"),
        Question("MOST_LARGE_LANES", (16, 64, 128), both(TSIT5, 32), "product"),
        Question("MOST_LARGE_LANES", (64, 256), (one(SPLITTING, 32),), "pieces"),
        Question("SINGLES_UP_TO", (6, 16), (one(SPLITTING, 8), one(SPLITTING, 12))),
        Question("BLOCK", (4, 16), pieces),
        Question("NATIVE_UP_TO", (1, 64), (one(EULER, 64, own=False), one(EULER, 128, own=False), one(SPLITTING, 128))),
        Question("TILES_FROM", (8, 1000), tuple(one(EULER, n, own=False) for n in (16, 24, 32, 128))),
        Question("TILES_FILLED", (0.0, 0.9), tuple(one(EULER, n, own=False) for n in (40, 48, 72))),
        Question("HOLLOW_UP_TO", (1,), (one(EULER, 2, own=False), one(EULER, 8, own=False), one(EULER, 8))),
        Question("NATIVE_LANES", (128, 4096), (one(EULER, 2, own=False), one(SPLITTING, 32, own=False)), "shared"),
        Question("NATIVE_LANES", (512, 4096), (one(EULER, 8), one(SPLITTING, 32)), "own"),
        Question("NATIVE_LANES", (128, 512), (one(EULER, 32),), "neurons"),
        Question(
            "NATIVE_SAMPLE_BYTES", (2**15, 2**20), tuple(dataclasses.replace(c, measured=True) for c in small[::2])
        ),
        Question("CHUNK_LANES", (32, 128), (one(ADAPTIVE, 8, own=False),)),
        Question("CHUNK_LANES_OF_FEW", (64, 512), (one(ADAPTIVE, 2, own=False),)),
        Question("FEW_NEURONS", (2, 8), (one(ADAPTIVE, 4, own=False), one(ADAPTIVE, 8, own=False))),
    ]


@contextlib.contextmanager
def overridden(constant: str, value: Any) -> Iterator[None]:
    """Another choice for a while; programs compiled with the one are not used with the other."""
    before = getattr(_choices, constant)
    jax.clear_caches()
    setattr(_choices, constant, value)
    try:
        yield
    finally:
        setattr(_choices, constant, before)
        jax.clear_caches()


def compiled(case: Case, question: Question, candidate: Any) -> Callable[[], Any]:
    """The run of a case, compiled with a candidate: an executable is not looked up, so it outlives the override."""
    problem = (own_problem_of if case.own else problem_of)(case.n, case.members).cast(case.dtype)
    lanes, y0, solver = lanes_of(problem.field), jnp.asarray(problem.starts).T, SOLVERS[case.solver]
    reducers: tuple[Any, ...] = ()
    if case.measured:
        lanes, reducers = dataclasses.replace(lanes, activation=jo.Softsign()), (EnergyDrift(),)

    def fixed(lanes: Any, y0: Any) -> Any:
        options = dict(t0=0.0, dt=DT, num_steps=jnp.int32(case.steps), allow_native=True)
        run = run_in_chunks(lanes, y0, solver, reducers, **options)
        return run.reduced if case.measured else run.y

    def adaptive(lanes: Any, y0: Any) -> Any:
        method = method_of(solver, TOLERANCE, TOLERANCE, case.dtype)
        assert method is not None
        return run_adaptive_lanes(
            lanes,
            y0,
            method,
            t0=0.0,
            t1=0.1 * case.steps,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            escape_norm=1e6,
            max_steps=100_000,
            allow_native=True,
        ).y

    with overridden(question.constant, question.value(candidate)):
        jitted: Any = eqx.filter_jit(adaptive if case.solver == ADAPTIVE else fixed)  # typed as if it had no `lower`
        run = jitted.lower(lanes, y0).compile()
    return lambda: run(lanes, y0)


def measure(question: Question, case: Case, rules: Rules) -> Answer:
    """All candidates in turn."""
    jobs = {candidate: Job(compiled(case, question, candidate)) for candidate in question.all_candidates}
    found = harness.measure(jobs, rules)
    return Answer(question, case, question.chosen, {candidate: timing for candidate, (timing, _) in found.items()})


def print_answers(answers: Sequence[Answer]) -> None:
    """A row for each constant and case, and a sentence on those that are wrong here."""
    rows = []
    for answer in answers:
        times = ", ".join(f"{candidate}: {ratio:.2f}" for candidate, ratio in answer.over_best.items())
        rows.append(
            [answer.question.name, answer.case.name, times, str(answer.chosen), "yes" if answer.is_right else "NO"]
        )
    print_table(
        "Choices: time over the best", ["choice", "case", "candidates", "table", f"within {WITHIN - 1:.0%}"], rows
    )
    wrong = [answer for answer in answers if not answer.is_right]
    say(f"{len(answers) - len(wrong)} of {len(answers)} choices are within {WITHIN - 1:.0%} of the best here.")


def main(
    *,
    quick: bool = False,
    flags: bool = False,
    only: Annotated[tuple[str, ...], cyclopts.Parameter(negative="")] = (),
    out: Path = OUT,
) -> None:
    """Measure, print, and write OUT/choices.json.

    Parameters
    ----------
    quick
        A few steps of one case of the first question asked: a check that everything runs, no measurement.
    flags
        With `jo.configure_cpu()`.
    only
        Constants whose name contains this; may be given several times.
    """
    if flags:
        jo.configure_cpu()
    asked = [one for one in questions() if not only or any(word in one.name for word in only)]
    pairs = [(one, case) for one in asked for case in one.cases]
    if quick:
        pairs = [(one, dataclasses.replace(case, members=min(case.members, 256), steps=10)) for one, case in pairs[:1]]
    rules = Rules(rounds=1, sample=0.0) if quick else Rules(rounds=5, long=1.0)
    answers = [measure(one, case, rules) for one, case in pairs]
    print_answers(answers)
    record = {"machine": harness.machine(), "answers": [answer.record() for answer in answers]}
    harness.write_json(out / ("choices_flags.json" if flags else "choices.json"), record)


if __name__ == "__main__":
    harness.restart_on_one_core()
    cyclopts.run(main)
