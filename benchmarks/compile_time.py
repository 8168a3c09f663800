"""What is paid before and around the stepping: first calls, the default study's programs, and a call after that.

    python -m benchmarks.compile_time [--quick] [--out DIR]

Each first call is made in a process of its own, once with an empty cache of compiled programs on disk and once with
what the first has left there. The parts are those that JAX reports: tracing Python, lowering to StableHLO, compiling by
XLA (or reading from the cache); what is left is our Python and the run itself, a few steps only. A trace within a trace
is counted in both, so the rest can come out too small.

The full run takes about four minutes of one core.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import diffrax
import jax
import numpy as np

import jaxosc as jo
from jaxosc.sweeps.work import Work

from . import harness
from .harness import print_table, say
from .problems import Problem, own_problem_of, problem_of

OUT = Path("build/benchmarks")

DT, STEPS = 0.1, 10

WANTED_OVERHEAD = 1e-3
"""Most seconds of a call of `jo.simulate` on one network, beyond the stepping."""

STAGES = {
    "trace": "/jax/core/compile/jaxpr_trace_duration",
    "lower": "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "compile": "/jax/core/compile/backend_compile_duration",
}
"""JAX's names of the parts of a first call. A read from the cache is part of "compile"."""

CLI_SECONDS = 0.5
"""The command line keeps programs that took at least so long to compile; here all are kept, except where it is said."""

SOLVERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ForwardEuler": (jo.ForwardEuler(), dict(dt=DT)),
    "PoissonSplitting(2)": (jo.solvers.PoissonSplitting(2), dict(dt=DT)),
    "PoissonSplitting(4)": (jo.solvers.PoissonSplitting(4), dict(dt=DT)),
    "PairSplitting": (jo.solvers.PairSplitting(), dict(dt=DT)),
    "Tsit5": (diffrax.Tsit5(), dict(dt=DT)),
    "Tsit5, adaptive": (diffrax.Tsit5(), dict(rtol=1e-6)),
}

NETWORKS: dict[str, Callable[[int], Problem]] = {
    "one network": lambda n: problem_of(n, 1),
    "4,096 starts": lambda n: problem_of(n, 4096),
    "4,096 networks": lambda n: own_problem_of(n, 4096),
}


@dataclasses.dataclass(frozen=True)
class First:
    """Seconds of a first call and of its parts, and how many programs it compiled."""

    what: str
    cached: bool
    seconds: float
    parts: dict[str, float]
    programs: int

    @property
    def rest(self) -> float:
        """Our Python, and the run."""
        return self.seconds - sum(self.parts.values())


@dataclasses.dataclass(frozen=True)
class Call:
    """Seconds of a later call: the median and the spread, of so many calls."""

    what: str
    seconds: float
    spread: float
    calls: int


def simulated(solver: str, network: str, n: int) -> Callable[[], Any]:
    """A call of a few steps."""
    chosen, options = SOLVERS[solver]
    problem = NETWORKS[network](n)
    field = problem.field
    starts = problem.starts[0] if network == "one network" else problem.starts
    return lambda: jo.simulate(field, starts, t1=STEPS * DT, solver=chosen, **options).ys


def compiled_study(quick: bool) -> Callable[[], Any]:
    """All programs of the default study, by one thread."""
    changes: dict[str, Any] = dict(neurons=(2,), solver=("euler",), activation=("tanh",)) if quick else {}
    plan = jo.sweeps.default_study(**changes).plan(workers=1)

    def compile_all() -> None:
        work = Work(plan, (jax.devices()[0],))
        for chunk in {chunk.combination.index: chunk for chunk in plan.chunks()}.values():
            work.prepare(chunk, 0)

    return compile_all


def first_call(folder: str, least: float, make: Callable[..., Callable[[], Any]], *facts: Any) -> Any:
    """Seconds of the first call of `make(*facts)`, of its parts, and the number of programs; in a fresh process."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    parts, programs = dict.fromkeys(STAGES, 0.0), 0
    names = {event: stage for stage, event in STAGES.items()}

    def seen(event: str, duration_secs: float, **_: str | int) -> None:
        nonlocal programs
        if event in names:
            parts[names[event]] += duration_secs
            programs += names[event] == "compile"

    jax.block_until_ready(jax.numpy.zeros(3) + 1)  # the backend starts
    run = make(*facts)
    jax.monitoring.register_event_duration_secs_listener(seen)
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin, parts, programs


def measure_first(what: str, make: Callable[..., Callable[[], Any]], *facts: Any, least: float = 0.0) -> list[First]:
    """With an empty cache on disk, and with a full one."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for cached in (False, True):
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                result = process.submit(first_call, folder, least, make, *facts).result()
            found.append(First(what, cached, *result))
    return found


def measure_call(what: str, run: Callable[[], Any], calls: int) -> Call:
    """After the first, which compiles."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - begin)
    low, middle, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    return Call(what, float(middle), float((high - low) / middle), calls)


def print_first(found: Sequence[First]) -> None:
    """A row for each process."""
    rows = [
        [
            one.what,
            "full" if one.cached else "empty",
            str(one.programs),
            f"{one.seconds:.2f}",
            *(f"{one.parts[stage]:.2f}" for stage in STAGES),
            f"{one.rest:.2f}",
        ]
        for one in found
    ]
    print_table("First calls, seconds", ["", "cache", "programs", "all", *STAGES, "Python and run"], rows)


def print_calls(found: Sequence[Call]) -> None:
    """Later calls."""
    rows = [[call.what, f"{1e3 * call.seconds:.3f}", f"{100 * call.spread:.0f} %", str(call.calls)] for call in found]
    print_table(
        f"A call of {STEPS} steps after that, milliseconds (spread: 10 to 90 %)", ["", "ms", "spread", "calls"], rows
    )
    worst = max((call for call in found if "one network" in call.what), key=lambda call: call.seconds)
    verdict = "reached" if worst.seconds <= WANTED_OVERHEAD else f"missed by {worst.seconds / WANTED_OVERHEAD:.2f}"
    say(f"Wanted: at most {1e3 * WANTED_OVERHEAD:g} ms for one network. Most: {1e3 * worst.seconds:.2f} ms: {verdict}.")


def main(*, quick: bool = False, out: Path = OUT) -> None:
    """Measure, print, and write OUT/compile_time.json.

    Parameters
    ----------
    quick
        One solver and one program of the study: a check that everything runs, no measurement.
    """
    n, solvers, networks = (2, ["ForwardEuler"], ["one network"]) if quick else (8, list(SOLVERS), list(NETWORKS))
    first: list[First] = []
    for solver in solvers:
        for network in networks[:2]:
            first += measure_first(f"{solver}, {network}", simulated, solver, network, n)
    first += measure_first("default study", compiled_study, quick)
    if not quick:
        kept = f"default study, kept from {CLI_SECONDS} s on"
        first += measure_first(kept, compiled_study, quick, least=CLI_SECONDS)
    print_first(first)
    fixed = [solver for solver in solvers if "adaptive" not in solver]
    calls = [
        measure_call(f"{solver}, {network}", simulated(solver, network, n), 20 if quick else 200)
        for network in networks
        for solver in (fixed if network == "one network" else fixed[:2])
    ]
    print_calls(calls)
    harness.write_json(
        out / "compile_time.json", {"machine": harness.machine(), "first": first, "calls": calls, "n": n}
    )


if __name__ == "__main__":
    harness.restart_on_one_core()
    cyclopts.run(main)
