"""Other ways to tune a frequency, at their best: trajectories and spectra matched by Adam, and SciPy on the peak.

All see the network in time measured in periods of the target, so that what is wanted is the same for every member: the
frequency 1. Gains are trained by their logarithm. Trajectory matching is given the amplitude and the phase
of the readout: at every step the sine of the wanted frequency that fits best is what is compared with, so that only a
wrong frequency, or what is no sine, counts.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

import jaxosc as jo

STEPS_PER_PERIOD = 64
"""Of the target; the fastest linear mode turns at most eight times in one at the beginning."""

SAMPLES_PER_PERIOD = 32

POWER_FLOOR = 1e-6
"""Of the logarithm of power, relative to a sine of amplitude one: what lies below is noise of the window."""

Loss = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way: `loss` of a readout (times,) sampled over `periods` of the target, by `over` ("gain" or "weights")."""

    name: str
    loss: Loss
    periods: int
    over: str = "gain"


def mismatch(readout: jax.Array) -> jax.Array:
    """The share of the readout's mean square that no A sin(2 pi t + phi) explains."""
    places = jnp.arange(len(readout), dtype=readout.dtype) / SAMPLES_PER_PERIOD
    # Orthogonal over whole periods, so the least squares are two sums.
    waves = jnp.stack([jnp.sin(2 * jnp.pi * places), jnp.cos(2 * jnp.pi * places)])
    parts = 2 * jnp.mean(waves * readout[None, :], axis=1)
    rest = readout - jnp.sum(parts[:, None] * waves, axis=0)
    return jnp.mean(rest**2) / jnp.mean(readout**2)


def log_spectrum(readout: jax.Array) -> jax.Array:
    """Mean squared distance of the log power spectra of the readout, scaled to a sine's mean square, and the sine."""
    places = jnp.arange(len(readout), dtype=readout.dtype)
    window = jnp.sin(jnp.pi * (places + 0.5) / len(readout)) ** 2
    readout = readout - jnp.mean(readout)
    scaled = readout * jax.lax.rsqrt(2 * jnp.mean(readout**2))
    wanted = jnp.sin(2 * jnp.pi * places / SAMPLES_PER_PERIOD)

    def logs(wave: jax.Array) -> jax.Array:
        power = jnp.abs(jnp.fft.rfft(window * wave)) ** 2 / jnp.sum(window) ** 2
        return jnp.log(power + POWER_FLOOR)

    return jnp.mean((logs(scaled) - logs(wanted)) ** 2)


def readout_of(parameters: jax.Array, matrix: jax.Array, y0: jax.Array, periods: int, over: str) -> jax.Array:
    """Neuron 0 of one network (n, n) that has the frequency 1 when tuned, through Diffrax; (times,)."""
    skew = matrix * jnp.exp(parameters) if over == "gain" else matrix + (parameters - parameters.T) / 2
    ts = jnp.arange(periods * SAMPLES_PER_PERIOD) / SAMPLES_PER_PERIOD
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, skew: jnp.matmul(skew, jnp.tanh(y))),
        diffrax.Tsit5(),
        0.0,
        float(periods),
        1 / STEPS_PER_PERIOD,
        y0,
        skew,
        saveat=diffrax.SaveAt(ts=ts),
        stepsize_controller=diffrax.ConstantStepSize(),
        adjoint=diffrax.RecursiveCheckpointAdjoint(),
        max_steps=periods * STEPS_PER_PERIOD + 1,
        throw=False,
    )
    assert solution.ys is not None
    return solution.ys[:, 0]


@functools.cache
def trainer(peer: Peer, iterations: int) -> Any:
    """A compiled function of matrices, starts and a learning rate: all members by Adam at once, each with its best."""

    def one(matrix: jax.Array, y0: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        begin = jnp.zeros_like(matrix) if peer.over == "weights" else jnp.zeros((), matrix.dtype)
        optimiser = optax.adam(rate)

        def value(parameters: jax.Array) -> jax.Array:
            return peer.loss(readout_of(parameters, matrix, y0, peer.periods, peer.over))

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            parameters, state, best, least = carry
            loss, gradient = jax.value_and_grad(value)(parameters)
            better = loss < least
            best, least = jnp.where(better, parameters, best), jnp.where(better, loss, least)
            updates, state = optimiser.update(jnp.nan_to_num(gradient), state)
            return (parameters + updates, state, best, least), None

        first = (begin, optimiser.init(begin), begin, jnp.asarray(jnp.inf, matrix.dtype))
        (_, _, best, least), _ = jax.lax.scan(step, first, length=iterations)
        tuned = matrix * jnp.exp(best) if peer.over == "gain" else matrix + (best - best.T) / 2
        return tuned, least

    return eqx.filter_jit(jax.vmap(one, in_axes=(0, 0, None)))


SCIPY_PERIODS = 32

SCAN = np.linspace(np.log(1 / 10), np.log(10), 13)
"""Logarithms of the gain at which the peak is looked at before a root between two neighbours is polished."""


def by_scipy(matrix: np.ndarray, y0: np.ndarray) -> np.ndarray:
    """One network (n, n) tuned by `scipy.optimize.brentq`: the log gain at which the peak of the spectrum is at 1."""

    def off(gain: float) -> float:
        # The padded transform with its peak refined by a parabola, so that it is no staircase.
        dt = 1 / SAMPLES_PER_PERIOD
        field = jo.CurrentRNN(jnp.asarray(matrix * np.exp(gain)))
        run = jo.simulate(
            field,
            y0,
            t1=float(SCIPY_PERIODS),
            dt=dt / 4,
            solver=jo.solvers.PoissonSplitting(4),
            save_every=4,
        )
        return float(np.log(peak(np.asarray(run.ys)[:-1, 0], dt)))

    values = [off(gain) for gain in SCAN]
    crossed = np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:]))
    if not crossed.size:
        return matrix
    # Of several the one that asks for the least change.
    place = crossed[np.argmin(np.abs(SCAN[crossed]))]
    gain = scipy.optimize.brentq(off, SCAN[place], SCAN[place + 1], xtol=1e-9, maxiter=60, disp=False)
    return matrix * np.exp(gain)


def peak(readout: np.ndarray, dt: float) -> float:
    """The frequency where the power of a Hann window is largest, between the bins by a parabola of its logarithm."""
    samples = len(readout)
    power = np.abs(np.fft.rfft(np.hanning(samples) * (readout - readout.mean()), 4 * samples)) ** 2
    top = int(np.clip(np.argmax(power), 1, len(power) - 2))
    left, middle, right = np.log(power[top - 1 : top + 2] + 1e-300)
    return float(top + (left - right) / (2 * (left - 2 * middle + right))) / (4 * samples * dt)
