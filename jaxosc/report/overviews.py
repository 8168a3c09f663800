"""The blocks that show all members at once: stability maps, drift against step size, shares of codes."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jaxosc._errors import JaxoscError
from jaxosc.plotting import code_shares, drift_against_dt, drift_summary, result_shares, stability_map
from jaxosc.plotting.maps import MapAxes, color_limits, drift_level, map_axes, unfinished_word
from jaxosc.plotting.summaries import CodeShares, DriftSummary, value_text, when_word

from .block import Table, paragraph
from .headline import lost_text, number_text
from .pictures import picture
from .study import Study

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

_MOST_ROWS = 600
"""Rows of a folded table; a person who needs more opens the store itself."""


class StabilityMaps:
    """Energy drift against dt and gain, a panel per activation and solver, a picture per piece of the other axes."""

    title = "Stability maps"
    anchor = "stability"

    def html(self, study: Study) -> str:
        """The maps, all with the same colours; raises `JaxoscError` without energy drift."""
        study.require("result")
        axes = map_axes(study.dataset)
        pieces = list(study.splits(*axes.kept))
        summaries = [drift_summary(dataset, axes.kept) for _, dataset in pieces]
        limits = color_limits(np.concatenate([drift_level(summary).ravel() for summary in summaries]))
        word = unfinished_word(study.dataset)
        each = " and ".join(dim for dim in (axes.rows, axes.columns) if dim is not None)
        panels = f", one panel per {each}" if each else ""
        made = []
        for (label, dataset), summary in zip(pieces, summaries, strict=True):
            where = f" ({label})" if label else ""
            made.append(
                picture(
                    partial(_draw_map, dataset, axes, limits),
                    alt=f"Maps of the energy drift against {axes.x} and {axes.y}{panels}{where}. "
                    + extremes_sentence(summary),
                    caption=f"Energy drift against {axes.x} and {axes.y}{where}: colour is the median over "
                    f"{study.pooled_words(dataset, *axes.kept)} of the {when_word(summary)} |H(t) − H(0)| / |H(0)| "
                    f"among members that finished. Hatched: more than half {word}; printed in the cells: how many "
                    f"percent {word}.",
                    table=drift_table(summary, f"Quartiles of |{summary.variable}|{where}"),
                )
            )
        return "\n".join(made)


class DriftAgainstDt:
    """What a smaller step buys: median drift per solver on logarithms."""

    title = "Energy drift against step size"
    anchor = "drift"

    def html(self, study: Study) -> str:
        """One picture per piece of the axes that are not shown; raises `JaxoscError` without energy drift."""
        study.require("result")
        kept = ("activation", "solver", "dt")
        guides = "Dotted: slopes of errors proportional to powers of dt. On the lower edge: exactly zero."
        guides = guides if study.dataset.sizes["dt"] > 1 else ""
        made = []
        for label, dataset in study.splits(*kept, "gain"):
            summary = drift_summary(dataset, kept)
            where = f" ({label})" if label else ""
            made.append(
                picture(
                    partial(_draw_drift, dataset),
                    alt=f"Energy drift against step size for each solver, one panel per activation{where}. "
                    + extremes_sentence(summary),
                    caption=f"The {when_word(summary)} relative energy drift of the run{where}: median and quartiles "
                    f"over {study.pooled_words(dataset, *kept)}. {guides}",
                    table=drift_table(summary, f"Quartiles of |{summary.variable}|{where}"),
                )
            )
        return "\n".join(made)


class Shares:
    """How runs ended, and what their orbits are: stacked shares."""

    anchor: str
    title: str

    def __init__(self, variable: str, title: str, caption: str):
        self.variable, self.title, self.caption = variable, title, caption
        self.anchor = variable

    def html(self, study: Study) -> str:
        """The picture, or a sentence when all members share one code; raises `JaxoscError` without the variable."""
        study.require("result", self.variable)
        kept = ("activation", "solver", "dt")
        shares = code_shares(study.dataset, kept, self.variable)
        present = [n for k, n in enumerate(shares.names) if np.nansum(shares.shares[..., k]) > 0]
        if not present:
            raise JaxoscError(
                "Got a store without a computed member, expected some to draw: continue with jaxosc resume."
            )
        if len(present) == 1:
            return paragraph(f"All computed members: {present[0].replace('_', ' ')}.")

        return picture(
            partial(_draw_shares, study.dataset, self.variable),
            alt=f"Stacked bars of the shares of {', '.join(p.replace('_', ' ') for p in present)} against step size, "
            "one panel per activation and solver; the numbers are in the table below.",
            caption=f"{self.caption} Pooled over {study.pooled_words(study.dataset, *kept)}.",
            table=_share_table(shares, present),
        )


def _draw_map(
    dataset: "xarray.Dataset", axes: MapAxes, limits: tuple[float, float], figure: "Figure", narrow: bool
) -> None:
    stability_map(dataset, x=axes.x, y=axes.y, columns=1 if narrow else None, limits=limits, figure=figure)


def _draw_drift(dataset: "xarray.Dataset", figure: "Figure", narrow: bool) -> None:
    drift_against_dt(dataset, columns=1 if narrow else None, figure=figure)


def _draw_shares(dataset: "xarray.Dataset", variable: str, figure: "Figure", narrow: bool) -> None:
    result_shares(dataset, variable, columns=1 if narrow else None, figure=figure)


def extremes_sentence(summary: DriftSummary) -> str:
    """The smallest and the largest median, in words: what a picture of them says at first sight."""
    if not np.isfinite(summary.median).any():
        return "No member finished."
    words = []
    for find in (np.nanargmin, np.nanargmax):
        index = np.unravel_index(find(summary.median), summary.median.shape)
        place = ", ".join(
            f"{dim} {value_text(summary.values[dim][k])}" for dim, k in zip(summary.dims, index, strict=True)
        )
        words.append(f"{number_text(float(summary.median[index]))} ({place})")
    return f"The median drift reaches from {words[0]} to {words[1]}."


def drift_table(summary: DriftSummary, caption: str) -> Table:
    """One row per cell: where it is, quartiles, lost share, members."""
    header = [*summary.dims, "lower quartile", "median", "upper quartile", "lost", "members"]
    rows = []
    for index in np.ndindex(summary.median.shape):
        place = [value_text(summary.values[dim][k]) for dim, k in zip(summary.dims, index, strict=True)]
        quartiles = [number_text(float(a[index])) for a in (summary.lower, summary.median, summary.upper)]
        rows.append([*place, *quartiles, lost_text(float(summary.unfinished[index])), f"{summary.members[index]:,}"])
    return _cut(Table(caption, header, rows))


def _share_table(shares: CodeShares, present: list[str]) -> Table:
    columns = [shares.names.index(name) for name in present]
    rows = []
    for index in np.ndindex(shares.members.shape):
        place = [value_text(shares.values[dim][k]) for dim, k in zip(shares.dims, index, strict=True)]
        rows.append(
            [*place, *(lost_text(float(shares.shares[(*index, k)])) for k in columns), f"{shares.members[index]:,}"]
        )
    header = [*shares.dims, *(name.replace("_", " ") for name in present), "members"]
    return _cut(Table("Share of members", header, rows))


def _cut(table: Table) -> Table:
    if len(table.rows) <= _MOST_ROWS:
        return table
    caption = f"{table.caption}; the first {_MOST_ROWS} of {len(table.rows):,} rows, the store holds all of them"
    return Table(caption, table.header, table.rows[:_MOST_ROWS])
