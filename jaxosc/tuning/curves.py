"""Frequency against energy: how the pitch of an oscillation depends on its amplitude.

Of a closed orbit's family it is exact: `family` follows the mode's closed orbits and every point has the slope dT/dE
from the implicit function theorem. Choosing an energy for a frequency is Newton's method on that curve, each step a
closed orbit with its slope.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..orbits import periodic_orbit
from .closed_orbits import STEPS_PER_TURN, has_families, linear_modes, predicted
from .turning import fastest_bound

MOST_NEWTON_STEPS = 24


class FrequencyCurve(eqx.Module):
    """Closed orbits of one family in the order of their energies (m,).

    **Attributes:** `energy`, `frequency` (cycles per unit of time), `slope` = df/dE, all (m,); `y0`: (m, n) a start on
    each orbit; `found`: (m,) whether it was found (the others are NaN).
    """

    energy: Float[Array, " m"]
    frequency: Float[Array, " m"]
    slope: Float[Array, " m"]
    y0: Float[Array, "m n"]
    found: Bool[Array, " m"]

    def __repr__(self) -> str:
        if not is_concrete(self.frequency):
            return "FrequencyCurve (inside a JAX transformation)"
        found = np.asarray(self.found)
        energy, frequency = np.asarray(self.energy)[found], np.asarray(self.frequency)[found]
        if not len(energy):
            return "FrequencyCurve(no orbit was found: take smaller energies)"
        return (
            f"FrequencyCurve({found.sum()} of {len(found)} orbits, frequency {frequency[0]:.6g} at energy"
            f" {energy[0]:.3g} to {frequency[-1]:.6g} at {energy[-1]:.3g})"
        )


def frequency_curve(field: Any, y0: Any, energies: Any, *, readout: Any = None) -> FrequencyCurve:
    """How the frequency of a mode depends on its energy: the family of closed orbits that begins in the mode.

    **Arguments:**

    - `field`: one skew or symmetrizable network in the current form, without bias, leak and drive.
    - `y0`: (n,) a state that says which mode: the one that `readout` sees most of in it, as in `jo.tuning.Line`; modes
      more than 8 times slower than the fastest are left out.
    - `energies`: (m,) > 0 ascending, the first so small or all so near each other that a family can be followed.

    **Returns:** a `FrequencyCurve`; relative error of frequencies about 1e-7. **Raises:** `JaxoscError` for other
    networks, shapes and energies.
    """
    field, y0 = _checked(field, y0)
    require_positive("energies", energies)
    levels = np.asarray(energies, np.float64)
    if levels.ndim != 1 or (np.diff(levels) <= 0).any():
        raise JaxoscError(f"Got energies {levels}, expected a list in ascending order: sort it.")
    mode, period, steps = _mode_of(field, y0, readout)
    orbits: list[Any] = []
    last = None
    for energy in levels:
        orbits.append(_next(field, mode, period, last, energy, steps))
        # One that was not found is no guide to the next.
        last = orbits[-1] if int(orbits[-1].result) == Result.successful else last
    good = jnp.stack([orbit.result == Result.successful for orbit in orbits])
    time, slope = (jnp.stack([getattr(orbit, name) for orbit in orbits]) for name in ("period", "period_slope"))
    return FrequencyCurve(
        jnp.asarray(levels, y0.dtype),
        jnp.where(good, 1 / time, jnp.nan),
        jnp.where(good, -slope / time**2, jnp.nan),
        jnp.stack([orbit.y0 for orbit in orbits]),
        good,
    )


def energy_for_frequency(
    field: Any, y0: Any, target: Any, *, readout: Any = None, tolerance: Any = None
) -> FrequencyCurve:
    """The closed orbit of a mode's family that has the frequency `target`: network as it is, energy chosen.

    By Newton's method in the energy from the linear mode upward; a step never more than doubles the amplitude.

    **Arguments:** `field`, `y0`, `readout`: as in `frequency_curve`; `target`: cycles per unit of time; `tolerance`:
    relative, 1e-9 if None (float32: 1e-4).

    **Returns:** a `FrequencyCurve` of one point. **Raises:** `JaxoscError` as there, and for a target that the family
    does not reach, with the frequencies that it was seen to have.
    """
    field, y0 = _checked(field, y0)
    require_positive("target", target)
    limit = max(1e-9, 1e3 * float(jnp.finfo(y0.dtype).eps)) if tolerance is None else float(tolerance)
    mode, period, steps = _mode_of(field, y0, readout)
    energy = 1e-3 * float(min(1.0, field.energy(mode)))
    orbit = _next(field, mode, period, None, energy, steps)
    seen = []
    for _ in range(MOST_NEWTON_STEPS):
        if int(orbit.result) != Result.successful:
            break
        seen.append(float(1 / orbit.period))
        miss = float(orbit.period * target - 1)
        if abs(miss) <= limit:
            one = jnp.ones((1,), bool)
            slope = -orbit.period_slope / orbit.period**2
            return FrequencyCurve(orbit.energy[None], 1 / orbit.period[None], slope[None], orbit.y0[None], one)
        # T(E) = 1/target; four times the energy is twice the amplitude.
        newton = energy - float((orbit.period - 1 / target) / orbit.period_slope)
        energy = float(np.clip(newton, energy / 4, energy * 4))
        orbit = _next(field, mode, period, orbit, energy, steps)
    span = f"{min(seen):.6g} to {max(seen):.6g}" if seen else "none"
    raise JaxoscError(
        f"Got the target {float(target):.6g}, expected a frequency of this mode's family, of which {span} were seen:"
        " take another mode (y0, readout), or let the gain change with jo.tuning.tune_frequency."
    )


def _checked(field: Any, y0: Any) -> tuple[AbstractField, Float[Array, " n"]]:
    if not isinstance(field, AbstractField) or field.batch_shape or not has_families(field):
        raise JaxoscError(
            f"Got {field!r}, expected one skew or symmetrizable jo.CurrentRNN without bias, leak and drive, whose modes"
            " are families of closed orbits."
        )
    require_finite("y0", y0)
    y0 = jnp.asarray(y0, jnp.result_type(field.dtype))
    if y0.shape != (field.size,) or not bool((y0 != 0).any()):
        raise JaxoscError(f"Got y0 of shape {y0.shape}, expected ({field.size},) and not zero: it says which mode.")
    return field, y0


def _mode_of(field: AbstractField, y0: Array, readout: Any) -> tuple[Array, Array, int]:
    """The mode's part of y0, its linear period, and steps in a turn."""
    batch = jax.tree.map(lambda leaf: leaf[None], field)
    mode, omega = linear_modes(batch, y0[None], readout)
    period = 2 * jnp.pi / omega
    return mode[0], period[0], STEPS_PER_TURN * int(fastest_bound(batch, period)[0])


def _next(field: AbstractField, mode: Array, period: Array, last: Any, energy: Any, steps: int) -> Any:
    """The orbit at `energy`, guessed from the last one that was found, or from the mode."""
    goal = jnp.asarray(energy, mode.dtype)
    if last is None or int(last.result) != Result.successful:
        guess, time = mode * jnp.sqrt(goal / field.energy(mode)), period
    else:
        guess, time = predicted(last, goal)
    return periodic_orbit(field, guess, time, energy=goal, num_steps=steps)
