"""The time loops in C against the engine in JAX: the same numbers to rounding, the same lanes frozen then."""

import dataclasses
import shutil
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import lanes_with

import jaxosc as jo
from jaxosc import _choices, native
from jaxosc.native import build
from jaxosc.native.rational_tanh import MOST
from jaxosc.simulate.chunks import run_in_chunks
from jaxosc.simulate.engine import LaneRun, SaveTimes
from jaxosc.simulate.native_loop import native_case
from jaxosc.simulate.reducers import AbstractReducer, Crossings, EnergyDrift, FinalEnergyDrift, Norms
from jaxosc.simulate.steppers import stepper_of
from jaxosc.solvers import Lanes

pytestmark = pytest.mark.usefixtures("native_loops")

ALL = (EnergyDrift(), Norms(), Crossings())
ROUNDING = {"float32": 2e-4, "float64": 1e-11}
"""What some hundred steps make of one rounding."""

EULER, ORDER_ONE, ORDER_TWO, ORDER_FOUR = jo.ForwardEuler(), *(jo.solvers.PoissonSplitting(k) for k in (1, 2, 4))


def run(
    lanes: Lanes, y0: Any, solver: Any, reducers: Any = ALL, *, in_c: bool, steps: int = 333, **options: Any
) -> LaneRun:
    """`steps` steps of 0.05."""
    if in_c:
        assert native_case(lanes, y0.dtype, stepper_of(solver), reducers) is not None
    options = dict(t0=0.0, dt=0.05, num_steps=jnp.int32(steps)) | options
    return compiled(lanes, y0, solver, reducers, in_c, options)


@eqx.filter_jit
def compiled(lanes: Lanes, y0: Any, solver: Any, reducers: Any, in_c: bool, options: Any) -> LaneRun:
    return run_in_chunks(lanes, y0, solver, reducers, allow_native=in_c, **options)


def assert_alike(found: LaneRun, wanted: LaneRun, tolerance: float) -> None:
    """The same codes and counts, and numbers that differ by roundings."""
    np.testing.assert_array_equal(found.result, wanted.result)
    np.testing.assert_array_equal(found.num_steps, wanted.num_steps)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=10 * tolerance, atol=10 * tolerance)


CASES = [
    (2, False, "float32", EULER),
    (2, True, "float64", ORDER_TWO),
    (5, False, "float64", ORDER_ONE),
    (8, True, "float32", ORDER_TWO),
    (18, False, "float32", ORDER_FOUR),
    (18, True, "float64", ORDER_FOUR),
    (33, True, "float32", EULER),
    (33, True, "float64", EULER),
    (27, False, "float32", EULER),
    (50, False, "float32", EULER),
    (50, False, "float32", ORDER_TWO),
]


@pytest.mark.parametrize(("n", "own", "dtype", "solver"), CASES)
def test_all_measures_are_those_of_the_engine(n: int, own: bool, dtype: str, solver: Any) -> None:
    lanes, y0 = lanes_with(n, 150, own=own, dtype=dtype)
    assert_alike(*(run(lanes, y0, solver, in_c=in_c) for in_c in (True, False)), ROUNDING[dtype])


def test_gain_bias_and_leak() -> None:
    generator = np.random.default_rng(0)
    parts = dict(gain=generator.uniform(0.5, 2, 40), bias=generator.standard_normal((3, 40)), leak=[0.1])
    lanes, y0 = lanes_with(3, 40, **parts)
    assert_alike(*(run(lanes, y0, EULER, in_c=in_c) for in_c in (True, False)), ROUNDING["float64"])
    lanes, y0 = lanes_with(3, 40, gain=parts["gain"])
    assert_alike(*(run(lanes, y0, ORDER_TWO, in_c=in_c) for in_c in (True, False)), ROUNDING["float64"])
    own = dict(
        gain=generator.uniform(0.5, 2, 7), bias=generator.standard_normal((20, 7)), leak=generator.uniform(0, 1, 7)
    )
    lanes, y0 = lanes_with(20, 7, own=True, **own)
    assert_alike(*(run(lanes, y0, EULER, in_c=in_c) for in_c in (True, False)), ROUNDING["float64"])
    tiles = dict(gain=generator.uniform(0.5, 2, 70), bias=generator.standard_normal((27, 70)), leak=[0.1])
    lanes, y0 = lanes_with(27, 70, dtype="float32", **tiles)
    assert_alike(*(run(lanes, y0, EULER, in_c=in_c) for in_c in (True, False)), ROUNDING["float32"])


@pytest.mark.parametrize("activation", [jo.Identity(), jo.Softsign(), jo.HardTanh()])
def test_other_activations(activation: Any) -> None:
    """Their energy is measured by JAX, on the states at every tenth step."""
    lanes, y0 = lanes_with(4, 30)
    lanes = dataclasses.replace(lanes, activation=activation)
    assert_alike(*(run(lanes, y0, ORDER_TWO, in_c=in_c) for in_c in (True, False)), ROUNDING["float64"])


@pytest.mark.parametrize("own", [False, True])
def test_lanes_that_leave_are_frozen_at_the_same_step(own: bool) -> None:
    """Euler's linear networks grow; some lanes leave at once, some later, one is no number."""
    lanes, y0 = lanes_with(18 if own else 3, 140, own=own, gain=np.geomspace(0.1, 30, 140))
    lanes = dataclasses.replace(lanes, activation=jo.Identity())
    y0 = y0.at[0, 5].set(jnp.nan).at[1, 77].set(1e300)
    found, wanted = (run(lanes, y0, EULER, in_c=in_c, escape_norm=50.0) for in_c in (True, False))
    assert {0, 1, 2} == set(np.asarray(wanted.result).tolist())
    assert_alike(found, wanted, 1e-9)
    assert found.num_steps[5] == 0 and len(set(np.asarray(found.num_steps).tolist())) > 20


def test_lanes_leave_tiles_at_the_same_step() -> None:
    """To one, since float32's rounding decides; the last block goes on for long before anybody leaves it."""
    lanes, y0 = lanes_with(32, 140, gain=np.geomspace(0.1, 4, 140), dtype="float32")
    lanes = dataclasses.replace(lanes, activation=jo.Identity())
    y0 = y0.at[0, 5].set(jnp.nan).at[1, 77].set(1e30)
    found, wanted = (run(lanes, y0, EULER, in_c=in_c, escape_norm=50.0) for in_c in (True, False))
    assert {0, 1, 2} == set(np.asarray(wanted.result).tolist())
    np.testing.assert_array_equal(found.result, wanted.result)
    assert np.abs(found.num_steps - wanted.num_steps).max() <= 1 and found.num_steps[5] == 0
    assert 20 < wanted.num_steps[128:].min() < 333
    np.testing.assert_allclose(found.y, wanted.y, rtol=1e-2, atol=1e-3)


def test_states_are_kept_where_they_were_wanted() -> None:
    lanes, y0 = lanes_with(3, 20)
    save = SaveTimes(jnp.array([0, 7, 8, 100, 332], jnp.int32), jnp.array([0.0, 0.25, 0.5, 0.0, 1.0]))
    found, wanted = (run(lanes, y0, ORDER_TWO, in_c=in_c, save=save) for in_c in (True, False))
    assert_alike(found, wanted, ROUNDING["float64"])
    np.testing.assert_array_equal(found.y, run(lanes, y0, ORDER_TWO, in_c=True).y)


@pytest.mark.parametrize(
    ("n", "own", "solver", "dtype"),
    [
        (2, False, EULER, "float32"),
        (5, False, ORDER_TWO, "float64"),
        (18, False, ORDER_FOUR, "float64"),
        (32, False, EULER, "float32"),
        (50, False, EULER, "float32"),
        (5, True, EULER, "float64"),
        (18, True, EULER, "float64"),
    ],
)
def test_a_lane_does_not_depend_on_its_neighbours(n: int, own: bool, solver: Any, dtype: str) -> None:
    """To the bit: alone, among few, among many, beside one that leaves.

    A single lane with a W of its own is one that shares it, which for large W is another loop.
    """
    lanes, y0 = lanes_with(n, 600, own=own, dtype=dtype, gain=np.full(600, 0.9))
    whole = run(lanes, y0.at[:, 3].set(1e5), solver, in_c=True, escape_norm=1e5)
    assert whole.result[3] == 1
    for part in (slice(40, 42 if n > 16 and own else 41), slice(30, 77), slice(5, 600)):
        matrix = lanes.matrix[..., part] if own else lanes.matrix
        some = dataclasses.replace(lanes, matrix=matrix, gain=lanes.gain[part])
        alone = run(some, y0[:, part], solver, in_c=True, escape_norm=1e5)
        for one, of_all in zip(jax.tree.leaves(alone), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(one, of_all[..., part])


@pytest.mark.parametrize("n", [24, 32, 45, 100])
def test_products_on_tiles_are_as_right_as_float32_is(n: int) -> None:
    """Against Euler in float64, with no larger errors than sums of float32 have; weights of many sizes."""
    lanes, y0 = lanes_with(n, 80, dtype="float32")
    scales = jnp.asarray(np.geomspace(1e-3, 1, n), jnp.float32)
    lanes = dataclasses.replace(lanes, matrix=lanes.matrix * (scales[:, None] * scales[None, :])[:, :, None])
    assert native_case(lanes, y0.dtype, stepper_of(EULER), ()).tiles
    wide = dataclasses.replace(lanes, matrix=lanes.matrix.astype(jnp.float64))
    true = run(wide, y0.astype(jnp.float64), EULER, (), in_c=False, steps=100).y
    in_c, in_jax = (run(lanes, y0, EULER, (), in_c=in_c, steps=100).y for in_c in (True, False))
    assert float(jnp.abs(true - y0).max()) > 0.1
    # Neuron by neuron, those with small weights too.
    ours, theirs = (jnp.sqrt(jnp.mean((found - true) ** 2, axis=1)) for found in (in_c, in_jax))
    assert float(jnp.linalg.norm(ours)) <= 1.1 * float(jnp.linalg.norm(theirs))
    assert bool(jnp.all(ours <= 1.5 * theirs))


def test_without_a_tile_unit_the_vector_units_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    case = native.Case(32, "float32", "tanh_of", "euler", False, tiles=True)
    monkeypatch.setattr(build, "tiles_may_be_used", lambda: False)
    build.target_of.cache_clear()
    plain = build.target_of(dataclasses.replace(case, tiles=False))
    assert build.target_of(case) == plain is not None


@pytest.mark.parametrize(("n", "dtype"), [(20, "float32"), (33, "float64")])
def test_measures_change_no_bit_of_the_states(n: int, dtype: str) -> None:
    """Euler with a large W each has a loop without them; some lanes are at another place of their block."""
    lanes, y0 = lanes_with(n, 30, own=True, dtype=dtype)
    y0 = y0.at[:, 3].set(1e5)
    wanted = run(lanes, y0, EULER, in_c=True, escape_norm=1e5)
    some = dataclasses.replace(lanes, matrix=lanes.matrix[..., 1:])
    bare, shifted = run(lanes, y0, EULER, (), in_c=True, escape_norm=1e5), run(some, y0[:, 1:], EULER, (), in_c=True)
    assert wanted.result[3] == 1 and np.any(wanted.y != y0)
    np.testing.assert_array_equal(bare.y, wanted.y)
    np.testing.assert_array_equal(np.delete(shifted.y, 2, -1), np.delete(wanted.y, (0, 3), -1))


def test_energy_of_splitting_has_no_drift() -> None:
    """Against the mathematics and not the engine: order 4 at dt = 0.05 stays within 1e-6 of its energy."""
    lanes, y0 = lanes_with(8, 64)
    found = run(lanes, y0, ORDER_FOUR, in_c=True, steps=20_000)
    assert float(jnp.max(jnp.abs(found.reduced["energy_drift_max"]))) < 1e-5
    euler = run(lanes, y0, EULER, in_c=True, steps=20_000)
    assert float(jnp.min(euler.reduced["energy_drift_max"])) > 1e-2


@pytest.mark.parametrize(("dtype", "units"), [("float32", 4), ("float64", 6)])
def test_tanh_is_right_to_a_few_units_in_the_last_place(dtype: str, units: int) -> None:
    """One Euler step from (0, x) moves the first neuron by dt w tanh(x), here with dt w = 1."""
    x = np.concatenate([np.geomspace(1e-8, 2 * MOST[dtype], 4000), np.linspace(0, MOST[dtype], 4000)]).astype(dtype)
    x = np.concatenate([x, -x])
    lanes = Lanes(jnp.array([[[0.0], [1.0]], [[-1.0], [0.0]]], dtype), jo.Tanh(), hollow=True, skew=True)
    start = jnp.stack([jnp.zeros_like(x), jnp.asarray(x)])
    found = np.asarray(run(lanes, start, EULER, (), in_c=True, steps=1, dt=1.0).y[0])
    wanted = np.tanh(x.astype(np.longdouble))
    error = np.abs(found.astype(np.longdouble) - wanted) / np.spacing(np.abs(wanted.astype(dtype)))
    assert float(error.max()) <= units


class Own(AbstractReducer):
    """A measure that the loops in C do not know."""

    names = ("own",)
    sampled = False

    def init(self, lanes: Any, x: Any) -> Any:
        return x[0]

    def update(self, state: Any, lanes: Any, step: Any, before: Any, after: Any) -> Any:
        return state + after[0]

    def finish(self, state: Any, lanes: Any, x: Any, dt: Any) -> Any:
        return {"own": state}


class Looks(EnergyDrift):
    """Derived from a measure that C knows, and another one: how often it has looked, and a drift of no account."""

    names = ("energy_drift", "energy_drift_max")
    sampled = True

    def update(self, state: Any, lanes: Any, step: Any, before: Any, after: Any) -> Any:
        start, worst, at = super().update(state, lanes, step, before, after)
        return start, worst + 1, at


def test_a_derived_measure_is_not_taken_for_the_one_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets every tenth state, the last one too, although C brings back only three of them at a time."""
    lanes, y0 = lanes_with(3, 20)
    monkeypatch.setattr(_choices, "NATIVE_SAMPLE_BYTES", 3 * y0.size * 8)
    found, wanted = (run(lanes, y0, ORDER_TWO, (Looks(),), in_c=in_c, steps=330) for in_c in (True, False))
    assert_alike(found, wanted, ROUNDING["float64"])
    assert set(np.asarray(found.reduced["energy_drift_max"]).round().tolist()) == {33}


def test_what_c_does_not_know_is_left_to_jax() -> None:
    lanes, y0 = lanes_with(4, 3)
    case = native_case(lanes, y0.dtype, stepper_of(ORDER_TWO), ALL)
    assert case == native.Case(4, "float64", "tanh_of", "splitting", False)
    with_leak = dataclasses.replace(lanes, leak=jnp.ones(1))
    groups = dataclasses.replace(lanes, colours=((0, 1), (2, 3)))
    for other in (
        dataclasses.replace(lanes, activation=jo.Arctan()),
        dataclasses.replace(lanes, form="rate"),
        dataclasses.replace(lanes, drive=lambda t: jnp.zeros(4)),
        dataclasses.replace(lanes, hollow=False),
        with_leak,
        groups,
    ):
        assert native_case(other, y0.dtype, stepper_of(ORDER_TWO), ALL) is None
    assert native_case(with_leak, y0.dtype, stepper_of(EULER), ALL) is not None
    for solver in (jo.solvers.PoissonSplitting(2, compensated=True), jo.solvers.PairSplitting(), jo.solvers.Taylor(8)):
        assert native_case(lanes, y0.dtype, stepper_of(solver), ALL) is None
    assert native_case(lanes, y0.dtype, stepper_of(EULER), (Own(),)) is None
    assert native_case(lanes, np.float16, stepper_of(EULER), ()) is None


def test_simulate_takes_the_loop_in_c_and_gradients_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(native, "target_of", lambda case: taken.append(case) or build.target_of(case))
    field = jo.CurrentRNN(jo.weights.DenseSkew.random(jax.random.key(0), 6), jo.Tanh())
    y0 = jnp.ones(6)
    # A number of steps of its own, or the program would be one that another test has compiled.
    in_c = jo.simulate(field, y0, t1=1.9, dt=0.1, solver=ORDER_TWO, reducers=(Norms(),))
    assert [case.step for case in taken] == ["splitting"]
    monkeypatch.setenv(build.ASKED, "0")
    jax.clear_caches()
    in_jax = jo.simulate(field, y0, t1=1.9, dt=0.1, solver=ORDER_TWO, reducers=(Norms(),))
    np.testing.assert_allclose(in_c.ys, in_jax.ys, rtol=1e-5)
    monkeypatch.setenv(build.ASKED, "1")
    slope = jax.grad(lambda y0: jo.simulate(field, y0, t1=1.9, dt=0.1, solver=ORDER_TWO).ys[-1, 0])(y0)
    assert len(taken) == 1 and bool(jnp.all(jnp.isfinite(slope)))


def test_a_compiler_that_fails_is_a_warning_and_jax_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "compiler", lambda: shutil.which("false"))
    monkeypatch.setenv(build.ASKED, "1")
    lanes, y0 = lanes_with(7, 3)
    with pytest.warns(UserWarning, match="JAX's own run instead"):
        found = run(lanes, y0, EULER, (FinalEnergyDrift(),), in_c=True, steps=10)
    assert bool(jnp.all(found.num_steps == 10))
    assert not native.loops_are_native()  # and nobody is told twice


def test_a_second_process_finds_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    case = native.Case(5, "float64", "tanh_of", "euler", False)
    name = native.target_of(case)
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    build.target_of.cache_clear()
    assert native.target_of(case) == name is not None
    assert native.target_of(dataclasses.replace(case, neurons=5)) == name


def test_a_sweep_gives_the_same_bits_in_other_chunks() -> None:
    sweep = jo.sweeps.Sweep(
        activation="tanh", solver=["euler", "poisson_splitting"], neurons=[3, 18], dt=0.1, duration=5.0, draws=2, ics=9
    )
    whole, parts = (sweep.run(progress=False, chunk_members=members) for members in (10_000, 2))
    assert "C where it can be" in whole.attrs["versions"]
    for name in whole.data_vars:
        assert whole[name].values.tobytes() == parts[name].values.tobytes(), name
