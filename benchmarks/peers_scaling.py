"""Two cores against one: wall time of the same `jo.simulate`, in processes with one and with two devices, a core each.

XLA makes its threads when it starts, so the cores have to be given before. Nothing else may run on them meanwhile.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jaxosc as jo

from . import apart
from .apart import ApartJob
from .harness import Rules, measure, print_table
from .peers_fixed import Case, simulated


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Wall seconds of a case with one core and with all of `cores`, medians."""

    case: Case
    cores: int
    one: float
    all: float

    @property
    def speedup(self) -> float:
        """`cores` at best."""
        return self.one / self.all


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes begun in here inherit these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure_scaling(cases: Sequence[Case], rules: Rules) -> list[Scaling]:
    """Both processes wait while the other one works."""
    pinned = os.sched_getaffinity(0)
    every = set(range(os.cpu_count() or 1))
    with apart.start() as single, apart.start(len(every)) as wide:
        for process, cores in ((single, pinned), (wide, every)):
            with on_cores(cores):
                apart.flags_apart(process)  # the process begins with the first thing that it is asked
        return [_measured(case, single, wide, len(every), rules) for case in cases]


def _measured(case: Case, single: Any, wide: Any, cores: int, rules: Rules) -> Scaling:
    make = functools.partial(simulated, jo.ForwardEuler(), case)
    found = measure({"one": ApartJob(single, "euler", make), "all": ApartJob(wide, "euler", make)}, rules)
    one, all_cores = (found[name][0].record()["wall_median"] for name in ("one", "all"))
    return Scaling(case, cores, one, all_cores)


def print_scaling(found: Sequence[Scaling]) -> None:
    """A row for each case."""
    rows = [
        [
            row.case.name,
            f"{row.case.nanoseconds(row.one):.3g}",
            f"{row.case.nanoseconds(row.all):.3g}",
            f"{row.speedup:.2f}",
        ]
        for row in found
    ]
    columns = ["", "one core, ns", f"{found[0].cores} cores, ns", "speed-up"]
    print_table("jo.simulate, ForwardEuler, configure_cpu: wall time per neuron and step", columns, rows)
