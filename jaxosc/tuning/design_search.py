"""The search behind `design`: Newton's method on the frequency map, in one random frame after the other.

For each set of wanted frequencies, in rounds of 4, 16, 16, ... random frames, from the third round on such that mix the
planes less and less:

1. Rescale the linear frequencies by wanted/measured, which is Newton's method with a diagonal Jacobian, over short
   runs; keep the frames whose frequencies wander least over a longer one.
2. Newton's method with Broyden's updates of the Jacobian there, over four times as long a run.
3. Verify the best one: twice as long a run, by a solver of another order with another step, and frequencies from
   spectral lines.

Why other frames and not continuation in energy: where Newton's method ends in vain at energy H in one frame, the orbits
there are no tori. Going from H/4 to H in four steps in the same frame, each started from the extrapolated last, rescued
about 2 of 76, another frame about one of four.
Source of the updates: Broyden, *Mathematics of Computation* 19 (1965).
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..activations import AbstractActivation
from ..solvers import PoissonSplitting
from .frequency_map import Modes, Window, draw_modes, measured, scaled_to_energy
from .progress import Watch

SHORT = Window(100, 30, 4, PoissonSplitting(4), "birkhoff", 256)
MIDDLE = SHORT.longer(4)
LONG = SHORT.longer(16)
VERIFYING = Window(3200, 37, 7, PoissonSplitting(6), "fft", 1)
"""The turns are of the fastest frequency; slow ones get longer windows. Beyond 256 members at once there is nothing to
win, and lines take so long to find that one shape, compiled once, is the fastest."""

SLOW = 0.25
"""Of the fastest: a slower one makes all windows longer in proportion, so that it turns as often."""

RESCALINGS = 3
KEPT = 4
"""Frames of each round that Newton's method is tried in: the order by the middle window is rough."""

MOST_FRAMES = 16
NEWTON_STEPS = 5
LARGEST_STEP = 0.1
"""Of a linear frequency."""

SAFETY = 0.5
"""Of the tolerance: rounds go on for sets above, as errors are a little larger in still longer runs."""

HOPEFUL = 10
"""Times the tolerance: what still wanders by less is verified. Rotation averages out a neighbouring line only after
many beats, of which a relation that holds to 0.01 has eight in half of the long run; the lines of the verifying run are
told apart there."""

VERIFICATIONS = 2
"""The second with linear frequencies rescaled by what the first one saw."""

FASTEST_LINEAR = 16.0
"""Of the fastest wanted one. Slower orbits than that spend their time at the bounds of sigma, and steps get dear."""


class Wanted(NamedTuple):
    """What to search for: relative frequencies (sets, m), energy (sets,), shares (sets, m), and in what.

    `numbers`: (sets,) of the sets in the batch, which their frames depend on.
    """

    numbers: Int[np.ndarray, " sets"]
    targets: Float[np.ndarray, "sets m"]
    energy: Float[np.ndarray, " sets"]
    shares: Float[np.ndarray, "sets m"]
    size: int
    activation: AbstractActivation
    tolerance: float
    key: Array

    def take(self, index: Int[np.ndarray, " some"]) -> "Wanted":
        """Some of the sets."""
        per_set = (self.numbers, self.targets, self.energy, self.shares)
        return Wanted(*(part[index] for part in per_set), *self[len(per_set) :])


class Found(NamedTuple):
    """The best network of each set.

    `misfit`: how far its frequencies are from the wanted ones by mean rotation, `wander`: by how much they change from
    one half of a run to the other, `error`: the larger of both by verification, inf where it was not worth while;
    all relative. `frames`: tried.
    """

    planes: Float[np.ndarray, "sets n columns"]
    starts: Float[np.ndarray, "sets n"]
    linear: Float[np.ndarray, "sets m"]
    frequencies: Float[np.ndarray, "sets m"]
    misfit: Float[np.ndarray, " sets"]
    wander: Float[np.ndarray, " sets"]
    error: Float[np.ndarray, " sets"]
    frames: Int[np.ndarray, " sets"]

    def put(self, sets: Int[np.ndarray, " some"], better: Bool[np.ndarray, " some"], values: dict[str, Any]) -> None:
        """Write what is better about some sets."""
        for name, value in values.items():
            getattr(self, name)[sets[better]] = value[better]


class Candidates(NamedTuple):
    """Frames under work, and which set each is for."""

    owner: Int[np.ndarray, " members"]
    modes: Modes
    linear: Float[np.ndarray, "members m"]
    frequencies: Float[np.ndarray, "members m"]
    wander: Float[np.ndarray, " members"]
    misfit: Float[np.ndarray, " members"]

    def take(self, index: Int[np.ndarray, " some"]) -> "Candidates":
        """Some of them."""
        return Candidates(self.owner[index], self.modes.take(index), *(part[index] for part in self[2:]))

    @property
    def badness(self) -> Float[np.ndarray, " members"]:
        """The larger of misfit and wander."""
        return np.maximum(self.misfit, self.wander)


def frames_in(attempts: int) -> int:
    """How many frames so many rounds have: easy sets are to cost little, hard ones get more."""
    return sum(min(4 ** (attempt + 1), MOST_FRAMES) for attempt in range(attempts))


def search(wanted: Wanted, attempts: int, watch: Watch) -> Found:
    """Rounds of frames until every set is verified to its tolerance, or `attempts` rounds are over."""
    sets = len(wanted.targets)
    found = unsearched(wanted)
    for part in (found.misfit, found.wander, found.error):
        part[:] = np.inf
    still = np.arange(sets)
    for attempt in range(attempts):
        frames = frames_in(attempt + 1) - frames_in(attempt)
        drawn = _first_look(wanted, still, found.frames[still[0]] + np.arange(frames))
        best = _best(_corrected(wanted, drawn), still, 1)
        found.frames[still] += frames
        better = best.badness < np.maximum(found.misfit, found.wander)[still]
        found.put(still, better, _described(best))
        hopeful = best.badness <= HOPEFUL * wanted.tolerance
        for _ in range(VERIFICATIONS):
            best = _verified(wanted, found, best.take(np.flatnonzero(hopeful)))
            hopeful = (best.wander <= wanted.tolerance) & (best.misfit > SAFETY * wanted.tolerance)
        still = still[found.error[still] > SAFETY * wanted.tolerance]
        watch(frames_in(attempt + 1), reached=f"{sets - len(still)} of {sets}")
        if not len(still):
            break
    return found


def unsearched(wanted: Wanted) -> Found:
    """The linear networks in the first frames, of which nothing is known."""
    sets = np.arange(len(wanted.targets))
    unknown = np.full(len(sets), np.nan)
    modes = _drawn(wanted, sets, np.arange(1))
    linear = wanted.targets.copy()
    return Found(*modes, linear, np.full_like(linear, np.nan), unknown, unknown.copy(), unknown.copy(), 0 * sets)


def verify_linear(wanted: Wanted) -> Found:
    """The linear limit: the first frame, linear frequencies as wanted; only verified."""
    found = unsearched(wanted)
    for part, value in ((found.misfit, 0), (found.wander, 0), (found.error, np.inf)):
        part[:] = value
    found.frames[:] = 1
    sets = np.arange(len(wanted.targets))
    modes = Modes(found.planes, found.starts)
    _verified(wanted, found, Candidates(sets, modes, found.linear, found.linear, found.wander, found.misfit))
    return found


def _drawn(wanted: Wanted, sets: np.ndarray, numbers: np.ndarray) -> Modes:
    modes = draw_modes(wanted.key, wanted.numbers[sets], numbers, wanted.shares[sets], wanted.size)
    starts = scaled_to_energy(wanted.activation, modes.starts, np.repeat(wanted.energy[sets], len(numbers)))
    return modes._replace(starts=starts)


def _window(wanted: Wanted, window: Window) -> Window:
    slowest = float(wanted.targets.min())
    return window.longer(2 ** max(0, int(np.ceil(np.log2(SLOW / slowest)))))


def _looked_at(wanted: Wanted, owner: np.ndarray, modes: Modes, linear: np.ndarray, window: Window) -> Candidates:
    """Candidates as a run sees them."""
    values, scatter = measured(modes, linear, wanted.activation, _window(wanted, window))
    targets = wanted.targets[owner]
    wander, misfit = (np.max(np.abs(part) / targets, axis=1) for part in (scatter, values - targets))
    # What cannot be measured is no candidate.
    wander, misfit = (np.where(np.isfinite(part), part, np.inf) for part in (wander, misfit))
    return Candidates(owner, modes, linear, values, wander, misfit)


def _first_look(wanted: Wanted, sets: np.ndarray, numbers: np.ndarray) -> Candidates:
    """The frames with these numbers after rescaling, only those that wander least."""
    owner = np.repeat(sets, len(numbers))
    modes, linear = _drawn(wanted, sets, numbers), wanted.targets[owner]
    for window in (SHORT,) * RESCALINGS + (MIDDLE,):
        seen = _looked_at(wanted, owner, modes, linear, window)
        linear = _rescaled(linear, wanted.targets[owner] / seen.frequencies)
    order = np.argsort(seen.wander.reshape(len(sets), -1), axis=1)[:, :KEPT]
    return seen.take((order + len(numbers) * np.arange(len(sets))[:, None]).ravel())


def _rescaled(linear: np.ndarray, factors: np.ndarray) -> np.ndarray:
    factors = np.where(np.isfinite(factors), np.clip(factors, 0.25, 16), 1)
    return np.clip(linear * factors, 1e-3 * linear, FASTEST_LINEAR)


def _corrected(wanted: Wanted, seen: Candidates) -> Candidates:
    """Newton's method over the long window; of each candidate the step that came nearest."""
    targets = wanted.targets[seen.owner]
    jacobian = np.einsum("mi,ij->mij", seen.frequencies / seen.linear, np.eye(targets.shape[1]))
    best = seen._replace(misfit=np.full(len(targets), np.inf))
    for _ in range(NEWTON_STEPS):
        move = np.einsum("mij,mj->mi", np.linalg.pinv(jacobian), targets - seen.frequencies)
        move = np.clip(move, -LARGEST_STEP * seen.linear, LARGEST_STEP * seen.linear)
        linear = np.minimum(seen.linear + move, FASTEST_LINEAR)
        new = _looked_at(wanted, seen.owner, seen.modes, linear, LONG)
        jacobian = _updated(jacobian, linear - seen.linear, new.frequencies - seen.frequencies)
        seen = new
        nearer = new.badness < best.badness
        best = Candidates(best.owner, best.modes, *(_where(nearer, new[k], best[k]) for k in range(2, 6)))
        good = np.unique(best.owner[best.misfit <= 0.1 * np.maximum(wanted.tolerance, best.wander)])
        if len(good) == len(np.unique(best.owner)):
            break
    return best


def _where(condition: np.ndarray, new: Any, old: Any) -> np.ndarray:
    return np.where(condition[:, None] if new.ndim == 2 else condition, new, old)


def _updated(jacobian: np.ndarray, moved: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Broyden: the nearest matrix that takes the last step to what it did; left alone where that is not finite."""
    length = np.sum(moved * moved, axis=1)
    unexplained = changed - np.einsum("mij,mj->mi", jacobian, moved)
    update = np.einsum("mi,mj->mij", unexplained, moved) / np.where(length > 0, length, 1)[:, None, None]
    return jacobian + np.where(np.isfinite(update), update, 0)


def _best(candidates: Candidates, sets: np.ndarray, count: int) -> Candidates:
    """The `count` best of each set, which lie side by side."""
    order = np.argsort(candidates.badness.reshape(len(sets), -1), axis=1)[:, :count]
    each = len(candidates.owner) // len(sets)
    return candidates.take((order + each * np.arange(len(sets))[:, None]).ravel())


def _described(best: Candidates) -> dict[str, Any]:
    return dict(
        planes=best.modes.planes,
        starts=best.modes.starts,
        linear=best.linear,
        frequencies=best.frequencies,
        misfit=best.misfit,
        wander=best.wander,
    )


def _verified(wanted: Wanted, found: Found, tried: Candidates) -> Candidates:
    """Measure candidates in another way, and write down those that are better than what there is; rescaled for more."""
    if not len(tried.owner):
        return tried
    seen = _looked_at(wanted, tried.owner, tried.modes, tried.linear, VERIFYING)
    better = seen.badness < found.error[tried.owner]
    found.put(tried.owner, better, {**_described(tried), "frequencies": seen.frequencies, "error": seen.badness})
    return seen._replace(linear=_rescaled(seen.linear, wanted.targets[seen.owner] / seen.frequencies))
