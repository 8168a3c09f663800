"""What every benchmark shares: one pinned core, interleaved timing, facts about the machine, tables and JSON.

Rules: compilation and warm-up are timed apart, every job waits for its result, the rounds of all jobs are interleaved
(A B C A B C), so that a busy minute of the machine falls on all of them, and a sample repeats a short job until it is
long enough to be timed. CPU time is what is compared: on one core of an idle machine it is the wall time, and on a busy
one it is still about the job. Both are kept.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxosc._cpu import settings

PACKAGES = ("jaxosc", "jax", "jaxlib", "equinox", "diffrax", "optimistix", "lineax", "numpy", "scipy", "heyoka")
PEERS = ("torch", "torchdiffeq", "torchode", "numba", "lyapax")

SETTINGS = {
    "EQX_ON_ERROR": "nan",  # Diffrax at its documented best: no host callback in the compiled program
    "JAX_ENABLE_X64": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
}
"""Environment of a benchmark; all are read once, while libraries are imported."""

_MARK = "JAXOSC_BENCHMARK_CORE"

console = Console(width=None if sys.stdout.isatty() else 132)
"""Wide enough for the tables where nobody's window limits it."""


def restart_on_one_core(for_speed: bool = False) -> None:
    """Begin the process anew with `SETTINGS`, bound to one core; does nothing in the process that it began.

    `for_speed`: with the compiler settings of `jo.configure_cpu()`, for everybody in the process (Diffrax takes the
    same time with them, or less).

    Thread pools count their cores when they are made, so the binding has to stand before JAX is imported.
    """
    if _MARK in os.environ:
        return
    core = -1
    if hasattr(os, "sched_setaffinity"):
        core = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
    chosen = {**SETTINGS, **(settings() if for_speed else {})}
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **chosen, _MARK: str(core)})


class AnyJob(Protocol):
    """Something to time: here, as a `Job`, or in another process, as an `ApartJob` of `benchmarks.apart`."""

    def first(self) -> float:
        """Wall seconds of the first call."""
        ...

    def timed(self, repeats: int) -> tuple[Any, float, float]:
        """The result of the last call, and CPU and wall seconds per call."""
        ...


@dataclasses.dataclass(frozen=True)
class Job:
    """`run()` gives what it computed. `warm` compiles the same program with less work, if it can."""

    run: Callable[[], Any]
    warm: Callable[[], Any] | None = None

    def first(self) -> float:
        """Wall seconds of the first call."""
        return timed(self.warm or self.run, 1)[2]

    def timed(self, repeats: int) -> tuple[Any, float, float]:
        """The result of the last call, and CPU and wall seconds per call."""
        return timed(self.run, repeats)


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per call: `cpu` and `wall` of each round, and `warm_up` (wall), the first call, which compiles."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]
    warm_up: float

    @property
    def seconds(self) -> float:
        """The median CPU time."""
        return statistics.median(self.cpu)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the CPU times; 0 for a single round."""
        return (max(self.cpu) - min(self.cpu)) / self.seconds if self.seconds else 0.0

    def record(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {"cpu_median": self.seconds, "wall_median": statistics.median(self.wall), **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Rules:
    """How long to measure: at most `rounds`, fewer where a job has already taken `long` seconds in all.

    A sample lasts at least `sample` seconds: shorter jobs are repeated.
    """

    rounds: int = 3
    sample: float = 0.1
    long: float = 3.0


def measure(jobs: Mapping[Any, AnyJob], rules: Rules = Rules()) -> dict[Any, tuple[Timing, Any]]:
    """Time all jobs, interleaved, after a warm-up of each; gives the timing and the result of each job."""
    results: dict[Any, Any] = {}
    warm_up: dict[Any, float] = {}
    for name, job in jobs.items():
        warm_up[name] = job.first()
    samples: dict[Any, list[tuple[float, float]]] = {name: [] for name in jobs}
    repeats: dict[Any, int] = {}
    for _ in range(rules.rounds):
        for name, job in jobs.items():
            if samples[name] and sum(cpu for cpu, _ in samples[name]) >= rules.long:
                continue
            results[name], cpu, wall = job.timed(repeats.get(name, 1))
            if name not in repeats:
                repeats[name] = max(1, round(rules.sample / max(cpu, 1e-6)))
                if repeats[name] > 1:
                    results[name], cpu, wall = job.timed(repeats[name])
            samples[name].append((cpu, wall))
    return {
        name: (Timing(tuple(cpu for cpu, _ in pairs), tuple(wall for _, wall in pairs), warm_up[name]), results[name])
        for name, pairs in samples.items()
    }


def timed(run: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """The result of the last call, and CPU and wall seconds per call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        result = jax.block_until_ready(run())
    return result, (time.process_time() - cpu) / repeats, (time.perf_counter() - wall) / repeats


def machine() -> dict[str, Any]:
    """Where and with what the numbers were measured."""
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": f"1 of {os.cpu_count()}, pinned" if os.environ.get(_MARK, "-1") != "-1" else "not pinned",
        "load average at start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version for name in (*PACKAGES, *PEERS) if (version := _version(name))},
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "float64": bool(jax.config.values["jax_enable_x64"]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                flags = " with AVX-512" if " avx512f" in cpuinfo.read_text() else ""
                return line.partition(":")[2].strip() + flags
    return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def say(sentence: str) -> None:
    """One sentence on the terminal, wrapped at its width."""
    console.print(sentence, highlight=False)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """The record as JSON; what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(record), indent=1) + "\n")
    say(f"Wrote {path}.")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
