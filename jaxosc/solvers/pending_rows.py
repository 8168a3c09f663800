"""States that hear of increments late: each row of z <- z + M[:, B] m is brought up to date when somebody reads it.

A step of a splitting goes through the n neurons there and back and reads one block of rows at a time. If all rows hear
of every increment at once this takes 2 n^2 products; block by block, with all that has come from a neuron since the
last look as one increment, it takes 3/2 n^2, and less still where blocks are few.
"""

import jax
from jaxtyping import Array, Float

from .coordinate_flows import Block
from .lanes import lane_product


class PendingRows:
    """Several states side by side (the first axis), which move by the same visits, each with a matrix of its own.

    Of the moves of a block its own rows never hear: the diagonal blocks of `matrices` are zero.
    """

    def __init__(
        self,
        matrices: Float[Array, "states n n #lanes"],
        start: Float[Array, "states n lanes"],
        blocks: tuple[Block, ...],
    ) -> None:
        self.matrices = matrices
        self.moves: list[tuple[Block, Float[Array, "states _ lanes"]]] = []
        self._rows = {block: block.rows(start, axis=1) for block in blocks}
        self._heard = dict.fromkeys(blocks, 0)

    def move(self, block: Block, rows: Float[Array, "states width lanes"]) -> None:
        """Every other block is to hear of these increments."""
        self.moves.append((block, rows))

    def now(self, block: Block) -> Float[Array, "states width lanes"]:
        """The rows of a block after all moves so far."""
        gathered: dict[Block, Array] = {}
        for other, rows in self.moves[self._heard[block] :]:
            if other != block:
                gathered[other] = gathered[other] + rows if other in gathered else rows
        matrices, rows = block.rows(self.matrices, axis=1), self._rows[block]
        for other, moved in gathered.items():
            rows = rows + jax.vmap(lane_product)(other.rows(matrices, axis=2), moved)
        self._rows[block], self._heard[block] = rows, len(self.moves)
        return rows
