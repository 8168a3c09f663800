"""The frequency map of a skew network: from the frequencies of its linear part to those of an orbit on its torus.

A skew matrix of rank 2m is m rotations in planes at right angles to each other,

    W = sum_k omega_k (a_k b_k^T - b_k a_k^T),

and the orbit seen in plane k, (a_k.y, b_k.y), turns at the linear frequency sigma'(0) omega_k / (2 pi) while it is
small. A larger one meets the bend of sigma: all frequencies shift, and as the planes are not those of neurons, every
one depends on all. As long as the orbit stays on a torus each plane has one line that outdoes the others: that tells
which frequency is whose. It is measured in two ways that share nothing but the plane: by mean rotation (fast; what
Newton's method sees) and by the refined top of the spectrum (what verifies).

Times are in turns of the fastest wanted frequency: frequencies here are relative to it.
"""

import functools
import math
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..activations import AbstractActivation
from ..fields import CurrentRNN
from ..orbits import frequency
from ..simulate import simulate
from ..solvers import PoissonSplitting
from ..weights import DenseSkew

MOST_BYTES = 2**26
"""Of the trajectories that are in memory at once."""

ROOM = 1.25
"""Linear frequencies up to this take the steps of a window as they are; twice as fast ones steps half as long."""


MIXING = ((0, 1.0), (20, 0.6), (36, 0.4), (52, 0.2), (68, 0.1), (84, 0.05), (100, 0.0))
"""From which frame on how much of a frame is random, the rest being the neurons' own axes. In those axes the planes do
not meet at all, every set of frequencies has its network, by the closed form of the pair, and nothing is chaotic: what
strong mixing does not allow, weak mixing does."""


class Modes(NamedTuple):
    """Candidates side by side: planes (members, n, 2m), columns a_1, b_1, a_2, ..., and starts (members, n)."""

    planes: Float[np.ndarray, "members n columns"]
    starts: Float[np.ndarray, "members n"]

    def take(self, index: Int[np.ndarray, " some"]) -> Self:
        """Some of them."""
        return type(self)(self.planes[index], self.starts[index])


class Window(NamedTuple):
    """How to look: for how many turns, at how many steps a turn, at which of them, at how many members at once."""

    turns: int
    steps: int
    every: int
    solver: PoissonSplitting
    method: str
    members: int

    def longer(self, times: int) -> Self:
        """The same for so many times the turns."""
        return self._replace(turns=self.turns * times)


def draw_modes(
    key: Array,
    sets: Int[np.ndarray, " sets"],
    numbers: Int[np.ndarray, " numbers"],
    shares: Float[np.ndarray, "sets m"],
    size: int,
) -> Modes:
    """Random frames and phases: member (s, j) depends on the key, the number of the set and the number j, on no other.

    Planes are the columns of an orthogonal matrix: of the uniform (Haar) law for the first frames, and nearer to the
    neurons' own axes for later ones, see `MIXING`. Starts have the squares `shares` in them and a phase that is uniform
    in each.
    """
    count = shares.shape[1]

    def one(place: Array, number: Array) -> tuple[Array, Array]:
        frame, phase = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, place), number))
        return jax.random.normal(frame, (size, size)), jax.random.uniform(phase, (count,))

    every_number = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    normals, phases = (np.asarray(part, np.float64) for part in every_number(jnp.asarray(sets), jnp.asarray(numbers)))
    share = np.array([next(mixing for first, mixing in reversed(MIXING) if number >= first) for number in numbers])
    share = np.tile(share, len(sets))[:, None, None]
    own_axes = np.sqrt(size) * np.eye(size)
    q, r = np.linalg.qr(share * normals.reshape(-1, size, size) + (1 - share) * own_axes)
    planes = (q * np.sign(np.einsum("mii->mi", r))[:, None])[..., : 2 * count]
    angles = 2 * np.pi * phases.reshape(-1, count)
    radii = np.sqrt(np.repeat(shares, len(numbers), axis=0))
    along = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1).reshape(len(planes), 2 * count)
    return Modes(planes, np.einsum("mnc,mc->mn", planes, along))


def scaled_to_energy(
    activation: AbstractActivation, directions: Float[np.ndarray, "members n"], energy: Float[np.ndarray, " members"]
) -> Float[np.ndarray, "members n"]:
    """The multiples of `directions` at which H = sum_i Phi(y_i) is `energy`, to rounding."""
    factors = _factors(activation, jnp.asarray(directions), jnp.asarray(energy))
    return directions * np.asarray(factors, np.float64)[:, None]


@jax.jit
def _factors(activation: AbstractActivation, directions: Array, energy: Array) -> Array:
    """By bisection on log2: H grows with the factor for every increasing odd sigma, but how is not known."""

    def halved(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        above = jnp.sum(activation.potential(jnp.exp2(middle)[:, None] * directions), axis=1) > energy
        return jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])

    ends = (jnp.full_like(energy, -50.0), jnp.full_like(energy, 50.0))
    low, high = jax.lax.fori_loop(0, 60, halved, ends)
    return jnp.exp2((low + high) / 2)


def network(
    planes: Float[np.ndarray, "*batch n columns"],
    linear: Float[np.ndarray, "*batch m"],
    activation: AbstractActivation,
    dtype: Any = float,
) -> CurrentRNN:
    """The networks whose linear frequencies, in cycles per unit of time, are `linear` in the planes."""
    slope = float(activation.derivative(jnp.zeros(())))
    angular = 2 * np.pi * linear / slope
    product = (planes[..., 0::2] * angular[..., None, :]) @ np.swapaxes(planes[..., 1::2], -1, -2)
    rows, columns = np.triu_indices(planes.shape[-2], 1)
    entries = product[..., rows, columns] - product[..., columns, rows]
    return CurrentRNN(DenseSkew(jnp.asarray(entries, dtype)), activation)


def measured(
    modes: Modes, linear: Float[np.ndarray, "members m"], activation: AbstractActivation, window: Window
) -> tuple[Float[np.ndarray, "members m"], Float[np.ndarray, "members m"]]:
    """The frequency map: one frequency for each plane, and by how much the halves of the run differ from it."""
    members, count = linear.shape
    size = modes.starts.shape[1]
    samples = window.turns * window.steps // window.every
    most = max(1, MOST_BYTES // (samples * (size + 2 * count) * 8))
    width = min(_power_of_four(min(members, most)), window.members)
    faster = 2 ** max(0, math.ceil(math.log2(max(linear.max(), 1e-3) / ROOM)))
    finer = window._replace(steps=window.steps * faster, every=window.every * faster)
    found, scatter = np.empty((members, count)), np.empty((members, count))
    for begin in range(0, members, width):
        index = np.minimum(np.arange(begin, begin + width), members - 1)
        some = modes.take(index)
        values, errors = _measured_at_once(some, network(some.planes, linear[index], activation), finer)
        end = min(begin + width, members)
        found[begin:end], scatter[begin:end] = values[: end - begin], errors[: end - begin]
    return found, scatter


def _power_of_four(value: int) -> int:
    """The nearest from above, so that few shapes are compiled."""
    return 4 ** math.ceil(math.log(value, 4) - 1e-9)


def _measured_at_once(modes: Modes, field: CurrentRNN, window: Window) -> tuple[np.ndarray, np.ndarray]:
    run = simulate(
        field,
        jnp.asarray(modes.starts, field.dtype),
        t1=float(window.turns),
        dt=1 / window.steps,
        save_every=window.every,
        solver=window.solver,
        throw=False,
    )
    seen = _seen_in_planes(run.ys, jnp.asarray(modes.planes, run.ys.dtype))
    lines = frequency(run.ts, seen, method=window.method)
    return np.asarray(lines.frequency, np.float64), np.asarray(lines.error[..., 0], np.float64)


@functools.partial(jax.jit)
def _seen_in_planes(ys: Float[Array, "members times n"], planes: Float[Array, "members n columns"]) -> Array:
    """(members, m, times, 2)."""
    along = jnp.matmul(ys, planes, precision="highest")
    return jnp.moveaxis(along.reshape(*ys.shape[:2], -1, 2), 2, 1)
