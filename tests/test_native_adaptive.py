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
from jaxosc import Result, native
from jaxosc.simulate.adaptive_lanes import AdaptiveRun, run_adaptive_lanes
from jaxosc.simulate.adaptive_methods import ProjectedMethod, TaylorMethod, method_of
from jaxosc.simulate.native_adaptive import native_adaptive_case
from jaxosc.solvers import Lanes

pytestmark = pytest.mark.usefixtures("native_loops")


def run(lanes: Lanes, y0: Any, *, in_c: bool, order: int = 8, projected: bool = False, **options: Any) -> AdaptiveRun:
    """To t = 5 at 1e-6, unless told otherwise."""
    method: Any = ProjectedMethod(TaylorMethod(order)) if projected else TaylorMethod(order)
    if in_c:
        assert native_adaptive_case(lanes, y0.dtype, method) is not None
    given = dict(t0=0.0, t1=5.0, rtol=1e-6, atol=1e-6, escape_norm=1e6, max_steps=10_000) | options
    return compiled(lanes, y0, method, in_c, {name: jnp.asarray(value) for name, value in given.items()})


@eqx.filter_jit
def compiled(lanes: Lanes, y0: Any, method: Any, in_c: bool, options: Any) -> AdaptiveRun:
    return run_adaptive_lanes(lanes, y0, method, allow_native=in_c, **options)


def assert_alike(found: AdaptiveRun, wanted: AdaptiveRun, tolerance: float = 1e-11) -> None:
    np.testing.assert_array_equal(found.result, wanted.result)
    np.testing.assert_array_equal(found.num_steps, wanted.num_steps)
    np.testing.assert_allclose(found.y, wanted.y, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.energy_drift, wanted.energy_drift, rtol=tolerance, atol=tolerance)
    assert (found.saved is None) == (wanted.saved is None)
    if wanted.saved is not None:
        np.testing.assert_allclose(found.saved, wanted.saved, rtol=tolerance, atol=tolerance)
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


@pytest.mark.parametrize("projected", [False, True])
def test_states_at_wanted_times(projected: bool) -> None:
    """Many in a step, at both ends, of lanes that stop on the way, forward and backward."""
    gain = np.geomspace(0.1, 10, 70)
    lanes, y0 = lanes_with(5, 70, gain=gain)
    y0 = y0.at[:, 4].set(50.0)
    options = dict(ts=jnp.concatenate([jnp.array([0.0]), jnp.linspace(1.0, 3.0, 30), jnp.array([5.0])]))
    options |= dict(max_steps=120, escape_norm=20.0)
    found, wanted = (run(lanes, y0, in_c=in_c, projected=projected, **options) for in_c in (True, False))
    assert {Result.successful, Result.escaped, Result.max_steps_reached} <= set(np.asarray(wanted.result).tolist())
    assert_alike(found, wanted)
    np.testing.assert_array_equal(found.saved[0, :, 5:], y0[:, 5:])
    np.testing.assert_array_equal(found.saved[-1], found.y)
    back = dict(t0=5.0, t1=0.0, ts=jnp.array([4.0, 3.5, 1.0]))
    assert_alike(*(run(lanes, y0, in_c=in_c, projected=projected, **back) for in_c in (True, False)))


@pytest.mark.parametrize(("n", "own"), [(2, False), (5, True), (18, False), (33, True)])
def test_projected_steps_keep_the_energy(n: int, own: bool) -> None:
    """More lanes than places: each keeps the energy of its own start, at each wanted time, to a few roundings."""
    lanes, y0 = lanes_with(n, 150, own=own)
    options = dict(projected=True, ts=jnp.linspace(0.5, 5.0, 7))
    found, wanted = (run(lanes, y0, in_c=in_c, **options) for in_c in (True, False))
    assert_alike(found, wanted)
    np.testing.assert_allclose(jax.vmap(lanes.energy)(found.saved), jnp.tile(lanes.energy(y0), (7, 1)), rtol=3e-15)
    plain = run(lanes, y0, in_c=True)
    assert float(jnp.max(jnp.abs(plain.energy_drift))) > 1e-9, "without the projection it is not kept"


def test_a_leak_leaves_no_energy_to_keep() -> None:
    """Of which only the run can know: NaN, as in JAX, and the lanes without one are not concerned."""
    lanes, y0 = lanes_with(3, 20, leak=np.where(np.arange(20) == 7, 0.1, 0.0))
    found, wanted = (run(lanes, y0, in_c=in_c, projected=True) for in_c in (True, False))
    np.testing.assert_array_equal(found.result, wanted.result)
    assert found.result[7] == Result.non_finite
    np.testing.assert_allclose(np.delete(found.y, 7, 1), np.delete(wanted.y, 7, 1), rtol=1e-11, atol=1e-11)


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
    assert projected is not None
    case = native_adaptive_case(lanes, np.float64, projected)
    assert case is not None and case.step == "projected"
    weighted = dataclasses.replace(lanes, energy_weights=jnp.ones((4, 1)))
    assert native_adaptive_case(weighted, np.float64, projected) is None
    shifted = dataclasses.replace(lanes, bias=jnp.ones((4, 1)))
    assert native_adaptive_case(shifted, np.float64, projected) is None


def test_simulate_with_taylor_and_with_wanted_times() -> None:
    """With times and without: the same orbit."""
    field = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(3), 3, dtype=jnp.float64), jo.Tanh())
    starts = jnp.asarray(np.random.default_rng(1).standard_normal((50, 3)))
    options = dict(t1=4.0, solver=jo.solvers.Taylor(), rtol=1e-9, atol=1e-9)
    plain = jo.simulate(field, starts, **options)
    kept = jo.simulate(field, starts, ts=jnp.array([1.0, 4.0]), **options)
    np.testing.assert_array_equal(plain.ys[:, 0], kept.ys[:, 1])
    np.testing.assert_array_equal(plain.stats["num_steps"], kept.stats["num_steps"])
