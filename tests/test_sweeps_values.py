"""What a sweep computes: the same numbers as one run at a time, whatever the layout, and the right verdicts."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import jaxosc as jo
from jaxosc.sweeps import Axis, Sweep
from jaxosc.sweeps.ensemble import Ensemble, precision, sized_starts
from jaxosc.sweeps.plan import lanes_of_sweep, make_plan
from jaxosc.sweeps.runner import MemorySink, run_into
from jaxosc.sweeps.schema import ORBITS

REDUCERS = (jo.EnergyDrift(), jo.Norms(), jo.Crossings())


def run(sweep: Sweep) -> xarray.Dataset:
    return sweep.run(progress=False)


@pytest.fixture(scope="module")
def small() -> xarray.Dataset:
    """A sweep that uses every kind of axis but the custom one."""
    return run(
        Sweep(
            activation="tanh",
            solver=["euler", "poisson_splitting"],
            neurons=3,
            gain=[0.5, 1.5],
            dt=[0.05, 0.1],
            leak=[0, 0.02],
            asymmetry=[0, 0.05],
            draws=3,
            ics=2,
            duration=12,
            seed=3,
        )
    )


def repeated(data: xarray.Dataset, **place) -> tuple[jo.sweeps.Member, jo.Solution, xarray.Dataset]:
    """A member, its run by `simulate`, and what the sweep measured."""
    member = jo.sweeps.member(data, **place)
    solution = jo.simulate(
        member.field,
        member.y0,
        t1=member.num_steps * member.dt,
        dt=member.dt,
        solver=member.solver,
        reducers=REDUCERS,
        throw=False,
    )
    return member, solution, data.sel(member.place)


PLACES = [
    dict(solver="euler", gain=1.5, dt=0.05, leak=0.02, asymmetry=0.05, draw=2, ic=1),
    dict(solver="poisson_splitting", gain=0.5, dt=0.1, leak=0, asymmetry=0.05, draw=0, ic=0),
    dict(solver="poisson_splitting", gain=1.5, dt=0.1, leak=0.02, asymmetry=0, draw=1, ic=1),
    dict(solver="euler", gain=0.5, dt=0.05, leak=0, asymmetry=0, draw=2, ic=0),
]


@pytest.mark.parametrize("place", PLACES)
def test_members_equal_single_runs(small: xarray.Dataset, place: dict):
    _, solution, here = repeated(small, **place)
    expected = {"energy_drift": solution.energy_drift, **solution.reduced}
    # Two programs of the same operations: rounding, amplified over 240 steps; drifts are differences of energies.
    for name in ("energy_drift", "energy_drift_max", "max_norm", "final_norm", "period", "frequency", "period_spread"):
        np.testing.assert_allclose(here[name], expected[name], rtol=1e-10, atol=1e-12, err_msg=name)
    assert int(here.num_steps) == int(solution.stats["num_steps"])
    assert int(here.result) == int(solution.result)


def test_members_equal_the_hand_written_loop(small: xarray.Dataset):
    member, _, here = repeated(small, **PLACES[0])
    _, ys = jo.euler_loop(member.field, member.y0, member.dt, member.num_steps)
    norms = np.linalg.norm(ys, axis=-1)
    np.testing.assert_allclose(here.final_norm, norms[-1], rtol=1e-12)
    np.testing.assert_allclose(here.max_norm, norms.max(), rtol=1e-12)
    assert norms.std() > 1e-3  # it moved


def test_weights_follow_their_formula(small: xarray.Dataset):
    place = PLACES[0]
    plain, leaning = (jo.sweeps.member(small, **place | dict(asymmetry=a)) for a in (0, 0.05))
    skew, full = np.asarray(plain.field.weight.matrix()), np.asarray(leaning.field.weight.matrix())
    np.testing.assert_array_equal(skew, -skew.T)
    symmetric = (full - skew) / (1.5 * 0.05)  # W = gain (S + asymmetry M)
    np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-12)
    assert float(plain.field.leak) == 0.02
    weaker = jo.sweeps.member(small, **place | dict(asymmetry=0, gain=0.5)).field.weight.matrix()
    np.testing.assert_allclose(3 * np.asarray(weaker), skew, rtol=1e-15)


def test_symmetric_parts_have_the_stated_law():
    sweep = Sweep(neurons=3, asymmetry=1.0)
    with precision("float64"):
        drawn = Ensemble(sweep, jo.weights.DenseSkew, 3).symmetric_parts(np.arange(2048))
    off, on = drawn[:, 0, 1:], np.diagonal(drawn, axis1=1, axis2=2)
    # Relative standard error of a variance of N samples is sqrt(2/N): four of them for 4,096 and 6,144 samples.
    assert off.var() == pytest.approx(1 / 3, rel=0.09)
    assert on.var() == pytest.approx(2 / 3, rel=0.08)


def test_random_numbers_do_not_depend_on_how_many_there_are():
    few, many = (Sweep(neurons=3, draws=draws, ics=ics, seed=4) for draws, ics in ((2, 3), (70, 40)))
    with precision("float64"):
        ensembles = [Ensemble(sweep, jo.weights.DenseSkew, 3) for sweep in (few, many)]
        draws, ics = np.array([1, 0, 1]), np.array([2, 0, 1])
        backward = np.arange(69, -1, -1)
        np.testing.assert_array_equal(
            ensembles[0].weights(draws).entries, ensembles[1].weights(backward).entries[69 - draws]
        )
        padded = np.concatenate([draws, backward]), np.concatenate([ics, backward % 40])
        np.testing.assert_array_equal(ensembles[0].starts(draws, ics), ensembles[1].starts(*padded)[:3])
        entries, starts = ensembles[1].weights(backward).entries, ensembles[1].starts(*padded)[3:]
        assert len(np.unique(entries)) == entries.size  # and no two numbers are the same
        assert len(np.unique(starts)) == starts.size
        other = Ensemble(few.replace(seed=5), jo.weights.DenseSkew, 3)
        assert not np.any(other.weights(draws).entries == ensembles[0].weights(draws).entries)


def test_starts_have_the_stated_size():
    for law, size in (("normal", np.sqrt(3) * 3), ("sphere", 3), ("uniform", 3)):
        sweep = Sweep(neurons=3, ic={"law": law, "radius": 3}, draws=192)
        with precision("float64"):
            raw = Ensemble(sweep, jo.weights.DenseSkew, 3).starts(np.arange(192), np.arange(192) % 3)
            y0 = np.asarray(sized_starts(law, 3.0, jnp.asarray(raw)))
        np.testing.assert_array_equal(jo.sweeps.member(sweep, draw=183, ic=0).y0, y0[183])
        norms = np.sqrt((y0**2).sum(axis=1).mean())
        # 576 entries: a relative standard error of 3 % (normal) and 2 % (uniform) of the mean square's root.
        assert norms == pytest.approx(size, rel=1e-12 if law == "sphere" else 0.12)
        if law == "uniform":
            assert np.abs(y0).max() <= 3


def test_energy_law_starts_on_the_level_set():
    level = {"law": "energy", "energy": 2.5}
    sweep = Sweep(neurons=3, activation=["tanh", "identity"], weight_law="symmetrizable", ic=level)
    for name in ("tanh", "identity"):
        for draw in (0, 9):
            member = jo.sweeps.member(sweep, activation=name, draw=draw, ic=draw)
            assert float(member.field.energy(member.y0)) == pytest.approx(2.5, rel=1e-13)


def test_shared_layout_equals_own_layout(monkeypatch: pytest.MonkeyPatch):
    sweep = Sweep(
        solver="euler", neurons=12, gain=[0.5, 1], leak=[0, 0.1], asymmetry=[0, 0.1], draws=2, ics=4, duration=4
    )
    assert lanes_of_sweep(sweep, 12).shared
    shared = run(sweep)
    monkeypatch.setattr("jaxosc.sweeps.plan.OWN_BELOW", 13)
    assert not lanes_of_sweep(sweep, 12).shared
    own = run(sweep)
    for name in ("energy_drift", "max_norm", "final_norm", "period"):
        np.testing.assert_allclose(shared[name], own[name], rtol=1e-9, atol=1e-11, err_msg=name)
    assert (shared.num_steps == 40).all()


def test_weight_file_gives_the_same_as_its_matrix(tmp_path: Path):
    weight = jo.weights.DenseSkew.random(jax.random.key(1), 3)
    np.savetxt(tmp_path / "w.csv", weight.matrix(), delimiter=",", fmt="%.17g")
    np.save(tmp_path / "w.npy", weight.matrix())
    sweep = Sweep(solver="euler", weight_file=str(tmp_path / "w.npy"), gain=[1, 2], ics=3, duration=5)
    np.testing.assert_array_equal(sweep.matrix, sweep.replace(weight_file=str(tmp_path / "w.csv")).matrix)
    member, solution, here = repeated(run(sweep), gain=2, ic=1)
    np.testing.assert_array_equal(member.field.weight.matrix(), 2 * weight.matrix())
    np.testing.assert_allclose(here.final_norm, solution.reduced["final_norm"], rtol=1e-12)


USER_FILE = """
import equinox as eqx
import jax.numpy as jnp

def softer(y):
    return y / (1 + jnp.abs(y))

def add_drive(field, value):
    drive = value * jnp.ones(field.size, field.dtype)
    return eqx.tree_at(lambda f: f.bias, field, drive, is_leaf=lambda leaf: leaf is None)
"""


def test_custom_axis_and_activation_from_a_users_file(tmp_path: Path):
    (tmp_path / "mine.py").write_text(USER_FILE)
    (tmp_path / "spec.toml").write_text(
        """
        activation = {mine = "mine.py:softer"}
        solver = "euler"
        neurons = 3
        draws = 2
        ics = 3
        duration = 5.0
        [axes.drive]
        values = [0.0, 0.5]
        apply = "mine.py:add_drive"
        units = "1 / time unit"
        """
    )
    sweep = jo.sweeps.load_spec(tmp_path / "spec.toml")
    data = run(sweep)
    assert data.energy_drift.dims == ("activation", "solver", "neurons", "gain", "dt", "drive", "draw", "ic")
    assert data.drive.attrs["units"] == "1 / time unit"
    assert data.activation.values.tolist() == ["mine"]
    place = dict(drive=0.5, draw=1, ic=2)
    member, solution, here = repeated(data, **place)
    np.testing.assert_array_equal(member.field.bias, 0.5)
    np.testing.assert_allclose(here.final_norm, solution.reduced["final_norm"], rtol=1e-12)
    # The same network with the package's own softsign and a bias: an independent way to the same number.
    plain = jo.CurrentRNN(member.field.weight, jo.Softsign(), bias=0.5 * jnp.ones(3))
    _, ys = jo.euler_loop(plain, member.y0, 0.1, 50, save_every=50)
    np.testing.assert_allclose(here.final_norm, np.linalg.norm(ys[-1]), rtol=1e-12)
    assert abs(float(here.final_norm - data.sel(place | {"drive": 0}).squeeze().final_norm)) > 1e-2


def test_custom_axis_in_the_shared_layout_sees_gain_and_leak():
    def cap(field, value):
        # Not linear in the matrix, so that applying gain later would give another network.
        weight = jo.weights.Unconstrained(jnp.clip(field.weight.matrix(), -value, value))
        return eqx.tree_at(lambda f: (f.weight, f.leak), field, (weight, 2 * field.leak))

    axis = Axis("cap", [0.2, 9], cap)
    sweep = Sweep(solver="euler", neurons=12, gain=[1, 3], leak=0.1, axes=[axis], draws=1, ics=8, duration=3)
    assert lanes_of_sweep(sweep, 12).shared
    data = run(sweep)
    for gain in (1, 3):
        _, solution, here = repeated_object(sweep, data, gain=gain, cap=0.2, ic=5)
        np.testing.assert_allclose(here.final_norm, solution.reduced["final_norm"], rtol=1e-11)


def repeated_object(sweep: Sweep, data: xarray.Dataset, **place):
    """As `repeated` for a sweep with Python objects, which a dataset cannot give back."""
    member = jo.sweeps.member(sweep, **place)
    t1 = member.num_steps * member.dt
    solution = jo.simulate(member.field, member.y0, t1=t1, dt=member.dt, solver=member.solver, reducers=REDUCERS)
    return member, solution, data.sel(member.place)


def test_float32_sweep_in_a_float64_session():
    sweep = Sweep(solver="euler", neurons=2, draws=2, ics=2, duration=5, measures="norms", dtype="float32")
    data = run(sweep)
    assert data.max_norm.dtype == np.float32
    member = jo.sweeps.member(sweep, draw=1, ic=1)
    assert member.y0.dtype == member.field.dtype == np.float32
    solution = jo.simulate(member.field, member.y0, t1=5.0, dt=0.1, solver=member.solver, reducers=(jo.Norms(),))
    np.testing.assert_allclose(data.max_norm.sel(draw=1, ic=1).item(), solution.reduced["max_norm"], rtol=1e-5)


def orbit_words(data: xarray.Dataset, where: xarray.DataArray | bool = True) -> set[str]:
    flags = data.orbit.values[np.broadcast_to(where, data.orbit.shape)]
    return {ORBITS[flag] for flag in np.unique(flags)}


def verdicts(activation: str, solver: str, **settings) -> xarray.Dataset:
    """Twenty members of n = 2."""
    return run(Sweep(activation=activation, solver=solver, neurons=2, draws=5, ics=4, duration=60, **settings))


def test_regular_orbits_are_periodic_and_damped_ones_collapse():
    data = verdicts("tanh", "poisson_splitting", dt=0.02, leak=[0, 0.5])
    several_turns = data.sel(leak=0).period < 15
    assert several_turns.sum() > 8
    assert orbit_words(data.sel(leak=0), several_turns) == {"periodic"}
    assert orbit_words(data.sel(leak=0)) <= {"periodic", "undecided"}
    assert orbit_words(data.sel(leak=0.5)) == {"collapsing"}
    assert (np.abs(data.sel(leak=0).energy_drift_max) < 1e-3).all()


def test_exploding_orbits_escape_and_are_frozen():
    data = verdicts("identity", "euler", dt=[0.02, 0.5], escape_norm=1e3)
    escaped = data.result == jo.Result.escaped
    assert escaped.any()
    assert not escaped.all()
    steps = (60 / data.dt).round()
    assert (data.num_steps < steps).where(escaped, True).all()
    assert (data.num_steps == steps).where(~escaped, True).all()
    assert (data.final_norm <= 1e3).all()
    assert orbit_words(data, escaped) == {"escaping"}
    assert orbit_words(data.sel(dt=0.5)) <= {"escaping", "undecided"}


def test_unbounded_level_sets_let_orbits_escape_or_rest():
    data = verdicts("rectified_tanh", "poisson_splitting")
    assert orbit_words(data) == {"escaping", "fixed_point", "undecided"}
    resting = data.orbit == ORBITS.index("fixed_point")
    # Both neurons silent: nothing moves at all.
    assert (data.final_norm == data.max_norm).where(resting, True).all()
    growing = data.orbit == ORBITS.index("escaping")
    assert (data.final_norm > 10).where(growing, True).all()


def test_measures_choose_the_variables():
    data = run(Sweep(solver="euler", neurons=2, draws=1, ics=1, duration=2, measures="norms"))
    assert sorted(data.data_vars) == ["final_norm", "max_norm", "num_steps", "orbit", "result"]


def count_compilations(sweep: Sweep) -> tuple[int, int]:
    """Programs that the runner says it compiled, and those that JAX reports."""
    reported: list[str] = []
    live = [True]

    def listen(event: str, _: float, **__) -> None:
        if live[0] and event == "/jax/core/compile/backend_compile_duration":
            reported.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    sink = MemorySink(make_plan(sweep))
    work = run_into(sink, jo.sweeps.progress.Silent())
    live[0] = False  # listeners cannot be taken away by public means
    return work.compilations, len(reported)


def test_ten_thousand_gains_compile_once():
    sweep = Sweep(solver="euler", neurons=2, draws=1, ics=1, duration=1, dt=[0.1, 0.2, 0.5], measures="norms")
    run(sweep)  # draws and starts have small programs of their own, which stay
    gains = sweep.replace(gain=np.linspace(0.1, 10, 10_000))
    assert count_compilations(gains) == (1, 1)


def test_one_compilation_per_static_combination():
    sweep = Sweep(
        activation=["tanh", "softsign"],
        solver=["euler", "midpoint"],
        neurons=2,
        gain=[1, 2],
        dt=[0.1, 0.5],
        draws=2,
        ics=2,
        duration=1,
        measures="norms",
    )
    run(sweep.replace(activation="tanh", solver="euler"))
    assert count_compilations(sweep) == (4, 4)


@pytest.mark.slow
def test_the_default_study_compiles_once_per_static_combination():
    # Fewer members and steps than the real one: neither enters the programs but for the width of a block.
    short = jo.sweeps.default_study(duration=1.0, draws=2, ics=2)
    run(short.replace(activation="tanh", solver="euler"))
    assert count_compilations(short) == (18, 18)


def test_streamed_periods_are_those_of_the_closed_form():
    """Order 4 at dt = 0.05 follows the pair to 1e-8; crossings on an inflection are interpolated better than that."""
    sweep = Sweep(weight_law="rotation_blocks", neurons=2, solver="poisson_splitting_4", dt=0.05, duration=200, draws=6)
    data = run(sweep.replace(ics=2))
    compared = 0
    for draw, ic in np.ndindex(6, 2):
        member = jo.sweeps.member(sweep, draw=draw, ic=ic)
        period = jo.oracles.pair_period(member.field.energy(member.y0), member.field.weight.matrix()[0, 1])
        found = float(data.period.sel(draw=draw, ic=ic).squeeze())
        if np.isfinite(found):
            assert found == pytest.approx(float(period), rel=1e-6)
            compared += 1
    assert compared >= 8
