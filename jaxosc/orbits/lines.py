"""How many independent frequencies a spectrum has: the dimension of the torus that an orbit runs on.

Lines of a torus are whole-number combinations of as many frequencies as it has dimensions. Lines are taken from the
strongest down; one that is no combination of those before it, up to what lines are known to, is a new frequency.
"""

import itertools

import numpy as np
from jaxtyping import Float

from .frequencies import WINDOW_POWER, frequency

COUNT = 12
"""Lines that are looked at: a saturated neuron alone has five above `FAINT`."""

FAINT = 1e-2
"""Of the strongest line; weaker ones say nothing: too high an order of combination would explain them."""

LARGEST = {1: 15, 2: 9, 3: 6}
"""The largest factor of a combination, by how many frequencies there are: more would fit any line by chance."""

SAMPLES, PER_TURN = 4096, 16
"""Of a trajectory: 256 turns."""

CLOSE = 5e-5
"""Cycles per turn, for each frequency of a combination: a line of a torus is known to 1e-5 and better."""


def independent_lines(ys: Float[np.ndarray, "members samples n"], most: int) -> np.ndarray:
    """The number (members,) of independent frequencies, at most `most`, of samples `PER_TURN` to a turn."""
    lines, strengths = strongest_lines(ys)
    return np.array([_independent(*pair, most) for pair in zip(lines, strengths, strict=True)], np.int32)


def strongest_lines(ys: Float[np.ndarray, "members samples n"]) -> tuple[np.ndarray, np.ndarray]:
    """`COUNT` frequencies (members, COUNT) in cycles per turn and their amplitudes, the strongest first.

    One at a time, each taken away before the next: a program that finds all at once takes minutes to compile.
    """
    samples = ys.shape[1]
    ts = (np.arange(samples) / PER_TURN).astype(ys.dtype)
    middle = ts.astype(np.float64) - ts.mean(dtype=np.float64)
    window = np.sin(np.pi * (np.arange(samples) + 0.5) / samples) ** (2 * WINDOW_POWER)
    window = window / window.sum()
    rest = ys - np.einsum("t,mtn->mn", window, ys)[:, None].astype(ys.dtype)
    lines, strengths = [], []
    for _ in range(COUNT):
        found = np.asarray(frequency(ts, rest).frequency, np.float64)
        wave = np.exp(-2j * np.pi * found[:, None] * middle)
        strength = np.einsum("mt,mtn->mn", window * wave, rest)
        rest = (rest - 2 * np.real(strength[:, None, :] * np.conj(wave)[:, :, None])).astype(ys.dtype)
        lines.append(found)
        strengths.append(2 * np.sqrt((np.abs(strength) ** 2).sum(axis=1)))
    return np.stack(lines, axis=1), np.stack(strengths, axis=1)


def _independent(lines: np.ndarray, strengths: np.ndarray, most: int) -> int:
    known: list[float] = []
    for line in lines[strengths > FAINT * strengths.max(initial=0)]:
        if abs(line) > 4 * CLOSE and len(known) < most and not _explained(line, known):
            known.append(float(line))
    return max(len(known), 1)


def _explained(line: float, known: list[float]) -> bool:
    if not known:
        return False
    reach = LARGEST.get(len(known), 4)
    factors = np.array(list(itertools.product(range(-reach, reach + 1), repeat=len(known))))
    sums = factors @ np.array(known)
    return bool(min(np.abs(sums - line).min(), np.abs(sums - 2 * line).min()) < CLOSE * len(known))
