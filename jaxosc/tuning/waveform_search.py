"""The search for the network: least squares by Levenberg and Marquardt, or Adam on gradients of a reversible run.

A run over many turns agrees with the samples only where frequencies are right to a fraction of 1/duration; from
further away the loss has a valley at every wrong turn. So the horizon grows: what fits the first eighth is near enough
for the first quarter.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
from jaxtyping import Array

from .progress import Watch
from .waveform_loss import Samples, Unknowns, loss, masked, residuals

HORIZONS = (0.125, 0.25, 0.5, 1.0)

ENOUGH, ENOUGH_FOR_NOW = 1e-7, 0.02
"""Relative gain of a step below which the last stage has arrived, and one before it: a short horizon does not tell
frequencies, and what it says of them in the end is noise."""

PATIENCE = 60
"""Steps of Adam without a new best before a stage ends."""

SLOW, SLOW_STEPS = 0.005, 10
"""A stage ends as well where so many steps together gain no more than this share: what noise leaves falls for ever.
Networks that fit without noise crossed plateaus of 3 % in 15 steps on their way."""

REFUSALS = 12
"""Steps of Levenberg and Marquardt in a row that improve nothing: the damping is then 10^4 and more."""


class Found(eqx.Module):
    """The best vector z, its relative error over all samples, the errors of all steps, and a word on the end."""

    z: Array
    error: float
    history: np.ndarray
    stopped: str


class Stop(NamedTuple):
    """When a stage ends, and the rate of Adam in it."""

    steps: int
    enough: float
    rate: float


def _least_squares(z: Array, args: tuple[Samples, Unknowns]) -> tuple[Array, None]:
    return residuals(z, *args), None


# After a step that does half of what was promised damping falls; by default nothing below 0.99 will do, and it stays
# where it was for hundreds of steps.
_METHOD = eqx.tree_at(
    lambda method: method.search,
    optimistix.LevenbergMarquardt(rtol=1e-10, atol=1e-14),
    optimistix.ClassicalTrustRegion(high_cutoff=0.5, low_cutoff=0.1, high_constant=10.0, low_constant=0.25),
)


@eqx.filter_jit
def _begun(z: Array, args: tuple[Samples, Unknowns]) -> Any:
    shape = jax.eval_shape(lambda: _least_squares(z, args)[0])
    return _METHOD.init(_least_squares, z, args, {}, shape, None, frozenset())


@eqx.filter_jit
def _stepped(z: Array, args: tuple[Samples, Unknowns], state: Any) -> tuple[Array, Any, Array]:
    z, state, _ = _METHOD.step(_least_squares, z, args, {}, state, frozenset())
    return z, state, jnp.sqrt(jnp.sum(state.f_info.residual**2))


_loss_of = eqx.filter_jit(loss)


def search(
    samples: Samples,
    unknowns: Unknowns,
    method: str,
    horizons: tuple[float, ...],
    steps: int,
    rate: float,
    watch: Watch,
) -> Found:
    """The best network that at most so many steps find, over horizons that are shares of the samples."""
    z, stopped = unknowns.start, "at the last step"
    history: list[float] = []
    count = samples.values.shape[0]
    first = math.sqrt(float(_loss_of(z, samples, unknowns)))
    stage = _stage_of_adam if method == "adam" else _stage_of_least_squares
    for number, share in enumerate(horizons):
        is_last = number == len(horizons) - 1
        allowed = steps - len(history) if is_last else steps // (2 * len(horizons))
        part = masked(samples, math.ceil(share * count))
        stop = Stop(max(allowed, 1), ENOUGH if is_last else ENOUGH_FOR_NOW, rate)
        z, errors, stopped = stage(z, part, unknowns, stop, watch, len(history))
        history += errors
    last = math.sqrt(float(_loss_of(z, samples, unknowns)))
    if not last <= first:  # nor where it is NaN
        z, last, stopped = unknowns.start, first, "nothing better than the start was found"
    return Found(z, last, np.array(history), stopped)


def _stage_of_least_squares(
    z: Array, samples: Samples, unknowns: Unknowns, stop: Stop, watch: Watch, done: int
) -> tuple[Array, list[float], str]:
    args = samples, unknowns
    state = _begun(z, args)
    errors: list[float] = []
    refused = 0
    for _ in range(stop.steps):
        z, state, error = _stepped(z, args, state)
        errors.append(float(error))
        watch(done + len(errors), error=errors[-1])
        if len(errors) == 1:
            continue  # the first only looks at the start
        gained = errors[-2] - errors[-1]
        refused = refused + 1 if gained == 0 else 0
        if 0 < gained <= stop.enough * errors[-1] or refused == REFUSALS or errors[-1] < 1e-14:
            return z, errors, "converged"
        if len(errors) > SLOW_STEPS and errors[-1] > (1 - SLOW) * errors[-1 - SLOW_STEPS]:
            return z, errors, f"{SLOW_STEPS} steps gained less than {100 * SLOW:g} %"
    return z, errors, "at the last step"


@eqx.filter_jit
def _adam_step(z: Array, state: Any, samples: Samples, unknowns: Unknowns, rate: Array) -> tuple[Array, Any, Array]:
    value, slope = jax.value_and_grad(loss)(z, samples, unknowns)
    change, state = optax.adam(1.0).update(slope, state)
    return z + rate * change, state, jnp.sqrt(value)


def _stage_of_adam(
    z: Array, samples: Samples, unknowns: Unknowns, stop: Stop, watch: Watch, done: int
) -> tuple[Array, list[float], str]:
    state: Any = optax.adam(1.0).init(z)
    errors: list[float] = []
    best, best_z, since = math.inf, z, 0
    for number in range(stop.steps):
        # A rate that falls to a tenth: Adam's own does not, and would keep circling the minimum.
        falling = jnp.asarray(stop.rate * 0.1 ** (number / stop.steps), z.dtype)
        before = z
        z, state, value = _adam_step(z, state, samples, unknowns, falling)
        errors.append(float(value))
        watch(done + number + 1, error=errors[-1])
        since = 0 if errors[-1] < 0.999 * best else since + 1
        if errors[-1] < best:
            best, best_z = errors[-1], before
        if since >= PATIENCE or not math.isfinite(errors[-1]):
            return best_z, errors, f"no better for {PATIENCE} steps"
    return best_z, errors, "at the last step"
