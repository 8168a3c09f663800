"""Floquet multipliers of a closed orbit: by what small deviations have grown after one turn.

They are the eigenvalues of the monodromy matrix M = D phi_T(y0), the product of the exact Jacobians of the solver's own
steps. Some are known to be 1, and to compute them as eigenvalues would be a mistake: on a family of closed orbits the
period changes with the energy, so M has a Jordan block, [[1, a], [0, 1]] for n = 2, whose eigenvalues are off by the
square root of whatever M is off by. What is known is a vector and not only a number:

- M f = f for the velocity f of the orbit (no drive), and in the rate form M v = v for v in ker W (no leak);
- l^T M = l^T for the gradient l of every invariant: of the energy, where it is conserved, and of each Casimir.

In a basis of those right vectors R, of those left vectors L (orthogonal to R) and of what is orthogonal to both,

    Q^T M Q = [[A, *, *], [0, B, *], [0, 0, D]],

where A and D are identities up to the error of the orbit, to first order in it, and the multipliers that nobody knows
beforehand are the eigenvalues of B. With several segments every segment's matrix is brought to this form between the
frames at its ends, and the eigenvalues of the product of the B_i are taken from the cyclic block matrix whose power
it is, without forming a product in which the largest multiplier drowns the others.
Source: Seydel, *Practical Bifurcation and Stability Analysis* (2010), chapter 7, for the monodromy matrix; Watkins,
*SIAM Review* 47 (2005), for products of matrices and their cyclic form; deflation by known vectors is elementary.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from .._checks import is_concrete, require_positive
from .._errors import JaxoscError
from ..fields import AbstractField
from ..simulate.members import batch_axes
from ..solvers import Lanes, PoissonSplitting, lanes_of
from ..solvers.facts import Facts
from .known import Known, known_of, known_vectors
from .starts import prepare, require_count
from .tangents import tangent_step_of

CUT = 2.0
"""Angle of the ray that parts the roots of one multiplier from those of its neighbours: not 0 or pi, where many lie."""


class FloquetMultipliers(eqx.Module):
    """Multipliers of one closed orbit or of a batch.

    **Attributes:**

    - `multipliers`: (..., n) complex. First those known to be 1, as they were computed; then the free ones, from the
      largest in size down.
    - `kinds`: n words, what each is: "flow", "shift" (rate form), "energy", "casimir" or "free".
    - `unit_error`: (...) the largest |multiplier - 1| of the known ones: how far to trust the others.
    - `pairing_error`: (...) the largest | |lambda_i lambda_{m+1-i}| - 1 | of the m free ones, which must come in pairs
      lambda, 1/lambda where the energy is conserved (0 without free ones, NaN where they need not pair).
    - `closure`: (...) by how much the orbit misses its start, |phi_T(y0) - y0| / max |y0|.
    - `period`: (...) as it was given.
    """

    multipliers: Complex[Array, "*batch n"]
    unit_error: Float[Array, "*batch"]
    pairing_error: Float[Array, "*batch"]
    closure: Float[Array, "*batch"]
    period: Float[Array, "*batch"]
    kinds: tuple[str, ...] = eqx.field(static=True)

    @property
    def free(self) -> Complex[Array, "*batch m"]:
        """Those that were not known, the largest in size first."""
        return self.multipliers[..., self.kinds.count("free") * -1 + len(self.kinds) :]

    @property
    def exponents(self) -> Complex[Array, "*batch n"]:
        """log(multiplier) / period, per unit of time; their real parts are Lyapunov exponents."""
        return jnp.log(self.multipliers) / self.period[..., None]

    def stable(self, tolerance: float = 1e-6) -> Any:
        """(...) whether no free multiplier is larger than 1 + tolerance in size."""
        return jnp.all(jnp.abs(self.free) <= 1 + tolerance, axis=-1)

    def __repr__(self) -> str:
        known = ", ".join(kind for kind in self.kinds if kind != "free") or "none"
        if not is_concrete(jax.tree.leaves(self)):
            return f"FloquetMultipliers (known: {known}; inside a JAX transformation)"
        worst, free = float(np.max(np.asarray(self.unit_error))), np.asarray(self.free)
        first = f"FloquetMultipliers(known to be 1: {known}, off by {worst:.1g} at most"
        if free.ndim > 1:
            return f"{first}; {free.shape[-1]} free ones each of {math.prod(free.shape[:-1]):,} orbits)"
        return f"{first}; free: {', '.join(f'{value:.6g}' for value in free) or 'none'})"


def floquet_multipliers(
    field: Any,
    y0: Any,
    period: Any,
    *,
    dt: Any = None,
    num_steps: int | None = None,
    segments: int = 1,
    t0: Any = 0.0,
    solver: Any = None,
    pairing: str = "zip",
) -> FloquetMultipliers:
    """Multipliers of the closed orbit through `y0`, whose `period` is known (see `periodic_orbit` and `period`).

    Cost: one turn with n deviations, and the eigenvalues of a matrix of order `segments` times the number of free
    multipliers. Accuracy: that of the solver, 1e-9 with the default at dt = 0.05 and spectral norm 1; multipliers of
    very different size want more segments.

    **Arguments:**

    - `field`, `y0` (..., n), `t0`, `pairing`: as in `jo.simulate`. `period`: (...) in units of time, > 0.
    - `dt` or `num_steps`: the largest step size, or the number of steps in a turn (all members take as many). Within a
      transformation `num_steps` is needed.
    - `segments`: in how many parts the turn is cut.
    - `solver`: `jo.solvers.PoissonSplitting(4)` if None, or any that `jo.simulate` takes with fixed steps.

    **Returns:** `FloquetMultipliers`. **Raises:** `JaxoscError` for wrong shapes, a period <= 0, both or none of dt and
    num_steps, and networks of one batch that differ in the number of their invariants.
    """
    solver = PoissonSplitting(4) if solver is None else solver
    require_count("segments", segments)
    require_positive("period", period)
    ready = prepare(field, y0, solver, pairing, (period, t0))
    shape, dtype = ready.members.batch_shape, ready.members.starts.dtype
    steps = steps_of_a_turn(period, dt, num_steps, segments)
    if np.broadcast_shapes(np.shape(period), shape) != shape:
        raise JaxoscError(f"Got periods of shape {np.shape(period)}, expected one for each of the {shape} members.")
    periods = jnp.broadcast_to(jnp.asarray(period, dtype), shape)
    known = known_of(field)
    field_, starts = ready.members.whole()
    blocks, closure = _blocks_compiled(
        field_,
        starts,
        periods.reshape(-1),
        jnp.asarray(t0, dtype),
        np.int32(steps // segments),
        solver,
        ready.facts,
        known,
        segments,
    )
    found = _multipliers(blocks, known, starts.shape[-1])
    multipliers, unit_error, pairing_error = (array.reshape(*shape, *array.shape[1:]) for array in found)
    kinds = known.kinds + ("free",) * (starts.shape[-1] - len(known.kinds))
    return FloquetMultipliers(multipliers, unit_error, pairing_error, closure.reshape(shape), periods, kinds)


def steps_of_a_turn(period: Any, dt: Any, num_steps: Any, segments: int = 1) -> int:
    """How many steps, a multiple of `segments`: as asked, or so many that none is longer than dt.

    **Raises:** `JaxoscError` for both, none, or a traced period with dt.
    """
    if (dt is None) == (num_steps is None):
        raise JaxoscError(
            f"Got dt = {dt} and num_steps = {num_steps}, expected one of them: pass dt=0.05, or num_steps=200 a turn."
        )
    if num_steps is not None:
        require_count("num_steps", num_steps)
        return segments * -(-num_steps // segments)
    require_positive("dt", dt)
    if not is_concrete((period, dt)):
        raise JaxoscError("Got a traced period or dt, expected num_steps there, since it fixes the length of the loop.")
    return segments * max(1, math.ceil(float(np.max(np.asarray(period))) / float(dt) / segments - 1e-6))


@eqx.filter_jit
def _blocks_compiled(
    field: AbstractField,
    starts: Float[Array, "members n"],
    periods: Float[Array, " members"],
    t0: Float[Array, ""],
    steps: Any,
    solver: Any,
    facts: Facts | None,
    known: Known,
    segments: int,
) -> Any:
    """The diagonal blocks (members, segments, ., .) of right, free and left vectors, and the misses (members,)."""

    def one(field: AbstractField, y0: Array, period: Array) -> Any:
        return _blocks(field, y0, period, t0, steps, solver, facts, known, segments)

    axes = batch_axes(field) if field.batch_shape else None
    return jax.vmap(one, in_axes=(axes, 0, 0))(field, starts, periods)


def _blocks(
    field: AbstractField,
    y0: Float[Array, " n"],
    period: Float[Array, ""],
    t0: Float[Array, ""],
    steps: Any,
    solver: Any,
    facts: Facts | None,
    known: Known,
    segments: int,
) -> tuple[tuple[Array, Array, Array], Float[Array, ""]]:
    lanes = lanes_of(field, facts)
    dt = period / (steps * segments)
    end, (states, matrices) = _segments(lanes, y0, t0, dt, steps, solver, segments)
    frames = jax.vmap(lambda y: _frame(lanes, field, y, known))(states)
    # Around the orbit: the last segment ends in the frame that the first one begins with.
    later = jnp.roll(frames, -1, axis=0)
    forms = jnp.einsum("sji,sjk,skl->sil", later, matrices, frames, precision="highest")
    r, n = known.right, len(y0)
    f = n - known.left
    misses = jnp.linalg.norm(end - y0) / jnp.max(jnp.abs(y0))
    return (forms[:, :r, :r], forms[:, r:f, r:f], forms[:, f:, f:]), misses


def _segments(
    lanes: Lanes, y0: Array, t0: Array, dt: Array, steps: Any, solver: Any, segments: int
) -> tuple[Array, tuple[Float[Array, "segments n"], Float[Array, "segments n n"]]]:
    """The end of the turn, and of each segment its start and the Jacobian of its steps."""
    step = tangent_step_of(lanes, solver)
    identity = jnp.eye(len(y0), dtype=y0.dtype)[:, :, None]

    def segment(x: Array, number: Array) -> Any:
        def turn(k: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            return step(t0 + (number * steps + k).astype(dt.dtype) * dt, dt, *carry)

        x1, matrix = jax.lax.fori_loop(0, steps, turn, (x, identity))
        return x1, (x[:, 0], matrix[:, :, 0])

    end, found = jax.lax.scan(segment, y0[:, None], jnp.arange(segments, dtype=jnp.int32))
    return end[:, 0], found


def _frame(lanes: Lanes, field: AbstractField, y: Float[Array, " n"], known: Known) -> Float[Array, "n n"]:
    """Orthonormal columns: the right vectors, what is orthogonal to all, the left vectors."""
    right, left = known_vectors(lanes, field, y, known)
    right, _ = jnp.linalg.qr(right)
    left, _ = jnp.linalg.qr(left)
    if known.right + known.left == 0:
        return jnp.eye(len(y), dtype=y.dtype)
    both = jnp.concatenate([right, left], axis=1)
    everything, _ = jnp.linalg.qr(both, mode="complete")
    return jnp.concatenate([right, everything[:, both.shape[1] :], left], axis=1)


def _multipliers(blocks: tuple[Array, Array, Array], known: Known, n: int) -> tuple[Array, Array, Array]:
    """Of each member: all multipliers, the error of the known ones, and of the pairs."""
    right, free, left = blocks
    units = [_of_product(right), _of_product(left)]
    loose = _of_cycle(free)
    order = jnp.argsort(-jnp.abs(loose), axis=-1)
    loose = jnp.take_along_axis(loose, order, axis=-1)
    together = jnp.concatenate(units, axis=-1)
    unit_error = jnp.max(jnp.abs(together - 1), axis=-1, initial=0.0)
    size = jnp.abs(loose)
    pairing_error = jnp.max(jnp.abs(size * size[..., ::-1] - 1), axis=-1, initial=0.0)
    if not known.energy:
        pairing_error = jnp.full_like(pairing_error, jnp.nan)
    return jnp.concatenate([together, loose], axis=-1), unit_error, pairing_error


def _of_product(blocks: Float[Array, "members segments k k"]) -> Complex[Array, "members k"]:
    product = blocks[:, 0]
    for number in range(1, blocks.shape[1]):
        product = jnp.matmul(blocks[:, number], product, precision="highest")
    return _eigenvalues(product)


def _of_cycle(blocks: Float[Array, "members segments m m"]) -> Complex[Array, "members m"]:
    """Eigenvalues of the product of the blocks, from the cyclic matrix whose roots they are."""
    members, segments, m, _ = blocks.shape
    if segments == 1 or m == 0:
        return _eigenvalues(blocks[:, 0])
    cyclic = jnp.zeros((members, segments, m, segments, m), blocks.dtype)
    here = jnp.arange(segments)
    # Indexed by two arrays apart from each other, the segment axis comes first.
    cyclic = cyclic.at[:, (here + 1) % segments, :, here, :].set(jnp.moveaxis(blocks, 1, 0))
    roots = _eigenvalues(cyclic.reshape(members, segments * m, segments * m))
    # Every multiplier has `segments` roots, equally spaced on a circle. One of them is nearest to the middle of the
    # sector that is cut out by the ray and holds one root of each.
    middle = jnp.exp(-1j * (CUT - jnp.pi) / segments).astype(roots.dtype)
    nearest = jnp.argsort(jnp.abs(jnp.angle(roots * middle)), axis=-1)[:, :m]
    return jnp.take_along_axis(roots, nearest, axis=-1) ** segments


def _eigenvalues(matrices: Float[Array, "members k k"]) -> Complex[Array, "members k"]:
    if matrices.shape[-1] == 0:
        return jnp.zeros(matrices.shape[:-1], jnp.result_type(matrices, jnp.complex64))
    if is_concrete(matrices):
        # By NumPy, since JAX has them for CPUs alone; NaN where an orbit left, at which LAPACK would balk.
        values = np.asarray(matrices)
        whole = np.isfinite(values).all(axis=(-2, -1), keepdims=True)
        found = np.linalg.eigvals(np.where(whole, values, 0)).astype(jnp.result_type(matrices, jnp.complex64))
        return jnp.asarray(np.where(whole[..., 0], found, np.nan))
    return jnp.linalg.eigvals(matrices)
