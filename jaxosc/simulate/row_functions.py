"""The engine's own functions, evaluated on the rows and stacks of a kernel.

A function is traced for a single lane, and its operations are then done again with rows or stacks for numbers. So a
stepper or reducer needs no second version for the kernel, as long as nothing in it looks from one lane to another.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .rows import (
    Columns,
    NotInRows,
    Stack,
    Table,
    apply,
    each,
    fetched,
    folded,
    in_rows,
    is_known,
    known,
    one_row,
    rebuilt,
    spread,
    values_of,
    within,
)

UNROLLED_OPERATIONS = 512
"""Up to this many operations a loop of few turns is written out. Longer code costs compile time: a pass of Triton takes
the square of the number of operations for every load (0.5 s at 500, 25 s at 2,000)."""

TABLE_LENGTH = 32
"""Series of constants that are longer are read from memory."""


class RowFunction:
    """`function` of pytrees of arrays for one lane, callable with rows and stacks in their place.

    **Arguments:** `examples`, arguments with arrays or shapes of one lane; `missing`, names of operations that the
    platform does not compile. **Attributes:** `series`, long constants that a kernel has to bring as tables.
    **Raises:** `NotInRows` where the function cannot be evaluated.
    """

    def __init__(self, function: Callable[..., Any], *examples: Any, missing: frozenset[str] = frozenset()) -> None:
        self.jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
        self.outputs = jax.tree.structure(shapes)
        self.series = [np.asarray(constant) for constant in self.jaxpr.consts if np.size(constant) > TABLE_LENGTH]
        _require_known(self.jaxpr.jaxpr, missing)

    def __call__(self, *arguments: Any, tables: Sequence[Table] = ()) -> Any:
        """The result in the structure of the function's own; `tables` stand for the `series`."""
        longer = iter(tables)
        constants = [
            next(longer) if np.size(constant) > TABLE_LENGTH else known(constant) for constant in self.jaxpr.consts
        ]
        rows = _evaluate(self.jaxpr.jaxpr, constants, jax.tree.leaves(arguments))
        return jax.tree.unflatten(self.outputs, rows)


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return known(atom.val) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _RULES.get(equation.primitive.name, _elementwise)(equation, *operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate_closed(closed: Any, arguments: Sequence[Any]) -> list[Any]:
    return _evaluate(closed.jaxpr, [known(constant) for constant in closed.consts], arguments)


def _require_known(jaxpr: Any, missing: frozenset[str]) -> None:
    """Raise `NotInRows` for an operation that has no rule, or none on the platform."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if (name not in _RULES and name not in _ELEMENTWISE) or name in missing:
            raise NotInRows(name)
        for inner in _inner_jaxprs(equation):
            _require_known(inner.jaxpr, missing)


def _inner_jaxprs(equation: Any) -> list[Any]:
    """The closed jaxprs among the parameters of an equation."""
    found = [equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params]
    return [*found, *equation.params.get("branches", ())]


def _operations(jaxpr: Any) -> int:
    """About how many elementwise operations a jaxpr of one lane is made of."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [_operations(one.jaxpr) for one in _inner_jaxprs(equation)]
        if inner:
            total += sum(inner) * equation.params.get("length", 1)
        elif equation.primitive.name in _ELEMENTWISE:
            total += math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "dot_general":
            total += math.prod(equation.invars[0].aval.shape) * equation.invars[1].aval.shape[-1]
    return total


def _elementwise(equation: Any, *operands: Any) -> list[Any]:
    parameters = dict(equation.params)
    if parameters.get("new_dtype") == np.int8:
        parameters["new_dtype"] = np.dtype(np.int32)
    function = _SUBSTITUTES.get(equation.primitive.name)
    if function is None:
        function = functools.partial(equation.primitive.bind, **parameters)
    return [each(function, *operands)]


def _expm1(x: Any) -> Any:
    """exp(x) - 1 by tanh(x / 2), which cancels nowhere below 1: Mosaic has no function for it."""
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


def _inlined(equation: Any, *operands: Any) -> list[Any]:
    return _evaluate_closed(_inner_jaxprs(equation)[0], operands)


def _broadcast_in_dim(equation: Any, array: Any, *_: Any) -> list[Any]:
    shape, where = equation.params["shape"], equation.params["broadcast_dimensions"]
    if isinstance(array, Stack):
        return [_relabelled(array, shape)]
    aligned = [1] * len(shape)
    for axis, size in zip(where, array.shape, strict=True):
        aligned[axis] = size
    return [np.broadcast_to(array.reshape(aligned), shape)]


def _reshape(equation: Any, array: Any, *_: Any) -> list[Any]:
    shape = equation.outvars[0].aval.shape
    if isinstance(array, Columns):
        return [Columns(array.fetch, shape)]
    return [_relabelled(array, shape) if isinstance(array, Stack) else array.reshape(shape)]


def _relabelled(stack: Stack, shape: tuple[int, ...]) -> Stack:
    if shape[0] != stack.shape[0] or math.prod(shape) != shape[0]:
        raise NotInRows("a stack with another axis")
    return Stack(stack.values, shape)


def _slice(equation: Any, array: Any) -> list[Any]:
    start, limit = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(start)
    if isinstance(array, np.ndarray):
        return [array[tuple(slice(*ends) for ends in zip(start, limit, strides, strict=True))]]
    if max(strides) > 1:
        raise NotInRows("a stack with strides")
    return [_window(array, list(start), [end - begin for begin, end in zip(start, limit, strict=True)])]


def _dynamic_slice(equation: Any, array: Any, *starts: np.ndarray) -> list[Any]:
    return [_window(array, [start[()] for start in starts], list(equation.params["slice_sizes"]))]


def _window(array: Any, starts: list[Any], sizes: list[int]) -> Any:
    """The part of `array` of these sizes that begins at `starts`, as far as its form allows."""
    if isinstance(array, Columns):
        if sizes == list(array.shape):
            return array
        if sizes[0] != array.shape[0] or sizes[1] != 1:
            raise NotInRows("a part of a matrix that is no column")
        return Stack(array.fetch(starts[1]), tuple(sizes))
    if isinstance(array, Stack) and sizes[0] == 1:
        return one_row(array.row(starts[0])).reshape((1,) * len(sizes))
    if not all(is_known(start) or isinstance(start, int) for start in starts):
        raise NotInRows("a part at a place that is not known beforehand")
    if isinstance(array, Stack):
        return array.part(int(starts[0]), sizes[0])
    begins = [int(np.clip(a, 0, whole - size)) for a, whole, size in zip(starts, array.shape, sizes, strict=True)]
    return array[tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))]


def _dynamic_update_slice(equation: Any, array: Any, update: Any, *starts: np.ndarray) -> list[Any]:
    if not isinstance(array, np.ndarray) or not all(is_known(start[()]) for start in starts):
        raise NotInRows("an update at a place that is not known beforehand")
    array = array.copy()
    _window(array, [start[()] for start in starts], list(update.shape))[...] = update
    return [array]


def _concatenate(equation: Any, *arrays: Any) -> list[Any]:
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise NotInRows("stacks one after the other")
    return [np.concatenate(arrays, axis=equation.params["dimension"])]


def _transpose(equation: Any, array: Any) -> list[Any]:
    if not isinstance(array, np.ndarray):
        raise NotInRows("a stack the other way round")
    return [array.transpose(equation.params["permutation"])]


def _unstack(equation: Any, array: Any) -> list[Any]:
    """The parts along an axis, which is left out: what newer versions of JAX make of indexing one by one."""
    axis, shape = equation.params["axis"], list(array.shape)

    def part(k: int) -> Any:
        starts, sizes = [0] * len(shape), list(shape)
        starts[axis], sizes[axis] = k, 1
        window = _window(array, starts, sizes)
        return window if isinstance(window, Stack) else window.reshape(equation.outvars[k].aval.shape)

    return [part(k) for k in range(shape[axis])]


def _iota(equation: Any) -> list[Any]:
    with jax.ensure_compile_time_eval():
        return [known(equation.primitive.bind(**equation.params))]


def _dot_general(equation: Any, left: Any, right: Any) -> list[Any]:
    (left_axes, right_axes), batch = equation.params["dimension_numbers"]
    if batch != ((), ()) or len(left_axes) != 1:
        raise NotInRows("a product over batches")
    if isinstance(left, Columns) and isinstance(right, Stack) and (left_axes, right_axes) == ((1,), (0,)):
        return [_product(left, right)]
    if not (isinstance(left, np.ndarray) and isinstance(right, np.ndarray)):
        raise NotInRows("a product with a stack")
    left, right = np.moveaxis(left, left_axes[0], -1), np.moveaxis(right, right_axes[0], 0)

    def entry(index: tuple[int, ...]) -> Any:
        row, column = left[index[: left.ndim - 1]], right[(slice(None), *index[left.ndim - 1 :])]
        return folded([apply(jax.lax.mul, a, b) for a, b in zip(row, column, strict=True)], jax.lax.add)

    return [in_rows((*left.shape[:-1], *right.shape[1:]), entry)]


def _product(matrix: Columns, vector: Stack) -> Stack:
    """The columns, each times its row, summed in a loop."""

    def add(j: Any, total: Any) -> Any:
        row = jnp.expand_dims(vector.row(j), 0)
        return total + matrix.fetch(j) * spread(row, total.shape)

    total = jax.lax.fori_loop(jnp.int32(0), jnp.int32(matrix.shape[1]), add, jnp.zeros_like(vector.values))
    return Stack(total, vector.shape)


def _reduction(combine: Callable[..., Any]) -> Callable[..., list[Any]]:
    def rule(equation: Any, array: Any) -> list[Any]:
        if not isinstance(array, np.ndarray):
            raise NotInRows("a reduction of a stack")
        axes = equation.params["axes"]
        last = np.moveaxis(array, axes, range(-len(axes), 0))
        kept = last.reshape(*last.shape[: array.ndim - len(axes)], -1)
        return [in_rows(kept.shape[:-1], lambda index: folded(list(kept[index]), combine))]

    return rule


def _cond(equation: Any, index: Any, *operands: Any) -> list[Any]:
    """All branches, and a choice between what they give: in the engine a branch guards against fusion, not work."""
    branches, number = equation.params["branches"], fetched(index[()])
    if is_known(number):
        return _evaluate_closed(branches[int(np.clip(number, 0, len(branches) - 1))], operands)
    results = [_evaluate_closed(branch, operands) for branch in branches]
    chosen = results[-1]
    for k in reversed(range(len(results) - 1)):
        here = one_row(number == k)
        chosen = [each(jnp.where, here.reshape((1,) * len(one.shape)), one, other)
                  for one, other in zip(results[k], chosen, strict=True)]  # fmt: skip
    return chosen


def _scan(equation: Any, *operands: Any) -> list[Any]:
    parameters = equation.params
    length, body = parameters["length"], parameters["jaxpr"]
    constants, carried = _scan_counts(equation, body)
    turns = range(length)[:: -1 if parameters["reverse"] else 1]
    fixed, carry = operands[:constants], operands[constants : constants + carried]
    series = operands[constants + carried :]
    nothing_kept = len(equation.outvars) == carried
    tables = any(isinstance(one, Table) for one in series)
    if nothing_kept and (tables or (series and length * _operations(body.jaxpr) > UNROLLED_OPERATIONS)):
        return _rolled(body, fixed, carry, series, turns)
    if tables:
        raise NotInRows("a long series of constants")
    kept: dict[int, list[Any]] = {}
    for turn in turns:
        mine = [one[turn] if one.ndim > 1 else one_row(one[turn]) for one in series]
        out = _evaluate_closed(body, [*fixed, *carry, *mine])
        carry, kept[turn] = tuple(out[:carried]), out[carried:]
    stacked = [np.stack([kept[turn][k] for turn in range(length)]) for k in range(len(equation.outvars) - carried)]
    return [*carry, *stacked]


def _scan_counts(equation: Any, body: Any) -> tuple[int, int]:
    """How many constants and how many carried arrays a scan has; its own parameters say it otherwise in each JAX.

    Only what the scan goes through or collects has an axis more outside than in the body.
    """
    through = sum(
        len(outer.aval.shape) > len(aval.shape) for outer, aval in zip(equation.invars, body.in_avals, strict=True)
    )
    collected = sum(
        len(outer.aval.shape) > len(aval.shape) for outer, aval in zip(equation.outvars, body.out_avals, strict=True)
    )
    carried = len(equation.outvars) - collected
    return len(equation.invars) - through - carried, carried


def _rolled(body: Any, fixed: Any, carry: Any, series: Any, turns: range) -> list[Any]:
    """The scan as a loop of the kernel; what differs from turn to turn is looked up, or chosen by its number."""
    parts = [values_of(array) for array in carry]
    ends = list(itertools.accumulate(map(len, parts)))
    tile = np.broadcast_shapes(*(np.shape(v) for array, part in zip(carry, parts, strict=True) for v in part
                                 if not isinstance(array, Stack)))  # fmt: skip
    flat = [value if isinstance(array, Stack) else spread(value, tile)
            for array, part in zip(carry, parts, strict=True) for value in part]  # fmt: skip
    shapes = [np.shape(value) for value in flat]

    def packed(values: Sequence[Any]) -> list[Any]:
        begins = [0, *ends[:-1]]
        return [rebuilt(like, values[a:b]) for like, a, b in zip(carry, begins, ends, strict=True)]

    def turn(k: Any, values: tuple[Any, ...]) -> tuple[Any, ...]:
        mine = [_entry(one, k, turns) for one in series]
        out = _evaluate_closed(body, [*(within(array, k) for array in fixed), *packed(values), *mine])
        new = [value for array in out for value in values_of(array)]
        return tuple(spread(value, shape) for value, shape in zip(new, shapes, strict=True))

    return packed(jax.lax.fori_loop(jnp.int32(0), jnp.int32(len(turns)), turn, tuple(flat)))


def _entry(series: Any, k: Any, turns: range) -> Any:
    """What the series has for turn number `k`."""
    if isinstance(series, Table):
        return one_row(series.fetch(k if turns.step == 1 else len(turns) - 1 - k))

    def chosen(index: tuple[int, ...]) -> Any:
        values = [fetched(series[(place, *index)]) for place in turns]
        return functools.reduce(
            lambda rest, step: jnp.where(k == step, values[step], rest), range(len(values) - 1), values[-1]
        )

    return in_rows(series.shape[1:], chosen)


_RULES: dict[str, Callable[..., list[Any]]] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"), _inlined),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "unstack": _unstack,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "iota": _iota,
    "dot_general": _dot_general,
    "reduce_sum": _reduction(jnp.add),
    "reduce_max": _reduction(jnp.maximum),
    "reduce_min": _reduction(jnp.minimum),
    "reduce_and": _reduction(jnp.logical_and),
    "reduce_or": _reduction(jnp.logical_or),
    "cond": _cond,
    "scan": _scan,
}
