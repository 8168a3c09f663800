"""Lines of a sampled signal by nonlinear least squares: as exactly as the samples tell, few periods or many.

A window that keeps lines apart needs them to be some eight bins (8/duration) from each other, and ten periods of data
seldom give that. Here all lines found so far are fitted together,

    x(t) = c + sum_k a_k cos(2 pi f_k t) + b_k sin(2 pi f_k t),

each new one where the transform of what is left is largest. a, b and c follow from the f_k by linear least squares
(variable projection), so that Gauss and Newton's method has one unknown for each line. In white noise of variance s^2
this reaches the bound of Cramer and Rao, which for one line of amplitude A in N samples is 24 s^2/(A^2 N^3) for the
variance of 2 pi f in radians per sample.
Source: Golub and Pereyra, *SIAM J. Numer. Anal.* 10 (1973); Rife and Boorstyn, *IEEE Trans. Inf. Theory* 20 (1974).
"""

import math

import numpy as np
from jaxtyping import Float

PER_PERIOD = 64
"""Samples of the shortest period beyond which neighbours are averaged: the mean of 1/64 period is 0.04 % too small."""

APART = 0.6
"""In 1/duration; lines nearer to each other than that are two names of one."""

LEAST_TURNS = 0.8
"""A wave of fewer turns in the data is not told from a constant, and its amplitude outside them is anything."""

STEPS, ROUGH_STEPS = 30, 4
"""Of Gauss and Newton's method in the end, and after each new line."""

SURE = 1e-3
"""Chance that the highest of all bins of white noise is taken for a line."""

PADDING = 4

NEAR = 0.2

TRIED = 6
"""Base frequencies that are refined: what sums of powers tell is less sharp than the fit."""


def block_means(signal: Float[np.ndarray, "times channels"], block: int) -> np.ndarray:
    """Means of so many neighbours, (times // block, channels); the last incomplete ones are dropped."""
    whole = len(signal) // block
    return signal[: whole * block].reshape(whole, block, -1).mean(axis=1)


def block_for(spacing: float, frequency: float, samples: int) -> int:
    """How many neighbours may be averaged when nothing faster than `frequency` is asked for."""
    return int(max(1, min(1 / (PER_PERIOD * frequency * spacing), samples // PER_PERIOD)))


def spectral_lines(
    signal: Float[np.ndarray, "times channels"], spacing: float, most: int, sure: bool, rounding: float = 1e-12
) -> Float[np.ndarray, " lines"]:
    """The strongest lines, at most `most`, in cycles per unit of time, in the order in which they were found.

    `sure`: stop at the first that white noise would have with a chance above `SURE`. It stops as well where nothing
    but `rounding` is left, relative.
    """
    duration = spacing * len(signal)
    centred = signal - signal.mean(axis=0)
    floor = rounding**2 * float(np.sum(centred**2))
    lines, barred = np.zeros(0), np.zeros(0)
    while len(lines) < most:
        rest = signal - fitted_waves(signal, spacing, lines)
        if float(np.sum(rest**2)) <= floor:
            break
        highest, height = _highest_bin(rest, spacing, np.concatenate([lines, barred]))
        if height == 0 or (sure and height < math.log(len(signal) / 2 / SURE)):
            break
        refined = refine(signal, spacing, np.append(lines, highest), steps=ROUGH_STEPS)
        if np.min(np.diff(np.sort(refined)), initial=np.inf) < APART / duration or refined.min() * duration < 0.5:
            barred = np.append(barred, highest)  # two names of one line, or a slow trend
        else:
            lines = refined
    return refine(signal, spacing, lines) if len(lines) else lines


def refine(
    signal: np.ndarray, spacing: float, lines: np.ndarray, locked: bool = False, steps: int = STEPS
) -> np.ndarray:
    """The lines moved to where least squares wants them, all together; `locked`: by one common factor.

    A step moves no line further than half of 1/duration, and is halved until it improves the fit.
    """
    block = block_for(spacing, float(lines.max()), len(signal))
    means, step = block_means(signal, block), block * spacing
    reach = 0.5 / (step * len(means))
    misfit = float(np.sum((means - fitted_waves(means, step, lines)) ** 2))
    for _ in range(steps):
        change = _newton_step(means, step, lines, locked)
        change *= min(1.0, reach / max(float(np.abs(change).max()), 1e-300))
        for _ in range(8):
            moved = np.abs(lines + change)
            better = float(np.sum((means - fitted_waves(means, step, moved)) ** 2))
            if better <= misfit:
                break
            change = change / 2
        else:
            break
        lines, gained, misfit = moved, misfit - better, better
        if gained <= 1e-10 * misfit or float(np.abs(change).max()) < 1e-9 * reach:
            break
    return lines


def fitted_waves(signal: np.ndarray, spacing: float, lines: np.ndarray) -> np.ndarray:
    """The constant and the waves of these frequencies that are nearest to the signal."""
    if not len(lines):
        return np.broadcast_to(signal.mean(axis=0), signal.shape)
    waves = _waves(len(signal), spacing, lines)
    return waves @ _weights_of(waves, signal)


def _weights_of(waves: np.ndarray, signal: np.ndarray) -> np.ndarray:
    # Lines are kept apart, so that the normal equations lose few digits; they take a tenth of the time of an SVD.
    return np.linalg.solve(waves.T @ waves, waves.T @ signal)


def _waves(samples: int, spacing: float, lines: np.ndarray) -> np.ndarray:
    phase = 2 * np.pi * spacing * (np.arange(samples) - samples / 2)[:, None] * lines
    return np.concatenate([np.cos(phase), np.sin(phase), np.ones((samples, 1))], axis=1)


def _newton_step(signal: np.ndarray, spacing: float, lines: np.ndarray, locked: bool) -> np.ndarray:
    """How far each line should move, by a linear model of what the constant and the waves cannot reach."""
    samples, count = len(signal), len(lines)
    waves = _waves(samples, spacing, lines)
    basis, _ = np.linalg.qr(waves)
    weights = _weights_of(waves, signal)
    time = 2 * np.pi * spacing * (np.arange(samples) - samples / 2)[:, None]
    columns = []
    for channel in range(signal.shape[1]):
        cosine, sine = weights[:count, channel], weights[count : 2 * count, channel]
        slope = time * (sine * waves[:, :count] - cosine * waves[:, count : 2 * count])
        columns.append(slope - basis @ (basis.T @ slope))
    slopes = np.concatenate(columns)
    rest = (signal - basis @ (basis.T @ signal)).T.ravel()
    if locked:
        slopes = slopes @ lines[:, None]
    square = slopes.T @ slopes
    # Lines that the signal lacks have slopes of nothing; the ridge leaves them where they are.
    ridge = 1e-12 * max(float(np.trace(square)), np.finfo(float).tiny)
    change = np.linalg.solve(square + ridge * np.eye(len(square)), slopes.T @ rest)
    return change * lines if locked else change


def _highest_bin(rest: np.ndarray, spacing: float, taken: np.ndarray) -> tuple[float, float]:
    """Where the transform is largest, away from lines that are taken, and how high above the mean power."""
    samples = len(rest)
    duration, padded = spacing * samples, PADDING * samples
    power = np.sum(np.abs(np.fft.rfft(rest, n=padded, axis=0)) ** 2, axis=1)
    frequencies = np.arange(len(power)) / (padded * spacing)
    mean = float(power[PADDING:].mean())
    allowed = (frequencies * duration >= LEAST_TURNS) & (frequencies * spacing < 0.45)
    for line in taken:
        allowed &= np.abs(frequencies - line) * duration > APART
    power = np.where(allowed, power, 0)
    place = int(np.argmax(power))
    return float(frequencies[place]), float(power[place]) / mean if mean > 0 else 0.0


def harmonic_lines(
    signal: Float[np.ndarray, "times channels"], spacing: float, count: int, near: float | None = None
) -> np.ndarray:
    """f, 2f, ..., count f with the f > 0 that fits best, found among the sums of the power at all its multiples.

    `near`: look within a fifth of it. Empty where no such f has its multiples below half the sampling rate.
    """
    duration = spacing * len(signal)
    highest = min(count, int(0.45 * duration / spacing / LEAST_TURNS))
    padded = 2 * PADDING * len(signal)
    power = np.sum(np.abs(np.fft.rfft(signal - signal.mean(axis=0), n=padded, axis=0)) ** 2, axis=1)
    # The top multiple has to be followed to a fraction of its bin.
    base = np.arange(LEAST_TURNS / duration, 0.45 / spacing / highest, 1 / (8 * highest * duration))
    if near is not None:
        base = base[np.abs(base / near - 1) < NEAR]
    places = np.rint(base[:, None] * np.arange(1, highest + 1) * padded * spacing).astype(int)
    sums = power[np.minimum(places, len(power) - 1)].sum(axis=1)
    best, misfit = np.zeros(0), np.inf
    for start in base[_tops(sums, TRIED)]:
        lines = refine(signal, spacing, start * np.arange(1, highest + 1), locked=True)
        block = block_for(spacing, float(lines.max()), len(signal))
        means = block_means(signal, block)
        found = float(np.sum((means - fitted_waves(means, block * spacing, lines)) ** 2)) * block
        if found < misfit:
            best, misfit = lines, found
    return best


def _tops(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest local maxima."""
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    tops = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:]))
    return tops[np.argsort(values[tops])[::-1][:count]]
