"""Lyapunov spectra: time and accuracy beside lyapax and SciPy, on the same networks over the same time.

    python -m benchmarks.orbits [--quick] [--out DIR]

Four parts:

1. Throughput: all n exponents of thousands of random skew networks, ours and lyapax (RK4 and QR under `vmap`, as a
   whole and in chunks that fit the cache), each at several step sizes. Exponents over a finite time scatter; what
   counts is how far they are from those of a run ten times as long at a small step. The fastest run of each side whose
   distance is within `SAME` of the best one's is compared: the same accuracy.
2. Agreement: spectra of networks of several sizes by both, in units of their error bars, and how well ours pair.
3. The largest growth by SciPy's DOP853 (state and one deviation, trajectory by trajectory) from the same deviation.
4. Lorenz and Rossler against the values of the literature.

lyapax and SciPy may be absent (`pip install ".[bench]"`): then their rows are. The full run takes some ten minutes.
"""

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cyclopts
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp

import jaxosc as jo
from jaxosc.orbits.lyapunov import LyapunovSpectrum, lyapunov_spectrum, standard_error
from jaxosc.orbits.runs import frame_of

from . import harness
from .harness import Job, Rules, Timing, print_table, say
from .problems import Problem, own_problem_of

OUT = Path("build/benchmarks")

EVERY = 10
"""Steps between two orthonormalisations, everywhere."""

SAME = 1.05
"""Distances from the reference that differ by less are the same accuracy: a twentieth of what is statistics."""

WANTED = 5.0
"""Asked for: our throughput over lyapax's."""

OURS = "jaxosc"


@dataclasses.dataclass(frozen=True)
class Study:
    """How large each part is.

    **Attributes:** `members`, `n`, `t1` and `checked` networks of the throughput; `steps` sizes to try; `chunk` of
    lyapax; `sizes`, `some` networks and `long` time of the agreement; `trajectories` and `short` time by SciPy;
    `starts` and `times` of Lorenz and Rossler.
    """

    members: int
    n: int
    t1: float
    checked: int
    steps: tuple[float, ...]
    chunk: int
    sizes: tuple[int, ...]
    some: int
    long: float
    trajectories: int
    short: float
    starts: int
    times: tuple[float, float]
    rules: Rules


FULL = Study(
    members=4096,
    n=8,
    t1=640.0,
    checked=512,
    steps=(0.1, 0.25, 0.5),
    chunk=256,
    sizes=(4, 8, 16),
    some=32,
    long=16_000.0,
    trajectories=4,
    short=100.0,
    starts=64,
    times=(500.0, 4000.0),
    rules=Rules(rounds=3, sample=0.1, long=40.0),
)
QUICK = Study(
    members=32,
    n=4,
    t1=32.0,
    checked=8,
    steps=(0.1, 0.25),
    chunk=16,
    sizes=(4,),
    some=4,
    long=160.0,
    trajectories=1,
    short=20.0,
    starts=4,
    times=(50.0, 100.0),
    rules=Rules(rounds=1, sample=0.01, long=0.1),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One way at one step size.

    `microseconds`: per network and unit of time; `distance`: root mean square over networks and exponents from the
    reference; `pairing`: the median residual of the pairs.
    """

    name: str
    dt: float
    timing: Timing
    microseconds: float
    distance: float
    pairing: float


def has_lyapax() -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec("lyapax") is not None


def by_us(problem: Problem, solver: Any, dt: float, t1: float) -> LyapunovSpectrum:
    """All exponents, called as people call it."""
    return lyapunov_spectrum(problem.field, problem.starts, t1=t1, dt=dt, solver=solver, renormalise_every=EVERY)


@functools.cache
def lyapax_sweep(dt: float, steps: int, chunk: int, blocks: int) -> Callable[..., Any]:
    """Its sweep over weights and starts (members, ...), in chunks one after the other, in one compiled program.

    Gives exponents (members, n) and the average rates of `blocks` parts of the run (members, blocks, n).
    """
    from lyapax.integrators import rk4_step
    from lyapax.sweep import sweep_lyapunov_spectrum

    def step(y: Any, parameters: Any) -> Any:
        return rk4_step(lambda y: parameters["W"] @ jnp.tanh(y), dt)(y)

    def part(one: tuple[Any, Any]) -> tuple[Any, Any]:
        matrix, starts = one
        found = sweep_lyapunov_spectrum(
            step, starts[0], {"W": matrix}, dt, steps, renorm_every=EVERY, state0_batch=starts
        )
        if not blocks:
            return found.exponents, jnp.zeros((len(starts), 0, starts.shape[-1]))
        count = steps // EVERY // blocks
        ends = found.history[:, count - 1 :: count][:, :blocks] * jnp.arange(1, blocks + 1)[None, :, None]
        return found.exponents, jnp.diff(ends, axis=1, prepend=0)

    @jax.jit
    def run(matrix: Any, starts: Any) -> tuple[Any, Any]:
        cut = jax.tree.map(lambda array: array.reshape(-1, chunk, *array.shape[1:]), (matrix, starts))
        return jax.tree.map(lambda array: array.reshape(len(matrix), *array.shape[2:]), jax.lax.map(part, cut))

    return run


def by_lyapax(problem: Problem, dt: float, t1: float, chunk: int, blocks: int = 0) -> tuple[Any, Any]:
    """As `lyapax_sweep`."""
    steps = round(t1 / dt / EVERY) * EVERY
    run = lyapax_sweep(dt, steps, min(chunk, len(problem.starts)), blocks)
    found: tuple[Any, Any] = run(problem.matrix, problem.starts)
    return found


def measure_throughput(study: Study) -> list[Row]:
    """A row for each way and step size, timed in turn."""
    problem = own_problem_of(study.n, study.members)
    exact = jo.solvers.PoissonSplitting(4)
    reference = by_us(problem.only(study.checked), exact, min(study.steps), 10 * study.t1).exponents
    jobs: dict[tuple[str, float], Job] = {}
    for dt in study.steps:
        for order in (2, 4):
            solver = jo.solvers.PoissonSplitting(order)
            run = functools.partial(by_us, problem, solver, dt, study.t1)
            jobs[f"{OURS} PoissonSplitting({order})", dt] = Job(lambda run=run: run().exponents)  # type: ignore[misc]
        chunks = {"lyapax rk4": study.members, f"lyapax rk4, chunks of {study.chunk}": study.chunk}
        for name, chunk in chunks.items() if has_lyapax() else ():
            peer = functools.partial(by_lyapax, problem, dt, study.t1, chunk)
            jobs[name, dt] = Job(lambda peer=peer: peer()[0])  # type: ignore[misc]
    rows = []
    for (name, dt), (timing, exponents) in harness.measure(jobs, study.rules).items():
        found = np.asarray(exponents)
        apart = found[: study.checked] - np.asarray(reference)
        pairs = np.abs(found + found[:, ::-1]).max(axis=-1)
        microseconds = 1e6 * timing.seconds / (study.members * study.t1)
        distance = float(np.sqrt(np.mean(apart**2)))
        rows.append(Row(name, dt, timing, microseconds, distance, float(np.median(pairs))))
    return rows


def print_throughput(study: Study, rows: list[Row]) -> None:
    """Times beside distances."""
    title = (
        f"All exponents of {study.members:,} networks of n = {study.n}, t = {study.t1:g}; us: per network and unit of"
        f" time; distance: from a run of t = {10 * study.t1:g}"
    )
    lines = [
        [
            row.name,
            f"{row.dt:g}",
            f"{row.microseconds:.3g}",
            f"{1e3 * row.microseconds * row.dt:.3g}",
            f"{100 * row.timing.spread:.0f} %",
            f"{row.distance:.5f}",
            f"{row.pairing:.5f}",
            f"{row.timing.warm_up:.1f} s",
        ]
        for row in rows
    ]
    columns = ["", "dt", "us", "ns per step", "spread", "distance", "pairing", "first call"]
    print_table(title, columns, lines)


def answers(rows: list[Row]) -> dict[str, Any]:
    """The fastest of each side among those as accurate as the best, and what is between them; at equal dt, too."""
    if not any(row.name.startswith("lyapax") for row in rows):
        return {"sentences": ["lyapax is not installed: nothing to compare with."]}
    most = SAME * min(row.distance for row in rows)
    ours, peer = (
        min((row for row in rows if row.name.startswith(side) and row.distance <= most), key=_time, default=None)
        for side in (OURS, "lyapax")
    )
    sentences, ratio = [], None
    if ours is not None and peer is not None:
        ratio = peer.microseconds / ours.microseconds
        verdict = "reached" if ratio >= WANTED else "missed"
        sentences.append(
            f"At the same accuracy {ours.name} (dt = {ours.dt:g}, distance {ours.distance:.5f}) is {ratio:.1f} times as"
            f" fast as {peer.name} (dt = {peer.dt:g}, distance {peer.distance:.5f});"
            f" wanted: {WANTED:g} times: {verdict}."
        )
    equal = {}
    for dt in sorted({row.dt for row in rows}):
        best = [
            min((row for row in rows if row.name.startswith(side) and row.dt == dt), key=_time)
            for side in (OURS, "lyapax")
        ]
        equal[dt] = best[1].microseconds / best[0].microseconds
    sentences.append("At equal dt: " + ", ".join(f"{equal[dt]:.1f} times (dt = {dt:g})" for dt in equal) + ".")
    return {"ratio": ratio, "ratio at equal dt": equal, "sentences": sentences}


def _time(row: Row) -> float:
    return row.microseconds


def measure_agreement(study: Study) -> list[dict[str, Any]]:
    """For each size: differences of all exponents in units of both error bars, and residuals of ours."""
    found = []
    for n in study.sizes:
        problem = own_problem_of(n, study.some)
        ours = by_us(problem, jo.solvers.PoissonSplitting(2), 0.2, study.long)
        row: dict[str, Any] = {
            "n": n,
            "median pairing": float(np.median(ours.pairing_residual)),
            "largest pairing": float(np.max(ours.pairing_residual)),
            "largest zero": float(np.max(ours.zero_residual)),
            "typical error": float(np.median(ours.error)),
        }
        if has_lyapax():
            exponents, rates = by_lyapax(problem, 0.2, study.long, study.some, blocks=16)
            error = np.hypot(np.asarray(ours.error), np.asarray(standard_error(jnp.swapaxes(rates, 0, 1))))
            sigmas = np.abs(np.asarray(exponents) - np.asarray(ours.exponents)) / error
            row |= {"within 2 errors": float(np.mean(sigmas < 2)), "within 3 errors": float(np.mean(sigmas < 3))}
            theirs = np.asarray(exponents)
            row["their median pairing"] = float(np.median(np.abs(theirs + theirs[:, ::-1]).max(axis=-1)))
        found.append(row)
    return found


def print_agreement(study: Study, found: list[dict[str, Any]]) -> None:
    """A line for each size."""
    columns = [name for name in found[0] if name != "n"]
    lines = [[f"n = {row['n']}", *(f"{row[name]:.3g}" for name in columns)] for row in found]
    print_table(f"{study.some} networks of each size, t = {study.long:g}, dt = 0.2", ["", *columns], lines)


def by_dop853(matrix: Float[np.ndarray, "n n"], y0: Float[np.ndarray, " n"], t1: float) -> float:
    """How fast the deviation that our runs start with has grown, by the variational equations."""
    n = len(y0)
    deviation = np.asarray(frame_of(None, n, 1, jnp.float64))[:, 0]

    def slopes(t: float, z: np.ndarray) -> np.ndarray:
        s = np.tanh(z[:n])
        return np.concatenate([matrix @ s, matrix @ ((1 - s * s) * z[n:])])

    end = solve_ivp(slopes, (0, t1), np.concatenate([y0, deviation]), method="DOP853", rtol=1e-10, atol=1e-10)
    return float(np.log(np.linalg.norm(end.y[n:, -1])) / t1)


def measure_scipy(study: Study) -> dict[str, Any]:
    """Differences of the growth by both, and microseconds per network and unit of time."""
    problem = own_problem_of(study.n, study.trajectories)
    begin = time.process_time()
    pairs = zip(problem.matrix, problem.starts, strict=True)
    theirs = np.array([by_dop853(matrix, y0, study.short) for matrix, y0 in pairs])
    seconds = time.process_time() - begin
    options: Mapping[str, Any] = dict(t1=study.short, dt=0.05, num_exponents=1, renormalise_every=EVERY)
    solver = jo.solvers.PoissonSplitting(8)
    ours = lyapunov_spectrum(problem.field, problem.starts, solver=solver, **options).exponents[:, 0]
    apart = np.abs(np.asarray(ours) - theirs)
    microseconds = 1e6 * seconds / (study.trajectories * study.short)
    return {"largest difference": float(apart.max()), "growth": theirs, "microseconds": microseconds}


def lorenz(t: Any, y: Any, args: Any) -> Any:
    """sigma = 10, rho = 28, beta = 8/3."""
    return jnp.stack([10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])


def rossler(t: Any, y: Any, args: Any) -> Any:
    """a = b = 0.2, c = 5.7."""
    return jnp.stack([-y[1] - y[2], y[0] + 0.2 * y[1], 0.2 + y[2] * (y[0] - 5.7)])


CHAOS: dict[str, tuple[Callable[..., Any], float, float]] = {
    "Lorenz": (lorenz, 0.01, 0.9056),
    "Rossler": (rossler, 0.05, 0.0714),
}
"""Field, dt, and the largest exponent of the literature (Sprott, *Chaos and Time-Series Analysis*, 2003)."""


def measure_chaos(study: Study) -> list[dict[str, Any]]:
    """The largest exponent, its standard error over the starts, and how far it is from the known one."""
    starts = np.random.default_rng(0).standard_normal((study.starts, 3))
    rows = []
    for (name, (field, dt, known)), t1 in zip(CHAOS.items(), study.times, strict=True):
        found = lyapunov_spectrum(field, starts, t1=t1, dt=dt, transient=min(50.0, t1 / 10))
        largest = np.asarray(found.exponents)[:, 0]
        mean, error = float(largest.mean()), float(largest.std(ddof=1) / np.sqrt(len(largest)))
        rows.append({"name": name, "exponent": mean, "error": error, "known": known, "off": abs(mean / known - 1)})
    return rows


def main(*, quick: bool = False, out: Path = OUT) -> None:
    """Measure, print, and write OUT/orbits.json.

    Parameters
    ----------
    quick
        Small sizes: a check that everything runs, no measurement.
    """
    study = QUICK if quick else FULL
    record: dict[str, Any] = {"machine": harness.machine(), "study": study}
    rows = measure_throughput(study)
    print_throughput(study, rows)
    found = answers(rows)
    agreement = measure_agreement(study)
    print_agreement(study, agreement)
    scipy = measure_scipy(study)
    ours = min(_time(row) for row in rows if row.name.startswith(OURS))
    found["sentences"] += [
        f"SciPy's DOP853 (rtol 1e-10) gives the growth of the same deviation over t = {study.short:g} up to"
        f" {scipy['largest difference']:.0e}, in {scipy['microseconds']:,.0f} us per network and unit of time for one"
        f" exponent; ours takes {ours:.3g} for all {study.n}.",
    ]
    chaos = measure_chaos(study)
    found["sentences"] += [
        f"{row['name']}: {row['exponent']:.4f} +- {row['error']:.4f}, known {row['known']}:"
        f" {100 * row['off']:.2f} % off."
        for row in chaos
    ]
    for sentence in found["sentences"]:
        say(sentence)
    parts = {"rows": rows, "agreement": agreement, "scipy": scipy, "chaos": chaos, "answers": found}
    harness.write_json(out / "orbits.json", record | parts)


if __name__ == "__main__":
    harness.restart_on_one_core(for_speed=True)
    cyclopts.run(main)
