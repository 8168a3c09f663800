"""The blocks that look at single members: phase portraits, and energy against time with the theory on top."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jaxosc._results import Result
from jaxosc.plotting import Orbit, energies_over_time, phase_portraits

from .block import Table
from .headline import number_text
from .pictures import picture
from .study import Study
from .trajectories import Trajectory, place_words, precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Portraits:
    """The orbit of one member under every activation and solver."""

    title = "Phase portraits"
    anchor = "portraits"

    def html(self, study: Study) -> str:
        """One picture; raises `JaxoscError` when the members cannot be built again."""
        runs = study.trajectories
        orbits = {row[0].activation: {run.solver: _seen(run) for run in row} for row in runs}
        end = max(float(run.ts[run.dense - 1]) for row in runs for run in row)
        size = runs[0][0].field.size
        plane = (
            "Thin lines: level sets of the energy H, the dashed one through the start; an exact orbit stays on it."
            if size == 2
            else f"The plane of the orbit's first two principal components of {size}, with the share of its variance."
        )
        with precision(study.dataset):  # the level sets are energies of the field
            return picture(
                partial(_draw_portraits, orbits),
                alt="Phase portraits of one member, a panel per activation and solver. "
                + " ".join(f"{r.activation} with {r.solver}: {_fate(r)}." for row in runs for r in row),
                caption=f"One member run again: {place_words(study.dataset, study.place)}; t from 0 to {end:.4g}, the "
                f"same network and start in every panel. The ring is the start. {plane} What leaves the frame is cut."
                f"{_left_out(study)}",
                table=_fate_table(runs),
            )


class EnergyOverTime:
    """The same members: signed energy drift against time, and the law that theory gives for Euler."""

    title = "Energy against time"
    anchor = "energy"

    def html(self, study: Study) -> str:
        """One picture; raises `JaxoscError` when the members cannot be built again."""
        runs = study.trajectories
        laws = list(dict.fromkeys(run.law[0] for row in runs for run in row if run.law is not None))
        theory = f" Dotted on top, the theory: {'; '.join(laws)}." if laws else ""
        return picture(
            partial(_draw_energies, runs),
            alt="Energy drift against time for each solver, one panel per activation. "
            + " ".join(f"{r.activation} with {r.solver}: {_drift_words(r)}." for row in runs for r in row),
            caption=f"The same members as in the portraits ({place_words(study.dataset, study.place)}): signed "
            "relative drift of the energy, logarithmic on both sides of zero."
            f"{theory} A line that ends is a member that escaped.{_left_out(study)}",
            table=_energy_table(runs),
        )


def _draw_portraits(orbits: dict[str, dict[str, Orbit]], figure: "Figure", narrow: bool) -> None:
    phase_portraits(orbits, columns=2 if narrow else None, figure=figure)


def _draw_energies(runs: list[list[Trajectory]], figure: "Figure", narrow: bool) -> None:
    energies = {row[0].activation: {run.solver: run.energies for run in row} for row in runs}
    theory = {row[0].activation: dict(run.law for run in row if run.law is not None) for row in runs}
    energies_over_time(runs[0][0].ts, energies, theory=theory, columns=1 if narrow else None, figure=figure)


def _left_out(study: Study) -> str:
    """Which activations and solvers found no room, as a last sentence of a caption."""
    runs = study.trajectories
    missing = study.names("activation")[len(runs) :] + study.names("solver")[len(runs[0]) :]
    return f" Not shown, for want of room: {', '.join(missing)}." if missing else ""


def _seen(run: Trajectory) -> Orbit:
    """The part of which every step was kept, up to an escape; a member that left at once stands at its start."""
    alive = int(np.sum(np.isfinite(run.energies[: run.dense])))
    if alive < 2:
        return Orbit(np.stack([run.start, run.start]).astype(float), run.ts[:2], run.field)
    return Orbit(run.ys[:alive], run.ts[:alive], run.field)


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
