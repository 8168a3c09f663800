"""Elliptic integrals and functions by the arithmetic-geometric mean, in the complementary modulus.

With m1 = 1 - m and b = sqrt(m1) (the quarter period, the phase and the shape of an orbit of the pair all depend on
b = exp(-E) alone), the usual arguments m = 1 - b^2 lose b to rounding at energies of about 18 and SciPy's `ellipj` is
wrong long before. Everything here is one ladder of means, a_0 = 1, b_0 = b,

    a_{i+1} = (a_i + b_i) / 2,    b_{i+1} = sqrt(a_i b_i),

climbed in tan(phi) by Gauss's transformation, in which only positive numbers are added: no digit is lost at any b.
Source: Gauss's transformation as in Whittaker and Watson, *Modern Analysis*, ch. 22, and Byrd and Friedman, *Handbook
of Elliptic Integrals*, 163; the form in tan(phi) is worked out in the two functions that use it. All functions act
elementwise, and can be jitted, vmapped and differentiated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LEVELS = 9
"""Steps of the ladder: a_9 and b_9 agree to 1e-16 for every b from exp(-40) to 1."""


class Ladder(NamedTuple):
    """The means of one b: `arithmetic` a_0 .. a_LEVELS and `geometric` b_0 .. b_LEVELS on a new leading axis."""

    arithmetic: Float[Array, "rungs *shape"]
    geometric: Float[Array, "rungs *shape"]


def complementary_ladder(b: Float[Array, "*shape"]) -> Ladder:
    """The ladder of the complementary modulus b = sqrt(1 - m), exp(-40) <= b <= 1."""

    def climb(means: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        a, b = means
        # not sqrt(a * b), which in float32 comes closer to underflow
        above = ((a + b) / 2, jnp.sqrt(a) * jnp.sqrt(b))
        return above, above

    bottom = (jnp.ones_like(b), b)
    _, above = jax.lax.scan(climb, bottom, length=LEVELS)
    return Ladder(*(jnp.concatenate([low[None], high]) for low, high in zip(bottom, above, strict=True)))


def complete_first(ladder: Ladder) -> Float[Array, "*shape"]:
    """K(m) = pi / (2 agm(1, b)), to a few units in the last place."""
    return (jnp.pi / 2) / ladder.arithmetic[-1]


def second_over_first_less_m1(ladder: Ladder) -> Float[Array, "*shape"]:
    """E(m)/K(m) - (1 - m), with E(m) the complete integral of the second kind, to 1e-15 absolute.

    From E/K = 1 - sum_i 2^(i-1) c_i^2 with c_0^2 = m, c_i = (a_{i-1} - b_{i-1})/2: the difference is
    m/2 - sum_{i>=1} 2^(i-1) c_i^2, which keeps its relative accuracy as m -> 0, where it tends to m/2.
    """
    b = ladder.geometric[0]
    halves = (ladder.arithmetic - ladder.geometric)[:-1] / 2
    powers = jnp.asarray(2.0 ** np.arange(LEVELS), b.dtype).reshape(LEVELS, *(1 for _ in b.shape))
    return (1 - b) * (1 + b) / 2 - jnp.sum(powers * halves**2, axis=0)


def incomplete_first(ladder: Ladder, tangent: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """F(phi | m) = int_0^phi dtheta / sqrt(1 - m sin^2 theta) of x = tan(phi), |phi| < pi/2; relative accuracy.

    With D = sqrt((a^2 + b^2 x^2)/(1 + x^2)), one step is x' = x sqrt(a' (D + b) / (a (D + a))), where a' = (a + b)/2;
    it leaves int_0^phi dtheta / sqrt(a^2 cos^2 + b^2 sin^2) as it is, and at the top that is phi / a.
    Squares of x must not overflow: |x| < 1e18 in float32.
    """

    def climb(x: Array, rung: tuple[Array, Array, Array]) -> tuple[Array, None]:
        a, b, a_above = rung
        delta = jnp.sqrt((a**2 + (b * x) ** 2) / (1 + x**2))
        return x * jnp.sqrt(a_above * (delta + b) / (a * (delta + a))), None

    rungs = (ladder.arithmetic[:-1], ladder.geometric[:-1], ladder.arithmetic[1:])
    x, _ = jax.lax.scan(climb, tangent, rungs)
    return jnp.arctan(x) / ladder.arithmetic[-1]


def tangent_of_amplitude(ladder: Ladder, argument: Float[Array, "*points"]) -> Float[Array, "*points"]:
    """x = tan(phi) = sn/cn at u = `argument`, |u| < K: the inverse of `incomplete_first`.

    The other functions follow without cancellation: cn = 1/sqrt(1 + x^2), sn = x cn, dn/cn = sqrt(1 + b^2 x^2).
    Starts from x = tan(a u) at the top and steps down by x = x' a sqrt((1 + x'^2) / (a'^2 + b'^2 x'^2)). Relative
    accuracy for |u| <= K/2, where the tangent at the top is at most 1. One ladder (of a scalar b) serves many u.
    """

    def descend(x: Array, rung: tuple[Array, Array, Array]) -> tuple[Array, None]:
        a, a_above, b_above = rung
        return x * a * jnp.sqrt((1 + x**2) / (a_above**2 + (b_above * x) ** 2)), None

    rungs = (ladder.arithmetic[:-1], ladder.arithmetic[1:], ladder.geometric[1:])
    x, _ = jax.lax.scan(descend, jnp.tan(ladder.arithmetic[-1] * argument), rungs, reverse=True)
    return x
