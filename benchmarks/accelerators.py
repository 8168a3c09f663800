"""A GPU or TPU at work: our kernel, our engine without it, and Diffrax under vmap, side by side.

    python -m benchmarks.accelerators [--quick] [--out DIR] [--only WORD]

The same networks, starts, dt and number of steps for all, on the accelerator that JAX finds; only final states are
kept. Two errors stand beside each time: the largest difference from the same steps in float64 on the CPU, after few
steps that tell rounding from chaos, in units of what float32 or float64 resolves (1.2e-7, 2.2e-16); and the same for
the reducers. Members are so many that the chip is full.

Times are wall times of calls that wait for their results, of interleaved rounds. The full run takes about eight
minutes, most of them for compiling.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cyclopts
import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import jaxosc as jo
from jaxosc.simulate.chunks import run_in_chunks
from jaxosc.simulate.engine import run_lanes
from jaxosc.simulate.kernels import has_kernel, run_lanes_in_kernel
from jaxosc.simulate.on_device import kernel_of_backend
from jaxosc.solvers import lanes_of

from . import harness
from .harness import print_table, say
from .problems import Problem, own_problem_of, problem_of

OUT = Path("build/benchmarks")

DT = 2.0**-4
CHECK_STEPS = 400
"""25 units of time: some turns, in which chaos multiplies rounding by less than three."""

CHECKED = 64
"""Members that are held against the CPU."""

KERNEL, ENGINE, DIFFRAX = "kernel", "engine", "diffrax"

SOLVERS: dict[str, Any] = {
    "Euler": jo.ForwardEuler(),
    "splitting 2": jo.solvers.PoissonSplitting(2),
    "splitting 4": jo.solvers.PoissonSplitting(4),
}
REDUCERS = (jo.EnergyDrift(), jo.Norms(), jo.Crossings())

ROOM = {False: 2**22, True: 2**26}
"""Numbers that fill the chip: of the states where all share W, of the weights where each has its own."""


@dataclasses.dataclass(frozen=True)
class Case:
    """`members` of n neurons through `steps` steps of a solver, with all reducers or none."""

    n: int
    own: bool
    dtype: str
    solver: str
    measured: bool
    members: int
    steps: int

    @property
    def name(self) -> str:
        """For tables and files."""
        parts = (f"n = {self.n}", "own" if self.own else "shared", self.dtype, self.solver)
        return ", ".join(parts) + (", measures" if self.measured else "")

    @property
    def method(self) -> Any:
        """The solver."""
        return SOLVERS[self.solver]

    @property
    def reducers(self) -> tuple[Any, ...]:
        """What is measured on the way."""
        return REDUCERS if self.measured else ()

    def picoseconds(self, seconds: float) -> float:
        """Per neuron and step."""
        return 1e12 * seconds / (self.members * self.n * self.steps)


def cases(quick: bool) -> Iterator[Case]:
    """Those of the full run, or a few small ones."""
    kinds = [("float32", "Euler", False), ("float32", "splitting 2", False), ("float32", "splitting 2", True)]
    if not quick:
        kinds += [("float32", "splitting 4", False), ("float64", "splitting 2", False)]
    for n, own, (dtype, solver, measured) in itertools.product((2, 8, 32, 64), (False, True), kinds):
        if (quick and n > 32) or (dtype == "float64" and n == 64):
            continue
        members = (ROOM[own] // (n * n if own else n)) >> (6 if quick else 0)
        yield Case(n, own, dtype, solver, measured, min(members, 2**20), 200 if quick else 400)


def problem_for(case: Case) -> Problem:
    """The networks and starts of a case: a thousand of them, again and again."""
    few = (own_problem_of if case.own else problem_of)(case.n, min(case.members, 1024), CHECKED).cast(case.dtype)
    turns = -(-case.members // len(few.starts))
    matrix = np.tile(few.matrix, (turns, 1, 1))[: case.members] if case.own else few.matrix
    return Problem(case.n, matrix, np.tile(few.starts, (turns, 1))[: case.members], few.checked)


def ours(case: Case, run: Callable[..., Any]) -> jax.stages.Wrapped:
    """`run` of the case, compiled; a function of the lanes, the starts (n, lanes) and the number of steps."""

    @jax.jit
    def program(lanes: Any, y0: Any, num_steps: Any) -> Any:
        found = run(lanes, y0, case.method, case.reducers, t0=0.0, dt=DT, num_steps=num_steps)
        return found.y, found.reduced

    return program


def by_diffrax(case: Case) -> jax.stages.Wrapped | None:
    """Diffrax with the same steps; None where it would do other work."""
    if case.measured:
        return None
    solver = diffrax.Euler() if case.solver == "Euler" else case.method

    def velocity(matrix: Any, t: Any, y: Any, args: Any) -> Any:
        # At full precision, as ours: by default a GPU rounds the factors of a product in float32 to ten bits.
        return jnp.matmul(matrix, jnp.tanh(y), precision="highest")

    @jax.jit
    def program(lanes: Any, y0: Any, num_steps: Any) -> Any:
        def one(matrix: Any, y0: Any) -> Any:
            field = jo.CurrentRNN(jo.weights.DenseSkew(matrix[jnp.triu_indices(case.n, 1)]))
            # Its own solver gets a vector field without ours in between.
            term = diffrax.ODETerm(functools.partial(velocity, matrix) if case.solver == "Euler" else field)
            end = num_steps.astype(y0.dtype) * DT
            options = dict(saveat=diffrax.SaveAt(t1=True), max_steps=None, throw=False)
            return diffrax.diffeqsolve(term, solver, 0.0, end, DT, y0, **options).ys[-1]

        axis = 2 if case.own else None
        matrices = lanes.matrix if case.own else lanes.matrix[..., 0]
        return jax.vmap(one, in_axes=(axis, 1), out_axes=1)(matrices, y0), {}

    return program


@dataclasses.dataclass(frozen=True)
class Row:
    """What a way took, in ps per neuron and step, and its errors in units of what the type resolves."""

    case: Case
    way: str
    picoseconds: float
    spread: float
    error: float
    measure_error: float


def ways(case: Case, lanes: Any, y0: Any) -> dict[str, jax.stages.Wrapped]:
    """The programs of a case, by name."""
    found = {ENGINE: ours(case, run_in_chunks)}
    platform = kernel_of_backend()
    if platform is not None and has_kernel(lanes, y0, case.method, case.reducers, platform):
        found[KERNEL] = ours(case, functools.partial(run_lanes_in_kernel, platform=platform))
    peer = by_diffrax(case)
    return found if peer is None else found | {DIFFRAX: peer}


def prepared(case: Case) -> tuple[Problem, dict[str, Any], tuple[Any, Any]]:
    """A case with its programs, compiled, and what they are called with."""
    problem = problem_for(case)
    lanes, y0 = lanes_of(problem.field), jnp.asarray(problem.starts.T)
    programs = ways(case, lanes, y0)
    compiled = {way: program.lower(lanes, y0, jnp.int32(0)).compile() for way, program in programs.items()}
    return problem, compiled, (lanes, y0)


def measure_case(case: Case, rules: harness.Rules, ready: concurrent.futures.Future[Any]) -> list[Row]:
    """All ways in turn."""
    problem, compiled, arguments = ready.result()
    true = reference(case, problem)
    few, many = jnp.int32(CHECK_STEPS), jnp.int32(case.steps)
    errors = {way: differences(case, program(*arguments, few), true) for way, program in compiled.items()}
    jobs = {way: harness.Job(functools.partial(program, *arguments, many)) for way, program in compiled.items()}
    rows = []
    for way, (timing, _) in harness.measure(jobs, rules).items():
        middle = float(np.median(timing.wall))
        spread = (max(timing.wall) - min(timing.wall)) / middle
        rows.append(Row(case, way, case.picoseconds(middle), spread, *errors[way]))
    return rows


def reference(case: Case, problem: Problem) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """States (n, checked) and measures of the first members by the engine in float64 on the CPU."""
    exact = problem.only(problem.checked).cast("float64")
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        lanes, y0 = lanes_of(exact.field), jnp.asarray(exact.starts.T)
        found = ours(case, run_lanes)(lanes, y0, jnp.asarray(CHECK_STEPS, jnp.int32))
    states, measures = jax.device_get(found)
    return states, measures


def differences(case: Case, found: Any, true: Any) -> tuple[float, float]:
    """How far states and measures lie from the truth, in units of what the type resolves; NaN without measures.

    Of the drift the absolute difference counts, of the others the relative one.
    """
    states, measures = jax.device_get(found)
    resolved = float(np.finfo(case.dtype).eps)
    checked = true[0].shape[-1]
    off = np.abs(states[:, :checked].astype(np.float64) - true[0]).max()
    far = [
        np.nanmax(np.abs(measures[name][:checked] - value) / (1 if "drift" in name else np.maximum(1, np.abs(value))))
        for name, value in true[1].items()
    ]
    return float(off / resolved), float(max(far) / resolved) if far else float("nan")


def print_rows(rows: list[Row]) -> None:
    """One line for each case."""
    by_case: dict[Case, dict[str, Row]] = {}
    for row in rows:
        by_case.setdefault(row.case, {})[row.way] = row
    lines = []
    for case, found in by_case.items():
        ours = found.get(KERNEL, found[ENGINE])
        over = [f"{found[way].picoseconds / ours.picoseconds:.1f}" if way in found else "" for way in (ENGINE, DIFFRAX)]
        error = f"{ours.error:.0f}" + (f", {ours.measure_error:.0f}" if case.measured else "")
        lines.append([case.name, f"{case.members:,}", f"{ours.picoseconds:.3g}", f"{ours.spread:.0%}", *over, error])
    columns = ["case", "members", "kernel, ps", "spread", "engine", "diffrax", "errors, eps"]
    print_table("Per neuron and step; times of the others over that of the kernel", columns, lines)


def main(quick: bool = False, out: Path = OUT, only: str = "") -> None:
    """Measure, print, and write OUT/accelerators.json.

    Args:
        quick: Small cases, a check that everything runs.
        only: A word that the name of a case must have.
    """
    jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0]
    say(f"On {device.device_kind} ({jax.default_backend()}), kernel: {kernel_of_backend() or 'none'}.")
    facts = harness.machine() | {"device": device.device_kind}
    rules = harness.Rules(rounds=3, sample=0.03, long=1.0)
    rows: list[Row] = []
    chosen = [case for case in cases(quick) if only in case.name]
    # Compiled side by side, which is most of the work; the threads end before anything is timed.
    with concurrent.futures.ThreadPoolExecutor() as compilers:
        ready = [compilers.submit(prepared, case) for case in chosen]
    try:
        for case, one in zip(chosen, ready, strict=True):
            found = measure_case(case, rules, one)
            rows += found
            times = ", ".join(f"{row.way} {row.picoseconds:.3g} ps (off by {row.error:.0f} eps)" for row in found)
            say(f"{case.name}: {times}")
        print_rows(rows)
    finally:
        harness.write_json(out / "accelerators.json", {"machine": facts, "rows": rows})


if __name__ == "__main__":
    cyclopts.run(main)
