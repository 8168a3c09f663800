"""What forward Euler does to the energy of an oscillation: laws of growth, exact or averaged over a period.

The loop y <- y + dt W sigma(y) never loses energy when the potential is convex. Linear networks blow up geometrically;
with tanh the forces stay bounded and the energy of the pair, W = [[0, omega], [-omega, 0]], follows, per unit time,

    dE/dt = dt omega^2 R(E),   R(E) = E(m)/K(m) - (1 - m),   m = 1 - exp(-2E):

the second-order term of the energy of one step, dt^2 omega^2 (sech^2 y1 tanh^2 y2 + sech^2 y2 tanh^2 y1)/2, averaged
over the orbit. R = E for small energies (exponential growth) and 1/(E + log 4) for large ones (a square root).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .elliptic import complementary_ladder, second_over_first_less_m1
from .pair import PERIOD_LIMIT, inexact

LOG4 = float(np.log(4.0))

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


def euler_linear_growth(omega: Real[ArrayLike, "..."], dt: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Factor on |y|^2 in each Euler step of the linear pair with angular frequency omega: 1 + (dt omega)^2, exactly.

    The same factor acts on each plane of a larger skew W, with omega its own frequency.

    **Arguments:** `omega` in 1/time and `dt` in time, any shapes that broadcast.
    """
    omega, dt = jnp.broadcast_arrays(*inexact(omega, dt))
    return 1 + (dt * omega) ** 2


def euler_tanh_energy(
    t: Real[ArrayLike, "..."],
    energy0: Real[ArrayLike, "..."],
    omega: Real[ArrayLike, "..."],
    dt: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Energy of the tanh pair under forward Euler at time t, the square-root law:

        (E + log 4)^2 = (E0 + log 4)^2 + 2 dt omega^2 t.

    Asymptotic in E >> 1 (relative error 3e-3 and less from t = 10^3 / omega on, for dt omega <= 0.2 and a start at
    E0 about 1); after a small start it stays ahead of the truth for long: there use `euler_tanh_energy_averaged`.

    **Arguments:** `t`, `dt` in time, `energy0` >= 0, `omega` in 1/time; any shapes that broadcast.
    """
    t, energy0, omega, dt = jnp.broadcast_arrays(*inexact(t, energy0, omega, dt))
    return jnp.sqrt((energy0 + LOG4) ** 2 + 2 * dt * omega**2 * t) - LOG4


def euler_tanh_energy_averaged(
    t: Real[ArrayLike, "..."],
    energy0: Real[ArrayLike, "..."],
    omega: Real[ArrayLike, "..."],
    dt: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Energy of the tanh pair under forward Euler at time t, from the averaged equation at the top of the file.

    Right at all energies, up to the neglected O((dt omega)^2) and the ripple within one period. The equation itself is
    solved to 1e-10 relative: separated, int dE/R(E) = dt omega^2 t, with the leading behaviour of both ends taken out
    in closed form, Gauss-Legendre quadrature for the rest, and Newton's method for E.

    **Arguments:** `t` >= 0, `dt` in time, `energy0` > 0, `omega` in 1/time; any shapes that broadcast.
    """
    t, energy0, omega, dt = jnp.broadcast_arrays(*inexact(t, energy0, omega, dt))
    return _averaged_energy(energy0, dt * omega**2 * t)


@jax.jit
def _averaged_energy(energy0: Float[Array, "*shape"], elapsed: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    start = _clock(energy0)

    def newton(_: Any, clock: Array) -> Array:
        energy = _energy_at(clock)
        residual = clock - start + _clock_correction(energy0, energy) - elapsed
        return clock - residual * _clock_rate(energy)

    return _energy_at(jax.lax.fori_loop(0, 12, newton, start + elapsed))


def _averaged_rate(energy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """R(E) of the file's top; relative accuracy at both ends."""
    large = energy > PERIOD_LIMIT
    ladder = complementary_ladder(jnp.exp(-jnp.where(large, 1.0, energy)))
    return jnp.where(large, 1 / (energy + LOG4), second_over_first_less_m1(ladder))


def _clock(energy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """z(E) = log(exp(q) - 1), q = E (E + 2 log 4)/2: runs with dt omega^2 t at small and at large energies."""
    q = energy * (energy + 2 * LOG4) / 2
    return q + jnp.log(-jnp.expm1(-q))


def _energy_at(clock: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The inverse of `_clock`."""
    twice_q = 2 * jax.nn.softplus(clock)
    return twice_q / (jnp.sqrt(twice_q + LOG4**2) + LOG4)


def _clock_slope(energy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """dz/dE."""
    return (energy + LOG4) / -jnp.expm1(-energy * (energy + 2 * LOG4) / 2)


def _clock_rate(energy: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """dz / d(dt omega^2 t): 1 at both ends and never below 0.92, so that Newton's method is at home at once."""
    return _clock_slope(energy) * _averaged_rate(energy)


def _clock_correction(start: Float[Array, "*shape"], end: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """int (1/R - dz/dE) dE from `start` to `end`; nothing is left of the integrand beyond energy 20."""
    start, end = (jnp.minimum(energy, PERIOD_LIMIT)[..., None] for energy in (start, end))
    nodes = jnp.asarray((_NODES + 1) / 2, start.dtype).reshape((1,) * (start.ndim - 1) + (-1,))
    weights = jnp.asarray(_WEIGHTS / 2, start.dtype).reshape(nodes.shape)
    energy = start + (end - start) * nodes
    integrand = 1 / _averaged_rate(energy) - _clock_slope(energy)
    return jnp.sum(weights * integrand * (end - start), axis=-1)
