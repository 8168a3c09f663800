"""Floquet multipliers: units where they must be, linear networks, Liouville's formula, and SciPy's monodromy matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import pair_period, rotation, skew
from scipy.integrate import solve_ivp

import jaxosc as jo
from jaxosc.orbits.floquet import _of_cycle
from jaxosc.orbits.known import known_of
from jaxosc.solvers import PoissonSplitting
from jaxosc.weights import DenseSkew, RotationBlocks, Symmetrizable, Unconstrained

PAIR = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)))
START = np.array([2.0, 1.0])
PERIOD = pair_period(tuple(START), 1.0)
CYCLE = np.array([[0.12, 2.0], [-1.0, -0.1]])


def scipy_monodromy(matrix: np.ndarray, y0: np.ndarray, period: float) -> np.ndarray:
    """Of y' = W tanh(y), by its variational equation."""
    n = len(y0)

    def both(t: float, z: np.ndarray) -> np.ndarray:
        y, v = z[:n], z[n:].reshape(n, n)
        return np.concatenate([matrix @ np.tanh(y), (matrix @ (v / np.cosh(y)[:, None] ** 2)).ravel()])

    start = np.concatenate([y0, np.eye(n).ravel()])
    run = solve_ivp(both, (0, period), start, "DOP853", rtol=1e-12, atol=1e-12)
    return run.y[n:, -1].reshape(n, n)


class TestUnits:
    @pytest.mark.parametrize("segments", [1, 3, 50])
    def test_two_neurons(self, segments: int) -> None:
        """To 1e-8 at dt = 0.05, where the eigenvalues of the same matrix are off by its square root."""
        found = jo.orbits.floquet_multipliers(PAIR, START, PERIOD, dt=0.05, segments=segments)
        assert found.kinds == ("flow", "energy")
        np.testing.assert_allclose(found.multipliers, 1, rtol=0, atol=1e-8)
        assert found.unit_error < 1e-8
        assert found.closure < 1e-8
        assert found.free.shape == (0,) and found.pairing_error == 0 and found.stable()
        plain = np.linalg.eigvals(scipy_monodromy(rotation(1.0), START, PERIOD))
        assert np.abs(plain - 1).max() > 3e-8  # at rtol 1e-12

    @pytest.mark.parametrize("segments", [1, 3, 50])
    def test_three_neurons_of_several_draws(self, segments: int) -> None:
        field = jo.CurrentRNN(Unconstrained(jnp.stack([jnp.asarray(skew(3, seed)) for seed in (1, 2)])))
        start = np.array([1.0, 0.5, 2.0])
        found = jo.orbits.floquet_multipliers(field, start, PERIODS_OF_THREE, dt=0.05, segments=segments)
        assert found.kinds == ("flow", "energy", "casimir")
        assert found.multipliers.shape == (2, 3)
        np.testing.assert_allclose(found.multipliers, 1, rtol=0, atol=1e-8)
        assert "off by" in repr(found)

    def test_rate_form_has_a_shift_and_hidden_skewness_an_energy(self) -> None:
        """r' = sigma(W r) has the multipliers of its y, and those of shifts along ker W in the place of Casimirs."""
        rate = jo.RateRNN(DenseSkew.from_matrix(rotation(1.0)))
        r0 = np.linalg.solve(rotation(1.0), START)
        found = jo.orbits.floquet_multipliers(rate, r0, PERIOD, dt=0.05)
        assert found.kinds == ("flow", "energy") and found.unit_error < 1e-8
        three = jo.RateRNN(DenseSkew.from_matrix(skew(3, 1)))
        assert known_of(three).kinds == ("flow", "shift", "energy")
        hidden = jo.CurrentRNN(Symmetrizable.from_energy_weights(PAIR.weight, [0.5, 2.0]))
        y0 = np.array([1.0, 0.5])
        period = jo.orbits.period(hidden, y0, dt=0.05).period
        found = jo.orbits.floquet_multipliers(hidden, y0, period, dt=0.05)
        assert found.kinds == ("flow", "energy") and found.unit_error < 1e-8

    def test_what_is_known(self) -> None:
        def kinds(matrix: np.ndarray, **options: object) -> tuple[str, ...]:
            return known_of(jo.CurrentRNN(matrix, **options)).kinds

        assert kinds(skew(3, 1), leak=0.1) == ("flow",)
        assert kinds(skew(3, 1), drive=lambda t: jnp.zeros(3)) == ()
        assert kinds(CYCLE) == ("flow",)
        assert kinds(skew(4, 1), bias=np.ones(4)) == ("flow", "energy")
        # Outside of the range of W no energy is left, and the one Casimir goes with it.
        assert kinds(skew(3, 1), bias=np.ones(3)) == ("flow",)
        inside = skew(3, 1) @ np.ones(3)
        assert kinds(skew(3, 1), bias=inside) == ("flow", "energy", "casimir")


class TestFree:
    @pytest.mark.parametrize("segments", [1, 7])
    def test_of_a_linear_network(self, segments: int) -> None:
        """Two circles: one is the orbit, the other turns by exp(2 pi i sqrt(2)) meanwhile."""
        field = jo.CurrentRNN(RotationBlocks(np.array([1.0, np.sqrt(2)])), jo.Identity())
        options = dict(num_steps=140, segments=segments, solver=PoissonSplitting(8))
        found = jo.orbits.floquet_multipliers(field, [1.0, 0, 0, 0], 2 * np.pi, **options)
        turned = np.exp(2j * np.pi * np.sqrt(2))
        for truth in (turned, turned.conj()):
            assert np.abs(np.asarray(found.free) - truth).min() < 1e-9  # order 8 at dt = 0.045
        assert found.pairing_error < 1e-10
        np.testing.assert_allclose(np.abs(found.exponents.real), 0, atol=1e-9)

    @pytest.mark.parametrize("segments", [1, 3, 50])
    def test_of_a_limit_cycle_by_the_formula_of_liouville(self, segments: int) -> None:
        """The product of both multipliers is exp of the integral of the divergence; one of them is 1."""
        field = jo.CurrentRNN(CYCLE)
        orbit = jo.orbits.periodic_orbit(field, [0.0, 1.0], 6.0, num_steps=150, solver=PoissonSplitting(8))

        def with_divergence(t: float, z: np.ndarray) -> np.ndarray:
            return np.append(CYCLE @ np.tanh(z[:2]), np.diag(CYCLE) @ np.cosh(z[:2]) ** -2.0)

        run = solve_ivp(with_divergence, (0, orbit.period), np.append(orbit.y0, 0), "DOP853", rtol=1e-12, atol=1e-12)
        options = dict(num_steps=150, segments=segments, solver=PoissonSplitting(8))
        found = jo.orbits.floquet_multipliers(field, orbit.y0, orbit.period, **options)
        assert found.kinds == ("flow", "free")
        np.testing.assert_allclose(found.free[0], np.exp(run.y[2, -1]), rtol=1e-8)
        assert np.isnan(found.pairing_error) and found.stable()
        np.testing.assert_allclose(found.exponents[1].real * orbit.period, run.y[2, -1], rtol=1e-7)

    @pytest.mark.parametrize("segments", [1, 9])
    def test_of_four_neurons_against_scipy(self, segments: int) -> None:
        matrix = skew(4, 3)
        values, vectors = np.linalg.eig(matrix)
        fastest = np.argmax(values.imag)
        guess, turn = 0.8 * vectors[:, fastest].real, 2 * np.pi / values[fastest].imag
        orbit = jo.orbits.periodic_orbit(jo.CurrentRNN(DenseSkew.from_matrix(matrix)), guess, turn, num_steps=150)
        options = dict(num_steps=144, segments=segments)
        found = jo.orbits.floquet_multipliers(
            jo.CurrentRNN(DenseSkew.from_matrix(matrix)), orbit.y0, orbit.period, **options
        )
        truth = np.linalg.eigvals(scipy_monodromy(matrix, np.asarray(orbit.y0), float(orbit.period)))
        for value in np.asarray(found.free):
            assert np.abs(truth - value).min() < 1e-7  # order 4 at dt 0.05
        assert found.pairing_error < 1e-8

    def test_roots_of_the_cyclic_matrix(self) -> None:
        """Whatever the signs and sizes of the multipliers: also negative ones, whose roots lie on a border."""
        rng = np.random.default_rng(0)
        ends = np.diag([-3.0, -1 / 3, 0.2, 40.0])
        change = rng.standard_normal((6, 4, 4))
        blocks = np.stack([np.linalg.solve(change[(k + 1) % 6], change[k]) for k in range(6)])
        blocks[5] = np.linalg.solve(change[0], ends @ change[5])
        product = np.linalg.multi_dot(blocks[::-1])
        found = np.asarray(_of_cycle(jnp.asarray(blocks[None]))[0])
        np.testing.assert_allclose(np.sort(found.real), np.sort(np.linalg.eigvals(product).real), rtol=1e-8)
        np.testing.assert_allclose(np.sort(found.real), [-3, -1 / 3, 0.2, 40], rtol=1e-8)

    def test_inside_a_transformation(self) -> None:
        def largest(start: jax.Array) -> jax.Array:
            return jo.orbits.floquet_multipliers(PAIR, start, PERIOD, num_steps=250, segments=2).multipliers

        np.testing.assert_allclose(jax.jit(largest)(START), 1, atol=1e-8)


@pytest.mark.parametrize(
    ("period", "options", "words"),
    [
        (PERIOD, dict(), "expected one of them"),
        (PERIOD, dict(dt=0.1, num_steps=5), "expected one of them"),
        (-1.0, dict(dt=0.1), "period is"),
        (np.ones(3), dict(dt=0.1), "expected one for each"),
        (PERIOD, dict(dt=0.1, segments=0), "segments = 0"),
    ],
)
def test_refuses(period: object, options: dict, words: str) -> None:
    with pytest.raises(jo.JaxoscError, match=words):
        jo.orbits.floquet_multipliers(PAIR, START, period, **options)


def test_refuses_networks_that_differ_in_their_invariants() -> None:
    singular = np.zeros((4, 4))
    singular[:2, :2] = rotation(1.0)
    mixed = jo.CurrentRNN(Unconstrained(jnp.asarray(np.stack([skew(4, 1), singular]))))
    with pytest.raises(jo.JaxoscError, match="directions in ker W"):
        jo.orbits.floquet_multipliers(mixed, np.ones(4), 1.0, dt=0.1)


# Of the networks skew(3, 1) and skew(3, 2) through (1, 0.5, 2); test_orbits_crossings.py holds `period` to SciPy.
PERIODS_OF_THREE = np.asarray(
    jo.orbits.period(
        jo.CurrentRNN(Unconstrained(jnp.stack([jnp.asarray(skew(3, seed)) for seed in (1, 2)]))),
        np.array([1.0, 0.5, 2.0]),
        dt=0.05,
    ).period
)
