"""Gradients of simulate: running back and checkpoints give what a stored tape gives, and say where they cannot."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import skew

import jaxosc as jo
from jaxosc.simulate.adjoints import choose_adjoint
from jaxosc.simulate.engine import SaveTimes, run_lanes
from jaxosc.simulate.reversible import run_lanes_reversibly, stops_of
from jaxosc.solvers import PairSplitting, PoissonSplitting, lanes_of
from jaxosc.weights import BandedSkew, Bipartite, DenseSkew, RotationBlocks, Symmetrizable

REVERSIBLE, CHECKPOINTED = jo.Reversible(), jo.Checkpointed()

SAID = {None: "a stored tape", REVERSIBLE: "reversible", CHECKPOINTED: "checkpointed"}

ROUNDING = 1e-12
"""Of gradients over some hundred steps, relative to their largest entry; measured 1e-13 and less."""


QUICKLY = {"xla_backend_optimization_level": 0}
"""Compiling takes most of the time here, and a third less of it so."""


def dense(n: int, seed: int = 1) -> DenseSkew:
    """Spectral norm 1."""
    return DenseSkew.from_matrix(skew(n, seed))


def normal(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def run(field: jo.AbstractField, y0: Any, adjoint: Any, **options: Any) -> jo.Solution:
    """`simulate`, which has to say that it does as it is told."""
    solution = jo.simulate(field, y0, adjoint=adjoint, **{"dt": 0.1, **options})
    assert solution.stats["adjoint"].startswith(SAID[adjoint])
    return solution


def seen(states: jax.Array) -> jax.Array:
    """A loss in which every number of the states (..., times, n) has a weight of its own."""
    weights = np.random.default_rng(states.size).uniform(0.5, 1.5, states.shape)
    return jnp.sum(weights * states * (1 + states))


def gradients(loss: Callable[..., Any], *arguments: Any, adjoints: Any = (None, REVERSIBLE)) -> list[list[np.ndarray]]:
    """The leaves of the gradient of `loss(adjoint, *arguments)` by the arguments, for each adjoint, in one program."""
    over = tuple(range(1, len(arguments) + 1))

    def together(*at):
        return [jax.tree.leaves(jax.grad(loss, over)(adjoint, *at)) for adjoint in adjoints]

    return jax.tree.map(np.asarray, jax.jit(together, compiler_options=QUICKLY)(*arguments))


def assert_same(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    """Each leaf to `tolerance` of its own largest entry, which is not zero."""
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 1e-3
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


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


class Push(eqx.Module):
    """A drive with a parameter (n,)."""

    strength: jax.Array

    def __call__(self, t):
        return self.strength * jnp.sin(1.3 * t + jnp.arange(self.strength.size))


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


class TestEscape:
    STARTS = np.array([[0.3, 0.1], [1.28, 1.28], [-0.5, 0.4]])
    CALM = STARTS * np.array([[1.0], [0.3], [1.0]])

    @pytest.mark.slow
    def test_neighbours_do_not_notice(self) -> None:
        """The middle member passes the norm 1.9 on its way from (1.28, 1.28) to (2, 0)."""

        def loss(adjoint, weight, y0):
            options = dict(t1=20.0, escape_norm=1.9, ts=[0.05, 7.77, 20.0])
            solution = run(jo.CurrentRNN(weight), y0, adjoint, **options)
            return seen(solution.ys), (solution.result, solution.ys)

        def gradient(y0):
            return [jax.grad(loss, (1, 2), has_aux=True)(adjoint, dense(2), y0) for adjoint in (None, REVERSIBLE)]

        (stored, (_, ys)), (back, (result, ys_back)) = jax.jit(gradient, compiler_options=QUICKLY)(self.STARTS)
        assert result.tolist() == [jo.Result.successful, jo.Result.escaped, jo.Result.successful]
        assert_same(jax.tree.leaves(back), jax.tree.leaves(stored), ROUNDING)
        np.testing.assert_allclose(ys_back, ys, atol=1e-14)
        np.testing.assert_array_equal(ys_back[1, 1], ys_back[1, 2])

    def test_nor_of_nan(self) -> None:
        """The middle member meets NaN, in the memory of the solver too; a stored tape is NaN for all of them then."""
        activation = jo.Elementwise(lambda y: jnp.where(y > 1.5, jnp.nan, y))
        solver = PoissonSplitting(2, compensated=True)

        @jax.jit
        def gradient(y0):
            def loss(weight, y0):
                field = jo.CurrentRNN(weight, activation)
                solution = run(field, y0, REVERSIBLE, t1=20.0, solver=solver)
                return seen(solution.ys), solution.result

            return jax.grad(loss, (0, 1), has_aux=True)(dense(2), y0)

        (by_weight, by_start), result = gradient(self.STARTS)
        assert result.tolist() == [jo.Result.successful, jo.Result.non_finite, jo.Result.successful]
        assert jnp.isfinite(by_weight.entries).all() and jnp.isfinite(by_start).all()
        (_, calm), result = gradient(self.CALM)
        assert result.tolist() == [jo.Result.successful] * 3
        np.testing.assert_array_equal(by_start[::2], calm[::2])


class TestRefusal:
    """A chaotic network (n = 8, amplitude 3, 2 * 10^4 steps) beside a regular one, each with weights of its own."""

    WEIGHTS = np.stack([np.asarray(dense(8, seed).entries) for seed in (1, 2, 2)])
    STARTS = np.stack([3 * normal(8), 0.2 * normal(8), -0.1 * normal(8)])

    @staticmethod
    def loss(weights, y0):
        return seen(run(jo.CurrentRNN(DenseSkew(weights)), y0, REVERSIBLE, t1=2000.0).ys)

    def test_in_a_batch_it_is_nan_for_the_member_alone(self) -> None:
        gradient = jax.jit(jax.grad(self.loss, (0, 1)))
        mixed = gradient(self.WEIGHTS[:2], self.STARTS[:2])
        regular = gradient(self.WEIGHTS[:0:-1], self.STARTS[:0:-1])
        for found, expected in zip(mixed, regular, strict=True):
            assert np.isnan(found[0]).all() and np.abs(found[1]).max() > 1
            np.testing.assert_array_equal(found[1], expected[1])

    @pytest.mark.slow
    def test_a_single_run_raises(self) -> None:
        """Also where nobody asks for the gradient by the start."""
        with pytest.raises(RuntimeError, match=r"irreversible.*jo\.Checkpointed"):
            eqx.filter_jit(jax.grad(self.loss))(self.WEIGHTS[0], self.STARTS[0])

    def test_outside_a_transformation(self) -> None:
        field, options = jo.CurrentRNN(DenseSkew(self.WEIGHTS[:2])), dict(t1=2000.0, dt=0.1, adjoint=REVERSIBLE)
        plain = jo.simulate(field, self.STARTS[:2], **options)
        assert plain.result.tolist() == [jo.Result.irreversible, jo.Result.successful]
        error = np.asarray(plain.stats["reconstruction_error"])
        assert error[0] > 0.1 and error[1] < 1e-10
        # On the lattice from a start that lies on it: the very bits.
        starts = np.round(self.STARTS[:2] * 2**40) / 2**40
        exact = jo.simulate(field, starts, solver=PoissonSplitting(2, lattice=True), **options)
        assert exact.result.tolist() == [jo.Result.successful] * 2
        assert exact.stats["reconstruction_error"].tolist() == [0.0, 0.0]
        assert np.abs(np.asarray(exact.ys[:, 0]) - starts).max(axis=1).min() > 0.1

    def test_a_single_run_outside_raises_unless_told_not_to(self) -> None:
        field, options = jo.CurrentRNN(dense(2), bias=[0.3, 0.1], leak=5.0), dict(t1=20.0, dt=0.1, adjoint=REVERSIBLE)
        with pytest.raises(jo.JaxoscError, match=r"irreversible.*jo\.Checkpointed"):
            jo.simulate(field, np.ones(2), **options)
        assert int(jo.simulate(field, np.ones(2), throw=False, **options).result) == jo.Result.irreversible

    def test_what_members_share_is_nan_and_nothing_else(self) -> None:
        """A leak of 5 for 20 time units leaves nothing of the start of the second member.

        There are as many members as neurons, which a parameter of the drive could be mistaken for.
        """

        def loss(weight, strength, leak, y0):
            field = jo.CurrentRNN(weight, drive=Push(strength), leak=leak)
            return seen(run(field, y0, REVERSIBLE, t1=20.0).ys)

        leak = jnp.asarray([0.0, 5.0])
        gradient = jax.jit(jax.grad(loss, (0, 1, 2, 3)), compiler_options=QUICKLY)
        gradient = gradient(dense(2), jnp.asarray([0.4, 0.3]), leak, normal(2, 2))
        weight, strength, leak, y0 = (np.isnan(leaf).tolist() for leaf in jax.tree.leaves(gradient))
        assert weight == [True] and strength == [True, True]
        assert leak == [False, True] and y0 == [[False, False], [True, True]]


def memory(adjoint: Any, n: int, steps: int) -> int:
    """Bytes that the compiled gradient of 64 members needs besides arguments and results."""

    def loss(weight, y0):
        return seen(jo.simulate(jo.CurrentRNN(weight), y0, t1=0.1 * steps, dt=0.1, adjoint=adjoint).ys)

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    return gradient.lower(dense(n), normal(64, n)).compile(QUICKLY).memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory() -> None:
    """Flat when run back, like the steps on a tape, like their root with checkpoints; compiled and not run."""
    assert memory(REVERSIBLE, 8, 10**6) < 1.1 * memory(REVERSIBLE, 8, 10**3)
    assert memory(None, 2, 10**3) > 8 * memory(None, 2, 10**2)
    assert memory(CHECKPOINTED, 2, 10**6) < 15 * memory(CHECKPOINTED, 2, 10**4)


def said(field: Any, y0: Any, adjoint: Any, **options: Any) -> str:
    """`stats["adjoint"]` of a run that is differentiated by its start, traced only."""
    told = []

    def loss(y0):
        solution = jo.simulate(field, y0, adjoint=adjoint, **{"t1": 100.0, "dt": 0.1, **options})
        told.append(solution.stats["adjoint"])
        return jnp.sum(solution.ys)

    jax.eval_shape(jax.grad(loss), y0)
    return told[0]


class TestChoice:
    def test_by_memory(self) -> None:
        assert said(jo.CurrentRNN(dense(2)), np.ones(2), None) == "a stored tape of about 0.1 MB"
        large = said(jo.CurrentRNN(dense(2)), np.ones((500, 2)), None, t1=10_000.0)
        assert large == "checkpointed at 316 states, since a stored tape would take 6,103.5 MB"
        # Every network from one start is as many members as networks.
        networks = jo.CurrentRNN(DenseSkew(np.ones((500, 1))))
        assert said(networks, np.ones(2), None, t1=10_000.0) == large

    def test_what_cannot_be_run_back(self) -> None:
        field, y0 = jo.CurrentRNN(dense(2)), np.ones(2)
        reason = "checkpointed at 32 states, since {} is not its own inverse with dt negated"
        assert said(field, y0, REVERSIBLE, solver=jo.ForwardEuler()) == reason.format("ForwardEuler()")
        assert said(field, y0, REVERSIBLE, solver=PoissonSplitting(1)) == reason.format("PoissonSplitting(order=1)")
        assert said(field, y0, REVERSIBLE) == "reversible, to 1e-06 of the start"
        assert said(field, y0, jo.Reversible(0.5)) == "reversible, to 0.5 of the start"
        run = jo.simulate(field, y0, t1=1.0, dt=0.1, adjoint=REVERSIBLE, solver=jo.ForwardEuler())
        assert "reconstruction_error" not in run.stats and run.stats["adjoint"].startswith("none")

    @pytest.mark.parametrize(
        "options", [{"reducers": (jo.EnergyDrift(),)}, pytest.param({"save_every": 5}, marks=pytest.mark.slow)], ids=str
    )
    def test_checkpoints_equal_the_stored_tape(self, options) -> None:
        """437 steps, which fill no whole number of segments."""

        def loss(adjoint, weight, y0):
            solution = jo.simulate(jo.CurrentRNN(weight), y0, t1=43.7, dt=0.1, adjoint=adjoint, **options)
            return seen(solution.ys) + sum(jnp.sum(value) for value in solution.reduced.values())

        adjoints = (None, CHECKPOINTED, jo.Checkpointed(10**6))
        stored, *checkpointed = gradients(loss, dense(2), normal(3, 2), adjoints=adjoints)
        for found in checkpointed:
            assert_same(found, stored, ROUNDING)

    @pytest.mark.parametrize(
        "make, words",
        [
            (lambda: jo.Checkpointed(checkpoints=0), "checkpoints = 0"),
            (lambda: jo.Reversible(tolerance=0.0), "tolerance is 0.0"),
            (lambda: choose_adjoint("back", None, (), traced=True, num_steps=1, states=1, dtype=float), "'back'"),
            (
                lambda: jo.simulate(jo.CurrentRNN(dense(2)), np.ones(2), t1=1.0, rtol=1e-3, adjoint=REVERSIBLE),
                "adjoint with adaptive steps",
            ),
        ],
    )
    def test_bad_input_is_one_sentence(self, make, words) -> None:
        with pytest.raises(jo.JaxoscError) as error:
            make()
        assert words in str(error.value) and "\n" not in str(error.value)
