"""Where a kernel finds the arrays of a run: how each is laid out in tiles, fetched as rows or a stack, and stored."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array

from .rows import Columns, Load, Stack, fetched, in_rows, spread


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a run.

    **Attributes:** `shape` and `dtype`, as one lane has it; `own`, whether the last axis counts lanes; `padded`, the
    number of neurons filled up to a power of two where the array is stacked, else None.
    """

    shape: tuple[int, ...]
    dtype: Any
    own: bool
    padded: int | None

    @classmethod
    def of(cls, array: Array, own: bool, size: int, padded: int | None) -> "Leaf":
        """The leaf of an array in a network of `size` neurons, which are stacked unless `padded` is None."""
        shape = (*array.shape[:-1], 1) if own else array.shape
        stacks = shape in ((size, 1), (size, size, 1))
        return cls(shape, array.dtype, own, padded if stacks else None)

    @property
    def one_lane(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype in one lane."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    @property
    def entries(self) -> int:
        """Numbers in one lane."""
        return int(np.prod(self.shape))

    @property
    def is_matrix(self) -> bool:
        """Whether it has two axes of neurons."""
        return len(self.shape) > 2

    def laid_out(self, array: Array, tiles: int, tile: tuple[int, ...]) -> Array:
        """In memory: (..., lanes) in rows of tiles, (entries,) or the transposed matrix where all lanes share it."""
        if self.padded is not None:
            fill = [(0, self.padded - size) for size in self.shape[:-1]]
            array = jnp.pad(array, [*fill, (0, 0)])
        if not self.own:
            return jnp.ravel(array) if self.padded is None else array[..., 0].T
        missing = tiles * int(np.prod(tile)) - array.shape[-1]
        array = jnp.pad(array, [*((0, 0) for _ in array.shape[:-1]), (0, missing)])
        return array.reshape(*array.shape[:-1], tiles * tile[0], *tile[1:])

    def taken_back(self, array: Array, count: int) -> Array:
        """What was laid out, without the filling."""
        lead = self.shape[:-1]
        array = array.reshape(*array.shape[: len(lead)], -1)
        return array[(*(slice(size) for size in lead), slice(count))]

    def spec(self, tile: tuple[int, ...], shared: Any) -> Any:
        """Which part of it a tile sees."""
        if not self.own:
            return shared
        lead = self.shape[:-1] if self.padded is None else (self.padded,) * len(self.shape[:-1])
        return pl.BlockSpec((*lead, *tile), lambda k: (*(0 for _ in lead), k, *(0 for _ in tile[1:])))

    def rows(self, ref: Any) -> Any:
        """Fetched for good."""
        loads = self.loads(ref, None)
        return loads if self.padded is not None else in_rows(self.shape, lambda index: loads[index].row())

    def loads(self, ref: Any, moment: Any) -> Any:
        """To be fetched where they are used, see `Load`; stacked vectors at once, stacked matrices by columns."""
        if self.padded is None:
            fetch = self._own_row if self.own else self._shared_number
            return in_rows(self.shape, lambda index: Load(functools.partial(fetch, ref, index), moment))
        if self.is_matrix:
            return Columns(functools.partial(self._column, ref), self.shape)
        return Stack(ref[...] if self.own else ref[...][:, None], self.shape)

    def store(self, ref: Any, rows: Any, tile: tuple[int, ...]) -> None:
        """Write rows or a stack to memory."""
        if isinstance(rows, Stack):
            ref[...] = rows.values
            return
        for index in np.ndindex(*self.shape[:-1]):
            ref[index] = spread(fetched(rows[(*index, 0)]), tile)

    def _own_row(self, ref: Any, index: tuple[int, ...], moment: Any) -> Any:
        place = index[:-1]
        return ref[place] if moment is None or not place else ref[(_seemingly_moved(place[0], moment), *place[1:])]

    def _shared_number(self, ref: Any, index: tuple[int, ...], moment: Any) -> Any:
        place = int(np.ravel_multi_index(index, self.shape)) if self.shape else 0
        return ref[place] if moment is None else ref[_seemingly_moved(place, moment)]

    def _column(self, ref: Any, place: Any) -> Any:
        return ref[:, place] if self.own else ref[place][:, None]


def _seemingly_moved(place: int, moment: Any) -> Any:
    """`place`, in a way that the compiler cannot know to be that: moments are never negative."""
    return place + jnp.minimum(moment, 0)
