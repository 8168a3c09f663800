"""Computing chunks: drawn numbers gathered into blocks, programs run, measures put where they belong.

`Work` is the seam for executors: `compute(chunk)` is a pure function of the plan and may run in any thread or process.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from .._errors import JaxoscError
from ..weights import AbstractWeight, DenseSkew
from .ensemble import Ensemble, precision
from .kernel import BlockInputs, Kernel, program_bytes
from .memory import readable
from .plan import Chunk, Combination, Plan, lanes_of_sweep
from .schema import variables
from .verdict import classify

Arrays = dict[str, np.ndarray]


class Interrupted(Exception):
    """Raised within a worker that was asked to stop between two blocks."""


class Work:
    """The programs and draws of one plan, shared by all workers.

    **Attributes:** `compilations`, programs compiled so far, one per combination and device that was used.
    """

    def __init__(self, plan: Plan, devices: tuple[jax.Device, ...]) -> None:
        self.plan = plan
        self.devices = devices
        self.stop = threading.Event()
        self.compilations = 0
        self._programs: dict[tuple[tuple[int, ...], int], Future[Any]] = {}
        self._lock = threading.Lock()

    def compute(self, chunk: Chunk, device_index: int, done: Callable[[Chunk, int], None]) -> Arrays:
        """All variables of a chunk, each of the shape of its lanes; `done(chunk, members)` is called after each block.

        **Raises:** `Interrupted` when `stop` was set meanwhile.
        """
        sweep, combination = self.plan.sweep, chunk.combination
        device = self.devices[device_index]
        ensemble = Ensemble(sweep, combination.law.value, combination.neurons)
        found = {v.name: np.empty(chunk.members, v.dtype(sweep)) for v in variables(sweep)}
        with precision(sweep.dtype):
            for block in blocks(self.plan, chunk):
                if self.stop.is_set():
                    raise Interrupted
                inputs = _inputs(self.plan, chunk, block, ensemble)
                program = self._program(combination, inputs, device_index)
                measured = jax.device_get(program(jax.device_put(inputs, device)))
                disturbed = _nonzero(inputs.leak) | _nonzero(inputs.asymmetry)
                measured["orbit"] = classify(sweep, combination, measured, np.asarray(disturbed))
                for name, values in found.items():
                    values[block.target] = measured[name][block.used]
                done(chunk, len(block.target))
        return {name: values.reshape(chunk.shape) for name, values in found.items()}

    def prepare(self, chunk: Chunk, device_index: int) -> None:
        """Compile the program that `chunk` needs, ahead of its turn."""
        sweep, combination = self.plan.sweep, chunk.combination
        ensemble = Ensemble(sweep, combination.law.value, combination.neurons)
        with precision(sweep.dtype):
            inputs = _inputs(self.plan, chunk, next(blocks(self.plan, chunk)), ensemble)
            self._program(combination, inputs, device_index)

    def _program(self, combination: Combination, inputs: BlockInputs, device_index: int) -> Any:
        """The compiled program; the first to ask compiles it, others wait."""
        key = combination.index, device_index
        with self._lock:
            first = key not in self._programs
            pending: Future[Any] = self._programs.setdefault(key, Future())
        if first:
            try:
                program = Kernel(self.plan.sweep, combination).compile(inputs, self.devices[device_index])
                self._check_memory(program)
            except BaseException as error:
                pending.set_exception(error)
                raise
            with self._lock:
                self.compilations += 1
            pending.set_result(program)
        return pending.result()

    def _check_memory(self, program: Any) -> None:
        """XLA's own figure may exceed the plan's estimate; better to stop now than to be killed."""
        needed = program_bytes(program)
        if needed > self.plan.memory:
            raise JaxoscError(
                f"Got a program that needs {readable(needed)} per block, expected at most {readable(self.plan.memory)}:"
                " take fewer neurons or float32, or raise the memory bound."
            )


class Block:
    """One call of a program.

    **Attributes:** `index`, by lane axis: indices (lanes,) of the axes inside the block, an int for those outside;
    `used`, the lanes whose results are wanted; `target`, the members of the chunk they are, in C order.
    """

    def __init__(self, index: Mapping[str, Any], used: np.ndarray, target: np.ndarray) -> None:
        self.index, self.used, self.target = dict(index), used, target


def blocks(plan: Plan, chunk: Chunk) -> Iterator[Block]:
    """The blocks of a chunk. A member's lane is its number on the inner axes' whole grid, modulo the block's width."""
    lanes = lanes_of_sweep(plan.sweep, chunk.combination.neurons)
    names = [dim.name for dim in plan.lane_dimensions]
    sizes = dict(zip(names, plan.lane_shape, strict=True))
    ranges = {name: range(*bounds) for name, bounds in zip(names, chunk.lanes, strict=True)}
    inner_shape = tuple(sizes[name] for name in lanes.inner)
    inside = np.stack(np.meshgrid(*(list(ranges[name]) for name in lanes.inner), indexing="ij")).reshape(
        len(lanes.inner), -1
    )
    numbers = np.ravel_multi_index(tuple(inside), inner_shape)
    for outer in itertools.product(*(ranges[name] for name in lanes.outer)):
        fixed = dict(zip(lanes.outer, outer, strict=True))
        for window in np.unique(numbers // lanes.width):
            here = numbers // lanes.width == window
            used = numbers[here] % lanes.width
            # Lanes that belong to nobody here repeat the window's first member.
            filled = np.broadcast_to(inside[:, here][:, :1], (len(lanes.inner), lanes.width)).copy()
            filled[:, used] = inside[:, here]
            index = dict(zip(lanes.inner, filled, strict=True)) | fixed
            members = dict(zip(lanes.inner, inside[:, here], strict=True)) | fixed
            place = [members[name] - ranges[name].start for name in names]
            target = np.ravel_multi_index(tuple(np.broadcast_arrays(*place)), chunk.shape)
            yield Block(index, used, target)


def _inputs(plan: Plan, chunk: Chunk, block: Block, ensemble: Ensemble) -> BlockInputs:
    """The arguments of the program for one block."""
    sweep = plan.sweep
    values = {dim.name: dim.values for dim in plan.lane_dimensions}
    on_axis = {
        name: np.asarray(values[name][index], sweep.dtype)
        for name, index in block.index.items()
        if name not in ("draw", "ic")
    }
    draw, ic = block.index["draw"], block.index["ic"]
    weight, symmetric = _matrices(plan, ensemble, draw)
    return BlockInputs(
        weight=weight,
        symmetric=symmetric,
        gain=on_axis["gain"],
        leak=on_axis.get("leak"),
        asymmetry=on_axis.get("asymmetry"),
        custom=tuple(on_axis[axis.name] for axis in sweep.axes),
        energy=on_axis.get("energy"),
        start=ensemble.starts(*np.broadcast_arrays(draw, ic)),
        dt=np.asarray(sweep.dt[chunk.dt_index], sweep.dtype),
        num_steps=np.int32(plan.num_steps(chunk.dt_index)),
        escape_norm=np.asarray(sweep.escape_norm, sweep.dtype),
    )


def _matrices(plan: Plan, ensemble: Ensemble, draw: Any) -> tuple[AbstractWeight, np.ndarray | None]:
    """S and M of the lanes: leading lane axis where `draw` is an array, single ones where it is an int."""
    sweep = plan.sweep
    one = np.ndim(draw) == 0
    draws = np.atleast_1d(draw)
    distinct, rows = np.unique(draws, return_inverse=True)
    pick = (lambda leaf: leaf[0]) if one else (lambda leaf: leaf[rows])
    if sweep.matrix is None:
        weight = jax.tree.map(pick, ensemble.weights(distinct))
    else:
        weight = DenseSkew.from_matrix(sweep.matrix.astype(sweep.dtype))
    symmetric = None if sweep.asymmetry is None else pick(ensemble.symmetric_parts(distinct))
    return weight, symmetric


def _nonzero(values: Any) -> Any:
    """Where a lane value is not zero; False for an axis that is not declared."""
    return np.asarray(False) if values is None else np.asarray(values) != 0
