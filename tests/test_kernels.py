"""The kernels for GPU and TPU, evaluated here, do what the engine does; has_kernel tells what they can run."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxosc as jo
from jaxosc.simulate import on_device
from jaxosc.simulate.chunks import run_in_chunks
from jaxosc.simulate.engine import run_lanes
from jaxosc.simulate.kernels import PLATFORMS, has_kernel, run_lanes_in_kernel
from jaxosc.simulate.on_device import run_lanes_on_device
from jaxosc.solvers import PoissonSplitting, lanes_of

REDUCERS = (jo.EnergyDrift(), jo.Norms(), jo.Crossings())
EULER = jo.ForwardEuler()
# 64-bit sums in another order, over 35 steps of networks that are not chaotic: a few hundred roundings.
TOLERANCE = dict(rtol=1e-11, atol=1e-12)


# Compiling is what these tests wait for, so the compiler is not to try hard.
QUICKLY = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnames=("solver", "reducers", "platform"), compiler_options=QUICKLY)
def in_kernel(lanes, y0, solver, platform, num_steps, escape_norm=1e6, reducers=REDUCERS):
    options = dict(t0=0.0, dt=0.1, num_steps=num_steps, escape_norm=escape_norm)
    return run_lanes_in_kernel(lanes, y0, solver, reducers, **options, platform=platform, interpret=True)


@functools.partial(jax.jit, static_argnames=("solver", "reducers"), compiler_options=QUICKLY)
def in_engine(lanes, y0, solver, num_steps, escape_norm=1e6, reducers=REDUCERS):
    options = dict(t0=0.0, dt=0.1, num_steps=num_steps, escape_norm=escape_norm)
    return run_lanes(lanes, y0, solver, reducers, **options)


def random_lanes(n: int, own: bool, count: int):
    keys = jax.random.split(jax.random.key(n), count)
    draw = functools.partial(jo.weights.DenseSkew.random, n=n, gain=3.0)
    return lanes_of(jo.CurrentRNN(jax.vmap(draw)(keys) if own else draw(keys[0])))


def starts(n: int, count: int, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(1), (n, count), dtype)


def assert_same(run, expected, tolerance=TOLERANCE):
    np.testing.assert_array_equal(run.result, expected.result)
    np.testing.assert_array_equal(run.num_steps, expected.num_steps)
    np.testing.assert_allclose(run.y, expected.y, **tolerance)
    assert run.reduced.keys() == expected.reduced.keys()
    for name, values in expected.reduced.items():
        np.testing.assert_allclose(run.reduced[name], values, err_msg=name, **tolerance)
    assert [leaf.dtype for leaf in jax.tree.leaves(run)] == [leaf.dtype for leaf in jax.tree.leaves(expected)]


class TestKernel:
    @pytest.mark.parametrize(
        "platform, n, own, solver, count",
        [
            ("cuda", 2, False, EULER, 300),  # no multiple of the tile
            ("tpu", 8, False, PoissonSplitting(2), 3),  # less than a tile
            pytest.param("cuda", 32, False, EULER, 7, marks=pytest.mark.slow),
            ("cuda", 32, True, PoissonSplitting(2), 7),
            pytest.param("tpu", 2, True, PoissonSplitting(4), 1030, marks=pytest.mark.slow),
            pytest.param("cuda", 8, True, PoissonSplitting(4), 5, marks=pytest.mark.slow),
            pytest.param("cuda", 32, False, PoissonSplitting(4), 3, marks=pytest.mark.slow),
            pytest.param("cuda", 64, True, EULER, 5, marks=pytest.mark.slow),
        ],
    )
    def test_does_what_the_engine_does(self, platform, n, own, solver, count):
        """35 steps: the last look of the sampled reducers falls between the ends of two strides."""
        lanes, y0 = random_lanes(n, own, count), starts(n, count)
        run = in_kernel(lanes, y0, solver, platform, jnp.int32(35))
        expected = in_engine(lanes, y0, solver, jnp.int32(35))
        assert_same(run, expected)
        assert np.abs(np.asarray(run.y) - np.asarray(y0)).max() > 0.1
        assert (np.asarray(run.reduced["crossings"]) > 0).any()

    @pytest.mark.parametrize("n", [pytest.param(2, marks=pytest.mark.slow), pytest.param(12, id="12, a stack")])
    def test_freezes_lanes_that_leave_at_their_very_step(self, n):
        """Some at once, some later, some never: last good state, number of steps and code are the engine's."""
        field = jo.CurrentRNN(jo.weights.RotationBlocks(jnp.full(n // 2, 3.0)), jo.Identity())
        size = jnp.array([1.0, 1e-6, 37.0, 99.9, jnp.inf])
        y0 = jnp.zeros((n, 5)).at[0].set(size)
        run = in_kernel(lanes_of(field), y0, EULER, "cuda", jnp.int32(204), 100.0)
        expected = in_engine(lanes_of(field), y0, EULER, jnp.int32(204), 100.0)
        assert_same(run, expected)
        assert set(run.result.tolist()) == {jo.Result.successful, jo.Result.escaped, jo.Result.non_finite}
        assert 0 < run.num_steps[0] < 204

    @pytest.mark.slow
    def test_does_not_let_lanes_depend_on_their_neighbours(self):
        """A lane that is outside between two looks only goes on, whether or not another one leaves just then."""
        weight = jo.weights.RotationBlocks(jnp.array([2 * np.pi]))
        lanes = lanes_of(jo.CurrentRNN(weight, jo.Identity(), bias=jnp.array([0.0, 3])))
        y0 = jnp.array([[-0.9, 0.0], [0.0, 1e3]]).T
        run = in_kernel(lanes, y0, PoissonSplitting(4), "cuda", jnp.int32(100), 1.3)
        assert_same(run, in_engine(lanes, y0, PoissonSplitting(4), jnp.int32(100), 1.3))
        assert run.result.tolist() == [jo.Result.successful, jo.Result.escaped]
        assert run.reduced["max_norm"][0] > 1.3

    def test_knows_gain_bias_leak_and_energy_weights(self):
        n, count = 2, 6
        keys = jax.random.split(jax.random.key(0), count)
        weight = jax.vmap(lambda key: jo.weights.Symmetrizable.random(key, n))(keys)
        bias = jax.random.normal(jax.random.key(2), (count, n))
        lanes = lanes_of(jo.CurrentRNN(weight, jo.Softsign(), bias=bias, leak=jnp.linspace(0, 0.3, count)))
        lanes = eqx.tree_at(
            lambda lanes: lanes.gain, lanes, jnp.linspace(0.5, 2.0, count), is_leaf=lambda leaf: leaf is None
        )
        args = lanes, starts(n, count), EULER
        run = in_kernel(*args, "cuda", jnp.int32(35), reducers=REDUCERS[:1])
        assert_same(run, in_engine(*args, jnp.int32(35), reducers=REDUCERS[:1]))

    @pytest.mark.slow
    def test_keeps_float32(self):
        lanes, y0 = random_lanes(2, False, 5), starts(2, 5, jnp.float32)
        lanes = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), lanes)
        expected = in_engine(lanes, y0, EULER, jnp.int32(35))
        run = in_kernel(lanes, y0, EULER, "tpu", jnp.int32(35))
        # 35 steps with a rounding of 6e-8 each; crossings divide by small slopes.
        assert_same(run, expected, dict(rtol=1e-4, atol=1e-5))


class TestHasKernel:
    @pytest.mark.parametrize("platform", PLATFORMS)
    def test_for_plain_networks(self, platform):
        y0 = starts(8, 3, jnp.float32)
        lanes = random_lanes(8, False, 3)
        for solver in (EULER, PoissonSplitting(1), PoissonSplitting(2), PoissonSplitting(4)):
            assert has_kernel(lanes, y0, solver, REDUCERS, platform)

    def test_not_for_others(self):
        y0 = starts(8, 3)
        lanes = random_lanes(8, False, 3)
        assert has_kernel(lanes, y0, EULER, REDUCERS, "cuda")
        assert not has_kernel(lanes, y0, EULER, REDUCERS, "tpu"), "a TPU has no float64"
        for solver in (diffrax.Tsit5(), PoissonSplitting(2, compensated=True), jo.solvers.PairSplitting()):
            assert not has_kernel(lanes, y0, solver, REDUCERS, "cuda")
        large = random_lanes(65, False, 1)
        assert not has_kernel(large, starts(65, 3, jnp.float32), EULER, (), "tpu")
        erf = lanes_of(jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 8), jo.Erf()))
        assert not has_kernel(erf, y0, EULER, (), "cuda"), "Triton has no erf"
        driven = lanes_of(jo.CurrentRNN(erf.matrix[..., 0], drive=lambda t: jnp.zeros(8)))
        assert not has_kernel(driven, y0, EULER, (), "cuda")
        diagonal = lanes_of(jo.CurrentRNN(jnp.eye(16)))
        assert not has_kernel(diagonal, starts(16, 3), PoissonSplitting(2), (), "cuda"), "a stack, and a diagonal"


class TestOnDevice:
    def test_is_the_engine_here(self, monkeypatch):
        """Also where the default backend has a kernel and the program is compiled for a CPU all the same."""
        lanes, y0 = random_lanes(2, False, 5), starts(2, 5)
        options = dict(t0=0.0, dt=0.1, num_steps=jnp.int32(35))
        expected = eqx.filter_jit(run_in_chunks)(lanes, y0, EULER, REDUCERS, **options)
        assert on_device.kernel_platform(2, EULER) is None
        assert_same(eqx.filter_jit(run_lanes_on_device)(lanes, y0, EULER, REDUCERS, **options), expected)
        monkeypatch.setattr(on_device, "kernel_of_backend", lambda: "cuda")
        text = str(jax.make_jaxpr(lambda y0: run_lanes_on_device(lanes, y0, EULER, REDUCERS, **options))(y0))
        assert "pallas_call" in text
        run = jax.jit(lambda y0: run_lanes_on_device(lanes, y0, EULER, REDUCERS, **options))(y0)
        assert_same(run, expected)

    @pytest.mark.parametrize("asked, n, solver, platform", [
        (None, 8, EULER, "cuda"),
        (None, 9, EULER, None),
        ("1", 9, EULER, "cuda"),
        (None, 32, PoissonSplitting(4), "cuda"),
        (None, 33, PoissonSplitting(4), None),
        ("0", 8, EULER, None),
        (None, 8, diffrax.Tsit5(), None),
    ])  # fmt: skip
    def test_takes_the_kernel_where_it_was_faster_or_is_asked_for(self, monkeypatch, asked, n, solver, platform):
        monkeypatch.setattr(on_device, "kernel_of_backend", lambda: "cuda")
        monkeypatch.delenv(on_device.ASKED, raising=False)
        if asked is not None:
            monkeypatch.setenv(on_device.ASKED, asked)
        assert on_device.kernel_platform(n, solver) == platform
        monkeypatch.setattr(on_device, "kernel_of_backend", lambda: "tpu")
        assert on_device.kernel_platform(n, solver) == ("tpu" if asked == "1" else None)
