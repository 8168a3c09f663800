"""Closed orbits by shooting and their families: against the closed form of the pair, SciPy, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import pair_period, rotation, skew
from test_orbits_crossings import scipy_period

import jaxosc as jo
from jaxosc.weights import DenseSkew, Unconstrained

PAIR = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)))
START = np.array([2.0, 1.0])
THREE = [skew(3, seed) for seed in (1, 2, 4)]


def exact_slope(energy: float) -> float:
    return float(jax.grad(lambda e: jo.oracles.pair_period(e, 1.0))(energy))


class TestOrbit:
    def test_of_the_pair_from_a_bad_guess(self) -> None:
        found = jo.orbits.periodic_orbit(PAIR, START, 11.5, dt=0.05)
        assert found.result == jo.Result.successful
        np.testing.assert_allclose(found.period, pair_period(tuple(START), 1.0), rtol=1e-9)
        np.testing.assert_allclose(found.energy, PAIR.energy(jnp.asarray(START)), rtol=1e-13)
        np.testing.assert_allclose(found.period_slope, exact_slope(float(found.energy)), rtol=1e-8)
        assert found.residual < 1e-13
        assert "period 12.64" in repr(found)

    def test_with_the_energy_that_is_wanted(self) -> None:
        found = jo.orbits.periodic_orbit(PAIR, np.stack([START, START / 2]), 11.5, energy=[1.2, 0.4], dt=0.05)
        np.testing.assert_allclose(found.energy, [1.2, 0.4], rtol=1e-12)
        np.testing.assert_allclose(found.period, jo.oracles.pair_period(np.array([1.2, 0.4]), 1.0), rtol=1e-9)
        assert "2 of 2 found" in repr(found)

    def test_of_three_neurons_for_several_draws(self) -> None:
        field, y0 = jo.CurrentRNN(Unconstrained(jnp.asarray(np.stack(THREE)))), np.array([1.0, 0.5, 2.0])
        truth = np.array([scipy_period(matrix, y0) for matrix in THREE])
        found = jo.orbits.periodic_orbit(field, y0, 1.03 * truth, dt=0.05)
        np.testing.assert_array_equal(found.result, 0)
        np.testing.assert_allclose(found.period, truth, rtol=2e-9)  # order 4 at 0.05
        for matrix, orbit in zip(THREE, np.asarray(found.y0), strict=True):
            kernel = np.linalg.svd(matrix)[0][:, -1]
            np.testing.assert_allclose(kernel @ orbit, kernel @ y0, atol=1e-12)

    def test_of_a_limit_cycle(self) -> None:
        field = jo.CurrentRNN(np.array([[0.12, 2.0], [-1.0, -0.1]]))
        orbits = [jo.orbits.periodic_orbit(field, guess, 6.0, dt=0.05) for guess in ([0.0, 1.3], [1.6, 0.0])]
        np.testing.assert_allclose(orbits[0].period, orbits[1].period, rtol=1e-8)  # order 4 on two phases
        assert np.isnan(orbits[0].period_slope)
        record = jo.orbits.poincare_crossings(
            field, orbits[0].y0, t1=20.0, dt=0.05, section=1, direction="down", max_crossings=4
        )
        np.testing.assert_allclose(record.states[: int(record.count), 0], 1.50386316, atol=6e-8)

    def test_rate_form(self) -> None:
        """With three neurons r is fixed along ker W by a row of its own; y = W r obeys the current form."""
        rate, current = jo.RateRNN(DenseSkew.from_matrix(THREE[0])), jo.CurrentRNN(DenseSkew.from_matrix(THREE[0]))
        kernel = np.linalg.svd(THREE[0])[0][:, -1]
        y0 = np.array([1.0, 0.5, 2.0])
        y0 = y0 - kernel * (kernel @ y0)
        truth = scipy_period(THREE[0], y0)
        found = jo.orbits.periodic_orbit(rate, np.linalg.lstsq(THREE[0], y0)[0], 1.02 * truth, dt=0.05)
        assert found.result == 0
        np.testing.assert_allclose(found.period, truth, rtol=2e-9)
        np.testing.assert_allclose(found.energy, current.energy(jnp.asarray(y0)), rtol=1e-10)

    def test_gradients_by_the_implicit_function_theorem(self) -> None:
        """A gain g divides the period by g; the wanted energy changes it by dT/dE."""

        def of_gain(gain: jax.Array) -> jax.Array:
            field = jo.CurrentRNN(PAIR.weight.scaled(gain))
            return jo.orbits.periodic_orbit(field, START, 9.5, num_steps=220).period

        def of_energy(energy: jax.Array) -> jax.Array:
            return jo.orbits.periodic_orbit(PAIR, START, 12.5, energy=energy, num_steps=220).period

        truth = pair_period(tuple(START), 1.0)
        np.testing.assert_allclose(jax.grad(of_gain)(1.3), -truth / 1.3**2, rtol=1e-8)
        np.testing.assert_allclose(jax.jvp(of_energy, (1.5,), (1.0,))[1], exact_slope(1.5), rtol=1e-8)

    def test_gradient_in_a_weight_that_turns_the_casimir(self) -> None:
        """Against differences, with an energy that moves the orbit away from the guess whose Casimir it keeps."""
        y0, entries, change = np.array([1.0, 0.5, 2.0]), *(DenseSkew.from_matrix(skew(3, k)).entries for k in (1, 9))
        truth = scipy_period(THREE[0], y0)

        def of_size(size: jax.Array) -> jax.Array:
            field = jo.CurrentRNN(DenseSkew(entries + size * change))
            return jo.orbits.periodic_orbit(field, y0, truth, energy=1.5, num_steps=200).period

        near, far = ((of_size(step) - of_size(-step)) / (2 * step) for step in (1e-3, 2e-3))
        # Extrapolated to step 0: what is left is step^4 and roundings of the period over the step.
        np.testing.assert_allclose(jax.grad(of_size)(0.0), (4 * near - far) / 3, rtol=1e-6)

    def test_one_that_is_not_there_is_a_code(self) -> None:
        field = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)), leak=0.3)
        found = jo.orbits.periodic_orbit(field, START, 11.5, dt=0.05, max_iterations=10)
        assert found.result == jo.Result.solver_failed
        assert "not found" in repr(found)

    def test_float32(self) -> None:
        narrow = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0).astype(np.float32)))
        found = jo.orbits.periodic_orbit(narrow, START.astype(np.float32), 11.5, dt=0.05)
        assert found.period.dtype == jnp.float32 and found.result == 0
        np.testing.assert_allclose(found.period, pair_period(tuple(START), 1.0), rtol=1e-5)  # 250 steps of rounding


class TestFamily:
    def test_of_the_pair_is_the_curve_of_the_closed_form(self) -> None:
        orbit = jo.orbits.periodic_orbit(PAIR, START, 12.5, dt=0.05)
        energies = np.linspace(float(orbit.energy), 0.1, 9)
        family = jo.orbits.continue_family(PAIR, orbit, energies, dt=0.05)
        np.testing.assert_array_equal(family.result, 0)
        np.testing.assert_allclose(family.energy, energies, rtol=1e-12)
        np.testing.assert_allclose(family.period, jo.oracles.pair_period(energies, 1.0), rtol=1e-9)
        np.testing.assert_allclose(family.period_slope, [exact_slope(energy) for energy in energies], rtol=1e-8)
        assert family.y0.shape == (9, 2)

    def test_of_three_neurons_for_two_draws(self) -> None:
        field, y0 = jo.CurrentRNN(Unconstrained(jnp.asarray(np.stack(THREE[:2])))), np.array([1.0, 0.5, 2.0])
        guess = [scipy_period(matrix, y0) for matrix in THREE[:2]]
        orbits = jo.orbits.periodic_orbit(field, y0, guess, dt=0.05)
        energies = np.linspace(float(orbits.energy[0]), float(orbits.energy[0]) + 0.5, 4)
        family = jo.orbits.continue_family(field, orbits, energies, dt=0.05)
        assert family.y0.shape == (2, 4, 3)
        np.testing.assert_array_equal(family.result, 0)
        for matrix, states, periods in zip(THREE, np.asarray(family.y0), np.asarray(family.period), strict=False):
            truth = [scipy_period(matrix, state) for state in states]
            np.testing.assert_allclose(periods, truth, rtol=3e-9)

    def test_goes_on_from_the_last_that_was_found(self) -> None:
        """No orbit has a negative energy."""
        orbit = jo.orbits.periodic_orbit(PAIR, START, 12.5, dt=0.05)
        family = jo.orbits.continue_family(PAIR, orbit, [1.6, -1.0, 1.4], dt=0.05)
        np.testing.assert_array_equal(family.result, [0, jo.Result.solver_failed, 0])
        np.testing.assert_allclose(family.period[2], jo.oracles.pair_period(1.4, 1.0), rtol=1e-9)


class TestRefusals:
    def test_of_guesses_and_energies(self) -> None:
        cycle = jo.CurrentRNN(np.array([[0.12, 2.0], [-1.0, -0.1]]))
        driven = jo.CurrentRNN(rotation(1.0), drive=lambda t: jnp.ones(2))
        for field, options, words in (
            (cycle, dict(energy=1.0, dt=0.1), "not known to conserve"),
            (driven, dict(dt=0.1), "a driven network"),
            (PAIR, dict(), "expected one of them"),
            (PAIR, dict(dt=0.1, max_iterations=0), "max_iterations"),
        ):
            with pytest.raises(jo.JaxoscError, match=words):
                jo.orbits.periodic_orbit(field, START, 6.0, **options)

    def test_of_families(self) -> None:
        orbit = jo.orbits.periodic_orbit(PAIR, START, 12.5, dt=0.05)
        for given, energies, words in ((START, [1.0], "expected a PeriodicOrbit"), (orbit, 1.0, r"expected \(m,\)")):
            with pytest.raises(jo.JaxoscError, match=words):
                jo.orbits.continue_family(PAIR, given, energies, dt=0.05)
