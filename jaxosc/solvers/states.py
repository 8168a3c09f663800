"""Three ways to add a small increment to a state: as it comes, without losing its low digits, or on a lattice.

A splitting step is a chain of increments, each a function of components that it leaves alone. What rounding does to the
chain decides how a run of 10^7 steps ends:

- `PlainState`: each sum is rounded; float32 runs drift by a random walk of their roundings.
- `CompensatedState`: the increments of a step are summed among themselves (they are small, so are their roundings) and
  what the last sum with the state loses is carried to the next step (Kahan, Comm. ACM 8, 1965; in geometric
  integration Hairer, Lubich, Wanner, VIII.5).
- `LatticeState`: states and increments are multiples of a power of two, so sums are exact and every increment can be
  taken back: the numerical map is a bijection of the lattice (Earn and Tremaine, Physica D 56, 1992).
"""

import abc
import functools
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractState(eqx.Module):
    """States of all lanes on their way through one step."""

    @abc.abstractmethod
    def value(self) -> Float[Array, "n lanes"]:
        """The states as they are now."""

    @abc.abstractmethod
    def moved(self, increment: Float[Array, "n lanes"]) -> Self:
        """The states after `increment` was added."""


class PlainState(AbstractState):
    """Sums as they come."""

    x: Float[Array, "n lanes"]

    def value(self) -> Float[Array, "n lanes"]:
        """x."""
        return self.x

    def moved(self, increment: Float[Array, "n lanes"]) -> Self:
        """x + increment."""
        return type(self)(self.x + increment)


class CompensatedState(AbstractState):
    """x stays what it was at the start of the step, the increments gather beside it."""

    x: Float[Array, "n lanes"]
    gathered: Float[Array, "n lanes"]

    def value(self) -> Float[Array, "n lanes"]:
        """x and what has gathered."""
        return self.x + self.gathered

    def moved(self, increment: Float[Array, "n lanes"]) -> Self:
        """The increment joins those of the same step."""
        return type(self)(self.x, self.gathered + increment)

    def settled(self) -> tuple[Float[Array, "n lanes"], Float[Array, "n lanes"]]:
        """The states at the end of the step and what their rounding lost (exact: Knuth's sum of two)."""
        total = self.x + self.gathered
        part = total - self.x
        return total, (self.x - (total - part)) + (self.gathered - part)


class LatticeState(AbstractState):
    """Multiples of `grid`."""

    x: Float[Array, "n lanes"]
    grid: float = eqx.field(static=True)

    def value(self) -> Float[Array, "n lanes"]:
        """x."""
        return self.x

    def moved(self, increment: Float[Array, "n lanes"]) -> Self:
        """x + the nearest multiple of the grid, exactly."""
        return type(self)(self.x + on_grid(increment, self.grid), self.grid)


def on_grid(x: Float[Array, "*shape"], grid: float) -> Float[Array, "*shape"]:
    """The nearest multiple of `grid`, a power of two: both scalings are exact, and odd symmetry is kept.

    Differentiated it is x itself: rounding is flat almost everywhere, and the gradient of a run would be lost.
    """
    return _rounded(x, grid)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _rounded(x: Array, grid: float) -> Array:
    return grid * jnp.round(x / grid)


@_rounded.defjvp
def _rounded_jvp(grid: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _rounded(*primals, grid), tangents[0]


def grid_of(dtype: Any) -> float:
    """The lattice of a dtype: 2^-40 in float64 (exact up to |x| = 4,096), 2^-18 in float32 (up to 32)."""
    return 2.0 ** (-40 if jnp.finfo(dtype).bits == 64 else -18)
