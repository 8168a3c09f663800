"""Time per step and per trajectory: ours beside hand-written C, the machine's limit, and the libraries people use.

python -m benchmarks.peers [--quick] [--out DIR]
"""

import dataclasses
from pathlib import Path
from typing import Any

import cyclopts

from . import apart, harness, peers_fixed
from .harness import Rules, print_table, say
from .peers_fixed import Case, Found

OUT = Path("build/benchmarks")


@dataclasses.dataclass(frozen=True)
class Study:
    """How large: members by n (one W, a W each), steps, and how long to measure."""

    shared: dict[int, int]
    own: dict[int, int]
    steps: int
    rules: Rules

    def case(self, n: int, own: bool, dtype: str) -> Case:
        """One of its cases."""
        return Case(n, own, dtype, (self.own if own else self.shared)[n], self.steps)


FULL = Study(
    shared={2: 4096, 8: 4096, 32: 4096, 128: 4096},
    own={2: 4096, 8: 4096, 32: 4096, 128: 1024},
    steps=1000,
    rules=Rules(rounds=5, sample=0.1, long=6.0),
)
QUICK = Study(shared={2: 256, 32: 64}, own={2: 256, 32: 64}, steps=100, rules=Rules(rounds=1, sample=0.01, long=0.1))


def print_case(found: Found) -> None:
    """A table of one case."""
    c, roofline = found.of(peers_fixed.C), found.roofline
    lines = [
        [
            row.name,
            f"{row.nanoseconds:.3g}",
            f"{100 * row.spread:.0f} %",
            f"{row.nanoseconds / c:.2f}",
            f"{row.nanoseconds / roofline:.2f}",
            f"{row.rounding:.0e}",
            f"{row.error:.0e}",
            f"{row.timing.warm_up:.2f} s",
        ]
        for row in found.rows
    ]
    case = found.case
    title = f"{case.name}: {case.members:,} members, {case.steps:,} steps; roofline {roofline:.3g} ns"
    columns = ["", "ns/neuron/step", "spread", "/ C", "/ roofline", "from Euler", "from truth", "first call"]
    print_table(title, columns, lines)


def main(
    *,
    quick: bool = False,
    out: Path = OUT,
    sizes: list[int] | None = None,
    dtypes: list[str] | None = None,
    weights: list[str] | None = None,
    only: list[str] | None = None,
) -> None:
    """Measure, print, and write OUT/peers.json.

    Parameters
    ----------
    quick
        Small sizes: a check that everything runs, no measurement.
    """
    study = QUICK if quick else FULL
    record: dict[str, Any] = {"machine": harness.machine(), "study": study, "fixed": []}
    chosen = [peer for peer in peers_fixed.peers() if not only or any(word in peer.name for word in only)]
    for peer in chosen:
        if not peers_fixed.present(peer):
            say(f"{peer.name} is left out: {peer.module} is not installed.")
    chosen = [peer for peer in chosen if peers_fixed.present(peer)]
    with apart.start() as process:
        record["machine"]["XLA_FLAGS of ours with flags"] = apart.flags_apart(process)
        for dtype in dtypes or ["float32", "float64"]:
            for weight in weights or ["shared", "own"]:
                for n in sizes or list(study.shared):
                    found = peers_fixed.measure_case(
                        study.case(n, weight == "own", dtype), chosen, study.rules, process
                    )
                    print_case(found)
                    record["fixed"].append(found)
    harness.write_json(out / "peers.json", record)


if __name__ == "__main__":
    harness.restart_on_one_core()
    cyclopts.run(main)
