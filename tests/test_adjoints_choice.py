"""Where reversible gradients cannot be had: members that leave, what is refused, and which adjoint is chosen."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_runs import (
    CHECKPOINTED,
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

import jaxosc as jo
from jaxosc.simulate.adjoints import choose_adjoint
from jaxosc.solvers import PoissonSplitting
from jaxosc.weights import DenseSkew


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
