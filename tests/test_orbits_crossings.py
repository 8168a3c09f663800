"""Crossings of a section and the period from them: against closed forms, SciPy, and themselves in other clothes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import pair_period, rotation, skew
from scipy.integrate import solve_ivp

import jaxosc as jo
from jaxosc.solvers import PoissonSplitting
from jaxosc.weights import DenseSkew, RotationBlocks, Unconstrained

PAIR = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)))
STARTS = np.array([[0.3, 0.5], [2.0, 1.0], [5.0, 1.0]])
PERIODS = np.array([pair_period(start, 1.0) for start in STARTS])
CYCLE = jo.CurrentRNN(Unconstrained(jnp.array([[0.12, 2.0], [-1.0, -0.1]])))

crossings = functools.partial(jo.orbits.poincare_crossings, PAIR, STARTS, t1=100.0, dt=0.05)


def mean_interval(record: jo.orbits.CrossingRecord) -> np.ndarray:
    return np.nanmean(np.asarray(record.intervals()), axis=-1)


def scipy_period(matrix: np.ndarray, y0: np.ndarray) -> float:
    """The first return to the plane through y0 at right angles to the velocity there."""

    def velocity(t: float, y: np.ndarray) -> np.ndarray:
        return matrix @ np.tanh(y)

    def height(t: float, y: np.ndarray) -> float:
        return float(velocity(0, y0) @ (y - y0))

    height.direction = 1
    run = solve_ivp(velocity, (0, 100), y0, "DOP853", rtol=1e-13, atol=1e-13, events=height)
    return float(run.t_events[0][run.t_events[0] > 1e-3][0])


class TestCrossings:
    def test_period_of_the_pair_at_order_4(self) -> None:
        """The figure that is asked for: 1e-9 relative at dt = 0.05 (measured 1e-10)."""
        record = crossings()
        np.testing.assert_allclose(mean_interval(record), PERIODS, rtol=1e-9)
        np.testing.assert_array_equal(record.count, [14, 8, 4])
        assert not np.any(record.missed)

    def test_points_are_on_section_energy_and_orbit(self) -> None:
        record = crossings(solver=PoissonSplitting(8))
        for k, (start, count) in enumerate(zip(STARTS, np.asarray(record.count), strict=True)):
            times, states = np.asarray(record.times[k, :count]), record.states[k, :count]
            np.testing.assert_allclose(states[:, 0], 0, atol=1e-14)  # roundings of the start, |y| = 5
            assert (np.diff(times) > 1).all()
            exact = jo.oracles.pair_solution(times, start, 1.0)
            np.testing.assert_allclose(states, exact, atol=1e-11)  # order 8 over t = 100, measured 2e-13
            np.testing.assert_allclose(PAIR.energy(states), PAIR.energy(jnp.asarray(start)), rtol=1e-12)

    @pytest.mark.parametrize("order", [2, 4])
    def test_has_the_order_of_the_solver(self, order: int) -> None:
        """Linear interpolation would show order 2, and a cubic on order 8 would show 4."""
        errors = [
            np.abs(mean_interval(crossings(dt=dt, solver=PoissonSplitting(order)))[:2] / PERIODS[:2] - 1)
            for dt in (0.1, 0.05)
        ]
        np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.15)

    def test_a_full_buffer_says_so(self) -> None:
        full, whole = crossings(max_crossings=5), crossings()
        np.testing.assert_array_equal(full.count, [5, 5, 4])
        np.testing.assert_array_equal(full.missed, [9, 3, 0])
        np.testing.assert_array_equal(full.times, whole.times[:, :5])
        assert "raise max_crossings" in repr(full)
        assert "missed" not in repr(whole)
        assert np.isnan(full.times[2, 4]) and np.isnan(full.states[2, 4]).all()

    def test_directions(self) -> None:
        up, down, both = (crossings(direction=way) for way in ("up", "down", "both"))
        assert np.all(np.abs(up.count - down.count) <= 1)
        np.testing.assert_array_equal(both.count, up.count + down.count)
        merged = np.sort(np.concatenate([up.times, down.times], axis=1), axis=1)[:, :64]
        np.testing.assert_allclose(both.times, merged, rtol=1e-12)
        assert (np.asarray(down.states[0, : int(down.count[0]), 1]) < 0).all()

    def test_sections(self) -> None:
        """By neuron, by hyperplane, and a hyperplane for each member, scaled as one likes."""
        by_neuron = crossings(section=1)
        plane = jo.orbits.Section([0, 3])
        np.testing.assert_allclose(crossings(section=plane).times, by_neuron.times, rtol=1e-12)
        own = jo.orbits.Section(np.broadcast_to([0.0, 1.0], (3, 2)), [0.0, 0.5, 40.0])
        record = crossings(section=own)
        np.testing.assert_allclose(record.times[0], by_neuron.times[0], rtol=1e-12)
        np.testing.assert_allclose(record.states[1, : int(record.count[1]), 1], 0.5, rtol=1e-12)
        assert record.count[2] == 0 and np.isnan(record.times[2]).all()

    def test_inside_a_transformation_it_is_the_same(self) -> None:
        """There all states are kept and looked through; outside a buffer is filled on the way."""
        record = crossings()
        words = []

        @jax.jit
        @jax.vmap
        def traced(start: jax.Array) -> jo.orbits.CrossingRecord:
            found = jo.orbits.poincare_crossings(PAIR, start, t1=100.0, dt=0.05)
            words.append(repr(found))
            return found

        other = traced(STARTS)
        np.testing.assert_allclose(other.times, record.times, rtol=1e-13)
        np.testing.assert_array_equal(other.count, record.count)
        assert words[0].endswith("(inside a JAX transformation)")

    def test_float32_keeps_the_digits_of_late_intervals(self) -> None:
        """At t = 5e4 a float32 time is good to 0.004: intervals come from whole steps and fractions."""
        narrow = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0).astype(np.float32)))
        start = STARTS[1].astype(np.float32)
        record = jo.orbits.poincare_crossings(narrow, start, t0=5e4, t1=5.02e4, dt=0.05)
        assert record.times.dtype == jnp.float32
        intervals = np.asarray(record.intervals())[: int(record.count) - 1]
        np.testing.assert_allclose(intervals, PERIODS[1], rtol=5e-6)  # 250 steps with roundings of 6e-8

    def test_escaped_members_are_marked(self) -> None:
        field = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)), jo.Identity())
        record = jo.orbits.poincare_crossings(field, STARTS, t1=100.0, dt=0.5, solver=jo.ForwardEuler(), escape_norm=9)
        assert np.all(record.result == jo.Result.escaped)
        assert "left early" in repr(record)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (dict(direction="sideways"), "expected one of up, down, both"),
            (dict(section=2), "from 0 to 1"),
            (dict(section=jo.orbits.Section([1.0, 0.0, 0.0])), "a normal of shape"),
            (dict(section="zero"), "expected a jo.orbits.Section"),
            (dict(max_crossings=0), "whole number >= 1"),
            (dict(t1=-1.0), "expected t1 > t0"),
            (dict(dt=-0.1), "dt is"),
        ],
    )
    def test_refuses(self, change: dict, words: str) -> None:
        with pytest.raises(jo.JaxoscError, match=words):
            crossings(**change)
        with pytest.raises(jo.JaxoscError, match="of zeros"):
            jo.orbits.Section([0.0, 0.0])


class TestPeriod:
    def test_of_the_pair_without_being_told_how_long(self) -> None:
        found = jo.orbits.period(PAIR, STARTS, dt=0.05)
        np.testing.assert_allclose(found.period, PERIODS, rtol=1e-9)
        off = np.abs(np.asarray(found.period) - PERIODS)
        assert (off <= 2 * np.asarray(found.error)).all()  # an estimate, from one halving of the step
        assert (np.asarray(found.error) < 1e-8).all()
        assert np.all(found.closed) and np.all(found.crossings_per_period == 1)
        np.testing.assert_allclose(found.frequency * 2 * np.pi, found.angular_frequency)
        assert "3 of 3 closed" in repr(found)

    def test_the_streaming_measure_of_sweeps(self) -> None:
        """Linear between steps: its error at both ends of a run of m periods is divided by m; 1e-6 is asked for."""
        run = jo.simulate(PAIR, STARTS, t1=100.0, dt=0.05, solver=PoissonSplitting(4), reducers=(jo.Crossings(),))
        np.testing.assert_allclose(run.reduced["period"], PERIODS, rtol=1e-6)  # measured 8e-9

    def test_gradient_against_the_closed_form(self) -> None:
        """In the gain and in the start; the figure that is asked for is 1e-8 relative (measured 4e-10)."""

        def simulated(gain: jax.Array, y0: jax.Array) -> jax.Array:
            return jo.orbits.period(jo.CurrentRNN(PAIR.weight.scaled(gain)), y0, t1=26.0, dt=0.05).period

        def exact(gain: jax.Array, y0: jax.Array) -> jax.Array:
            return jo.oracles.pair_period(jnp.sum(jnp.log(jnp.cosh(y0))), gain)

        ours = jax.grad(simulated, (0, 1))(1.3, STARTS[1])
        truth = jax.grad(exact, (0, 1))(1.3, STARTS[1])
        for one, other in zip(ours, truth, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8)

    def test_three_neurons_against_scipy(self) -> None:
        """The orbit of the second never takes neuron 0 through zero: the section goes through the start."""
        matrices, start = np.stack([skew(3, seed) for seed in (1, 2)]), np.array([1.0, 0.5, 2.0])
        found = jo.orbits.period(jo.CurrentRNN(Unconstrained(jnp.asarray(matrices))), start, dt=0.05)
        truth = [scipy_period(matrix, start) for matrix in matrices]
        np.testing.assert_allclose(found.period, truth, rtol=1e-9)
        assert np.all(found.closed)

    def test_several_crossings_in_a_period(self) -> None:
        """A curve that passes zero upward three times a turn, from samples."""
        ts = np.arange(0, 60, 0.1)
        ys = np.stack([np.cos(ts) + 2 * np.cos(3 * ts), np.sin(ts)], axis=-1)
        found = jo.orbits.period(ts, ys, section=0)
        assert found.crossings_per_period == 3
        np.testing.assert_allclose(found.period, 2 * np.pi, atol=1e-6)  # six points across 0.3 radians of the harmonic
        assert abs(float(found.period) - 2 * np.pi) < float(found.error)

    def test_of_samples(self) -> None:
        run = jo.simulate(PAIR, STARTS, t1=80.0, dt=0.05, solver=PoissonSplitting(8), save_every=2)
        found = jo.orbits.period(run.ts, run.ys)
        np.testing.assert_allclose(found.period, PERIODS, rtol=2e-10)  # measured 8e-11; by four points 1e-9
        assert np.all(found.closed)
        # Four times as far apart returns miss by about the tolerance: one turn must not become several.
        coarse = jo.orbits.period(run.ts[::4], run.ys[:, ::4])
        np.testing.assert_allclose(coarse.period, PERIODS, rtol=1e-6)

    def test_a_torus_does_not_close(self) -> None:
        field = jo.CurrentRNN(RotationBlocks.from_frequencies([1.0, np.sqrt(2)]), jo.Identity())
        found = jo.orbits.period(field, np.ones(4), t1=200.0, dt=0.05)
        assert not found.closed
        assert found.miss > 1e-3
        assert "not closed" in repr(found)

    def test_a_limit_cycle_after_its_transient(self) -> None:
        found = jo.orbits.period(CYCLE, [1.0, 0.5], dt=0.05, transient=2000.0)
        again = jo.orbits.period(CYCLE, [0.01, 3.0], dt=0.05, transient=2000.0)
        assert found.closed and again.closed
        np.testing.assert_allclose(found.period, again.period, rtol=1e-9)

    def test_a_limit_cycle_crosses_where_it_is_known_to(self) -> None:
        record = jo.orbits.poincare_crossings(
            CYCLE, [1.0, 0.5], t1=2000.0, dt=0.05, section=1, direction="down", max_crossings=400
        )
        assert not record.missed
        # Known to 8 digits; order 4 with a diagonal is off by 3e-8 here, a linear crossing by 1e-4.
        np.testing.assert_allclose(record.states[int(record.count) - 1, 0], 1.50386316, atol=6e-8)

    def test_rest_is_no_error(self) -> None:
        found = jo.orbits.period(PAIR, [[0.0, 0.0], [2.0, 1.0]], t1=40.0, dt=0.05)
        assert np.isnan(found.period[0]) and not found.closed[0]
        np.testing.assert_allclose(found.period[1], PERIODS[1], rtol=1e-9)

    def test_float32(self) -> None:
        narrow = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0).astype(np.float32)))
        found = jo.orbits.period(narrow, STARTS[1].astype(np.float32), t1=100.0, dt=0.05)
        assert found.period.dtype == jnp.float32
        assert found.closed
        np.testing.assert_allclose(found.period, PERIODS[1], rtol=2e-6)  # 2,000 steps with roundings of 6e-8

    @pytest.mark.parametrize(
        ("arguments", "options", "words"),
        [
            ((PAIR, STARTS), dict(), "no dt"),
            ((PAIR, STARTS), dict(dt=0.1, t1=5.0, transient=9.0), r"t0 \+ transient"),
            ((PAIR, STARTS), dict(dt=0.1, max_crossings=1), "whole number >= 2"),
            ((np.arange(9.0), np.zeros((8, 2))), dict(), "expected \\(times,\\)"),
            ((np.arange(4.0), np.zeros((4, 2))), dict(), "at least 6"),
            ((np.zeros(9), np.zeros((9, 2))), dict(), "do not ascend"),
        ],
    )
    def test_refuses(self, arguments: tuple, options: dict, words: str) -> None:
        with pytest.raises(jo.JaxoscError, match=words):
            jo.orbits.period(*arguments, **options)
