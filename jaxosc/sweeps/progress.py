"""Telling a person how a sweep goes: a rich bar in a terminal, plain lines elsewhere, or nothing."""

import abc
import sys
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from .plan import Chunk, Plan

LINE_EVERY_S = 10.0
"""Seconds between plain lines: enough for a log file, not a flood."""


class Reporter(abc.ABC):
    """What the runner tells while it works; all calls come from one thread at a time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        return None

    @abc.abstractmethod
    def begin(self, plan: Plan, done: set[int]) -> None:
        """The plan, and the numbers of its chunks that were there already."""

    @abc.abstractmethod
    def advance(self, chunk: Chunk, members: int) -> None:
        """So many members of a chunk are computed."""

    @abc.abstractmethod
    def chunk_done(self, chunk: Chunk) -> None:
        """The chunk is in the store."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """A line of its own."""


class Silent(Reporter):
    """Says nothing."""

    def begin(self, plan: Plan, done: set[int]) -> None:
        """Nothing."""

    def advance(self, chunk: Chunk, members: int) -> None:
        """Nothing."""

    def chunk_done(self, chunk: Chunk) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class _RateColumn(ProgressColumn):
    """Member-steps per second."""

    def render(self, task: Task) -> Text:
        """The rate since the run began."""
        return Text(_rate(task.fields["steps"], task.elapsed or 0.0))


class Bar(Reporter):
    """A live bar: done and all chunks, rate, elapsed and remaining time, the combination at work.

    The bar's length is estimated work, not chunks: a chunk of small dt takes a hundred times longer than one of large
    dt, and remaining time by chunks would be wrong by as much.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[chunks]}/{task.fields[all_chunks]} chunks"),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    def begin(self, plan: Plan, done: set[int]) -> None:
        """Set the bar up."""
        self._plan, self._chunks = plan, len(done)
        # rich declares `completed` an int and takes any number.
        done_work: Any = sum(plan.work(plan.chunk(number)) for number in done)
        self._task = self._progress.add_task(
            "compiling",
            total=sum(plan.work(chunk) for chunk in plan.chunks()),
            completed=done_work,
            steps=0,
            chunks=len(done),
            all_chunks=plan.num_chunks,
        )

    def advance(self, chunk: Chunk, members: int) -> None:
        """Move the bar."""
        task = self._progress.tasks[self._task]
        self._progress.update(
            self._task,
            advance=self._plan.work(chunk) * members / chunk.members,
            steps=task.fields["steps"] + members * self._plan.num_steps(chunk.dt_index),
            description=f"{chunk.combination.label}, dt = {self._plan.sweep.dt[chunk.dt_index]:.3g}",
        )

    def chunk_done(self, chunk: Chunk) -> None:
        """Count it."""
        self._chunks += 1
        self._progress.update(self._task, chunks=self._chunks)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, highlight=False)


class Lines(Reporter):
    """A plain line every few seconds, for pipes and log files."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, plan: Plan, done: set[int]) -> None:
        """Start the clock."""
        self._plan, self._chunks, self._steps = plan, len(done), 0
        self._begun = self._last = time.monotonic()

    def advance(self, chunk: Chunk, members: int) -> None:
        """Print if it is time."""
        self._steps += members * self._plan.num_steps(chunk.dt_index)
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._print(chunk)

    def chunk_done(self, chunk: Chunk) -> None:
        """Count it, and print the last one."""
        self._chunks += 1
        if self._chunks == self._plan.num_chunks:
            self._print(chunk)

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def _print(self, chunk: Chunk) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._begun
        self.say(
            f"{self._chunks}/{self._plan.num_chunks} chunks, {_rate(self._steps, elapsed)}, {elapsed:.0f} s,"
            f" {chunk.combination.label}"
        )


def reporter(wanted: bool | None) -> Reporter:
    """A bar on a terminal, lines elsewhere, nothing if `wanted` is False; all on standard error."""
    if wanted is False:
        return Silent()
    console = Console(file=sys.stderr)
    return Bar(console) if console.is_terminal else Lines(console)


def _rate(steps: int, elapsed: float) -> str:
    if not steps or elapsed <= 0:
        return "- member-steps/s"
    return f"{steps / elapsed:.2e} member-steps/s"
