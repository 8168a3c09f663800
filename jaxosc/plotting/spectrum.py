"""The amplitude spectrum of a trajectory: which frequencies an oscillation is made of."""

import numpy as np
from jaxtyping import ArrayLike, Float, Real
from matplotlib.axes import Axes

from jaxosc._errors import JaxoscError

from .appearance import grid_color, ink_on, is_dark, marks
from .facets import new_axes

_SIDE_LOBES = 3  # bins: the main lobe of the Hann window reaches two to each side


def frequency_spectrum(
    ts: Real[ArrayLike, " times"],
    y: Real[ArrayLike, "_ *n"],
    *,
    peaks: int = 3,
    highest: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw amplitude against frequency, with the strongest lines named.

    The mean is taken out, a Hann window laid over, and the amplitude scaled so that a sine of amplitude 1
    gives a line of height 1. For several neurons the curve is the root of the sum of their squared
    amplitudes.

    **Arguments:** `ts`: equally spaced times (times,); `y`: (times,) or (times, n); `peaks`: how many to
    name; `highest`: end of the frequency axis, cycles per unit time (default: eight times the highest named
    peak); `ax`: `None` makes a new figure.

    **Returns:** the Axes; its first line holds (frequency, amplitude).

    **Raises:** `JaxoscError` for fewer than 8 times, unequal spacing, another length of `y`, or values not
    finite.
    """
    frequency, amplitude = amplitude_spectrum(*_checked(ts, y))
    found = spectral_peaks(amplitude, peaks)
    axes = new_axes() if ax is None else ax
    pencil = marks(1, dark=is_dark(axes))[0]
    top = float(amplitude.max()) or 1.0
    axes.semilogy(frequency, np.maximum(amplitude, top * 1e-16), color=pencil.color)
    if found:
        _name_peaks(axes, frequency[found], amplitude[found])
    end = 8 * float(frequency[max(found)]) if found else float(frequency[-1])
    axes.set_xlim(0, min(float(frequency[-1]), end if highest is None else highest))
    axes.set_ylim(max(float(np.quantile(amplitude, 0.02)), top * 1e-14) / 3, top * 8)
    axes.grid(True, color=grid_color(axes))
    axes.set_axisbelow(True)
    axes.set_xlabel("frequency [cycles per unit time]")
    axes.set_ylabel("amplitude")
    return axes


def _name_peaks(axes: Axes, frequency: Float[np.ndarray, " k"], amplitude: Float[np.ndarray, " k"]) -> None:
    """Number the peaks and list them in the corner, because harmonics stand too close for words beside them."""
    ink = ink_on(axes.get_facecolor())
    axes.plot(frequency, amplitude * 1.6, linestyle="none", marker="v", markersize=4, color=ink, gid="peaks")
    for rank, (f, a) in enumerate(zip(frequency, amplitude, strict=True), start=1):
        axes.annotate(f"{rank}", (f, a * 1.6), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=7.5)
    lines = [f"{rank}:  f = {f:.4g},  period {1 / f:.4g}" for rank, f in enumerate(frequency, start=1)]
    axes.text(0.98, 0.97, "\n".join(lines), transform=axes.transAxes, ha="right", va="top", fontsize=8)


def amplitude_spectrum(
    ts: Float[np.ndarray, " times"], states: Float[np.ndarray, "times n"]
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Frequencies (cycles per unit time, without zero) and the Hann-windowed amplitude over all neurons."""
    count = ts.size
    window = np.sin(np.pi * np.arange(count) / count) ** 2
    centred = states - states.mean(axis=0, keepdims=True)
    lines = np.abs(np.fft.rfft(centred * window[:, None], axis=0)) * (2 / window.sum())
    spacing = float(ts[-1] - ts[0]) / (count - 1)
    return np.fft.rfftfreq(count, spacing)[1:], np.sqrt(np.sum(lines**2, axis=1))[1:]


def spectral_peaks(amplitude: Float[np.ndarray, " bins"], count: int) -> list[int]:
    """Bins of the `count` highest local maxima that stand above 1e-3 of the highest, strongest first."""
    order = np.argsort(amplitude)[::-1]
    found: list[int] = []
    for k in (int(i) for i in order):
        near = amplitude[max(0, k - _SIDE_LOBES) : k + _SIDE_LOBES + 1]
        at_edge = k in (0, amplitude.size - 1)  # the flank of a line outside the axis, not a line
        if len(found) == count or amplitude[k] < 1e-3 * amplitude[order[0]]:
            break
        if not at_edge and amplitude[k] > 0 and amplitude[k] == near.max():
            found.append(k)
    return found


def _checked(ts: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    times, states = np.asarray(ts, dtype=float), np.asarray(y, dtype=float)
    states = states[:, None] if states.ndim == 1 else states
    if times.ndim != 1 or times.size < 8 or states.ndim != 2 or states.shape[0] != times.size:
        raise JaxoscError(
            f"Got ts of shape {times.shape} and y of shape {np.shape(y)}, expected (times,) and (times,) or (times, n) "
            "with 8 times or more: save more states."
        )
    steps = np.diff(times)
    # float32 times of a long run carry rounding of about 1e-7 of the end, far more than of the spacing
    if np.ptp(steps) > 1e-3 * np.abs(steps).max() + 1e-6 * abs(times[-1]):
        raise JaxoscError(
            f"Got ts spaced between {steps.min():.3g} and {steps.max():.3g}, expected equal spacing: save "
            "every k-th step."
        )
    if not np.all(np.isfinite(states)):
        raise JaxoscError("Got NaN or infinity in y, expected finite states: cut the trajectory where it escapes.")
    return times, states
