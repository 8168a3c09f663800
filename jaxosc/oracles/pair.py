"""Period and motion of the pair: n = 2, tanh, W = [[0, omega], [-omega, 0]].

With E = log cosh y1 + log cosh y2 and m = 1 - exp(-2E), b = exp(-E), k = sqrt(m):

    tanh y1 = k sn(u | m),   tanh y2 = k cd(u | m),   u = omega t + p,   period 4 K(m) / |omega|.

A quarter period on, the state is turned by a right angle: (y1, y2)(u + K) = (y2, -y1)(u). So only |u| <= K/2 has to be
evaluated, where with x = sn/cn

    y1 = asinh(k x / sqrt(1 + b^2 x^2)),   y2 = asinh(k / (b sqrt(1 + x^2))),

and back, x = sinh(y1)/tanh(y2), again by sums of positive terms alone. Where b vanishes beside 1, the same quarter is
y1 = u, log cosh y2 = E - log cosh y1, and K = E + log 4, each up to exp(-E) relative.
Source: Byrd and Friedman, *Handbook of Elliptic Integrals*, for the functions; the reduction is elementary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import is_concrete
from .._errors import JaxoscError
from ..activations import Tanh
from .elliptic import Ladder, complementary_ladder, complete_first, incomplete_first, tangent_of_amplitude

PERIOD_LIMIT = 20.0
"""Energy beyond which K = E + log 4: the next term is exp(-2E) E/4, below 1e-17."""

LINEAR_NORM = 1e-9
"""Largest |y_i| at which the pair counts as linear: its period is then off by E/2 < 5e-19, relative."""


class _Orbit(NamedTuple):
    """What the quarter |u| <= K/2 of one orbit needs; `large` chooses the limit exp(-E) -> 0."""

    energy: Float[Array, ""]
    quarter: Float[Array, ""]  # K, a quarter of the period in units of u
    large: Bool[Array, ""]
    ladder: Ladder  # of exp(-energy); where `large`, of a harmless number


def pair_period(energy: Real[ArrayLike, "..."], omega: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Period of the tanh pair, (4/|omega|) K(m) with m = 1 - exp(-2 energy).

    By the arithmetic-geometric mean of 1 and exp(-energy); K = energy + log 4 beyond energy 20. Small energies:
    2 pi/|omega| (1 + energy/2 + ...). Relative error below 1e-15 in float64 (4e-7 in float32) at every energy, value
    and gradient with respect to both arguments alike.

    **Arguments:** `energy` E >= 0 and `omega` (1/time, either sign), any shapes that broadcast.

    **Returns:** the period in units of time; infinite where omega is 0.

    **Raises:** `JaxoscError` for a negative energy. Inside a JAX transformation that cannot be seen: NaN there.
    """
    energy, omega = inexact(energy, omega)
    if is_concrete(energy) and bool((energy < 0).any()):
        raise JaxoscError(f"Got the energy {float(energy.min())}, expected >= 0: take field.energy(y) of a state.")
    energy, omega = jnp.broadcast_arrays(energy, omega)
    return 4 * quarter_period(jnp.where(energy < 0, jnp.nan, energy)) / jnp.abs(omega)


def pair_solution(
    t: Real[ArrayLike, "..."], y0: Real[ArrayLike, "..."], omega: Real[ArrayLike, "..."]
) -> Float[Array, "... 2"]:
    """State of the tanh pair y1' = omega tanh y2, y2' = -omega tanh y1 at the times `t`, from `y0` at t = 0.

    Closed form; see the top of the file. Absolute error a few eps (|omega t| + |y|), that of rounding the inputs:
    measured in float64 1e-15 at |y| = 1, 4e-14 at |y| = 60 within one period and 5e-12 after a hundred. Relative for
    |y| < 1. Valid for any energy, omega and time; differentiable in `t`, `y0` and `omega`, at rest (y0 = 0) too.

    **Arguments:** `t` any shape, in time units; `y0` (2,); `omega` a scalar in 1/time.

    **Returns:** states (..., 2), in the common floating dtype of the arguments.

    **Raises:** `JaxoscError` for another shape of `y0` or `omega`.
    """
    t, y0, omega = inexact(t, y0, omega)
    if y0.shape != (2,) or omega.shape:
        raise JaxoscError(
            f"Got y0 of shape {y0.shape} and omega of shape {omega.shape}, expected (2,) and a scalar: use jax.vmap for"
            " several pairs."
        )
    return _solution(t, y0, omega)


@jax.jit
def _solution(t: Float[Array, "*times"], y0: Float[Array, "2"], omega: Float[Array, ""]) -> Float[Array, "*times 2"]:
    at_rest = jnp.max(jnp.abs(y0)) < LINEAR_NORM
    # each formula gets harmless arguments where the other is chosen, or its NaN would reach the gradients
    moving = _nonlinear_solution(omega * t, jnp.where(at_rest, jnp.ones_like(y0), y0))
    return jnp.where(at_rest, _linear_solution(omega * t, y0), moving)


@jax.jit
def quarter_period(energy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """K(m = 1 - exp(-2 energy)), a quarter of the pair's period at |omega| = 1; NaN for NaN."""
    large = energy > PERIOD_LIMIT
    ladder = complementary_ladder(jnp.exp(-jnp.where(large, 1.0, energy)))
    return jnp.where(large, energy + jnp.log(4.0), complete_first(ladder))


def inexact(*arguments: Real[ArrayLike, "..."]) -> tuple[Float[Array, "..."], ...]:
    """The arguments as arrays of their common dtype; integers become the default float."""
    dtype = jnp.result_type(*arguments)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return tuple(jnp.asarray(argument, dtype) for argument in arguments)


def _linear_solution(angle: Float[Array, "*times"], y0: Float[Array, "2"]) -> Float[Array, "*times 2"]:
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cosine * y0[0] + sine * y0[1], cosine * y0[1] - sine * y0[0]], axis=-1)


def _nonlinear_solution(angle: Float[Array, "*times"], y0: Float[Array, "2"]) -> Float[Array, "*times 2"]:
    orbit = _orbit_of(y0)
    turns0, local0 = _phase(orbit, y0)
    u = angle + local0
    turns = jax.lax.stop_gradient(jnp.round(u / orbit.quarter))
    quarter = jnp.stack(_on_quarter(orbit, u - turns * orbit.quarter), axis=-1)
    return _turned(quarter, turns.astype(int) + turns0)


def _orbit_of(y0: Float[Array, "2"]) -> _Orbit:
    energy = jnp.sum(Tanh().potential(y0))
    # exp(-energy) is then below the rounding unit; later, float32 would leave its range in squares of exp(energy/2)
    large = energy > -jnp.log(jnp.finfo(energy.dtype).eps) + 2
    ladder = complementary_ladder(jnp.exp(-jnp.where(large, 1.0, energy)))
    return _Orbit(energy, jnp.where(large, energy + jnp.log(4.0), complete_first(ladder)), large, ladder)


def _phase(orbit: _Orbit, y0: Float[Array, "2"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The phase of `y0` as a number of quarter turns (0 .. 3) and the rest, |rest| <= K/2."""
    y1, y2 = y0
    turns = jnp.where(jnp.abs(y1) <= jnp.abs(y2), jnp.where(y2 > 0, 0, 2), jnp.where(y1 > 0, 1, 3))
    small, big = _turned(y0, -turns)
    safe_small, safe_big = (jnp.where(orbit.large, 1.0, value) for value in (small, big))
    local = incomplete_first(orbit.ladder, jnp.sinh(safe_small) / jnp.tanh(safe_big))
    return turns, jnp.where(orbit.large, small, local)


def _on_quarter(orbit: _Orbit, u: Float[Array, "*times"]) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
    """(y1, y2) at the phases |u| <= K/2, where |y1| <= y2."""
    b = orbit.ladder.geometric[0]
    modulus = jnp.sqrt(-jnp.expm1(-2 * jnp.where(orbit.large, 1.0, orbit.energy)))
    x = tangent_of_amplitude(orbit.ladder, jnp.where(orbit.large, 0.0, u))
    small = jnp.arcsinh(modulus * x / jnp.sqrt(1 + (b * x) ** 2))
    big = jnp.arcsinh(modulus / (b * jnp.sqrt(1 + x**2)))
    potential = jnp.where(orbit.large, orbit.energy - Tanh().potential(u), 1.0)
    limit = potential + jnp.log1p(jnp.sqrt(-jnp.expm1(-2 * potential)))  # its log cosh is the potential
    return jnp.where(orbit.large, u, small), jnp.where(orbit.large, limit, big)


def _turned(y: Float[Array, "*times 2"], turns: Int[Array, "*times"]) -> Float[Array, "*times 2"]:
    """`y` moved on by whole quarter periods, (y1, y2) -> (y2, -y1) each."""
    turns = jnp.mod(turns, 4)
    swapped = jnp.where((turns % 2 == 1)[..., None], y[..., ::-1], y)
    first = jnp.where(turns >= 2, -1.0, 1.0)
    second = jnp.where((turns == 1) | (turns == 2), -1.0, 1.0)
    return swapped * jnp.stack([first, second], axis=-1).astype(y.dtype)
