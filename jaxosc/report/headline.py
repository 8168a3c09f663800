"""The first words of a report: what was run and what came out, in sentences computed from the data."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxosc._errors import JaxoscError
from jaxosc._results import Result
from jaxosc.plotting import code_shares, drift_summary
from jaxosc.plotting.maps import share_text
from jaxosc.plotting.summaries import varied

from .block import Table, render
from .study import Study

if TYPE_CHECKING:
    import xarray

STILL_GROWING = 0.9
"""A final drift of more than this share of the largest one seen says that the error was still growing."""


class Headline:
    """What was run, how far it is, who escaped, which solver keeps energy best, and a table of all of it."""

    title = "What came out"
    anchor = "summary"

    def html(self, study: Study) -> str:
        """Sentences and the table of activations and solvers; raises `JaxoscError` without a `result` variable."""
        sentences = [run_sentence(study), *progress_sentences(study)]
        if study.computed == 0:
            return render("headline.html.j2", sentences=sentences, table=None)
        sentences += escape_sentences(study)
        for more in (energy_sentences, growth_sentences, rhythm_sentences, orbit_sentences):
            try:
                sentences += more(study)
            except JaxoscError as missing:
                sentences.append(str(missing)[0].upper() + str(missing)[1:])
        return render("headline.html.j2", sentences=sentences, table=overview(study))


def run_sentence(study: Study) -> str:
    """How many members of which kinds, followed for how long."""
    dataset = study.dataset
    axes = [(dim, dataset.sizes[dim]) for dim in ("activation", "solver", *varied(dataset))]
    counts = list(dict.fromkeys(_count(size, _PLURALS.get(dim, f"values of {dim}")) for dim, size in axes))
    ensemble = [_count(dataset.sizes[dim], word) for dim, word in _MEMBERS.items() if dim in dataset.sizes]
    duration = dataset.attrs.get("duration")
    length = f", each followed for {float(duration):g} units of time" if duration is not None else ""
    return f"{study.declared:,} members: {' × '.join(counts)}, with {' × '.join(ensemble)} each{length}."


def progress_sentences(study: Study) -> list[str]:
    """How much of the plan is done, when, and on what."""
    attributes = study.dataset.attrs
    how = (
        f"in {attributes.get('dtype', 'an unknown precision')} on {attributes.get('device_kind', 'an unknown device')}"
    )
    wall = float(attributes.get("wall_time_s", 0.0))
    took = f" in {_seconds(wall)} of work" if wall > 0 else ""
    if study.computed < study.declared:
        share = share_text(study.computed / study.declared)
        return [
            f"This is an unfinished study: {study.computed:,} members ({share}) are computed so far{took}, {how}; "
            "every number and picture below is of these only. Continue it with `jaxosc resume`."
        ]
    finished = str(attributes.get("finished", ""))
    when = f"; finished {finished[:16].replace('T', ' ')} UTC" if finished else ""
    return [f"All of them are computed{took}, {how}{when}."]


def escape_sentences(study: Study) -> list[str]:
    """Which share ended otherwise than successfully, and for which activations."""
    counts, computed = study.result_counts, study.computed
    lost = computed - counts[Result.successful.name]
    if lost == 0:
        return ["Every member ran to the end: none escaped, none failed."]
    kinds = [
        f"{share_text(count / computed)} {_VERBS[name]}"
        for name, count in counts.items()
        if count and name != Result.successful.name
    ]
    by_activation = {}
    for name, found in study.results_by_activation.items():
        total = sum(found.values())
        if total:
            by_activation[name] = 1 - found[Result.successful] / total
    some = [f"{name} {share_text(s)}" for name, s in sorted(by_activation.items(), key=lambda kv: -kv[1]) if s > 0]
    none = [name for name, share in by_activation.items() if share == 0]
    first = f"Of the members, {_listed(kinds)} before the run ended."
    second = f"By activation: {_listed(some)}" + (f"; none with {_listed(none)}." if none else ".")
    return [first, second] if len(by_activation) > 1 else [first]


def energy_sentences(study: Study) -> list[str]:
    """Which solver keeps energy best at which step sizes, per activation, among networks that conserve it.

    A member that did not finish counts as worse than any that did, so that losing the difficult ones wins nothing.
    """
    disturbed = study.disturbing_axes
    conserving = study.conserving
    if conserving is None:
        return [
            f"Solvers are not ranked: along {_listed(disturbed)} the energy itself need not be conserved, so its drift "
            "is also the network's own doing."
        ]
    solvers = study.names("solver")
    if len(solvers) < 2:
        return []
    sentences = []
    for activation, winners in zip(study.names("activation"), best_solvers(conserving), strict=True):
        told = [f"{solvers[w]} {span}" for w, span in _runs(winners, study.names("dt")) if w >= 0]
        if told:
            sentences.append(f"With {activation}, energy is kept best by {_listed(told)}.")
        else:
            sentences.append(f"With {activation}, no solver brought half of its members to the end at any step size.")
    zero = [f"These compare members with {_listed([f'{dim} = 0' for dim in disturbed])}."] if disturbed else []
    return _merged(sentences, study.names("activation")) + zero


def best_solvers(dataset: "xarray.Dataset") -> list[list[int]]:
    """Per activation and step size the index of the solver with the lowest median |drift|, -1 where none has one.

    The median is over all members, those that did not finish counted as infinitely far off.
    """
    summary = drift_summary(dataset, ("activation", "solver", "dt"), losses="worst")
    median = np.where(np.isfinite(summary.median), summary.median, np.inf)
    order = np.argmin(median, axis=1)
    return np.where(np.isfinite(np.min(median, axis=1)), order, -1).tolist()


def growth_sentences(study: Study) -> list[str]:
    """Whether each solver's energy error was still growing at the end: a steady loss or gain, or a bounded one."""
    dataset = study.dataset
    study.require("energy_drift", "energy_drift_max")
    told = []
    for index, solver in enumerate(study.names("solver")):
        part = dataset.isel(solver=index)
        final, largest = (np.abs(part[name].values) for name in ("energy_drift", "energy_drift_max"))
        counted = (part["result"].values == int(Result.successful)) & (largest > 0)
        if counted.any():
            growing = final[counted] > STILL_GROWING * largest[counted]
            told.append(f"{solver} in {share_text(float(growing.mean()))}")
    if not told:
        return []
    return [
        f"When the run ended, the energy error was within {100 * (1 - STILL_GROWING):.0f}% of its largest for "
        f"{_listed(told)} of the finished members: a steady gain or loss is always there, a bounded error comes and "
        "goes."
    ]


def rhythm_sentences(study: Study) -> list[str]:
    """Which share of the finished members kept crossing zero, that is, has a period."""
    study.require("period")
    told = []
    for index, activation in enumerate(study.names("activation")):
        part = study.dataset.isel(activation=index)
        finished = part["result"].values == int(Result.successful)
        if finished.any():
            share = float(np.isfinite(part["period"].values[finished]).mean())
            told.append(f"{share_text(share)} with {activation}")
    if not told:
        return []
    return [f"Neuron 0 crossed zero upwards at least twice in {_listed(told)}, of the members that finished."]


def orbit_sentences(study: Study) -> list[str]:
    """The orbit classes that the streamed measures could decide, per activation."""
    shares = code_shares(study.dataset, ("activation",), "orbit")
    told = []
    for activation, row in zip(study.names("activation"), shares.shares, strict=True):
        parts = [
            f"{share_text(float(share))} {name.replace('_', ' ')}"
            for name, share in zip(shares.names, row, strict=True)
            if share > 0
        ]
        if parts:
            told.append(f"{activation}: {', '.join(parts)}")
    return [f"Orbits, as far as measures taken during the run can tell. {'; '.join(told)}."] if told else []


def overview(study: Study) -> Table | None:
    """One row per activation and solver: drift at the smallest and the largest step, and who did not finish."""
    try:
        summary = drift_summary(study.dataset, ("activation", "solver", "dt"))
    except JaxoscError:
        return None
    dt = study.names("dt")
    ends = [0] if len(dt) == 1 else [0, len(dt) - 1]
    header = ["activation", "solver", *(f"drift, dt = {dt[k]}" for k in ends), *(f"lost, dt = {dt[k]}" for k in ends)]
    rows = []
    for i, activation in enumerate(study.names("activation")):
        for j, solver in enumerate(study.names("solver")):
            drift = [number_text(summary.median[i, j, k]) for k in ends]
            lost = [lost_text(summary.unfinished[i, j, k]) for k in ends]
            rows.append([activation, solver, *drift, *lost])
    caption = (
        f"Median of |{summary.variable}| over the members that finished (all axes but these pooled), and the share "
        "that did not finish."
    )
    return Table(caption, header, rows)


def number_text(value: float) -> str:
    """A measured number in two digits, or a dash where there is none."""
    return f"{value:.1e}" if math.isfinite(value) else "–"


def lost_text(share: float) -> str:
    """The share of members that did not finish, or a dash where nothing is computed."""
    return share_text(share) if math.isfinite(share) else "–"


_PLURALS = {
    "activation": "activations", "solver": "solvers", "neurons": "network sizes", "gain": "gains", "dt": "step sizes",
    "leak": "leaks", "asymmetry": "asymmetries", "weight_law": "weight laws",
}  # fmt: skip
_VERBS = {
    "escaped": "escaped",
    "non_finite": "became NaN or infinite",
    "max_steps_reached": "used up their steps",
    "solver_failed": "failed in the solver",
}
_MEMBERS = {"draw": "weight draws", "ic": "starts"}


def _count(size: int, plural: str) -> str:
    """A number with its noun, such as 1 solver or 3 solvers."""
    if size != 1:
        return f"{size} {plural}"
    return f"1 {plural.removesuffix('s') if not plural.endswith('ies') else plural[:-3] + 'y'}"


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _runs(winners: list[int], dt: list[str]) -> list[tuple[int, str]]:
    """Neighbouring step sizes with the same winner as one span in words."""
    spans: list[tuple[int, int, int]] = []
    for k, winner in enumerate(winners):
        if spans and spans[-1][0] == winner:
            spans[-1] = (winner, spans[-1][1], k)
        else:
            spans.append((winner, k, k))
    if len(spans) == 1 and len(dt) > 1:
        return [(spans[0][0], f"at every dt ({dt[0]} to {dt[-1]})")]
    return [(w, f"at dt = {dt[a]}" if a == b else f"from dt = {dt[a]} to {dt[b]}") for w, a, b in spans]


def _merged(sentences: list[str], activations: list[str]) -> list[str]:
    """Say once what is the same for several activations."""
    by_rest: dict[str, list[str]] = {}
    for sentence, activation in zip(sentences, activations, strict=True):
        by_rest.setdefault(sentence.removeprefix(f"With {activation}"), []).append(activation)
    return [f"With {_listed(names)}{rest}" for rest, names in by_rest.items()]
