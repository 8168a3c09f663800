"""The time loop in C: many steps of many lanes in one call, where `jaxosc.native` has a loop for the case.

It holds the states, the measures that look at every step, and the energy where it is a sum of log cosh; other measures
that look at every tenth step get the states there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _choices, native
from .._results import Result
from ..activations import HardTanh, Identity, Softsign, Tanh
from ..solvers import Lanes
from ..solvers.affine import has_affine_part
from ..solvers.compositions import COMPOSITIONS
from ..solvers.coordinate_flows import has_groups
from .engine import Loop, Run
from .reducers import SAMPLE_EVERY, AbstractReducer, Crossings, EnergyDrift, FinalEnergyDrift, Norms
from .steppers import AbstractStepper, EulerStepper, SplittingStepper, stepper_of

ACTIVATIONS: dict[type, native.Activation] = {
    Tanh: "tanh_of",
    Identity: "identity_of",
    Softsign: "softsign_of",
    HardTanh: "hard_tanh_of",
}
"""By type; each has a function of that name in vectors.h."""


class NativeLoop(NamedTuple):
    """A compiled loop: its case, and the name by which `jax.ffi` calls it."""

    case: native.Case
    target: str


def native_loop(lanes: Lanes, dtype: Any, solver: Any, reducers: Sequence[AbstractReducer]) -> NativeLoop | None:
    """The loop in C that can run this; None where there is none or nobody asked for one."""
    return loop_for(native_case(lanes, dtype, stepper_of(solver), reducers))


def loop_for(case: native.Case | None) -> NativeLoop | None:
    """The compiled loop of a case; None without a case, where nobody asked for loops in C, and where there is none."""
    if case is None or not native.loops_are_native() or jax.default_backend() != "cpu":
        return None
    target = native.target_of(case)
    return None if target is None else NativeLoop(case, target)


def native_case(
    lanes: Lanes, dtype: Any, stepper: AbstractStepper, reducers: Sequence[AbstractReducer]
) -> native.Case | None:
    """The case of a run, None where the C source does not know the network, the solver or a measure."""
    activation, step = ACTIVATIONS.get(type(lanes.activation)), _step_of(lanes, stepper)
    kinds = [type(reducer) for reducer in reducers]
    every_step = [type(reducer) for reducer in reducers if not reducer.sampled]
    known = set(every_step) <= {Norms, Crossings} and len(set(kinds)) == len(kinds)
    fits = 2 <= lanes.size <= _choices.NATIVE_UP_TO and lanes.form == "current" and lanes.drive is None
    name = np.dtype(dtype).name
    if activation is None or step is None or not (known and fits) or name not in native.C_TYPES:
        return None
    own = lanes.matrix.shape[-1] > 1
    euler = step == "euler"
    tiles = euler and not own and name == "float32" and _choices.tiles_pay(lanes.size)
    hollow = euler and lanes.hollow and lanes.size <= _choices.HOLLOW_UP_TO
    return native.Case(lanes.size, name, activation, step, own, tiles=tiles, hollow=hollow)


def march_natively(in_c: NativeLoop, run: Run, loop: Loop, until: Any) -> Loop:
    """As `march` with a traced end."""
    # By type and not isinstance: what somebody has derived from one of these measures something else.
    inside: tuple[type[AbstractReducer], ...] = (FinalEnergyDrift, *_kinds(run))
    outside = tuple(reducer.sampled and type(reducer) not in inside for reducer in run.reducers)
    until = jnp.asarray(until, jnp.int32)
    if not any(outside):
        return _called(in_c, run, loop, until, 0)[0]
    bytes_per_look = loop.x.size * loop.x.dtype.itemsize
    looks = int(max(1, _choices.NATIVE_SAMPLE_BYTES // bytes_per_look))

    def stride(loop: Loop) -> Loop:
        first = loop.step // SAMPLE_EVERY + 1
        after, samples = _called(in_c, run, loop, jnp.minimum((first + looks - 1) * SAMPLE_EVERY, until), looks)

        def look(states: Any, one: tuple[Array, Array]) -> tuple[Any, None]:
            number, x = one
            at = eqx.tree_at(lambda loop: (loop.step, loop.x, loop.states), after, (number, x, states))
            due, seen = number <= after.step, run.sample(at).states
            seen = tuple(new if one else old for one, new, old in zip(outside, seen, states, strict=True))
            return jax.tree.map(lambda new, old: jnp.where(due, new, old), seen, states), None

        numbers = (first + jnp.arange(looks, dtype=jnp.int32)) * SAMPLE_EVERY
        states, _ = jax.lax.scan(look, after.states, (numbers, samples))
        return eqx.tree_at(lambda loop: loop.states, after, states)

    def unfinished(loop: Loop) -> Array:
        return (loop.step < until) & jnp.any(loop.result == Result.successful)

    loop = jax.lax.while_loop(unfinished, stride, loop)
    return eqx.tree_at(lambda loop: loop.step, loop, jnp.maximum(loop.step, until))


def _step_of(lanes: Lanes, stepper: AbstractStepper) -> Any:
    """Euler, or a plain splitting neuron by neuron without anything from outside; None for others."""
    if isinstance(stepper, EulerStepper):
        return "euler"
    plain = isinstance(stepper, SplittingStepper) and not stepper.solver.compensated and not stepper.solver.lattice
    if not plain or not lanes.hollow or has_affine_part(lanes) or has_groups(lanes):
        return None
    return "sweep" if _sizes(stepper).size == 1 else "splitting"


def _sizes(stepper: Any) -> np.ndarray:
    """Of the sweeps of a step, in parts of dt."""
    return np.array(COMPOSITIONS[stepper.solver.accuracy] if isinstance(stepper, SplittingStepper) else ())


def _called(
    in_c: NativeLoop, run: Run, loop: Loop, until: Array, looks: int
) -> tuple[Loop, Float[Array, "looks n lanes"]]:
    """Steps up to number `until`, and the states at each tenth step on the way."""
    lanes, dtype, count = run.lanes, loop.x.dtype, loop.x.shape[-1]
    nothing = jnp.zeros((0,), dtype)
    given = [nothing if part is None else part for part in (lanes.gain, lanes.bias, lanes.leak)]
    sizes = jnp.asarray([float(size) for size in _sizes(run.stepper)], dtype) * run.dt
    scalars = jnp.stack([run.dt, run.escape_norm**2])
    numbers = [loop.step, until, jnp.int32(Result.escaped), jnp.int32(run.stepper.nan_means)]
    kinds = _kinds(run)
    places = {type(reducer): place for place, reducer in enumerate(run.reducers) if type(reducer) in kinds}
    before = [loop.states[places[kind]] if kind in places else nothings for kind, nothings in _nothing(dtype).items()]
    measures, form = jax.tree.flatten(before)
    # Where all lanes run at once XLA takes this and what put the lanes last for nothing.
    matrix = jnp.moveaxis(lanes.matrix, -1, 0) if in_c.case.by_neuron else lanes.matrix
    results = [
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in (loop.x, loop.result, loop.num_steps, *measures)
    ]
    x, result, num_steps, *after, samples = jax.ffi.ffi_call(
        in_c.target, [*results, jax.ShapeDtypeStruct((looks, lanes.size, count), dtype)]
    )(loop.x, matrix, *given, sizes, scalars, jnp.stack(numbers), loop.result, loop.num_steps, *measures)
    states = list(loop.states)
    for kind, state in zip(_nothing(dtype), jax.tree.unflatten(form, after), strict=True):
        if kind in places:
            states[places[kind]] = state
    return Loop(jnp.maximum(loop.step, until), x, result, num_steps, loop.memory, tuple(states)), samples


def _kinds(run: Run) -> tuple[type[AbstractReducer], ...]:
    """The reducers that the loop in C knows, for this energy."""
    lanes = run.lanes
    plain = type(lanes.activation) is Tanh and lanes.energy_weights is None and lanes.energy_shift is None
    return (Norms, Crossings, EnergyDrift) if plain else (Norms, Crossings)


def _nothing(dtype: Any) -> dict[type[AbstractReducer], Any]:
    """The states of all reducers that the loop in C may know, in its order, as it gets them where there are none."""
    real, whole = jnp.zeros((0,), dtype), jnp.zeros((0,), jnp.int32)
    return {
        Norms: (real, whole),
        Crossings: (whole, (whole, real), real, (real, real)),
        EnergyDrift: (real, real, whole),
    }
