"""What a kernel computes with: the numbers of one lane, each of them in all lanes of a tile.

A kernel keeps states in registers, and registers have no index: Triton knows no slice of a value, and Mosaic none at a
place that is not known beforehand. Two forms get by without:

- an object array of *rows*: every number is a value of its own, an array of the shape of the tile (or a scalar, where
  all lanes share it). Slices, stacks and products are then Python's, and all that is left for the kernel is
  elementwise. Fastest while everything fits the registers, but the code grows with n^2.
- a *stack*: the numbers of all neurons in one array with the tile behind them. Code does not grow with n; a single row
  is picked by a mask and a sum.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class NotInRows(Exception):
    """A function has an operation that these forms do not know, or that the platform does not compile."""


class Load:
    """A number that is fetched where it is used, each time anew, since registers would not hold all of its kind.

    `fetch` is told a whole number that differs from turn to turn of the innermost loop, or None where nobody cares. A
    place that seems to depend on it keeps the compiler from fetching everything before the loop, and spilling it.
    """

    def __init__(self, fetch: Callable[[Any], Any], moment: Any) -> None:
        self.fetch, self.moment = fetch, moment

    def row(self) -> Any:
        """The number in all lanes."""
        return self.fetch(self.moment)

    def within(self, turn: Any) -> "Load":
        """The same, to be used in the turns of one more loop."""
        return self if self.moment is None else Load(self.fetch, self.moment + turn)


class Stack:
    """Numbers of shape (n, 1, ...) as one array (padded n, *tile)."""

    def __init__(self, values: Any, shape: tuple[int, ...]) -> None:
        self.values, self.shape = values, shape

    def row(self, place: Any) -> Any:
        """Row number `place`, which may be traced."""
        number = jax.lax.broadcasted_iota(jnp.int32, self.values.shape, 0)
        return jnp.sum(jnp.where(number == place, self.values, jnp.zeros_like(self.values)), axis=0)

    def part(self, begin: int, size: int) -> "Stack | np.ndarray":
        """Rows from `begin` on: a stack if it is one of equal parts, else rows."""
        count = self.values.shape[0]
        if size > 1 and count % size == 0 and begin % size == 0 and size & (size - 1) == 0:
            parts = self.values.reshape(count // size, size, *self.values.shape[1:])
            return Stack(Stack(parts, ()).row(begin // size), (size, *self.shape[1:]))
        rows = in_rows((size,), lambda index: self.row(begin + index[0]))
        return rows.reshape(size, *self.shape[1:])


class Columns:
    """A matrix in memory, of shape (n, n) or (n, n, 1): `fetch(j)` is column j as an array (padded n, *tile)."""

    def __init__(self, fetch: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
        self.fetch, self.shape = fetch, shape


class Table:
    """A list of scalars in memory: `fetch(k)` is the k-th, and k may be traced."""

    def __init__(self, fetch: Callable[[Any], Any], length: int) -> None:
        self.fetch, self.shape = fetch, (length,)


def one_row(value: Any) -> np.ndarray:
    """An object array of no axes around one row or scalar."""
    array = np.empty((), object)
    array[()] = value
    return array


def in_rows(shape: tuple[int, ...], at: Callable[[tuple[int, ...]], Any]) -> np.ndarray:
    """The object array whose entry at `index` is `at(index)`."""
    array = np.empty(shape, object)
    for index in np.ndindex(*shape):
        array[index] = at(index)
    return array


def known(value: Any) -> np.ndarray:
    """Numbers known beforehand, as NumPy scalars; the codes of results in a width that every platform has."""
    array = np.asarray(value)
    array = array.astype(np.int32) if array.dtype == np.int8 else array
    return in_rows(array.shape, lambda index: array[index])


def is_known(value: Any) -> bool:
    """Whether a row is a number known beforehand."""
    return isinstance(value, np.generic)


def fetched(value: Any) -> Any:
    """The row itself, fetched if it has to be."""
    return value.row() if isinstance(value, Load) else value


def spread(value: Any, shape: tuple[int, ...]) -> Any:
    """`value` in the shape of a tile, or of a stack of tiles."""
    mine = np.shape(value)
    if mine == shape:
        return value
    return jnp.broadcast_to(value, shape) if mine else jax.lax.broadcast(value, shape)


def apply(function: Callable[..., Any], *operands: Any) -> Any:
    """An elementwise function of rows and scalars; of known numbers it is known too."""
    operands = tuple(fetched(operand) for operand in operands)
    if all(map(is_known, operands)):
        with jax.ensure_compile_time_eval():
            return np.asarray(function(*map(jnp.asarray, operands)))[()]
    shape = np.broadcast_shapes(*map(np.shape, operands))
    return function(*(spread(operand, shape) for operand in operands))


def each(function: Callable[..., Any], *arrays: Any) -> Any:
    """An elementwise function of object arrays and stacks."""
    if any(isinstance(array, Columns | Table) for array in arrays):
        raise NotInRows("an operation on a whole matrix")
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    if any(isinstance(array, Stack) for array in arrays):
        return Stack(apply(function, *map(_stacked, arrays)), shape)
    arrays = tuple(np.broadcast_to(array, shape) for array in arrays)
    return in_rows(shape, lambda index: apply(function, *(array[index] for array in arrays)))


def folded(rows: Sequence[Any], combine: Callable[..., Any]) -> Any:
    """All rows combined, from the first to the last."""
    return functools.reduce(functools.partial(apply, combine), rows)


def values_of(array: Any) -> list[Any]:
    """What a loop of the kernel has to carry of an object array or stack."""
    return [array.values] if isinstance(array, Stack) else [fetched(value) for value in array.flat]


def rebuilt(like: Any, values: Sequence[Any]) -> Any:
    """The object array or stack again, from what `values_of` gave."""
    if isinstance(like, Stack):
        return Stack(values[0], like.shape)
    return in_rows((len(values),), lambda index: values[index[0]]).reshape(like.shape)


def within(array: Any, turn: Any) -> Any:
    """`array` for the turns of one more loop."""
    if not isinstance(array, np.ndarray):
        return array
    return in_rows(array.shape, lambda k: array[k].within(turn) if isinstance(array[k], Load) else array[k])


def _stacked(array: Any) -> Any:
    """An operand for the side of a stack: another one, or the same row for all neurons."""
    if isinstance(array, Stack):
        return array.values
    first = array.flat[0]
    same = all(entry is first or (is_known(entry) and is_known(first) and entry == first) for entry in array.flat)
    if not same:
        raise NotInRows("rows and stacks in one operation")
    value = fetched(first)
    return value if np.shape(value) == () else jnp.expand_dims(value, 0)
