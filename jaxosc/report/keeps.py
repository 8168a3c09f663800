"""The block that says what each solver keeps: an audit of the chosen member per activation and solver."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxosc._errors import JaxoscError
from jaxosc.audit import Audit, Finding, audit
from jaxosc.plotting.summaries import value_text
from jaxosc.sweeps import Member, member

from .block import Table, render
from .headline import number_text
from .study import Study
from .trajectories import MOST_PANELS, MOST_SOLVERS, place_words

_STEPS = 20_000
_MOST_WORK = 1e8  # steps times n^2: a second
_INVARIANTS = ("energy", "casimirs")  # one compiled program serves both


@dataclass(frozen=True)
class _Row:
    """One member and its audit, or the sentence that says why there is none."""

    activation: str
    solver: str
    member: Member
    report: Audit | str


class Keeps:
    """Which law the energy error of the chosen member follows, under every activation and solver."""

    title = "What each solver keeps"
    anchor = "keeps"

    def html(self, study: Study) -> str:
        """A sentence per solver and a table; raises `JaxoscError` when the members cannot be built again."""
        rows = list(_audits(study))
        done = [row for row in rows if isinstance(row.report, Audit)]
        first = (
            f"The member of the portraits ({place_words(study.dataset, study.place)}), audited over"
            f" {_num_steps(rows[0].member):,} steps in float64, so that rounding hides no law."
        )
        refused = [f"{row.activation} with {row.solver}: {row.report}" for row in rows if row not in done]
        return render("headline.html.j2", sentences=[first, *_by_solver(done), *refused], table=_table(done))


def _audits(study: Study) -> Iterator[_Row]:
    """Audits side by side, as most of each is compiling."""
    dataset, place = study.dataset, study.place
    solvers = min(dataset.sizes["solver"], MOST_SOLVERS)
    activations = min(dataset.sizes["activation"], MOST_PANELS // solvers)
    places = [{"activation": i, "solver": j, **place} for i in range(activations) for j in range(solvers)]
    labels = [{dim: dataset[dim].values[index] for dim, index in found.items()} for found in places]
    members = [member(dataset, **found) for found in labels]
    with ThreadPoolExecutor(min(len(members), os.cpu_count() or 1)) as pool:
        for found, one, report in zip(labels, members, pool.map(_audit, members), strict=True):
            yield _Row(value_text(found["activation"]), value_text(found["solver"]), one, report)


def _audit(one: Member) -> Audit | str:
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array(leaf) else leaf, one.field
        )
        start = jnp.asarray(one.y0, jnp.float64)
        try:
            return audit(wide, start, one.solver, one.dt, one.dt * _num_steps(one), invariants=_INVARIANTS)
        except JaxoscError as reason:
            return str(reason)


def _num_steps(one: Member) -> int:
    return max(min(_STEPS, int(_MOST_WORK / one.field.size**2)), 1000)


def _by_solver(rows: list[_Row]) -> list[str]:
    """What each solver makes of the energy, activations of one verdict together."""
    sentences = []
    for solver in dict.fromkeys(row.solver for row in rows):
        verdicts: dict[str, list[str]] = {}
        for row in rows:
            if row.solver == solver and isinstance(row.report, Audit):
                verdicts.setdefault(_energy_words(row.report), []).append(row.activation)
        told = "; ".join(f"{words} with {', '.join(names)}" for words, names in verdicts.items())
        sentences.append(f"{solver}: the energy error is {told}.")
    return sentences


def _energy_words(report: Audit) -> str:
    left = "" if report.failed is None else f" (the run ended as {report.failed.name.replace('_', ' ')})"
    return f"{_words(report.energy)}{left}"


def _table(rows: list[_Row]) -> Table:
    header = ["activation", "solver", "energy error", "largest", "rate", "confidence", "Casimirs"]
    made = []
    for row in rows:
        assert isinstance(row.report, Audit)
        energy = row.report.energy
        made.append(
            [
                row.activation,
                row.solver,
                _energy_words(row.report),
                "–" if energy.size is None else number_text(energy.size),
                "–" if energy.rate is None else number_text(energy.rate),
                f"{energy.confidence:.2f}",
                ", ".join(dict.fromkeys(_words(finding) for finding in row.report.casimirs)) or "none",
            ]
        )
    caption = (
        "Laws of the errors: rates are per unit time (linear drift, exponential) or per square root of it;"
        " confidence is the share of pieces of the run that follow the law"
    )
    return Table(caption, header, made)


def _words(finding: Finding) -> str:
    return finding.verdict.replace("_", " ")
