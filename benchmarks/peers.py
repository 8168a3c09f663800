"""Time per step and per trajectory: ours beside hand-written C, the machine's limit, and the libraries people use.

    python -m benchmarks.peers [--quick] [--out DIR] [--tables fixed] [--sizes 2 --sizes 8] [--kinds own]
                               [--dtypes float32] [--only NAME] [--picture]

Fixed steps (`peers_fixed`) in float32 and float64 and adaptive ones (`peers_adaptive`) in float64, on one core. Ours is
measured with and without `jo.configure_cpu()` (with it in a process of its own), the peers without. What is not
installed is left out: `pip install ".[bench,peers]"` brings all but a C compiler.

The full run takes about half an hour. A run of some cases keeps what DIR/peers.json knows of the others.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import cyclopts

from . import apart, harness, peers_adaptive, peers_fixed, peers_record
from .harness import Rules, print_table, say
from .peers_fixed import Found
from .peers_picture import draw
from .peers_scaling import Scaling, measure_scaling, print_scaling
from .peers_wanted import Answer, answers, of_bare

OUT = Path("build/benchmarks")
PICTURE = Path("notebooks/pictures/peers.png")


@dataclasses.dataclass(frozen=True)
class Study:
    """How large: members by n for one W and for a W each, fixed steps by n, members by n of adaptive runs."""

    shared: dict[int, int]
    own: dict[int, int]
    steps: dict[int, int]
    adaptive: dict[int, int]
    t1: float
    rules: Rules

    def fixed_cases(self, sizes: Sequence[int], dtypes: Sequence[str], kinds: Sequence[str]) -> list[peers_fixed.Case]:
        """Those of these sizes, types and kinds."""
        return [
            peers_fixed.Case(n, members is self.own, dtype, members[n], self.steps[n])
            for dtype in dtypes
            for kind, members in (("shared", self.shared), ("own", self.own))
            for n in sizes
            if n in members and kind in kinds
        ]

    def adaptive_cases(self, sizes: Sequence[int], kinds: Sequence[str]) -> list[peers_adaptive.Case]:
        """As many members for one W as for a W or a gain each."""
        return [
            peers_adaptive.Case(n, kind, self.adaptive[n], self.t1)
            for kind in peers_adaptive.KINDS
            for n in sizes
            if n in self.adaptive and kind in kinds
        ]


# 1,024 members of 128 neurons with a W each: their weights are 67 MB in float32, far beyond the second cache. So many
# steps that a call of the C reference takes about a tenth of a second: what a call costs once is another question.
FULL = Study(
    shared={2: 4096, 8: 4096, 32: 4096, 128: 4096},
    own={2: 4096, 8: 4096, 32: 4096, 128: 1024},
    steps={2: 50_000, 8: 10_000, 32: 2000, 128: 1000},
    adaptive={2: 4096, 8: 1024, 32: 256},
    t1=peers_adaptive.T1,
    rules=Rules(rounds=5, sample=0.1, long=4.0),
)
QUICK = Study(
    shared={2: 256},
    own={2: 256},
    steps={2: 100},
    adaptive={2: 32},
    t1=2.0,
    rules=Rules(rounds=1, sample=0.01, long=0.1),
)


def print_case(found: Found) -> None:
    """A table of one case."""
    c, roofline = found.of(peers_fixed.IN_C), found.roofline
    lines = [
        [
            row.name,
            f"{row.nanoseconds:.3g}",
            f"{100 * row.spread:.0f} %",
            _cell(row.nanoseconds / c, ".2f"),
            _cell(row.nanoseconds / roofline, ".2f"),
            _cell(row.rounding, ".0e"),
            f"{row.error:.0e}",
            f"{row.timing.warm_up:.1f} s",
        ]
        for row in found.rows
    ]
    case = found.case
    title = (
        f"{case.name}: {case.members:,} members, {case.steps:,} steps; roofline {_cell(roofline)} ns."
        " ns per neuron and step; rounding: from Euler in float64; error: from the true states"
    )
    columns = ["", "ns", "spread", "/ C", "/ roofline", "rounding", "error", "first call"]
    print_table(title, columns, lines)


def print_summary(found: Sequence[Found]) -> None:
    """One table for each type and kind: the peers down, n across."""
    for dtype, own in sorted({(one.case.dtype, one.case.own) for one in found}):
        here = [one for one in found if (one.case.dtype, one.case.own) == (dtype, own)]
        names = list(dict.fromkeys(row.name for one in here for row in one.rows))
        lines = [["roofline", *(_cell(one.roofline) for one in here)]]
        lines += [[name, *(_cell(one.of(name)) for one in here)] for name in names]
        lines.append(["ours / best bare loop in JAX", *(_cell(of_bare(one)) for one in here)])
        title = f"{dtype}, {'a W each' if own else 'one W'}: ns per neuron and step, medians"
        print_table(title, ["", *(f"n = {one.case.n}" for one in here)], lines)


def _cell(value: float, form: str = ".3g") -> str:
    return "-" if math.isnan(value) else format(value, form)


def print_answers(given: Sequence[Answer]) -> None:
    """What was asked for."""
    lines = [
        [
            f"{answer.question}: {answer.case}",
            f"{answer.configured:.2f}",
            f"{answer.plain:.2f}",
            f"{'>=' if answer.at_least else '<='} {answer.wanted:g}",
            answer.verdict,
        ]
        for answer in given
    ]
    print_table("Asked for", ["", "configure_cpu", "without", "wanted", ""], lines)


def why_left_out(peer: peers_fixed.Peer | peers_adaptive.Peer) -> str:
    """A sentence for a peer that cannot run here."""
    if peer.name == peers_fixed.IN_C:
        return "C and the roofline are left out: no gcc or cc is on the PATH."
    return f"{peer.name} is left out: {peer.module} is not installed."


@dataclasses.dataclass(frozen=True)
class Wishes:
    """Which cases and peers: tables among fixed and adaptive, kinds among shared, own and gains, words of names."""

    tables: Sequence[str]
    sizes: Sequence[int]
    kinds: Sequence[str]
    dtypes: Sequence[str]
    only: Sequence[str]

    def chosen(self, module: ModuleType) -> list[Any]:
        """Those peers of a table that are wanted and can run; says which cannot."""
        wanted = [peer for peer in module.peers() if not self.only or any(word in peer.name for word in self.only)]
        present = [peer for peer in wanted if module.present(peer)]
        for peer in wanted:
            if peer not in present:
                say(why_left_out(peer))
        return present


def measure(study: Study, wishes: Wishes, keep: Callable[[str, Any], None]) -> str:
    """All cases, each printed and kept as soon as it is done; gives the flags of the second process."""
    with apart.start() as process:
        if "fixed" in wishes.tables:
            measure_fixed(study, wishes, process, keep)
        if "adaptive" in wishes.tables:
            measure_adaptive(study, wishes, process, keep)
        return apart.flags_apart(process)


def measure_fixed(
    study: Study, wishes: Wishes, process: ProcessPoolExecutor, keep: Callable[[str, peers_fixed.Found], None]
) -> None:
    """The cases of fixed steps."""
    chosen = wishes.chosen(peers_fixed)
    for case in study.fixed_cases(wishes.sizes, wishes.dtypes, wishes.kinds):
        found = peers_fixed.measure_case(case, chosen, study.rules, process)
        print_case(found)
        keep("fixed", found)


def measure_adaptive(
    study: Study, wishes: Wishes, process: ProcessPoolExecutor, keep: Callable[[str, peers_adaptive.Found], None]
) -> None:
    """The cases of adaptive steps."""
    chosen = wishes.chosen(peers_adaptive)
    say("lyapax sweeps with fixed steps alone, and is not among the adaptive ones.")
    for case in study.adaptive_cases(wishes.sizes, wishes.kinds):
        found = peers_adaptive.measure_case(case, chosen, study.rules, process)
        peers_adaptive.print_case(found)
        keep("adaptive", found)


def scaled(study: Study, wishes: Wishes) -> list[Scaling]:
    """Printed too; on request only, since it needs a machine of which all cores are free."""
    found = measure_scaling(study.fixed_cases(wishes.sizes, ("float32",), ("shared",)), study.rules)
    print_scaling(found)
    return found


def main(
    *,
    quick: bool = False,
    out: Path = OUT,
    tables: list[str] | None = None,
    sizes: list[int] | None = None,
    kinds: list[str] | None = None,
    dtypes: list[str] | None = None,
    only: list[str] | None = None,
    picture: bool = False,
) -> None:
    """Measure, print, and write OUT/peers.json.

    Parameters
    ----------
    quick
        Small sizes: a check that everything runs, no measurement.
    tables
        fixed and adaptive (the default), scaling (two cores against one, on an idle machine).
    sizes
        Numbers of neurons, among 2, 8, 32 and 128.
    kinds
        shared (one W), own (a W each), gains (one W, gains of 0.1 to 30, adaptive steps only).
    dtypes
        float32, float64, or both, for fixed steps.
    only
        Words of which a peer's name must have one.
    picture
        Draw the figure of the README from all that OUT/peers.json knows.
    """
    study = QUICK if quick else FULL
    wishes = Wishes(
        tables or ("fixed", "adaptive"),
        sizes or tuple(study.shared),
        kinds or ("shared", "own", "gains"),
        dtypes or ("float32", "float64"),
        only or (),
    )
    path = out / "peers.json"
    record = peers_record.read(path)
    machine = harness.machine()

    def keep(table: str, found: Any) -> None:
        record[table][found.case.name] = found
        record["machines"][found.case.name] = machine

    machine["XLA_FLAGS apart"] = measure(study, wishes, keep)
    if "scaling" in wishes.tables:
        record["scaling"] = scaled(study, wishes)
    fixed = list(record["fixed"].values())
    given = answers(fixed)
    print_summary(fixed)
    if given:
        print_answers(given)
    harness.write_json(path, record | {"study": study, "answers": given})
    if picture:
        draw(fixed, PICTURE)
        say(f"Wrote {PICTURE}.")


if __name__ == "__main__":
    harness.restart_on_one_core()
    cyclopts.run(main)
