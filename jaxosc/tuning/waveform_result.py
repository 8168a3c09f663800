"""A network with a readout that plays a waveform by itself, for as long as one likes."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete
from .._errors import JaxoscError
from ..fields import CurrentRNN
from ..orbits import frequency
from ..simulate import simulate

WINDOWS, PER_TURN, MOST_SAMPLES = 32, 8, 65_536
"""Of the free run that tells the frequencies: windows of the data, samples of the fastest turn, and samples at most."""

FAINT = 1e-6
"""Lines weaker than this, relative to the strongest, are not listed."""


class Waveform(eqx.Module):
    """What `fit_waveform` found: x(t) = readout y(t) + offset, where y is the network's run from `y0` at `t0`.

    The run conserves the energy, so that the waveform neither dies nor grows, however far beyond the data it goes. Its
    frequencies are those of the steps of `solver` with `dt`, which were fitted: other steps have slightly others.

    **Attributes:** `field`, `y0` (n,), `t0`; `readout` (channels, n) and `offset` (channels,) in units of the target;
    `dt` and `solver`; `spacing` of the samples and `t1`, where they ended; `history`: (steps,) error of the search at
    its horizon in every step; `error`: root mean square of target - waveform over that of target - mean, each channel
    by its own, over all samples; `frequencies`: of the waveform's lines in a free run over 32 times the data, in cycles
    per unit of time, the strongest first, at most n/2; `reason`: what was built, and why the search ended.
    """

    field: CurrentRNN
    y0: Float[Array, " n"]
    readout: Float[Array, "channels n"]
    offset: Float[Array, " channels"]
    t0: float = eqx.field(static=True)
    t1: float = eqx.field(static=True)
    spacing: float = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    solver: Any
    history: Float[Array, " steps"]
    error: Float[Array, ""]
    frequencies: Float[Array, " lines"]
    reason: str = eqx.field(static=True)

    def __call__(self, ts: Any) -> Float[Array, "times channels"]:
        """The waveform at the times `ts` (times,), ascending and not before t0, as (times, channels).

        Between steps by cubic Hermite interpolation of the state.

        **Raises:** `JaxoscError` for times that descend or lie before t0.
        """
        return readings(self.states(ts), self.readout, self.offset)

    def generate(self, t1: Any) -> Float[Array, "times channels"]:
        """The waveform at `self.times(t1)`, or, for an array (times,), at those times."""
        return self(self.times(t1) if np.ndim(t1) == 0 else t1)

    def times(self, t1: Any) -> Float[np.ndarray, " times"]:
        """t0, t0 + spacing, ... up to `t1`, so that the first ones are the times of the data."""
        end = float(t1)
        if not self.t0 < end < math.inf:
            raise JaxoscError(f"Got t1 = {end:g}, expected an end after t0 = {self.t0:g}.")
        return self.t0 + self.spacing * np.arange(math.floor((end - self.t0) / self.spacing + 1e-6) + 1)

    def states(self, ts: Any) -> Float[Array, "times n"]:
        """The network's states at the times `ts`, as `__call__` reads them."""
        return states_at_times(self.field, self.y0, np.asarray(ts, np.float64) - self.t0, self.dt, self.solver)

    def __repr__(self) -> str:
        channels, n = self.readout.shape
        head = f"Waveform of {channels} channel{'s' if channels > 1 else ''} by {n} neurons"
        if not is_concrete(jax.tree.leaves(self)):
            return f"{head} (inside a JAX transformation)"
        lines = ", ".join(f"{value:.7g}" for value in np.asarray(self.frequencies)[:6])
        more = f" and {len(self.frequencies) - 6} weaker" if len(self.frequencies) > 6 else ""
        return "\n".join(
            [
                f"{head}, {self.y0.dtype}, {self.solver!r} with dt = {self.dt:.4g}",
                f"  error        {float(self.error):.4g} of the data's deviation, t = {self.t0:g} .. {self.t1:g}",
                f"  frequencies  {lines}{more}",
                f"  search       {len(self.history)} steps; {self.reason}",
            ]
        )


def readings(states: Float[Array, "times n"], readout: Array, offset: Array) -> Float[Array, "times channels"]:
    """readout y + offset for every state."""
    return jnp.matmul(states, readout.T, precision="highest") + offset[None]


def states_at_times(field: CurrentRNN, y0: Array, after: Any, dt: float, solver: Any) -> Float[Array, "times n"]:
    """States at times (times,) after the start, in steps of exactly `dt`."""
    after = np.atleast_1d(np.asarray(after, np.float64))
    if after.ndim != 1 or not after.size or not np.isfinite(after).all() or (np.diff(after) < 0).any():
        raise JaxoscError(f"Got times of shape {after.shape}, expected finite ascending ones (times,): sort them.")
    if after[0] < -1e-9 * max(dt, after[-1]):
        raise JaxoscError(
            f"Got a time {-after[0]:g} before the waveform's t0, expected none: it begins where the data did."
        )
    after = np.maximum(after, 0)
    # A whole number of steps, or simulate would shorten them, and with them change the frequencies.
    steps = max(1, math.ceil(after[-1] / dt - 1e-6))
    return simulate(field, y0, t1=steps * dt, dt=dt, ts=np.minimum(after, steps * dt), solver=solver, throw=False).ys


def lines_of_free_run(waveform: Waveform) -> Float[Array, " lines"]:
    """The strongest lines of the waveform's channels together, from a run far beyond the data.

    One at a time, each taken away before the next: a program that finds all at once takes long to compile.
    """
    speed = float(np.linalg.norm(np.asarray(waveform.field.weight.matrix(), np.float64), 2))
    every = max(1, round(2 * math.pi / speed / PER_TURN / waveform.dt))
    duration = WINDOWS * (waveform.t1 - waveform.t0)
    count = int(min(max(duration / (every * waveform.dt), 256), MOST_SAMPLES))
    after = every * waveform.dt * np.arange(count)
    states = states_at_times(waveform.field, waveform.y0, after, waveform.dt, waveform.solver)
    rest = np.asarray(jnp.matmul(states, waveform.readout.T, precision="highest"), np.float64)
    deviation = rest.std(axis=0)
    rest = (rest - rest.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    window = np.sin(np.pi * (np.arange(count) + 0.5) / count) ** 6
    window, middle = window / window.sum(), after - after.mean()
    found, strengths = [], []
    for _ in range(max(1, waveform.field.size // 2)):
        # In samples, which float32 counts exactly.
        place = np.arange(count).astype(states.dtype)
        line = float(frequency(place, rest.astype(states.dtype)).frequency) / (every * waveform.dt)
        wave = np.exp(-2j * np.pi * line * middle)
        strength = (window * wave) @ rest
        rest = rest - 2 * np.real(strength[None, :] * np.conj(wave)[:, None])
        found.append(line)
        strengths.append(float(np.linalg.norm(strength)))
        if not math.isfinite(line) or strengths[-1] < FAINT * strengths[0]:
            found = found[:-1] or found
            break
    return jnp.asarray(found, states.dtype)
