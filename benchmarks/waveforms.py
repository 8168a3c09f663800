"""Signals that go on by themselves: `jo.tuning.fit_waveform` beside AR, an echo state network and an LSTM.

    python -m benchmarks.waveforms [--quick] [--out DIR]

1. Three incommensurate sines with noise, 20 dB, ten periods of the slowest: errors of the frequencies in a free run of
   1,000 periods beside the bound of Cramer and Rao, and how the amplitude at its end compares with that at its start.
2. The same at 40 samples a period and three recordings that packages bring along (an electrocardiogram of PyWavelets,
   three beats; yearly sunspots and the monthly temperature of the sea off Peru, of statsmodels): everybody sees the
   same training window, then continues alone, first over the held-out rest, then over 1,000 periods.

What is known beforehand is the period, roughly: AR chooses its lags around it, ours the base of its multiples. What has
to be chosen (ours: how many neurons, and whether lines are multiples of one) everybody chooses by continuing the first
four fifths of the training window over the rest of it.
PyWavelets and statsmodels may be absent (`pip install ".[bench]"`): then their rows are. The full run takes minutes.
"""

import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxosc as jo
from jaxosc import plotting

from . import harness
from .harness import print_table, say
from .waveform_peers import Continue, autoregression, chosen, echo_state, lstm

OUT = Path("build/benchmarks")

THREE = np.array([1, math.sqrt(2), math.sqrt(5)])
NOISE = math.sqrt(1.5 / 100)
"""20 dB below three sines of amplitude 1."""

FAR, LAST = 1000, 20
"""Periods that everybody continues for, and over how many at the end is looked at."""

DIED, GREW = 0.1, 3.0
"""Deviation at the end over that of the training window beyond which a run has died or blown up."""

OFF = 100.0
"""Deviations beyond which a run is not drawn."""

OURS = "fit_waveform"


@dataclasses.dataclass(frozen=True)
class Recording:
    """A series, of which the first `told` samples are for training; `period` is known roughly."""

    name: str
    series: np.ndarray
    spacing: float
    told: int
    period: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one recording: errors relative to the deviation of the training window."""

    recording: str
    method: str
    first_period: float
    all_held_out: float
    frequency: float
    kept: float
    verdict: str
    seconds: float


def three_sines(seed: int, per_period: int, periods: int = 10) -> np.ndarray:
    """So many periods of the slowest, with noise."""
    generator = np.random.default_rng(seed)
    ts = np.arange(periods * per_period) / per_period
    waves = np.sin(2 * np.pi * (THREE * ts[:, None] + generator.random(3))).sum(axis=1)
    return waves + NOISE * generator.standard_normal(len(ts))


def free_run_of_sines(seeds: int, per_period: int) -> list[dict[str, Any]]:
    """Part 1: for each seed relative errors of the three frequencies, and amplitudes late over early."""
    bound = math.sqrt(24 * NOISE**2 / (10 * per_period) ** 3) * per_period / (2 * math.pi * THREE)
    rows = []
    for seed in range(seeds):
        begun = time.perf_counter()
        ts = np.arange(10 * per_period) / per_period
        found = jo.tuning.fit_waveform(None, None, ts, three_sines(seed, per_period), progress=False)
        seconds = time.perf_counter() - begun
        free = np.arange(0, 1000, 1 / 20)
        played = np.asarray(found(free))
        early, late = (_lines(free[part], played[part]) for part in (slice(0, 4000), slice(-4000, None)))
        whole, _ = _lines(free, played)
        rows.append(
            dict(
                seed=seed,
                neurons=found.field.size,
                errors=whole / THREE - 1,
                bound=bound,
                ratio=late[1] / early[1],
                largest=float(np.abs(played).max()),
                seconds=seconds,
            )
        )
    return rows


def _lines(ts: np.ndarray, played: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = jo.orbits.frequency(ts, played, count=3)
    order = np.argsort(np.asarray(found.frequencies))
    return np.asarray(found.frequencies)[order], np.asarray(found.amplitudes)[order]


def recordings(quick: bool) -> list[Recording]:
    """What there is to continue."""
    sines = Recording("three sines", three_sines(0, 40, 20), 1 / 40, 400, 1.0)
    found = [sines]
    if importlib.util.find_spec("pywt") and not quick:
        import pywt

        heart = np.asarray(pywt.data.ecg(), float)
        # Sampled at 360 Hz; the window holds two beats, and the third is held out.
        found.append(Recording("heart beat", heart, 1 / 360, 690, 0.9))
    if importlib.util.find_spec("statsmodels"):
        import statsmodels.api as sm

        sun = sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(float)
        found.append(Recording("sunspots", sun, 1.0, 220, 11.0))
        sea = sm.datasets.elnino.load_pandas().data.iloc[:, 1:].to_numpy(float).ravel()
        found.append(Recording("sea off Peru", sea, 1 / 12, 360, 1.0))
    return found


def ours(series: np.ndarray, period: float) -> Continue:
    """A network of 6, 24 or 64 neurons, at multiples of one frequency or at free lines. Time counts in samples."""
    most = int(0.45 * period)
    counts = sorted({2 * min(planes, most) for planes in (3, 12, 32)})
    options: list[dict[str, Any]] = [dict(neurons=count, periodic=1 / period) for count in counts]
    options += [dict(neurons=count, periodic=False) for count in counts[:2]]
    return chosen(series, [partial(_fitted, **option) for option in options])


def _fitted(series: np.ndarray, **options: Any) -> Continue:
    found = jo.tuning.fit_waveform(
        None, None, np.arange(len(series)), series, amplitudes=(0.01,), progress=False, **options
    )
    return lambda count: np.asarray(found(len(series) + np.arange(count)))[:, 0]


def _peer(method: Callable[[np.ndarray, float], Continue]) -> Callable[[Recording], Continue]:
    return lambda recording: method(_scaled(recording)[: recording.told], recording.period / recording.spacing)


def _scaled(recording: Recording) -> np.ndarray:
    told = recording.series[: recording.told]
    return (recording.series - told.mean()) / told.std()


def methods() -> dict[str, Callable[[Recording], Continue]]:
    """By name, what continues a recording."""
    found = {OURS: _peer(ours), "echo state": _peer(echo_state), "LSTM": _peer(lstm)}
    if importlib.util.find_spec("statsmodels"):
        found["AR"] = _peer(autoregression)
    found["mean"] = lambda recording: np.zeros
    return found


def judged(recording: Recording, name: str, method: Callable[[Recording], Continue]) -> tuple[Row, np.ndarray]:
    """How well a method does on a recording, and what it continued with."""
    begun = time.perf_counter()
    continued = method(recording)
    seconds = time.perf_counter() - begun
    period = recording.period / recording.spacing
    values = np.asarray(continued(math.ceil(FAR * period)), float)
    truth = _scaled(recording)[recording.told :]
    errors = values[: len(truth)] - truth
    first = errors[: round(period)]
    last = values[-round(LAST * period) :]
    with np.errstate(over="ignore", invalid="ignore"):
        kept = float(last.std() / _scaled(recording)[: recording.told].std())
        first_error, all_error = (float(np.sqrt(np.mean(part**2))) for part in (first, errors))
    verdict = "blew up" if not kept < GREW else "died" if kept < DIED else "goes on"
    frequency = math.nan
    if verdict == "goes on":
        places = np.arange(len(last), dtype=float)
        frequency = float(jo.orbits.frequency(places, last[:, None]).frequency) / recording.spacing
    return Row(recording.name, name, first_error, all_error, frequency, kept, verdict, seconds), values


def draw(found: dict[str, tuple[Recording, dict[str, np.ndarray]]], path: Path) -> None:
    """A row for each recording: where the training window ends, and the end of the run of 1,000 periods."""
    with plotting.style():
        figure, panels = plt.subplots(
            len(found), 2, figsize=(11, 2.3 * len(found) + 0.6), layout="constrained", squeeze=False, sharey="row"
        )
        for (near, far), (name, (recording, runs)) in zip(panels, found.items(), strict=True):
            series, period = _scaled(recording), recording.period
            ts = recording.spacing * np.arange(len(series)) / period
            seen = (ts > (recording.told * recording.spacing / period) - 3) & (ts < ts[recording.told] + 6)
            near.plot(ts[seen], series[seen], color="0.65", linewidth=3, label="data")
            near.axvline(ts[recording.told], color="0.4", linewidth=0.8, linestyle=":")
            for method, values in runs.items():
                if method == "mean":
                    continue
                after = ts[recording.told] + recording.spacing * np.arange(len(values)) / period
                width = 1.8 if method == OURS else 1.0
                shown = np.where(np.abs(values) < OFF, values, np.nan)
                early, late = after < ts[recording.told] + 6, after > after[-1] - 6
                near.plot(after[early], shown[early], linewidth=width, label=method, zorder=width + 2)
                far.plot(after[late], shown[late], linewidth=width, zorder=width + 2)
            near.set_title(f"{name}: the end of the training window, and the continuation")
            gone = [method for method, values in runs.items() if not np.abs(values[-1]) < OFF]
            far.set_title(f"after {FAR - 6:g} to {FAR:g} periods" + "".join(f"; {name} blew up" for name in gone))
            near.set_ylim(min(series.min(), -2) - 0.5, max(series.max(), 2) + 0.5)
        for axes in panels[-1]:
            axes.set_xlabel("time, periods")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
        plt.close(figure)
    say(f"Wrote {path}.")


def print_sines(rows: list[dict[str, Any]], per_period: int) -> None:
    """A line for each seed."""
    lines = [
        [
            str(row["seed"]),
            str(row["neurons"]),
            *(f"{error:+.1e} ({error / bound:+.1f})" for error, bound in zip(row["errors"], row["bound"], strict=True)),
            f"{np.abs(row['ratio'] - 1).max():.0e}",
            f"{row['largest']:.3f}",
            f"{row['seconds']:.1f} s",
        ]
        for row in rows
    ]
    columns = ["seed", "neurons", "f = 1", "sqrt 2", "sqrt 5", "late/early - 1", "largest", "wall"]
    title = (
        f"Relative errors of frequencies (in units of the bound), {per_period:,} samples a period, free run of 1,000"
    )
    print_table(title, columns, lines)
    worst = max(float(np.abs(row["errors"]).max()) for row in rows)
    say(f"The bound for the slowest is {rows[0]['bound'][0]:.1e}; the largest error is {worst:.1e}, wanted below 1e-4.")


def main(*, quick: bool = False, out: Path = OUT) -> None:
    """Fit, continue, print, and write OUT/waveforms.json and OUT/waveforms.png.

    Parameters
    ----------
    quick
        Few samples and no heart beat: a check that everything runs.
    """
    per_period = 1_000 if quick else 20_000
    sines = free_run_of_sines(2 if quick else 10, per_period)
    print_sines(sines, per_period)
    rows, pictures = [], {}
    for recording in recordings(quick):
        runs = {}
        for name, method in methods().items():
            row, runs[name] = judged(recording, name, method)
            rows.append(row)
        pictures[recording.name] = (recording, runs)
    lines = [
        [
            f"{row.recording}, {row.method}",
            f"{row.first_period:.2f}",
            f"{row.all_held_out:.2f}",
            "" if math.isnan(row.frequency) else f"{row.frequency:.4f}",
            f"{row.kept:.2g}",
            row.verdict,
            f"{row.seconds:.1f} s",
        ]
        for row in rows
    ]
    columns = ["", "error, 1 period", "held out", "frequency", "amplitude kept", f"after {FAR}", "training, wall"]
    print_table("Free runs; errors in deviations of the training window; time with compilation", columns, lines)
    draw(pictures, out / "waveforms.png")
    harness.write_json(out / "waveforms.json", {"machine": harness.machine(), "sines": sines, "rows": rows})


if __name__ == "__main__":
    harness.restart_on_one_core()
    jax.config.update("jax_enable_x64", True)
    cyclopts.run(main)
