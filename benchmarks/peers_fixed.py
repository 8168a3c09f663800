"""Fixed steps: forward Euler by every library, our order-2 splitting, the C reference and the roofline.

Many members, only their final states kept. The same equation, dt, type and starts for all; each is measured at what its
documentation calls best on one core. Two errors stand beside each time: from the same Euler steps in float64 (the
rounding of the program), and from the true solution (the error of the method).
"""

import concurrent.futures
import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import jaxosc as jo

from . import euler_loops, harness, reference
from .apart import ApartJob
from .bare_jax import bare
from .harness import Job, Rules, Timing
from .problems import Problem, own_problem_of, problem_of, true_states
from .roofline import Limits, limits
from .runners import by_diffrax

DT = 2.0**-7
"""A power of two: float32 counts the steps exactly."""

OURS, SPLITTING, IN_C, FLAGS = "jo.simulate, ForwardEuler", "jo.simulate, PoissonSplitting(2)", "C", ", configure_cpu"
DIFFRAX, NAIVE, NUMPY, TORCH = "diffrax Euler under vmap", "vmap(scan)", "NumPy loop", "torch eager"
BARE, NUMBA, TORCHDIFFEQ = "bare loop in JAX", "numba, chunked", "torchdiffeq euler"


@dataclasses.dataclass(frozen=True)
class Case:
    """`members` of n neurons, of one W or each of its own, through `steps` steps."""

    n: int
    own: bool
    dtype: str
    members: int
    steps: int

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"{self.dtype}, {'own' if self.own else 'shared'} W, n = {self.n}"

    @property
    def t1(self) -> float:
        """The end."""
        return self.steps * DT

    def nanoseconds(self, seconds: float) -> float:
        """Per neuron and step."""
        return 1e9 * seconds / (self.members * self.n * self.steps)


@functools.lru_cache(maxsize=1)
def _problem(n: int, own: bool, dtype: str, members: int) -> Problem:
    return (own_problem_of if own else problem_of)(n, members).cast(dtype)


def problem_for(case: Case) -> Problem:
    """The networks and starts of a case, the same in every process."""
    return _problem(case.n, case.own, case.dtype, case.members)


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way to take the steps.

    **Attributes:** `make`, case to a function that gives the final states (members, n); `module`, what it needs;
    `euler`, whether the steps are those of Euler; `apart`, whether it runs after `jo.configure_cpu()`; `patient`,
    whether it takes each step with all members, so that the time of a step does not depend on how many there are.
    """

    name: str
    make: Callable[[Case], Callable[[], Any]]
    module: str = "jaxosc"
    euler: bool = True
    apart: bool = False
    patient: bool = False

    def case(self, case: Case) -> Case:
        """What it is given: with a large W each, a tenth of the steps for those that take them one by one."""
        return dataclasses.replace(case, steps=case.steps // 10) if self.patient and case.own and case.n > 32 else case


def simulated(solver: Any, case: Case) -> Callable[[], Any]:
    """`jo.simulate` as people call it, checks in Python and all."""
    problem = problem_for(case)
    field, starts = problem.field, problem.starts
    return lambda: jo.simulate(field, starts, t1=case.t1, dt=DT, solver=solver).ys[:, 0]


def in_c(case: Case) -> Callable[[], Any]:
    """The C reference."""
    problem = problem_for(case)
    reference.library(case.n, case.dtype)
    return lambda: reference.euler(problem.matrix, problem.starts, DT, case.steps)


def diffrax_euler(case: Case) -> Callable[[], Any]:
    """Diffrax at its best, as in the work-precision benchmark."""
    run = by_diffrax(diffrax.Euler())(problem_for(case))
    return lambda: run(DT, np.array([case.t1]))[0][:, 0]


def naive(case: Case) -> Callable[[], Any]:
    """The loop that everybody writes in JAX."""
    problem = problem_for(case)
    matrix, starts = jnp.asarray(problem.matrix), jnp.asarray(problem.starts)

    def one(matrix: Any, y0: Any) -> Any:
        return jax.lax.scan(lambda y, _: (y + DT * matrix @ jnp.tanh(y), None), y0, length=case.steps)[0]

    loop = jax.jit(jax.vmap(one, in_axes=(0 if case.own else None, 0)))
    return lambda: loop(matrix, starts)


def looped(loop: Any, case: Case) -> Callable[[], Any]:
    """A function of problem, dt and number of steps."""
    run: Callable[[], Any] = loop(problem_for(case), DT, case.steps)
    return run


def in_numba(case: Case) -> Callable[[], Any]:
    """A file of its own, since numba decorates while it is imported."""
    from .numba_loops import by_numba

    return looped(by_numba, case)


def peers() -> list[Peer]:
    """All of them, ours first."""
    euler, splitting = jo.ForwardEuler(), jo.solvers.PoissonSplitting(2)
    return [
        Peer(OURS, functools.partial(simulated, euler)),
        Peer(OURS + FLAGS, functools.partial(simulated, euler), apart=True),
        Peer(SPLITTING, functools.partial(simulated, splitting), euler=False),
        Peer(SPLITTING + FLAGS, functools.partial(simulated, splitting), euler=False, apart=True),
        Peer(BARE, functools.partial(looped, bare)),
        Peer(BARE + FLAGS, functools.partial(looped, bare), apart=True),
        Peer(IN_C, in_c),
        Peer(DIFFRAX, diffrax_euler, "diffrax", patient=True),
        Peer(NAIVE, naive, patient=True),
        Peer("lyapax sweep_trajectory", functools.partial(looped, euler_loops.by_lyapax), "lyapax", patient=True),
        Peer(NUMPY, functools.partial(looped, euler_loops.by_numpy), "numpy", patient=True),
        Peer(TORCH, functools.partial(looped, euler_loops.by_torch), "torch", patient=True),
        Peer("torch, in place", functools.partial(looped, euler_loops.by_torch_in_place), "torch", patient=True),
        Peer(TORCHDIFFEQ, functools.partial(looped, euler_loops.by_torchdiffeq), "torchdiffeq", patient=True),
        Peer("torchode Euler", functools.partial(looped, euler_loops.by_torchode), "torchode", patient=True),
        Peer(NUMBA, in_numba, "numba", patient=True),
    ]


@dataclasses.dataclass(frozen=True)
class Row:
    """What one peer took and how right it was.

    **Attributes:** `nanoseconds` per neuron and step, the median of rounds; `rounding`, the largest difference of a
    checked neuron from Euler in float64 (NaN for other methods); `error`, the same from the true solution.
    """

    name: str
    case: Case
    nanoseconds: float
    spread: float
    rounding: float
    error: float
    timing: Timing


@dataclasses.dataclass(frozen=True)
class Found:
    """A case, the roofline in ns, and a row for each peer."""

    case: Case
    limits: Limits | None
    rows: list[Row]

    @property
    def roofline(self) -> float:
        """ns per neuron and step; NaN where there is no C compiler to measure it."""
        return self.limits.euler(self.case.n) if self.limits else float("nan")

    def of(self, name: str) -> float:
        """The nanoseconds of a peer; NaN if it did not run."""
        return next((row.nanoseconds for row in self.rows if row.name == name), float("nan"))


def measure_case(
    case: Case, chosen: list[Peer], rules: Rules, process: concurrent.futures.ProcessPoolExecutor
) -> Found:
    """All peers in turn."""
    jobs: dict[Peer, Job | ApartJob] = {}
    for peer in chosen:
        make = functools.partial(peer.make, peer.case(case))
        jobs[peer] = ApartJob(process, peer.name, make) if peer.apart else Job(make())
    rows = []
    for peer, (timing, states) in harness.measure(jobs, rules).items():
        own = peer.case(case)
        rounding, error = _errors(own, np.asarray(states))
        nanoseconds = own.nanoseconds(timing.seconds)
        rows.append(
            Row(peer.name, own, nanoseconds, timing.spread, rounding if peer.euler else float("nan"), error, timing)
        )
    for job in jobs.values():
        if isinstance(job, ApartJob):
            job.forget()
    return Found(case, limits(case.dtype) if reference.compiler() else None, rows)


def _errors(case: Case, states: np.ndarray) -> tuple[float, float]:
    euler, true = references(case)
    found = states[: len(true)].astype(np.float64)
    return float(np.abs(found - euler).max()), float(np.abs(found - true).max())


@functools.lru_cache(maxsize=4)
def references(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Of the checked members (checked, n): Euler in float64, by NumPy, and the truth, by DOP853."""
    problem = problem_for(case).cast("float64")
    problem = problem.only(problem.checked)
    matrices = np.broadcast_to(problem.matrix, (len(problem.starts), case.n, case.n))
    euler = problem.starts
    for _ in range(case.steps):
        euler = euler + DT * np.einsum("mij,mj->mi", matrices, np.tanh(euler))
    return euler, true_states(problem, case.t1)


def present(peer: Peer) -> bool:
    """Whether what it needs is installed."""
    return reference.compiler() is not None if peer.name == IN_C else importlib.util.find_spec(peer.module) is not None
