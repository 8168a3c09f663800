"""The blocks that look at single members: phase portraits, and energy against time with the theory on top."""

import numpy as np
from markupsafe import Markup
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxosc._results import Result
from jaxosc.plotting import energy_over_time, phase_portrait
from jaxosc.plotting.facets import panels
from jaxosc.plotting.style import is_dark, legend_above, time_colormap

from .block import Table
from .headline import number_text
from .pictures import picture
from .study import Study
from .trajectories import Trajectory, place_words


class Portraits:
    """The orbit of one member under every activation and solver."""

    title = "Phase portraits"
    anchor = "portraits"

    def html(self, study: Study) -> Markup:
        """One picture; raises `JaxoscError` when the members cannot be built again."""
        runs = study.trajectories
        end = max(float(run.ts[run.dense - 1]) for row in runs for run in row)

        def draw(figure: Figure, narrow: bool) -> None:
            _draw_portraits(figure, runs, end, narrow=narrow)

        size = runs[0][0].field.size
        plane = (
            "Thin lines: level sets of the energy H, the dashed one through the start; an exact orbit stays on it."
            if size == 2
            else f"The plane of the orbit's first two principal components of {size}, with the share of its variance."
        )
        return picture(
            draw,
            alt="Phase portraits of one member, a panel per activation and solver. "
            + " ".join(f"{r.activation} with {r.solver}: {_fate(r)}." for row in runs for r in row),
            caption=f"One member run again: {place_words(study.dataset, study.place)}; t from 0 to {end:.4g}, the same "
            f"network and start in every panel. The ring is the start. {plane} What leaves the frame is cut.",
            table=_fate_table(runs),
        )


class EnergyOverTime:
    """The same members: signed energy drift against time, and the law that theory gives for Euler."""

    title = "Energy against time"
    anchor = "energy"

    def html(self, study: Study) -> Markup:
        """One picture; raises `JaxoscError` when the members cannot be built again."""
        runs = study.trajectories

        def draw(figure: Figure, narrow: bool) -> None:
            _draw_energies(figure, runs, narrow=narrow)

        laws = list(dict.fromkeys(run.law[0] for row in runs for run in row if run.law is not None))
        theory = f" Dotted on top, the theory: {'; '.join(laws)}." if laws else ""
        return picture(
            draw,
            alt="Energy drift against time for each solver, one panel per activation. "
            + " ".join(f"{r.activation} with {r.solver}: {_drift_words(r)}." for row in runs for r in row),
            caption=f"The same members as in the portraits ({place_words(study.dataset, study.place)}): signed "
            "relative drift of the energy, logarithmic on both sides of zero."
            f"{theory} A line that ends is a member that escaped.",
            table=_energy_table(runs),
        )


def _draw_portraits(figure: Figure, runs: list[list[Trajectory]], end: float, *, narrow: bool) -> None:
    rows, columns = [row[0].activation for row in runs], [run.solver for run in runs[0]]
    wrap = 2 if narrow else None if len(rows) > 1 else min(len(columns), 3)
    across = wrap or len(columns)
    height = (float(figure.bbox.width) / figure.dpi - 0.9) / across
    layout = panels(figure, rows, columns, wrap=wrap, height=min(height, 3.0), extra_height=1.0, share=False)
    for index, axes in np.ndenumerate(layout.axes):
        run = runs[index[0]][index[1]]
        states = run.ys[: run.dense]
        phase_portrait(states, field=run.field, ts=run.ts[: run.dense], limit=_frame(runs[index[0]]), ax=axes)
        for orbit in axes.collections:
            if orbit.get_gid() == "orbit":
                orbit.set_clim(0.0, end)
        axes.tick_params(length=2)
        if run.field.size == 2 and narrow:
            axes.set(xlabel="", ylabel="")
    colors = ScalarMappable(Normalize(0.0, end), time_colormap(dark=is_dark(layout.flat[0])))
    bar = figure.colorbar(colors, ax=layout.flat, location="top", aspect=60 if not narrow else 35, shrink=0.6, pad=0.01)
    bar.set_label("time t")
    bar.outline.set_visible(False)


def _frame(row: list[Trajectory]) -> float:
    """Twice the start's norm, or what the quietest solver needs: enough to see an orbit leave its level set."""
    norms = [float(np.nanmax(np.linalg.norm(run.ys[: run.dense], axis=1))) for run in row]
    return max(2.0 * float(np.linalg.norm(row[0].start)), 1.15 * min(norms))


def _draw_energies(figure: Figure, runs: list[list[Trajectory]], *, narrow: bool) -> None:
    names = [row[0].activation for row in runs]
    wrap = 1 if narrow else min(len(names), 3)
    layout = panels(figure, [""], names, wrap=wrap, height=2.4, extra_height=1.1, share=False)
    for index, axes in enumerate(layout.flat):
        row = runs[index]
        laws = {run.law[0]: run.law[1] for run in row if run.law is not None}
        energies = {run.solver: run.energies for run in row}
        energy_over_time(row[0].ts, energies, theory=laws, legend=False, ax=axes)
        if index % wrap:
            axes.set_ylabel("")
        else:
            axes.set_ylabel("energy drift (H(t) − H(0)) / |H(0)|" if not narrow else "energy drift")
    handles: list[Line2D] = []
    for line in (line for axes in layout.flat for line in axes.lines):
        label = "theory for Euler" if str(line.get_label()).startswith("theory") else str(line.get_label())
        if label not in [str(handle.get_label()) for handle in handles]:
            copy = Line2D([], [], color=line.get_color(), linestyle=line.get_linestyle(), lw=line.get_linewidth())
            copy.set_label(label)
            handles.append(copy)
    legend_above(layout.flat[0], handles)


def _fate(run: Trajectory) -> str:
    if run.result != Result.successful:
        gone = float(run.ts[np.flatnonzero(np.isfinite(run.energies))[-1]])
        return f"{run.result.name.replace('_', ' ')} at t = {gone:.3g}"
    return f"ends at norm {np.linalg.norm(run.ys[-1]):.3g}, started at {np.linalg.norm(run.start):.3g}"


def _drift_words(run: Trajectory) -> str:
    return f"{_last_drift(run):+.1e} at t = {float(run.ts[np.flatnonzero(np.isfinite(run.energies))[-1]]):.3g}"


def _last_drift(run: Trajectory) -> float:
    energies = run.energies[np.isfinite(run.energies)]
    return float((energies[-1] - energies[0]) / max(abs(float(energies[0])), float(np.finfo(float).tiny)))


def _fate_table(runs: list[list[Trajectory]]) -> Table:
    rows = [
        [
            run.activation,
            run.solver,
            f"{run.dt:.4g}",
            f"{np.linalg.norm(run.start):.4g}",
            f"{np.nanmax(np.linalg.norm(run.ys, axis=1)):.4g}",
            run.result.name.replace("_", " "),
        ]
        for row in runs
        for run in row
    ]
    return Table(
        "The members run again", ["activation", "solver", "dt", "norm of start", "largest norm", "result"], rows
    )


def _energy_table(runs: list[list[Trajectory]]) -> Table:
    """Drift at five times, with the theory's where there is one."""
    ts = runs[0][0].ts
    picks = [int(np.searchsorted(ts, share * ts[-1])) for share in (0.01, 0.1, 0.25, 0.5, 1.0)]
    picks = sorted({min(pick, ts.size - 1) for pick in picks})
    rows = []
    for run in (run for row in runs for run in row):
        lines = {run.solver: run.energies} | ({} if run.law is None else {"theory for Euler": run.law[1]})
        for name, energies in lines.items():
            scale = max(abs(float(energies[0])), float(np.finfo(float).tiny))
            rows.append(
                [run.activation, name, *(number_text(float((energies[k] - energies[0]) / scale)) for k in picks)]
            )
    return Table("Energy drift at some times", ["activation", "solver", *(f"t = {ts[k]:.4g}" for k in picks)], rows)
