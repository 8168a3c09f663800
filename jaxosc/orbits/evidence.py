"""What a verdict on orbits rests on: runs of many members, longer ones for those that the shorter leave in doubt.

Every network runs in a time of its own, with its weight, bias and leak multiplied by its unit of time: so one step
size and one number of steps serve networks of all speeds. A *turn*, 2 pi times the root mean square of y - mean over
that of y', is the unit: the period of a harmonic oscillation, and near the mean period of any other.

The host decides between compiled calls who needs more. Members are gathered, padded to one of a few batch sizes so
that nothing is compiled twice, run, and their results put back.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..fields import AbstractField, RateRNN
from ..simulate.chunks import in_chunks
from ..solvers import Lanes, PoissonSplitting, lanes_of
from ..solvers.facts import Facts, facts_of
from ..solvers.lanes import own_axes
from ..structure.hidden_skewness import best_scaling, skew_defect
from .growth import grow, schedule_of
from .motion import Motion, watch
from .runs import frame_of
from .tangents import solver_for, tangent_step_of

QUARTER = 0.25
"""The largest dt times spectral norm: transitions of saturated neurons last 1/norm."""

LEAST_STEPS, MOST_STEPS = 64, 1 << 16
"""A turn has at least so many steps, for the cubic of a return, half of that where nobody asks for returns; and never
more than so many."""

FIRST_TURNS = 16
"""Turns of the fastest linear mode in the first stretch; a later one is as long as all before it together."""

RETURN_TURNS = 64
"""For two returns of a period of up to 32 turns."""

SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class System:
    """Members side by side: networks of the current form or one vector field, and what their values say.

    **Attributes:** `networks`, `Lanes` or f(t, y, args); `solver`, and `tangent_solver` for deviations; `starts` (n,
    members); `dt`, the largest step or None. Of each member: `fastest`, the largest rate of its network; `conserves`:
    an energy; `bound`: on a bounded level set of it for ever; `closed`: on a curve at that; `decays`: a leak takes
    energy and nothing gives any; `rank` of W.
    """

    networks: Any
    args: Any
    solver: Any
    tangent_solver: Any
    starts: Float[Array, "n members"]
    dt: Any
    fastest: Float[np.ndarray, " members"]
    conserves: Bool[np.ndarray, " members"]
    bound: Bool[np.ndarray, " members"]
    closed: Bool[np.ndarray, " members"]
    decays: Bool[np.ndarray, " members"]
    rank: Int[np.ndarray, " members"]
    escape_norm: float

    @property
    def count(self) -> int:
        """How many members."""
        return int(self.starts.shape[-1])

    @property
    def has_weights(self) -> bool:
        """Whether these are networks."""
        return isinstance(self.networks, Lanes)

    @property
    def eps(self) -> float:
        """Of the states' dtype."""
        return float(jnp.finfo(self.starts.dtype).eps)


def network_system(field: AbstractField, starts: Any, dt: Any, solver: Any, escape_norm: float) -> System:
    """Of networks with one leading batch axis (or one for all) and starts (members, n)."""
    facts = facts_of(field)
    lanes, x, singular = _current_form(field, starts, facts)
    known = {name: np.broadcast_to(values, x.shape[-1]) for name, values in _known(field, lanes, singular).items()}
    keeps = facts.hollow and facts.skew and not facts.leaks and lanes.bias is None
    # Where nothing is kept, a Runge-Kutta method is as good; splitting a diagonal takes a minute to compile.
    usual = (PoissonSplitting(4), PoissonSplitting(2)) if keeps else (diffrax.Tsit5(), diffrax.Tsit5())
    return System(
        networks=lanes,
        args=None,
        solver=usual[0] if solver is None else solver,
        tangent_solver=usual[1] if solver is None else solver,
        starts=x,
        dt=dt,
        escape_norm=escape_norm,
        **known,
    )


def function_system(field: Any, starts: Any, dt: Any, solver: Any, args: Any, escape_norm: float) -> System:
    """Of one vector field and starts (members, n)."""
    count, solver = len(starts), solver_for(field, solver)
    nothing = np.zeros(count, bool)
    return System(
        networks=field,
        args=args,
        solver=solver,
        tangent_solver=solver,
        starts=jnp.asarray(starts).T,
        dt=dt,
        fastest=np.ones(count),
        conserves=nothing,
        bound=nothing,
        closed=nothing,
        decays=nothing,
        rank=np.full(count, starts.shape[-1]),
        escape_norm=escape_norm,
    )


@eqx.filter_jit
def _current_form(field: AbstractField, starts: Array, facts: Facts) -> tuple[Lanes, Array, Array]:
    """The lanes with y = W r + b in the place of r, starts (n, members), and the spectral norms of W."""
    lanes, x = lanes_of(field, facts), jnp.asarray(starts).T
    if isinstance(field, RateRNN):
        x = lanes.preactivation(x)
        pull = None if lanes.bias is None or lanes.leak is None else lanes.leak[None] * lanes.bias
        lanes = dataclasses.replace(lanes, form="current", bias=pull)
    # The energy is not asked for.
    lanes = dataclasses.replace(lanes, energy_weights=None, energy_shift=None)
    return lanes, x, jnp.linalg.svd(jnp.moveaxis(lanes.matrix, -1, 0), compute_uv=False)


def _known(field: AbstractField, lanes: Lanes, singular: Array) -> dict[str, np.ndarray]:
    """What theory says of each network, (networks,) or (1,)."""
    matrix = np.asarray(lanes.matrix)
    square = np.moveaxis(matrix, -1, 0).astype(np.float64)
    values = np.asarray(singular, np.float64)
    tolerance = 100 * len(matrix) * float(np.finfo(matrix.dtype).eps)
    scaling = best_scaling(square)
    sane = np.abs(np.log(scaling.d)).max(axis=-1) < 50
    conservative = (skew_defect(square) <= tolerance) | ((skew_defect(scaling.scaled) <= tolerance) & sane)
    leak = np.asarray(field.leak, np.float64)
    plain = lanes.bias is None and field.activation.odd is True and field.activation.monotone is True
    bound = conservative & (leak == 0) & plain
    rank = (values > tolerance * np.maximum(values[:, :1], 1e-300)).sum(axis=-1)
    fastest = np.maximum(values[:, 0], np.abs(leak))
    fastest = np.where(fastest > 0, fastest, 1.0)
    decays = conservative & (leak > 0) & plain
    return {
        "fastest": fastest,
        "conserves": np.broadcast_to(conservative & (leak == 0), bound.shape),
        "bound": bound,
        "closed": bound & (rank == 2),
        "decays": decays,
        "rank": np.broadcast_to(rank, bound.shape),
    }


def _paced(networks: Any, unit: Array) -> Any:
    """The networks in units of time of their own; a function stays as it is."""
    if not isinstance(networks, Lanes):
        return networks
    gain = unit if networks.gain is None else unit * networks.gain
    bias = None if networks.bias is None else networks.bias * unit[None]
    leak = None if networks.leak is None else networks.leak * unit
    return dataclasses.replace(networks, gain=gain, bias=bias, leak=leak)


@eqx.filter_jit
def _watched(
    networks: Any, x: Array, unit: Array, solver: Any, args: Any, dt: Array, steps: Array, close: Array, escape: Array
) -> Motion:
    def run(networks: Any, stacked: Array) -> Motion:
        return watch(networks, stacked[:-1], solver, args, 0.0, dt, steps, stacked[-1], escape)

    networks, stacked = _paced(networks, unit), jnp.concatenate([x, close[None]])
    return in_chunks(run, networks, stacked) if isinstance(networks, Lanes) else run(networks, stacked)


@eqx.filter_jit
def _grown(networks: Any, x: Array, unit: Array, solver: Any, args: Any, schedule: Any, escape: Array) -> Any:
    """Mean MEGNO, the growth per unit of time over the second half, log GALI_2, and the result."""
    frame = frame_of(None, len(x), 2, x.dtype) if len(x) > 1 else frame_of(None, 1, 1, x.dtype)
    growth = grow(
        _paced(networks, unit), x, frame, solver, schedule, escape, args=args, samples=SAMPLES, orthogonal=False,
        allow_native=True,
    )  # fmt: skip
    # t Y / 2 is the integral of s d(log |v|): its increments over the time in the middle are those of log |v|.
    number = jnp.arange(1, SAMPLES + 1, dtype=x.dtype)[:, None]
    weighted = growth.megno * number / 2
    increments = jnp.diff(weighted, axis=0) / (number[1:] - 0.5)
    half = SAMPLES // 2
    rate = jnp.mean(increments[-half:], axis=0) / schedule.duration()
    return growth.mean_megno[-1], rate, jnp.sum(growth.logs[-1], axis=0), growth.result


@eqx.filter_jit
def _recorded(
    networks: Any, x: Array, unit: Array, solver: Any, args: Any, dt: Array, every: Array, samples: int
) -> Float[Array, "lanes samples n"]:
    """States after every so many steps."""
    paced = _paced(networks, unit)
    step = tangent_step_of(paced, solver, args)
    nothing = jnp.zeros((len(x), 1, x.shape[-1]), x.dtype)

    def sample(x: Array, _: None) -> tuple[Array, Array]:
        x = jax.lax.fori_loop(0, every, lambda _, x: step(0.0, dt, x, nothing)[0], x)
        return x, x

    return jnp.moveaxis(jax.lax.scan(sample, x, length=samples)[1], -1, 0)


class Runs:
    """Runs of any of the members of a system, each in a clock of its own."""

    def __init__(self, system: System):
        self.system = system

    def watch(
        self, who: np.ndarray, x: np.ndarray, unit: np.ndarray, turns: float, close: Any = None
    ) -> dict[str, Any]:
        """A stretch of `turns` units from the states x (n, who): the attributes of `Motion`, times in units.

        `close`: the limit (who,) of a return that counts, None where nobody asks.
        """
        system = self.system
        least = LEAST_STEPS // 2 if close is None else LEAST_STEPS
        close = np.zeros(len(who)) if close is None else close

        def run(networks: Any, parts: dict[str, Array], unit: Array, clock: Any, steps: int) -> Any:
            number, dt = jnp.asarray(round(turns * steps), jnp.int32), jnp.asarray(clock / steps, parts["x"].dtype)
            escape = jnp.asarray(system.escape_norm, dt.dtype)
            done = _watched(networks, parts["x"], unit, system.solver, system.args, dt, number, parts["close"], escape)
            return {f.name: getattr(done, f.name) for f in dataclasses.fields(done)}

        return self._each_pace(who, unit, {"x": x, "close": close}, run, least)

    def grow(self, who: np.ndarray, x: np.ndarray, unit: np.ndarray, turns: float) -> dict[str, np.ndarray]:
        """Growth of two deviations over so many units: mean MEGNO, rate per unit, log GALI_2, result."""
        system = self.system

        def run(networks: Any, parts: dict[str, Array], unit: Array, clock: Any, steps: int) -> Any:
            x = parts["x"]
            every = max(1, steps // 10)
            plan = schedule_of(0.0, float(turns * clock), clock / steps, 0.0, SAMPLES, every).cast(x.dtype)
            escape = jnp.asarray(system.escape_norm, x.dtype)
            megno, rate, gali, result = _grown(networks, x, unit, system.tangent_solver, system.args, plan, escape)
            return {"megno": megno, "rate": rate * clock, "gali": gali, "result": result}

        return self._each_pace(who, unit, {"x": x}, run)

    def record(self, who: np.ndarray, x: np.ndarray, unit: np.ndarray, samples: int, per_unit: int) -> np.ndarray:
        """States (who, samples, n), `per_unit` of them in a unit of time."""
        system = self.system

        def run(networks: Any, parts: dict[str, Array], unit: Array, clock: Any, steps: int) -> Any:
            dt = jnp.asarray(clock / steps, parts["x"].dtype)
            every = jnp.asarray(max(1, steps // per_unit), jnp.int32)
            ys = _recorded(networks, parts["x"], unit, system.solver, system.args, dt, every, samples)
            return {"ys": jnp.moveaxis(ys, 0, -1)}

        return np.moveaxis(self._each_pace(who, unit, {"x": x}, run)["ys"], -1, 0)

    def _each_pace(
        self,
        who: np.ndarray,
        unit: np.ndarray,
        parts: dict[str, Any],
        run: Callable[..., Any],
        least: int = LEAST_STEPS,
    ) -> dict[str, np.ndarray]:
        """`run` of the members `who`, those together that need as many steps in a unit; results with them last."""
        system, found = self.system, {}
        steps = self._steps(who, unit, least)
        for pace in np.unique(steps):
            mine = np.flatnonzero(steps == pace)
            size = padded(len(mine), system.count)
            chosen = np.concatenate([mine, np.full(size - len(mine), mine[0])])
            networks = _taken(system.networks, who[chosen])
            given = {name: jnp.asarray(part[..., chosen]) for name, part in parts.items()}
            dtype = system.starts.dtype
            clock = 1.0 if system.has_weights else float(np.median(unit[mine]))
            done = run(networks, given, jnp.asarray(unit[chosen], dtype), clock, int(pace))
            for name, values in done.items():
                values = np.asarray(values)[..., : len(mine)]
                if name not in found:
                    found[name] = np.zeros((*values.shape[:-1], len(who)), values.dtype)
                found[name][..., mine] = values
        return found

    def _steps(self, who: np.ndarray, unit: np.ndarray, least: int) -> np.ndarray:
        """Steps in a unit of time: a power of two."""
        system = self.system
        if not system.has_weights:
            unit = np.full(len(who), np.median(unit))
            return np.clip(np.ceil(unit / system.dt), LEAST_STEPS // 4, MOST_STEPS).astype(int)
        wanted = np.maximum(unit * system.fastest[who] / QUARTER, least)
        if system.dt is not None:
            wanted = np.maximum(wanted, unit / system.dt)
        return np.minimum(2 ** np.ceil(np.log2(wanted)), MOST_STEPS).astype(int)


def padded(count: int, most: int) -> int:
    """The batch size in which `count` members run: `most`, an eighth of it, and so on."""
    size = most
    # Eight lanes take as long as one.
    while size >= 64 and -(-size // 8) >= count:
        size = -(-size // 8)
    return size


def _taken(networks: Any, numbers: np.ndarray) -> Any:
    """The lanes of these numbers; what all share stays whole."""
    if not isinstance(networks, Lanes):
        return networks
    places = jnp.asarray(numbers)
    return jax.tree.map(
        lambda axis, array: array if axis is None else jnp.take(array, places, axis=-1),
        own_axes(networks),
        networks,
        is_leaf=lambda leaf: leaf is None,
    )
