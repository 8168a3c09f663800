"""Tangent maps of a step against its derivatives, Gram-Schmidt against LAPACK, the loop in C against that in JAX."""

import dataclasses
import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import lanes_with, skew

import jaxosc as jo
from jaxosc.orbits.growth import MOST_NATIVE_NUMBERS, grow, native_case, schedule_of
from jaxosc.orbits.runs import frame_of
from jaxosc.orbits.tangents import (
    FieldTangents,
    SplittingTangents,
    StepTangents,
    orthonormalised,
    pushed_forward,
    tangent_step_of,
)
from jaxosc.simulate.steppers import stepper_of
from jaxosc.solvers import PoissonSplitting, lanes_of
from jaxosc.weights import Bipartite, DenseSkew


def pendulum(t, y, args):
    """A field that is no network, driven so that the time matters."""
    return jnp.stack([y[1], -args * jnp.sin(y[0]) + jnp.cos(t)])


@eqx.filter_jit
def taken(step, t, dt, x, v):
    """One step; compiled, since one operation after the other takes minutes to compile."""
    return step(jnp.asarray(t), jnp.asarray(dt), x, v)


class TestTangents:
    @pytest.mark.parametrize(("n", "order"), [(3, 1), (3, 4), (12, 2)])
    def test_formula_is_the_derivative_of_the_step(self, n, order):
        lanes, x = lanes_with(n, 5, own=True, **(dict(gain=np.linspace(0.5, 2, 5)) if n == 3 else {}))
        v = jnp.asarray(np.random.default_rng(0).standard_normal((n, 4, 5)))
        solver = PoissonSplitting(order)
        step = tangent_step_of(lanes, solver)
        assert type(step) is SplittingTangents
        ours = taken(step, 0.0, 0.3, x, v)
        other = taken(StepTangents(lanes, stepper_of(solver)), 0.0, 0.3, x, v)
        for one, two in zip(ours, other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-13)  # roundings of up to 50 flows
        assert jnp.abs(ours[1] - v).max() > 0.1

    def test_tangent_map_is_poisson(self):
        """M W M^T = W, whatever dt is."""
        lanes, x = lanes_with(6, 1, own=True)
        _, m = taken(tangent_step_of(lanes, PoissonSplitting(2)), 0.0, 0.7, x, jnp.eye(6)[:, :, None])
        w, m = lanes.matrix[..., 0], m[..., 0]
        np.testing.assert_allclose(m @ w @ m.T, w, atol=1e-14)
        assert jnp.abs(m - jnp.eye(6)).max() > 0.1

    @pytest.mark.parametrize(
        "field",
        [
            jo.CurrentRNN(DenseSkew.from_matrix(skew(4, 1)), bias=0.1 * np.ones(4), leak=0.05),
            jo.RateRNN(DenseSkew.from_matrix(skew(4, 2))),
            jo.CurrentRNN(skew(4, 3) + 0.1 * np.eye(4)),
            jo.CurrentRNN(Bipartite.random(jax.random.key(0), 4)),
        ],
        ids=["bias and leak", "rate form", "diagonal", "groups"],
    )
    def test_other_networks_by_jvp(self, field):
        """Against central differences of `jo.simulate`, ten steps."""
        y0, eps = np.array([0.4, -1.0, 0.8, 0.3]), 1e-5
        x, v = jnp.asarray(y0)[:, None], jnp.eye(4)[:, :, None]
        step = tangent_step_of(lanes_of(field), PoissonSplitting(2))
        assert type(step) is StepTangents
        for k in range(10):
            x, v = taken(step, 0.1 * k, 0.1, x, v)
        starts = y0 + eps * np.concatenate([np.eye(4), -np.eye(4)])
        ends = np.asarray(jo.simulate(field, starts, t1=1.0, dt=0.1).ys[:, -1])
        np.testing.assert_allclose(v[..., 0], ((ends[:4] - ends[4:]) / (2 * eps)).T, atol=1e-9)  # eps^2

    @pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Heun()])
    def test_fields_step_like_diffrax(self, solver):
        """The tableau and lane by lane, with the time, and the tangents of both."""
        y0, v = jnp.array([[1.0, -0.4], [2.0, 0.3]]), jnp.stack([jnp.eye(2)] * 2, axis=-1)
        t, dt, term = jnp.asarray(0.7), jnp.asarray(0.2), diffrax.ODETerm(pendulum)
        step = tangent_step_of(pendulum, solver, 1.3)
        assert type(step) is FieldTangents
        x, tangents = taken(step, t, dt, y0, v)

        forward = dataclasses.replace(solver, scan_kind="lax")

        def one(y):
            memory = forward.init(term, t, t + dt, y, 1.3)
            return forward.step(term, t, t + dt, y, 1.3, memory, made_jump=False)[0]

        wanted = jax.jit(jax.vmap(lambda y: (one(y), jax.jacfwd(one)(y)), in_axes=-1, out_axes=-1))(y0)
        np.testing.assert_allclose(x, wanted[0], rtol=1e-14)
        np.testing.assert_allclose(tangents, wanted[1], rtol=1e-13)

    def test_solvers_without_a_tableau(self):
        """Lane by lane: an implicit one."""
        y0, solver = jnp.array([[1.0], [2.0]]), diffrax.Kvaerno3(root_finder=diffrax.VeryChord(rtol=1e-10, atol=1e-10))
        step = tangent_step_of(pendulum, solver, 1.3)
        x, v = taken(step, 0.7, 0.01, y0, jnp.eye(2)[:, :, None])
        wanted, tangents = taken(tangent_step_of(pendulum, diffrax.Tsit5(), 1.3), 0.7, 0.01, y0, jnp.eye(2)[:, :, None])
        np.testing.assert_allclose(x, wanted, atol=1e-8)  # order 3 at dt = 0.01
        np.testing.assert_allclose(v, tangents, atol=1e-8)

    def test_gram_schmidt(self):
        v = jnp.asarray(np.random.default_rng(1).standard_normal((6, 4, 3)))
        q, lengths = orthonormalised(v)
        for lane in range(3):
            wanted_q, wanted_r = np.linalg.qr(np.asarray(v[..., lane]))
            sign = np.sign(np.diag(wanted_r))
            np.testing.assert_allclose(q[..., lane], wanted_q * sign, atol=1e-14)
            np.testing.assert_allclose(lengths[..., lane], np.abs(np.diag(wanted_r)), rtol=1e-13)

    def test_the_step_is_computed_once(self):
        calls = []

        def step(x):
            calls.append(x.shape)
            return 2 * x

        pushed_forward(step, jnp.ones((2, 1)), jnp.ones((2, 5, 1)))
        assert calls == [(2, 1)]


class TestLoopInC:
    @pytest.mark.usefixtures("native_loops")
    @pytest.mark.parametrize(
        ("n", "own", "dtype", "order", "count", "orthogonal", "activation"),
        [
            (8, True, "float64", 2, 8, True, jo.Tanh()),
            (3, False, "float64", 1, 1, True, jo.Softsign()),
            (5, True, "float32", 4, 3, False, jo.Tanh()),
            (17, True, "float64", 2, 14, True, jo.HardTanh()),
            (4, False, "float32", 2, 4, True, jo.Identity()),
        ],
    )
    def test_is_the_loop_in_jax(self, n, own, dtype, order, count, orthogonal, activation):
        lanes, x = lanes_with(n, 45, own=own, dtype=dtype)
        lanes = eqx.tree_at(lambda lanes: lanes.activation, lanes, activation)
        solver, frame = PoissonSplitting(order), frame_of(None, n, count, x.dtype)
        schedule = schedule_of(0.0, 12.0, 0.1, 1.0, 4, 5).cast(x.dtype)
        assert native_case(lanes, x.dtype, solver, count, orthogonal) is not None

        @eqx.filter_jit
        def run(in_c):
            options = dict(samples=4, orthogonal=orthogonal, allow_native=in_c)
            return grow(lanes, x.at[0, 7].set(jnp.nan), frame, solver, schedule, 100.0, **options)

        found, wanted = run(True), run(False)
        np.testing.assert_array_equal(found.result, wanted.result)
        assert found.result[7] == jo.Result.non_finite
        assert np.count_nonzero(found.result) == 1
        tolerance = 2e-12 if dtype == "float64" else 2e-3  # a hundred steps in growth of order one
        for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert one.dtype == two.dtype and one.shape == two.shape
            np.testing.assert_allclose(one, two, atol=tolerance, rtol=tolerance)

    def test_knows_its_limits(self):
        lanes, x = lanes_with(8, 4)
        case = functools.partial(native_case, dtype=x.dtype, count=8, orthogonal=True)
        assert case(lanes, solver=PoissonSplitting(2)) is not None
        assert case(lanes, solver=diffrax.Tsit5()) is None
        assert case(lanes, solver=PoissonSplitting(2, compensated=True)) is None
        assert case(eqx.tree_at(lambda lanes: lanes.activation, lanes, jo.Erf()), solver=PoissonSplitting(2)) is None
        assert native_case(lanes, x.dtype, PoissonSplitting(2), MOST_NATIVE_NUMBERS, True) is None
