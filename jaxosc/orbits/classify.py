"""Which kind an orbit is of, with the evidence: `classify`.

The questions, in the order in which one answer would be mistaken for another:

1. Does it rest, leave, collapse or settle? Where theory binds an orbit to a bounded level set (hidden or plain
   skewness, odd increasing sigma, no leak and no bias) none of these can happen. Others are
   followed over stretches that double the time, which is their transient too.
2. Does it close? A network of rank 2 that is so bound moves on closed curves. Others must return twice to within 1e-5
   of the size of their orbit.
3. Do deviations grow? Mean MEGNO, the largest exponent over the second half and GALI_2 after 300 turns. Where they
   doubt or disagree, four times as long, twice. What grows is chaotic, the rest quasi-periodic.

Source: Cincotta and Simo 2000 (MEGNO), Skokos, Bountis, Antonopoulos 2007 (GALI); indicators.py names them in full.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from .._results import ORBITS
from ..fields import AbstractField
from ..simulate.engine import DEFAULT_ESCAPE_NORM
from ..simulate.members import pair_members
from ..simulate.steppers import stepper_of
from .evidence import Runs, System, function_system, network_system, padded
from .lines import PER_TURN, SAMPLES, independent_lines
from .reasons import reason
from .starts import floating, require_count
from .verdicts import CODE_OF, METHODS, Effort, Findings, Rule, confidence, judge, otherwise

WIDTH = 512
"""Members that are recorded at once for their lines."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Classification:
    """What kind of orbit each member runs on, how sure that is, and why; print it.

    Every attribute has the batch axes of the members; of a single orbit they are plain numbers and words.

    **Attributes:**

    - `kind`: fixed_point | periodic | quasi_periodic | chaotic | escaping | collapsing | undecided. Collapsing is decay
      to zero, fixed_point rest anywhere else (or rest from the start).
    - `code`: int8, the number of the word in `jaxosc.orbits.ORBITS`, as in datasets of sweeps.
    - `confidence`: 0.5 on the border of the rule that decided, towards 1 far from it, 1 by a theorem; every method that
      says otherwise takes a fifth of it; 0 where undecided. It is no frequency of being right, but it orders verdicts.
    - `reason`: one sentence, made when it is asked for. `disagreement`: the methods that said otherwise, by name.
    - `num_frequencies`: 1 for periodic orbits, the number of independent lines for quasi-periodic ones, 0
      where nobody counted.
    - Evidence, NaN where a question was not asked: `turn` (2 pi rms|y - mean| / rms|y'|, in units of time, about the
      mean period), `size` (rms|y - mean|), `miss` (the smallest return to the start, relative to `size`), `period`,
      `megno` (mean), `exponent` (largest, per unit of time, over the second half), `log10_gali` (GALI_2), `turns` (how
      long deviations were followed), `result` (codes of `jo.Result`).
    """

    code: Any
    confidence: Any
    num_frequencies: Any
    turn: Any
    size: Any
    miss: Any
    period: Any
    megno: Any
    exponent: Any
    log10_gali: Any
    turns: Any
    result: Any
    found: Findings

    @property
    def kind(self) -> Any:
        """The word, or an array of words."""
        words = np.array(ORBITS)[self.code]
        return str(words) if np.ndim(self.code) == 0 else words

    @property
    def reason(self) -> Any:
        """A sentence, or an array of sentences."""
        return self._told(reason)

    @property
    def disagreement(self) -> Any:
        """Such as "megno, gali", empty where all agree; an array of these for a batch."""
        says = otherwise(self.found)
        return self._told(lambda found, k: ", ".join(np.array(METHODS)[says[k]]))

    def _told(self, sentence: Callable[[Findings, int], str]) -> Any:
        shape = np.shape(self.code)
        if not shape:
            return sentence(self.found, 0)
        return np.array([sentence(self.found, k) for k in range(len(self.found.rule))], object).reshape(shape)

    def __repr__(self) -> str:
        if np.ndim(self.code) == 0:
            return f"Classification({self.kind}, confidence {float(self.confidence):.2f}: {self.reason})"
        counts = np.bincount(np.ravel(self.code), minlength=len(ORBITS))
        parts = [f"{count:,} {word}" for word, count in zip(ORBITS, counts, strict=True) if count]
        return f"Classification of {np.size(self.code):,} orbits ({', '.join(parts)})"


def classify(
    field: Any,
    y0: Any,
    *,
    periods: Any = 300.0,
    dt: Any = None,
    solver: Any = None,
    pairing: str = "zip",
    longer: int = 2,
    transient: Any = None,
    tolerance: Any = None,
    lines: bool = True,
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
    args: Any = None,
) -> Classification:
    """Which kind of orbit every member of a batch runs on: see the module for how that is found.

    Of 3,237 orbits of known kind (`python -m benchmarks.orbit_classes`) 99.6 % are right and none is undecided. What it
    cannot know: chaos whose exponent is below about 1e-3 a turn, tori of period longer than 32 turns, and what an orbit
    does after the run. Cost: some 10^4 to 10^5 steps a member; `jo.configure_cpu()` makes deviations several times
    faster. It decides on the host who runs longer, so call it outside of `jax.jit`. Compiled once for each shape.

    **Arguments:**

    - `field`: `jo.CurrentRNN` or `jo.RateRNN`, with or without leading batch axes, not driven; or any autonomous
      function f(t, y, args) that gives (n,). The rate form is judged by y = W r + b: what lies in ker W is not seen.
    - `y0`: (n,) or (..., n) starts; `pairing`: of networks and starts, as in `jo.simulate`.
    - `periods`: for how many turns deviations are followed at first, > 0; `longer`: how often four times as long
      where methods doubt or disagree.
    - `dt`: the largest step, in units of time. None takes a 64th of a turn, less where the weight is faster. A function
      needs one.
    - `solver`: of fixed steps. None takes `jo.solvers.PoissonSplitting` for networks that conserve an energy, order 4
      for returns and 2 for deviations, and `diffrax.Tsit5()` for the rest.
    - `transient`: turns of the fastest linear mode that pass before anything counts, where theory does not bind the
      orbit to a level set; None: 256, and more for orbits that then still grow or shrink.
    - `tolerance`: of a return, relative to the size of the orbit; None: 1e-5, in float32 1e-4.
    - `lines`: whether the frequencies of quasi-periodic orbits are counted.
    - `escape_norm`: a state of that norm has left. `args`: handed to a function.

    **Returns:** a `Classification`.

    **Raises:** `JaxoscError` for wrong shapes, NaN, a driven network, a function without dt, and traced values.
    """
    _check(field, y0, periods, dt, longer, transient, tolerance, escape_norm, args)
    system, shape = _system(field, y0, dt, solver, pairing, escape_norm, args)
    tolerance = max(1e-5, 1e3 * system.eps) if tolerance is None else float(tolerance)
    effort = Effort(float(periods), longer, None if transient is None else float(transient), tolerance)
    found = judge(system, effort)
    counted = _frequencies(system, found) if lines else np.zeros(system.count, np.int32)
    counted = np.where(CODE_OF[found.rule] == ORBITS.index("periodic"), 1, counted).astype(np.int32)

    def placed(values: np.ndarray) -> Any:
        return values.reshape(shape) if shape else values[0]

    return Classification(
        code=placed(CODE_OF[found.rule]),
        confidence=placed(confidence(found, effort)),
        num_frequencies=placed(counted),
        turn=placed(found.turn),
        size=placed(found.size),
        miss=placed(found.miss),
        period=placed(found.period),
        megno=placed(found.megno),
        exponent=placed(found.exponent),
        log10_gali=placed(found.gali),
        turns=placed(found.turns),
        result=placed(found.result),
        found=found,
    )


def _check(
    field: Any, y0: Any, periods: Any, dt: Any, longer: Any, transient: Any, tolerance: Any, escape_norm: Any, args: Any
) -> None:
    if not is_concrete((field, y0, periods, dt, transient, tolerance, escape_norm, args)):
        raise JaxoscError(
            "Got traced values, expected concrete ones, since which members run longer is decided on the host: call"
            " classify outside of jax.jit and jax.vmap, with batch axes."
        )
    for name, value in (("periods", periods), ("escape_norm", escape_norm)):
        require_positive(name, value)
    for name, value in (("dt", dt), ("transient", transient), ("tolerance", tolerance)):
        if value is not None:
            require_positive(name, value)
    require_count("longer", longer, 0)
    if not isinstance(field, AbstractField):
        if dt is None:
            raise JaxoscError("Got a function without dt, expected a step size, as it tells no speed: pass dt=... .")
    elif field.drive is not None:
        raise JaxoscError("Got a driven network, expected an autonomous one, whose orbits have a kind: drop the drive.")


def _system(
    field: Any, y0: Any, dt: Any, solver: Any, pairing: str, escape_norm: Any, args: Any
) -> tuple[System, tuple[int, ...]]:
    if not isinstance(field, AbstractField):
        y0 = _start_of_function(field, y0)
        starts = y0.reshape(-1, y0.shape[-1])
        return function_system(field, starts, dt, solver, args, float(escape_norm)), y0.shape[:-1]
    if solver is not None:
        stepper_of(solver)
    members = pair_members(field, floating(field, "y0", y0), pairing)
    networks, starts = members.whole()
    return network_system(networks, starts, dt, solver, float(escape_norm)), members.batch_shape


def _start_of_function(field: Any, y0: Any) -> Array:
    if not callable(field):
        raise JaxoscError(
            f"Got the field {field!r}, expected a jo.CurrentRNN, a jo.RateRNN or a function f(t, y, args): pass one."
        )
    y0 = jnp.asarray(y0)
    y0 = y0 if jnp.issubdtype(y0.dtype, jnp.floating) else y0.astype(float)
    require_finite("y0", y0)
    if y0.ndim == 0 or 0 in y0.shape:
        raise JaxoscError(f"Got y0 of shape {y0.shape}, expected (..., n) with at least one start: pass one.")
    return y0


def _frequencies(system: System, found: Findings) -> np.ndarray:
    """Independent frequencies of the quasi-periodic members, 0 of the others."""
    counted, runs = np.zeros(system.count, np.int32), Runs(system)
    who = np.flatnonzero(found.rule == Rule.torus)
    for begin in range(0, len(who), WIDTH):
        mine = who[begin : begin + WIDTH]
        # The last one again and again, so that few sizes are compiled.
        wide = np.pad(mine, (0, padded(len(mine), min(system.count, WIDTH)) - len(mine)), mode="edge")
        ys = runs.record(wide, found.state[:, wide], found.turn[wide], SAMPLES, PER_TURN)
        # A torus of a conservative network has half the dimension of its symplectic leaf.
        most = np.where(system.bound[mine], system.rank[mine] // 2, len(found.state))
        counted[mine] = np.clip(independent_lines(ys, int(most.max()))[: len(mine)], 1, most)
    return np.where(found.rule == Rule.torus, np.maximum(counted, 1), 0)
