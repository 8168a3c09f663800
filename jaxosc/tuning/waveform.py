"""`fit_waveform`: a network that plays a given signal by itself, and goes on playing when the data have ended."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from ..activations import AbstractActivation, Tanh
from ..fields import CurrentRNN, require_size
from ..simulate import Reversible, simulate
from ..solvers import PoissonSplitting
from ..weights import Symmetrizable
from .progress import Watch
from .waveform_lines import block_for, block_means
from .waveform_loss import Samples, Unknowns, states_at
from .waveform_result import Waveform, lines_of_free_run, readings, states_at_times
from .waveform_search import HORIZONS, Found, search
from .waveform_start import Candidate, candidates

METHODS = ("least_squares", "adam")

LEAST_SAMPLES = 16

STEP = 0.25
"""dt |W| of the default: order 4 then keeps the energy to 1e-7 and turns 5e-8 too slowly, which is fitted away."""

SURPLUS = 10.0
"""How much better (in units of a log likelihood, twice) a network of more unknowns has to be for its own sake."""


def fit_waveform(
    field: Any,
    y0: Any,
    ts: Any,
    target: Any,
    *,
    neurons: int | None = None,
    periodic: bool | float | None = None,
    amplitudes: tuple[float, ...] = (0.01, 1.0),
    activation: Any = None,
    method: str = "least_squares",
    horizons: tuple[float, ...] | None = None,
    max_steps: int | None = None,
    learning_rate: float = 0.02,
    solver: Any = None,
    dt: Any = None,
    progress: bool | None = None,
) -> Waveform:
    """A skew network with a linear readout whose own run is the signal `target`: nothing drives it.

    `fit_waveform(None, None, ts, target)` builds the network: lines of the data by nonlinear least squares, a plane of
    rotation for each, then everything improved through the run of the network itself. With a field and a start it
    improves these, weights, bias and start alike. Readout and offset follow by linear least squares in every step.

    **What fits.** A sum of at most n/2 waves, to what the noise allows (frequencies to the bound of Cramer and Rao),
    and a periodic signal up to its harmonic n/2 (`periodic=True`): networks at small amplitude, where tanh is all but
    linear. From amplitude 1 on every plane brings odd harmonics of fixed proportion (tending to a triangle), which
    saves neurons for waveforms that have them. No network of this kind decays, grows, has a trend or forgets its phase:
    a signal that does is fitted by its mean behaviour.

    **Arguments:**

    - `field`, `y0` (n,): a `jo.CurrentRNN` with skew (or `Symmetrizable`) weight, odd increasing activation, no leak
      and no drive, and its state at ts[0]; or None and None.
    - `ts`: (times,) at least 16, equally spaced (to 1e-3 of the spacing) and ascending. `target`: (times,) or (times,
      channels); channels count by their own deviations. Samples more than 64 to the shortest period are averaged in
      blocks for the search; readout, offset and error are of all samples.
    - `neurons`: of a network to be built, 2 for each line; None takes as many as lines stand out of white noise (at
      most 32, or 64 with `periodic`). Fewer are built where the signal has fewer lines.
    - `periodic`: True keeps frequencies at multiples of one, which alone is fitted; a number does so with the one that
      fits best within a fifth of it (in cycles per unit of time): the best of all may be a third of the one that is
      meant. False leaves each free; None tries both and takes what the Bayesian information criterion prefers.
    - `amplitudes`: at which networks to be built begin; each is tried, and a larger one has to earn its unknowns by the
      same criterion. `activation`: theirs, odd and increasing; `jo.Tanh()` if None.
    - `method`: "least_squares" (Levenberg-Marquardt, forward derivatives, one per unknown) or "adam" (`learning_rate`,
      reversible gradients: memory and time of a step do not grow with the number of unknowns).
    - `horizons`: rising shares of the data, the last 1; None is all at once for networks built here, whose frequencies
      are right already, and 1/8, 1/4, 1/2, 1 for others.
    - `max_steps`: of the search, over all horizons; None is 200, or 2,000 of Adam.
    - `solver`: fixed steps that conserve, `jo.solvers.PoissonSplitting(4)` if None. `dt`: taken smaller until it
      divides the spacing (of blocks, where samples are averaged); None is 0.25 over the largest frequency.
    - `progress`: see `jo.tuning.tune_frequency`: None tells after two seconds, True at once, False never.

    **Returns:** a `Waveform`; `reason` says what was chosen and how the search ended. The best network found is kept.

    **Raises:** `JaxoscError` for times not equally spaced, NaN, a constant target, a field that would not conserve its
    energy or have bounded orbits, and options that do not fit together.
    """
    ts, target = _checked_data(ts, target)
    _check_options(method, horizons, amplitudes, neurons, periodic, max_steps, learning_rate, dt)
    spacing = float(ts[-1] - ts[0]) / (len(ts) - 1)
    scale = target.std(axis=0)
    signal = (target - target.mean(axis=0)) / scale
    solver = PoissonSplitting(4) if solver is None else solver
    given = field is not None or y0 is not None
    if given:
        tried = [_given(field, y0, neurons, periodic, activation)]
    else:
        activation = _checked_activation(Tanh() if activation is None else activation)
        dtype = jnp.result_type(float)
        tried = candidates(signal, spacing, neurons, periodic, amplitudes, activation, dtype)
    if horizons is None:
        horizons = HORIZONS if given else (1.0,)
    steps = max_steps if max_steps is not None else (2000 if method == "adam" else 200)
    adjoint = Reversible() if method == "adam" else None
    # Rounded up to fourths of an octave: data of nearly the same speed then share steps, and compiled programs.
    speed = 2 ** (math.ceil(4 * math.log2(max(_speed(one.field) for one in tried))) / 4)
    block = block_for(spacing, speed / (2 * math.pi), len(signal))
    problem = _Problem(signal, spacing, block, solver, dt, adjoint, given)
    results = []
    for candidate in tried:
        with Watch(progress, "fitting", steps) as watch:
            samples, unknowns = problem.posed(candidate, speed)
            found = search(samples, unknowns, method, horizons, steps, learning_rate, watch)
            results.append((candidate, samples, unknowns, found))
    chosen = _chosen(results, signal.shape[1])
    why = "" if len(tried) == 1 else f", the best of {len(tried)} by the information criterion"
    return _played(*results[chosen], problem, ts, target, why)


class _Problem(eqx.Module):
    """The data as the search sees them: deviations of one, means of blocks."""

    signal: np.ndarray
    spacing: float
    block: int
    solver: Any
    dt: Any
    adjoint: Any
    given: bool

    @property
    def lead(self) -> float:
        """From the first sample to the middle of the first block."""
        return (self.block - 1) / 2 * self.spacing

    def posed(self, candidate: Candidate, speed: float) -> tuple[Samples, Unknowns]:
        """Samples in steps that suit that speed, and the unknowns of a network, from the middle of the first block."""
        gap = self.block * self.spacing
        largest = STEP / speed if self.dt is None else float(self.dt)
        every = max(1, math.ceil(gap / largest - 1e-9))
        means = jnp.asarray(block_means(self.signal, self.block), candidate.y0.dtype)
        mask = jnp.ones(len(means), means.dtype)
        samples = Samples(means, mask, gap / every, every, self.solver, self.adjoint)
        y0 = moved(candidate.field, candidate.y0, self.lead, samples) if self.given else candidate.y0
        duration = samples.duration
        return samples, Unknowns(candidate.field, y0, duration, candidate.gain_only, candidate.with_start)


def moved(field: CurrentRNN, y0: Array, by: float, samples: Samples) -> Float[Array, " n"]:
    """The state a time `by` later, or earlier where that is negative."""
    if by == 0:
        return y0
    return simulate(field, y0, t1=by, dt=samples.dt, solver=samples.solver, throw=False).ys[-1]


def _chosen(results: list[tuple[Candidate, Samples, Unknowns, Found]], channels: int) -> int:
    """Least n log(error^2) + unknowns log(n), n the number of samples that the fastest network can tell apart."""
    fastest = max(_speed(candidate.field) for candidate, *_ in results) / (2 * math.pi)
    scores = []
    for number, (candidate, samples, unknowns, found) in enumerate(results):
        count = min(len(samples.values), math.ceil(4 * fastest * samples.duration)) * channels
        linear = (candidate.field.size + 1) * channels
        likelihood = count * math.log(max(found.error, 1e-7) ** 2) if math.isfinite(found.error) else math.inf
        surplus = SURPLUS if number and not candidate.gain_only else 0.0
        scores.append(likelihood + (len(unknowns.start) + linear) * math.log(count) + surplus)
    return int(np.argmin(scores))


def _played(
    candidate: Candidate,
    samples: Samples,
    unknowns: Unknowns,
    found: Found,
    problem: _Problem,
    ts: np.ndarray,
    target: np.ndarray,
    why: str,
) -> Waveform:
    """The result: the start moved to ts[0], readout and offset from all samples, and the lines of a free run."""
    field, middle = unknowns.network(found.z)
    y0 = moved(field, middle, -problem.lead, samples)
    if problem.block == 1:
        states = states_at(field, y0, samples)
    else:
        states = states_at_times(field, y0, ts - ts[0], samples.dt, samples.solver)
    columns = np.concatenate([np.asarray(states, np.float64), np.ones((len(ts), 1))], axis=1)
    size = np.linalg.norm(columns, axis=0)
    weights = np.linalg.lstsq(columns / size, target)[0] / size[:, None]
    readout, offset = jnp.asarray(weights[:-1].T, y0.dtype), jnp.asarray(weights[-1], y0.dtype)
    rest = np.asarray(readings(states, readout, offset), np.float64) - target
    error = math.sqrt(np.mean(np.mean(rest**2, axis=0) / target.var(axis=0)))
    waveform = Waveform(
        field=field,
        y0=y0,
        readout=readout,
        offset=offset,
        t0=float(ts[0]),
        t1=float(ts[-1]),
        spacing=problem.spacing,
        dt=samples.dt,
        solver=samples.solver,
        history=jnp.asarray(found.history, y0.dtype),
        error=jnp.asarray(error, y0.dtype),
        frequencies=jnp.zeros(0, y0.dtype),
        reason=f"{candidate.words}{why}; {found.stopped}",
    )
    return eqx.tree_at(lambda w: w.frequencies, waveform, lines_of_free_run(waveform))


def _speed(field: CurrentRNN) -> float:
    """The largest angular frequency of the linear network, where the activation has slope 1."""
    return float(np.linalg.norm(np.asarray(field.weight.matrix(), np.float64), 2))


def _given(field: Any, y0: Any, neurons: Any, periodic: Any, activation: Any) -> Candidate:
    if field is None or y0 is None:
        missing = "field" if field is None else "y0"
        raise JaxoscError(f"Got no {missing}, expected field and y0, or None for both: pass the {missing}.")
    if not isinstance(field, CurrentRNN) or field.batch_shape:
        raise JaxoscError(
            f"Got {type(field).__name__} with batch shape {getattr(field, 'batch_shape', None)}, expected one"
            " jo.CurrentRNN: the rate form has the same orbits in y = W r + b."
        )
    for name, value in (("neurons", neurons), ("periodic", periodic), ("activation", activation)):
        if value is not None:
            raise JaxoscError(f"Got {name} = {value!r} and a field, expected one of them: the field says it already.")
    if not (field.weight.skew or isinstance(field.weight, Symmetrizable)):
        raise JaxoscError(
            f"Got a {type(field.weight).__name__} weight, expected a skew one: the free run of another may die or blow"
            " up; take jo.weights.DenseSkew."
        )
    if field.drive is not None or float(jnp.max(jnp.abs(field.leak))) != 0:
        raise JaxoscError("Got a field with drive or leak, expected neither: they end the conservation of the energy.")
    _checked_activation(field.activation)
    start = jnp.asarray(y0, field.dtype)
    require_finite("y0", start)
    require_size(field, start)
    if start.ndim != 1 or not bool(jnp.any(field.weight.matvec(field.activation(start)) != 0)):
        raise JaxoscError(f"Got y0 of shape {start.shape}, expected one start (n,) that is not at rest.")
    return Candidate(field, start, False, True, f"the given {type(field.weight).__name__} network")


def _checked_activation(activation: Any) -> AbstractActivation:
    if not isinstance(activation, AbstractActivation) or not (activation.odd and activation.monotone):
        raise JaxoscError(
            f"Got the activation {activation!r}, expected an odd increasing one such as jo.Tanh(): only these keep"
            " every orbit bounded."
        )
    return activation


def _checked_data(ts: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    if not is_concrete((ts, target)):
        raise JaxoscError("Got traced data, expected arrays: call fit_waveform outside jit, grad and vmap.")
    ts, target = np.asarray(ts, np.float64), np.asarray(target, np.float64)
    if target.ndim == 1:
        target = target[:, None]
    if ts.ndim != 1 or target.ndim != 2 or len(target) != len(ts) or not target.shape[1]:
        raise JaxoscError(
            f"Got ts of shape {ts.shape} and target of shape {target.shape}, expected (times,) and (times,) or (times,"
            " channels)."
        )
    if len(ts) < LEAST_SAMPLES:
        raise JaxoscError(f"Got {len(ts)} samples, expected at least {LEAST_SAMPLES}: take a longer record.")
    require_finite("ts", ts)
    require_finite("target", target)
    gaps = np.diff(ts)
    if gaps.min() <= 0 or np.ptp(gaps) > 2e-3 * gaps.mean():
        raise JaxoscError(
            f"Got times whose spacing goes from {gaps.min():.6g} to {gaps.max():.6g}, expected equally spaced ascending"
            " ones: interpolate the target first, np.interp(even_ts, ts, target)."
        )
    constant = np.flatnonzero(target.std(axis=0) <= 1e-12 * np.abs(target).max(axis=0))
    if constant.size:
        raise JaxoscError(f"Got channel {constant[0]} of the target constant, expected one that moves: drop it.")
    return ts, target


def _check_options(
    method: Any, horizons: Any, amplitudes: Any, neurons: Any, periodic: Any, max_steps: Any, rate: Any, dt: Any
) -> None:
    if method not in METHODS:
        raise JaxoscError(f"Got method = {method!r}, expected one of {', '.join(METHODS)}.")
    shares = (1.0,) if horizons is None else tuple(horizons)
    if not shares or min(shares) <= 0 or shares[-1] != 1 or (np.diff(shares) <= 0).any():
        raise JaxoscError(f"Got horizons = {horizons}, expected rising shares of the data that end with 1.")
    if not tuple(amplitudes):
        raise JaxoscError("Got no amplitudes, expected one at least, such as (0.01,).")
    require_positive("amplitudes", np.asarray(amplitudes, float))
    require_positive("learning_rate", rate)
    if dt is not None:
        require_positive("dt", dt)
    for name, value, least in (("neurons", neurons, 2), ("max_steps", max_steps, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise JaxoscError(f"Got {name} = {value!r}, expected a whole number >= {least}, or None.")
    if not isinstance(periodic, bool | None):
        require_positive("periodic", periodic, " cycles per unit of time")
