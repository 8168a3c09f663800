"""The way back through a Poisson splitting: each flow undone and differentiated at once, its sigma evaluated once.

The flow x <- x + h W[:, B] sigma(x_B) leaves x_B alone, so going back sigma(x_B) is known, and with the cotangent a of
the new state

    x <- x - h W[:, B] s,   dW[:, B] += h a s^T,   a_B <- a_B + h sigma'(x_B) (W[:, B]^T a),   s = sigma(x_B).

JAX's own rules would step back, step forward again to learn the inner states, and then pull: half as fast again.

Each flow needs the newest a, one component of which the flow before has changed. As written XLA computes W[:, B]^T a
once for each of the places where that component is read, at n = 8 eight times. So W^T a is carried along instead, a
second state that moves as x does: with u = x and v = W^T a

    p = h sigma(u_B),   q = h sigma'(u_B) v_B,   u <- u - W[:, B] p,   v <- v + W[B, :]^T q,   a_B <- a_B + q.

The rate form r_B <- r_B + h sigma(y_B), y = W r + b, is the same chain with u = y, v = a, and r_B <- r_B - p.
"""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .. import _choices
from .affine import affine_flow
from .compositions import COMPOSITIONS
from .coordinate_flows import Block
from .half_sweeps import HalfSweeps, Piece
from .lanes import Lanes, lane_product
from .pending_rows import PendingRows

LaneStates = Float[Array, "n lanes"]


class SplittingGradient(eqx.Module):
    """Cotangents on the way, in every lane: of the parts of W that belong to each block, and of bias and leak.

    A part is (n, width, lanes), columns of W or, in the rate form, of W^T; (n, width, 1) where it is summed over lanes
    on the way. None where nobody asks.
    """

    parts: tuple[Float[Array, "n _ _"], ...] | None
    bias: Float[Array, "n lanes"] | None
    leak: Float[Array, " lanes"] | None


Carry = tuple[LaneStates, LaneStates, SplittingGradient]

Move = tuple[Block, Float[Array, "2 _ lanes"]]
"""A block with its -p and q."""


class SplittingWayBack:
    """The way back for networks whose flows are single neurons or groups with a zero diagonal.

    **Arguments:** `moving`, for each of W, bias and leak whether its cotangent is wanted.
    """

    def __init__(self, lanes: Lanes, order: int, moving: tuple[bool, bool, bool]) -> None:
        self.lanes, self.moving = lanes, moving
        self.current = lanes.form == "current"
        self.sweeps = HalfSweeps(lanes, order)
        # u and v side by side: p and q computed into one array are kept in memory, while as arrays of their own they
        # would be computed again wherever they are read, and so would all that went into them (90 forward runs).
        self.matrices = jnp.stack([lanes.matrix, jnp.swapaxes(lanes.matrix, 0, 1)])

    def start(self, x: LaneStates) -> SplittingGradient:
        """No cotangents yet."""
        n, lanes = x.shape
        matrix, bias, leak = self.moving
        # From where products are matrix products, so is the sum over lanes.
        summed = self.lanes.matrix.shape[-1] == 1 and n > _choices.UNROLLED_UP_TO
        shapes = [(n, block.width, 1 if summed else lanes) for block in self.sweeps.blocks]
        return SplittingGradient(
            parts=tuple(jnp.zeros(shape, x.dtype) for shape in shapes) if matrix else None,
            bias=jnp.zeros_like(x) if bias else None,
            leak=jnp.zeros_like(x[0]) if leak else None,
        )

    def step(
        self, t: Any, dt: Array, x: LaneStates, adjoint: LaneStates, gradient: SplittingGradient
    ) -> tuple[LaneStates, LaneStates, SplittingGradient]:
        """From the states after the step that began at time t, and their cotangent, to those before."""
        opening = self.sweeps.opening(dt)
        only_pair = len(COMPOSITIONS[self.sweeps.order]) == 2

        def pair(carry: Carry, middle: Any, pieces: list[Piece]) -> Carry:
            return self._undone(carry, [*opening, *pieces] if only_pair else pieces)

        carry = self.sweeps.over_pairs(pair, (x, adjoint, gradient), t, dt, back=True)
        return carry if only_pair else self._undone(carry, opening)

    def finish(self, gradient: SplittingGradient) -> tuple[Array | None, Array | None, Array | None]:
        """The cotangents of W, bias and leak, in their shapes: lanes that share one sum theirs."""
        matrix = None
        if gradient.parts is not None:
            parts = [_shared(part, self.lanes.matrix) for part in gradient.parts]
            matrix = self._by_neuron(parts)
            matrix = matrix if self.current else jnp.swapaxes(matrix, 0, 1)
        outside = ((gradient.bias, self.lanes.bias), (gradient.leak, self.lanes.leak))
        bias, leak = (None if part is None or owner is None else _shared(part, owner) for part, owner in outside)
        return matrix, bias, leak

    def _undone(self, carry: Carry, pieces: list[Piece]) -> Carry:
        """Back through the pieces: what comes from outside one by one, all visits between in one go."""
        visits: list[tuple[Block, Any]] = []
        for piece in reversed(pieces):
            if piece.blocks:
                visits += [(block, piece.duration) for block in reversed(list(piece.in_order()))]
            else:
                carry = self._undone_outside(*self._undone_visits(carry, visits), piece.duration)
                visits = []
        return self._undone_visits(carry, visits)

    def _undone_visits(self, carry: Carry, visits: list[tuple[Block, Any]]) -> Carry:
        """Back through visits of blocks, each with its duration."""
        if not visits:
            return carry
        x, adjoint, gradient = carry
        v = lane_product(self.matrices[1], adjoint) if self.current else adjoint
        uv = PendingRows(self.matrices, jnp.stack([self.lanes.preactivation(x), v]), self.sweeps.blocks)
        for block, h in visits:
            u, v = uv.now(block)
            value, pull = jax.vjp(self.lanes.activation, u)
            uv.move(block, jnp.stack([-h * value, *pull(h * v)]))
        rounds = self._rounds(uv.moves, x)
        pushes, pulls = [moved[0] for moved in rounds], [moved[1] for moved in rounds]
        end = self._by_neuron([uv.now(block) for block in self.sweeps.blocks])
        states = list(itertools.accumulate(pulls if self.current else pushes, initial=adjoint if self.current else x))
        gradient = self._with_parts(gradient, uv.moves, states)
        if self.current:
            return end[0], states[-1], gradient
        if gradient.bias is not None:
            gradient = self._with_outside(gradient, sum(pulls), None)
        return states[-1], end[1], gradient

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

    def _with_parts(
        self, gradient: SplittingGradient, moves: list[Move], states: list[LaneStates]
    ) -> SplittingGradient:
        """What the visits add to the part of each block: the outer product of its row and of the states at that time.

        **Arguments:** `states`, what the rows of a block are after none of its visits, the first, the second, ...
        """
        if gradient.parts is None:
            return gradient
        parts = dict(zip(self.sweeps.blocks, gradient.parts, strict=True))
        visits = np.zeros((len(states[0]), 1), int)
        for block, (push, pull) in moves:
            now = states[visits.min()]
            for number in range(visits.min() + 1, visits.max() + 1):
                now = jnp.where(visits >= number, states[number], now)
            row = -push if self.current else pull
            if parts[block].shape[-1] == row.shape[-1]:
                parts[block] += now[:, None] * row[None]
            else:
                parts[block] += jnp.matmul(now, row.T, precision="highest")[..., None]
            visits[block.neurons] += 1
        return SplittingGradient(tuple(parts.values()), gradient.bias, gradient.leak)

    def _rounds(self, moves: list[Move], like: LaneStates) -> list[Float[Array, "2 n lanes"]]:
        """The moves of the first visits of all blocks, of the second visits, and so on, zero where there is none."""
        rounds: list[dict[Block, Array]] = []
        for block, rows in moves:
            number = sum(block in others for others in rounds)
            if number == len(rounds):
                rounds.append({})
            rounds[number][block] = rows
        zeros = jnp.zeros((2, *like.shape), like.dtype)
        return [self._by_neuron([rows.get(b, zeros[:, : b.width]) for b in self.sweeps.blocks]) for rows in rounds]

    def _by_neuron(self, rows: list[Array]) -> Array:
        """The rows of all blocks (_, width, lanes) in one array."""
        numbers = np.concatenate([block.neurons for block in self.sweeps.blocks])
        array = jnp.concatenate(rows, axis=1)
        return array if np.all(np.diff(numbers) == 1) else array[:, np.argsort(numbers)]


def has_way_back(lanes: Lanes, order: int) -> bool:
    """Whether `SplittingWayBack` knows how: else JAX's own rules do."""
    simple = lanes.hollow and lanes.gain is None and lanes.drive is None and order > 1
    # sigma may carry parameters of its own.
    return (
        simple and not jax.tree.leaves(lanes.activation) and all(b.independent for b in HalfSweeps(lanes, order).blocks)
    )


def _shared(cotangent: Array, owner: Array) -> Array:
    return cotangent if owner.shape[-1] > 1 or cotangent.shape[-1] == 1 else jnp.sum(cotangent, axis=-1, keepdims=True)
