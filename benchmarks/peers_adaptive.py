"""Adaptive steps: the end of a trajectory at one tolerance, in float64, by every library.

One W for all members, a W each, and gains from 0.1 to 30 in one batch, where a program that steps all members together
works as long as the slowest one needs. Libraries that take members one by one are given a few.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any, Literal, get_args

import diffrax
import numpy as np

import jaxosc as jo

from . import harness
from .apart import ApartJob
from .harness import Job, Rules, Timing, print_table
from .peers_fixed import FLAGS
from .problems import Problem, Reference, own_problem_of, problem_of, state_error, true_states
from .runners import Runner, by_diffrax, by_heyoka, by_scipy, simulated_adaptively

RTOL = 1e-6
T1 = 20.0
"""About three turns: the error of a state is still that of the method."""

GAINS = 0.1, 30.0
TSIT5, TAYLOR, DIFFRAX = "jo.simulate, Tsit5", "jo.simulate, Taylor", "diffrax Tsit5 under vmap"

Kind = Literal["shared", "own", "gains"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Case:
    """`members` of n neurons: one W, a W each, or one W with a gain each."""

    n: int
    kind: Kind
    members: int
    t1: float = T1

    @property
    def name(self) -> str:
        """For tables and files."""
        kinds = {"shared": "shared W", "own": "own W", "gains": f"gains {GAINS[0]:g} to {GAINS[1]:g}"}
        return f"adaptive, {kinds[self.kind]}, n = {self.n}"


@functools.lru_cache(maxsize=1)
def problem_for(case: Case) -> Problem:
    """The networks and starts of a case, the same in every process."""
    if case.kind == "own":
        return own_problem_of(case.n, case.members)
    problem = problem_of(case.n, case.members)
    if case.kind == "shared":
        return problem
    low, high = np.log(GAINS)
    gains = np.exp(np.random.default_rng(0).uniform(low, high, case.members))
    return dataclasses.replace(problem, matrix=gains[:, None, None] * problem.matrix)


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way to get there; `most` members of those that it takes one by one; `suits`, which cases it is for."""

    name: str
    make: Callable[[Problem], Runner]
    module: str = "jaxosc"
    apart: bool = False
    most: int | None = None
    suits: Callable[[Case], bool] = lambda case: True


def in_cost_order(problem: Problem) -> Runner:
    """Diffrax in chunks of 64 members of about equal |W|, which is nearly proportional to the steps they need."""
    order = np.argsort(np.linalg.norm(problem.matrix, axis=(-2, -1)), kind="stable")
    back = np.argsort(order)
    in_order = dataclasses.replace(problem, matrix=problem.matrix[order], starts=problem.starts[order])
    runner = by_diffrax(diffrax.Tsit5(), adaptive=True, width=64)(in_order)

    def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
        states, steps = runner(rtol, ts)
        return states[back], steps[back]

    return run


def peers() -> list[Peer]:
    """All of them, ours first."""
    tsit5 = functools.partial(_simulated, diffrax.Tsit5())
    taylor = functools.partial(_simulated, jo.solvers.Taylor())
    return [
        Peer(TSIT5, tsit5),
        Peer(TSIT5 + FLAGS, tsit5, apart=True),
        Peer(TAYLOR, taylor),
        Peer(TAYLOR + FLAGS, taylor, apart=True),
        Peer(DIFFRAX, by_diffrax(diffrax.Tsit5(), adaptive=True), "diffrax"),
        Peer(
            "the same, sorted by |W|, 64 at a time", in_cost_order, "diffrax", suits=lambda case: case.kind == "gains"
        ),
        # Written out for n = 32 with a parameter for each weight, it would compile for minutes.
        Peer("heyoka, batches", by_heyoka, "heyoka", most=256, suits=lambda case: case.kind == "shared" or case.n < 32),
        Peer("numba Tsit5", _numba, "numba"),
        Peer("torchdiffeq dopri5", _torchdiffeq, "torchdiffeq"),
        Peer("torchode Tsit5", _torchode, "torchode"),
        Peer("SciPy DOP853", by_scipy, "scipy", most=8),
    ]


def _simulated(solver: Any, problem: Problem) -> Runner:
    """A module's function, so that it can be sent to the other process."""
    return simulated_adaptively(solver)(problem)


def _numba(problem: Problem) -> Runner:
    from .numba_adaptive import by_numba

    return by_numba(problem)


def _torchdiffeq(problem: Problem) -> Runner:
    from .torch_adaptive import by_torchdiffeq

    return by_torchdiffeq(problem)


def _torchode(problem: Problem) -> Runner:
    from .torch_adaptive import by_torchode

    return by_torchode(problem)


def present(peer: Peer) -> bool:
    """Whether what it needs is installed."""
    return importlib.util.find_spec(peer.module) is not None


@dataclasses.dataclass(frozen=True)
class Row:
    """What one peer took.

    **Attributes:** `microseconds` per trajectory, the median of rounds; `error`, the median over checked members of the
    largest error of a neuron; `steps`, the mean of members; `waste`, the most steps of a member over the mean.
    """

    name: str
    members: int
    microseconds: float
    spread: float
    error: float
    steps: float
    waste: float
    timing: Timing


@dataclasses.dataclass(frozen=True)
class Found:
    """A case, and a row for each peer."""

    case: Case
    rows: list[Row]


def prepared(make: Callable[[Problem], Runner], case: Case, most: int | None) -> Callable[[], Any]:
    """The function to time, which gives states (members, 1, n) and steps."""
    problem = problem_for(case)
    runner = make(problem if most is None else problem.only(most))
    return functools.partial(runner, RTOL, np.array([case.t1]))


def measure_case(
    case: Case, chosen: list[Peer], rules: Rules, process: concurrent.futures.ProcessPoolExecutor
) -> Found:
    """All peers in turn."""
    jobs: dict[Peer, Job | ApartJob] = {}
    for peer in chosen:
        if peer.suits(case):
            make = functools.partial(prepared, peer.make, case, peer.most)
            jobs[peer] = ApartJob(process, peer.name, make) if peer.apart else Job(make())
    problem = problem_for(case)
    reference = Reference(case.t1, true_states(problem, case.t1), ("SciPy DOP853, rtol 1e-13", ""), 0.0, 0.0)
    rows = []
    for peer, (timing, (states, steps)) in harness.measure(jobs, rules).items():
        states, steps = np.asarray(states)[:, -1], np.asarray(steps, float)
        waste = float(steps.max() / steps.mean())
        error = state_error(states, reference)
        microseconds = 1e6 * timing.seconds / len(states)
        rows.append(Row(peer.name, len(states), microseconds, timing.spread, error, float(steps.mean()), waste, timing))
    for job in jobs.values():
        if isinstance(job, ApartJob):
            job.forget()
    return Found(case, rows)


def print_case(found: Found) -> None:
    """A table of one case."""
    theirs = next((row.microseconds for row in found.rows if row.name == DIFFRAX), float("nan"))
    lines = [
        [
            row.name,
            f"{row.members:,}",
            f"{row.microseconds:.3g}",
            f"{100 * row.spread:.0f} %",
            f"{theirs / row.microseconds:.2f}",
            f"{row.error:.0e}",
            f"{row.steps:.0f}",
            f"{row.waste:.1f}",
            f"{row.timing.warm_up:.1f} s",
        ]
        for row in found.rows
    ]
    columns = ["", "members", "µs", "spread", "diffrax / it", "error", "steps", "most / mean", "first call"]
    print_table(f"{found.case.name}: rtol {RTOL:g}, until t = {found.case.t1:g}; µs per trajectory", columns, lines)
