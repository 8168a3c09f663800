"""The fraction of a step that ends on a hyperplane, and its derivatives.

For the step from x of size dt it is the root theta in [0, 1] of

    normal . phi(theta dt, x) = offset,

by Newton's method, held inside a bracket by bisection. One more Newton step carries the derivatives: at the root it is
the implicit function theorem, d theta = -(d value) / (d value / d theta).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..simulate.steppers import AbstractStepper
from ..solvers import Lanes
from ..solvers.lanes import own_axes

MOST_ITERATIONS = 60
"""Of the search on a step: bisection alone ends within 53 in float64, Newton takes about four."""


def landed(
    lanes: Lanes,
    stepper: AbstractStepper,
    normal: Float[Array, "n lanes"],
    offset: Float[Array, " lanes"],
    t: Float[Array, "k lanes"],
    dt: Float[Array, ""],
    before: Float[Array, "k n lanes"],
) -> tuple[Float[Array, "k lanes"], Float[Array, "k n lanes"]]:
    """Of the steps from `before`, the fractions that end on the section, and where."""
    own = own_axes(lanes)

    def one(lanes: Lanes, normal: Array, offset: Array, t: Array, x: Array) -> tuple[Array, Array]:
        lane = jax.tree.map(
            lambda axis, array: array if axis is None else array[..., None],
            own,
            lanes,
            is_leaf=lambda leaf: leaf is None,
        )
        return _fraction(_PartOfStep(lane, stepper, normal, offset, t, dt, x))

    each_lane = jax.vmap(one, in_axes=(own, -1, -1, -1, -1), out_axes=-1)
    each: tuple[Array, Array] = jax.vmap(each_lane, in_axes=(None, None, None, 0, 0))(lanes, normal, offset, t, before)
    return each


class _PartOfStep(eqx.Module):
    """The step of one lane from x, of which a part is taken."""

    lane: Lanes
    stepper: AbstractStepper
    normal: Float[Array, " n"]
    offset: Float[Array, ""]
    t: Float[Array, ""]
    dt: Float[Array, ""]
    x: Float[Array, " n"]

    def state(self, fraction: Array) -> Float[Array, " n"]:
        """Where the step of `fraction` dt ends."""
        t, dt, x = self.t, fraction * self.dt, self.x[:, None]
        return self.stepper.step(self.lane, t, dt, x, self.stepper.init(self.lane, t, dt, x))[0][:, 0]

    def value(self, y: Float[Array, " n"]) -> Float[Array, ""]:
        """How far above the section."""
        return jnp.sum(self.normal * y) - self.offset

    def slope(self, fraction: Array, y: Float[Array, " n"]) -> Float[Array, ""]:
        """The change of the value with the fraction, up to the error of the solver: enough to find the way."""
        velocity = self.lane.velocity(self.t + fraction * self.dt, y[:, None])[:, 0]
        return self.dt * jnp.sum(self.normal * velocity)


def _fraction(part: _PartOfStep) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """The fraction at which the step crosses, and where; differentiable in all parts of `part`."""
    found = _search(jax.lax.stop_gradient(part))
    one = jnp.ones_like(found)
    value, slope = jax.jvp(lambda fraction: part.value(part.state(fraction)), (found,), (one,))
    # One Newton step with its derivatives is the implicit function theorem; it also takes off the last digits.
    fraction = found - value / jax.lax.stop_gradient(jnp.where(slope == 0, one, slope))
    return fraction, part.state(fraction)


def _search(part: _PartOfStep) -> Float[Array, ""]:
    """Newton's method between the ends of the step, bisection where it would leave them or stands still."""
    start = part.value(part.x)
    sign = jnp.where(start < 0, 1, -1).astype(start.dtype)
    zero, one = jnp.zeros_like(start), jnp.ones_like(start)

    def better(fraction: Array, y: Array, low: Array, high: Array) -> tuple[Array, Array, Array]:
        value, slope = sign * part.value(y), sign * part.slope(fraction, y)
        low, high = jnp.where(value < 0, fraction, low), jnp.where(value < 0, high, fraction)
        newton = fraction - value / jnp.where(slope == 0, jnp.nan, slope)
        inside = (newton >= low) & (newton <= high)
        return jnp.where(inside, newton, (low + high) / 2), low, high

    def unfinished(carry: tuple[Array, ...]) -> Array:
        turn, fraction, last, _, _ = carry
        return (turn < MOST_ITERATIONS) & (jnp.abs(fraction - last) > 4 * jnp.finfo(start.dtype).eps)

    def turn(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        number, fraction, _, low, high = carry
        new, low, high = better(fraction, part.state(fraction), low, high)
        return number + 1, new, fraction, low, high

    first, low, high = better(zero, part.x, zero, one)
    carry: tuple[Array, ...] = (jnp.int32(0), first, first - 1, low, high)
    return jax.lax.while_loop(unfinished, turn, carry)[1]
