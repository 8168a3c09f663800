"""Searches by gradients of the frequency, many members at once, each with its own optimiser and its own best.

Loss of a member: q^2/2 + objective with q = log(f / target). The frequency is measured on the network run at the speed
at which it last turned about once, so that a step size and a window suffice for all of the search. Where all of W (and
a bias) may change, a candidate is first run at the speed that puts its frequency on the target, and the loss is the
objective there: the gradient of the frequency then says how W may change without changing the frequency.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..fields import AbstractField
from ..simulate.members import batch_axes
from .measures import AbstractMeasure
from .outcomes import Outcome
from .time_scale import rescaled
from .tuned import Tuned, stacked
from .turning import MOST_FASTEST, fastest_bound, frequency_at, made_to_turn, measured_in_groups

DEFAULT_RATE = 0.03
"""Of Adam, with an objective: a few per cent of a weight of size one in a step."""

LONGEST_STEP = 0.3
"""Of Newton's method: the change of log f that one step aims at; farther the gradient says little."""

SIGNIFICANT = 1e-4
"""What counts as a gain, relative to the best loss so far, when patience is counted."""


class Wishes(NamedTuple):
    """What the caller wants of the search; see `tune_frequency`."""

    pick: Callable[[Any], Any]
    objective: Callable[[Any, Array], Array] | None
    optimiser: optax.GradientTransformation | None
    steps: int
    patience: int
    limit: float
    resume: Tuned | None


class _Best(NamedTuple):
    """Of each member what was best so far, and for how many steps it has been."""

    found: "_Found"
    since: np.ndarray


def descend(
    networks: AbstractField,
    starts: Float[Array, "members n"],
    targets: Array,
    measure: AbstractMeasure,
    wishes: Wishes,
    watch: Any,
) -> Tuned:
    """Members (m,) after the search, each where it was best."""
    free = _frees_time_scale(networks, wishes)
    problem = _Problem(targets, measure, wishes.pick, wishes.objective, free)
    turning = made_to_turn(networks, starts, measure, watch.part(0, 0.1))
    alive = turning.fastest > 0
    factor = jnp.where(alive, 1 / jnp.where(alive, turning.measured.frequency, 1), 1)
    optimiser = _optimiser(wishes)
    state = _initial(optimiser, networks, wishes)
    best, part = None, np.ones(len(starts))
    frequencies, losses = [], []
    try:
        for step in range(wishes.steps + 1):
            found = _looked_at(problem, networks, starts, factor, _fastest(networks, factor, alive))
            frequencies.append(found.frequency)
            losses.append(found.loss)
            best, gained = _better(best, found)
            waiting = alive & (best.since <= wishes.patience)
            if wishes.objective is None:
                waiting &= ~(np.abs(np.asarray(best.found.distance)) <= wishes.limit / 2)
            told = dict(loss=_median(best.found.loss), frequency=_median(best.found.frequency))
            watch(int(10 + 90 * step / wishes.steps), **told)
            if step == wishes.steps or not waiting.any():
                break
            if optimiser is None:
                # Newton's step from the best there is, a shorter one where the last did not gain.
                part = np.where(gained, np.minimum(1, 2 * part), part / 4)
                found = best.found
            networks, state = _moved(problem, optimiser, found, state, jnp.asarray(waiting), jnp.asarray(part))
            factor = 1 / jnp.where(found.frequency > 0, found.frequency, 1 / factor)
    except KeyboardInterrupt:
        if best is None:
            raise
        # What was found is worth more than the way it ended; `resume` goes on from here.
        watch(100, interrupted="yes")
    assert best is not None
    return _told(problem, best, alive, wishes.limit, (stacked(frequencies), stacked(losses)), state)


def _fastest(networks: AbstractField, factor: Array, alive: np.ndarray) -> int:
    """For all members, as there is one program; a power of two, so that there are few to compile."""
    return int(min(fastest_bound(networks, factor).max(initial=1, where=alive), MOST_FASTEST))


class _Problem(eqx.Module):
    targets: Array
    measure: AbstractMeasure
    pick: Callable[[Any], Any] = eqx.field(static=True)
    objective: Callable[[Any, Array], Array] | None = eqx.field(static=True)
    free: bool = eqx.field(static=True)


class _Found(NamedTuple):
    """One look at all members: the networks (on the target if the time scale is free), their loss and its gradient."""

    networks: AbstractField
    starts: Array
    frequency: Array
    loss: Array
    distance: Array
    gradient: Any


def _frees_time_scale(networks: AbstractField, wishes: Wishes) -> bool:
    """Whether what may change contains all that the time scale changes."""
    if wishes.objective is None:
        return False
    picked = {id(leaf) for leaf in jax.tree.leaves(wishes.pick(networks))}
    scaled = [networks.weight] if networks.bias is None else [networks.weight, networks.bias]
    resting = bool((networks.leak == 0).all())
    return resting and all(id(leaf) in picked for leaf in jax.tree.leaves(scaled))


@eqx.filter_jit
def _looked_at(problem: _Problem, networks: AbstractField, starts: Array, factor: Array, fastest: int) -> _Found:
    """The loss of every member and its gradient with respect to what may change."""

    def total(parts: Any) -> Any:
        candidates = eqx.tree_at(problem.pick, networks, parts)
        frequency = frequency_at(candidates, starts, problem.measure, factor, fastest).frequency
        moved, distance = starts, jnp.log(frequency / problem.targets)
        if problem.free:
            candidates, moved = rescaled(candidates, starts, problem.targets / frequency)
            frequency, distance = problem.targets, jnp.zeros_like(distance)
        loss = distance**2 / 2
        if problem.objective is not None:
            each = jax.vmap(problem.objective, in_axes=(batch_axes(candidates), 0))
            loss = loss + each(candidates, moved)
        # Members do not meet, so the gradient of the sum holds that of each; one that failed must not spoil others.
        summed = jnp.sum(jnp.where(jnp.isfinite(loss), loss, 0))
        return summed, (candidates, moved, frequency, loss, distance)

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(problem.pick(networks))
    return _Found(found[0], found[1], found[2], found[3], found[4], gradient)


def _optimiser(wishes: Wishes) -> optax.GradientTransformation | None:
    if wishes.optimiser is None and wishes.objective is not None:
        return optax.adam(DEFAULT_RATE)
    return wishes.optimiser


def _initial(optimiser: optax.GradientTransformation | None, networks: AbstractField, wishes: Wishes) -> Any:
    if optimiser is None:
        return None
    if wishes.resume is not None and wishes.resume.state is not None:
        return wishes.resume.state
    return jax.vmap(optimiser.init)(wishes.pick(networks))


@eqx.filter_jit
def _moved(
    problem: _Problem, optimiser: Any, found: _Found, state: Any, waiting: Array, part: Array
) -> tuple[AbstractField, Any]:
    """One step of every member that is waiting; others stay."""
    parts = problem.pick(found.networks)
    if optimiser is None:
        updates, new = _newton(found, part), state
    else:
        updates, new = jax.vmap(optimiser.update)(found.gradient, state, parts)
    going = waiting & _all_finite(updates, len(waiting))
    parts = jax.tree.map(lambda old, update: _chosen(going, old + update, old), parts, updates)
    state = jax.tree.map(lambda new, old: _chosen(going, new, old), new, state)
    return eqx.tree_at(problem.pick, found.networks, parts), state


def _newton(found: _Found, part: Array) -> Any:
    """-q grad q / |grad q|^2, where the gradient at hand is q grad q."""
    squares = [jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(found.gradient)]
    length = sum(squares, jnp.zeros_like(found.distance))
    tiny = jnp.finfo(length.dtype).tiny
    shorter = jnp.minimum(1, LONGEST_STEP / jnp.maximum(jnp.abs(found.distance), tiny))
    by = -(found.distance**2) / jnp.where(length > 0, length, 1) * shorter * part.astype(length.dtype)
    return jax.tree.map(lambda leaf: leaf * by.reshape(by.shape + (1,) * (leaf.ndim - 1)), found.gradient)


def _all_finite(tree: Any, count: int) -> Array:
    good = jnp.ones((count,), bool)
    for leaf in jax.tree.leaves(tree):
        good = good & jnp.isfinite(leaf.reshape(count, -1)).all(axis=1)
    return good


def _chosen(flags: Array, new: Array, old: Array) -> Array:
    """Of each member the new where it is flagged."""
    return jnp.where(flags.reshape(flags.shape + (1,) * (old.ndim - 1)), new, old)


def _better(best: _Best | None, found: _Found) -> tuple[_Best, np.ndarray]:
    """The best so far with what was just found, and whose that is."""
    loss = np.asarray(found.loss, np.float64)
    if best is None:
        return _Best(found, np.zeros(len(loss), int)), np.ones(len(loss), bool)
    before = np.asarray(best.found.loss, np.float64)
    known = np.isfinite(before)
    gain = np.isfinite(loss) & (~known | (loss < np.where(known, before, 0)))
    clear = gain & (~known | (loss < np.where(known, before - SIGNIFICANT * np.abs(before), 0)))
    flags = jnp.asarray(gain)
    kept = jax.tree.map(lambda new, old: _chosen(flags, new, old), found, best.found)
    return _Best(kept, np.where(clear, 0, best.since + 1)), gain


def _told(
    problem: _Problem, best: _Best, alive: np.ndarray, limit: float, history: tuple[Array, Array], state: Any
) -> Tuned:
    """Measured anew, through the window that the frequency itself asks for."""
    networks, starts, targets = best.found.networks, best.found.starts, np.asarray(problem.targets, np.float64)

    def measured(measure: AbstractMeasure) -> Array:
        factor = 1 / targets
        fastest = np.where(alive, np.minimum(fastest_bound(networks, factor), MOST_FASTEST), 0)
        return measured_in_groups(networks, starts, measure, factor, fastest).frequency

    if problem.free:
        found = measured(problem.measure)
        networks, starts = rescaled(networks, starts, jnp.where(found > 0, problem.targets / found, 1))
    frequency = measured(problem.measure)
    close = jnp.abs(frequency / problem.targets - 1) <= limit
    result = jnp.where(alive, jnp.where(close, Outcome.reached, Outcome.not_reached), Outcome.at_rest)
    error = jnp.abs(measured(problem.measure.longer()) - frequency)
    return Tuned(networks, starts, frequency, problem.targets, error, result.astype(jnp.int8), *history, state)


def _median(values: Any) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
