"""Running a plan: threads that compute chunks, a store that takes them, and a clean end whatever happens.

Each worker thread computes one chunk at a time; XLA releases Python's lock while a program runs, so threads of one
process fill the cores. Programs are compiled ahead by threads of their own, while earlier combinations run.
"""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import xarray

from .._errors import JaxoscError
from .memory import readable
from .plan import Chunk, Plan, make_plan
from .progress import Reporter, reporter
from .schema import attributes, dataset, utc_now, variables
from .spec import Sweep
from .store import open_or_create, region, stored_sweep
from .work import Work


@runtime_checkable
class Sink(Protocol):
    """Where chunks go: a store on disk, or memory."""

    plan: Plan
    done: set[int]

    def write(self, chunk: Chunk, arrays: dict[str, np.ndarray]) -> None:
        """Keep the chunk's arrays; called by many threads."""

    def record(self, chunk: Chunk, elapsed_s: float) -> None:
        """Note that the chunk is kept; called by one thread at a time."""

    def finish(self) -> None:
        """Note that all chunks are kept."""

    def result(self) -> xarray.Dataset:
        """The dataset."""


class MemorySink:
    """Chunks in arrays of this process, for `run(None)`."""

    def __init__(self, plan: Plan) -> None:
        if plan.data_bytes > plan.memory:
            raise JaxoscError(
                f"Got a plan whose dataset takes {readable(plan.data_bytes)}, expected at most {readable(plan.memory)}"
                " in memory: give run a path, or take fewer members."
            )
        shape = tuple(len(dim.values) for dim in plan.dimensions)
        self.plan, self.done = plan, set[int]()
        self._arrays = {v.name: np.full(shape, v.fill_value, v.dtype(plan.sweep)) for v in variables(plan.sweep)}
        self._attrs = attributes(plan.sweep)

    def write(self, chunk: Chunk, arrays: dict[str, np.ndarray]) -> None:
        """Copy the chunk into its place."""
        where = region(self.plan, chunk)
        for name, values in arrays.items():
            target = self._arrays[name][where]
            target[...] = values.reshape(target.shape)

    def record(self, chunk: Chunk, elapsed_s: float) -> None:
        """Count it."""
        self.done.add(chunk.number)
        self._attrs["wall_time_s"] = round(elapsed_s, 3)

    def finish(self) -> None:
        """Date it."""
        self._attrs["finished"] = utc_now()

    def result(self) -> xarray.Dataset:
        """The dataset, in memory."""
        return dataset(self.plan.sweep, self._arrays, self._attrs)


def run(
    sweep: Sweep,
    path: str | Path | None = None,
    *,
    chunk_members: int | None = None,
    memory: int | float | str | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> xarray.Dataset:
    """Run `sweep` into the store at `path`, or continue it if the store holds the same sweep.

    The data do not depend on any option here, bit for bit on one platform.

    **Arguments:**

    - `path`: directory of the store; None keeps everything in memory.
    - `chunk_members`, `memory`, `workers`: as `make_plan`; an existing store keeps its own chunks.
    - `progress`: False for silence; otherwise a bar on a terminal and plain lines elsewhere, on standard error.

    **Returns:** the dataset, from a store lazily.

    **Raises:** `JaxoscError` before any work when the plan or the path cannot work. `KeyboardInterrupt` passes through
    after the chunks at work were dropped and the ledger was left consistent.
    """
    plan = make_plan(sweep, chunk_members=chunk_members, memory=memory, workers=workers)
    sink: Sink = MemorySink(plan) if path is None else open_or_create(Path(path), plan)
    run_into(sink, reporter(progress), None if path is None else Path(path))
    return sink.result()


def resume(
    path: str | Path,
    *,
    memory: int | float | str | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> xarray.Dataset:
    """Compute what is missing in the store at `path`, from the spec it holds; options as in `run`.

    **Raises:** `JaxoscError` when there is no whole store, when a file its spec refers to has changed, and when the
    sweep was made with Python objects (then run the same `Sweep` on the path).
    """
    return run(stored_sweep(Path(path)), path, memory=memory, workers=workers, progress=progress)


def run_into(sink: Sink, report: Reporter, path: Path | None = None) -> Work:
    """Compute every chunk that `sink` has not, and finish it. Returns the `Work` that was used, for its counts."""
    plan = sink.plan
    work = Work(plan, _devices(plan))
    missing = [chunk for chunk in plan.chunks() if chunk.number not in sink.done]
    if not missing:
        report.say(f"{'All' if path is None else path}: all {plan.num_chunks:,} chunks were done already.")
        return work
    with report:
        report.begin(plan, set(sink.done))
        try:
            _compute_all(missing, work, sink, report)
        except KeyboardInterrupt:
            kept = "" if path is None else f", which stay: continue with jaxosc resume {path} (jo.sweeps.resume)"
            report.say(f"Interrupted after {len(sink.done):,} of {plan.num_chunks:,} chunks{kept}.")
            raise
    sink.finish()
    return work


def _compute_all(missing: list[Chunk], work: Work, sink: Sink, report: Reporter) -> None:
    """Feed the workers, a few chunks ahead and no more, until all is done or something fails."""
    workers = work.plan.workers
    begun = time.monotonic()
    telling = threading.Lock()
    turns = itertools.count()

    def told(chunk: Chunk, members: int) -> None:
        with telling:
            report.advance(chunk, members)

    def task(chunk: Chunk) -> None:
        arrays = work.compute(chunk, next(turns) % len(work.devices), told)
        sink.write(chunk, arrays)
        with telling:
            sink.record(chunk, time.monotonic() - begun)
            report.chunk_done(chunk)

    waiting: set[Future[None]] = set()
    queue = iter(missing)
    compiling = _compilations(missing, work)
    with ThreadPoolExecutor(workers, "sweep") as pool, ThreadPoolExecutor(workers, "compile") as compilers:
        try:
            prepared: set[Future[None]] = set()
            while True:
                for chunk in itertools.islice(queue, 2 * workers - len(waiting)):
                    waiting.add(pool.submit(task, chunk))
                for chunk, device in itertools.islice(compiling, 2 * workers - len(prepared)):
                    prepared.add(compilers.submit(work.prepare, chunk, device))
                if not waiting:
                    return
                # With a timeout, because a wait without one is deaf to Ctrl-C on some platforms.
                finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                ready = {future for future in prepared if future.done()}
                prepared -= ready
                for future in finished | ready:
                    future.result()
        except BaseException as stop:
            work.stop.set()
            if isinstance(stop, KeyboardInterrupt):
                report.say("Stopping when the blocks at work are through ...")
            pool.shutdown(wait=False, cancel_futures=True)
            compilers.shutdown(wait=False, cancel_futures=True)
            raise


def _compilations(missing: list[Chunk], work: Work) -> Iterator[tuple[Chunk, int]]:
    """The first chunk of every combination, in order, with each device."""
    seen = set()
    for chunk in missing:
        if chunk.combination.index not in seen:
            seen.add(chunk.combination.index)
            for device in range(len(work.devices)):
                yield chunk, device


def _devices(plan: Plan) -> tuple[Any, ...]:
    """All accelerators of this process, or the first CPU device: threads alone fill the cores of a CPU."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return (devices[0],)
    return tuple(devices[: plan.workers])
