"""The main frequencies of an orbit, from a trajectory: lines of its spectrum, or its mean rotation.

**Lines.** A discrete Fourier transform knows frequencies to 1/duration. Between its bins the transform

    S(f) = sum_k w_k y(t_k) exp(-2 pi i f t_k)

is known at every f, and where |S|^2 (summed over neurons) is largest is the frequency of a line: with a window w that
goes smoothly to zero (a power of Hann's) far more accurately than to 1/duration. Newton's method finds the top
from the highest bin; the line is taken away, and the next one is looked for in what is left.

**Mean rotation.** The angle at which the orbit is seen from its centre, in the plane in which most happens, grows by
2 pi a turn. The average of its increments, weighted by exp(-1/(u (1 - u))) with u in (0, 1) along the run, converges
faster than any power of the duration on a closed orbit or a torus (the plain average like 1/duration).

Source: Laskar, *Physica D* 67 (1993), for lines; Das, Saiki, Sander, Yorke, *Nonlinearity* 30 (2017), for the weights.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._checks import is_concrete
from .._errors import JaxoscError
from ..fields import AbstractField
from ..simulate import simulate
from ..simulate.engine import DEFAULT_ESCAPE_NORM
from ..solvers import PoissonSplitting
from .samples import checked_samples
from .starts import require_count

METHODS = ("fft", "birkhoff")

WINDOW_POWER = 3
"""Of Hann's window: leaking falls like (distance in bins)^-7 from a line that is 8 bins wide."""

LEAST_SAMPLES = 32

NEWTON_STEPS = 10
"""From half a bin away; it has converged after about five."""


class Frequencies(eqx.Module):
    """Main frequencies of one orbit or of a batch.

    **Attributes:** `frequencies`: (..., count) in cycles per unit of time, the strongest first; `amplitudes`: (...,
    count), the root of the sum over neurons of the squared amplitudes, in units of y (NaN for "birkhoff"); `error`:
    (..., count), by how much the two halves of the run differ from the whole, which is too much on regular orbits (a
    half alone is less accurate) and in chaos a measure of the drift.
    """

    frequencies: Float[Array, "*batch count"]
    amplitudes: Float[Array, "*batch count"]
    error: Float[Array, "*batch count"]

    @property
    def frequency(self) -> Float[Array, "*batch"]:
        """The strongest one."""
        return self.frequencies[..., 0]

    @property
    def period(self) -> Float[Array, "*batch"]:
        """1 / frequency."""
        return 1 / self.frequency

    def __repr__(self) -> str:
        if not is_concrete(jax.tree.leaves(self)):
            return "Frequencies (inside a JAX transformation)"
        values, errors = np.asarray(self.frequencies), np.asarray(self.error)
        if values.ndim > 1:
            orbits = " x ".join(map(str, values.shape[:-1]))
            middle = np.nanmedian(values[..., 0])
            return f"Frequencies({values.shape[-1]} each of {orbits} orbits, median of the first {middle:.6g})"
        lines = (f"{value:.10g} +- {error:.1g}" for value, error in zip(values, errors, strict=True))
        return f"Frequencies({', '.join(lines)})"


def frequency(
    field: Any,
    y0: Any,
    *,
    t1: Any = None,
    dt: Any = None,
    t0: Any = 0.0,
    solver: Any = None,
    method: str = "fft",
    count: int = 1,
    save_every: int = 1,
    pairing: str = "zip",
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
) -> Frequencies:
    """The main frequencies of a network's orbit through `y0`, or of a trajectory: `frequency(ts, ys)`.

    "fft" finds `count` lines of the spectrum of all neurons together; "birkhoff" the one mean rotation. On a closed
    orbit both give 1/period; on a torus a line is one of the frequencies or a sum of multiples of them. Relative error
    for the tanh pair over 8, 16 and 32 turns, besides that of the solver: 2e-11, 1e-14, 1e-15 ("fft") and 1e-6, 4e-8,
    6e-11 ("birkhoff"). Lines nearer to each other than 8/duration are not told apart. Differentiable forward and
    backward. Memory: the trajectory.

    **Arguments:**

    - `field`, `y0` (..., n), `t0`, `t1`, `dt`, `solver`, `pairing`, `escape_norm`: as in `poincare_crossings`. Or times
      (times,), ascending and for "fft" equally spaced, and states (..., times, n), at least 32 of them.
    - `method`: "fft" or "birkhoff". `count`: of lines, for "fft".
    - `save_every`: look at every so many-th step; there must be some per turn.

    **Returns:** `Frequencies`; a member that left has NaN.

    **Raises:** `JaxoscError` for an unknown method, wrong shapes, too few samples, and times not equally spaced.
    """
    require_count("count", count)
    if method not in METHODS:
        raise JaxoscError(f"Got method = {method!r}, expected one of {', '.join(METHODS)}.")
    if method == "birkhoff" and count != 1:
        raise JaxoscError(f'Got count = {count} with "birkhoff", expected 1: it has one mean rotation, take "fft".')
    ts, ys = field, y0
    if isinstance(field, AbstractField):
        if t1 is None or dt is None:
            raise JaxoscError(f"Got t1 = {t1} and dt = {dt}, expected both for the run: pass them, or (ts, ys).")
        solver = PoissonSplitting(4) if solver is None else solver
        run = simulate(
            field,
            y0,
            t0=t0,
            t1=t1,
            dt=dt,
            solver=solver,
            save_every=save_every,
            pairing=pairing,
            escape_norm=escape_norm,
            throw=False,
        )
        ts, ys = run.ts, jnp.where((run.result == 0)[..., None, None], run.ys, jnp.nan)
    else:
        ts, ys = checked_samples(ts, ys, LEAST_SAMPLES)
    if len(ts) < LEAST_SAMPLES:
        raise JaxoscError(f"Got {len(ts)} samples, expected at least {LEAST_SAMPLES}: save more often or run longer.")
    if method == "fft" and is_concrete(ts):
        gaps = np.diff(np.asarray(ts, np.float64))
        # Times of long runs in float32 are rounded to more than that.
        rounding = 4 * float(jnp.finfo(ts.dtype).eps) * float(np.abs(ts).max())
        if np.ptp(gaps) > 1e-3 * gaps.mean() + rounding:
            raise JaxoscError('Got times that are not equally spaced, expected such for "fft": take "birkhoff".')
    return _frequencies_compiled(ts, ys, method, count)


@eqx.filter_jit
def _frequencies_compiled(ts: Array, ys: Array, method: str, count: int) -> Frequencies:
    half = len(ts) // 2

    def one(ys: Array) -> Frequencies:
        if method == "birkhoff":
            plane = _plane(ys)
            value, first, second = (
                _mean_rotation(ts[part], ys[part], plane) for part in (slice(None), slice(0, half), slice(-half, None))
            )
            return Frequencies(value[None], jnp.full((1,), jnp.nan, ys.dtype), _differing(value, first, second)[None])
        # Of equal steps, so that float32 times of long runs do not blur the phases.
        step = (ts[-1] - ts[0]) / (len(ts) - 1)
        found, amplitudes = _lines(ys, count, None)
        first, second = (_lines(ys[part], count, found)[0] for part in (slice(0, half), slice(-half, None)))
        return Frequencies(found / step, amplitudes, _differing(found, first, second) / step)

    for _ in ys.shape[:-2]:
        one = jax.vmap(one)
    return one(ys)


def _differing(value: Array, first: Array, second: Array) -> Float[Array, "*count"]:
    """How far the halves are from the whole, and never less than a few roundings."""
    apart = jnp.maximum(jnp.abs(first - value), jnp.abs(second - value))
    return jax.lax.stop_gradient(apart + 8 * jnp.finfo(value.dtype).eps * jnp.abs(value))


def _lines(ys: Float[Array, "times n"], count: int, known: Array | None) -> tuple[Array, Array]:
    """Frequencies (count,) in cycles per sample and their amplitudes; near the `known` ones, if there are any."""
    samples = len(ys)
    places = (jnp.arange(samples) + 0.5) / samples
    window = jnp.sin(jnp.pi * places).astype(ys.dtype) ** (2 * WINDOW_POWER)
    window = window / jnp.sum(window)
    time = jnp.arange(samples, dtype=ys.dtype) - (samples - 1) / 2
    rest = ys - jnp.sum(window[:, None] * ys, axis=0)[None]
    found, amplitudes = [], []
    for number in range(count):
        start = _highest_bin(window, rest) if known is None else known[number]
        top = _top(window, time, rest, jax.lax.stop_gradient(start))
        wave = jnp.exp(-2j * jnp.pi * top * time)
        strength = jnp.sum((window * wave)[:, None] * rest, axis=0)
        rest = rest - 2 * jnp.real(strength[None] * jnp.conj(wave)[:, None])
        found.append(top)
        amplitudes.append(2 * jnp.sqrt(jnp.sum(jnp.abs(strength) ** 2)))
    return jnp.stack(found), jnp.stack(amplitudes)


def _highest_bin(window: Array, ys: Array) -> Float[Array, ""]:
    """The frequency where the padded transform is largest, in cycles per sample."""
    padded = 2 * len(ys)
    power = jnp.sum(jnp.abs(jnp.fft.rfft(window[:, None] * ys, n=padded, axis=0)) ** 2, axis=1)
    return jnp.argmax(power).astype(window.dtype) / padded


def _top(window: Array, time: Array, ys: Array, start: Array) -> Float[Array, ""]:
    """The frequency near `start` at which the power has its top; differentiable in `ys`."""
    still, bin_width = jax.lax.stop_gradient(ys), 1 / len(ys)

    def better(_: Any, f: Array) -> Array:
        slope, curvature = _slopes(window, time, still, f)
        # Only under a top does Newton's step lead up.
        step = jnp.where(curvature < 0, -slope / jnp.where(curvature < 0, curvature, -1), 0)
        return jnp.clip(f + step, start - bin_width, start + bin_width)

    top = jax.lax.fori_loop(0, NEWTON_STEPS, better, start)
    slope, curvature = _slopes(window, time, ys, top)
    curvature = jax.lax.stop_gradient(curvature)
    return top - jnp.where(curvature < 0, slope / jnp.where(curvature < 0, curvature, -1), 0)


def _slopes(window: Array, time: Array, ys: Array, f: Array) -> tuple[Array, Array]:
    """First and second derivative of the power with respect to f."""
    turn = -2j * jnp.pi * time
    wave = window * jnp.exp(turn * f)

    def moment(factor: Array) -> Complex[Array, " n"]:
        return jnp.sum((wave * factor)[:, None] * ys, axis=0)

    value, first, second = (moment(factor) for factor in (jnp.ones_like(turn), turn, turn * turn))
    slope = 2 * jnp.sum(jnp.real(jnp.conj(value) * first))
    return slope, 2 * jnp.sum(jnp.abs(first) ** 2 + jnp.real(jnp.conj(value) * second))


def _plane(ys: Float[Array, "times n"]) -> tuple[Float[Array, " n"], Float[Array, "n 2"]]:
    """The centre, and the two directions in which most happens. Which ones does not change a rotation number."""
    ys = jax.lax.stop_gradient(ys)
    centre = jnp.mean(ys, axis=0)
    moved = ys - centre[None]
    _, vectors = jnp.linalg.eigh(jnp.matmul(moved.T, moved, precision="highest"))
    return centre, vectors[:, -2:]


def _mean_rotation(ts: Array, ys: Array, plane: tuple[Array, Array]) -> Float[Array, ""]:
    centre, directions = plane
    seen = jnp.matmul(ys - centre[None], directions, precision="highest")
    angle = jnp.arctan2(seen[:, 1], seen[:, 0])
    step = jnp.diff(angle)
    step = step - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(step / (2 * jnp.pi)))
    place = ((ts[1:] + ts[:-1]) / 2 - ts[0]) / (ts[-1] - ts[0])
    weight = jnp.exp(-1 / (place * (1 - place)))
    return jnp.abs(jnp.sum(weight * step) / (2 * jnp.pi * jnp.sum(weight * jnp.diff(ts))))
