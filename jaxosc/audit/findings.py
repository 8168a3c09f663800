"""From the runs of an audit to one finding per invariant."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..fields import RateRNN
from .fits import BOUNDED, EXACT, Series
from .invariants import energy_scale, own_change_of_casimirs, own_change_of_energy, step_defects, why_not_odd
from .laws import FEWEST_POINTS, Law, exact_law, law_of_distance, law_of_error, rounding_bound
from .runs import LOST, Case, Forward, run_back, run_volume
from .sentences import casimir_sentence, energy_sentence, oddness_sentence, reversal_sentence, volume_sentence
from .verdict import NOT_APPLICABLE, Finding

_FAR_FROM_ZERO = 0.01  # of its scale: from there on a quantity that keeps its sign is told relative to its start


def energy_finding(case: Case, forward: Forward) -> Finding:
    """H, relative to its start where it is positive, else to the size of its terms."""
    start, low = float(forward.windows.start[0]), forward.windows.low[:, 0]
    scale = energy_scale(case.field, case.y0) or max(float(forward.windows.sizes(0).max()), np.finfo(float).tiny)
    positive = start > _FAR_FROM_ZERO * scale and bool(np.all(start + low > 0))
    cause = own_change_of_energy(case.field)
    law, size = _law_of_column(case, forward, 0, start if positive else scale, positive, cause)
    if law is None:
        return _too_short("energy", size, forward.num_steps)
    return _finding("energy", law, size, energy_sentence(law, size, cause, forward.num_steps), cause)


def casimir_finding(case: Case, forward: Forward, number: int) -> Finding:
    """The c.y of that number, from 1; its errors are relative to the largest |y|, as |c| = 1."""
    name = f"casimir {number}"
    states = jnp.asarray(forward.states)
    trivial = isinstance(case.field, RateRNN)
    if isinstance(case.field, RateRNN):
        states = case.field.preactivation(states)
    scale = float(np.linalg.norm(np.asarray(states), axis=1).max())
    windows = forward.windows
    start = float(windows.start[number])
    values = start + np.append(windows.low[:, number], windows.high[:, number])
    one_signed = abs(start) > _FAR_FROM_ZERO * scale and bool(np.all(values * start > 0))
    cause = own_change_of_casimirs(case.field)
    law, size = _law_of_column(case, forward, number, scale, one_signed, cause)
    if law is None:
        return _too_short(name, size, forward.num_steps)
    return _finding(name, law, size, casimir_sentence(law, size, cause, forward.num_steps, trivial), cause)


def _law_of_column(
    case: Case, forward: Forward, column: int, scale: float, one_signed: bool, cause: str | None
) -> tuple[Law | None, float]:
    """The law of one windowed quantity, None in too short a run, and its largest error relative to `scale`."""
    windows = forward.windows
    sizes = windows.sizes(column) / scale
    bounds = rounding_bound(windows.steps, case.size, case.eps)
    # What keeps its sign is told relative to its own start, whatever the scale of its rounding is.
    unit = float(windows.start[column]) if one_signed else scale
    series = Series(
        times=windows.middles * case.dt,
        means=float(one_signed) + windows.means[:, column] / unit,
        start=float(one_signed),
        swing=windows.swing(column) / abs(unit),
        relative=one_signed,
        may_settle=one_signed and cause is not None,
    )
    return law_of_error(sizes, bounds, series), float(sizes.max())


def volume_finding(case: Case, forward: Forward) -> Finding:
    """Phase-space volume by its logarithm, against the network's own divergence."""
    try:
        windows = run_volume(case, forward.num_steps)
    except (TypeError, NotImplementedError) as reason:  # what JAX raises where a step has no forward derivative
        sentence = f"A step of the solver cannot be differentiated forward ({str(reason).splitlines()[0][:80]})."
        return Finding("volume", NOT_APPLICABLE, sentence)
    if not np.isfinite(windows.means).all():
        sentence = "A step of the solver has a singular Jacobian: it maps a volume to nothing."
        return Finding("volume", NOT_APPLICABLE, sentence)
    sizes = windows.sizes(0)
    bounds = rounding_bound(windows.steps, case.size, case.eps)
    if case.lanes.leak is not None:
        # exp(-leak dt) is rounded alike in every step, and the volume has it n times over.
        bounds = bounds + case.size * case.eps * windows.steps
    series = Series(windows.middles * case.dt, windows.means[:, 0], 0.0, windows.swing(0), relative=False)
    size, num_steps = float(sizes.max()), int(windows.steps[-1])
    law = law_of_error(sizes, bounds, series)
    if law is None:
        return _too_short("volume", size, num_steps)
    own_rate = -case.size * float(case.field.leak) if case.lanes.hollow else None
    return _finding("volume", law, size, volume_sentence(law, size, own_rate, num_steps))


def largest_defects(case: Case, forward: Forward) -> tuple[float, float]:
    """How far a step is from odd and from being undone, at worst, in units of the orbit's largest norm."""
    size = float(np.linalg.norm(forward.states, axis=1).max())
    dt, states = jnp.asarray(case.dt, case.y0.dtype), jnp.asarray(forward.states).T
    odd, undone = step_defects(case.lanes, case.solver, dt, states)
    return float(np.max(np.asarray(odd))) / size, float(np.max(np.asarray(undone))) / size


def oddness_finding(case: Case, forward: Forward, defect: float) -> Finding:
    """Whether a step commutes with y -> -y, given its largest defect."""
    reason = why_not_odd(case.field, jnp.asarray(forward.states))
    if reason is not None:
        return Finding("oddness", NOT_APPLICABLE, f"There is no such symmetry to keep: {reason}.")
    law = exact_law(np.array([defect]), rounding_bound(np.array([1.0]), case.size, case.eps), case.dt)
    law = law or Law(BOUNDED, None, None, 1.0)
    return _finding("oddness", law, defect, oddness_sentence(law.verdict, defect))


def reversal_finding(case: Case, forward: Forward, casimirs: Float[np.ndarray, "k n"], defect: float) -> Finding:
    """The way back against the way forth, given the largest defect of a step that is undone."""
    back = run_back(case, forward, casimirs)
    steps = back.steps.astype(np.float64)
    times = steps * case.dt
    # Rounding changes the energy, and with it the frequency: phases are sheared by that much more.
    frequency = float(np.linalg.norm(np.asarray(case.field.weight.matrix(), np.float64), 2))
    bounds = rounding_bound(steps, case.size, case.eps) * (1 + frequency * times)
    size = max(float(back.distances.max()), back.start)
    law = exact_law(back.distances, bounds, float(times[-1]))
    lost_after = None
    if law is None:
        lost = np.flatnonzero(~(back.distances < LOST))
        lost_after = float(times[lost[0]]) if lost.size else None
        seen = back.distances > 0
        seen[lost[0] if lost.size else len(seen) :] = False
        if np.sum(seen) < FEWEST_POINTS:
            sentence = "The way back is lost within a few steps, too few to tell a law."
            return Finding("reversal", NOT_APPLICABLE, sentence, size=size)
        law = law_of_distance(times[seen], back.distances[seen])
    symmetric = defect <= float(rounding_bound(np.array([2.0]), case.size, case.eps)[0])
    return _finding("reversal", law, size, reversal_sentence(law, size, defect, symmetric, lost_after))


def _finding(name: str, law: Law, size: float, sentence: str, cause: str | None = None) -> Finding:
    cause = None if law.verdict == EXACT else cause
    return Finding(name, law.verdict, sentence, float(law.confidence), size, law.rate, law.exponent, cause)


def _too_short(name: str, size: float, num_steps: int) -> Finding:
    sentence = f"The run has {num_steps} steps, too few to tell a law: the error came to {size:.2g} in them."
    return Finding(name, NOT_APPLICABLE, sentence, size=size)
