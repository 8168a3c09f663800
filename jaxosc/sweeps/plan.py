"""How a sweep is cut into work, and what it will cost, before any of it is done.

- A *combination* is one value of every static axis (activation, solver, weight law, neurons): one compiled program.
- A *chunk* is one combination, one dt, and a range of the lane axes (all the others): one chunk of the Zarr arrays, one
  line of the ledger, one write. Ranges are cut from the outermost lane axis, so they are contiguous.
- A *block* is what one call of the program runs: a fixed number of lanes that depends on the sweep alone. A member's
  lane is its number modulo that width, whatever the chunks are, so chunking cannot change a bit.
"""

import dataclasses
import functools
import io
import math
import os
from collections.abc import Iterator
from typing import Any

import diffrax
import numpy as np
from rich.console import Console
from rich.table import Table

from .._choices import UNROLLED_UP_TO
from .._errors import JaxoscError
from ..simulate.steppers import tableau_of
from ..solvers import EnergyProjection, ForwardEuler, PoissonSplitting, Taylor
from ..solvers.compositions import SWEEPS_PER_STEP
from .catalogue import Choice
from .memory import amount, memory_bound, readable
from .schema import Dimension, dimensions, variables
from .spec import Sweep

MOST_LANES = 1024
"""Widest block."""

NEURONS_PER_BLOCK = 2048
"""Neurons of all lanes with own weights together: 1024 lanes at n = 2, 256 at n = 8, whose weights then take 64 KiB in
float32. Measured on one core with tsit5, ns per neuron and step for 128, 256, 512, 1024, 2048 lanes: 12, 11, 15, 18, 26
at n = 8, and 16, 14, 10, 10, 10 at n = 2."""

OWN_BELOW = UNROLLED_UP_TO + 1
"""Below this n every lane has its own W; from it on lanes share one, and a step is a matrix product. Measured on one
core with Euler in float32: 20 ns per neuron and step at n = 12 with own W, 2.4 at n = 16 with shared W."""

DEFAULT_CHUNK_MEMBERS = 32_768
"""Most members of a chunk by default; fewer where memory or the next constant asks for it."""

CHUNK_SECONDS = 10.0
"""Longest chunk by default, as the cost model sees it: an interruption loses little, and all workers get some."""

FILE_OVERHEAD = 4096
"""Bytes that a small file wastes on common file systems; a chunk is one file per variable."""

_SHARED_AT_LEAST = 8
"""Fewer starts than this per W do not fill the columns of a matrix product."""


@dataclasses.dataclass(frozen=True)
class Combination:
    """One value of every static axis; `index` is its place along the static dimensions."""

    index: tuple[int, ...]
    activation: Choice
    solver: Choice
    law: Choice
    neurons: int

    @property
    def label(self) -> str:
        """A short name for progress lines."""
        return f"{self.activation.label}, {self.solver.label}, n = {self.neurons}"


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A unit of work: number `number`, one combination and dt, and `lanes`, a (start, stop) for every lane axis."""

    number: int
    combination: Combination
    dt_index: int
    lanes: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Members along every lane axis."""
        return tuple(stop - start for start, stop in self.lanes)

    @property
    def members(self) -> int:
        """How many members it has."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Lanes:
    """Which lane axes vary within a block (`inner`), which are outside (`outer`), and a block's width.

    `shared` blocks have one W for all lanes, and inner axes that do not change W beyond a factor.
    """

    inner: tuple[str, ...]
    outer: tuple[str, ...]
    width: int
    shared: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep cut into chunks; prints itself as a table.

    **Attributes:** `sweep`; `chunk_shape`, members of a chunk along every lane axis; `memory`, the bound in bytes that
    was planned for; `workers`, blocks that run at the same time.
    """

    sweep: Sweep
    chunk_shape: tuple[int, ...]
    memory: int
    workers: int

    @functools.cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All dimensions of the dataset."""
        return dimensions(self.sweep)

    @functools.cached_property
    def lane_dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions that are neither static nor dt, in order."""
        return tuple(dim for dim in self.dimensions if not dim.static and dim.name != "dt")

    @functools.cached_property
    def lane_shape(self) -> tuple[int, ...]:
        """The lengths of the lane dimensions."""
        return tuple(len(dim.values) for dim in self.lane_dimensions)

    @functools.cached_property
    def combinations(self) -> tuple[Combination, ...]:
        """All combinations, in the order of the static dimensions."""
        sweep = self.sweep
        made = []
        for i, activation in enumerate(sweep.activation):
            for j, solver in enumerate(sweep.solver):
                for k, law in enumerate(sweep.laws):
                    for m, neurons in enumerate(sweep.neurons):
                        index = (i, j, m) if sweep.weight_law is None else (i, j, k, m)
                        made.append(Combination(index, activation, solver, law, neurons))
        return tuple(made)

    @property
    def chunks_per_dt(self) -> int:
        """Chunks that share a combination and a dt."""
        return math.prod(-(-size // part) for size, part in zip(self.lane_shape, self.chunk_shape, strict=True))

    @property
    def num_chunks(self) -> int:
        """Chunks in all."""
        return len(self.combinations) * len(self.sweep.dt) * self.chunks_per_dt

    def chunk(self, number: int) -> Chunk:
        """The chunk of a number: combinations outermost, then dt, then the lane axes."""
        rest, within = divmod(number, self.chunks_per_dt)
        combination, dt_index = divmod(rest, len(self.sweep.dt))
        counts = [-(-size // part) for size, part in zip(self.lane_shape, self.chunk_shape, strict=True)]
        places = np.unravel_index(within, counts)
        lanes = tuple(
            (int(place) * part, min((int(place) + 1) * part, size))
            for place, part, size in zip(places, self.chunk_shape, self.lane_shape, strict=True)
        )
        return Chunk(number, self.combinations[combination], dt_index, lanes)

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in order."""
        return (self.chunk(number) for number in range(self.num_chunks))

    def num_steps(self, dt_index: int) -> int:
        """Steps of a run: the whole number nearest to duration/dt."""
        return max(round(self.sweep.duration / self.sweep.dt[dt_index]), 1)

    @property
    def members(self) -> int:
        """Members in all."""
        return len(self.combinations) * len(self.sweep.dt) * math.prod(self.lane_shape)

    @property
    def member_steps(self) -> int:
        """Steps of all members together, if none escapes."""
        steps = sum(self.num_steps(k) for k in range(len(self.sweep.dt)))
        return len(self.combinations) * math.prod(self.lane_shape) * steps

    @property
    def disk_bytes(self) -> int:
        """Bytes of the store: the variables before compression, and what a file system adds to each file."""
        files = self.num_chunks * len(variables(self.sweep))
        return self.data_bytes + files * FILE_OVERHEAD

    @property
    def data_bytes(self) -> int:
        """Bytes of the variables."""
        return self.members * bytes_per_member(self.sweep)

    @property
    def memory_bytes(self) -> int:
        """Bytes that all workers together hold, estimated for the largest network."""
        held = math.prod(self.chunk_shape) * bytes_per_member(self.sweep)
        return self.workers * (held + block_bytes(self.sweep, max(self.sweep.neurons)))

    def work(self, chunk: Chunk) -> float:
        """The estimated cost of a chunk in seconds of one worker, for progress and the plan's time."""
        steps = self.num_steps(chunk.dt_index)
        return 1e-9 * chunk.members * steps * step_cost(self.sweep, chunk.combination)

    @property
    def seconds(self) -> float:
        """Estimated wall time: a cost model per member and step, and the compilations. Good to a factor of about 2."""
        steps = sum(self.num_steps(k) for k in range(len(self.sweep.dt)))
        per_member = sum(step_cost(self.sweep, combination) for combination in self.combinations)
        running = 1e-9 * math.prod(self.lane_shape) * steps * per_member
        return (running + COMPILE_SECONDS * len(self.combinations)) / self.workers

    def __rich__(self) -> Table:
        table = Table(title="Sweep plan", title_justify="left", show_header=False, min_width=60)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, text in self._rows():
            table.add_row(name, text)
        return table

    def __str__(self) -> str:
        # Plain text also in a notebook, where rich would add escape codes to anything it prints.
        console = Console(file=io.StringIO(), width=110, force_jupyter=False, force_terminal=False, color_system=None)
        console.print(self)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().rstrip()

    def _rows(self) -> Iterator[tuple[str, str]]:
        for dim in self.dimensions:
            kind = "one program each" if dim.static else ("in turn" if dim.name == "dt" else "side by side")
            yield dim.name, f"{len(dim.values):>5}  {_span(dim)}  ({kind})"
        cut = " x ".join(f"{n}" for n in self.chunk_shape)
        yield "programs", f"{len(self.combinations):,} to compile"
        yield "members", f"{self.members:,} in {self.num_chunks:,} chunks of at most {cut} ({self._lane_names()})"
        yield "member-steps", f"{self.member_steps:.3g} over a duration of {self.sweep.duration:g}, {self.sweep.dtype}"
        bound = readable(self.memory)
        yield "memory", f"about {readable(self.memory_bytes)} of arrays with {self.workers} workers (bound {bound})"
        yield "disk", f"at most {readable(self.disk_bytes)}"
        yield "time", f"about {_duration(self.seconds)}, an estimate from a cost model; the progress bar measures"

    def _lane_names(self) -> str:
        return ", ".join(dim.name for dim in self.lane_dimensions)


def make_plan(
    sweep: Sweep,
    *,
    chunk_members: int | None = None,
    memory: int | float | str | None = None,
    workers: int | None = None,
    chunk_shape: tuple[int, ...] | None = None,
) -> Plan:
    """Cut `sweep` into chunks.

    **Arguments:**

    - `chunk_members`: most members of a chunk; by default 32,768, or fewer where memory asks for it.
    - `memory`: bound on the memory of all workers, bytes or a text such as "2 GB"; a quarter of the machine's if None.
    - `workers`: blocks that run at the same time; by default one per core of the CPU, or one per accelerator.
    - `chunk_shape`: the exact cut of an existing store, instead of all that.

    **Raises:** `JaxoscError` when not even one block fits into the memory bound, and for numbers that are not positive.
    """
    workers = default_workers() if workers is None else workers
    for name, value in (("chunk_members", chunk_members), ("workers", workers)):
        if value is not None and value < 1:
            raise JaxoscError(f"Got {name} = {value}, expected a whole number >= 1: correct {name}.")
    bound = memory_bound() if memory is None else amount("memory", memory)
    block = block_bytes(sweep, max(sweep.neurons))
    if block + bytes_per_member(sweep) > bound:
        raise JaxoscError(
            f"Got a plan whose smallest block needs {readable(block)} (n = {max(sweep.neurons)}, {sweep.dtype}),"
            f" expected at most {readable(bound)} of memory: take fewer neurons, float32, or a larger memory bound."
        )
    workers = max(min(workers, int(bound // (block + bytes_per_member(sweep)))), 1)
    plan = Plan(sweep, chunk_shape or (), bound, workers)
    if chunk_shape is not None:
        return plan
    affordable = max(int((bound / workers - block) // bytes_per_member(sweep)), 1)
    most = min(chunk_members or _default_chunk_members(plan), affordable)
    return dataclasses.replace(plan, chunk_shape=_cut(plan.lane_shape, most))


def _default_chunk_members(plan: Plan) -> int:
    """Members whose run at the smallest dt takes `CHUNK_SECONDS`, at least a full block of them."""
    steps = plan.num_steps(int(np.argmin(plan.sweep.dt)))
    seconds = 1e-9 * steps * max(step_cost(plan.sweep, combination) for combination in plan.combinations)
    block = max(lanes_of_sweep(plan.sweep, n).width for n in plan.sweep.neurons)
    return min(DEFAULT_CHUNK_MEMBERS, max(int(CHUNK_SECONDS / seconds), block))


def lanes_of_sweep(sweep: Sweep, neurons: int) -> Lanes:
    """How the members of size `neurons` are put into blocks. A function of the sweep alone, see the module."""
    lengths = {dim.name: len(dim.values) for dim in dimensions(sweep) if not dim.static and dim.name != "dt"}
    # A custom axis sees the network with its gain and leak in place, so with one they cannot be left to the lanes.
    factors = () if sweep.axes else tuple(name for name in ("gain", "leak") if name in lengths)
    # A start may have any energy in the same network.
    inner = (*factors, *(name for name in ("energy",) if name in lengths), "ic")
    together = math.prod(lengths[name] for name in inner)
    if sweep.matrix is not None or (neurons >= OWN_BELOW and together >= _SHARED_AT_LEAST):
        outer = tuple(name for name in lengths if name not in inner)
        return Lanes(inner, outer, min(MOST_LANES, _rounded_up(together, 16)), shared=True)
    fitting = min(MOST_LANES, _rounded_up(NEURONS_PER_BLOCK // neurons, 64))
    return Lanes(tuple(lengths), (), min(fitting, _rounded_up(math.prod(lengths.values()), 64)), shared=False)


def default_workers() -> int:
    """One per core on a CPU (two calls of one program scale to about 2), one per device on accelerators."""
    import jax

    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return len(devices)
    # Not all cores of a shared machine may be ours; only Linux says which.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def bytes_per_member(sweep: Sweep) -> int:
    """Bytes of one member's variables."""
    return sum(variable.dtype(sweep).itemsize for variable in variables(sweep))


def block_bytes(sweep: Sweep, neurons: int) -> int:
    """Estimated bytes of one block in flight: matrices (and their transposes), states, stages, raw draws of a tile."""
    item = np.dtype(sweep.dtype).itemsize
    lanes = lanes_of_sweep(sweep, neurons)
    matrices = (4 if lanes.shared else 3 * lanes.width) * neurons**2
    tile = 0 if sweep.matrix is not None else 32 * neurons**2
    states = 24 * lanes.width * neurons + 32 * 32 * neurons
    return item * (matrices + tile + states)


COMPILE_SECONDS = 1.6
"""Seconds of one core for tracing and compiling one program, the mean of the default study."""


def step_cost(sweep: Sweep, combination: Combination) -> float:
    """Nanoseconds of one core per member and step: a rough model, fitted by eye to one machine (n = 2 .. 128, tanh)."""
    n = combination.neurons
    sweeps = isinstance(combination.solver.value, PoissonSplitting)
    evaluation = 0.85 + (0.05 if sweeps else 0.025) * n
    measuring = (0.6 + 4 / n) * len(sweep.measures) / 3
    wide = 2.2 if sweep.dtype == "float64" else 1.0
    # Chaos takes a run of its own, with a deviation beside the state.
    runs = 3 if "chaos" in sweep.measures else 1
    return wide * n * (runs * _evaluations(combination.solver.value) * evaluation + measuring)


def _evaluations(solver: Any) -> int:
    if isinstance(solver, PoissonSplitting):
        return SWEEPS_PER_STEP[solver.accuracy]
    if isinstance(solver, Taylor):
        return 2 * solver.known_order
    if isinstance(solver, EnergyProjection):
        return _evaluations(solver.solver) + 4  # two products, a derivative and an energy
    if (tableau := tableau_of(solver)) is not None:
        return max(tableau.num_stages - int(tableau.fsal), 1)
    return 1 if isinstance(solver, ForwardEuler | diffrax.Euler) else 4


def _cut(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Full extents from the innermost axis outward while their product is at most `most`, then a part, then ones."""
    parts: list[int] = []
    room = most
    for size in reversed(shape):
        part = min(size, max(room, 1))
        parts.append(part)
        room = room // part if part == size else 1
    return tuple(reversed(parts))


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _span(dim: Dimension) -> str:
    if dim.values.dtype.kind == "U":
        return ", ".join(dim.values)
    shown = [f"{value:.4g}" for value in dim.values]
    return ", ".join(shown if len(shown) <= 5 else [*shown[:2], "...", shown[-1]])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
