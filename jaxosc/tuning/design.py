"""`design`: a network that has the frequencies one asks for, all at once and at an energy one asks for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from ..activations import AbstractActivation, Tanh
from ..fields import CurrentRNN
from ..orbits.starts import require_count
from .design_search import FASTEST_LINEAR, LONG, VERIFYING, Found, Wanted, frames_in, search, unsearched, verify_linear
from .frequency_map import network
from .progress import Watch
from .resonances import nearest_relation, relation_in_words

SMALL_ENERGY = 1e-8
"""What energy = 0 stands for: frequencies shift by about as much."""

RESONANT = 1e-3
"""Of the fastest frequency: relations that hold to less count as resonances."""

SLOWEST = 1 / 64
"""Of the fastest: runs would have to be too long."""


class Design(eqx.Module):
    """Networks with the frequencies that were asked for, one or a batch; print it.

    **Attributes:**

    - `field`: `jo.CurrentRNN` with `DenseSkew` weights, batch axes (...) in front; `y0`: (..., n) its start.
    - `targets`: (..., m) as asked for; `frequencies`: (..., m) as measured on the orbit of `y0`, in the same order;
      `linear_frequencies`: (..., m) those of the linear part of `field`. All in cycles per unit of time.
    - `energy`: (...) H of the start.
    - `reached`: (...) whether a verifying run found all of them within the tolerance. `error`: (...) the largest
      relative deviation in it, or the largest change from one half of it to the other where that is more; where no run
      was worth it, the same of the search. NaN where nothing was tried.
    - `reason`: a sentence, or an array of them. `frames`: (...) int32, how many were tried.

    What was not reached has the best network there was; a set that was refused from the start the linear one.
    """

    field: CurrentRNN
    y0: Float[Array, "*batch n"]
    targets: Float[Array, "*batch m"]
    frequencies: Float[Array, "*batch m"]
    linear_frequencies: Float[Array, "*batch m"]
    energy: Float[Array, "*batch"]
    reached: Bool[Array, "*batch"]
    error: Float[Array, "*batch"]
    frames: Int[Array, "*batch"]
    reasons: tuple[str, ...] = eqx.field(static=True)

    @property
    def reason(self) -> Any:
        """Why it was reached or not."""
        shape = self.targets.shape[:-1]
        return np.array(self.reasons, object).reshape(shape) if shape else self.reasons[0]

    def __repr__(self) -> str:
        if not is_concrete(jax.tree.leaves(self)):
            return "Design (inside a JAX transformation)"
        count, size = self.targets.shape[-1], self.y0.shape[-1]
        what = f"{count} {'frequency' if count == 1 else 'frequencies'}, n = {size}"
        reached, error = np.asarray(self.reached), np.asarray(self.error)
        if not reached.ndim:
            rows = zip(self.targets, self.linear_frequencies, self.frequencies, strict=True)
            lines = [f"  {wanted:<14.9g}{linear:<14.9g}{found:.9g}" for wanted, linear, found in rows]
            state = "reached" if reached else "not reached"
            head = f"Design of {what}, energy {float(self.energy):.3g}: {state}, {self.reason}"
            return "\n".join([head, f"  {'wanted':<14}{'linear':<14}measured", *lines])
        good = f", errors up to {error[reached].max():.1g}" if reached.any() else ""
        head = f"Design of {reached.size} sets of {what}: {reached.sum()} reached{good}"
        left = [f"  {place}: {self.reasons[place]}" for place in np.flatnonzero(~reached.ravel())]
        more = [f"  and {len(left) - 5} more"] if len(left) > 5 else []
        return "\n".join([head, *left[:5], *more])


def design(
    frequencies: Any,
    n: Any = None,
    *,
    energy: Any = 0.0,
    shares: Any = None,
    activation: Any = None,
    tolerance: Any = None,
    order: Any = 4,
    attempts: Any = 8,
    throw: bool = True,
    progress: bool | None = None,
    key: Any = None,
) -> Design:
    """A skew network y' = W sigma(y) and a start whose orbit has the given frequencies, all of them on one torus.

    W turns m planes at right angles to each other, which lie at random across the neurons: sigma couples them.
    With `energy=0` the linear frequencies are the wanted ones, exactly, and the start is so small (H = 1e-8) that
    the orbit has them to about 2e-8, resonant or not. At a finite energy every frequency depends on all amplitudes
    (for tanh they fall, by some 2 H/n of themselves while H is small), and the linear ones are corrected by Newton's
    method on the frequency map, in frame after frame until the orbit is a torus with these frequencies.
    Nothing is believed before a run of 3,200 turns of the fastest, by another solver at another step and by other means
    (spectral lines instead of rotation), has found the same.

    What can be had: chaos spreads with energy, m and the nearness of relations among the frequencies, and shrinks as
    the planes meet less. Of 100 random sets of m = 4 (n = 8, by the law of `benchmarks.design`) at H = 0.28, where
    linear frequencies are off by 5 %, 46 were verified in the first 4 frames, 65 to 81 in frames that mix the planes
    less and less, and the last in frames near the neurons' own axes (a twentieth random).
    Cost: seconds for a set that is easy, up to a minute for one that is hopeless, most of it compiling, which a batch
    shares. Call `jo.configure_cpu()` first: the runs are then done in C where there is a compiler.

    **Arguments:**

    - `frequencies`: (m,), or (..., m) for a batch of sets, > 0, in cycles per unit of time.
    - `n`: neurons, at least 2m and 2m if None; in the other n - 2m directions the orbit rests.
    - `energy`: H of the start, a number or one for each set.
    - `shares`: (m,) or (..., m), > 0: of the modes in the square of the start's direction, which is their shares of H
      while it is small; equal if None.
    - `activation`: odd and increasing; `jo.Tanh()` if None.
    - `tolerance`: relative, for each frequency; None: 1e-5, in float32 1e-4.
    - `order`: relations k.f = 0 with |k_1| + ... + |k_m| up to that are refused at a finite energy, 0 for none. (At
      `energy=0` they do no harm.)
    - `attempts`: rounds of frames, 4, 16, 16, ... of them; from the third on they mix the planes less, in the eighth
      not at all.
    - `throw`: raise if a single set is not reached. A batch never raises: look at `reached` and `reason`.
    - `progress`: False for silence, None to say something after two seconds.
    - `key`: of the random frames and phases; `jax.random.key(0)` if None. Equal keys give equal networks.

    **Returns:** a `Design`, in the dtype of `frequencies`.

    **Raises:** `JaxoscError` for shapes that do not fit, NaN, energy < 0, too small an n, an activation that is not odd
    and increasing, and with `throw` for a single set that was refused or not reached.
    """
    targets, size = _checked_targets(frequencies, n)
    sets = targets.shape[:-1]
    activation = _checked_activation(activation)
    require_count("order", order, 0)
    require_count("attempts", attempts)
    tolerance = _checked_tolerance(tolerance, targets.dtype)
    flat = np.asarray(targets, np.float64).reshape(-1, targets.shape[-1])
    levels = _checked_energy(energy, sets)
    weights = _checked_shares(shares, targets.shape)
    refusals = [_refusal(*pair, order) for pair in zip(flat, levels, strict=True)]
    scale = np.where(flat.max(axis=1) > 0, flat.max(axis=1), 1)[:, None]
    wanted = Wanted(
        np.arange(len(flat)),
        np.maximum(flat, 0) / scale,
        np.where(levels > 0, levels, SMALL_ENERGY),
        weights / weights.sum(axis=1, keepdims=True),
        size,
        activation,
        tolerance,
        jax.random.key(0) if key is None else key,
    )
    refused = np.array([bool(refusal) for refusal in refusals])
    # Frequencies to 1e-5 over thousands of turns are nothing for float32, whatever the session computes in.
    with jax.enable_x64(True), Watch(progress, "designing, frames", frames_in(attempts)) as watch:
        found = _found(wanted, refused, levels > 0, attempts, watch)
    reasons = [refusals[k] or _reason(wanted, found, k) for k in range(len(flat))]
    result = _assembled(targets, wanted, found, refused, scale, reasons)
    if throw and not sets and not bool(result.reached):
        raise JaxoscError(f"The frequencies {_listed(flat[0])} were not reached: {result.reason}")
    return result


def _found(wanted: Wanted, refused: np.ndarray, finite: np.ndarray, attempts: int, watch: Watch) -> Found:
    """What the search gives for those that it is for, the linear network for the others."""
    found = unsearched(wanted)
    for chosen, work in (
        (np.flatnonzero(~refused & finite), lambda some: search(some, attempts, watch)),
        (np.flatnonzero(~refused & ~finite), verify_linear),
    ):
        if len(chosen):
            for whole, part in zip(found, work(wanted.take(chosen)), strict=True):
                whole[chosen] = part
    return found


def _assembled(
    targets: Array, wanted: Wanted, found: Found, refused: np.ndarray, scale: np.ndarray, reasons: list[str]
) -> Design:
    """In the units, shape and dtype of what was asked for."""
    dtype, sets = targets.dtype, targets.shape[:-1]

    def shaped(values: np.ndarray, kind: Any = dtype) -> Array:
        return jnp.asarray(values.reshape((*sets, *values.shape[1:])), kind)

    linear = found.linear * scale
    return Design(
        field=network(
            found.planes.reshape((*sets, *found.planes.shape[1:])),
            linear.reshape(targets.shape),
            wanted.activation,
            dtype,
        ),
        y0=shaped(found.starts),
        targets=targets,
        frequencies=shaped(found.frequencies * scale),
        linear_frequencies=shaped(linear),
        energy=shaped(wanted.energy),
        reached=shaped(~refused & (found.error <= wanted.tolerance), bool),
        error=shaped(np.where(np.isfinite(found.error), found.error, np.maximum(found.misfit, found.wander))),
        frames=shaped(found.frames, jnp.int32),
        reasons=tuple(reasons),
    )


def _refusal(targets: np.ndarray, energy: float, order: int) -> str:
    """Why a set cannot be searched for; empty where it can."""
    if not (targets > 0).all():
        return f"{targets[np.argmin(targets)]:g} is no frequency: all have to be > 0."
    slowest = targets.min() / targets.max()
    if slowest < SLOWEST:
        return (
            f"The slowest is {slowest:.2g} of the fastest, and less than 1/{1 / SLOWEST:.0f} takes too long to verify."
        )
    if energy == 0 or order == 0 or len(targets) == 1:
        return ""
    k, off = nearest_relation(targets[None], order)
    if off[0] >= RESONANT:
        return ""
    how = "" if off[0] < 1e-12 else f" to {off[0]:.1g} of the fastest"
    return (
        f"Resonant: {relation_in_words(k[0])}{how}, and modes in such a relation pull each other off their frequencies"
        " at a finite energy: move one, or take energy=0."
    )


def _reason(wanted: Wanted, found: Found, k: int) -> str:
    """What came of the search for set number `k`."""
    error, misfit, wander, tolerance = found.error[k], found.misfit[k], found.wander[k], wanted.tolerance
    if error <= tolerance:
        return f"verified over {VERIFYING.turns:,} turns, largest relative error {error:.1g}."
    tried = f"in the best of {found.frames[k]} frames"
    if found.linear[k].max() > 0.99 * FASTEST_LINEAR:
        return (
            f"Unreachable at energy {wanted.energy[k]:.3g}: the bounds of sigma slow the orbit down so much that linear"
            f" frequencies of more than {FASTEST_LINEAR:g} times the fastest would be needed: lower the energy."
        )
    if not np.isfinite(misfit):
        return f"No orbit {tried} had frequencies that could be measured: lower the energy."
    near = _nearest_in_words(wanted.targets[k])
    if wander > tolerance:
        return (
            f"No sharp lines at energy {wanted.energy[k]:.3g}: {tried} the frequencies still wander by {wander:.1g}"
            f" between the halves of {LONG.turns:,} turns, as in chaos{near}: lower the energy, or raise attempts."
        )
    if misfit > tolerance:
        return f"Newton's method ended {misfit:.1g} away {tried}{near}: lower the energy, or raise attempts."
    return (
        f"Not verified: over {VERIFYING.turns:,} turns the frequencies {tried} are off by {error:.1g}{near}: lower the"
        " energy, or raise attempts."
    )


def _nearest_in_words(targets: np.ndarray) -> str:
    """The relation that may be in the way, for up to six frequencies: of more there are too many to name one."""
    if not 1 < len(targets) <= 6:
        return ""
    k, off = nearest_relation(targets[None], 6)
    return f" (the nearest relation, {relation_in_words(k[0])}, holds to {off[0]:.1g} of the fastest)"


def _checked_targets(frequencies: Any, n: Any) -> tuple[Array, int]:
    if not is_concrete(frequencies):
        raise JaxoscError("Got traced frequencies, expected numbers: call design outside jax.jit, vmap and grad.")
    targets = jnp.asarray(frequencies)
    targets = targets if jnp.issubdtype(targets.dtype, jnp.floating) else targets.astype(float)
    if not targets.ndim or 0 in targets.shape:
        raise JaxoscError(f"Got frequencies of shape {targets.shape}, expected (m,) or (..., m): pass a list of them.")
    require_finite("frequencies", targets)
    least = 2 * targets.shape[-1]
    size = least if n is None else n
    require_count("n", size)
    if size < least:
        raise JaxoscError(
            f"Got n = {size} neurons for m = {targets.shape[-1]} frequencies, expected at least 2m = {least}: each one"
            " turns in a plane of its own."
        )
    return targets, int(size)


def _checked_activation(activation: Any) -> AbstractActivation:
    activation = Tanh() if activation is None else activation
    if not isinstance(activation, AbstractActivation):
        raise JaxoscError(f"Got the activation {activation!r}, expected an instance such as jo.Tanh().")
    # A fact that is None is not known: such a function is taken at its word, as all is verified.
    if activation.odd is False or activation.monotone is False:
        raise JaxoscError(f"Got the activation {activation!r}, expected an odd and increasing one, such as jo.Tanh().")
    return activation


def _checked_tolerance(tolerance: Any, dtype: Any) -> float:
    tolerance = (1e-4 if jnp.finfo(dtype).bits < 64 else 1e-5) if tolerance is None else tolerance
    if np.ndim(tolerance):
        raise JaxoscError(f"Got tolerance of shape {np.shape(tolerance)}, expected one number.")
    require_positive("tolerance", tolerance)
    return float(tolerance)


def _checked_energy(energy: Any, sets: tuple[int, ...]) -> np.ndarray:
    energy = np.asarray(energy, np.float64)
    require_finite("energy", energy)
    if energy.shape not in ((), sets):
        raise JaxoscError(
            f"Got energy of shape {energy.shape}, expected () or {sets}: one for each set, or one number."
        )
    if (energy < 0).any():
        raise JaxoscError(f"Got energy = {energy.min():g}, expected H >= 0 of the start.")
    return np.broadcast_to(energy, sets).ravel()


def _checked_shares(shares: Any, shape: tuple[int, ...]) -> np.ndarray:
    shares = np.ones(shape[-1]) if shares is None else np.asarray(shares, np.float64)
    require_positive("shares", shares)
    if shares.shape not in (shape, shape[-1:]):
        raise JaxoscError(f"Got shares of shape {shares.shape}, expected {shape[-1:]} or {shape}: one for each mode.")
    return np.broadcast_to(shares, shape).reshape(-1, shape[-1])


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in values)
