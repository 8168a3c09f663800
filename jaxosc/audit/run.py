"""`audit`: run, measure, fit, and say what is kept."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from ..fields import AbstractField, casimir_vectors, require_size
from ..simulate import lanes_of
from ..simulate.steppers import stepper_of
from .findings import (
    casimir_finding,
    energy_finding,
    largest_defects,
    oddness_finding,
    reversal_finding,
    volume_finding,
)
from .laws import FEWEST_POINTS
from .runs import Case, Forward, run_forward
from .verdict import Audit, Finding

INVARIANTS = ("energy", "casimirs", "volume", "oddness", "reversal")
"""What can be asked for."""

_MOST_STEPS = 2**31 - 1


def audit(
    field: AbstractField,
    y0: Any,
    solver: Any,
    dt: float,
    t1: float,
    *,
    invariants: Sequence[str] = INVARIANTS,
) -> Audit:
    """Say what a solver with this step size keeps of this network, how fast it loses the rest, and whose fault that is.

    Runs from t = 0 to t1 with fixed steps and gives one of five verdicts per invariant: *exact* (what rounding alone
    would leave: at most eps (4 n sqrt(k) + k/2) after k steps), *bounded* (an error that comes and goes),
    *sqrt_drift*, *linear_drift* and *exponential*. The tests are told in `jaxosc/audit/laws.py`. The longer the run,
    the smaller the drift that is seen, and the sentence of a bounded error says what could hide: ten thousand steps
    are a fair look, a million a thorough one. Use float64: in float32 rounding hides most laws.

    - energy: relative to its start, where it is positive.
    - casimirs: each c.y relative to the largest |y|.
    - volume: the logarithm of the volume minus what the network's own divergence makes of it, so that *linear_drift*
      is a volume that grows or shrinks exponentially. At most 20,000 steps, fewer from n = 10 on.
    - oddness: a step from -y against minus the step from y, at 1,025 states of the run.
    - reversal: the way back from the end with -dt against the way forth, relative to the largest |y|. A power of time
      above 0.75 is called linear_drift and `exponent` says which. *exponential* with a step that can be undone means
      chaos. Exact allows for phases that rounding shears: 1 + |W| t times the bound above.

    A run that leaves (norm above 1e6) or decays to rounding is judged by the part before; `failed` tells.
    Costs two runs and a shorter one with n tangents; three programs are compiled once per solver, activation and n.

    **Arguments:**

    - `field`: one network; `y0`: (n,) its start.
    - `solver`: `jo.ForwardEuler()`, `jo.solvers.PoissonSplitting(2)`, or anything of Diffrax.
    - `dt`: step size > 0; `t1`: the end > 0, in the field's units of time, at least 8 steps away. If dt does not divide
      t1, the next smaller size that does is taken.
    - `invariants`: which to look at, all by default; less is faster.

    **Returns:** an `Audit`: print it, or read `.energy`, `.casimirs`, `.volume`, `.oddness`, `.reversal`, `.failed`.

    **Raises:** `JaxoscError` for wrong shapes, values or types, a batch, traced values, a start at rest, and a start
    that the first step loses.
    """
    case, num_steps = _checked_case(field, y0, solver, dt, t1)
    wanted = _checked_names(invariants)
    casimirs = casimir_vectors(field)
    forward = run_forward(case, casimirs, num_steps)
    _require_motion(forward)
    found: list[Finding] = []
    if "energy" in wanted:
        found.append(energy_finding(case, forward))
    if "casimirs" in wanted:
        found += [casimir_finding(case, forward, number) for number in range(1, 1 + len(casimirs))]
    if "volume" in wanted:
        found.append(volume_finding(case, forward))
    if "oddness" in wanted or "reversal" in wanted:
        odd, undone = largest_defects(case, forward)
        if "oddness" in wanted:
            found.append(oddness_finding(case, forward, odd))
        if "reversal" in wanted:
            found.append(reversal_finding(case, forward, casimirs, undone))
    return Audit(
        network=f"{type(field).__name__}(n={field.size}, {field.activation!r})",
        solver=repr(solver),
        dt=case.dt,
        dtype=case.y0.dtype.name,
        num_steps=forward.num_steps,
        failed=forward.failed,
        findings=tuple(found),
    )


def _checked_case(field: Any, y0: Any, solver: Any, dt: Any, t1: Any) -> tuple[Case, int]:
    """The case and its number of steps, or one sentence on what is wrong."""
    if not isinstance(field, AbstractField):
        raise JaxoscError(f"Got the field {field!r}, expected a jo.CurrentRNN or jo.RateRNN: build one from a weight.")
    if not is_concrete((field, y0, dt, t1)):
        raise JaxoscError("Got traced values, expected concrete ones: call audit outside jit, grad and vmap.")
    y0 = jnp.asarray(y0)
    y0 = y0.astype(jnp.result_type(y0, field.dtype))
    require_size(field, y0)
    if field.batch_shape or y0.ndim != 1:
        raise JaxoscError(
            f"Got networks {field.batch_shape} and starts {y0.shape[:-1]}, expected one network and one start (n,):"
            " audit the members one by one."
        )
    require_finite("y0", y0)
    stepper_of(solver)  # tells what is no solver
    require_positive("dt", dt)
    require_positive("t1", t1)
    ratio = float(t1) / float(dt)
    num_steps = round(ratio) if abs(ratio - round(ratio)) < 1e-6 * max(ratio, 1) else math.ceil(ratio)
    if not FEWEST_POINTS <= num_steps <= _MOST_STEPS:
        raise JaxoscError(
            f"Got dt = {float(dt):g} and t1 = {float(t1):g}, which is {num_steps:,} steps, expected {FEWEST_POINTS} to"
            f" {_MOST_STEPS:,}: change one of them."
        )
    return Case(field, lanes_of(field), y0, solver, float(t1) / num_steps), num_steps


def _checked_names(invariants: Sequence[str]) -> tuple[str, ...]:
    names = (invariants,) if isinstance(invariants, str) else tuple(invariants)
    unknown = [name for name in names if name not in INVARIANTS]
    if unknown or not names:
        raise JaxoscError(
            f"Got the invariants {names!r}, expected some of {', '.join(INVARIANTS)}: name what to look at."
        )
    return names


def _require_motion(forward: Forward) -> None:
    moved = np.abs(forward.states - forward.states[0]).max()
    if not moved > 8 * np.finfo(forward.states.dtype).eps * np.abs(forward.states).max():
        raise JaxoscError(
            f"Got a start from which the state moves by {moved:.1e} in the whole run, expected an orbit: the network"
            " rests there, so take another start."
        )
