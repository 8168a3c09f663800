"""Adaptive Taylor runs in C against those in JAX: the same states to rounding, the same steps and codes."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import lanes_with

import jaxosc as jo
from jaxosc import native
from jaxosc.simulate.adaptive_lanes import AdaptiveRun, run_adaptive_lanes
from jaxosc.simulate.adaptive_methods import TaylorMethod, method_of
from jaxosc.simulate.native_adaptive import native_adaptive_case
from jaxosc.solvers import Lanes

pytestmark = pytest.mark.usefixtures("native_loops")


def run(lanes: Lanes, y0: Any, *, in_c: bool, order: int = 8, **options: Any) -> AdaptiveRun:
    """To t = 5 at 1e-6, unless told otherwise."""
    if in_c:
        assert native_adaptive_case(lanes, y0.dtype, TaylorMethod(order)) is not None
    given = dict(t0=0.0, t1=5.0, rtol=1e-6, atol=1e-6, escape_norm=1e6, max_steps=10_000) | options
    return compiled(lanes, y0, TaylorMethod(order), in_c, {name: jnp.asarray(value) for name, value in given.items()})


@eqx.filter_jit
def compiled(lanes: Lanes, y0: Any, method: Any, in_c: bool, options: Any) -> AdaptiveRun:
    return run_adaptive_lanes(lanes, y0, method, allow_native=in_c, **options)


def assert_alike(found: AdaptiveRun, wanted: AdaptiveRun, tolerance: float = 1e-11) -> None:
    np.testing.assert_array_equal(found.result, wanted.result)
    np.testing.assert_array_equal(found.num_steps, wanted.num_steps)
    np.testing.assert_allclose(found.y, wanted.y, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.energy_drift, wanted.energy_drift, rtol=tolerance, atol=tolerance)
    assert found.turns.shape == wanted.turns.shape and bool(jnp.all(found.turns >= found.num_steps))


@pytest.mark.parametrize(("n", "own"), [(2, False), (5, True), (18, False), (33, True)])
def test_states_and_steps_are_those_of_jax(n: int, own: bool) -> None:
    lanes, y0 = lanes_with(n, 70, own=own)
    assert_alike(*(run(lanes, y0, in_c=in_c) for in_c in (True, False)))


def test_gain_bias_leak_and_backward_in_time() -> None:
    generator = np.random.default_rng(0)
    parts = dict(gain=generator.uniform(0.1, 10, 40), bias=generator.standard_normal((5, 40)), leak=[0.1])
    lanes, y0 = lanes_with(5, 40, **parts)
    assert_alike(*(run(lanes, y0, in_c=in_c) for in_c in (True, False)))
    assert_alike(*(run(lanes, y0, in_c=in_c, t0=5.0, t1=4.0) for in_c in (True, False)))


def test_float32() -> None:
    """A rounding may change the size of a step, and so their number."""
    lanes, y0 = lanes_with(5, 40, dtype="float32")
    found, wanted = (run(lanes, y0, in_c=in_c, order=9) for in_c in (True, False))
    assert found.y.dtype == np.float32
    np.testing.assert_allclose(found.y, wanted.y, atol=3e-5)
    assert float(jnp.max(jnp.abs(found.num_steps - wanted.num_steps))) <= 2


def test_lanes_that_fail_do_so_at_the_same_step() -> None:
    """One leaves, one is no number, one stands still, those of large gain use up their steps."""
    lanes, y0 = lanes_with(5, 40, gain=np.geomspace(0.1, 30, 40))
    y0 = y0.at[0, 3].set(jnp.nan).at[:, 4].set(50.0).at[:, 5].set(0.0)
    found, wanted = (run(lanes, y0, in_c=in_c, escape_norm=20.0, max_steps=25) for in_c in (True, False))
    assert set(np.asarray(wanted.result).tolist()) == {0, 1, 2, 3}
    alive = np.asarray(wanted.result) != 2
    np.testing.assert_array_equal(found.result, wanted.result)
    np.testing.assert_array_equal(found.num_steps[alive], wanted.num_steps[alive])
    np.testing.assert_allclose(found.y[:, alive], wanted.y[:, alive], rtol=1e-11, atol=1e-11)


def test_a_lane_does_not_depend_on_its_neighbours() -> None:
    """To the bit, whatever place it comes to, and nobody waits."""
    lanes, y0 = lanes_with(5, 600, gain=np.geomspace(0.1, 30, 600))
    whole = run(lanes, y0, in_c=True)
    for part in (slice(40, 41), slice(30, 77), slice(5, 600)):
        alone = run(dataclasses.replace(lanes, gain=lanes.gain[part]), y0[:, part], in_c=True)
        np.testing.assert_array_equal(alone.y, whole.y[:, part])
        np.testing.assert_array_equal(alone.num_steps, whole.num_steps[part])
    assert float(jnp.sum(whole.num_steps) / jnp.sum(whole.turns)) > 0.9
    # At the end places stand empty, which is counted: some lane held its place for longer than it ran.
    assert bool(jnp.any(whole.turns > whole.num_steps))


def test_against_the_closed_form() -> None:
    lanes, y0 = lanes_with(2, 30)
    omega = float(lanes.matrix[0, 1, 0])
    found = run(lanes, y0, in_c=True, order=20, rtol=1e-14, atol=1e-14, t1=7.0)
    true = np.stack([np.asarray(jo.oracles.pair_solution(7.0, start, omega)) for start in y0.T], axis=-1)
    np.testing.assert_allclose(found.y, true, atol=1e-12)


def test_what_c_does_not_know_is_left_to_jax() -> None:
    lanes, _ = lanes_with(4, 3)
    assert native_adaptive_case(lanes, np.float64, TaylorMethod(9)) == native.Case(
        4, "float64", "tanh_of", "taylor", False, 9
    )
    for other in (
        dataclasses.replace(lanes, activation=jo.Arctan()),
        dataclasses.replace(lanes, form="rate"),
        dataclasses.replace(lanes, drive=lambda t: jnp.zeros(4)),
    ):
        assert native_adaptive_case(other, np.float64, TaylorMethod(9)) is None
    projected = method_of(jo.solvers.EnergyProjection(jo.solvers.Taylor()), 1e-6, 1e-6, np.float64)
    assert projected is not None and native_adaptive_case(lanes, np.float64, projected) is None


def test_simulate_with_taylor_and_with_wanted_times() -> None:
    """Without times in C, with times in JAX: the same orbit."""
    field = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(3), 3, dtype=jnp.float64), jo.Tanh())
    starts = jnp.asarray(np.random.default_rng(1).standard_normal((50, 3)))
    options = dict(t1=4.0, solver=jo.solvers.Taylor(), rtol=1e-9, atol=1e-9)
    in_c = jo.simulate(field, starts, **options)
    in_jax = jo.simulate(field, starts, ts=jnp.array([1.0, 4.0]), **options)
    np.testing.assert_allclose(in_c.ys[:, 0], in_jax.ys[:, 1], atol=1e-9)
    np.testing.assert_array_equal(in_c.stats["num_steps"], in_jax.stats["num_steps"])
