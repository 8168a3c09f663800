"""Ways to measure the frequency of an orbit, each a function that can be differentiated.

A measure is asked about networks that turn about once in a unit of time (see `time_scale`), so that its step size and
its window are plain numbers, the same for all networks, and a run within a transformation knows its length.
"""

import abc
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..activations import Tanh
from ..fields import AbstractField
from ..oracles import pair_period, pair_period_general
from ..orbits import frequency, period
from ..simulate import simulate
from ..solvers import PoissonSplitting

STEPS_PER_TURN = 64
"""Of the fastest linear mode: with splitting of order 4 a frequency is then 1e-8 off or less, with order 6 1e-11."""

MOST_CROSSINGS = 32
"""Of a section, in the few turns that returns are looked for: several a turn where faster modes ride on the orbit."""

ROUGH_TURNS = 16
"""Least of a run from which a neighbourhood is told."""

SAMPLES_PER_TURN = 16
"""Of the fastest linear mode that a spectrum gets: room for harmonics up to the eighth."""


class Measured(eqx.Module):
    """Frequencies (...) in cycles per unit of time, and an estimate (...) of their absolute errors."""

    frequency: Float[Array, "*batch"]
    error: Float[Array, "*batch"]


class AbstractMeasure(eqx.Module):
    """A way to measure frequencies."""

    @abc.abstractmethod
    def refuses(self, field: AbstractField) -> str | None:
        """Why this is no measure for such a network, with advice; None if it is one."""

    @abc.abstractmethod
    def of_turning(self, field: AbstractField, y0: Float[Array, "members n"], fastest: int) -> Measured:
        """Frequencies of networks (members,) that turn about once in a unit of time, their fastest modes at most
        `fastest` times.
        """

    def numbers(self, fastest: int) -> int:
        """How many states of a member are in memory at once; 0 where nothing is run."""
        return 1

    def longer(self) -> "AbstractMeasure":
        """The same over a run twice as long, if it is a window that it looks through."""
        return self

    def rough(self) -> "AbstractMeasure":
        """A cheaper one of the same frequency, to find its neighbourhood."""
        return self


class PairFormula(AbstractMeasure):
    """The closed form of two neurons: no run at all.

    1/`jo.oracles.pair_period` for tanh, `jo.oracles.pair_period_general` for other odd increasing activations; skew W,
    no bias, no leak. Relative error 1e-15, and 1e-12.
    """

    def refuses(self, field: AbstractField) -> str | None:
        """A sentence unless it is such a pair."""
        if field.size != 2 or not field.weight.skew or field.bias is not None:
            return "Got a network that is no skew pair without bias, expected one for PairFormula: take Line()."
        if not (field.activation.odd and field.activation.monotone):
            return "Got an activation that is not odd and increasing, expected one for PairFormula: take Returns()."
        return None

    def of_turning(self, field: AbstractField, y0: Float[Array, "members n"], fastest: int) -> Measured:
        """By the energies of the starts."""
        found = _pair_frequencies(field, y0)
        accuracy = 4 if type(field.activation) is Tanh else 1e4
        return Measured(found, jax.lax.stop_gradient(accuracy * jnp.finfo(found.dtype).eps * found))

    def numbers(self, fastest: int) -> int:
        """None."""
        return 0


class Returns(AbstractMeasure):
    """The return to a section through the start, for closed orbits: `jo.orbits.period` by order-6 splitting.

    Relative error about 1e-11, the gradient by the implicit function theorem 1e-10. On an orbit that does not close the
    error is NaN. `turns`: returns that there is time for.
    """

    turns: float = eqx.field(static=True, default=2.5)
    order: int = eqx.field(static=True, default=6)

    def refuses(self, field: AbstractField) -> str | None:
        """Nothing."""
        return None

    def of_turning(self, field: AbstractField, y0: Float[Array, "members n"], fastest: int) -> Measured:
        """By `jo.orbits.period`."""
        found = period(
            field,
            y0,
            dt=1 / (2 * STEPS_PER_TURN * fastest),
            t1=self.turns,
            solver=PoissonSplitting(self.order),
            max_crossings=MOST_CROSSINGS,
        )
        error = jnp.where(found.closed, found.error * found.frequency**2, jnp.nan)
        return Measured(found.frequency, jax.lax.stop_gradient(error))

    def rough(self) -> "Line":
        """A spectrum, since a return may take longer than there is time for."""
        return Line(turns=ROUGH_TURNS)


class EventReturns(AbstractMeasure):
    """The same by adaptive steps, Diffrax's Dopri8 with an event: accuracy by tolerance, independent of splitting.

    Three quarters of a turn are run without the event, since one on the section itself would be found at once; the
    return is the next upward crossing. For orbits that cross once a turn. Relative error at rtol 1e-10 up to 1e-9, of
    the gradient 1e-8 to 1e-5: a check on the others rather than their rival.
    """

    rtol: float = eqx.field(static=True, default=1e-10)

    def refuses(self, field: AbstractField) -> str | None:
        """Nothing."""
        return None

    def of_turning(self, field: AbstractField, y0: Float[Array, "members n"], fastest: int) -> Measured:
        """By `diffrax.Event`."""
        frequencies = _event_frequencies(self, field, y0)
        error = 1e2 * max(self.rtol, float(jnp.finfo(frequencies.dtype).eps)) * frequencies
        return Measured(frequencies, jax.lax.stop_gradient(error))

    def rough(self) -> "Line":
        """A spectrum, since a return may take longer than there is time for."""
        return Line(turns=ROUGH_TURNS)

    def return_time(self, field: AbstractField, y0: Float[Array, " n"]) -> Float[Array, ""]:
        """Of one network, when it turns about once in a unit of time; NaN where it does not return."""
        begin, wait = jax.lax.stop_gradient(y0), 0.75
        velocity = field(0.0, begin, None)
        speed = jax.lax.stop_gradient(jnp.linalg.norm(velocity))
        normal = jax.lax.stop_gradient(velocity / jnp.where(speed > 0, speed, 1))
        options: Any = dict(
            solver=dfx.Dopri8(),
            dt0=None,
            stepsize_controller=dfx.PIDController(rtol=self.rtol, atol=self.rtol),
            max_steps=4096,
        )
        term: Any = dfx.ODETerm(lambda t, y, args: field(t, y, args))
        near = dfx.diffeqsolve(term, t0=0.0, t1=wait, y0=y0, **options)
        above = dfx.Event(
            lambda t, y, args, **_: jnp.sum(normal * (y - begin)),
            optx.Newton(1e-3 * self.rtol, 1e-3 * self.rtol),
            direction=True,
        )
        last = dfx.diffeqsolve(term, t0=wait, t1=2.0, y0=_last(near), event=above, throw=False, **options)
        found = dfx.is_event(last.result)
        assert last.ts is not None
        # The section stays where it is when the start moves off it, so the orbit has passed it at another time than 0.
        passed = -jnp.sum(normal * (y0 - begin)) / jnp.where(speed > 0, speed, 1)
        return jnp.where(found, last.ts[-1] - passed, jnp.nan)


class Line(AbstractMeasure):
    """The dominant line of the spectrum of a readout: for tori, and whenever it is the readout that must oscillate.

    **Arguments:** `readout`: (n,) weights of neurons, or the number of one; None sums the power of all neurons.
    `turns`: length of the run; lines nearer to each other than 8/turns of the wanted one are not told apart.
    """

    readout: Any = None
    turns: int = eqx.field(static=True, default=128)
    order: int = eqx.field(static=True, default=4)

    def refuses(self, field: AbstractField) -> str | None:
        """A sentence for a readout of another length."""
        if self.readout is None or jnp.ndim(self.readout) == 0:
            return None
        if jnp.shape(self.readout) != (field.size,):
            return f"Got a readout of shape {jnp.shape(self.readout)}, expected ({field.size},): one weight a neuron."
        return None

    def of_turning(self, field: AbstractField, y0: Float[Array, "members n"], fastest: int) -> Measured:
        """By `jo.orbits.frequency`."""
        ts, ys = _trajectories(field, y0, self.turns, self.order, fastest)
        found = frequency(ts, self._read(ys))
        return Measured(found.frequencies[..., 0], found.error[..., 0])

    def numbers(self, fastest: int) -> int:
        """The whole run is."""
        return self.turns * SAMPLES_PER_TURN * fastest

    def longer(self) -> "Line":
        """Twice the run."""
        return Line(self.readout, 2 * self.turns, self.order)

    def rough(self) -> "Line":
        """A quarter of the run."""
        return Line(self.readout, max(ROUGH_TURNS, self.turns // 4), self.order)

    def _read(self, ys: Float[Array, "members times n"]) -> Float[Array, "members times m"]:
        if self.readout is None:
            return ys
        if jnp.ndim(self.readout) == 0:
            return ys[..., self.readout, None]
        return jnp.matmul(ys, jnp.asarray(self.readout, ys.dtype), precision="highest")[..., None]


class Rotation(AbstractMeasure):
    """The mean rotation in the plane in which most happens, by weighted Birkhoff averages: one number even in chaos."""

    turns: int = eqx.field(static=True, default=128)
    order: int = eqx.field(static=True, default=4)

    def refuses(self, field: AbstractField) -> str | None:
        """Nothing."""
        return None

    def of_turning(self, field: AbstractField, y0: Float[Array, "members n"], fastest: int) -> Measured:
        """By `jo.orbits.frequency`."""
        ts, ys = _trajectories(field, y0, self.turns, self.order, fastest)
        found = frequency(ts, ys, method="birkhoff")
        return Measured(found.frequencies[..., 0], found.error[..., 0])

    def numbers(self, fastest: int) -> int:
        """The whole run is."""
        return self.turns * SAMPLES_PER_TURN * fastest


def measure_for(field: AbstractField) -> AbstractMeasure:
    """The most accurate measure that fits a network: the closed form, returns for other pairs, and else the line."""
    formula = PairFormula()
    if formula.refuses(field) is None:
        return formula
    return Returns() if field.size == 2 else Line()


def checked_measure(measure: Any, field: AbstractField) -> AbstractMeasure:
    """The measure itself, or the one that fits if it is None.

    **Raises:** `JaxoscError` for what is none, and for one that refuses the network.
    """
    if measure is None:
        return measure_for(field)
    if not isinstance(measure, AbstractMeasure):
        raise JaxoscError(f"Got the measure {measure!r}, expected one such as jo.tuning.Line() or None.")
    refusal = measure.refuses(field)
    if refusal is not None:
        raise JaxoscError(refusal)
    return measure


@eqx.filter_jit
def _pair_frequencies(field: AbstractField, y0: Float[Array, "members 2"]) -> Float[Array, " members"]:
    def one(field: AbstractField, y: Array) -> Array:
        omega, energy = field.weight.matrix()[0, 1], field.energy(y)
        if type(field.activation) is Tanh:
            return 1 / pair_period(energy, omega)
        return 1 / pair_period_general(field.activation, energy, omega)

    return jax.vmap(one)(field, y0)


@eqx.filter_jit
def _event_frequencies(
    measure: EventReturns, field: AbstractField, y0: Float[Array, "members n"]
) -> Float[Array, " members"]:
    return 1 / jax.vmap(measure.return_time)(field, y0)


def _trajectories(field: AbstractField, y0: Array, turns: int, order: int, fastest: int) -> tuple[Array, Array]:
    """Times, and states (members, times, n); NaN where a member left."""
    run = simulate(
        field,
        y0,
        t1=float(turns),
        dt=1 / (STEPS_PER_TURN * fastest),
        solver=PoissonSplitting(order),
        save_every=STEPS_PER_TURN // SAMPLES_PER_TURN,
        throw=False,
    )
    return run.ts, jnp.where((run.result == 0)[..., None, None], run.ys, jnp.nan)


def _last(solution: Any) -> Array:
    return solution.ys[-1]
