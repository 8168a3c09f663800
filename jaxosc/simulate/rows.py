"""The engine's own functions, evaluated with one row of lanes for each number of one lane.

A kernel keeps the states of its lanes in registers, and registers have no index: Triton knows no slice of a value and
Mosaic none at a traced place. So a function is traced for a single lane, and its operations are then done again with
every number replaced by a *row*: that number in all lanes of a tile, an array of the shape of the tile, or a scalar
where all lanes share it. Slices, stacks and products of matrices are then a matter of Python; what is left for the
kernel is elementwise. A stepper or reducer needs no second version for the kernel, and nothing in it may look from one
lane to another.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNROLLED_OPERATIONS = 2048
"""Up to this many operations a loop with a known number of turns is written out; the cost of longer code is fetching
it, which the instruction caches of the H100 (some 10^4 instructions) hide up to about here."""


class NotInRows(Exception):
    """A function has an operation that rows do not know, or that the platform does not compile."""


class Load:
    """A number that is fetched where it is used, each time anew, since registers would not hold all of its kind."""

    def __init__(self, fetch: Callable[[], Any]) -> None:
        self.fetch = fetch


class RowFunction:
    """`function` of pytrees of arrays for one lane, callable with object arrays of rows in their place.

    **Arguments:** `examples`, arguments with arrays or shapes of one lane; `missing`, names of operations that the
    platform does not compile. **Raises:** `NotInRows` where the function cannot be evaluated.
    """

    def __init__(self, function: Callable[..., Any], *examples: Any, missing: frozenset[str] = frozenset()) -> None:
        self.jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
        self.outputs = jax.tree.structure(shapes)
        require_known(self.jaxpr.jaxpr, missing)

    def __call__(self, *arguments: Any) -> Any:
        """The result as pytrees of object arrays."""
        rows = evaluate(self.jaxpr, jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.outputs, rows)


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


def fetched(value: Any) -> Any:
    """The row itself, fetched if it has to be."""
    return value.fetch() if isinstance(value, Load) else value


def spread(value: Any, tile: tuple[int, ...]) -> Any:
    """A row from what may be a scalar."""
    return value if np.shape(value) == tile else jnp.broadcast_to(value, tile)


def evaluate(closed: Any, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a closed jaxpr."""
    values: dict[Any, np.ndarray] = dict(zip(closed.jaxpr.constvars, map(_static, closed.consts), strict=True))
    values.update(zip(closed.jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> np.ndarray:
        return _static(atom.val) if hasattr(atom, "val") else values[atom]

    for equation in closed.jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _RULES.get(equation.primitive.name, _elementwise)(equation, *operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def require_known(jaxpr: Any, missing: frozenset[str]) -> None:
    """Raise `NotInRows` for an operation that has no rule, or none on the platform."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name not in _RULES and name not in _ELEMENTWISE or name in missing:
            raise NotInRows(name)
        for inner in _inner_jaxprs(equation):
            require_known(inner.jaxpr, missing)


def _inner_jaxprs(equation: Any) -> list[Any]:
    found = jax.tree.leaves(
        [equation.params[name] for name in ("jaxpr", "call_jaxpr", "branches") if name in equation.params],
        is_leaf=lambda leaf: hasattr(leaf, "eqns"),
    )
    return [inner if hasattr(inner, "jaxpr") else jax.extend.core.ClosedJaxpr(inner, ()) for inner in found]


def _static(value: Any) -> np.ndarray:
    """Numbers known beforehand, as NumPy scalars; the codes of results in a width that every platform has."""
    array = np.asarray(value)
    array = array.astype(np.int32) if array.dtype == np.int8 else array
    return in_rows(array.shape, lambda index: array[index])


def _is_static(value: Any) -> bool:
    return isinstance(value, np.generic)


def _apply(function: Callable[..., Any], *operands: Any) -> Any:
    """An elementwise function of rows and scalars; of known numbers it is known too."""
    operands = tuple(fetched(operand) for operand in operands)
    if all(map(_is_static, operands)):
        with jax.ensure_compile_time_eval():
            return np.asarray(function(*map(jnp.asarray, operands)))[()]
    shape = np.broadcast_shapes(*map(np.shape, operands))
    return function(*(spread(operand, shape) for operand in operands))


def _each(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    arrays = tuple(np.broadcast_to(array, shape) for array in arrays)
    return in_rows(shape, lambda index: _apply(function, *(array[index] for array in arrays)))


def _elementwise(equation: Any, *operands: np.ndarray) -> list[np.ndarray]:
    parameters = dict(equation.params)
    if parameters.get("new_dtype") == np.int8:
        parameters["new_dtype"] = np.dtype(np.int32)
    function = _SUBSTITUTES.get(equation.primitive.name)
    if function is None:
        function = functools.partial(equation.primitive.bind, **parameters)
    return [_each(function, *operands)]


def _expm1(x: Any) -> Any:
    """exp(x) - 1 by tanh(x / 2), which cancels nowhere below 1: not every platform has the function itself."""
    half = jnp.tanh(x * 0.5)
    return jnp.where(x > 1, jnp.exp(x) - 1, 2 * half / (1 - jnp.minimum(half, 0.5)))


_SUBSTITUTES: dict[str, Callable[..., Any]] = {
    "is_finite": lambda x: jnp.abs(x) < jnp.inf,
    "logistic": lambda x: 1 / (1 + jnp.exp(-x)),
    "expm1": _expm1,
    "clamp": lambda low, x, high: jnp.minimum(jnp.maximum(x, low), high),
    **dict.fromkeys(("copy", "reshard", "pvary", "stop_gradient"), lambda x: x),
}

_ELEMENTWISE = frozenset(
    {*_SUBSTITUTES}
    | {"add", "sub", "mul", "div", "neg", "abs", "sign", "max", "min", "rem", "square", "integer_pow", "pow", "sqrt"}
    | {"rsqrt", "exp", "exp2", "log", "log1p", "tanh", "atan", "erf", "sin", "cos", "and", "or", "not", "xor"}
    | {"eq", "ne", "lt", "le", "gt", "ge", "select_n", "convert_element_type"}
)


def _inlined(equation: Any, *operands: np.ndarray) -> list[np.ndarray]:
    return evaluate(_inner_jaxprs(equation)[0], operands)


def _broadcast_in_dim(equation: Any, array: np.ndarray, *_: Any) -> list[np.ndarray]:
    shape, where = equation.params["shape"], equation.params["broadcast_dimensions"]
    aligned = [1] * len(shape)
    for axis, size in zip(where, array.shape, strict=True):
        aligned[axis] = size
    return [np.broadcast_to(array.reshape(aligned), shape)]


def _reshaped(equation: Any, array: np.ndarray, *_: Any) -> list[np.ndarray]:
    return [array.reshape(equation.outvars[0].aval.shape)]


def _slice(equation: Any, array: np.ndarray) -> list[np.ndarray]:
    start, limit, strides = (equation.params[name] for name in ("start_indices", "limit_indices", "strides"))
    strides = strides or (1,) * array.ndim
    return [array[tuple(slice(*ends) for ends in zip(start, limit, strides, strict=True))]]


def _window(shape: tuple[int, ...], sizes: tuple[int, ...], starts: Sequence[np.ndarray]) -> tuple[slice, ...]:
    if not all(_is_static(start[()]) for start in starts):
        raise NotInRows("dynamic_slice at a place that is not known beforehand")
    begins = [
        int(np.clip(start[()], 0, whole - part)) for start, whole, part in zip(starts, shape, sizes, strict=True)
    ]
    return tuple(slice(begin, begin + part) for begin, part in zip(begins, sizes, strict=True))


def _dynamic_slice(equation: Any, array: np.ndarray, *starts: np.ndarray) -> list[np.ndarray]:
    return [array[_window(array.shape, equation.params["slice_sizes"], starts)]]


def _dynamic_update_slice(
    equation: Any, array: np.ndarray, update: np.ndarray, *starts: np.ndarray
) -> list[np.ndarray]:
    array = array.copy()
    array[_window(array.shape, update.shape, starts)] = update
    return [array]


def _by_place(equation: Any, *operands: np.ndarray) -> list[np.ndarray]:
    """Any operation that only moves numbers: done with their places, then the numbers are fetched from there.

    Whole numbers known beforehand among the operands are taken for indices.
    """
    moved, offset, places = [], 0, []
    for operand, atom in zip(operands, equation.invars, strict=True):
        if jnp.issubdtype(atom.aval.dtype, jnp.integer) and all(map(_is_static, operand.flat)):
            places.append(jnp.asarray(operand.astype(atom.aval.dtype)))
            continue
        places.append(jnp.arange(offset, offset + operand.size).reshape(operand.shape))
        moved.extend(operand.flat)
        offset += operand.size
    with jax.ensure_compile_time_eval():
        chosen = np.asarray(equation.primitive.bind(*places, **equation.params))
    return [in_rows(chosen.shape, lambda index: moved[chosen[index]])]


def _dot_general(equation: Any, left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
    (left_axes, right_axes), batch = equation.params["dimension_numbers"]
    if batch != ((), ()) or len(left_axes) != 1:
        raise NotInRows("dot_general over batches")
    left, right = np.moveaxis(left, left_axes[0], -1), np.moveaxis(right, right_axes[0], 0)

    def entry(index: tuple[int, ...]) -> Any:
        row, column = left[index[: left.ndim - 1]], right[(slice(None), *index[left.ndim - 1 :])]
        return _folded([_apply(jnp.multiply, a, b) for a, b in zip(row, column, strict=True)], jnp.add)

    return [in_rows((*left.shape[:-1], *right.shape[1:]), entry)]


def _folded(rows: Sequence[Any], combine: Callable[..., Any]) -> Any:
    return functools.reduce(functools.partial(_apply, combine), rows)


def _reduction(combine: Callable[..., Any]) -> Callable[..., list[np.ndarray]]:
    def rule(equation: Any, array: np.ndarray) -> list[np.ndarray]:
        axes = equation.params["axes"]
        last = np.moveaxis(array, axes, range(-len(axes), 0))
        kept = last.reshape(*last.shape[: array.ndim - len(axes)], -1)
        return [in_rows(kept.shape[:-1], lambda index: _folded(list(kept[index]), combine))]

    return rule


def _cond(equation: Any, index: np.ndarray, *operands: np.ndarray) -> list[np.ndarray]:
    """All branches, and a choice between what they give: a branch here guards against fusion, not against work."""
    results = [evaluate(branch, operands) for branch in equation.params["branches"]]
    chosen = results[-1]
    for number in reversed(range(len(results) - 1)):
        here = _each(lambda value, number=number: value == number, index)
        chosen = [
            _each(jnp.where, here, one, other) for one, other in zip(results[number], chosen, strict=True)
        ]
    return chosen


def _scan(equation: Any, *operands: np.ndarray) -> list[np.ndarray]:
    parameters = equation.params
    constants, carried = parameters["num_consts"], parameters["num_carry"]
    length, body = parameters["length"], parameters["jaxpr"]
    fixed, carry, series = operands[:constants], operands[constants : constants + carried], operands[constants + carried :]
    turns = range(length)[:: -1 if parameters["reverse"] else 1]
    if len(equation.outvars) == carried and series and length * operations(body.jaxpr) > UNROLLED_OPERATIONS:
        return _rolled(body, fixed, carry, series, turns)
    kept: dict[int, list[np.ndarray]] = {}
    for turn in turns:
        out = evaluate(body, [*fixed, *carry, *(one[turn] if one.ndim > 1 else one_row(one[turn]) for one in series)])
        carry, kept[turn] = tuple(out[:carried]), out[carried:]
    stacked = [np.stack([kept[turn][k] for turn in range(length)]) for k in range(len(equation.outvars) - carried)]
    return [*carry, *stacked]


def _rolled(body: Any, fixed: Any, carry: Any, series: Any, turns: range) -> list[np.ndarray]:
    """The scan as a loop of the kernel; what differs from turn to turn is chosen by the number of the turn."""
    shapes = [array.shape for array in carry]
    sizes = [array.size for array in carry]
    flat = [fetched(value) for array in carry for value in array.flat]
    tile = np.broadcast_shapes(*map(np.shape, flat))

    def packed(rows: Sequence[Any]) -> list[np.ndarray]:
        ends = list(itertools.accumulate(sizes))
        parts = [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        return [in_rows(shape, lambda k, part=part, shape=shape: part[np.ravel_multi_index(k, shape) if shape else 0])
                for part, shape in zip(parts, shapes, strict=True)]  # fmt: skip

    def turn(k: Any, rows: tuple[Any, ...]) -> tuple[Any, ...]:
        def now(index: tuple[int, ...], one: np.ndarray) -> Any:
            values = [fetched(one[(place, *index)]) for place in turns]
            return functools.reduce(
                lambda rest, step: jnp.where(k == step, values[step], rest), range(len(values) - 1), values[-1]
            )

        mine = [in_rows(one.shape[1:], functools.partial(now, one=one)) for one in series]
        out = evaluate(body, [*fixed, *packed(rows), *mine])
        return tuple(spread(fetched(value), tile) for array in out for value in array.flat)

    start = tuple(spread(value, tile) for value in flat)
    return packed(jax.lax.fori_loop(jnp.int32(0), jnp.int32(len(turns)), turn, start))


def operations(jaxpr: Any) -> int:
    """About how many elementwise operations a jaxpr of one lane is made of."""
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(operations(one.jaxpr) for one in _inner_jaxprs(equation))
        if inner:
            total += inner * equation.params.get("length", 1)
        elif equation.primitive.name in _ELEMENTWISE:
            total += math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "dot_general":
            total += math.prod(equation.invars[0].aval.shape) * equation.invars[1].aval.shape[-1]
    return total


_RULES: dict[str, Callable[..., list[np.ndarray]]] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint"), _inlined),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshaped),
    **dict.fromkeys(("gather", "scatter", "rev", "concatenate"), _by_place),
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": lambda equation, array: [array.transpose(equation.params["permutation"])],
    "concatenate": lambda equation, *arrays: [np.concatenate(arrays, axis=equation.params["dimension"])],
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "iota": lambda equation: [_static(np.broadcast_to(
        np.arange(equation.params["shape"][equation.params["dimension"]], dtype=equation.params["dtype"]).reshape(
            [-1 if axis == equation.params["dimension"] else 1 for axis in range(len(equation.params["shape"]))]
        ), equation.params["shape"]))],
    "dot_general": _dot_general,
    "reduce_sum": _reduction(jnp.add),
    "reduce_max": _reduction(jnp.maximum),
    "reduce_min": _reduction(jnp.minimum),
    "reduce_and": _reduction(jnp.logical_and),
    "reduce_or": _reduction(jnp.logical_or),
    "cond": _cond,
    "scan": _scan,
}  # fmt: skip
