"""One step of a Poisson splitting: half-sweeps chi and chi* over the blocks of a network, composed to an order.

Pairs (chi, chi*) follow each other; only one of them is compiled, whatever the order. Where nothing stands between chi*
and the next chi (no bias, leak or input), the visits of the first block at the end of the one and at the start of the
other are one, as are those of the last block in the middle of every pair.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .affine import affine_flow, has_affine_part
from .compositions import COMPOSITIONS
from .coordinate_flows import Block, Pass, blocks_of, visit
from .lanes import Lanes
from .states import AbstractState

UNROLLED_BLOCKS = 16
"""Up to this many visits are written out; more are a loop (compile time grows)."""

Carry = TypeVar("Carry")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a step: the same passes through several blocks in turn, or what comes from outside (no blocks)."""

    blocks: tuple[Block, ...]
    passes: tuple[Pass, ...]

    @property
    def duration(self) -> Any:
        """The time that passes for each block."""
        return sum(one.dt for one in self.passes)

    def in_order(self) -> Iterator[Block]:
        """The blocks as they are visited."""
        return reversed(self.blocks) if self.passes[0].backward else iter(self.blocks)


class HalfSweeps:
    """The steps of one network. `in_one_place`: every block is visited by the same piece of machine code."""

    def __init__(self, lanes: Lanes, order: int, in_one_place: bool = False) -> None:
        self.lanes, self.order, self.in_one_place = lanes, order, in_one_place
        self.blocks = blocks_of(lanes, one_by_one=in_one_place)
        self.outside = has_affine_part(lanes)
        # A single block is the first one and the last: joined at both, its visits would be counted twice.
        self.joined = not self.outside and lanes.drive is None and len(self.blocks) > 1

    def step(self, state: AbstractState, t: Any, dt: Array) -> AbstractState:
        """The states after a step of size `dt` from time t."""
        if self.in_one_place:
            return self._in_one_place(state, dt)
        coefficients = COMPOSITIONS[self.order]
        if len(coefficients) == 1:
            return self._once(state, t, dt)
        for piece in self.opening(dt):
            state = self._go(state, piece, t)

        def pair(state: AbstractState, middle: Any, pieces: list[Piece]) -> AbstractState:
            for piece in pieces:
                state = self._go(state, piece, middle)
            return state

        return self.over_pairs(pair, state, t, dt)

    def opening(self, dt: Array) -> list[Piece]:
        """What comes before the first pair: the first visit of the first block, where visits are joined."""
        first = float(COMPOSITIONS[self.order][0])
        return [Piece(self.blocks[:1], (Pass(first * dt),))] if self.joined else []

    def over_pairs(
        self, function: Callable[[Carry, Any, list[Piece]], Carry], carry: Carry, t: Any, dt: Array, back: bool = False
    ) -> Carry:
        """Call `function(carry, time in the middle, pieces)` for every pair in order, or from the last to the first."""
        forward, backward = np.reshape(COMPOSITIONS[self.order], (-1, 2)).T
        following = np.append(forward[1:], 0.0) if self.joined else np.zeros_like(forward)
        middle = np.cumsum(np.append(0.0, forward + backward))[:-1] + forward
        if len(forward) == 1:
            h1, h2 = (float(size) * dt for size in COMPOSITIONS[self.order])
            return function(carry, t + h1, self._pieces(h1, h2, None))

        def body(carry: Carry, sizes: Array) -> tuple[Carry, None]:
            h1, h2, h3, since = (size * dt for size in sizes)
            return function(carry, t + since, self._pieces(h1, h2, h3)), None

        sizes = jnp.asarray(np.stack([forward, backward, following, middle], axis=-1), dt.dtype)
        return jax.lax.scan(body, carry, sizes, reverse=back)[0]

    def _pieces(self, h1: Array, h2: Array, h3: Array | None) -> list[Piece]:
        """chi(h1) and chi*(h2); the joined ones without the first visit of the first block, but with the next one."""
        there, back = Pass(h1), Pass(h2, backward=True)
        inner = self.blocks[1:-1] if self.joined else self.blocks[:-1]
        turn = [Piece(self.blocks[-1:], (there, back))]
        # A piece without blocks is what comes from outside.
        turn = [Piece(inner, (there,)), *turn, Piece(inner, (back,))] if inner else turn
        if self.joined:
            ahead = () if h3 is None else (Pass(h3),)
            return [*turn, Piece(self.blocks[:1], (back, *ahead))]
        return [Piece((), (there,)), *turn, Piece((), (back,))] if self.outside else turn

    def _in_one_place(self, state: AbstractState, dt: Array) -> AbstractState:
        """The same visits in the same order, as a loop with one body.

        Taking a step back needs the very bits of its increments. Visits that are written out do not give them: the
        compiler may contract w_1 r_1 + w_2 r_2 to a fused product and sum in two ways, and chose differently in chi and
        in chi* (seen in the rate form at n = 12).
        """
        numbers = [*([-1] if self.outside else []), *range(len(self.blocks))]
        turns: list[tuple[int, float]] = []
        for stage, size in enumerate(COMPOSITIONS[self.order]):
            for number in reversed(numbers) if stage % 2 else numbers:
                if turns and turns[-1][0] == number:
                    turns[-1] = number, turns[-1][1] + size
                else:
                    turns.append((number, size))
        indices = jnp.asarray([number for number, _ in turns], jnp.int32)
        durations = jnp.asarray([size for _, size in turns], dt.dtype)

        def turn(state: AbstractState, one: tuple[Array, Array]) -> tuple[AbstractState, None]:
            number, duration = one[0], (Pass(one[1] * dt),)
            if self.blocks[0].width == 1 and self.lanes.colours is None:
                choices = [
                    lambda state: self._go(
                        state, Piece((dataclasses.replace(self.blocks[0], start=number),), duration), 0.0
                    )
                ]
                chosen = jnp.minimum(number, 0)
            else:
                choices = [functools.partial(self._go, piece=Piece((block,), duration), t=0.0) for block in self.blocks]
                chosen = number
            if not self.outside:
                return jax.lax.switch(chosen, choices, state), None
            outside = functools.partial(self._go, piece=Piece((), duration), t=0.0)
            return jax.lax.switch(chosen + 1, [outside, *choices], state), None

        return jax.lax.scan(turn, state, (indices, durations))[0]

    def _once(self, state: AbstractState, t: Any, dt: Array) -> AbstractState:
        """chi(dt): the time, what comes from outside, then all blocks in order."""
        parts = [()] if self.outside else []
        for blocks in (*parts, *filter(None, (self.blocks[:-1], self.blocks[-1:]))):
            state = self._go(state, Piece(blocks, (Pass(dt),)), t + dt)
        return state

    def _go(self, state: AbstractState, piece: Piece, t: Any) -> AbstractState:
        """The states after one piece, at the frozen time t."""
        blocks = piece.blocks
        if not blocks:
            x = state.value()
            return state.moved(affine_flow(self.lanes, x, t, piece.duration) - x)
        inflow = self.lanes.input_at(t) if self.lanes.form == "rate" else None
        if len(blocks) <= UNROLLED_BLOCKS:
            for block in piece.in_order():
                state = visit(self.lanes, state, block, piece.passes, inflow, self.order)
            return state
        width, first, count = blocks[0].width, blocks[0].start, len(blocks)

        def at(k: Any, state: AbstractState) -> AbstractState:
            start = first + width * (count - 1 - k if piece.passes[0].backward else k)
            return visit(
                self.lanes, state, dataclasses.replace(blocks[0], start=start), piece.passes, inflow, self.order
            )

        return jax.lax.fori_loop(0, count, at, state)
