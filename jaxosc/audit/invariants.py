"""What an audit measures, and what the network by itself does to it.

Energy and Casimirs are numbers of a state. Phase-space volume is a number of a run: the sum over all steps of
log |det D Phi|, Phi one step of the solver, minus what the exact flow does, the integral of its divergence

    div f = sum_i W_ii sigma'(y_i) - n leak.

Oddness and time reversal are facts about a step, taken at many states of the run.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..fields import AbstractField, RateRNN, energy_shift
from ..simulate import Lanes
from ..simulate.steppers import AbstractStepper, stepper_of
from .windows import AbstractMeasure

_DIVERGENCE_SUBSTEPS = 16  # of the classical Runge-Kutta method: (dt/16)^4 puts its error below 1e-9 per unit time


class EnergyAndCasimirs(AbstractMeasure):
    """H, then every c.y with c a row of `casimirs` (k, n), which may be empty."""

    casimirs: Float[Array, "k n"]

    def begin(self, lanes: Lanes, x: Float[Array, "n lanes"]) -> tuple[Float[Array, " q"], PyTree]:
        """The values at the start; no memory."""
        return self._values(lanes, x), None

    def proceed(
        self, lanes: Lanes, step: Int[Array, ""], before: Float[Array, "n lanes"], after: Array, memory: PyTree
    ) -> tuple[Float[Array, " q"], PyTree]:
        """The values after the step."""
        return self._values(lanes, after), None

    def _values(self, lanes: Lanes, x: Array) -> Float[Array, " q"]:
        linear = jnp.matmul(self.casimirs, lanes.preactivation(x)[:, 0], precision="highest")
        return jnp.append(lanes.energy(x), linear)


class LogVolume(AbstractMeasure):
    """Log of the phase-space volume that the steps have made of a small one, minus that of the exact flow."""

    stepper: AbstractStepper
    dt: Float[Array, ""]

    def begin(self, lanes: Lanes, x: Float[Array, "n lanes"]) -> tuple[Float[Array, " q"], PyTree]:
        """Zero."""
        zero = jnp.zeros((1,), x.dtype)
        return zero, zero

    def proceed(
        self, lanes: Lanes, step: Int[Array, ""], before: Float[Array, "n lanes"], after: Array, memory: PyTree
    ) -> tuple[Float[Array, " q"], PyTree]:
        """One more step."""
        t = step.astype(self.dt.dtype) * self.dt
        jacobian = jax.jacfwd(lambda x: one_step(self.stepper, lanes, t, self.dt, x[:, None])[:, 0])(before[:, 0])
        error = jnp.linalg.slogdet(jacobian)[1] - divergence_over_step(lanes, t, self.dt, before)
        total = memory + error
        return total, total


def one_step(
    stepper: AbstractStepper, lanes: Lanes, t: Any, dt: Array, x: Float[Array, "n lanes"]
) -> Float[Array, "n lanes"]:
    """One step as a map of the state alone: what the solver remembers from step to step starts anew."""
    return stepper.step(lanes, t, dt, x, stepper.init(lanes, t, dt, x))[0]


def divergence_over_step(lanes: Lanes, t: Any, dt: Array, x: Float[Array, "n lanes"]) -> Float[Array, " lanes"]:
    """The integral of div f along the exact flow over one step: -n leak dt, and more where W has a diagonal."""
    decay = jnp.zeros_like(dt) if lanes.leak is None else -lanes.size * lanes.leak * dt
    if lanes.hollow:
        return jnp.broadcast_to(decay, x.shape[-1:])
    diagonal = jnp.diagonal(lanes.matrix).T
    diagonal = diagonal if lanes.gain is None else lanes.gain[None, :] * diagonal

    def rates(t: Array, x: Array) -> tuple[Array, Array]:
        slope = lanes.activation.derivative(lanes.preactivation(x))
        return lanes.velocity(t, x), jnp.sum(diagonal * slope, axis=0)

    h = dt / _DIVERGENCE_SUBSTEPS

    def substep(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        x, total = state
        begin = t + k.astype(h.dtype) * h
        k1, d1 = rates(begin, x)
        k2, d2 = rates(begin + 0.5 * h, x + 0.5 * h * k1)
        k3, d3 = rates(begin + 0.5 * h, x + 0.5 * h * k2)
        k4, d4 = rates(begin + h, x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)

    _, total = jax.lax.fori_loop(0, _DIVERGENCE_SUBSTEPS, substep, (x, jnp.zeros_like(x[0])))
    return total + decay


@eqx.filter_jit
def step_defects(
    lanes: Lanes, solver: Any, dt: Float[Array, ""], states: Float[Array, "n m"]
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """|Phi(-y) + Phi(y)| of one step from each of the m states, and how far one of -dt misses to undo it."""
    stepper, count = stepper_of(solver), states.shape[1]
    both = jnp.concatenate([states, -states], axis=1)

    def step(x: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        x = one_step(stepper, lanes, *at, x)
        return x, x

    # A loop of two turns: forth and back are one program.
    forth_and_back = jnp.stack([jnp.zeros_like(dt), dt]), jnp.stack([dt, -dt])
    _, (after, undone) = jax.lax.scan(step, both, forth_and_back)
    odd = after[:, :count] + after[:, count:]
    return jnp.linalg.norm(odd, axis=0), jnp.linalg.norm(undone[:, :count] - states, axis=0)


def energy_scale(field: AbstractField, y0: Float[Array, " n"]) -> float:
    """The size of the terms of H at the start: H itself where all are positive, as for every odd increasing sigma."""
    x = field.preactivation(y0) if isinstance(field, RateRNN) else y0
    terms = field.activation.potential(x)
    weights = field.weight.energy_weights()
    size = float(jnp.sum(jnp.abs(terms if weights is None else weights * terms)))
    shift = energy_shift(field)
    return size if shift is None else size + float(jnp.sum(jnp.abs(shift * x)))


def own_change_of_energy(field: AbstractField) -> str | None:
    """Why the network itself changes the energy, in words; None when it conserves it."""
    matrix = np.asarray(field.weight.matrix(), np.float64)
    weights = field.weight.energy_weights()
    skew = matrix if weights is None else matrix / np.asarray(weights, np.float64)[None, :]
    symmetric = 0.5 * (skew + skew.T)
    tolerance = 100 * len(skew) * float(jnp.finfo(field.dtype).eps)
    reasons = _inflow_and_leak(field)
    if np.abs(symmetric).max() > tolerance * np.abs(skew).max():
        reasons.append(f"the symmetric part of W (spectral norm {np.linalg.norm(symmetric, 2):.2g})")
    shift = energy_shift(field)
    if shift is not None and field.bias is not None:
        bias = np.asarray(field.bias, np.float64)
        if np.abs(skew @ np.asarray(shift, np.float64) - bias).max() > tolerance * max(np.abs(bias).max(), 1e-300):
            reasons.append("its bias, which is not in the range of W")
    return " and ".join(reasons) or None


def own_change_of_casimirs(field: AbstractField) -> str | None:
    """Why the network itself changes the c.y, in words; None when it conserves them."""
    return " and ".join(_inflow_and_leak(field)) or None


def _inflow_and_leak(field: AbstractField) -> list[str]:
    drive = [] if field.drive is None else ["its drive"]
    return drive + ([f"its leak of {float(field.leak):.3g}"] if float(field.leak) != 0 else [])


def why_not_odd(field: AbstractField, states: Float[Array, "m n"]) -> str | None:
    """Why y -> -y is no symmetry of the network, in words; None when it is one."""
    if field.drive is not None:
        return "the network has a drive"
    if field.bias is not None and bool(jnp.any(field.bias != 0)):
        return "the network has a bias"
    odd, name = field.activation.odd, type(field.activation).__name__
    if odd is None:  # nobody vouches for it: look at the states of the run
        sigma, mirrored = field.activation(states), field.activation(-states)
        odd = bool(jnp.max(jnp.abs(sigma + mirrored)) <= 64 * jnp.finfo(states.dtype).eps * jnp.max(jnp.abs(sigma)))
    return None if odd else f"the activation {name} is not odd"
