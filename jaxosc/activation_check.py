"""What an activation is like, measured: oddness, bounds, jumps, monotonicity, and whether its energy keeps orbits in.

For skew W the energy H(y) = sum_i Phi(y_i), Phi' = sigma, is conserved for every sigma. What sigma decides is whether
the level sets of H are bounded: when Phi grows without bound on both sides, no orbit can leave. Each odd increasing
sigma has that, but ELU has it too, and ReLU, whose Phi is 0 on one side, has not. So oddness is measured because
closed forms and symmetric orbits want it, and the growth of Phi because boundedness does.

Samples prove nothing: what lies between them, or beyond |y| = 1e8, is not seen.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from ._activation_report import ActivationReport as ActivationReport
from ._errors import JaxoscError

Samples: TypeAlias = Float64[np.ndarray, " k"]
Sampler: TypeAlias = Callable[[Samples], Samples]

_ROUNDING = 64  # units of eps, at the size of sigma, that pass for rounding errors of the function itself
_FLAT = 1e-6  # what counts as zero against the size of sigma or Phi, where sampling and quadrature set the limit


def check_activation(fn: Callable[[Any], Any]) -> ActivationReport:
    """Measure whether `fn` is odd, bounded, continuous and increasing, and whether its energy keeps orbits in.

    Some 6,000 samples at |y| from 1e-8 to 1e8 and 0, in float64 if JAX has it switched on and else in float32. A jump
    counts from sqrt(eps) of the size of `fn` on (16 eps |y| where that is more), a fall or an asymmetry from 64 eps
    on. The potential is integrated from the samples, and on a finer grid up to |y| = 1000 when `fn` oscillates too
    fast for them. Takes about a second.

    **Arguments:** `fn`: an `AbstractActivation` or any function, elementwise on arrays or of one number, written with
    jax.numpy, numpy or plain Python. Infinite values beyond |y| = 1 count as growth.

    **Returns:** an `ActivationReport`: print it, or read `.verdict` and the other attributes.

    **Raises:** `JaxoscError` for something that is not callable, fails, gives another shape or no real numbers, mixes
    its elements (like softmax), or gives NaN anywhere or infinity for |y| <= 1.
    """
    if not callable(fn):
        raise JaxoscError(f"Got {fn!r}, expected an activation or a function of one number: pass for example jnp.tanh.")
    dtype = np.dtype(jnp.result_type(float))
    eps = float(np.finfo(dtype).eps)
    sigma = _sampler(fn, dtype)
    grid = np.unique(np.concatenate([np.geomspace(1e-8, 1e8, 1025), np.linspace(0.01, 20, 2000)]).astype(dtype))
    grid = grid.astype(np.float64)
    y = np.concatenate([-grid[::-1], [0.0], grid])
    f = sigma(y)
    size = _size(y, f)
    odd = _oddness(y, f, size)
    jump = _largest_jump(sigma, y, f, size, dtype)
    fall = _largest_fall(y, f, size)
    bounded, largest, growth = _growth(grid, size[grid.size + 1 :], bool(np.isfinite(f).all()))
    return ActivationReport(
        name=_name_of(fn),
        dtype=dtype.name,
        value_at_zero=float(f[grid.size]),
        odd=odd.relative <= _ROUNDING * eps,
        oddness_error=odd.amount,
        oddness_at=odd.at,
        bounded=bounded,
        largest=largest,
        growth=growth,
        continuous=jump.amount == 0,
        jump=jump.amount,
        jump_at=jump.at,
        monotone=fall.relative <= _ROUNDING * eps,
        worst_increment=fall.amount,
        decrease_at=fall.at,
        **_level_sets(sigma, grid, dtype)._asdict(),
    )


class _Worst(NamedTuple):
    amount: float
    at: float
    relative: float  # the worst |amount| over the size of the function, anywhere


class _LevelSets(NamedTuple):
    level_sets_bounded: bool
    barrier: float
    tail_vanishes: bool


def _name_of(fn: Any) -> str:
    inner = getattr(fn, "fn", fn)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _sampler(fn: Callable[[Any], Any], dtype: np.dtype) -> Sampler:
    """`fn` from float64 samples (k,) to float64 samples (k,), evaluated in `dtype`; it raises on NaN."""
    name = _name_of(fn)
    call = _way_to_call(fn, name, np.array([-2.0, -0.5, 0.0, 0.25, 3.0], dtype))

    def sigma(y: Samples) -> Samples:
        try:
            with np.errstate(all="ignore"):  # it is we who probe numpy functions where they overflow
                out = np.asarray(call(y.astype(dtype)), np.float64)
        except ArithmeticError as error:
            raise JaxoscError(f"{name} fails ({error}), expected a number for every |y| <= 1e8: guard it.") from error
        bad = np.isnan(out) | (np.isinf(out) & (np.abs(y) <= 1))
        if bad.any():
            raise JaxoscError(
                f"{name} gives {out[bad][0]} at y = {y[bad][0]:.6g}, expected a number: write it so that nothing"
                " overflows or divides by zero there."
            )
        return out

    return sigma


def _way_to_call(fn: Callable[[Any], Any], name: str, probe: np.ndarray) -> Callable[[np.ndarray], Any]:
    """The first of three ways that works: `fn` of an array, `fn` under `jax.vmap`, `fn` number by number."""

    def on_array(y: np.ndarray) -> Any:
        return fn(jnp.asarray(y))

    def one_by_one(y: np.ndarray) -> np.ndarray:
        return np.array([fn(number) for number in y])

    failure = None
    for call in (_in_few_sizes(on_array), _in_few_sizes(jax.vmap(fn)), one_by_one):
        try:
            out = np.asarray(call(probe))
            again = np.asarray(call(probe[1:]))
        except (TypeError, ValueError, ArithmeticError) as error:
            failure = error
            continue
        _require_elementwise(name, probe, out, again)
        return call
    raise JaxoscError(f"{name} cannot be evaluated ({failure}), expected a function of one number.") from failure


def _in_few_sizes(call: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """`call` with its input filled up to a power of 16: JAX compiles each operation again for every new size."""

    def padded(y: np.ndarray) -> Any:
        size = 16 ** math.ceil(math.log(max(y.size, 2), 16))
        out = np.asarray(call(np.pad(y, (0, size - y.size), mode="edge")))
        return out[: y.size] if out.shape == (size,) else call(y)

    return padded


def _require_elementwise(name: str, probe: np.ndarray, out: np.ndarray, again: np.ndarray) -> None:
    if out.shape != probe.shape:
        raise JaxoscError(
            f"{name} gives shape {out.shape} for input of shape {probe.shape}, expected the same shape: pass an"
            " elementwise function."
        )
    if not (np.isrealobj(out) and (np.issubdtype(out.dtype, np.number) or out.dtype == bool)):
        raise JaxoscError(f"{name} gives values of dtype {out.dtype}, expected real numbers.")
    if not np.allclose(out[1:], again, rtol=1e-3, atol=1e-6, equal_nan=True):
        raise JaxoscError(
            f"{name} gives other values when one element is left out, expected each value to depend on its own element"
            " only: pass an elementwise function."
        )


def _size(y: Samples, f: Samples) -> Samples:
    """The largest finite |f| up to the |y| of each sample, or up to 1; the samples mirror each other around y = 0."""
    magnitude = np.where(np.isfinite(f), np.abs(f), 0.0)
    middle = f.size // 2
    outward = np.maximum.accumulate(np.maximum(magnitude[middle:], magnitude[middle::-1]))
    outward = np.maximum(outward, outward[y[middle:] <= 1][-1])
    return np.concatenate([outward[:0:-1], outward])


def _worst(amounts: Samples, at: Samples, size: Samples) -> _Worst:
    """The largest amount / size, and of the entries that are at least half as bad the one nearest to y = 0."""
    relative = np.where(np.isfinite(amounts) & (size > 0), amounts, 0.0) / np.where(size > 0, size, 1.0)
    worst = float(np.max(np.abs(relative)))
    k = int(np.argmin(np.where(np.abs(relative) >= 0.5 * worst, np.abs(at), np.inf)))
    return _Worst(float(amounts[k]), float(at[k]), worst)


def _oddness(y: Samples, f: Samples, size: Samples) -> _Worst:
    middle = y.size // 2
    with np.errstate(invalid="ignore"):  # infinity on both sides
        sums = np.abs(f + f[::-1])
    return _worst(sums[middle:], y[middle:], size[middle:])


def _largest_fall(y: Samples, f: Samples, size: Samples) -> _Worst:
    with np.errstate(invalid="ignore"):  # infinity on both ends
        change = np.diff(f)
    falls = np.minimum(change, 0.0)
    worst = _worst(falls, y[:-1], np.maximum(size[1:], size[:-1]))
    return worst if worst.amount < 0 else _Worst(0.0, math.nan, 0.0)


def _largest_jump(sigma: Sampler, y: Samples, f: Samples, size: Samples, dtype: np.dtype) -> _Worst:
    """Halve every interval between samples, keeping the half that changes more, until nothing or a jump is left.

    A change counts from sqrt(eps) of the size on, and far out from 16 eps |y|: the change of a continuous function
    shrinks below that before neighbouring numbers are reached, unless it is very steep.
    """
    eps = float(np.finfo(dtype).eps)
    a, b, fa, fb, scale = y[:-1], y[1:], f[:-1], f[1:], np.maximum(size[:-1], size[1:])
    for _ in range(200):  # enough to come from 1e-8 down to 1e-68, for a jump at 0
        least = scale * np.maximum(math.sqrt(eps), 16 * eps * np.abs(a))
        keep = np.isfinite(fa) & np.isfinite(fb)
        keep[keep] = np.abs(fb[keep] - fa[keep]) > least[keep]
        a, b, fa, fb, scale = a[keep], b[keep], fa[keep], fb[keep], scale[keep]
        middle = (0.5 * (a + b)).astype(dtype).astype(np.float64)
        if not np.any((middle != a) & (middle != b)):
            break
        fm = sigma(middle)
        left = np.abs(fm - fa) > np.abs(fb - fm)
        a, fa = np.where(left, a, middle), np.where(left, fa, fm)
        b, fb = np.where(left, middle, b), np.where(left, fm, fb)
    if a.size == 0:
        return _Worst(0.0, math.nan, 0.0)
    place = np.where(np.abs(a) < np.abs(b), a, b)
    # Subnormal numbers are 0 to XLA, so that halving towards a jump at 0 ends there.
    return _worst(np.abs(fb - fa), np.where(np.abs(place) < 1e-30, 0.0, place), scale)


def _growth(y: Samples, largest: Samples, finite: bool) -> tuple[bool, float, float]:
    """Whether |f| is bounded, its largest value, and p of its growth like |y|^p; `largest` runs with y > 0."""
    if not finite:
        return False, math.inf, math.inf
    m4, m6, m8 = (float(largest[np.searchsorted(y, edge)]) for edge in (1e4, 1e6, y[-1]))
    if not _keeps_growing(m4, m6, m8, m6):
        return True, m8, 0.0
    return False, m8, math.log(m8 / m4) / math.log(1e4) if m4 > 0 else math.inf


def _keeps_growing(first: float, second: float, third: float, scale: float) -> bool:
    """Whether three values at places a constant factor apart go on to infinity, judged by their increments.

    Equal increments are a logarithm; what converges like y^-p has increments that shrink by a power of that factor.
    """
    if math.isinf(third):
        return third > 0
    return third - second > max(0.5 * (second - first), 1e-3 * abs(scale))


class _Side(NamedTuple):
    """The potential on one side of 0, at distances x from it: `phi` (k,) and the slope of it in that direction (k,)."""

    x: Samples
    slope: Samples
    phi: Samples

    def grows(self, sign: int, decades: tuple[int, int, int]) -> bool:
        """Whether sign * Phi tends to infinity, by its lowest values over three decades that end at 10^decades."""
        first, second, third = (float(np.min((sign * self.phi)[self._decade(end)])) for end in decades)
        scale = float(np.max(np.abs(self.phi[self.x <= 10.0 ** decades[1]])))
        return _keeps_growing(first, second, third, scale)

    def vanishes(self, decades: tuple[int, int, int]) -> bool:
        """Whether f is 0 over the last decade, against its largest value."""
        tail = float(np.max(np.abs(self.slope[self._decade(decades[2])])))
        return tail <= _FLAT * float(np.max(np.abs(self.slope)))

    def _decade(self, end: int) -> np.ndarray:
        return (self.x >= 10.0 ** (end - 1)) & (self.x <= 1.001 * 10.0**end)


def _level_sets(sigma: Sampler, grid: Samples, dtype: np.dtype) -> _LevelSets:
    """Whether {H = const} is bounded, from the growth of Phi on both sides, and below which H it is anyway."""
    x = np.concatenate([[0.0], grid])
    fine = np.linspace(0, 1000, 2**16).astype(dtype).astype(np.float64)
    decades = (4, 6, 8)
    sides = [_integrated(sigma, direction, x) for direction in (-1, 1)]
    if not all(resolved for _, resolved in sides):
        decades = (1, 2, 3)
        sides = [_integrated(sigma, direction, fine) for direction in (-1, 1)]
    minus, plus = (side for side, _ in sides)
    for sign in (1, -1):
        if minus.grows(sign, decades) and plus.grows(sign, decades):
            return _LevelSets(True, math.inf, False)
    sign = 1 if minus.phi[-1] + plus.phi[-1] >= 0 else -1
    flat = any(
        side.vanishes(decades) for side in (minus, plus) if not (side.grows(1, decades) or side.grows(-1, decades))
    )
    return _LevelSets(False, _barrier(sign * minus.phi, sign * plus.phi), flat)


def _integrated(sigma: Sampler, direction: int, x: Samples) -> tuple[_Side, bool]:
    """Phi at the distances x from 0 by Simpson's rule, and whether the trapezoidal rule agrees beyond x = 1."""
    middle = 0.5 * (x[1:] + x[:-1])
    ends, centre = direction * sigma(direction * x), direction * sigma(direction * middle)
    width = np.diff(x)
    with np.errstate(all="ignore"):  # a function that overflows has an infinite potential
        trapezoid = 0.5 * width * (ends[1:] + ends[:-1])
        simpson = (trapezoid + 2 * width * centre) / 3
        phi = np.concatenate([[0.0], np.cumsum(simpson)])
        error, mass = np.abs(simpson - trapezoid), np.abs(simpson)
    resolved = True
    for end in range(1, 9):
        panels = (x[1:] > 10.0 ** (end - 1)) & (x[1:] <= 1.001 * 10.0**end) & np.isfinite(error)
        resolved &= bool(np.sum(error[panels]) <= 0.01 * np.sum(mass[panels]) + _FLAT)
    return _Side(x, ends, phi), resolved


def _barrier(minus: Samples, plus: Samples) -> float:
    """The height that Phi reaches on both sides; 0 where it is negative, since H can then be low and y far out."""
    finite = [np.where(np.isfinite(phi), phi, np.finfo(np.float64).max) for phi in (minus, plus)]
    height = min(float(np.max(phi)) for phi in finite)
    depth = min(float(np.min(phi)) for phi in finite)
    return height if height > _FLAT and depth >= -_FLAT * max(height, 1.0) else 0.0
