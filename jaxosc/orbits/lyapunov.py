"""Lyapunov exponents: how fast small deviations grow, one rate for each direction, per unit time.

Deviations are carried by the exact tangent map of the solver's own step (tangents.py) and made orthonormal again every
few steps; the exponents are the averages of the logarithms of what they had grown by. What is known of a network is
held against them:

- A conservative network (W = S diag(d) with skew S, no leak) has a tangent flow v' = W diag(sigma') v, which is
  Hamiltonian: exponents come in pairs +-lambda. A leak shifts all of them: lambda_i + lambda_{n+1-i} = -2 leak.
- Without leak and drive one exponent is zero along the flow and one for the energy, and one for every Casimir, that is
  dim ker W of them.

Both hold for the solver as well when it is a Poisson splitting, at any dt: what is left of them says how far the
averages have converged, not how small dt is. On a torus all exponents are zero and the averages decay like log(t) / t.
Source: Benettin, Galgani, Giorgilli, Strelcyn, *Meccanica* 15 (1980); Skokos, *Lect. Notes Phys.* 790 (2010), sec. 5;
Dressler, *Phys. Rev. A* 38 (1988) for the pairs with leak.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import is_concrete
from .._elementary import sum_rows
from ..fields import AbstractField
from ..simulate.engine import DEFAULT_ESCAPE_NORM
from ..solvers.facts import facts_of
from .growth import Schedule
from .runs import Found, Options, run_with_deviations

BLOCKS = (4, 8, 16)
"""Into how many blocks the samples are put for the error; the first one is the least number of samples."""


class LyapunovSpectrum(eqx.Module):
    """Exponents of one orbit or of a batch, with what they can be checked by.

    **Attributes:** (`...` are the batch axes of the members; NaN for members that left)

    - `exponents`: (..., k) per unit time, from the largest down.
    - `error`: (..., k) one standard error of each, from averages over blocks of the run. It knows of the scatter of the
      growth and of a slow decay, not of an orbit that has not been everywhere yet.
    - `ts`, `series`: (times,) and (..., times, k), what the exponents were when the run was that long.
    - `result`: (...) int8 codes of `jo.Result`, 0 is success.
    - `pairing_residual`: (...) the largest |lambda_i + lambda_{n+1-i} + 2 leak|, NaN where exponents need not pair or
      not all were asked for.
    - `known_zeros`: (...) int32, how many exponents must be zero: 2 + dim ker W for a conservative network that moves,
      0 where nothing is known.
    - `zero_residual`: (...) the largest in size of the `known_zeros` smallest; 0 where there are none, NaN where not
      all exponents were asked for.
    - `dt`, `num_steps`: of the run, the transient included.
    """

    exponents: Float[Array, "*batch k"]
    error: Float[Array, "*batch k"]
    ts: Float[Array, " times"]
    series: Float[Array, "*batch times k"]
    result: Int[Array, "*batch"]
    pairing_residual: Float[Array, "*batch"]
    known_zeros: Int[Array, "*batch"]
    zero_residual: Float[Array, "*batch"]
    dt: Any
    num_steps: Any

    def __repr__(self) -> str:
        batch, k = self.exponents.shape[:-1], self.exponents.shape[-1]
        members = " x ".join(map(str, batch)) + " members" if batch else "one member"
        head = f"LyapunovSpectrum of {members}, k = {k}, {self.exponents.dtype}"
        if not is_concrete(jax.tree.leaves(self)):
            return f"{head} (inside a JAX transformation)"
        lines = [f"{head}, {int(self.num_steps):,} steps of dt = {float(self.dt):.6g}"]
        rows = np.asarray(self.exponents).reshape(-1, k)
        errors = np.asarray(self.error).reshape(-1, k)
        shown = [f"{value:+.4g} +- {error:.1g}" for value, error in zip(rows[0], errors[0], strict=True)]
        lines.append(f"  exponents     {', '.join(shown)}{' (first member)' if len(rows) > 1 else ''}")
        left = int(np.sum(np.asarray(self.result) != 0))
        lines.append(f"  left          {left} of {len(rows)}")
        for name in ("pairing_residual", "zero_residual"):
            values = np.asarray(getattr(self, name))
            if np.isfinite(values).any():
                lines.append(f"  {name.replace('_', ' '):<13} at most {np.nanmax(values):.2g}")
        return "\n".join(lines)


def lyapunov_spectrum(
    field: Any,
    y0: Any,
    *,
    t1: Any,
    dt: Any,
    t0: Any = 0.0,
    solver: Any = None,
    num_exponents: int | None = None,
    renormalise_every: Any = 10,
    transient: Any = 0.0,
    samples: int = 64,
    pairing: str = "zip",
    escape_norm: Any = DEFAULT_ESCAPE_NORM,
    args: Any = None,
    key: Any = None,
) -> LyapunovSpectrum:
    """The k largest Lyapunov exponents of one orbit, or of any batch of networks and starts.

    Compiled once for all times, step sizes, gains and weights of one shape. Cost: with `PoissonSplitting` that of
    1 + k states, and k^2 n multiplications for each orthonormalisation; `jo.configure_cpu()` makes it several times
    faster. Differentiable forward, not backward; works under `jax.jit` and `jax.vmap`.

    **Arguments:**

    - `field`: `jo.CurrentRNN` or `jo.RateRNN`, with or without leading batch axes, or any function f(t, y, args) that
      gives (n,).
    - `y0`: (n,) or (..., n) starts.
    - `t0`, `t1`: begin and end, in the field's units of time.
    - `dt`: step size > 0, made a little smaller so that all samples are equally long.
    - `solver`: of fixed steps; `jo.solvers.PoissonSplitting(2)` if None, `diffrax.Tsit5()` for a function.
    - `num_exponents`: k; all n of them if None.
    - `renormalise_every`: most steps between two orthonormalisations. Deviations must not become parallel to rounding
      in between: exp((lambda_1 - lambda_n) dt steps) has to stay far below 1e16 (1e7 in float32).
    - `transient`: time from t0 on in which deviations turn into place and nothing is averaged.
    - `samples`: points of `series`, >= 4.
    - `pairing`: of networks and starts, as in `jo.simulate`.
    - `escape_norm`: a member whose norm exceeds it after an interval is marked `escaped`; its exponents are NaN.
    - `args`: handed to a function.
    - `key`: of the random frame of deviations at t0; always the same one if None.

    **Returns:** a `LyapunovSpectrum`.

    **Raises:** `JaxoscError` for wrong shapes, NaN, dt <= 0, a run without time, and k outside 1..n. Members that fail
    never raise: look at `result`.
    """
    options = Options(t0, t1, dt, transient, renormalise_every, samples, solver, pairing, escape_norm, args, key)
    found = run_with_deviations(field, y0, options, num_exponents, orthogonal=True)
    return _spectrum(field, found)


def _spectrum(field: Any, found: Found) -> LyapunovSpectrum:
    """The spectrum, held against what is known of the network."""
    growth, whole = found.growth, found.growth.logs.shape[1] == found.size
    nothing = jnp.full(found.batch_shape, jnp.nan, growth.logs.dtype)
    zeros, leak = jnp.zeros(found.batch_shape, jnp.int32), nothing
    if isinstance(field, AbstractField) and (facts := facts_of(field)).skew:
        leak = found.of_networks(field.leak.astype(nothing.dtype))
        if field.drive is None and not facts.leaks:
            zeros = found.of_networks(jnp.minimum(_kernel_size(field) + 2, found.size))
    if not whole:
        leak = nothing
    return _evaluated(*_descending(growth.logs, found.schedule), growth.result, found.schedule, zeros, leak, whole)


@eqx.filter_jit
def _kernel_size(field: AbstractField) -> Int[Array, "*batch"]:
    """dim ker W of every network: how many singular values are zero, up to 10 n eps of the largest."""
    form = type(field.weight).matrix
    for _ in field.weight.batch_shape:
        form = jax.vmap(form)
    matrix = form(field.weight)
    singular = jnp.linalg.svd(matrix, compute_uv=False)
    tolerance = 10 * matrix.shape[-1] * jnp.finfo(matrix.dtype).eps * singular.max(axis=-1, keepdims=True)
    return jnp.sum(singular <= tolerance, axis=-1, dtype=jnp.int32)


@eqx.filter_jit
def _descending(logs: Array, schedule: Schedule) -> tuple[Float[Array, "samples k *batch"], Float[Array, "k *batch"]]:
    """The rates of all samples and their averages, in the order of the averages.

    Members last up to the end: with them first each operation takes several times as long. A program of its own, since
    XLA would merge the reordering into each of its uses (4,096 members, n = 8: 100 ms in all instead of 50).
    """
    rates = logs / schedule.duration()
    exponents = sum_rows(rates) / rates.shape[0]
    order = jnp.argsort(-exponents, axis=0)
    return jnp.take_along_axis(rates, order[None], axis=1), jnp.take_along_axis(exponents, order, axis=0)


@eqx.filter_jit
def _evaluated(
    rates: Array, exponents: Array, result: Array, schedule: Schedule, zeros: Array, leak: Array, whole: bool
) -> LyapunovSpectrum:
    samples, k = rates.shape[:2]
    number = jnp.arange(1, samples + 1, dtype=rates.dtype)
    # Not `cumsum`, which adds every row from the start again: ten times slower.
    _, sums = jax.lax.scan(lambda total, row: (total + row, total + row), jnp.zeros_like(exponents), rates)
    series = sums / jnp.expand_dims(number, range(1, rates.ndim))
    pairs = jnp.abs(exponents + exponents[::-1] + 2 * leak[None])
    smallest = jnp.sort(jnp.abs(exponents), axis=0)
    last = jnp.clip(zeros - 1, 0, k - 1)
    residual = jnp.where(zeros > 0, jnp.take_along_axis(smallest, last[None], axis=0)[0], 0)
    return LyapunovSpectrum(
        exponents=jnp.moveaxis(exponents, 0, -1),
        error=jnp.moveaxis(standard_error(rates), 0, -1),
        ts=schedule.begin() + schedule.duration() * number,
        series=jnp.moveaxis(series, (0, 1), (-2, -1)),
        result=result,
        pairing_residual=jnp.max(pairs, axis=0),
        known_zeros=zeros,
        zero_residual=residual if whole else jnp.full_like(residual, jnp.nan),
        dt=jnp.asarray(schedule.dt),
        num_steps=schedule.steps * (schedule.ahead + samples * schedule.intervals),
    )


def standard_error(rates: Float[Array, "samples *rest"]) -> Float[Array, "*rest"]:
    """One standard error of the mean over the samples, the first axis, whose neighbours may be correlated.

    The samples are averaged in 4, 8 and 16 blocks, and the largest of the errors that these averages would have if
    they were independent is taken: long blocks know of a slow decay, many blocks of what their number is worth. Where
    growth swings back (Lorenz) it is up to three times too large. More blocks would make that worse, see Flyvbjerg and
    Petersen, *J. Chem. Phys.* 91 (1989).
    """
    samples, errors = rates.shape[0], []
    for blocks in (count for count in BLOCKS if count <= samples):
        size = samples // blocks
        # What does not fill a block is left out at the end: a slow decay shows at the begin.
        parts = rates[: blocks * size].reshape(blocks, size, *rates.shape[1:])
        means = sum_rows(jnp.swapaxes(parts, 0, 1)) / size
        scatter = sum_rows(jnp.square(means - sum_rows(means)[None] / blocks)) / (blocks - 1)
        errors.append(jnp.sqrt(scatter / blocks))
    return jnp.max(jnp.stack(errors), axis=0)
