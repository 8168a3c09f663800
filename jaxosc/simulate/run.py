"""`simulate`: one call for one network or a million, with fixed or adaptive steps."""

from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField, require_size
from ..solvers import EnergyProjection, PoissonSplitting
from .adaptive import AdaptiveOptions, run_adaptive
from .adjoints import Checkpointed, Reversible
from .engine import DEFAULT_ESCAPE_NORM
from .fixed import FixedOptions, run_fixed
from .members import pair_members
from .reducers import AbstractReducer
from .solution import Solution
from .steppers import stepper_of


def simulate(
    field: AbstractField,
    y0: Any,
    *,
    t1: Any,
    dt: Any = None,
    t0: Any = 0.0,
    solver: Any = None,
    save_every: int | None = None,
    ts: Any = None,
    reducers: tuple[AbstractReducer, ...] = (),
    throw: bool = True,
    pairing: str = "zip",
    rtol: Any = None,
    atol: Any = None,
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
    max_steps: int = 1_000_000,
    adjoint: Reversible | Checkpointed | None = None,
) -> Solution:
    """Integrate one network, or any batch of networks and starts, from t0 to t1.

    Fixed steps (the default) run in the package's own engine; give `rtol` and `atol` for adaptive ones, with
    `jo.solvers.Taylor()` or any adaptive solver of Diffrax. Without `save_every` and `ts` only the final state is kept,
    and memory does not grow with the number of steps. Members spread over all local devices unless `y0` was put on one
    (`jo.configure_cpu(devices=...)` makes several of a CPU).
    Called with concrete arrays it compiles once for all step sizes, durations, gains and weights of one shape; called
    inside `jax.jit`, `jax.grad` or `jax.vmap` with concrete times it is differentiable forward and backward.

    **Arguments:**

    - `field`: `jo.CurrentRNN` or `jo.RateRNN`, with or without leading batch axes.
    - `y0`: (n,) or (..., n) starts; the dtype is the wider one of `y0` and the weights.
    - `t1`, `t0`: end and begin, in the field's units of time; with t1 < t0 the run goes backward.
    - `dt`: step size > 0, also of a run backward. If it does not divide t1 - t0, the next smaller size that does is
      taken, see `stats["dt"]`. With adaptive steps: the first step, None lets the solver choose.
    - `solver`: `jo.solvers.PoissonSplitting(2)` if None; `jo.ForwardEuler()` or any Diffrax solver.
    - `save_every`: keep the start and every so many-th step.
    - `ts`: (times,) times between t0 and t1, in the order of the run, at which to keep states; between steps by cubic
      Hermite interpolation.
    - `reducers`: measures taken inside the loop, such as `jo.Norms()` and `jo.Crossings()`; fixed steps only.
    - `throw`: raise if a single run fails. A batch never raises: look at `result`.
    - `pairing`: "zip" broadcasts the batch axes of field and start; "product" runs every network from every start.
    - `rtol`, `atol`: tolerances of adaptive steps (one given: the other takes the same value).
    - `escape_norm`: a member whose norm exceeds it is frozen and marked `escaped`. A look every tenth step (each one in
      a run that is differentiated step by step, each adaptive one) finds who left; who has come back by then goes on.
    - `max_steps`: most adaptive steps per member.
    - `adjoint`: how fixed steps are differentiated backward: `jo.Reversible()`, `jo.Checkpointed()`, or None for a
      stored tape while it is small and checkpoints beyond; `stats["adjoint"]` says which and why.

    **Returns:** a `Solution`, `ys` (..., times, n).

    **Raises:** `JaxoscError` for wrong shapes, NaN, dt <= 0, t1 = t0, times outside the run, and options that exclude
    each other; with `throw` also for a single run that failed.
    """
    solver = PoissonSplitting(2) if solver is None else solver
    stepper_of(solver)  # tells what is no solver before anything is compiled
    adaptive = rtol is not None or atol is not None
    y0 = _checked_start(field, y0)
    _check_times(t0, t1, dt, adaptive, escape_norm)
    _check_saving(save_every, ts, t0, t1, reducers, adaptive)
    if adaptive:
        _check_adaptive(solver, max_steps, adjoint)
    members = pair_members(field, y0, pairing)
    if adaptive:
        options = AdaptiveOptions(*_tolerances(rtol, atol), dt, escape_norm, max_steps)
        solution = run_adaptive(members, solver, options, t0, t1, ts)
    else:
        wishes = FixedOptions(t0, t1, dt, save_every, ts, escape_norm, adjoint, throw)
        solution = run_fixed(members, solver, reducers, wishes)
    if throw and not solution.result.shape and is_concrete(solution.result):
        result = Result(int(solution.result))
        if result is not Result.successful:
            raise JaxoscError(f"The run ended as {result.name}: {result.advice} (throw=False returns it as it is.)")
    return solution


def _checked_start(field: AbstractField, y0: Any) -> Array | np.ndarray:
    """`y0` as an array of the common dtype, NumPy's if it was."""
    if not isinstance(field, AbstractField):
        raise JaxoscError(f"Got the field {field!r}, expected a jo.CurrentRNN or jo.RateRNN: build one from a weight.")
    if not isinstance(y0, np.ndarray):  # which the compiled program takes as it is, at no cost
        y0 = jnp.asarray(y0)
    if y0.dtype != field.dtype:
        y0 = y0.astype(jnp.result_type(y0, field.dtype))
    require_size(field, y0)
    require_finite("y0", y0)
    if 0 in y0.shape:
        raise JaxoscError(f"Got y0 of shape {y0.shape}, expected at least one start: drop the empty axis.")
    return y0


def _check_times(t0: Any, t1: Any, dt: Any, adaptive: bool, escape_norm: Any) -> None:
    require_positive("escape_norm", escape_norm)
    require_finite("t0", t0)
    require_finite("t1", t1)
    if dt is None and not adaptive:
        raise JaxoscError("Got no dt, expected a step size: pass dt=..., or rtol=... for adaptive steps.")
    if dt is not None:
        require_positive("dt", dt)
    if is_concrete((t0, t1)) and t1 == t0:
        raise JaxoscError(f"Got t0 = {t0} and t1 = {t1}, expected two times that differ: the run needs a duration.")


def _check_adaptive(solver: Any, max_steps: Any, adjoint: Any) -> None:
    if adjoint is not None:
        raise JaxoscError("Got adjoint with adaptive steps, expected fixed ones: drop rtol and atol, or the adjoint.")
    inner = solver.solver if isinstance(solver, EnergyProjection) else solver
    if not isinstance(inner, diffrax.AbstractAdaptiveSolver):
        raise JaxoscError(
            f"Got rtol or atol with {solver!r}, expected a solver that estimates its error: pass"
            " solver=jo.solvers.Taylor() or diffrax.Tsit5(), or dt instead of rtol and atol."
        )
    if max_steps not in range(1, 2**31):
        raise JaxoscError(f"Got max_steps = {max_steps!r}, expected a whole number from 1 to {2**31 - 1:,}.")


def _check_saving(save_every: Any, ts: Any, t0: Any, t1: Any, reducers: Any, adaptive: bool) -> None:
    if save_every is not None and ts is not None:
        raise JaxoscError("Got both save_every and ts, expected one of them: drop one.")
    if save_every is not None and save_every < 1:
        raise JaxoscError(f"Got save_every = {save_every}, expected a whole number >= 1.")
    if adaptive and save_every is not None:
        raise JaxoscError("Got save_every with adaptive steps, expected times of your own: pass ts=jnp.linspace(...).")
    if adaptive and reducers:
        raise JaxoscError("Got reducers with adaptive steps, expected fixed ones: drop rtol and atol, or the reducers.")
    if ts is None or not is_concrete((ts, t0, t1)):
        return
    wanted = np.atleast_1d(np.asarray(ts, np.float64))
    begin, end = float(t0), float(t1)
    slack = 1e-6 * abs(end - begin)
    order = "ascending" if end > begin else "descending"
    if (
        wanted.ndim != 1
        or not wanted.size
        or not np.isfinite(wanted).all()
        or (np.diff(wanted) * (end - begin) < 0).any()
    ):
        raise JaxoscError(f"Got ts of shape {wanted.shape}, expected finite {order} times (times,): sort them.")
    if wanted.min() < min(begin, end) - slack or wanted.max() > max(begin, end) + slack:
        raise JaxoscError(
            f"Got times from {wanted[0]:g} to {wanted[-1]:g}, expected them within the run, {float(t0):g} to"
            f" {float(t1):g}: change ts or t1."
        )


def _tolerances(rtol: Any, atol: Any) -> tuple[Any, Any]:
    given = {"rtol": atol if rtol is None else rtol, "atol": rtol if atol is None else atol}
    for name, value in given.items():
        if np.ndim(value):
            raise JaxoscError(f"Got {name} of shape {np.shape(value)}, expected one number for all members.")
        require_positive(name, value)
    return given["rtol"], given["atol"]
