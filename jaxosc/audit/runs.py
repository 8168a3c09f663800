"""The runs of an audit: forward with windows and kept states, the same way back, and a shorter one for the volume.

A member that leaves, or that decays to nothing, is looked at again over the part before: there the law is, and there
all windows should be. Nothing is compiled again for that, since the number of steps is a traced number.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..simulate import LaneRun, Lanes, SaveTimes, run_lanes
from ..simulate.steppers import stepper_of
from .invariants import EnergyAndCasimirs, LogVolume
from .windows import Windowed, Windows, read_windows, windows_of

SAMPLES = 1024
"""States that are kept for what is measured per state."""

_GONE = 1e4  # times eps: an energy of less of its start has decayed, what is left of it is rounding
_ESCAPE_NORM = 1e6
_WORTH_ANOTHER_LOOK = 0.75  # of the run: with less of it to be seen, the rest only widens the windows
_MOST_WAYS_BACK = 4
_VOLUME_WORK = 2e7  # n^3 times steps: some seconds
_VOLUME_STEPS = (256, 20_000)
LOST = 0.1  # of the size of the orbit: two states this far apart have lost each other
_FEWEST_DISTANCES = 48


@dataclasses.dataclass(frozen=True)
class Case:
    """What is audited: one network, the same as one lane, its start, the solver and the step."""

    field: AbstractField
    lanes: Lanes
    y0: Float[Array, " n"]
    solver: Any
    dt: float

    @property
    def size(self) -> int:
        """The number of neurons n."""
        return self.lanes.size

    @property
    def eps(self) -> float:
        """Of the arithmetic of the run."""
        return float(jnp.finfo(self.y0.dtype).eps)


@dataclasses.dataclass(frozen=True)
class Forward:
    """The run forward: `num_steps` good steps, `failed` if it left before the end that was asked for.

    **Attributes:** `windows` of energy and Casimirs; `steps` (m,) and `states` (m, n) that were kept, from the start to
    the end.
    """

    num_steps: int
    failed: Result | None
    windows: Windowed
    steps: Int[np.ndarray, " m"]
    states: Float[np.ndarray, "m n"]


def run_forward(case: Case, casimirs: Float[np.ndarray, "k n"], num_steps: int) -> Forward:
    """Run `num_steps` steps, or as many as there is something to see."""
    measure = EnergyAndCasimirs(jnp.asarray(casimirs, case.y0.dtype))
    failed = None
    while True:
        steps = kept_steps(num_steps)
        run = _run(case, windows_of(measure, num_steps), case.y0, num_steps, steps, backward=False)
        good = int(run.num_steps[0])
        if good == 0:
            raise JaxoscError(
                f"Got dt = {case.dt:g} and a start from which the first step already ends as"
                f" {Result(int(run.result[0])).name}, expected a run to look at: take a smaller dt or another start."
            )
        if good < num_steps:
            failed, num_steps = Result(int(run.result[0])), good
            continue
        windows = read_windows(run.reduced, num_steps)
        seen = _until_gone(case, windows)
        if seen > _WORTH_ANOTHER_LOOK * num_steps:
            break
        num_steps = seen
    assert run.saved is not None
    return Forward(num_steps, failed, windows, steps, np.asarray(run.saved)[:, :, 0])


def kept_steps(num_steps: int) -> Int[np.ndarray, " m"]:
    """The start, the end, and one random step in each of `SAMPLES` equal stretches: a fixed stride would be aliased."""
    edges = np.linspace(0, num_steps, SAMPLES + 1)
    offsets = np.random.default_rng(0).random(SAMPLES) * np.diff(edges)
    steps = np.floor(edges[:-1] + offsets).astype(np.int64)
    steps[0] = 0
    return np.append(steps, num_steps)


@dataclasses.dataclass(frozen=True)
class WayBack:
    """Distances (m,) between the way back and the way forth, in units of the orbit's largest norm.

    `steps` (m,) were gone back to each, in ascending order from 1; `num_steps` is how far forth the way led, `start`
    the distance at its start, infinite if the way back left.
    """

    steps: Int[np.ndarray, " m"]
    distances: Float[np.ndarray, " m"]
    num_steps: int
    start: float


def run_back(case: Case, forward: Forward, casimirs: Float[np.ndarray, "k n"]) -> WayBack:
    """Go back from the end of the run, and again over a shorter way as long as it is lost before much can be seen."""
    found = _way_back(case, forward, casimirs)
    whole = found
    for _ in range(_MOST_WAYS_BACK):
        lost = np.flatnonzero(~(found.distances < LOST))
        if not lost.size or lost[0] >= _FEWEST_DISTANCES or found.num_steps <= SAMPLES:
            break
        shorter = max(int(found.steps[lost[0]]), SAMPLES)
        found = _way_back(case, run_forward(case, casimirs, min(shorter, found.num_steps - 1)), casimirs)
    return dataclasses.replace(found, start=whole.start)


def _way_back(case: Case, forward: Forward, casimirs: Float[np.ndarray, "k n"]) -> WayBack:
    measure = EnergyAndCasimirs(jnp.asarray(casimirs, case.y0.dtype))
    end = forward.num_steps
    last = jnp.asarray(forward.states[-1])
    back = (end - forward.steps)[::-1]
    run = _run(case, windows_of(measure, end), last, end, back, backward=True)
    assert run.saved is not None
    returned = np.asarray(run.saved)[:, :, 0]
    scale = np.linalg.norm(forward.states, axis=1).max()
    distances = np.linalg.norm(returned - forward.states[::-1], axis=1) / scale
    distances = np.where(back <= int(run.num_steps[0]), distances, np.inf)
    gone = back > 0
    steps, first = np.unique(back[gone], return_index=True)
    return WayBack(steps, distances[gone][first], end, float(distances[-1]))


def run_volume(case: Case, num_steps: int) -> Windowed:
    """The log of the volume in windows, over as many steps as are affordable."""
    fewest, most = _VOLUME_STEPS
    num_steps = min(num_steps, int(np.clip(_VOLUME_WORK / case.size**3, fewest, most)))
    measure = LogVolume(stepper_of(case.solver), jnp.asarray(case.dt, case.y0.dtype))
    run = _run(case, windows_of(measure, num_steps), case.y0, num_steps, None, backward=False)
    return read_windows(run.reduced, int(run.num_steps[0]))


def _run(case: Case, windows: Windows, start: Array, num_steps: int, steps: Any, *, backward: bool) -> LaneRun:
    t0, dt = (num_steps * case.dt, -case.dt) if backward else (0.0, case.dt)
    save = None if steps is None else SaveTimes(jnp.asarray(steps, jnp.int32))
    scalars = (jnp.asarray(t0, start.dtype), jnp.asarray(dt, start.dtype), jnp.asarray(num_steps, jnp.int32))
    return _compiled(case.lanes, start[:, None], case.solver, windows, scalars, save)


@eqx.filter_jit
def _compiled(
    lanes: Lanes,
    start: Float[Array, "n 1"],
    solver: Any,
    windows: Windows,
    scalars: tuple[Array, Array, Array],
    save: SaveTimes | None,
) -> LaneRun:
    t0, dt, num_steps = scalars
    return run_lanes(
        lanes, start, solver, (windows,), t0=t0, dt=dt, num_steps=num_steps, escape_norm=_ESCAPE_NORM, save=save
    )


def _until_gone(case: Case, windows: Windowed) -> int:
    """How many steps it takes until the energy is nothing but rounding; all of them if it never is."""
    left = np.abs(windows.start[0] + windows.high[:, 0])
    gone = np.flatnonzero(left < _GONE * case.eps * np.abs(windows.start[0]))
    return int(windows.steps[gone[0] if gone.size else -1])
