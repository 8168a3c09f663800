"""Adaptive Taylor runs in C, where `jaxosc.native` has a loop for the case: who has arrived makes room at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _choices, native
from .._results import Result
from ..activations import Tanh
from ..solvers import Lanes
from .adaptive_methods import AbstractMethod, Setting, TaylorMethod
from .native_loop import NativeLoop, loop_for


def native_adaptive_loop(lanes: Lanes, dtype: Any, method: AbstractMethod) -> NativeLoop | None:
    """The loop in C that can run this to its end; None where there is none or nobody asked for one."""
    return loop_for(native_adaptive_case(lanes, dtype, method))


def native_adaptive_case(lanes: Lanes, dtype: Any, method: AbstractMethod) -> native.Case | None:
    """The case of a run, None where the C source does not know the network or the method."""
    name = np.dtype(dtype).name
    simple = type(lanes.activation) is Tanh and lanes.form == "current" and lanes.drive is None
    fits = 2 <= lanes.size <= _choices.NATIVE_UP_TO and name in native.C_TYPES
    if not isinstance(method, TaylorMethod) or not simple or not fits:
        return None
    return native.Case(lanes.size, name, "tanh_of", "taylor", lanes.matrix.shape[-1] > 1, method.order)


def travel_natively(
    in_c: NativeLoop, setting: Setting, x: jax.Array, escape_norm: jax.Array, max_steps: Any
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Every lane from `x` (n, lanes) to its end: final states, codes, and steps and turns as in `AdaptiveRun`."""
    lanes, nothing, count = setting.lanes, jnp.zeros((0,), x.dtype), x.shape[-1]
    given = [nothing if part is None else part for part in (lanes.gain, lanes.bias, lanes.leak)]
    scalars = jnp.stack([setting.direction, setting.duration, setting.rtol, setting.atol, escape_norm**2])
    codes = (Result.escaped, Result.non_finite, Result.solver_failed, Result.max_steps_reached)
    numbers = jnp.stack([jnp.asarray(max_steps, jnp.int32), *(jnp.int32(code) for code in codes)])
    shapes = [jax.ShapeDtypeStruct((count,), kind) for kind in (jnp.int8, jnp.int32, jnp.int32)]
    call = jax.ffi.ffi_call(in_c.target, [jax.ShapeDtypeStruct(x.shape, x.dtype), *shapes])
    x, result, num_steps, turns = call(x, lanes.matrix, *given, scalars, numbers)
    return x, result, num_steps, turns
