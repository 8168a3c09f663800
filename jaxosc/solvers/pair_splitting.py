"""Pair splitting: one plane of two neurons at a time, each turned exactly.

A skew W is a sum of planes, W = sum over i < j of w_ij (e_i e_j^T - e_j e_i^T), and y' = W sigma(y) with one of them in
the place of W is the network of two neurons: y_i' = w_ij sigma(y_j), y_j' = -w_ij sigma(y_i). Where that has a closed
form (pair_flows.py: tanh and the linear network) a step is a palindrome of exact flows,

    all planes in order by dt/2, then all in reverse order by dt/2 (the middle ones once, by dt),

so it is symmetric and of order 2. Each flow keeps the energy of its two neurons, so the step keeps H itself, to
rounding, at any dt. For n = 2 there is one plane and the step is the solution.

Planes without a common neuron commute. The order of the planes is that of a tournament in which everybody meets
everybody once: n - 1 rounds (n if n is odd) of n/2 planes that are turned together, by one operation on vectors.

- Bias, input and leak: x' = b + u(t + dt/2) - leak x is solved exactly for dt/2 before and after. Symmetric, order 2.
- Not for the rate form. Its y = W r + b stays in a subspace if W is singular, as for odd n. A single plane leaves it,
  so there is no r to go with y afterwards; and where there is one, each plane would change all of r.

Source: McLachlan, *Phys. Rev. Lett.* 71 (1993) for splitting of Poisson systems; Hairer, Lubich, Wanner, *Geometric
Numerical Integration*, II.5 for symmetric compositions.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._errors import JaxoscError
from ..activations import Identity, Tanh
from .affine import affine_flow, has_affine_part
from .lanes import Lanes, lanes_of
from .pair_flows import AbstractPlanes, LinearPlanes, TanhPlanes, Turn
from .poisson_splitting import direction_of, field_of


class PairSplitting(diffrax.AbstractSolver):
    """Explicit splitting solver of order 2 that conserves the energy of a skew tanh network to rounding, at any dt.

    Cost per step: n(n-1)/2 planes, nearly all of them twice, with five square roots and ten quotients each (tanh), as
    vectors of n/2. Conserved: the energy to rounding at any step size, without bias, leak and drive (measured at n = 8
    over 10^6 steps of dt |W| = 0.1 and 1: 3e-13 for |y| near 1 and at 60, 5e-12 at 0.001). Time-symmetric: a run
    backward returns to its start, to rounding.

    **Nothing else is conserved**: the planes are Poisson maps of a structure of their own each, so no modified energy
    bounds what they share. The Casimirs, and with a bias H + c.y, err by O(dt^2) and wander: by 1e-3 in 40 units of
    time and by up to 0.5 in 4e4 (dt |W| = 0.2; a quarter of the speed at half the step; n = 3 keeps its one Casimir to
    1e-3). Take `PoissonSplitting` or `DiscreteGradient` where they matter, and with a leak.

    The error of the trajectory is O(dt^2), and 0 for n = 2. Energy tells nothing about it: at dt |W| > 1 the energy is
    right and the orbit is not that of the network. Where a plane turns by more than 1.5 in a step (dt |w_ij|), the step
    costs 64 times more; beyond 96 the plane turns by 96. Any |y| is allowed. Not adaptive: it gives no error estimate.
    Dense output: cubic Hermite, O(dt^4).

    The field must be a `jo.CurrentRNN` with `Tanh` and a skew weight, or with `Identity` and a skew or `Symmetrizable`
    one; `Unconstrained` only if its concrete entries are skew.

    **Raises:** `JaxoscError` for other fields, with what to use instead.

    **Source:** McLachlan 1993; pair_flows.py names that of the flows.
    """

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def order(self, terms: Any) -> int:
        """The order of convergence, 2."""
        return 2

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> PyTree:
        """The coordinates of the planes, each (n, 1), carried from step to step; checks the vector field."""
        return first_place(lanes_of(field_of(terms, "PairSplitting")), y0[:, None])

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: PyTree, made_jump: Any) -> Any:
        """One step, in Diffrax's form: new state, no error estimate, dense output, coordinates, success."""
        control = terms.contr(t0, t1)
        lanes = lanes_of(field_of(terms, "PairSplitting"))
        t = jnp.asarray(t0 * direction_of(terms), y0.dtype)
        x1, place = pair_step(lanes, t, jnp.asarray(control, y0.dtype), y0[:, None], solver_state)
        y1 = x1[:, 0]
        k0, k1 = (terms.vf_prod(t, y, args, control) for t, y in ((t0, y0), (t1, y1)))
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), place, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return terms.vf(t0, y0, args)


def first_place(lanes: Lanes, x: Float[Array, "n lanes"]) -> PyTree:
    """What a run carries from step to step: the coordinates of `x` in its planes; None where something moves y between.

    They and not y are what a step acts on. y -> (tanh y, sech y) -> y at every step would add the rounding of four
    functions, which has a preferred sign: measured at n = 8, a drift of 1e-11 in 10^5 steps, where it is 3e-14 so.
    """
    planes = planes_of(lanes)
    return None if has_affine_part(lanes) else planes.enter(x)


def pair_step(
    lanes: Lanes, t: Any, dt: Float[Array, ""], x: Float[Array, "n lanes"], place: PyTree
) -> tuple[Float[Array, "n lanes"], PyTree]:
    """One step of size `dt` from time t in every lane, and the new coordinates; `place` as `first_place` gives it."""
    planes = planes_of(lanes)
    if place is not None:
        place = _swept(lanes, planes, dt, place)
        return planes.leave(place), place
    middle = t + 0.5 * dt
    x = affine_flow(lanes, x, middle, 0.5 * dt)
    x = planes.leave(_swept(lanes, planes, dt, planes.enter(x)))
    return affine_flow(lanes, x, middle, 0.5 * dt), None


def planes_of(lanes: Lanes) -> AbstractPlanes:
    """The coordinates in which the planes of these networks turn exactly.

    **Raises:** `JaxoscError` for networks whose planes have no closed form.
    """
    if lanes.form == "rate":
        raise JaxoscError(
            "Got a jo.RateRNN in PairSplitting, expected a jo.CurrentRNN, since turning one plane of y = W r + b is no"
            " change of r: run jo.CurrentRNN(weight, activation) from field.preactivation(r), or use PoissonSplitting."
        )
    if not isinstance(lanes.activation, Tanh | Identity):
        raise JaxoscError(
            f"Got {lanes.activation!r} in PairSplitting, expected jo.Tanh() or jo.Identity(), whose planes have a"
            " closed form: use jo.solvers.DiscreteGradient(), which conserves the energy too, or PoissonSplitting()."
        )
    if not lanes.skew:
        raise JaxoscError(
            "Got a weight that is not known to be skew in PairSplitting, expected W.T == -W, since it turns planes and"
            " nothing else: use jo.weights.DenseSkew.from_matrix(W) if W is skew, else PoissonSplitting()."
        )
    if lanes.energy_weights is None:
        return LinearPlanes(None) if isinstance(lanes.activation, Identity) else TanhPlanes()
    if isinstance(lanes.activation, Tanh):
        raise JaxoscError(
            "Got W = S diag(d) with jo.Tanh() in PairSplitting, expected a skew W, since a plane with d_i != d_j has no"
            " closed form: use jo.solvers.DiscreteGradient(), which conserves the energy too, or PoissonSplitting()."
        )
    return LinearPlanes(jnp.sqrt(lanes.energy_weights))


def _swept(lanes: Lanes, planes: AbstractPlanes, dt: Float[Array, ""], place: PyTree) -> PyTree:
    """The coordinates after all planes have turned, there and back."""
    root = planes.root if isinstance(planes, LinearPlanes) else None
    angles = _angles(lanes, root, dt)

    def sweep(turn: Turn, arrays: PyTree) -> PyTree:
        return _there_and_back(turn, arrays, angles)

    return planes.swept(place, jnp.max(jnp.abs(angles)), sweep)


def _angles(lanes: Lanes, root: Array | None, dt: Float[Array, ""]) -> Float[Array, "rounds planes #lanes"]:
    """dt w_ij of the planes of each round; 0 for the plane of the neuron that has nobody to meet."""
    first, second = np.moveaxis(tournament(lanes.size), 1, 0)
    nobody = (np.maximum(first, second) == lanes.size)[..., None]
    first, second = np.minimum(first, lanes.size - 1), np.minimum(second, lanes.size - 1)
    coupling = jnp.where(nobody, 0, lanes.matrix[first, second])
    if root is not None:
        coupling = coupling * root[first] / root[second]
    return dt * (coupling if lanes.gain is None else lanes.gain[None, None, :] * coupling)


def _there_and_back(turn: Turn, arrays: PyTree, angles: Float[Array, "rounds planes #lanes"]) -> PyTree:
    """The palindrome: every round by half its angles, the last one once by its full angles, every round in reverse.

    Between two rounds the neurons change seats, so that the two ends of all planes are two halves of one array.
    """
    rounds, planes = angles.shape[:2]
    last = rounds - 1
    order = np.concatenate([np.arange(rounds), np.arange(last)[::-1]])
    share = np.where(order == last, 1.0, 0.5)
    moves = _moves(rounds, planes)
    # Differentiated backward, a turn is computed again from its ends: of its own it would keep hundreds of numbers.
    remembered = jax.checkpoint(turn)

    def visit(arrays: PyTree, at: tuple[Array, Array, Array]) -> tuple[PyTree, None]:
        number, part, move = at
        seated = jax.tree.map(lambda a: a[move].reshape(2, planes, -1), arrays)
        ends = remembered(seated, part * angles[number])
        return jax.tree.map(lambda a: a.reshape(2 * planes, -1), ends), None

    size = jax.tree.leaves(arrays)[0].shape[0]
    padded = jax.tree.map(lambda a: jnp.pad(a, ((0, 2 * planes - size), (0, 0))), arrays)
    visits = (jnp.asarray(order), jnp.asarray(share, angles.dtype), jnp.asarray(moves))
    # A loop at any n. Written out, n = 8 takes a third of the time in a single lane, the same in many, and compiles two
    # to three times longer; rotations XLA then folds into each other, which took two minutes and ran a hundred times
    # slower.
    after, _ = jax.lax.scan(visit, padded, visits)
    return jax.tree.map(lambda a: a[:size], after)


def tournament(n: int) -> Int[np.ndarray, "rounds 2 planes"]:
    """Who meets whom: in each round everybody has one partner, and after all rounds everybody has met everybody.

    The neurons sit at two sides of a table, partners opposite each other; the first stays and all the others move on
    by one seat (the circle method). For odd n there is one more seat, for number n, who is nobody.
    """
    planes = (n + 1) // 2
    seats = [np.arange(2 * planes)]
    for _ in range(2 * planes - 2):
        seats.append(seats[-1][_next_seat(planes)])
    return np.stack(seats).reshape(-1, 2, planes)


def _next_seat(planes: int) -> Int[np.ndarray, " seats"]:
    """Which seat its neuron comes from, by seat: one side in order, then the other."""
    side, other = np.arange(2 * planes).reshape(2, planes)
    if planes == 1:
        return np.arange(2)
    return np.concatenate([side[:1], other[:1], side[1:-1], other[1:], side[-1:]])


def _moves(rounds: int, planes: int) -> Int[np.ndarray, "visits seats"]:
    """The change of seats before each visit: none before the first, on by one until the last round, then back."""
    on = _next_seat(planes)
    back = np.argsort(on)
    return np.stack([np.arange(2 * planes)] + (rounds - 1) * [on] + (rounds - 1) * [back])
