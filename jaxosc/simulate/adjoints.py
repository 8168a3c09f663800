"""How a run is differentiated backward: keep every step, keep a few and compute again, or run back.

`choose_adjoint` decides once, from what was asked for and what the run is, and says why in a sentence that
`Solution.stats["adjoint"]` repeats.
"""

import math
from typing import Any

import equinox as eqx
import numpy as np

from .._checks import require_positive
from .._errors import JaxoscError
from .reducers import SAMPLE_EVERY, AbstractReducer
from .steppers import stepper_of

TAPE_BYTES = 2**28
"""A stored tape may take this much before states are kept at checkpoints only."""


class Reversible(eqx.Module):
    """Gradients by running the solver back step by step: memory does not grow with the number of steps.

    For solvers that are their own inverse with dt negated (`PoissonSplitting` of order 2 and more, `PairSplitting`) and
    losses on final and saved states and on the reducers of this package. Elsewhere the run is checkpointed, and
    `stats["adjoint"]` says so. Costs about three forward runs. First derivatives backward only, as by `jax.grad` and
    `jax.jacrev`: for `jax.jvp` and `jax.hessian` take another adjoint.

    Running back amplifies roundings where the orbit is chaotic or forgets its start: after 10^4 steps nothing may be
    left of it. So the start that the backward run finds is compared with the true one. A member that misses it by more
    than `tolerance` is refused: its gradient is NaN (a shared weight's too), a single run raises, also under `jax.vmap`
    (throw=False: NaN). There take `jo.Checkpointed()`, or the lattice mode of `PoissonSplitting`, which returns to the
    very bits. Called outside a transformation, `simulate` runs back at once: `stats["reconstruction_error"]` holds the
    distance for each member, and a refused one has the result code `irreversible`. A weight with a diagonal is undone
    only to the accuracy of the Runge-Kutta step that solves it.

    **Arguments:**

    - `tolerance`: largest distance from the start, relative to the largest component of the start, or of the end (but
      not more than 1) if that is larger: a start at rest has no size. None: 1e-6 in float64, 0.03 in float32 (about
      100 sqrt(eps)).
    """

    tolerance: float | None = eqx.field(static=True)

    def __init__(self, tolerance: float | None = None):
        if tolerance is not None:
            require_positive("tolerance", tolerance)
        self.tolerance = tolerance

    def tolerance_for(self, dtype: Any) -> float:
        """The tolerance, or what None means for a dtype."""
        return self.tolerance if self.tolerance is not None else (1e-6 if np.finfo(dtype).bits == 64 else 0.03)


class Checkpointed(eqx.Module):
    """Gradients from states kept at checkpoints, the steps between computed again: memory grows like sqrt(steps).

    For every solver and reducer. Costs about one forward run more than a stored tape. With `save_every` or `ts` every
    state is kept besides: memory grows with the steps then, though far slower than a tape.

    **Arguments:** `checkpoints`, how many states to keep; None for about the square root of the number of steps.
    """

    checkpoints: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.checkpoints is not None and self.checkpoints < 1:
            raise JaxoscError(f"Got checkpoints = {self.checkpoints}, expected a whole number >= 1, or None.")


class Adjoint(eqx.Module):
    """The choice: `kind` is "none" (nothing to differentiate), "stored", "checkpointed" or "reversible".

    `segments` is the number of checkpoints, `tolerance` that of a reversible run, `sentence` the reason.
    """

    kind: str = eqx.field(static=True)
    sentence: str = eqx.field(static=True)
    segments: int = eqx.field(static=True, default=0)
    tolerance: float = eqx.field(static=True, default=0.0)


def choose_adjoint(
    wanted: Any,
    solver: Any,
    reducers: tuple[AbstractReducer, ...],
    *,
    traced: bool,
    num_steps: Any,
    states: int,
    dtype: Any,
) -> Adjoint:
    """What to do for a run of `num_steps` steps of `states` numbers each, all members together.

    **Raises:** `JaxoscError` for anything that is no adjoint, and for an adjoint of a traced number of steps.
    """
    if not isinstance(wanted, Reversible | Checkpointed | None):
        raise JaxoscError(f"Got adjoint = {wanted!r}, expected jo.Reversible(), jo.Checkpointed() or None.")
    if not traced:
        return Adjoint("none", "none: the run is not differentiated")
    if not isinstance(num_steps, int):
        if wanted is not None:
            raise JaxoscError(
                f"Got traced times with adjoint = {wanted!r}, expected concrete ones, since gradients backward need a"
                " fixed number of steps: pass t0, t1 and dt as plain numbers, or drop adjoint for forward derivatives."
            )
        return Adjoint("none", "forward derivatives only: the number of steps is traced")
    why_not = ""
    if isinstance(wanted, Reversible):
        why_not = why_not_reversible(solver, reducers)
        if not why_not:
            tolerance = wanted.tolerance_for(dtype)
            return Adjoint("reversible", f"reversible, to {tolerance:g} of the start", tolerance=tolerance)
    tape = num_steps * states * np.dtype(dtype).itemsize * stepper_of(solver).tape_per_step
    if wanted is None and tape <= TAPE_BYTES:
        return Adjoint("stored", f"a stored tape of about {_megabytes(tape)}")
    segments = getattr(wanted, "checkpoints", None) or max(1, round(math.sqrt(num_steps)))
    segments = min(segments, max(1, num_steps // SAMPLE_EVERY))
    reason = why_not or (f"since a stored tape would take {_megabytes(tape)}" if wanted is None else "as asked for")
    return Adjoint("checkpointed", f"checkpointed at {segments} states, {reason}", segments=segments)


def why_not_reversible(solver: Any, reducers: tuple[AbstractReducer, ...]) -> str:
    """The reason why a run cannot be gone back, empty if it can."""
    if not stepper_of(solver).symmetric:
        return f"since {solver!r} is not its own inverse with dt negated"
    hard = [type(reducer).__name__ for reducer in reducers if not reducer.reversible]
    return f"since {hard[0]} cannot be run back" if hard else ""


def _megabytes(size: float) -> str:
    return f"{size / 2**20:,.1f} MB"
