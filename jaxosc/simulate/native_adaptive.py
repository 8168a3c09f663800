"""Adaptive Taylor runs in C, also projected to their energy, where `jaxosc.native` has a loop for the case.

A lane that has arrived makes room at once for the next one.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .. import _choices, native
from .._results import Result
from ..activations import Tanh
from ..solvers import Lanes
from .adaptive_methods import AbstractMethod, ProjectedMethod, Setting, TaylorMethod
from .native_loop import NativeLoop, loop_for


def native_adaptive_loop(lanes: Lanes, dtype: Any, method: AbstractMethod) -> NativeLoop | None:
    """The loop in C that can run this to its end; None where there is none or nobody asked for one."""
    return loop_for(native_adaptive_case(lanes, dtype, method))


def native_adaptive_case(lanes: Lanes, dtype: Any, method: AbstractMethod) -> native.Case | None:
    """The case of a run, None where the C source does not know the network or the method."""
    name = np.dtype(dtype).name
    simple = type(lanes.activation) is Tanh and lanes.form == "current" and lanes.drive is None
    fits = 2 <= lanes.size <= _choices.NATIVE_UP_TO and name in native.C_TYPES
    step: Literal["projected", "taylor"] = "projected" if isinstance(method, ProjectedMethod) else "taylor"
    series = method.method if isinstance(method, ProjectedMethod) else method
    # The plain energy, that of a skew W without bias.
    knows_energy = lanes.skew and lanes.bias is None and lanes.energy_weights is None
    if not isinstance(series, TaylorMethod) or not simple or not fits or (step == "projected" and not knows_energy):
        return None
    return native.Case(lanes.size, name, "tanh_of", step, lanes.matrix.shape[-1] > 1, series.order)


def travel_natively(
    in_c: NativeLoop, setting: Setting, x: jax.Array, escape_norm: jax.Array, max_steps: Any, wanted: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Every lane from `x` (n, lanes) to its end: final states, codes, and steps and turns as in `AdaptiveRun`, and the
    states (times, n, lanes) at the `wanted` times, none of them without.
    """
    lanes, nothing, count = setting.lanes, jnp.zeros((0,), x.dtype), x.shape[-1]
    given = [nothing if part is None else part for part in (lanes.gain, lanes.bias, lanes.leak)]
    scalars = jnp.stack([setting.direction, setting.duration, setting.rtol, setting.atol, escape_norm**2])
    codes = (Result.escaped, Result.non_finite, Result.solver_failed, Result.max_steps_reached)
    numbers = jnp.stack([jnp.asarray(max_steps, jnp.int32), *(jnp.int32(code) for code in codes)])
    times = nothing if wanted is None else wanted
    shapes = [jax.ShapeDtypeStruct((count,), kind) for kind in (jnp.int8, jnp.int32, jnp.int32)]
    saved = jax.ShapeDtypeStruct((times.size, *x.shape), x.dtype)
    call = jax.ffi.ffi_call(in_c.target, [jax.ShapeDtypeStruct(x.shape, x.dtype), *shapes, saved])
    x, result, num_steps, turns, states = call(x, lanes.matrix, *given, scalars, numbers, times)
    return x, result, num_steps, turns, states
