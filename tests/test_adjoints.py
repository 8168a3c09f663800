"""Gradients of simulate: running back and checkpoints give what a stored tape gives."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_runs import (
    QUICKLY,
    REVERSIBLE,
    ROUNDING,
    Push,
    assert_same,
    dense,
    gradients,
    normal,
    run,
    seen,
)
from problems import skew

import jaxosc as jo
from jaxosc.simulate.engine import SaveTimes, run_lanes
from jaxosc.simulate.reversible import run_lanes_reversibly, stops_of
from jaxosc.solvers import PairSplitting, PoissonSplitting, lanes_of
from jaxosc.weights import BandedSkew, Bipartite, DenseSkew, RotationBlocks, Symmetrizable


def test_running_back_equals_the_stored_tape_and_finite_differences():
    """Regular orbits of 10^4 steps, n = 8: rounding, amplified linearly by 1,000 time units (measured 2e-13)."""
    weight, y0 = DenseSkew.from_matrix(0.7 * skew(8, 2)), 0.3 * normal(4, 8)

    def loss(adjoint, weight, y0):
        return seen(run(jo.CurrentRNN(weight), y0, adjoint, t1=1000.0).ys)

    stored, back = gradients(loss, weight, jnp.asarray(y0))
    assert_same(back, stored, 1e-10)

    # Central differences of 1e-7: an error of (t h)^2 = 1e-8 by the cubic term and 1e-9 by rounding.
    step = 1e-7
    shifts = step * np.concatenate([np.eye(60), -np.eye(60)])
    entries = np.asarray(weight.entries) + shifts[:, None, :28]
    starts = (y0.ravel() + shifts[:, 28:]).reshape(120, 4, 8)
    ends = np.asarray(jo.simulate(jo.CurrentRNN(DenseSkew(entries)), starts, t1=1000.0, dt=0.1).ys)
    plus, minus = np.reshape([seen(end) for end in ends], (2, 60))
    differences = (plus - minus) / (2 * step)
    assert_same(back, [differences[:28], differences[28:].reshape(4, 8)], 1e-6)


SECOND_ORDER = PoissonSplitting(2)


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of some parameters, which are drawn when the test runs, and how it is run."""

    field: Callable[..., jo.AbstractField]
    parameters: Callable[[], tuple[Any, ...]]
    n: int
    solver: Any = SECOND_ORDER


def drawn(kind: Any, n: int, **options: Any) -> Any:
    return kind.random(jax.random.key(4), n, gain=0.5, **options)


def with_bias(form: Any) -> Callable[..., jo.AbstractField]:
    return lambda w, b: form(w, bias=b)


def with_bias_each(form: Any) -> Callable[..., jo.AbstractField]:
    """Weights and biases of their own for all members."""
    return jax.vmap(with_bias(form))


def drawn_each(kind: Any, n: int) -> Any:
    """Parameters for three members."""
    return jax.vmap(lambda key: kind.random(key, n, gain=0.5))(jax.random.split(jax.random.key(6), 3)), normal(3, n) / 3


ROWS = {
    "bias and leak": Row(
        lambda w, b, leak: jo.CurrentRNN(w, bias=b, leak=leak), lambda: (dense(3), normal(3) / 3, 0.05), 3
    ),
    "rate form, bias and leak, order 4": Row(
        lambda w, b, leak: jo.RateRNN(w, bias=b, leak=leak),
        lambda: (dense(3), normal(3) / 3, 0.05),
        3,
        PoissonSplitting(4),
    ),
    "leaks of their own, constant weight": Row(
        lambda leak: jo.CurrentRNN(dense(2), jo.Erf(), leak=leak), lambda: (np.array([0.0, 0.1, 0.2]),), 2
    ),
    "own weights, order 8": Row(
        with_bias_each(jo.CurrentRNN), lambda: drawn_each(DenseSkew, 2), 2, PoissonSplitting(8)
    ),
    "own weights, rate form": Row(with_bias_each(jo.RateRNN), lambda: drawn_each(DenseSkew, 2), 2),
    "bipartite": Row(jo.CurrentRNN, lambda: (drawn(Bipartite, 4),), 4),
    "banded": Row(lambda w: jo.CurrentRNN(w, jo.Softsign()), lambda: (drawn(BandedSkew, 3),), 3),
    "banded, summed over members on the way": Row(jo.CurrentRNN, lambda: (drawn(BandedSkew, 12),), 12),
    "the same in the rate form": Row(with_bias(jo.RateRNN), lambda: (drawn(BandedSkew, 12), normal(12) / 3), 12),
    "rotation blocks, rate form": Row(with_bias(jo.RateRNN), lambda: (drawn(RotationBlocks, 3), normal(3) / 3), 3),
    "symmetrizable with bias": Row(with_bias(jo.CurrentRNN), lambda: (drawn(Symmetrizable, 3), normal(3) / 3), 3),
    "dense blocks": Row(jo.CurrentRNN, lambda: (dense(12),), 12),
    "drive": Row(lambda w, push: jo.CurrentRNN(w, drive=push), lambda: (dense(2), Push(normal(2) / 2)), 2),
    "drive of the rate form": Row(
        lambda w, b, push: jo.RateRNN(w, bias=b, drive=push),
        lambda: (dense(2), normal(2) / 2, Push(normal(2) / 2)),
        2,
        PoissonSplitting(4),
    ),
    "compensated": Row(jo.CurrentRNN, lambda: (dense(2),), 2, PoissonSplitting(4, compensated=True)),
    "lattice": Row(jo.CurrentRNN, lambda: (dense(2),), 2, PoissonSplitting(2, lattice=True)),
    "planes, linear": Row(
        lambda w: jo.CurrentRNN(w, jo.Identity()), lambda: (drawn(Symmetrizable, 3),), 3, PairSplitting()
    ),
    "planes, linear, bias and leak": Row(
        lambda w, b, leak: jo.CurrentRNN(w, jo.Identity(), bias=b, leak=leak),
        lambda: (dense(3), normal(3) / 3, 0.05),
        3,
        PairSplitting(),
    ),
    "planes": Row(jo.CurrentRNN, lambda: (dense(3),), 3, PairSplitting()),
}

QUICK = ("bias and leak", "own weights, order 8", "bipartite", "dense blocks", "drive of the rate form")
"""One for each kind of code; the slow run has all rows."""


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ROWS if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_every_network(name):
    row = ROWS[name]
    y0, parameters = normal(3, row.n, seed=7), row.parameters()

    def loss(adjoint, y0, *parameters):
        solution = run(row.field(*parameters), y0, adjoint, t1=30.0, solver=row.solver)
        return seen(solution.ys) + jnp.sum(solution.energy_drift)

    stored, back = gradients(loss, y0, *parameters)
    assert_same(back, stored, ROUNDING)


MEASURES = ("energy_drift_max", "max_norm", "final_norm", "period", "frequency")

SAVING = {
    "every seventh step": {"t1": 40.0, "save_every": 7},
    "between steps": {"t1": 40.0, "ts": [0.0, 1.23, 1.27, 3.0, 39.99, 40.0]},
    "at steps, backward in time": {"t0": 40.0, "t1": 0.0, "ts": [40.0, 39.9, 3.0]},
}


@pytest.mark.parametrize("name", SAVING)
def test_every_way_of_saving(name):
    weight, y0 = dense(2), normal(3, 2)

    def loss(adjoint, weight, y0):
        return seen(run(jo.CurrentRNN(weight), y0, adjoint, **SAVING[name]).ys)

    stored, back = gradients(loss, weight, y0)
    assert_same(back, stored, ROUNDING)


def test_every_measure():
    """All at once, with saved states between steps; one start lies on the section of `Crossings`, and has the largest
    norm of its run.
    """
    leak = np.array([0.01, 0.0, 0.0])
    weight, y0 = dense(2), normal(3, 2)
    y0[0, 0] = 0.0
    reducers = (jo.EnergyDrift(), jo.Norms(), jo.Crossings())
    weights = jnp.asarray([1.0, 2.0, 3.0])

    def losses(adjoint, weight, y0):
        field = jo.CurrentRNN(weight, leak=leak)
        solution = run(field, y0, adjoint, t1=60.0, reducers=reducers, ts=[0.05, 22.22])
        each = {name: weights @ solution.reduced[name] for name in (*MEASURES, "period_spread")}
        return each | {"energy_drift": weights @ solution.energy_drift, "saved": seen(solution.ys)}

    def together(*at):
        return [jax.jacrev(losses, (1, 2))(adjoint, *at) for adjoint in (None, REVERSIBLE)]

    stored, back = jax.jit(together, compiler_options=QUICKLY)(weight, y0)
    for name in (*MEASURES, "energy_drift", "saved"):
        # Drifts of 1e-3 are differences of energies of 1.
        tolerance = 1000 * ROUNDING if name.startswith("energy_drift") else 100 * ROUNDING
        assert_same(jax.tree.leaves(back[name]), jax.tree.leaves(stored[name]), tolerance)
    spread = jax.tree.leaves((stored["period_spread"], back["period_spread"]))
    assert [bool(jnp.isfinite(leaf).any()) for leaf in spread] == [True, True, False, False]


class Travelled(jo.AbstractReducer):
    """A measure of one's own: `strength` times the sum of all squared steps."""

    strength: jax.Array
    names: ClassVar[tuple[str, ...]] = ("travelled",)
    sampled: ClassVar[bool] = False

    def init(self, lanes, x):
        return jnp.zeros_like(x[0])

    def update(self, state, lanes, step, before, after):
        return state + self.strength * jnp.sum((after - before) ** 2, axis=0)

    def finish(self, state, lanes, x, dt):
        return {"travelled": state}


class TravelledBack(Travelled):
    """The same, which can be run back."""

    reversible: ClassVar[bool] = True

    def rewind(self, state, cotangent):
        return cotangent

    def credit(self, note, lanes, step, before, after):
        return note * self.strength * jnp.sum((after - before) ** 2, axis=0), note


@pytest.mark.parametrize("kind, words", [(Travelled, "since Travelled cannot be run back"), (TravelledBack, "")])
def test_measures_of_ones_own(kind, words):
    said = []

    def loss(adjoint, y0, strength):
        options = dict(t1=10.0, dt=0.1, adjoint=adjoint, reducers=(kind(strength),))
        solution = jo.simulate(jo.CurrentRNN(dense(2)), y0, **options)
        said.append(solution.stats["adjoint"])
        return jnp.sum(solution.reduced["travelled"])

    stored, back = gradients(loss, normal(3, 2), jnp.asarray(0.7))
    assert_same(back, stored, ROUNDING)
    assert said[-1].startswith("checkpointed at 10 states, " + words if words else "reversible")


def test_vmap_of_a_gradient_equals_the_batch_and_a_loop():
    weight, y0 = dense(2), normal(3, 2)

    def loss(weight, y0):
        return jnp.sum(run(jo.CurrentRNN(weight), y0, REVERSIBLE, t1=20.0, save_every=50).ys ** 3)

    gradient = jax.grad(loss, (0, 1))
    single = jax.jit(gradient, compiler_options=QUICKLY)
    by_weight, by_start = single(weight, y0)
    looped = jax.tree.map(lambda *parts: jnp.stack(parts), *(single(weight, start) for start in y0))
    mapped = jax.jit(jax.vmap(gradient, in_axes=(None, 0)), compiler_options=QUICKLY)(weight, y0)
    for each_weight, each_start in (looped, mapped):
        assert_same([each_weight.entries.sum(axis=0), each_start], [by_weight.entries, by_start], ROUNDING)


@pytest.mark.slow
def test_by_the_step_size():
    """`simulate` takes concrete times only; the engine below it differentiates by t0 and dt as well."""
    lanes, y0 = lanes_of(jo.CurrentRNN(dense(2), drive=Push(jnp.asarray([0.4, 0.3])))), jnp.asarray(normal(2, 3))
    steps = jnp.asarray([0, 20, 77])
    save = SaveTimes(steps, jnp.asarray([0.0, 0.3, 0.5]))
    still = jax.tree.map(lambda _: False, lanes)

    def stored(t0, dt):
        return run_lanes(lanes, y0, PoissonSplitting(2), (), t0=t0, dt=dt, num_steps=100, save=save)

    def back(t0, dt):
        scalars, moving = (t0, dt, jnp.asarray(1e6)), (still, (), False, (True, True, False))
        options = dict(stops=stops_of(save, 100), save=save, tolerance=1e-6, single=False)
        return run_lanes_reversibly(lanes, y0, PoissonSplitting(2), (), scalars=scalars, moving=moving, **options)

    def loss(function, t0, dt):
        end = function(t0, dt)
        return seen(end.y) + seen(end.saved)

    expected, found = gradients(loss, jnp.asarray(0.3), jnp.asarray(0.1), adjoints=(stored, back))
    assert_same(found, expected, ROUNDING)


def test_traced_times_are_refused_in_one_sentence():
    def loss(dt):
        return jnp.sum(jo.simulate(jo.CurrentRNN(dense(2)), jnp.ones(2), t1=10 * dt, dt=dt, adjoint=REVERSIBLE).ys)

    with pytest.raises(jo.JaxoscError, match="Got traced times with adjoint"):
        jax.eval_shape(jax.grad(loss), 0.1)


@pytest.mark.slow
def test_a_leak_of_zero_has_a_derivative():
    """The flow of bias and leak has a removable singularity there; central differences of 1e-6 are good to 1e-9."""

    def field(leak):
        return jo.CurrentRNN(dense(2), bias=[0.3, -0.1], leak=leak)

    def loss(adjoint, leak):
        return seen(run(field(leak), np.ones(2), adjoint, t1=10.0).ys)

    (back,) = gradients(loss, 0.0, adjoints=(REVERSIBLE,))
    plus, minus = map(seen, jo.simulate(field(np.array([1e-6, -1e-6])), np.ones(2), t1=10.0, dt=0.1).ys)
    assert_same(back, [(plus - minus) / 2e-6], 1e-7)


def test_a_start_at_rest_is_met():
    """Where nothing but the bias moves the network, distances from the start have no size of it to refer to."""

    def loss(adjoint, bias):
        return seen(run(jo.CurrentRNN(dense(2), bias=bias), jnp.zeros((1, 2)), adjoint, t1=20.0).ys)

    stored, back = gradients(loss, jnp.asarray([0.3, -0.1]))
    assert_same(back, stored, ROUNDING)


@pytest.mark.slow
def test_float32():
    """100 steps of roundings of 6e-8."""

    def loss(adjoint, weight, y0):
        return seen(run(jo.CurrentRNN(weight), y0, adjoint, t1=10.0).ys)

    double = dense(2), normal(3, 2)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), double)
    (expected,), (back,) = (gradients(loss, *parts, adjoints=(REVERSIBLE,)) for parts in (double, single))
    assert back[0].dtype == np.float32
    assert_same(back, expected, 1e-5)
