"""Networks to begin a fit with, from the lines of the data: one plane of rotation for each.

At a small amplitude such a network is linear up to the amplitude's square, and its readout any sum of waves at the
lines: a harmonic regression that runs by itself. At an amplitude of 1 or 3 each plane has the odd harmonics of its own
orbit too, which is what a waveform with corners may need. Lines that are multiples of one another need not stay so when
each is fitted by itself; where the data are periodic the multiples are kept and only their common factor is fitted.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..fields import CurrentRNN
from ..oracles import pair_period_general
from ..weights import RotationBlocks
from .waveform_lines import APART, harmonic_lines, spectral_lines

MOST_PLANES, MOST_HARMONICS = 16, 32
"""Where nobody says how many neurons."""

LINEAR = 0.1
"""Amplitudes below this leave a plane without harmonics worth fitting (the third is amplitude^2/48 at most)."""


class Candidate(eqx.Module):
    """A network and start to improve, how (see `Unknowns`), and what it is in words."""

    field: CurrentRNN
    y0: Float[Array, " n"]
    gain_only: bool = eqx.field(static=True)
    with_start: bool = eqx.field(static=True)
    words: str = eqx.field(static=True)


def candidates(
    signal: Float[np.ndarray, "times channels"],
    spacing: float,
    neurons: int | None,
    periodic: bool | float | None,
    amplitudes: tuple[float, ...],
    activation: Any,
    dtype: Any,
) -> list[Candidate]:
    """The networks worth trying; `periodic` as in `fit_waveform`.

    **Raises:** `JaxoscError` where the signal has no line.
    """
    most = MOST_PLANES if neurons is None else neurons // 2
    # Times and values in float32 are off by some roundings, which are no lines.
    rounding = max(1e-12, 100 * float(jnp.finfo(dtype).eps))
    lines = spectral_lines(signal, spacing, most, neurons is None, rounding)
    if not len(lines):
        raise JaxoscError(
            "Got a target in which no line stands out of the noise, expected one that oscillates at least once in the"
            " window: pass neurons=... to take the strongest all the same, or a longer record."
        )
    found = []
    if periodic is None or periodic is False:
        for amplitude in amplitudes:
            free = amplitude >= LINEAR
            word = f"begun at amplitude {amplitude:g}" if free else "nearly linear"
            own = without_odd_multiples(lines, APART / (spacing * len(signal))) if free else lines
            field, y0 = planes(own, amplitude, activation, dtype)
            found.append(Candidate(field, y0, False, free, f"{_planes(own)} at lines of the spectrum, {word}"))
    if periodic is not False and (periodic or len(lines) > 1):
        near = None if isinstance(periodic, bool | None) else float(periodic)
        multiples = harmonic_lines(signal, spacing, most if neurons else len(lines), near)
        if not len(multiples):
            raise JaxoscError(
                f"Got a target that is sampled every {spacing:g}, expected at least twice in a period of the fastest of"
                f" {most if neurons else len(lines)} multiples of {periodic}: ask for fewer neurons."
            )
        if neurons is None:
            count = int(np.clip(round(lines.max() / multiples[0]), 1, MOST_HARMONICS))
            multiples = multiples[0] * np.arange(1, count + 1)
        field, y0 = planes(multiples, min(amplitudes), activation, dtype)
        found.append(
            Candidate(field, y0, True, False, f"{_planes(multiples)} at multiples of {multiples[0]:.6g}, nearly linear")
        )
    return found


def planes(lines: np.ndarray, amplitude: float, activation: Any, dtype: Any) -> tuple[CurrentRNN, Array]:
    """A plane of rotation for each line (in cycles per unit of time) and the start (amplitude, 0) in each."""
    energy = activation.potential(jnp.asarray(amplitude, jnp.result_type(float)))
    turn = float(pair_period_general(activation, energy, jnp.ones_like(energy)))
    weight = RotationBlocks(jnp.asarray(lines * turn, dtype))
    y0 = jnp.tile(jnp.asarray([amplitude, 0.0], dtype), len(lines))
    return CurrentRNN(weight, activation), y0


def without_odd_multiples(lines: np.ndarray, near: float) -> np.ndarray:
    """The lines that no stronger one brings along: a plane at some amplitude has its odd harmonics by itself."""
    kept: list[float] = []
    for line in lines:
        if all(abs(line - _odd(line / other) * other) > near for other in kept if line > 2 * other):
            kept.append(float(line))
    return np.array(kept)


def _odd(ratio: float) -> int:
    """The odd number nearest to a ratio."""
    return 2 * round((ratio - 1) / 2) + 1


def _planes(lines: np.ndarray) -> str:
    return "one plane of rotation" if len(lines) == 1 else f"{len(lines)} planes of rotation"
