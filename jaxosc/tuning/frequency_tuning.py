"""`tune_frequency`: networks that oscillate at a wanted frequency.

Three ways, by what may change:

**gain** (default). The whole network is run faster or slower; exact, without gradients (see `time_scale`). With
`closed=True` the start moves onto a closed orbit first, so that there is one sharp frequency to speak of.

**energy**. The network stays as it is and the start moves along its ray, since frequencies depend on amplitude.

**anything else**, by gradients of the frequency: with q = log(f/target), Newton's step of least length,

    p <- p - q grad q / |grad q|^2,

or any optimiser of Optax on q^2/2 + objective. If all of W may change, every candidate is first brought onto the target
by the gain, so that the optimiser has only the objective to care for: the frequency is right at every step.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete, require_positive
from .._errors import JaxoscError
from ..fields import AbstractField
from ..orbits.starts import require_count
from .closed_orbits import families, has_families
from .descent import Wishes, descend
from .measures import AbstractMeasure, Line, Measured, checked_measure
from .outcomes import Outcome
from .progress import Watch
from .rays import start_of_frequency
from .time_scale import rescaled
from .tuned import Tuned, stacked
from .turning import Turning, fastest_bound, made_to_turn, measured_in_groups, members_of

NAMES: dict[str, Any] = {
    "gain": None,
    "energy": None,
    "weight": lambda field: field.weight,
    "bias": lambda field: field.bias,
}
"""What may be changed, by name: the time scale, the amplitude of the start, or parts of the field."""

LEVELS_DOWN = 2
"""Of the family of closed orbits, where the one at hand is not seen to stay."""


def tune_frequency(
    field: Any,
    y0: Any,
    target: Any,
    *,
    over: Any = "gain",
    closed: bool = False,
    measure: Any = None,
    objective: Any = None,
    optimiser: Any = None,
    steps: int = 100,
    patience: int = 20,
    tolerance: Any = None,
    resume: Any = None,
    pairing: str = "zip",
    progress: bool | None = None,
) -> Tuned:
    """Networks, and starts, whose orbit has the frequency `target`.

    Thousands of members at once; a member that fails has a code and a sentence of advice in the result, and never
    stops the others. Ctrl-C ends a search by gradients with the best so far, which `resume` takes up again.

    **Arguments:**

    - `field`, `y0` (..., n), `pairing`: as in `jo.simulate`; the field without drive.
    - `target`: (...) wanted frequencies in cycles per unit of time, > 0.
    - `over`: what may change: "gain" (the time scale: W, leak, and the bias of the current form), "energy" (the start,
      along its ray), "weight", "bias", a tuple of the last two, or a function that picks arrays of a field, as for
      `equinox.tree_at`.
    - `closed`: move the start onto a closed orbit: that of the mode of which `measure.readout` sees most, at the energy
      that the mode has in the start, or lower where that orbit is unstable. Only with "gain", for conservative networks
      in the current form without bias. It is the way to a sharp frequency for more than two neurons.
    - `measure`: what "the frequency" is, see `orbit_frequency`; None: closed form, returns, or the line of neuron 0.
    - `objective`: a function of one network and one start that returns a number to be made small besides.
    - `optimiser`: an `optax.GradientTransformation` for searches by gradients; None: Newton's step without objective,
      `optax.adam(0.03)` with one.
    - `steps`: most steps of such a search; `patience`: so many without gain end it for a member, where it was best.
    - `tolerance`: of the frequency, relative. None: 1e-9, for spectral lines 1e-6, in float32 1e-4.
    - `resume`: a result of this function; goes on from its networks, starts and optimiser.
    - `progress`: False for none; None says something after two seconds.

    **Returns:** a `Tuned`. **Raises:** `JaxoscError` for wrong shapes and names, a target <= 0, a driven network, a
    measure or `closed` that does not fit the network, and calls within a transformation.
    """
    require_positive("target", target)
    require_count("steps", steps)
    require_count("patience", patience)
    if not is_concrete((field, y0, target)):
        raise JaxoscError("Got traced arguments, expected plain arrays: within a transformation use orbit_frequency.")
    if resume is not None:
        if not isinstance(resume, Tuned):
            raise JaxoscError(f"Got resume = {resume!r}, expected what tune_frequency returned.")
        field, y0, pairing = resume.field, resume.y0, "zip"
    networks, starts, shape = members_of(field, y0, pairing)
    if np.broadcast_shapes(np.shape(target), shape) != shape:
        raise JaxoscError(f"Got targets of shape {np.shape(target)}, expected one for each of the {shape} members.")
    targets = jnp.broadcast_to(jnp.asarray(target, starts.dtype), shape).reshape(-1)
    measure = Line(readout=0) if measure is None and (closed or field.size > 2) else checked_measure(measure, field)
    limit = tolerance_for(measure, starts.dtype) if tolerance is None else float(tolerance)
    require_positive("tolerance", limit)
    _check_ways(field, over, closed, objective, optimiser)
    with Watch(progress, "tuning", 100) as watch:
        if over == "gain" and closed:
            found = _on_closed_orbits(networks, starts, targets, measure, limit, watch)
        elif over == "gain":
            found = _by_gain(networks, starts, targets, measure, limit, watch)
        elif over == "energy":
            found = start_of_frequency(networks, starts, targets, measure, limit, watch)
        else:
            wishes = Wishes(_picker(over), objective, optimiser, steps, patience, limit, resume)
            found = descend(networks, starts, targets, measure, wishes, watch)
    return found.shaped(shape)


def tolerance_for(measure: AbstractMeasure, dtype: Any) -> float:
    """How near a frequency has to come to its target if nobody says: what the measure itself can see."""
    rounding = 1e3 * float(jnp.finfo(dtype).eps)
    return max(rounding, 1e-9 if measure.numbers(1) <= 1 else 1e-6)


def _check_ways(field: AbstractField, over: Any, closed: bool, objective: Any, optimiser: Any) -> None:
    names = (over,) if isinstance(over, str) else over
    if isinstance(names, tuple | list):
        unknown = [name for name in names if name not in NAMES]
        if unknown or not names:
            raise JaxoscError(
                f"Got over = {over!r}, expected one of {', '.join(NAMES)}, a tuple of weight and bias, or a function of"
                " the field."
            )
        if len(names) > 1 and {"gain", "energy"} & set(names):
            raise JaxoscError(
                f"Got over = {over!r}, expected gain and energy alone: over='weight' contains the gain, and"
                " closed=True chooses the energy."
            )
        if "bias" in names and field.bias is None:
            raise JaxoscError("Got over = 'bias' and a network without bias, expected one: give it bias=zeros.")
    elif not callable(over):
        raise JaxoscError(f"Got over = {over!r}, expected a name, a tuple of names, or a function of the field.")
    if over in ("gain", "energy") and (objective is not None or optimiser is not None):
        raise JaxoscError(
            f"Got an objective or optimiser with over = {over!r}, which leaves no freedom: take 'weight'."
        )
    if not closed:
        return
    if over != "gain":
        raise JaxoscError(f"Got closed=True with over = {over!r}, expected over='gain': tune first, then close.")
    if not has_families(field):
        raise JaxoscError(
            "Got closed=True and a network with bias, leak, in the rate form or not conservative, expected a skew or"
            " symmetrizable one in the current form: leave closed out."
        )


def _picker(over: Any) -> Any:
    if callable(over):
        return over
    names = (over,) if isinstance(over, str) else tuple(over)
    return lambda field: [NAMES[name](field) for name in names]


def _by_gain(
    networks: AbstractField,
    starts: Float[Array, "members n"],
    targets: Array,
    measure: AbstractMeasure,
    limit: float,
    watch: Watch,
) -> Tuned:
    """Time scale alone: measured once, run as much faster, and measured again to see it."""
    turning = made_to_turn(networks, starts, measure, watch.part(0, 0.6))
    old = turning.measured.frequency
    tuned, y0, new = _sped_up(networks, starts, targets / old, targets, turning, measure)
    sharp = measured_in_groups(tuned, y0, measure.longer(), turning.factor * old / targets, turning.fastest)
    # Where there is no window to make longer, the measure says itself how far it may be off.
    error = sharp.error if measure.longer() is measure else jnp.abs(sharp.frequency - new)
    result = _outcomes(turning, old, new, targets, limit)
    blurred = (result == Outcome.reached) & ~(error <= BLUR * limit * targets)
    result = jnp.where(blurred, Outcome.not_sharp, result)
    watch(100, reached=float((result == Outcome.reached).mean()))
    return Tuned(tuned, y0, new, targets, error, result.astype(jnp.int8), stacked([old, new]))


BLUR = 10
"""Tolerances by which a line may move in a window twice as long: the shorter window is the less accurate one by far."""


def _sped_up(
    networks: AbstractField, starts: Array, by: Array, targets: Array, turning: Turning, measure: AbstractMeasure
) -> tuple[AbstractField, Array, Array]:
    """Networks run `by` times as fast, and their frequencies measured anew in the same number of turns."""
    by = jnp.where(jnp.isfinite(by), by, 1)
    tuned, y0 = rescaled(networks, starts, by)
    return tuned, y0, measured_in_groups(tuned, y0, measure, turning.factor / by, turning.fastest).frequency


def _outcomes(turning: Turning, old: Array, new: Array, targets: Array, limit: float) -> Array:
    close = jnp.abs(new - targets) <= limit * targets
    result = jnp.where(close, Outcome.reached, Outcome.not_sharp)
    resting = jnp.where(turning.moving, Outcome.too_slow, Outcome.at_rest)
    return jnp.where(turning.fastest == 0, resting, result)


def _on_closed_orbits(
    networks: AbstractField,
    starts: Float[Array, "members n"],
    targets: Array,
    measure: AbstractMeasure,
    limit: float,
    watch: Watch,
) -> Tuned:
    """The highest closed orbit of each family that a long run stays on, and then the time scale."""
    paths = families(networks, starts, getattr(measure, "readout", None), watch.part(0, 0.7))
    members = np.arange(len(starts))
    level = np.where(np.asarray(paths.found[:, 0]), np.asarray(paths.found).sum(axis=1) - 1, -1)
    # A weakly unstable orbit is left only after hundreds of turns.
    patient = measure.longer().longer()
    frequency, waiting = np.full(len(starts), np.nan), level >= 0
    while waiting.any():
        period, y0 = paths.period[members, level], paths.y0[members, level]
        fastest = np.where(waiting, fastest_bound(networks, period), 0)
        seen = measured_in_groups(networks, y0, patient, period, fastest).frequency
        frequency = np.where(waiting, seen, frequency)
        stays = np.abs(frequency * np.asarray(period) - 1) <= limit
        lowest = level == 0
        waiting = waiting & ~stays & ~lowest
        level = np.where(waiting, np.maximum(level - LEVELS_DOWN, 0), level)
        watch(80, still_unstable=float(waiting.mean()))
    period, y0 = paths.period[members, level], paths.y0[members, level]
    old, found = jnp.asarray(frequency, starts.dtype), level >= 0
    fastest = np.where(found, fastest_bound(networks, period), 0)
    turning = Turning(period, Measured(old, jnp.zeros_like(old)), fastest, found)
    tuned, y0, new = _sped_up(networks, y0, targets / old, targets, turning, patient)
    result = _outcomes(turning, old, new, targets, limit)
    stays = jnp.abs(old * period - 1) <= limit
    result = jnp.where(~found, Outcome.not_closed, jnp.where(stays, result, Outcome.not_sharp))
    watch(100, reached=float((result == Outcome.reached).mean()))
    error = jnp.abs(old * period - 1) * targets
    return Tuned(tuned, y0, new, targets, error, result.astype(jnp.int8), stacked([old, new]))
