"""The loop behind exponents and chaos indicators: states and deviations together, looked at in regular intervals.

A run is cut into `samples` of equal length, each into `intervals` of `steps` steps. After every interval the deviations
are made orthonormal again (or only set to length 1), the logarithms of what they had grown by are added up, and members
that have left are marked. Nothing is stored but one row per sample, so that memory does not grow with the time.

Steps, intervals and dt are arrays: one compiled program serves all durations. Where `jo.configure_cpu` asked for loops
in C and there is one for the case (`native/lyapunov_steps.c`), it takes the place of the loop written here.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _choices, native
from .._checks import is_concrete
from .._elementary import sum_rows
from .._results import Result
from ..simulate.chunks import in_chunks
from ..simulate.native_loop import ACTIVATIONS, loop_for
from ..simulate.steppers import stepper_of
from ..solvers import Lanes
from ..solvers.compositions import COMPOSITIONS
from .tangents import AbstractTangentStep, has_own_tangents, normalised, orthonormalised, tangent_step_of

MOST_NATIVE_NUMBERS = 2048
"""State and deviations of a lane for the loop in C: more do not fit the second cache, eight lanes at a time."""


class Schedule(eqx.Module):
    """How a run is cut up, every number an array: see the module. `ahead`: intervals before the first sample."""

    t0: Any
    dt: Any
    steps: Any
    intervals: Any
    ahead: Any

    def duration(self) -> Any:
        """Of a sample, in units of time."""
        return self.dt * (self.steps * self.intervals)

    def begin(self) -> Any:
        """When the first sample begins."""
        return self.t0 + self.dt * (self.steps * self.ahead)

    def cast(self, dtype: Any) -> "Schedule":
        """The same as arrays of these types: NumPy's where values are known."""
        counts = (self.steps, self.intervals, self.ahead)
        array = np.asarray if is_concrete((self.t0, self.dt, counts)) else jnp.asarray
        return Schedule(array(self.t0, dtype), array(self.dt, dtype), *(array(count, np.int32) for count in counts))


class Growth(eqx.Module):
    """What a run leaves behind, the lane axis last.

    **Attributes:**

    - `result`: (lanes,) int8 codes of `Result`.
    - `logs`: (samples, k, lanes). Of orthogonal deviations how much the logarithms of their lengths grew in each
      sample; of others the logarithms of the factors of the volume that they span at the end of it.
    - `megno`, `mean_megno`: (samples, lanes) of the first deviation, at the end of each sample.

    A member is NaN from the interval on in which it left.
    """

    result: Int[Array, " lanes"]
    logs: Float[Array, "samples k lanes"]
    megno: Float[Array, "samples lanes"]
    mean_megno: Float[Array, "samples lanes"]


class _Loop(eqx.Module):
    """What travels through the loop. `weighted`, `means`: the sums of MEGNO, in units of an interval."""

    step: Int[Array, ""]
    number: Int[Array, ""]
    x: Float[Array, "n lanes"]
    v: Float[Array, "n k lanes"]
    result: Int[Array, " lanes"]
    logs: Float[Array, "k lanes"]
    weighted: Float[Array, " lanes"]
    megno: Float[Array, " lanes"]
    means: Float[Array, " lanes"]


def schedule_of(t0: Any, t1: Any, dt: Any, transient: Any, samples: int, renormalise_every: Any) -> Schedule:
    """Steps no longer than dt, intervals of at most `renormalise_every` of them, and `samples` equal samples.

    The time after the transient is kept exactly; the transient becomes a whole number of intervals.
    """
    concrete = is_concrete((t0, t1, dt, transient, renormalise_every))
    if concrete:
        t0, t1, dt, transient = (float(value) for value in (t0, t1, dt, transient))

    def whole(ratio: Any, least: int) -> Any:
        """The next whole number; float32 times carry an error of 1e-7 of themselves, which is none."""
        if concrete:
            return max(math.ceil(ratio * (1 - 1e-6)), least)
        return jnp.maximum(jnp.ceil(ratio * (1 - 1e-6)), least).astype(jnp.int32)

    span = t1 - t0 - transient
    in_sample = whole(span / dt / samples, 1)
    intervals = whole(in_sample / renormalise_every, 1)
    steps = whole(in_sample / intervals, 1)
    size = span / (samples * intervals * steps)
    return Schedule(t0, size, steps, intervals, whole(transient / (size * steps), 0))


def grow(
    networks: Any,
    y0: Float[Array, "n lanes"],
    frame: Float[Array, "n k"],
    solver: Any,
    schedule: Schedule,
    escape_norm: Any,
    *,
    args: Any = None,
    samples: int,
    orthogonal: bool = True,
    allow_native: bool = False,
) -> Growth:
    """Run all lanes, chunk by chunk. Call it inside a `jax.jit` of your own.

    **Arguments:** `networks`, `Lanes` or a vector field f(t, y, args); `frame`, the deviations that every lane starts
    with; `orthogonal`, whether they are kept so; `allow_native`, in C where that can be, which has no derivative.
    """
    case = native_case(networks, y0.dtype, solver, frame.shape[1], orthogonal) if allow_native else None
    in_c = loop_for(case)

    def run(networks: Any, y0: Array) -> Growth:
        v0 = jnp.broadcast_to(frame[:, :, None], (*frame.shape, y0.shape[-1]))
        if in_c is not None:
            march: Any = functools.partial(_march_natively, in_c, networks, solver)
        else:
            march = functools.partial(_march, tangent_step_of(networks, solver, args), orthogonal=orthogonal)
        return _run(march, y0, v0, schedule, jnp.asarray(escape_norm, y0.dtype), samples)

    if not isinstance(networks, Lanes):
        return run(networks, y0)
    if in_c is not None:
        return in_chunks(run, networks, y0, _choices.NATIVE_LANES["growth"])
    return in_chunks(run, networks, y0, _width(networks, y0, frame.shape[1]))


def _width(lanes: Lanes, y0: Array, count: int) -> int:
    """Lanes of a chunk: deviations and weights in the second cache; measured at n = 8 (64 to 256 are alike)."""
    numbers = lanes.size * (count + 1) + (lanes.size**2 if lanes.matrix.shape[-1] > 1 else 0)
    fitting = 8 * _choices.CHUNK_BYTES / (numbers * y0.dtype.itemsize)
    return int(2 ** np.clip(np.floor(np.log2(fitting)), 4, 8))


def _run(march: Any, y0: Array, v0: Array, schedule: Schedule, escape_norm: Array, samples: int) -> Growth:
    zeros, codes = jnp.zeros_like(y0[0]), jnp.zeros(y0.shape[-1:], jnp.int8)
    zero = jnp.zeros((), jnp.int32)
    loop = _Loop(zero, zero, y0, v0, codes, jnp.zeros_like(v0[0]), zeros, zeros, zeros)
    loop, _ = march(loop, schedule, schedule.ahead, escape_norm, samples=1)
    loop = _Loop(loop.step, zero, loop.x, loop.v, loop.result, jnp.zeros_like(loop.logs), zeros, zeros, zeros)
    loop, (logs, megno, means) = march(loop, schedule, schedule.intervals, escape_norm, samples=samples)
    return Growth(loop.result, logs, megno, means)


def _march(
    step: AbstractTangentStep,
    loop: _Loop,
    schedule: Schedule,
    intervals: Any,
    escape_norm: Array,
    *,
    samples: int,
    orthogonal: bool,
) -> tuple[_Loop, tuple[Array, Array, Array]]:
    """`samples` times `intervals` intervals, and the rows of a `Growth`."""

    def steps(_: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, x, v = carry
        t = schedule.t0 + number.astype(x.dtype) * schedule.dt
        return number + 1, *step(t, jnp.asarray(schedule.dt, x.dtype), x, v)

    def interval(_: Any, loop: _Loop) -> _Loop:
        number, x, v = jax.lax.fori_loop(0, schedule.steps, steps, (loop.step, loop.x, loop.v))
        result = with_those_outside(loop.result, x, escape_norm)
        v, lengths = orthonormalised(v) if orthogonal else normalised(v)
        logs = jnp.where((result == Result.successful)[None, :], jnp.log(lengths), jnp.nan)
        turn = (loop.number + 1).astype(x.dtype)
        weighted = loop.weighted + (turn - 0.5) * logs[0]
        megno = 2 * weighted / turn
        means = loop.means + (loop.megno + megno) / 2
        return _Loop(number, loop.number + 1, x, v, result, loop.logs + logs, weighted, megno, means)

    def sample(loop: _Loop, _: None) -> tuple[_Loop, tuple[Array, Array, Array]]:
        loop = eqx.tree_at(lambda loop: loop.logs, loop, jnp.zeros_like(loop.logs))
        loop = jax.lax.fori_loop(0, intervals, interval, loop)
        logs = loop.logs if orthogonal else _volume(loop)
        return loop, (logs, loop.megno, loop.means / jnp.maximum(loop.number, 1).astype(logs.dtype))

    return jax.lax.scan(sample, loop, length=samples)


def with_those_outside(
    result: Int[Array, " lanes"], x: Float[Array, "n lanes"], escape_norm: Array
) -> Int[Array, " lanes"]:
    """The codes with those of lanes that were well so far and have left, or are no numbers any more."""
    squared = sum_rows(x * x)
    why = jnp.where(jnp.isfinite(squared), Result.escaped, Result.non_finite).astype(jnp.int8)
    # Written so that NaN counts as outside.
    leaving = (result == Result.successful) & ~(squared <= escape_norm**2)
    return jnp.where(leaving, why, result)


def _volume(loop: _Loop) -> Float[Array, "k lanes"]:
    """The logarithms of the factors of the volume that the deviations span."""
    _, lengths = orthonormalised(loop.v)
    return jnp.where((loop.result == Result.successful)[None, :], jnp.log(lengths), jnp.nan)


def native_case(lanes: Any, dtype: Any, solver: Any, count: int, orthogonal: bool) -> native.Case | None:
    """The case of a run with `count` deviations, None where the C source does not know it."""
    if not isinstance(lanes, Lanes):
        return None
    activation, stepper, name = ACTIVATIONS.get(type(lanes.activation)), stepper_of(solver), np.dtype(dtype).name
    fits = lanes.size >= 2 and lanes.size * (count + 1) <= MOST_NATIVE_NUMBERS
    if activation is None or name not in native.C_TYPES or not fits or not has_own_tangents(lanes, stepper):
        return None
    own = lanes.matrix.shape[-1] > 1
    return native.Case(lanes.size, name, activation, "growth", own, tangents=count, orthogonal=orthogonal)


def _march_natively(
    in_c: Any,
    lanes: Lanes,
    solver: Any,
    loop: _Loop,
    schedule: Schedule,
    intervals: Any,
    escape_norm: Any,
    *,
    samples: int,
) -> tuple[_Loop, tuple[Array, Array, Array]]:
    """As `_march`, in C; its loop begins to count with every call, as this one is used."""
    x, v, dtype = loop.x, loop.v, loop.x.dtype
    nothing = jnp.zeros((0,), dtype)
    sizes = jnp.asarray(COMPOSITIONS[solver.accuracy], dtype) * schedule.dt
    numbers = [schedule.steps, intervals, int(Result.escaped), int(Result.non_finite)]
    row = jax.ShapeDtypeStruct((samples, x.shape[-1]), dtype)
    kept = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (x, v, loop.result)]
    growth = jax.ShapeDtypeStruct((samples, *v.shape[1:]), dtype)
    x, v, result, logs, megno, means = jax.ffi.ffi_call(in_c.target, [*kept, growth, row, row])(
        x,
        lanes.matrix,
        nothing if lanes.gain is None else lanes.gain,
        nothing,
        nothing,
        v,
        sizes,
        (escape_norm**2)[None],
        jnp.stack([jnp.asarray(number, jnp.int32) for number in numbers]),
        loop.result,
    )
    after = eqx.tree_at(lambda loop: (loop.x, loop.v, loop.result), loop, (x, v, result))
    return after, (logs, megno, means)
