"""The period of the pair for any odd increasing activation, by quadrature along the orbit.

n = 2, W = [[0, omega], [-omega, 0]], level set Phi(y1) + Phi(y2) = E. The orbit has eight congruent pieces (signs, and
y1 <-> y2 with time reversed), so

    period = (8 / |omega|) int_0^B dy / sigma(Phi^-1(E - Phi(y))),   Phi(B) = E/2.

Stopping at the diagonal y1 = y2 = B keeps sigma away from zero: the end-point singularity of the usual quarter, and the
substitution that removes it, never appear.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import is_concrete
from .._errors import JaxoscError
from ..activations import AbstractActivation
from .pair import inexact

NODES = 96
NEWTON_STEPS = 80

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(NODES)


def pair_period_general(
    activation: AbstractActivation, energy: Real[ArrayLike, "..."], omega: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Period of the pair y1' = omega sigma(y2), y2' = -omega sigma(y1) at the energy Phi(y1) + Phi(y2) = `energy`.

    Gauss-Legendre with 96 nodes on the integral of the file's top: relative error 1e-12 in float64 where sigma is
    smooth on y > 0; a kink (hard-tanh, energies between 1/2 and 1) costs digits, error 1e-5. As accurate as the
    activation's potential is. Differentiable in `energy`, `omega` and parameters of the activation.

    **Arguments:** `activation` odd, increasing and positive for y > 0 (its class must say so); `energy` > 0; `omega` in
    1/time, either sign; the last two of any shapes that broadcast.

    **Raises:** `JaxoscError` for an activation that is not odd and monotone, and for an energy that is not positive.
    """
    if not (activation.odd and activation.monotone):
        raise JaxoscError(
            f"Got {type(activation).__name__}, expected an odd monotone activation such as jo.Arctan(): measure the"
            " period of others with jo.simulate and jo.Crossings()."
        )
    energy, omega = inexact(energy, omega)
    if is_concrete(energy) and not bool((energy > 0).all()):
        raise JaxoscError(
            f"Got the energy {float(energy.min())}, expected > 0: take field.energy(y) of a state that moves."
        )
    energy, omega = jnp.broadcast_arrays(energy, omega)
    return 8 * _eighth(activation, energy) / jnp.abs(omega)


@jax.jit
@partial(jnp.vectorize, excluded=(0,))
def _eighth(activation: AbstractActivation, energy: Float[Array, ""]) -> Float[Array, ""]:
    diagonal = inverse_potential(activation, energy / 2)
    y = diagonal * jnp.asarray((_NODES + 1) / 2, energy.dtype)
    other = inverse_potential(activation, energy - activation.potential(y))
    return jnp.sum(jnp.asarray(_WEIGHTS / 2, energy.dtype) * diagonal / activation(other))


def inverse_potential(activation: AbstractActivation, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The y > 0 with potential(y) = `value` > 0, elementwise.

    Newton's method on a convex function: after one step it is above the root and falls to it without overshooting.
    The last step is taken outside the loop, on a value without gradient: it gives dy/dvalue = 1/sigma(y), and the
    gradient with respect to parameters of the activation, by itself.
    """
    target = jax.lax.stop_gradient(value)
    frozen = jax.tree.map(jax.lax.stop_gradient, activation)

    def newton(_: Any, y: Array) -> Array:
        return y - (frozen.potential(y) - target) / frozen(y)

    y = jax.lax.fori_loop(0, NEWTON_STEPS, newton, 1 + target)
    y = jax.lax.stop_gradient(y)
    return y - (activation.potential(y) - value) / activation(y)
