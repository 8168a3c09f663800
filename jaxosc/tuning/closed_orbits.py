"""Closed orbits for starts that are on none: along the family of a mode, from where the network is linear upward.

Most starts of a network with more than two neurons lie on tori or in chaos, whose spectral lines are no sharper than
the window in which they are looked at (a random start at n = 8, entries of size 1/2: 1e-3 in 128 turns). The linear
modes y' = W y are closed orbits, and each goes on as a family of closed orbits of growing energy (Lyapunov's centre
theorem, unless another frequency is a whole multiple of its own). So the start is taken apart into modes, the one that
a readout sees most of is kept, and its family is followed up to the energy that the mode had in the start. Where the
family bends back or meets another one before, it ends there. High up many closed orbits are unstable and nobody would
ever see them; the whole path is handed on, so that one lower down can be taken.

Source: Lyapunov (1892), the centre theorem; Moser, *Comm. Pure Appl. Math.* 29 (1976).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._results import Result
from ..fields import AbstractField, CurrentRNN
from ..orbits import PeriodicOrbit, periodic_orbit
from .turning import fastest_bound

FAMILY_STEPS = 6
"""Orbits of a family on the way to the wanted energy, at equal steps of the amplitude."""

FIRST_SHARE = 1e-3
"""Of the energy that is wanted, at which the family begins; and no more than this in absolute terms either: there the
orbit of the linear mode is a guess that is good to a tenth of a per cent."""

STEPS_PER_TURN = 48
"""Of an orbit, times how much faster than it the fastest mode turns: its period is then known to 1e-7 or better."""

SLOWEST = 8
"""So many times slower than the fastest mode a mode may be to be chosen; others are dear, and meet more resonances."""

BLOCK = 256
"""Most members that are searched at once."""

MOST_ITERATIONS = 12
"""Of a search for an orbit; from so near a guess it takes four, and all members wait for the last."""


def linear_modes(
    field: AbstractField, y0: Float[Array, "members n"], readout: Any
) -> tuple[Float[Array, "members n"], Float[Array, " members"]]:
    """The part of each start in the mode that the readout sees most of, and the mode's angular frequency.

    Networks (members,) with skew or symmetrizable W, in the current form and near rest; `readout` as in
    `jo.tuning.Line`.
    """
    return jax.vmap(lambda field, y: _mode(field, y, readout))(field, y0)


def _mode(field: AbstractField, y: Float[Array, " n"], readout: Any) -> tuple[Array, Array]:
    matrix, scales = field.weight.matrix(), field.weight.energy_weights()
    root = jnp.ones_like(y) if scales is None else jnp.sqrt(scales)
    # y' = S d y is similar to the skew sqrt(d) S sqrt(d), so i times it is Hermitian.
    skew = root[:, None] * matrix / root[None, :]
    omega, vectors = jnp.linalg.eigh(1j * (skew - skew.T) / 2)
    amplitudes = jnp.matmul(vectors.conj().T, (root * y).astype(vectors.dtype), precision="highest")
    parts = vectors / root[:, None] * amplitudes[None, :]
    if readout is None:
        seen = jnp.sum(jnp.abs(parts) ** 2, axis=0)
    elif jnp.ndim(readout) == 0:
        seen = jnp.abs(parts[readout]) ** 2
    else:
        seen = jnp.abs(jnp.matmul(jnp.asarray(readout, y.dtype), parts, precision="highest")) ** 2
    # Eigenvalues come in pairs +-omega.
    seen = jnp.where(omega >= jnp.max(omega) / SLOWEST, seen, -1)
    best = jnp.argmax(seen)
    return 2 * jnp.real(parts[:, best]), omega[best]


def has_families(field: AbstractField) -> bool:
    """Whether linear modes of a network begin families of closed orbits: conservative, and at rest in 0."""
    conservative = field.weight.skew or field.weight.energy_weights() is not None
    free = field.bias is None and field.drive is None and not bool((field.leak != 0).any())
    return isinstance(field, CurrentRNN) and conservative and free


def predicted(
    last: PeriodicOrbit, energy: Float[Array, "*batch"]
) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch"]]:
    """A guess of the start and the period at another energy of the family."""
    # The tangent in the amplitude, since near rest the state goes like the root of the energy.
    root = jnp.sqrt(last.energy)
    guess = last.y0 + (2 * root * (jnp.sqrt(energy) - root))[..., None] * last.state_slope
    return guess, jnp.maximum(last.period + (energy - last.energy) * last.period_slope, last.period / 2)


class Families(eqx.Module):
    """Closed orbits (members, levels) from small amplitude upward.

    A start on each, the period, whether it was found, and the share of the wanted energy that it has.
    """

    y0: Float[Array, "members levels n"]
    period: Float[Array, "members levels"]
    found: Bool[Array, "members levels"]
    share: Float[Array, "members levels"]


def families(field: AbstractField, y0: Float[Array, "members n"], readout: Any, tell: Any = None) -> Families:
    """The families of the modes that `readout` sees most of in the starts of conservative networks (members,).

    Current form, skew or symmetrizable W, concrete members; levels are energies at equal steps of the amplitude.
    """
    mode, omega = linear_modes(field, y0, readout)
    fastest = fastest_bound(field, 2 * jnp.pi / omega)
    size = 2 ** math.ceil(math.log2(min(len(fastest), BLOCK)))
    order = np.argsort(fastest, kind="stable")
    parts = []
    for begin in range(0, len(order), size):
        mine = order[begin : begin + size]
        # A search for closed orbits compiles for many seconds: all blocks have one length.
        padded = np.concatenate([mine, np.full(size - len(mine), mine[-1])])
        networks, modes, rates = jax.tree.map(lambda leaf, padded=padded: leaf[padded], (field, mode, omega))
        found = _family(networks, modes, rates, STEPS_PER_TURN * int(fastest[mine].max()))
        if tell is not None:
            tell((begin + len(mine)) / len(order))
        parts.append(jax.tree.map(lambda leaf, mine=mine: leaf[: len(mine)], found))
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *parts)


def _family(field: AbstractField, mode: Array, omega: Array, steps: int) -> Families:
    wanted = jax.vmap(lambda field, y: field.energy(y))(field, mode)
    first = jnp.minimum(FIRST_SHARE * wanted, FIRST_SHARE)
    small = mode * jnp.sqrt(first / wanted)[:, None]
    options: Any = dict(num_steps=steps, max_iterations=MOST_ITERATIONS)
    last = periodic_orbit(field, small, 2 * jnp.pi / omega, energy=first, **options)
    good = last.result == Result.successful
    levels = [(last, good, first / wanted)]
    for number in range(1, FAMILY_STEPS + 1):
        # Energy is quadratic in the amplitude.
        goal = first + (wanted - first) * (number / FAMILY_STEPS) ** 2
        guess, period = predicted(last, goal)
        good = good & jnp.isfinite(guess).all(axis=-1) & jnp.isfinite(period)
        guess, period = jnp.where(good[:, None], guess, small), jnp.where(good, period, 2 * jnp.pi / omega)
        last = periodic_orbit(field, guess, period, energy=jnp.where(good, goal, first), **options)
        # An orbit of another family shows as a period far from where the tangent pointed.
        good = good & (last.result == Result.successful) & (jnp.abs(last.period / period - 1) < 0.1)
        levels.append((last, good, goal / wanted))
    orbits, found, shares = zip(*levels, strict=True)
    y0, period = (jnp.stack([getattr(orbit, name) for orbit in orbits], axis=1) for name in ("y0", "period"))
    return Families(y0, period, jnp.stack(found, axis=1), jnp.stack(shares, axis=1))
