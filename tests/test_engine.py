"""The time loop: chunks, strides and frozen lanes change nothing of what becomes of a member."""

import functools
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import jaxosc as jo
from jaxosc._choices import OWN_COLUMNS_UP_TO
from jaxosc.activations import AbstractActivation
from jaxosc.simulate.chunks import chunk_lanes, in_chunks, run_in_chunks
from jaxosc.simulate.engine import SaveTimes, run_lanes
from jaxosc.simulate.steppers import stepper_of
from jaxosc.solvers import PoissonSplitting, lanes_of

REDUCERS = (jo.EnergyDrift(), jo.Norms(), jo.Crossings())
compiled = eqx.filter_jit(run_lanes)
compiled_in_chunks = eqx.filter_jit(run_in_chunks)


def options(num_steps: int, **more):
    return dict(t0=jnp.asarray(0.0), dt=jnp.asarray(0.1), num_steps=jnp.asarray(num_steps, jnp.int32)) | more


def growing(n: int = 2) -> jo.CurrentRNN:
    """A linear network that Euler feeds: its norm grows by sqrt(1 + 0.3^2) in a step of 0.1."""
    return jo.CurrentRNN(jo.weights.RotationBlocks(jnp.full(n // 2, 3.0)), jo.Identity())


class Series(AbstractActivation):
    """sigma(y) = (sum of the coefficients) y."""

    coefficients: Array

    odd: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    continuous: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    def __call__(self, y):
        return jnp.sum(self.coefficients) * y

    def derivative(self, y):
        return jnp.sum(self.coefficients) * jnp.ones_like(y)

    def potential(self, y):
        return 0.5 * jnp.sum(self.coefficients) * y * y


class TestChunks:
    @pytest.mark.parametrize(
        "own", [pytest.param(False, marks=pytest.mark.slow, id="shared"), pytest.param(True, id="own")]
    )
    def test_change_no_bit(self, own):
        """Also where the last chunk overlaps the one before."""
        n = 8
        keys = jax.random.split(jax.random.key(0), 700)
        weight = jax.vmap(lambda key: jo.weights.DenseSkew.random(key, n))(keys) if own else None
        field = jo.CurrentRNN(weight if own else jo.weights.DenseSkew.random(keys[0], n))
        lanes, y0 = lanes_of(field), jax.random.normal(jax.random.key(1), (n, 700))
        width = chunk_lanes(lanes, y0.dtype)
        assert width < 700 and 700 % width
        save = SaveTimes(jnp.asarray([3, 20], jnp.int32))
        args = lanes, y0, PoissonSplitting(2), REDUCERS
        whole = compiled(*args, **options(25, save=save))
        parts = compiled_in_chunks(*args, **options(25, save=save))
        for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
            np.testing.assert_array_equal(one, other)
        assert np.abs(np.asarray(parts.y) - np.asarray(y0)).max() > 0.1

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("solver", [jo.ForwardEuler(), PoissonSplitting(2), diffrax.Tsit5()], ids=repr)
    def test_change_no_bit_with_large_weights_of_their_own(self, solver, dtype):
        """Whatever form the products take: sums over neurons keep their order."""
        n, count = 24, 150
        keys = jax.random.split(jax.random.key(0), count)
        field = jo.CurrentRNN(jax.vmap(lambda key: jo.weights.DenseSkew.random(key, n, dtype=dtype))(keys))
        lanes, y0 = lanes_of(field), jax.random.normal(jax.random.key(1), (n, count), dtype)
        assert chunk_lanes(lanes, dtype, stepper_of(solver).use) < count
        whole, parts = (run(lanes, y0, solver, (), **options(12)).y for run in (compiled, compiled_in_chunks))
        np.testing.assert_array_equal(whole, parts)

        @jax.jit
        def narrow(lanes, y0):
            # About the fewest lanes that the engine takes together, at larger n.
            return in_chunks(lambda lanes, y0: run_lanes(lanes, y0, solver, (), **options(12)), lanes, y0, 16).y

        np.testing.assert_array_equal(whole, narrow(lanes, y0))
        assert np.abs(np.asarray(whole - y0)).max() > 0.1

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_change_no_bit_of_a_large_splitting_alone(self, dtype):
        """Also where one lane leaves the vector units empty, for which the compiler has other code."""
        n, count = 24, 24
        keys = jax.random.split(jax.random.key(0), count)
        field = jo.CurrentRNN(jax.vmap(lambda key: jo.weights.DenseSkew.random(key, n, dtype=dtype))(keys))
        lanes, y0 = lanes_of(field), jax.random.normal(jax.random.key(1), (n, count), dtype)

        @functools.partial(jax.jit, static_argnames="width")
        def ends(lanes, y0, width):
            run = functools.partial(run_lanes, solver=PoissonSplitting(2), reducers=(), **options(12))
            return in_chunks(run, lanes, y0, width).y

        np.testing.assert_array_equal(ends(lanes, y0, width=1), ends(lanes, y0, width=count))

    def test_leave_alone_what_all_lanes_share(self):
        """An activation may hold arrays of any length, also that of a chunk and more."""
        weight, y0 = jo.weights.RotationBlocks(jnp.array([1.0])), jax.random.normal(jax.random.key(1), (2, 2000))
        lanes = lanes_of(jo.CurrentRNN(weight, Series(jnp.ones(1500) / 1500)))
        plain = lanes_of(jo.CurrentRNN(weight, jo.Identity()))
        assert chunk_lanes(lanes, y0.dtype) < 1500
        ends = [compiled_in_chunks(one, y0, PoissonSplitting(2), (), **options(5)).y for one in (lanes, plain)]
        np.testing.assert_allclose(*ends, rtol=1e-12, atol=1e-14)

    def test_are_cut_by_the_size_of_the_states(self):
        lanes = lanes_of(jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 8)))
        assert chunk_lanes(lanes, jnp.float64) == 256
        assert chunk_lanes(lanes, jnp.float32) == 512


def test_large_weights_of_their_own_are_laid_out_for_products():
    n = OWN_COLUMNS_UP_TO + 3
    keys = jax.random.split(jax.random.key(0), 5)
    lanes = lanes_of(jo.CurrentRNN(jax.vmap(lambda key: jo.weights.DenseSkew.random(key, n))(keys)))
    x = jax.random.normal(jax.random.key(1), (n, 5))
    ready = lanes.prepared()
    assert ready.by_lane.shape == (5, n, n)
    np.testing.assert_allclose(ready.velocity(0.0, x), lanes.velocity(0.0, x), rtol=1e-13, atol=1e-14)
    small = lanes_of(jo.CurrentRNN(jo.weights.DenseSkew.random(keys[0], n)))
    assert small.prepared() is small


class TestEscape:
    def test_is_found_at_its_very_step(self):
        """Lanes are looked at every tenth step; one found outside is followed step by step."""
        y0 = np.array([[1.0, 0.0], [1e-6, 0.0], [37.0, 0.0]])
        run = jo.simulate(growing(), y0, t1=30.0, dt=0.1, solver=jo.ForwardEuler(), escape_norm=100.0, throw=False)
        factor = np.sqrt(1 + 0.3**2)
        steps = np.floor(np.log(100.0 / y0[:, 0]) / np.log(factor)).astype(int)
        expected = np.minimum(steps, 300)
        assert run.stats["num_steps"].tolist() == expected.tolist()
        assert run.result.tolist() == [jo.Result.escaped, jo.Result.successful, jo.Result.escaped]
        np.testing.assert_allclose(np.linalg.norm(run.ys[:, -1], axis=-1), y0[:, 0] * factor**expected, rtol=1e-10)

    def test_does_not_depend_on_the_neighbours(self):
        """A lane that is outside between two looks only goes on, whether or not another one leaves just then.

        Ten steps are a turn, so that each look finds `calm` at its start.
        """
        field = jo.CurrentRNN(
            jo.weights.RotationBlocks(jnp.array([2 * np.pi])), jo.Identity(), bias=jnp.array([0.0, 3])
        )
        lanes = lanes_of(field)
        calm = jnp.array([-0.9, 0.0])
        wild = jnp.array([0.0, 1e3])

        def end(*starts):
            start = jnp.stack(starts, axis=-1)
            return compiled(lanes, start, PoissonSplitting(4), REDUCERS, **options(100, escape_norm=jnp.asarray(1.3)))

        alone, together = end(calm, calm), end(calm, wild)
        assert together.result.tolist()[1] == jo.Result.escaped
        assert alone.reduced["max_norm"][0] > 1.3
        assert alone.result[0] == together.result[0] == jo.Result.successful
        assert alone.num_steps[0] == together.num_steps[0]
        np.testing.assert_array_equal(alone.y[:, 0], together.y[:, 0])
        for name in alone.reduced:
            np.testing.assert_array_equal(alone.reduced[name][0], together.reduced[name][0])
