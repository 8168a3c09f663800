"""Progress of a loop that improves something: a bar on a terminal, plain lines elsewhere, both on standard error."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_SECONDS = 2.0
"""What takes less says nothing, and lines come at most that often."""


class Watch:
    """What a loop tells about itself, `with Watch(wanted, "tuning", 300) as watch: watch(step, loss=..., ...)`.

    **Arguments:** `wanted`: False for silence, None for a bar on a terminal and lines elsewhere, True the same even
    before two seconds have passed; `name`: of the work; `total`: steps at most.
    """

    def __init__(self, wanted: bool | None, name: str, total: int) -> None:
        self._wanted, self._name, self._total = wanted, name, total
        self._console = Console(file=sys.stderr)
        self._begun = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, **figures: Any) -> None:
        """Tell that `done` steps are over, and how well: figures by name, floats or words."""
        now = time.monotonic()
        if self._wanted is False or (self._wanted is None and now - self._begun < QUIET_SECONDS):
            return
        told = ", ".join(f"{name} {_shown(value)}" for name, value in figures.items())
        if self._console.is_terminal:
            self._move_bar(done, told)
        elif now - self._said >= QUIET_SECONDS or done >= self._total:
            self._said = now
            spent = now - self._begun
            left = spent * (self._total - done) / max(done, 1)
            self._console.print(
                f"{self._name}: {done}/{self._total}{told and ', '}{told}, {spent:.0f} s, at most {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )

    def part(self, begin: float, end: float) -> Callable[[float], None]:
        """For a part of the work that tells its own share, 0 to 1: shows it between two shares of the whole."""

        def tell(share: float) -> None:
            self(round(self._total * (begin + (end - begin) * share)))

        return tell

    def _move_bar(self, done: int, told: str) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
            times = (TimeElapsedColumn(), TextColumn("left at most"), TimeRemainingColumn())
            self._bar = Progress(*columns, *times, TextColumn("{task.fields[told]}"), console=self._console)
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._total, told=told)
        self._bar.update(self._task, completed=done, told=told)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.4g}"
