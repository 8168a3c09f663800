"""Closed orbits found and not only watched: by shooting, and along their family from one energy to the next.

Unknown are a point y on the orbit and its period T. That the orbit closes, phi_T(y) = y, does not fix them: every point
of the orbit will do, and every orbit of the family. So rows are added that say which one is wanted,

    phi_T(y) - y = 0          it closes (n rows)
    f . (y - y_guess) = 0     not along the orbit: the phase (in the rate form likewise along ker W)
    H(y) = E                  the energy, where it is conserved
    c . y = c . y_guess       every Casimir

more rows than unknowns, since an orbit that closes in all directions but one closes in that one too. Newton's method
on a square part of them would be singular (the multiplier 1 comes with a Jordan block), least squares on all of them is
not: Levenberg-Marquardt finds the neighbourhood, two Gauss-Newton steps the last digits.

The last step carries the derivatives: at a solution z of r(z, p) = 0 the implicit function theorem says dz/dp =
-(dr/dz)^+ dr/dp. That is dT/dE as well, from the column of the energy, and the direction in which the family goes on.
Source: Seydel, *Practical Bifurcation and Stability Analysis* (2010), chapter 7, for shooting; Munoz-Almaraz et al.,
*Physica D* 181 (2003), for families of conservative systems.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Int

from .._checks import is_concrete, require_finite, require_positive
from .._errors import JaxoscError
from .._results import Result
from ..fields import AbstractField
from ..simulate.members import batch_axes
from ..simulate.steppers import stepper_of
from ..solvers import Lanes, PoissonSplitting, lanes_of
from ..solvers.facts import Facts
from .floquet import steps_of_a_turn
from .known import Known, casimir_rows, known_of, known_vectors
from .starts import counted, held_still, prepare, require_count


class PeriodicOrbit(eqx.Module):
    """One closed orbit or a batch, or a family of them with the energies as the last batch axis.

    **Attributes:**

    - `y0`: (..., n) a point on it; `period`: (...) in units of time; `energy`: (...) H there.
    - `period_slope`: (...) dT/dE along the family, Casimirs held; NaN where no energy is conserved.
    - `state_slope`: (..., n) dy0/dE likewise.
    - `residual`: (...) the norm of all rows, relative to |y0|.
    - `result`: (...) int8, `jo.Result.successful`, or `solver_failed` where the rows were not solved: guess better.
    """

    y0: Float[Array, "*batch n"]
    period: Float[Array, "*batch"]
    energy: Float[Array, "*batch"]
    period_slope: Float[Array, "*batch"]
    state_slope: Float[Array, "*batch n"]
    residual: Float[Array, "*batch"]
    result: Int[Array, "*batch"]

    @property
    def frequency(self) -> Float[Array, "*batch"]:
        """1 / period, in cycles per unit of time."""
        return 1 / self.period

    def __repr__(self) -> str:
        if not is_concrete(jax.tree.leaves(self)):
            return "PeriodicOrbit (inside a JAX transformation)"
        good = np.asarray(self.result) == Result.successful
        if good.ndim:
            periods = np.asarray(self.period)[good]
            span = f", periods {periods.min():.6g} to {periods.max():.6g}" if good.any() else ""
            return f"PeriodicOrbit({counted('found', good)}{span})"
        if not good:
            return f"PeriodicOrbit(not found: residual {float(self.residual):.1g}, try a better guess)"
        return (
            f"PeriodicOrbit(period {float(self.period):.12g}, energy {float(self.energy):.6g}, n = {self.y0.shape[-1]})"
        )


class _Setting(eqx.Module):
    """What stays the same for all members and all energies."""

    solver: Any
    steps: Any
    tolerance: Array
    max_iterations: Any
    t0: Array
    facts: Facts | None = eqx.field(static=True)
    known: Known = eqx.field(static=True)


def periodic_orbit(
    field: Any,
    y0: Any,
    period: Any,
    *,
    energy: Any = None,
    dt: Any = None,
    num_steps: int | None = None,
    solver: Any = None,
    tolerance: Any = None,
    max_iterations: int = 64,
    pairing: str = "zip",
) -> PeriodicOrbit:
    """The closed orbit near a guess: a point and the period, to rounding.

    Of a conservative network it is the one with the wanted energy and the Casimirs of the guess; of any other network
    the isolated closed orbit (limit cycle) nearby. What is closed to rounding is the orbit of the solver, which is as
    far from the network's own as its order says: period to about 1e-10 with the default at dt = 0.05, spectral norm 1.
    Differentiable forward and backward by the implicit function theorem; within a transformation pass `num_steps`.
    Cost: per iteration one turn with n + 1 deviations, usually 5 to 10 iterations.

    **Arguments:**

    - `field`, `y0` (..., n), `pairing`: as in `jo.simulate`, y0 being the guess. `period`: (...) guessed too, > 0.
    - `energy`: (...) the energy wanted; None takes that of the guess.
    - `dt` or `num_steps`: the largest step size at the guess, or the number of steps in a turn.
    - `solver`: `jo.solvers.PoissonSplitting(4)` if None, or any that `jo.simulate` takes with fixed steps.
    - `tolerance`: of the residual, relative to |y0|. None: 1e-9, in float32 1e-4.
    - `max_iterations`: of the least squares.

    **Returns:** a `PeriodicOrbit`. **Raises:** `JaxoscError` for wrong shapes, a period <= 0, a driven network, an
    energy where none is conserved, and what `floquet_multipliers` says of dt and num_steps.
    """
    ready, setting, guesses = _prepared(field, y0, period, dt, num_steps, solver, tolerance, max_iterations, pairing)
    shape, (networks, starts) = ready.members.batch_shape, ready.members.whole()
    energies = None
    if energy is not None:
        require_finite("energy", energy)
        if not setting.known.energy:
            raise JaxoscError("Got an energy, expected None: this network is not known to conserve one.")
        energies = jnp.broadcast_to(jnp.asarray(energy, starts.dtype), shape).reshape(-1)
    found = _orbits_compiled(networks, starts, guesses, energies, setting)
    return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), found)


def continue_family(
    field: Any,
    orbit: Any,
    energies: Any,
    *,
    dt: Any = None,
    num_steps: int | None = None,
    solver: Any = None,
    tolerance: Any = None,
    max_iterations: int = 64,
) -> PeriodicOrbit:
    """The family of closed orbits through `orbit`, followed through the `energies` one after the other.

    The period-energy curve is `.energy`, `.period` and `.period_slope` = dT/dE. Each orbit is guessed from the last one
    along dy0/dE and dT/dE and then found as by `periodic_orbit`; Casimirs stay those of `orbit`. One that is not found
    is marked in `result`, and the next is guessed from the last that was.

    **Arguments:** `field` and `orbit` with the same batch axes; `energies`: (m,), in the order to go, in steps that a
    straight line bridges; the others as in `periodic_orbit`.

    **Returns:** a `PeriodicOrbit` with (..., m) members.

    **Raises:** `JaxoscError` as `periodic_orbit`, and where no energy is conserved.
    """
    if not isinstance(orbit, PeriodicOrbit):
        raise JaxoscError(
            f"Got the orbit {orbit!r}, expected a PeriodicOrbit: pass what jo.orbits.periodic_orbit found."
        )
    require_finite("energies", energies)
    if np.ndim(energies) != 1:
        raise JaxoscError(f"Got energies of shape {np.shape(energies)}, expected (m,): one list for all members.")
    ready, setting, _ = _prepared(
        field, orbit.y0, orbit.period, dt, num_steps, solver, tolerance, max_iterations, "zip"
    )
    if not setting.known.energy:
        raise JaxoscError(
            "Got a network that is not known to conserve an energy, expected one with a family of orbits."
        )
    networks, _ = ready.members.whole()
    shape = ready.members.batch_shape
    orbits = jax.tree.map(lambda array: array.reshape(-1, *array.shape[len(shape) :]), orbit)
    found = _families_compiled(networks, orbits, jnp.asarray(energies, orbits.y0.dtype), setting)
    return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), found)


def _prepared(
    field: Any,
    y0: Any,
    period: Any,
    dt: Any,
    num_steps: Any,
    solver: Any,
    tolerance: Any,
    iterations: Any,
    pairing: str,
) -> Any:
    solver = PoissonSplitting(4) if solver is None else solver
    require_positive("period", period)
    require_count("max_iterations", iterations)
    ready = prepare(field, y0, solver, pairing, period)
    if field.drive is not None:
        raise JaxoscError("Got a driven network, expected one without drive, whose closed orbits have periods to find.")
    steps: Any = steps_of_a_turn(period, dt, num_steps)
    dtype, shape = ready.members.starts.dtype, ready.members.batch_shape
    if np.broadcast_shapes(np.shape(period), shape) != shape:
        raise JaxoscError(f"Got periods of shape {np.shape(period)}, expected one for each of the {shape} members.")
    limit = max(1e-9, 1e3 * float(jnp.finfo(dtype).eps)) if tolerance is None else tolerance
    # A number that the compiler does not know serves all durations, but such a loop has no reverse derivative.
    steps = steps if ready.traced else np.int32(steps)
    setting = _Setting(
        solver,
        steps,
        jnp.asarray(limit, dtype),
        iterations,
        jnp.zeros((), dtype),
        ready.facts,
        known_of(field),
    )
    return ready, setting, jnp.broadcast_to(jnp.asarray(period, dtype), shape).reshape(-1)


@eqx.filter_jit
def _orbits_compiled(
    networks: AbstractField, starts: Array, periods: Array, energies: Array | None, setting: _Setting
) -> PeriodicOrbit:
    def one(field: AbstractField, y0: Array, period: Array, energy: Array | None) -> PeriodicOrbit:
        return _found(_Shooting(field, setting, y0, y0, period, energy))

    return _over_members(one, networks, starts, periods, energies)


@eqx.filter_jit
def _families_compiled(
    networks: AbstractField, orbits: PeriodicOrbit, energies: Array, setting: _Setting
) -> PeriodicOrbit:
    def one(field: AbstractField, start: PeriodicOrbit) -> PeriodicOrbit:
        def onward(last: PeriodicOrbit, energy: Array) -> tuple[PeriodicOrbit, PeriodicOrbit]:
            step = energy - last.energy
            guess = last.y0 + step * last.state_slope
            # Along a tangent that points the wrong way a period could end below zero.
            period = jnp.maximum(last.period + step * last.period_slope, last.period / 2)
            found = _found(_Shooting(field, setting, guess, start.y0, period, energy))
            good = found.result == Result.successful
            return jax.tree.map(lambda new, old: jnp.where(good, new, old), found, last), found

        return jax.lax.scan(onward, start, energies)[1]

    return _over_members(one, networks, orbits)


def _over_members(function: Any, networks: AbstractField, *rest: Any) -> Any:
    axes = batch_axes(networks) if networks.batch_shape else None
    return jax.vmap(function, in_axes=(axes, *(None if part is None else 0 for part in rest)))(networks, *rest)


class _Shooting(eqx.Module):
    """The rows for one network. Casimirs are those of `origin`; `energy` None: that of `origin`."""

    field: AbstractField
    setting: _Setting
    guess: Float[Array, " n"]
    origin: Float[Array, " n"]
    period: Float[Array, ""]
    energy: Float[Array, ""] | None

    def rows(self, z: Float[Array, " n_1"]) -> Float[Array, " rows"]:
        """All rows at z = (y, T / guessed period), each in units of y."""
        y, known = z[:-1], self.setting.known
        lanes = lanes_of(self.field, self.setting.facts)
        held = held_still((lanes, self.field, self.guess))
        right, _ = known_vectors(held[0], held[1], held[2], known)
        length = jnp.sqrt(jnp.sum(right * right, axis=0))
        phase = jnp.matmul((right / jnp.where(length > 0, length, 1)[None]).T, y - held[2], precision="highest")
        casimirs = jnp.matmul(casimir_rows(self.field, known), y - self.origin, precision="highest")
        return jnp.concatenate([self.end(lanes, y, self.period * z[-1]) - y, phase, casimirs, self.energy_row(y)])

    def end(self, lanes: Lanes, y: Array, period: Array) -> Float[Array, " n"]:
        """Where a turn from y ends."""
        stepper, setting = stepper_of(self.setting.solver), self.setting
        dt = period / setting.steps
        lanes = lanes.prepared(stepper.use)

        def step(k: Any, carry: Any) -> Any:
            return stepper.step(lanes, setting.t0 + k * dt, dt, *carry)

        start = y[:, None]
        return jax.lax.fori_loop(0, setting.steps, step, (start, stepper.init(lanes, setting.t0, dt, start)))[0][:, 0]

    def energy_row(self, y: Array) -> Float[Array, " few"]:
        """How far the energy is off, as a length; empty where none is conserved."""
        if not self.setting.known.energy:
            return jnp.zeros((0,), y.dtype)
        wanted = self.field.energy(self.origin) if self.energy is None else self.energy
        return ((self.field.energy(y) - wanted) / self.steepness())[None]

    def steepness(self) -> Float[Array, ""]:
        """|grad H| at the guess."""
        field, guess = held_still((self.field, self.guess))
        slope = jax.grad(lambda y: field.energy(y))(guess)
        length = jnp.sqrt(jnp.sum(slope * slope))
        return jnp.where(length > 0, length, 1)


def _found(shooting: _Shooting) -> PeriodicOrbit:
    """Least squares, two Gauss-Newton steps, and what follows from the last of them."""
    still, setting = held_still(shooting), shooting.setting
    start = jnp.append(still.guess, jnp.ones_like(still.period))
    near = _least_squares(still, start)
    near = near - jnp.matmul(_inverse(still, near), still.rows(near), precision="highest")
    near = jax.lax.stop_gradient(near)
    inverse = _inverse(still, near)
    # Rows with their derivatives, their inverse without: the implicit function theorem.
    z = near - jnp.matmul(inverse, shooting.rows(near), precision="highest")
    residual = jnp.linalg.norm(still.rows(jax.lax.stop_gradient(z))) / jnp.linalg.norm(still.guess)
    good = (residual <= setting.tolerance) & (z[-1] > 0)
    slope = inverse[:, -1] / still.steepness() if setting.known.energy else jnp.full_like(z, jnp.nan)
    return PeriodicOrbit(
        y0=z[:-1],
        period=still.period * z[-1],
        energy=shooting.field.energy(z[:-1]),
        period_slope=still.period * slope[-1],
        state_slope=slope[:-1],
        residual=residual,
        result=jnp.where(good, Result.successful, Result.solver_failed).astype(jnp.int8),
    )


def _inverse(still: _Shooting, z: Array) -> Float[Array, "n_1 rows"]:
    return jnp.linalg.pinv(jax.jacfwd(still.rows)(z))


def _least_squares(still: _Shooting, start: Array) -> Float[Array, " n_1"]:
    dtype = start.dtype
    close = float(jnp.finfo(dtype).eps) ** 0.5
    method: Any = optx.LevenbergMarquardt(rtol=close, atol=close)
    # Optimistix keeps its step size in the session's default float, and wants the unknowns in the same.
    session = jnp.result_type(float)
    solution: Any = optx.least_squares(
        lambda z, shooting: shooting.rows(z.astype(dtype)).astype(session),
        method,
        start.astype(session),
        args=still,
        throw=False,
        max_steps=still.setting.max_iterations,
    )
    return jax.lax.stop_gradient(solution.value.astype(dtype))
