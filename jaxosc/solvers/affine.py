"""What drives a network besides its own coupling: the exact flow of bias, input and leak."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .lanes import Lanes


def affine_flow(lanes: Lanes, x: Float[Array, "n lanes"], t: Any, dt: Any) -> Float[Array, "n lanes"]:
    """The exact flow over dt of x' = bias + u(t) - leak x, with the input frozen at time t.

    In the rate form bias and input act inside sigma, so only the leak is left here. Without leak, bias and input it is
    x itself.
    """
    inflow = None if lanes.form == "rate" else lanes.input_at(t)
    if lanes.leak is None:
        return x if inflow is None else x + dt * inflow
    exponent = -lanes.leak[None, :] * dt
    decayed = jnp.exp(exponent) * x
    if inflow is None:
        return decayed
    # expm1(z)/z = 1 + z/2 + ... at z = 0, where a lane without leak would divide zero by zero; z/2 for its derivative.
    safe = jnp.where(exponent == 0, 1, exponent)
    return decayed + dt * inflow * jnp.where(exponent == 0, 1 + exponent / 2, jnp.expm1(safe) / safe)


def has_affine_part(lanes: Lanes) -> bool:
    """Whether `affine_flow` does anything."""
    outside = lanes.form == "current" and (lanes.bias is not None or lanes.drive is not None)
    return outside or lanes.leak is not None
