"""The compiled block: a fixed number of lanes of one combination, from drawn numbers to measures.

One program per combination serves every dt, gain, leak, asymmetry, custom value, draw and start: all of these are
arguments. It is compiled ahead of time, so that compilations can be counted and memory asked for.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._elementary import sum_rows
from ..activations import AbstractActivation
from ..fields import CurrentRNN
from ..orbits.growth import Schedule, grow
from ..orbits.runs import frame_of
from ..simulate.on_device import load_kernels, run_lanes_on_device
from ..simulate.reducers import AbstractReducer, Crossings, EnergyDrift, Norms
from ..solvers import Lanes, lanes_of
from ..weights import AbstractWeight
from .axes import Axis
from .ensemble import sized_starts
from .networks import Place, build_network
from .plan import Combination, lanes_of_sweep
from .spec import Sweep

REDUCERS: dict[str, AbstractReducer] = {"energy": EnergyDrift(), "norms": Norms(), "period": Crossings()}
"""The reducer behind each measure of a spec that streams along with the run; chaos takes a run of its own."""

CHAOS_STEPS = 5
"""Steps between two looks at the growth of a deviation: a tenth of a period or less, at usual step sizes."""

CHAOS_SAMPLES = 4
"""Parts of the run of which growth is kept; a sweep keeps their sum."""


class BlockInputs(eqx.Module):
    """What differs from block to block. Leaves have a leading lane axis, except what a shared block has once.

    **Attributes:** `weight` is S; `symmetric` is M or None; `gain`, `leak`, `asymmetry`, `custom` are values on the
    axes and `energy` that of the starts (None where not declared); `start` (lanes, n) raw starts; `dt`, `num_steps`,
    `escape_norm` scalars.
    """

    weight: AbstractWeight
    symmetric: Any
    gain: Any
    leak: Any
    asymmetry: Any
    custom: tuple[Any, ...]
    energy: Any
    start: Any
    dt: Any
    num_steps: Any
    escape_norm: Any


class Kernel:
    """The program of one combination; `compile` gives it for one device."""

    def __init__(self, sweep: Sweep, combination: Combination) -> None:
        self.lanes = lanes_of_sweep(sweep, combination.neurons)
        build = _shared_lanes if self.lanes.shared else _own_lanes
        reducers = tuple(REDUCERS[measure] for measure in sweep.measures if measure in REDUCERS)
        activation, solver = combination.activation.value, combination.solver.value
        ic = sweep.ic

        def block(inputs: BlockInputs) -> dict[str, Array]:
            lanes = build(inputs, activation, sweep.axes)
            start = sized_starts(ic.law, ic.radius, inputs.start).T
            if ic.energy is not None:
                start = on_energy_level(lanes, start, ic.level(lanes.size, inputs.energy))
            run = run_lanes_on_device(
                lanes,
                start,
                solver,
                reducers,
                t0=0.0,
                dt=inputs.dt,
                num_steps=inputs.num_steps,
                escape_norm=inputs.escape_norm,
            )
            velocity = lanes.velocity(0.0, run.y)
            speed, first, last = (jnp.sqrt(sum_rows(rows * rows)) for rows in (velocity, start, run.y))
            chaos = chaos_of(lanes, start, solver, inputs) if "chaos" in sweep.measures else {}
            facts = chaos | {"start_norm": first, "end_norm": last, "end_speed": speed}
            return run.reduced | facts | {"result": run.result, "num_steps": run.num_steps}

        self._block = block

    def compile(self, inputs: BlockInputs, device: jax.Device) -> Callable[[BlockInputs], dict[str, Array]]:
        """The program for `device`; `inputs` give the shapes, which every block shares."""
        load_kernels()
        placed = jax.tree.map(lambda leaf: jax.device_put(leaf, device), inputs)
        return jax.jit(self._block).lower(placed).compile()


def chaos_of(lanes: Lanes, start: Float[Array, "n lanes"], solver: Any, inputs: BlockInputs) -> dict[str, Array]:
    """The largest exponent and the mean MEGNO of every lane, from one deviation along the same steps.

    The run is cut to a whole number of intervals, so that it may be a few steps shorter.
    """
    intervals = jnp.maximum(inputs.num_steps // (CHAOS_STEPS * CHAOS_SAMPLES), 1)
    schedule = Schedule(0.0, inputs.dt, CHAOS_STEPS, intervals, 0).cast(start.dtype)
    frame = frame_of(None, lanes.size, 1, start.dtype)
    growth = grow(lanes, start, frame, solver, schedule, inputs.escape_norm, samples=CHAOS_SAMPLES, allow_native=True)
    time = CHAOS_SAMPLES * schedule.duration()
    return {"lyapunov": jnp.sum(growth.logs[:, 0], axis=0) / time, "megno": growth.mean_megno[-1]}


def program_bytes(program: Any) -> int:
    """Bytes that one call of a compiled program holds, as XLA states them; 0 where the platform does not say."""
    stated = program.memory_analysis()
    if stated is None:
        return 0
    return stated.temp_size_in_bytes + stated.argument_size_in_bytes + stated.output_size_in_bytes


def _own_lanes(inputs: BlockInputs, activation: AbstractActivation, axes: tuple[Axis, ...]) -> Lanes:
    """Every lane with a matrix of its own, built member by member under `vmap`."""

    def one(weight: AbstractWeight, symmetric: Any, place: tuple[Any, ...]) -> Any:
        field = build_network(weight, symmetric, activation, axes, Place(*place))
        return field.weight, field.bias, field.leak, weight.energy_weights()

    place = (inputs.gain, inputs.leak, inputs.asymmetry, inputs.custom)
    weight, bias, leak, scales = jax.vmap(one)(inputs.weight, inputs.symmetric, place)
    lanes = lanes_of(CurrentRNN(weight, activation, bias, leak))
    return _with_facts(lanes, inputs, axes, None if scales is None else scales.T)


def _shared_lanes(inputs: BlockInputs, activation: AbstractActivation, axes: tuple[Axis, ...]) -> Lanes:
    """One matrix for all lanes; gain and leak are lane factors, unless an axis of the user's must see them in place."""
    factors = not axes
    place = Place(
        None if factors else inputs.gain,
        None if factors else inputs.leak,
        inputs.asymmetry,
        inputs.custom,
    )
    field = build_network(inputs.weight, inputs.symmetric, activation, axes, place)
    scales = inputs.weight.energy_weights()
    lanes = _with_facts(lanes_of(field), inputs, axes, None if scales is None else scales[:, None])
    if not factors:
        return lanes
    parts = (inputs.gain, inputs.leak)
    return eqx.tree_at(lambda lanes: (lanes.gain, lanes.leak), lanes, parts, is_leaf=lambda leaf: leaf is None)


def _with_facts(lanes: Lanes, inputs: BlockInputs, axes: tuple[Axis, ...], scales: Array | None) -> Lanes:
    """The lanes without a leak that nobody asked for, and with the energy weights d of S where M hid them."""
    if inputs.leak is None and not axes:
        lanes = eqx.tree_at(lambda lanes: lanes.leak, lanes, None, is_leaf=lambda leaf: leaf is None)
    if lanes.energy_weights is None and scales is not None:
        lanes = eqx.tree_at(lambda lanes: lanes.energy_weights, lanes, scales, is_leaf=lambda leaf: leaf is None)
    return lanes


def on_energy_level(lanes: Lanes, unit: Float[Array, "n lanes"], level: Any) -> Float[Array, "n lanes"]:
    """s * unit with H(s * unit) = level, one or one for each lane: s doubled until H exceeds the level, then bisected.

    64 halvings leave less than a rounding of either dtype. H grows along a ray where y sigma(y) >= 0.
    """
    zero = jnp.zeros(unit.shape[-1:], unit.dtype)

    def double(_: Any, high: Array) -> Array:
        return jnp.where(lanes.energy(high[None, :] * unit) < level, 2 * high, high)

    def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = lanes.energy(middle[None, :] * unit) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    high = jax.lax.fori_loop(0, 64, double, zero + 1)
    _, high = jax.lax.fori_loop(0, 64, halve, (zero, high))
    return high[None, :] * unit
