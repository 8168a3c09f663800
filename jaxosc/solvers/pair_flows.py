"""Planes turned exactly: two neurons that hear nobody but each other.

In the plane (i, j) the network is y_i' = w sigma(y_j), y_j' = -w sigma(y_i); the time dt turns it by the angle
v = w dt. Two activations have a closed form, each in coordinates of its own that are carried from step to step.

- `Identity`: a rotation of z = y; of z = sqrt(d) y for hidden skewness W = S diag(d), which makes W skew.
- `Tanh`: with u = tanh y, r = sech y, m = 1 - (r_i r_j)^2, s = sn(v | m), c = cn(v | m), d = dn(v | m) the addition
  theorems say

      u_i <- (u_i c d + s u_j r_i^2) / (1 - s^2 u_i^2),    r_i <- r_i (d - s c u_i u_j) / (1 - s^2 u_i^2),

  and the same for j with -s. With c^2 = 1 - s^2 and d^2 = 1 - m s^2 they keep the energy -log r_i - log r_j as an
  identity in s: what sn is wrong by is an error of the time and of nothing else.

Both are written as what is added to a coordinate. Rounding then costs a share of the small increment. Written as they
stand above, the rounding of c, the same at every step, adds up: the energy of a start of size 0.001 drifts by 6e-11
in 10^5 steps of dt |W| = 0.1, and by 1e-13 as it is here.

Source: Byrd and Friedman, *Handbook of Elliptic Integrals*, 123 for the addition theorems.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

SHORT_TURN = 1.5
"""Angles up to this, for which `elliptic_sine` is good to rounding, are one turn; longer ones are many."""

PARTS = 64
"""How many turns a long one is. Their number is fixed, as reverse derivatives need a length, and only a few neurons in
steps that are too long for anything else come here."""

# Coefficients of z^(2k) in z/sn(z | m), k = 0 .. 5: a polynomial of m each, over a common denominator. Unlike sn itself
# it has no pole at i K': the series converges for |z| < pi whatever m is, and at z = 3/16 six terms leave 2e-15.
_COSECANT_SERIES = (
    (1, (1,)),
    (6, (1, 1)),
    (360, (7, -22, 7)),
    (15_120, (31, -15, -15, 31)),
    (604_800, (127, -284, 186, -284, 127)),
    (23_950_080, (511, -1261, 1006, 1006, -1261, 511)),
)
_DOUBLINGS = 3

Turn = Callable[[PyTree, Float[Array, "planes #lanes"]], PyTree]
"""Turns planes: arrays (2, planes, lanes), the two ends of each plane in front, by angles (planes, lanes or 1)."""

Sweep = Callable[[Turn, PyTree], PyTree]
"""Applies a turn to all planes in some order: arrays (n, lanes) before and after."""


class AbstractPlanes(eqx.Module):
    """The coordinates in which the planes of one activation turn exactly."""

    @abc.abstractmethod
    def enter(self, y: Float[Array, "n lanes"]) -> PyTree:
        """The coordinates of the states `y`."""

    @abc.abstractmethod
    def leave(self, place: PyTree) -> Float[Array, "n lanes"]:
        """The states of the coordinates `place`."""

    @abc.abstractmethod
    def swept(self, place: PyTree, longest: Float[Array, ""], sweep: Sweep) -> PyTree:
        """The coordinates after a `sweep` whose largest angle is `longest` in size."""


class LinearPlanes(AbstractPlanes):
    """The planes of the linear network: z = root * y, with root (n, lanes or 1) the square root of d, None for 1."""

    root: Float[Array, "n #lanes"] | None

    def enter(self, y: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
        """z."""
        return y if self.root is None else self.root * y

    def leave(self, place: Float[Array, "n lanes"]) -> Float[Array, "n lanes"]:
        """y."""
        return place if self.root is None else place / self.root

    def swept(self, place: Float[Array, "n lanes"], longest: Float[Array, ""], sweep: Sweep) -> Float[Array, "n lanes"]:
        """Rotations, each as good as sine and cosine at any angle."""
        return sweep(rotated, place)


class TanhPlace(eqx.Module):
    """u = tanh y, and sech y = r 2^(-unit far), where far > 0 only if sech y is too small for its dtype."""

    u: Float[Array, "*shape"]
    r: Float[Array, "*shape"]
    far: Float[Array, "*shape"]


class TanhPlanes(AbstractPlanes):
    """The planes of tanh, in (tanh y, sech y): a point of the circle, of which the smaller coordinate is the exact one.

    Where u is 1 to rounding, a turn only multiplies r by a number. So a neuron far out may keep r times a power of two
    instead of r, and comes back to r when it comes near: no |y| is too large. The units that a neuron may go in one
    step while it is that far are 13 in float32 (|y| > 69) and 140 in float64 (|y| > 566).
    """

    def enter(self, y: Float[Array, "n lanes"]) -> TanhPlace:
        """(u, r) of the states, each from y, to rounding."""
        unit, low, _ = _powers(y.dtype)
        size = jnp.abs(y)
        far = jnp.ceil(jnp.maximum(size / math.log(2) + low, 0) / unit)
        decay = jnp.exp(far * (unit * math.log(2)) - size)
        return TanhPlace(jnp.tanh(y), 2 * decay / (1 + decay * decay), far)

    def leave(self, place: TanhPlace) -> Float[Array, "n lanes"]:
        """y from the smaller of (u, r)."""
        u, r = place.u, place.r
        unit, _, _ = _powers(u.dtype)
        near = _is_near(u, r)
        # Each formula gets harmless numbers where the other is chosen, or its NaN would reach the gradients.
        outer = jnp.log1p(jnp.abs(u)) - jnp.log(jnp.where(near, 1, r)) + place.far * (unit * math.log(2))
        return jnp.where(near, jnp.arctanh(jnp.where(near, u, 0)), jnp.where(u < 0, -outer, outer))

    def swept(self, place: TanhPlace, longest: Float[Array, ""], sweep: Sweep) -> TanhPlace:
        """Turns in one piece, or all in `PARTS` pieces when an angle is too long for one."""

        def short(place: TanhPlace) -> TanhPlace:
            u, r = sweep(turned, (place.u, place.r))
            return _renewed(u, r, place.far)

        def long(place: TanhPlace) -> TanhPlace:
            return sweep(_turned_in_parts, place)

        return jax.lax.cond(_is_short(jax.lax.stop_gradient(longest)), short, long, place)


def rotated(
    ends: Float[Array, "2 planes lanes"], angle: Float[Array, "planes #lanes"]
) -> Float[Array, "2 planes lanes"]:
    """The planes of the linear network: a clockwise rotation of each pair of `ends` by its `angle`."""
    half_sine, half_cosine = jnp.sin(0.5 * angle)[None], jnp.cos(0.5 * angle)[None]
    sine, versine = 2 * half_sine * half_cosine, 2 * half_sine * half_sine
    return ends + (_signs(ends) * sine * ends[::-1] - versine * ends)


def turned(
    ends: tuple[Float[Array, "2 planes lanes"], Float[Array, "2 planes lanes"]], angle: Float[Array, "planes #lanes"]
) -> tuple[Float[Array, "2 planes lanes"], Float[Array, "2 planes lanes"]]:
    """The planes of tanh: (u, r) of the two ends after a turn by `angle`, at most `SHORT_TURN` in size."""
    # XLA on a CPU keeps what a division or root gives and computes all else again in each use: hence the quotients,
    # where a common reciprocal would be less work on paper and is several times more in the compiled program.
    u, r = ends
    m = jnp.square(u[:1]) + jnp.square(u[1:] * r[:1])
    s = elliptic_sine(angle[None], m)
    square = s * s
    one_less_c = square / (1 + jnp.sqrt(1 - square))
    one_less_d = m * square / (1 + jnp.sqrt(1 - m * square))
    one_less_cd = one_less_c + one_less_d - one_less_c * one_less_d
    both, signed = u[:1] * u[1:], _signs(u) * s
    own = square * u * u
    u_step = (signed * u[::-1] * r * r - u * (one_less_cd - own)) / (1 - own)
    r_step = r * (own - one_less_d - signed * both * (1 - one_less_c)) / (1 - own)
    return u + u_step, r + r_step


def elliptic_sine(v: Float[Array, "*#shape"], m: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """sn(v | m) for 0 <= m <= 1: within 2e-15, relative, for |v| <= `SHORT_TURN`, and 1e-13 at |v| = 2 (float64).

    z/sn(z) by its series at z = v/8, then sn(2 z) = 2 sn cn dn / (1 - m sn^4) three times.
    """
    z = v / 2**_DOUBLINGS
    coefficients = [_polynomial([value / whole for value in row], m) for whole, row in _COSECANT_SERIES]
    s = z / _polynomial(coefficients, z * z)
    for _ in range(_DOUBLINGS):
        square = s * s
        s = 2 * s * jnp.sqrt((1 - square) * (1 - m * square)) / (1 - m * square * square)
    return s


def _turned_in_parts(ends: TanhPlace, angle: Float[Array, "planes #lanes"]) -> TanhPlace:
    """The planes of tanh by any angle up to `PARTS * SHORT_TURN`, and by that where it is longer."""
    part = jnp.clip(angle / PARTS, -SHORT_TURN, SHORT_TURN)

    def turn(ends: TanhPlace, _: None) -> tuple[TanhPlace, None]:
        return _renewed(*turned((ends.u, ends.r), part), ends.far), None

    return jax.lax.scan(turn, ends, length=PARTS)[0]


@jax.custom_batching.custom_vmap
def _is_short(longest: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether no angle is too long for one piece; with a batch of networks under `jax.vmap`, none of all of them.

    A condition that differs within a batch would make JAX run both of its branches.
    """
    return longest <= SHORT_TURN


@_is_short.def_vmap
def _none_is_long(axis_size: int, batched: list[bool], longest: Float[Array, " batch"]) -> tuple[Bool[Array, ""], bool]:
    return _is_short(jnp.max(longest)), False


def _renewed(u: Array, r: Array, far: Array) -> TanhPlace:
    """The larger coordinate from the smaller one, and the powers of two of the neurons that came or went."""
    near = _is_near(u, r)
    smaller = jnp.where(near, u, r)
    larger = jnp.sqrt((1 - smaller) * (1 + smaller))
    u, r = jnp.where(near, u, jnp.where(u < 0, -larger, larger)), jnp.where(near, larger, r)
    unit, low, high = _powers(u.dtype)
    out, back = r < 2.0**low, (r > 2.0**high) & (far > 0)
    r = r * jnp.where(out, 2.0**unit, jnp.where(back, 2.0**-unit, 1))
    return TanhPlace(u, r, far + out - back)


def _is_near(u: Array, r: Array) -> Array:
    return u * u <= r * r


def _powers(dtype: Any) -> tuple[int, int, int]:
    """The unit, and where r gets it (below 2^low) and gives it back (above 2^high), as powers of two.

    In float32 63, -100, -31; in float64 511, -817, -255: before the next step r may go down to the smallest normal
    number, and up to where r^2 still is nothing beside 1.
    """
    smallest = -int(jnp.finfo(dtype).minexp)
    return smallest // 2, -int(0.8 * smallest), -(smallest // 4)


def _signs(ends: Array) -> Float[np.ndarray, "2 1 1"]:
    """+1 for the end that gets w sigma of the other, -1 for the other one."""
    return np.array([1, -1], ends.dtype)[:, None, None]


def _polynomial(coefficients: list[Any], x: Array) -> Any:
    """sum_k coefficients[k] x^k by Horner's rule."""
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
