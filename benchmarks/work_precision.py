"""Error in state, period and energy against time and work, for our solvers and their peers.

    python -m benchmarks.work_precision [--quick] [--out DIR] [--sizes 2 --sizes 8] [--only NAME]

Many members of one network in one call, on one core. Short runs to t = 100 tell the state error; long ones, to
t = 10^5 (10^4 at n = 128), what becomes of energy and period. Time is CPU time for a member and a unit of time:
libraries that take members one by one are given a few, and the others many, as each is best used.

The full run takes about half an hour of one core.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np

from . import harness
from .comparison import (
    WANTED_RATIO,
    WANTED_SHARE,
    EnergyAnswer,
    Point,
    StateAnswer,
    energy_answers,
    state_answers,
)
from .harness import Job, Rules, print_table, say
from .methods import Method, methods_for, missing
from .picture import draw
from .problems import (
    SHORT,
    Problem,
    Reference,
    energy_error,
    period_error,
    problem_of,
    reference_of,
    state_error,
)
from .runners import euler_loop

OUT = Path("build/benchmarks")


@dataclasses.dataclass(frozen=True)
class Study:
    """How large: by n, `members` of short and of long runs, the end of long ones, and how many times they report.

    `every`: of a method's short settings only each so many-th (long ones are kept). `rules`: how long to measure.
    """

    members: dict[int, tuple[int, int]]
    long_end: dict[int, float]
    times: dict[int, int]
    every: int = 1
    rules: Rules = dataclasses.field(default_factory=Rules)


# 8,192 neurons in short runs: a call then takes ten times the constant cost of a call in Python, or more. Intervals of
# 100 at n = 2, in which every method but Euler's knows its phase to half a turn; of 2,000 elsewhere.
FULL = Study(
    members={2: (4096, 64), 8: (1024, 64), 32: (256, 16), 128: (64, 16)},
    long_end={2: 1e5, 8: 1e5, 32: 1e5, 128: 1e4},
    times={2: 1000, 8: 50, 32: 50, 128: 10},
)
QUICK = Study(
    members={2: (256, 4), 8: (128, 4), 32: (32, 4), 128: (8, 4)},
    long_end={2: 2000.0, 8: 1000.0, 32: 500.0, 128: 200.0},
    times={2: 20, 8: 10, 32: 10, 128: 10},
    every=2,
    rules=Rules(rounds=1, sample=0.02, long=1.0),
)


def measure_size(n: int, study: Study, only: Sequence[str] = ()) -> tuple[list[Point], Reference]:
    """All points of the networks of n neurons, short and long, and the reference of the short ones."""
    short, long = (problem_of(n, members) for members in study.members[n])
    reference = reference_of(short, SHORT)
    methods = [m for m in methods_for(n) if not only or any(word in m.name for word in only)]
    points = _measured(methods, short, study, reference, {})
    known = {(point.method, point.setting): point.state_error for point in points}
    return points + _measured(methods, long, study, None, known), reference


def _measured(
    methods: Sequence[Method],
    problem: Problem,
    study: Study,
    reference: Reference | None,
    state_errors: dict[tuple[str, float], float],
) -> list[Point]:
    """The points of the short runs (with a reference) or the long ones (with the state errors of the short ones)."""
    n, is_long = problem.n, reference is None
    ts = np.linspace(0, study.long_end[n], study.times[n] + 1)[1:] if is_long else np.array([SHORT])
    jobs: dict[tuple[Method, float], Job] = {}
    for method in methods:
        settings = method.long if is_long else _kept(method, study.every)
        if settings:
            run = method.make(method.problem(problem, is_long))
            for setting in settings:
                # The same program with less to do: all but the loop with its fixed number of steps are compiled so.
                brief = ts if method.make is euler_loop else ts / ts[0] * max(setting, 0.1)
                jobs[method, setting] = Job(
                    run=functools.partial(run, setting, ts), warm=functools.partial(run, setting, brief)
                )
    points = []
    for (method, setting), (timing, (states, steps)) in harness.measure(jobs, study.rules).items():
        own, states = method.problem(problem, is_long), np.asarray(states)
        points.append(
            Point(
                n=n,
                is_long=is_long,
                t1=float(ts[-1]),
                method=method.name,
                family=method.family,
                knob=method.knob,
                setting=setting,
                members=len(own.starts),
                microseconds=1e6 * timing.seconds / (len(own.starts) * ts[-1]),
                spread=timing.spread,
                evaluations=float(np.mean(np.asarray(steps))) * method.evaluations(own, setting) / ts[-1],
                state_error=state_error(states[:, -1], reference)
                if reference
                else state_errors.get((method.name, setting), math.nan),
                energy_error=energy_error(own, states),
                period_error=period_error(own, states, ts) if is_long and n == 2 else math.nan,
                compile_seconds=timing.warm_up,
            )
        )
    return points


def _kept(method: Method, every: int) -> tuple[float, ...]:
    """The short settings that are run: each `every`-th, and those that the long runs need."""
    return tuple(s for number, s in enumerate(method.short) if number % every == 0 or s in method.long)


def print_points(points: Sequence[Point], reference: Reference) -> None:
    """A table for the short runs and one for the long ones."""
    n = points[0].n
    say(
        f"Reference at n = {n}, t = {reference.t1:g}: {reference.ways[0]}. {reference.ways[1]} is"
        f" {reference.uncertainty:.1e} away from it (median of members; largest {reference.largest:.1e})."
    )
    for is_long in (False, True):
        here = [point for point in points if point.is_long is is_long]
        if not here:
            continue
        columns = ["method", "setting", "members", "first call", "µs", "spread", "evaluations", "state error"]
        columns += ["energy error", *(["period error"] if is_long and n == 2 else [])]
        rows = [
            [
                point.method,
                f"{point.knob} {point.setting:g}",
                str(point.members),
                f"{point.compile_seconds:.1f} s",
                f"{point.microseconds:.3g}",
                f"{100 * point.spread:.0f} %",
                f"{point.evaluations:.3g}",
                f"{point.state_error:.1e}",
                f"{point.energy_error:.1e}",
                f"{point.period_error:.1e}",
            ][: len(columns)]
            for point in here
        ]
        state = "; state error: at t = 100 with this setting" if is_long else ""
        units = "µs of CPU and evaluations of the activation, for a member and a unit of time; median errors of members"
        print_table(f"n = {n}, until t = {here[0].t1:g} ({units}{state})", columns, rows)


def print_energy_answers(answers: Sequence[EnergyAnswer]) -> None:
    """(a): the table, and what falls short in sentences."""
    rows = [
        [
            str(answer.peer.n),
            answer.peer.name,
            f"{answer.peer.energy_error:.1e}",
            answer.ours.name if answer.ours else "-",
            f"{answer.ours.energy_error:.1e}" if answer.ours else "-",
            f"{answer.ratio:.0e}" if answer.ours else "-",
        ]
        for answer in answers
    ]
    columns = ["n", "peer", "energy error", "ours in equal time, as accurate", "energy error", "ratio"]
    print_table("(a) Energy error over the long run, a peer's over ours", columns, rows)
    short_of = [answer for answer in answers if answer.reason]
    say(
        f"(a) In {len(answers) - len(short_of)} of {len(answers)} points of peers our energy error is at least"
        f" {WANTED_RATIO:g} times below."
    )
    for answer in short_of:
        ratio = f"the ratio is {answer.ratio:.2g}, as " if answer.ours else "no ratio: "
        say(f"  n = {answer.peer.n}, {answer.peer.name}: {ratio}{answer.reason}.")


def print_state_answers(answers: Sequence[StateAnswer]) -> None:
    """(b): the table, and where a peer wins in sentences."""
    rows = [
        [
            str(answer.peer.n),
            answer.peer.name,
            f"{answer.peer.microseconds:.3g}",
            f"{answer.peer.state_error:.1e}",
            f"{answer.ratio:.2g}",
            f"{answer.ratio_of_splittings:.2g}",
        ]
        for answer in answers
    ]
    columns = ["n", "best peer", "µs", "state error", "ours / peer's", "without Diffrax's solvers"]
    print_table("(b) State error at t = 100 in equal time: the best of ours over that of the best peer", columns, rows)
    lost = [answer for answer in answers if answer.reason]
    within = len(answers) - len(lost)
    say(f"(b) In {within} of {len(answers)} points of the best peers ours is within {WANTED_SHARE:g} times.")
    for answer in lost:
        lead = f"wins by {answer.ratio:.2g}" if math.isfinite(answer.ratio) else "has no match in its time"
        say(f"  n = {answer.peer.n}: {answer.peer.name} {lead}: {answer.reason}.")


def main(
    *, quick: bool = False, out: Path = OUT, sizes: list[int] | None = None, only: list[str] | None = None
) -> None:
    """Measure, print, and write OUT/work_precision.json and OUT/work_precision.png.

    Parameters
    ----------
    quick
        Small sizes: a check that everything runs, no measurement.
    sizes
        Numbers of neurons, among 2, 8, 32 and 128 (all; with --quick 2 and 8).
    only
        Words of which a method's name must have one.
    """
    study = QUICK if quick else FULL
    chosen = sizes or ([2, 8] if quick else list(study.members))
    record: dict[str, Any] = {"machine": harness.machine(), "study": study, "points": [], "references": {}}
    for sentence in missing():
        say(sentence)
    points: list[Point] = []
    for n in chosen:
        found, reference = measure_size(n, study, only or ())
        print_points(found, reference)
        points += found
        record["references"][n] = dataclasses.replace(reference, states=np.zeros(0))
    floor = {n: reference.uncertainty for n, reference in record["references"].items()}
    energies, states = energy_answers(points), state_answers(points, floor)
    print_energy_answers(energies)
    print_state_answers(states)
    harness.write_json(out / "work_precision.json", record | {"points": points, "energy": energies, "state": states})
    draw(points, out / "work_precision.png")
    say(f"Wrote {out / 'work_precision.png'}.")


if __name__ == "__main__":
    harness.restart_on_one_core(for_speed=True)
    cyclopts.run(main)
