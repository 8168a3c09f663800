"""The exact flows that a Poisson splitting is made of, for single neurons, groups and blocks of them.

With sigma(y_i) frozen the flow of neuron i adds dt W[:, i] sigma(y_i) to the current state (dt sigma(y_i) to r_i in the
rate form) and leaves y_i alone as W_ii = 0. Neurons are handled in blocks, in an order that never changes:

- a group of neurons that never meet is one flow, a single vector operation;
- in a dense block the neurons still go one after the other, but only the block itself hears of each one at once; all
  the others hear of the block when it is done, in one matrix product. The result is that of the sequential sweep up to
  the order of summation.

A block is passed forward (first to last neuron) or backward; passes that follow each other on the same block are one
visit: its neurons go on from one another, and the rest hears of both at once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _choices
from .lanes import Lanes, lane_product
from .states import AbstractState

COLOURS_UP_TO = 16
"""A sweep over groups is written out, so beyond this many a dense one compiles faster."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Consecutive or scattered neurons that are visited together; `start` may be traced in a loop over blocks."""

    start: Any
    width: int
    stride: int = 1
    members: tuple[int, ...] | None = None
    independent: bool = True

    @property
    def neurons(self) -> Any:
        """The numbers of its neurons (width,)."""
        if self.members is not None:
            return np.array(self.members)
        return self.start + self.stride * np.arange(self.width)

    def rows(self, array: Array, axis: int = 0) -> Array:
        """The part of `array` that belongs to the block along an axis."""
        if self.members is not None:
            return jnp.take(array, np.array(self.members), axis=axis)
        if self.stride == 1:
            return jax.lax.dynamic_slice_in_dim(array, self.start, self.width, axis)
        return jax.lax.slice_in_dim(
            array, self.start, self.start + (self.width - 1) * self.stride + 1, self.stride, axis
        )

    def placed(self, array: Array, rows: Array) -> Array:
        """`array` with `rows` instead of those of the block."""
        return array.at[self.neurons].set(rows)

    def added(self, array: Array, rows: Array) -> Array:
        """`array` with `rows` added to those of the block."""
        new = self.rows(array) + rows
        if self.members is None and self.stride == 1:
            return jax.lax.dynamic_update_slice_in_dim(array, new, self.start, axis=0)
        return self.placed(array, new)

    def spread(self, rows: Array, size: int) -> Array:
        """An array of `size` rows that is `rows` on the block and zero elsewhere."""
        zeros = jnp.zeros((size, *rows.shape[1:]), rows.dtype)
        if self.members is None and self.stride == 1:
            return jax.lax.dynamic_update_slice_in_dim(zeros, rows, self.start, axis=0)
        return self.placed(zeros, rows)


@dataclasses.dataclass(frozen=True)
class Pass:
    """One way through a block: for the time `dt`, backward or forward."""

    dt: Any
    backward: bool = False


def blocks_of(lanes: Lanes, one_by_one: bool = False) -> tuple[Block, ...]:
    """The blocks of one sweep in their order: groups where W has them, single neurons, or dense blocks.

    `one_by_one` asks for single neurons or groups at any n (a loop over single neurons is a loop over blocks of one).
    """
    n, colours = lanes.size, lanes.colours
    if colours is not None and has_groups(lanes):
        return tuple(_group(colour) for colour in colours if colour)
    width = 1 if one_by_one or n <= _choices.SINGLES_UP_TO else _choices.BLOCK
    return tuple(Block(start, min(width, n - start), independent=width == 1) for start in range(0, n, width))


def has_groups(lanes: Lanes) -> bool:
    """Whether a sweep goes group by group and not neuron by neuron, which is another splitting."""
    return lanes.colours is not None and lanes.hollow and len(lanes.colours) <= COLOURS_UP_TO


def _group(colour: tuple[int, ...]) -> Block:
    stride = colour[1] - colour[0] if len(colour) > 1 else 1
    if stride > 0 and colour == tuple(range(colour[0], colour[0] + stride * len(colour), stride)):
        return Block(colour[0], len(colour), stride)
    return Block(None, len(colour), members=colour)


def visit(
    lanes: Lanes, state: AbstractState, block: Block, passes: Sequence[Pass], inflow: Array | None, order: int
) -> AbstractState:
    """The flows of the neurons of `block` in the order of `passes`.

    **Arguments:** `inflow`, bias and input of the rate form (n, lanes), frozen; `order`, to which the diagonal of a W
    that has one is solved.
    """
    if lanes.form == "current":
        y = block.rows(state.value())
    else:
        y = _gained(lanes, lane_product(block.rows(lanes.matrix), state.value()))
        y = y if inflow is None else y + block.rows(inflow)
    if block.independent:
        diagonal = None if lanes.hollow else _own_block(lanes, block)
        total = _push(lanes, y, diagonal, sum(one.dt for one in passes), order)
    else:
        total = _pushes_in_turn(lanes, y, _own_block(lanes, block), passes, order)
    if lanes.form == "rate":
        return state.moved(block.spread(total, lanes.size))
    return state.moved(_gained(lanes, lane_product(block.rows(lanes.matrix, axis=1), total)))


def _gained(lanes: Lanes, product: Array) -> Array:
    return product if lanes.gain is None else lanes.gain[None, :] * product


def _own_block(lanes: Lanes, block: Block) -> Array:
    own = block.rows(block.rows(lanes.matrix), axis=1)
    return own if lanes.gain is None else own * lanes.gain[None, None, :]


def _pushes_in_turn(lanes: Lanes, y: Array, own: Array, passes: Sequence[Pass], order: int) -> Array:
    """The integrals of sigma over all passes, when each neuron of the block hears the ones before it.

    A loop and not written out: XLA merges a written-out chain into kernels that compute its beginning again for every
    neuron (measured 10 times slower at a width of 8).

    The integrals of each pass are stored, and added when its loop is over. Added on the way, dt sigma is a product with
    two uses next to a sum, and whether the compiler makes the two operations one, with one rounding, depends on how
    many lanes go together (seen for 4 to 16 lanes in JAX 0.12, 1 to 4 in 0.10): a lane would depend on its chunk.
    """
    width = y.shape[0]
    totals: Array | None = None
    for one in passes:

        def turn(k: Any, carry: tuple[Array, Array], one: Pass = one) -> tuple[Array, Array]:
            y, pushes = carry
            i = width - 1 - k if one.backward else k
            column = jax.lax.dynamic_slice_in_dim(own, i, 1, axis=1)
            diagonal = None if lanes.hollow else jax.lax.dynamic_slice_in_dim(column, i, 1, axis=0)
            push = _push(lanes, jax.lax.dynamic_slice_in_dim(y, i, 1), diagonal, one.dt, order)
            return y + column[:, 0] * push, jax.lax.dynamic_update_slice_in_dim(pushes, push, i, axis=0)

        # Every row is overwritten: whatever array is at hand will do, and zeros would cost an operation.
        y, pushes = jax.lax.fori_loop(0, width, turn, (y, y if totals is None else totals))
        totals = pushes if totals is None else totals + pushes
    assert totals is not None
    return totals


def _push(lanes: Lanes, y: Array, own: Array | None, dt: Any, order: int) -> Float[Array, "width lanes"]:
    """The integral of sigma(y_i) over dt while y_i' = w_ii sigma(y_i): dt sigma(y_i) when w_ii = 0.

    With a diagonal it is one step of a Runge-Kutta method of at least the order asked for.
    """
    if lanes.hollow or own is None:
        return dt * lanes.activation(y)
    diagonal = jnp.diagonal(own).T
    if order <= 4:
        return _runge_kutta_four(lanes, y, dt, diagonal)
    tableau = diffrax.Dopri8.tableau
    slopes = [lanes.activation(y)]
    for row in tableau.a_lower:
        shift = sum(float(a) * slope for a, slope in zip(row, slopes, strict=True) if a != 0)
        slopes.append(lanes.activation(y + dt * diagonal * shift))
    return dt * sum(float(b) * slope for b, slope in zip(tableau.b_sol, slopes, strict=True) if b != 0)


def _runge_kutta_four(lanes: Lanes, y: Array, dt: Any, diagonal: Array) -> Array:
    k1 = lanes.activation(y)
    k2 = lanes.activation(y + 0.5 * dt * diagonal * k1)
    k3 = lanes.activation(y + 0.5 * dt * diagonal * k2)
    k4 = lanes.activation(y + dt * diagonal * k3)
    return dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
