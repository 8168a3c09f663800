"""The way back through a Poisson splitting: each flow undone and differentiated at once, its sigma evaluated once.

The flow x <- x + h W[:, B] sigma(x_B) leaves x_B alone, so going back sigma(x_B) is known, and with the cotangent a of
the new state

    x <- x - h W[:, B] s,   dW[:, B] += h a s^T,   a_B <- a_B + h sigma'(x_B) (W[:, B]^T a),   s = sigma(x_B).

JAX's own rules would step back, step forward again to learn the inner states, and then pull: half as fast again.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .affine import affine_flow
from .coordinate_flows import Block
from .half_sweeps import HalfSweeps, Piece
from .lanes import Lanes, lane_product

LaneStates = Float[Array, "n lanes"]


class SplittingGradient(eqx.Module):
    """Cotangents on the way, in every lane: of the parts of W that belong to each block, and of bias and leak.

    A part is (n, width, lanes) in the current form, columns, and (width, n, lanes) in the rate form, rows. None where
    nobody asks.
    """

    parts: tuple[Float[Array, "_ _ lanes"], ...] | None
    bias: Float[Array, "n lanes"] | None
    leak: Float[Array, " lanes"] | None


class SplittingWayBack:
    """The way back for networks whose flows are single neurons or groups with a zero diagonal.

    **Arguments:** `moving`, for each of W, bias and leak whether its cotangent is wanted.
    """

    def __init__(self, lanes: Lanes, order: int, moving: tuple[bool, bool, bool]) -> None:
        self.lanes, self.moving = lanes, moving
        self.sweeps = HalfSweeps(lanes, order)

    def start(self, x: LaneStates) -> SplittingGradient:
        """No cotangents yet."""
        n, lanes = x.shape
        matrix, bias, leak = self.moving
        columns = self.lanes.form == "current"
        shapes = [(n, block.width, lanes) if columns else (block.width, n, lanes) for block in self.sweeps.blocks]
        return SplittingGradient(
            parts=tuple(jnp.zeros(shape, x.dtype) for shape in shapes) if matrix else None,
            bias=jnp.zeros_like(x) if bias else None,
            leak=jnp.zeros_like(x[0]) if leak else None,
        )

    def step(
        self, t: Any, dt: Array, x: LaneStates, adjoint: LaneStates, gradient: SplittingGradient
    ) -> tuple[LaneStates, LaneStates, SplittingGradient]:
        """From the states after the step that began at time t, and their cotangent, to those before."""
        Carry = tuple[Array, Array, SplittingGradient]

        def pair(carry: Carry, middle: Any, pieces: list[Piece]) -> Carry:
            for piece in reversed(pieces):
                carry = self._undone(carry, piece)
            return carry

        carry = self.sweeps.over_pairs(pair, (x, adjoint, gradient), t, dt, back=True)
        for piece in self.sweeps.opening(dt):
            carry = self._undone(carry, piece)
        return carry

    def finish(self, gradient: SplittingGradient) -> tuple[Array | None, Array | None, Array | None]:
        """The cotangents of W, bias and leak, in their shapes: lanes that share one sum theirs."""
        matrix = None
        if gradient.parts is not None:
            matrix = jnp.zeros(self.lanes.matrix.shape, gradient.parts[0].dtype)
            axis = 1 if self.lanes.form == "current" else 0
            for block, part in zip(self.sweeps.blocks, gradient.parts, strict=True):
                matrix = block.placed(matrix, _shared(part, self.lanes.matrix), axis)
        outside = ((gradient.bias, self.lanes.bias), (gradient.leak, self.lanes.leak))
        bias, leak = (None if part is None or owner is None else _shared(part, owner) for part, owner in outside)
        return matrix, bias, leak

    def _undone(self, carry: tuple[Array, Array, SplittingGradient], piece: Piece) -> Any:
        if not piece.blocks:
            return self._undone_outside(*carry, piece.duration)
        undo = self._undone_current if self.lanes.form == "current" else self._undone_rate
        for block in reversed(list(piece.in_order())):
            carry = undo(*carry, block, piece.duration)
        return carry

    def _undone_outside(self, x: Array, adjoint: Array, gradient: SplittingGradient, h: Any) -> Any:
        lanes = self.lanes
        before = affine_flow(lanes, x, 0.0, -h)

        def flow(bias: Array | None, leak: Array | None, x: Array) -> Array:
            parts = (bias, leak)
            moved = eqx.tree_at(lambda lanes: (lanes.bias, lanes.leak), lanes, parts, is_leaf=lambda leaf: leaf is None)
            return affine_flow(moved, x, 0.0, h)

        # Parameters of all lanes at full width, so that the pull does not sum over lanes at every step.
        bias, leak = (
            None if part is None else jnp.broadcast_to(part, (*part.shape[:-1], x.shape[-1]))
            for part in (lanes.bias, lanes.leak)
        )
        _, pull = jax.vjp(flow, bias, leak, before)
        by_bias, by_leak, adjoint = pull(adjoint)
        return before, adjoint, self._with_outside(gradient, by_bias, by_leak)

    def _with_outside(self, gradient: SplittingGradient, by_bias: PyTree, by_leak: PyTree) -> SplittingGradient:
        bias, leak = (
            so_far if so_far is None or more is None else so_far + more
            for so_far, more in ((gradient.bias, by_bias), (gradient.leak, by_leak))
        )
        return SplittingGradient(gradient.parts, bias, leak)

    def _undone_current(self, x: Array, adjoint: Array, gradient: SplittingGradient, block: Block, h: Any) -> Any:
        columns = block.rows(self.lanes.matrix, axis=1)
        value, pull = jax.vjp(self.lanes.activation, block.rows(x))
        push = h * value
        parts = self._with_part(gradient, block, lambda: adjoint[:, None] * push[None])
        (pulled,) = pull(h * lane_product(jnp.swapaxes(columns, 0, 1), adjoint))
        x = x - lane_product(columns, push)
        return x, block.added(adjoint, pulled), parts

    def _undone_rate(self, r: Array, adjoint: Array, gradient: SplittingGradient, block: Block, h: Any) -> Any:
        rows = block.rows(self.lanes.matrix)
        y = lane_product(rows, r)
        y = y if self.lanes.bias is None else y + block.rows(self.lanes.bias)
        value, pull = jax.vjp(self.lanes.activation, y)
        r = block.added(r, -h * value)
        (pulled,) = pull(h * block.rows(adjoint))
        gradient = self._with_part(gradient, block, lambda: pulled[:, None] * r[None])
        if gradient.bias is not None:
            gradient = self._with_outside(gradient, block.spread(pulled, r.shape[0]), None)
        return r, adjoint + lane_product(jnp.swapaxes(rows, 0, 1), pulled), gradient

    def _with_part(self, gradient: SplittingGradient, block: Block, part: Any) -> SplittingGradient:
        if gradient.parts is None:
            return gradient
        at = self.sweeps.blocks.index(block)
        parts = (*gradient.parts[:at], gradient.parts[at] + part(), *gradient.parts[at + 1 :])
        return SplittingGradient(parts, gradient.bias, gradient.leak)


def has_way_back(lanes: Lanes, order: int) -> bool:
    """Whether `SplittingWayBack` knows how: else JAX's own rules do."""
    simple = lanes.hollow and lanes.gain is None and lanes.drive is None and order > 1
    # sigma may carry parameters of its own.
    return (
        simple and not jax.tree.leaves(lanes.activation) and all(b.independent for b in HalfSweeps(lanes, order).blocks)
    )


def _shared(cotangent: Array, owner: Array) -> Array:
    return cotangent if owner.shape[-1] > 1 or cotangent.shape[-1] == 1 else jnp.sum(cotangent, axis=-1, keepdims=True)
