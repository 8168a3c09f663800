"""Adaptive steps, by Diffrax: each member with step sizes of its own, under `jax.vmap`."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._results import Result
from ..fields import AbstractField
from .members import batch_axes
from .reducers import relative_drift


class AdaptiveOptions(eqx.Module):
    """How accurate and how long: relative and absolute tolerance, first step (None: chosen), most steps a member."""

    rtol: Any
    atol: Any
    dt: Any
    max_steps: int = eqx.field(static=True)


@eqx.filter_jit
def run_adaptive(
    field: AbstractField,
    y0: Float[Array, "members n"],
    solver: diffrax.AbstractSolver,
    options: AdaptiveOptions,
    t0: Array,
    t1: Array,
    ts: Float[Array, " times"],
) -> tuple[Array, Array, Array, Array]:
    """Solve every member of a flat batch with a PID step-size controller.

    **Arguments:** `field` with one leading batch axis or none; `y0` (members, n); `ts` (times,) ascending, when to keep
    states.

    **Returns:** states (members, times, n), result codes, steps taken and energy drift at `t1` (members,).
    """
    axes = batch_axes(field) if field.batch_shape else None

    def one(field: AbstractField, y0: Array) -> tuple[Array, Array, Array, Array]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver,
            t0,
            t1,
            options.dt,
            y0,
            saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=ts), diffrax.SubSaveAt(t1=True)]),
            stepsize_controller=diffrax.PIDController(rtol=options.rtol, atol=options.atol),
            max_steps=options.max_steps,
            throw=False,
        )
        kept, last = solution.ys
        drift = relative_drift(field.energy(last[0]), field.energy(y0))
        return kept, _code(solution.result, last[0]), solution.stats["num_steps"].astype(jnp.int32), drift

    return jax.vmap(one, in_axes=(axes, 0))(field, y0)


def _code(result: diffrax.RESULTS, last: Float[Array, " n"]) -> Array:
    """Diffrax's word on one member in ours."""
    code = jnp.where(result == diffrax.RESULTS.successful, Result.successful, Result.solver_failed)
    code = jnp.where(result == diffrax.RESULTS.max_steps_reached, Result.max_steps_reached, code)
    lost = (code == Result.successful) & ~jnp.all(jnp.isfinite(last))
    return jnp.where(lost, Result.non_finite, code).astype(jnp.int8)
