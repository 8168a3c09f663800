"""The closed forms, against SciPy, mpmath in many digits, and integrators that share no code with them."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special
from scipy.integrate import quad, solve_ivp

import jaxosc as jo
from jaxosc import oracles
from jaxosc.oracles.elliptic import (
    complementary_ladder,
    complete_first,
    incomplete_first,
    second_over_first_less_m1,
    tangent_of_amplitude,
)

ENERGIES = np.geomspace(1e-6, 300.0, 200)
EPS64 = np.finfo(np.float64).eps
EPS32 = float(np.finfo(np.float32).eps)

solution = jax.jit(oracles.pair_solution)
period = jax.jit(oracles.pair_period)


def energy_of(y: np.ndarray) -> float:
    """log cosh y1 + log cosh y2, also where cosh overflows."""
    return float(np.sum(np.logaddexp(y, -np.asarray(y)) - np.log(2)))


def mpmath_state(t: float, y0: np.ndarray, omega: float) -> np.ndarray:
    """The pair by mpmath's elliptic functions of m itself, with digits to spare for 1 - m = exp(-2E)."""
    with mpmath.workdps(40 + int(2 * energy_of(y0))):
        y1, y2 = (mpmath.mpf(float(v)) for v in y0)
        b = 1 / (mpmath.cosh(y1) * mpmath.cosh(y2))
        m = 1 - b * b
        phase = mpmath.ellipf(mpmath.atan2(mpmath.sinh(y1), mpmath.tanh(y2)), m)
        u = phase + mpmath.mpf(float(omega)) * mpmath.mpf(float(t))
        u -= 4 * mpmath.ellipk(m) * mpmath.nint(u / (4 * mpmath.ellipk(m)))
        sn, cn, dn = (mpmath.ellipfun(name, u, m=m) for name in ("sn", "cn", "dn"))
        return np.array([float(mpmath.asinh(mpmath.sqrt(m) * v)) for v in (sn / dn, cn / b)])


class TestElliptic:
    def test_complete_integral(self) -> None:
        b = jnp.asarray(np.exp(-np.linspace(0, 40, 200)))
        expected = special.ellipkm1(np.asarray(b) ** 2)
        assert complete_first(complementary_ladder(b)) == pytest.approx(expected, rel=4 * EPS64)

    def test_second_kind(self) -> None:
        b = np.exp(-np.linspace(0, 15, 60))
        expected = special.ellipe(1 - b**2) / special.ellipk(1 - b**2) - b**2
        ladder = complementary_ladder(jnp.asarray(b))
        # SciPy takes 1 - b^2, in which b is lost: its K is good to eps/b^2 / (2 K)
        assert np.abs(second_over_first_less_m1(ladder) - expected)[b > 1e-3] == pytest.approx(0, abs=1e-9)
        assert np.abs(second_over_first_less_m1(ladder) - expected)[b > 0.1] == pytest.approx(0, abs=1e-14)

    def test_second_kind_keeps_relative_accuracy_at_small_modulus(self) -> None:
        energy = 1e-9
        value = second_over_first_less_m1(complementary_ladder(jnp.asarray(np.exp(-energy))))
        assert float(value) == pytest.approx(energy, rel=1e-6)  # m/2 up to O(m^2); exp(-E) itself is good to 1e-7 E

    @pytest.mark.parametrize("b", [1.0, 0.6, 1e-2, 1e-6, 1e-16])
    def test_incomplete_integral(self, b: float) -> None:
        x = np.geomspace(1e-6, 1e6, 50) * np.sqrt(b)
        # Carlson's form of the same integral
        expected = x * special.elliprf(1.0, 1 + (b * x) ** 2, 1 + x**2)
        ladder = complementary_ladder(jnp.full(50, b))
        assert incomplete_first(ladder, jnp.asarray(x)) == pytest.approx(expected, rel=20 * EPS64)

    @pytest.mark.parametrize("b", [1.0, 0.6, 1e-2, 1e-6, 1e-16])
    def test_amplitude_inverts_the_incomplete_integral(self, b: float) -> None:
        ladder = complementary_ladder(jnp.full(41, b))
        u = jnp.linspace(-0.5, 0.5, 41) * complete_first(ladder)
        x = tangent_of_amplitude(ladder, u)
        assert np.abs(x).max() == pytest.approx(b**-0.5, rel=1e-13)  # sn/cn at K/2
        assert incomplete_first(ladder, x) == pytest.approx(np.asarray(u), abs=10 * EPS64 * float(u.max()))


class TestPeriod:
    def test_against_scipy(self) -> None:
        expected = 4 / 0.7 * special.ellipkm1(np.exp(-2 * ENERGIES))
        assert period(ENERGIES, -0.7) == pytest.approx(expected, rel=8 * EPS64)

    @pytest.mark.parametrize("energy", [0.0, 1e-12, 5.0, 19.99, 20.0, 20.01, 350.0, 1e4])
    def test_against_mpmath(self, energy: float) -> None:
        with mpmath.workdps(40):
            expected = 2 * mpmath.pi / mpmath.agm(1, mpmath.exp(-mpmath.mpf(energy)))
        assert float(period(energy, 1.0)) == pytest.approx(float(expected), rel=4 * EPS64)

    def test_small_energy_series(self) -> None:
        energy = np.geomspace(1e-6, 1e-2, 9)
        series = 1 + energy / 2 + energy**2 / 16 - energy**3 / 96
        assert period(energy, 2.0) * 2.0 / (2 * np.pi) == pytest.approx(series, rel=2e-11)

    def test_against_an_integrator(self) -> None:
        def upward(t: float, y: np.ndarray) -> float:
            return y[0]

        upward.direction = 1
        y0 = np.array([-1.1, 0.9])
        run = solve_ivp(pair_velocity(1.7), (0, 30), y0, "DOP853", events=upward, rtol=1e-12, atol=1e-13)
        assert np.diff(run.t_events[0]) == pytest.approx(float(period(energy_of(y0), 1.7)), rel=1e-9)

    @pytest.mark.parametrize("energy", [1e-6, 0.3, 4.0, 19.9, 20.1, 200.0, 1e4])
    def test_gradient(self, energy: float) -> None:
        """dT/dE = 4 dK/dm 2 m1 = 4 (E(m) - m1 K)/m, and T is proportional to 1/omega."""
        with mpmath.workdps(40):
            b = mpmath.exp(-mpmath.mpf(energy))
            m = 1 - b * b
            expected = 4 * (mpmath.ellipe(m) - b * b * mpmath.pi / (2 * mpmath.agm(1, b))) / m
        by_energy, by_omega = jax.grad(period, argnums=(0, 1))(energy, 2.0)
        assert float(by_energy) == pytest.approx(float(expected) / 2, rel=1e-14)
        assert float(by_omega) == pytest.approx(-float(period(energy, 2.0)) / 2, rel=1e-14)

    def test_second_derivative_and_vmap(self) -> None:
        check_grads(lambda e: jax.vmap(period, (0, None))(e, 1.0), (jnp.array([0.1, 3.0]),), order=2, modes=["rev"])

    def test_float32(self) -> None:
        energies = ENERGIES.astype(np.float32)
        value = period(energies, np.float32(1.3))
        assert value.dtype == np.float32
        assert value == pytest.approx(np.asarray(period(energies.astype(float), float(np.float32(1.3)))), rel=4 * EPS32)

    def test_integers_count_as_floats(self) -> None:
        assert oracles.pair_period(1, 2) == oracles.pair_period(1.0, 2.0)

    def test_negative_energy(self) -> None:
        with pytest.raises(jo.JaxoscError, match="energy -1"):
            oracles.pair_period(np.array([1.0, -1.0]), 1.0)
        assert np.isnan(period(-1.0, 1.0))


class TestSolution:
    @pytest.mark.parametrize("size", [1e-12, 1e-6, 0.1, 1.0, 3.0, 8.0, 14.0, 19.0, 25.0, 60.0])
    def test_against_mpmath(self, size: float) -> None:
        """Within one period, from every quadrant; relative to the size where that is small."""
        rng = np.random.default_rng(1)
        for signs in [(1, 1), (1, -1), (-1, 1), (-1, -1)]:
            y0 = size * rng.uniform(0.1, 1, 2) * signs
            omega = rng.choice([-1.3, 0.7])
            times = rng.uniform(-1, 1, 2) * float(period(energy_of(y0), omega))
            expected = [mpmath_state(t, y0, omega) for t in times]
            assert solution(times, y0, omega) == pytest.approx(np.array(expected), abs=50 * EPS64 * size)

    @pytest.mark.parametrize("size", [1.0, 60.0])
    def test_long_times(self, size: float) -> None:
        """After a hundred periods the error is that of rounding omega t."""
        y0, omega = np.array([0.9, -0.6]) * size, 1.1
        t = 100.3 * float(period(energy_of(y0), omega))
        bound = 10 * EPS64 * omega * t
        assert solution(t, y0, omega) == pytest.approx(mpmath_state(t, y0, omega), abs=bound)

    @pytest.mark.parametrize("size", [1.0, 60.0])
    def test_against_an_integrator(self, size: float) -> None:
        y0, times = np.array([0.3, -1.0]) * size, np.linspace(0, 100, 40)
        run = solve_ivp(pair_velocity(0.9), (0, 100), y0, "DOP853", t_eval=times, rtol=1e-12, atol=1e-12)
        assert solution(times, y0, 0.9) == pytest.approx(run.y.T, abs=3e-9)

    def test_closes_after_one_period_and_starts_at_the_start(self) -> None:
        for y0 in np.random.default_rng(2).uniform(-5, 5, (8, 2)):
            closing = np.array([0.0, 1.0, -3.0]) * float(period(energy_of(y0), 1.9))
            assert solution(closing, y0, 1.9) == pytest.approx(np.tile(y0, (3, 1)), abs=1e-12)

    @pytest.mark.parametrize(
        "y0", [(30.0, 0.0), (0.0, -30.0), (40.0, 40.0), (1e-9, 0.0), (0.0, 0.5), (-0.5, 0.0), (2.0, 2.0)]
    )
    def test_is_smooth_through_its_seams(self, y0: tuple[float, float]) -> None:
        """Its derivative is the field on the axes, on the diagonals, and where formulas change hands."""
        velocity = jax.jvp(lambda t: solution(t, jnp.array(y0), 1.2), (jnp.linspace(-9, 9, 7),), (jnp.ones(7),))[1]
        states = solution(jnp.linspace(-9, 9, 7), jnp.array(y0), 1.2)
        expected = 1.2 * np.tanh(np.stack([states[:, 1], -states[:, 0]], -1))
        assert velocity == pytest.approx(expected, abs=1e-14)

    def test_very_large_energy_walks_in_straight_lines(self) -> None:
        assert oracles.pair_solution(2.0, np.array([1e6, 0.0]), 1.0) == pytest.approx(
            [1e6 - 1.3250027473, -2.0], abs=1e-9
        )

    def test_rest(self) -> None:
        y0 = jnp.zeros(2)
        assert (solution(jnp.linspace(0, 9, 4), y0, 1.0) == 0).all()
        turn = jax.jacobian(lambda y: solution(0.4, y, 1.5))(y0)
        assert turn == pytest.approx(np.array([[np.cos(0.6), np.sin(0.6)], [-np.sin(0.6), np.cos(0.6)]]), abs=1e-15)

    def test_without_coupling_nothing_moves(self) -> None:
        assert solution(7.0, np.array([1.0, -2.0]), 0.0) == pytest.approx([1.0, -2.0], abs=1e-15)

    @pytest.mark.parametrize("y0", [(0.3, -0.4), (5.0, -7.0), (30.0, -25.0), (0.0, 1.0), (-1.0, 1.0)])
    def test_gradients(self, y0: tuple[float, float]) -> None:
        arguments = (3.7, jnp.array(y0), 1.2)
        check_grads(solution, arguments, order=1, rtol=1e-6, atol=1e-6, eps=1e-5)

    def test_flow_preserves_area(self) -> None:
        """The map y0 -> y(t) is symplectic in the coordinates of a Hamiltonian with dH = tanh: determinant 1."""
        flow = jax.vmap(jax.jacobian(lambda y: solution(11.0, y, 1.2)))
        starts = jnp.asarray(np.random.default_rng(3).uniform(-8, 8, (20, 2)))
        assert np.linalg.det(flow(starts)) == pytest.approx(np.ones(20), abs=1e-11)

    def test_shapes_and_dtypes(self) -> None:
        y0 = jnp.array([1.0, 2.0], jnp.float32)
        times = np.ones((2, 3), np.float32)
        assert oracles.pair_solution(times, y0, 1.0).shape == (2, 3, 2)
        assert oracles.pair_solution(times, y0, 1.0).dtype == np.float32
        assert jax.vmap(lambda y: oracles.pair_solution(0.5, y, 1.0))(jnp.ones((4, 2))).shape == (4, 2)

    def test_refuses(self) -> None:
        with pytest.raises(jo.JaxoscError, match=r"use jax\.vmap"):
            oracles.pair_solution(1.0, np.ones((3, 2)), 1.0)
        with pytest.raises(jo.JaxoscError, match=r"use jax\.vmap"):
            oracles.pair_solution(1.0, np.ones(2), np.ones(3))

    @pytest.mark.parametrize("size", [1e-6, 1.0, 8.0, 9.0, 10.0, 100.0])
    def test_float32(self, size: float) -> None:
        y0, times = np.array([size / 3, -size], np.float32), np.linspace(0, 50, 11, dtype=np.float32)
        expected = solution(times.astype(float), y0.astype(float), 1.0)
        bound = 10 * EPS32 * min(size, 1) * (50 + size)
        assert solution(times, y0, np.float32(1)) == pytest.approx(np.asarray(expected), abs=bound)


class TestAnyActivation:
    def test_tanh(self) -> None:
        general = oracles.pair_period_general(jo.Tanh(), ENERGIES, -1.3)
        assert general == pytest.approx(np.asarray(period(ENERGIES, -1.3)), rel=1e-12)

    def test_identity(self) -> None:
        assert oracles.pair_period_general(jo.Identity(), ENERGIES, 2.0) == pytest.approx(
            np.full(200, np.pi), rel=1e-13
        )

    def test_hard_tanh_outside_its_kink(self) -> None:
        """2 pi/omega inside the linear square, 8/omega at E = 1, (4 E + 4)/omega beyond."""
        energies = np.array([0.01, 0.5, 1.0, 1.5, 40.0])
        expected = np.array([2 * np.pi, 2 * np.pi, 8.0, 10.0, 164.0]) / 0.5
        assert oracles.pair_period_general(jo.HardTanh(), energies, 0.5) == pytest.approx(expected, rel=1e-13)

    def test_hard_tanh_across_its_kink(self) -> None:
        energies = np.linspace(0.52, 0.98, 12)
        corner, diagonal, radius = np.sqrt(2 * energies - 1), np.sqrt(energies), np.sqrt(2 * energies)
        expected = 8 * (corner + np.arcsin(diagonal / radius) - np.arcsin(corner / radius))
        assert oracles.pair_period_general(jo.HardTanh(), energies, 1.0) == pytest.approx(expected, rel=2e-5)

    @pytest.mark.parametrize("activation", [jo.Arctan(), jo.Erf(), jo.Softsign(), jo.Algebraic()], ids=repr)
    @pytest.mark.parametrize("energy", [1e-3, 1.0, 20.0])
    def test_against_the_substitution_y1_a_sin_theta(self, activation: jo.AbstractActivation, energy: float) -> None:
        """The quarter from axis to axis, its end-point singularity removed, and Phi inverted by bisection."""
        function, potential = jax.jit(activation), jax.jit(activation.potential)

        def inverse(value: float) -> float:
            return bisect(lambda y: float(potential(y)) - value, energy + 10 * np.sqrt(energy) + 10)

        amplitude = inverse(energy)

        def integrand(theta: float) -> float:
            other = inverse(energy - float(potential(amplitude * np.sin(theta))))
            return amplitude * np.cos(theta) / float(function(other))

        # cut short of pi/2, where Phi(y2) is a difference of equal numbers: the cosine is even about it
        quarter, _ = quad(integrand, 0, np.pi / 2, epsabs=0, epsrel=1e-7, limit=20)
        value = oracles.pair_period_general(activation, energy, 1.0)
        assert float(value) == pytest.approx(4 * quarter, rel=1e-6)

    def test_gradient(self) -> None:
        by_energy = jax.grad(lambda e: oracles.pair_period_general(jo.Tanh(), e, 1.0))(2.5)
        assert by_energy == pytest.approx(float(jax.grad(period)(2.5, 1.0)), rel=1e-12)

    def test_refuses(self) -> None:
        with pytest.raises(jo.JaxoscError, match="Got ReLU"):
            oracles.pair_period_general(jo.ReLU(), 1.0, 1.0)
        with pytest.raises(jo.JaxoscError, match="Got the energy 0"):
            oracles.pair_period_general(jo.Tanh(), np.array([0.0, 1.0]), 1.0)


class TestEuler:
    def test_linear_growth_is_exact(self) -> None:
        omega, dt, y = 1.7, 0.05, np.array([0.3, -0.8])
        start = y @ y
        for _ in range(100):
            y = y + dt * omega * np.array([y[1], -y[0]])
        assert float(oracles.euler_linear_growth(omega, dt)) == pytest.approx((y @ y / start) ** (1 / 100), rel=1e-14)
        assert y @ y > 1.5 * start

    @pytest.mark.parametrize(("dt", "omega"), [(0.2, 1.0), (0.05, -2.0)])
    def test_tanh_laws(self, dt: float, omega: float) -> None:
        """The square root within 0.5 % from t = 10^3 on; the averaged equation within 3 % at 10, 0.2 % later."""
        y0 = np.array([0.9, -1.1])
        laws = (oracles.euler_tanh_energy, oracles.euler_tanh_energy_averaged)
        measured = numpy_euler_energies(y0, omega, dt, [10, 1000, 3000])
        root, averaged = ([float(law(t, energy_of(y0), omega, dt)) for t in measured] for law in laws)
        measured = np.array(list(measured.values()))
        assert measured[-1] > 5 * energy_of(y0)
        assert root[1:] == pytest.approx(measured[1:], rel=5e-3)
        assert averaged == pytest.approx(measured, rel=3e-2)
        assert averaged[1:] == pytest.approx(measured[1:], rel=2e-3)

    def test_small_oscillations_grow_like_linear_ones(self) -> None:
        """Where the square root is wrong: E grows by exp(dt omega^2 t)."""
        energy = oracles.euler_tanh_energy_averaged(50.0, 1e-6, 1.5, 0.02)
        assert float(energy) == pytest.approx(1e-6 * np.exp(0.02 * 1.5**2 * 50), rel=1e-4)
        measured = numpy_euler_energies(np.array([np.sqrt(2e-6), 0.0]), 1.5, 0.02, [50])[50]
        assert float(energy) == pytest.approx(measured, rel=3e-2)

    @pytest.mark.parametrize(("energy0", "elapsed"), [(1e-6, 5.0), (1e-6, 30.0), (0.1, 100.0), (3.0, 1e4), (25.0, 1e3)])
    def test_averaged_equation_is_solved(self, energy0: float, elapsed: float) -> None:
        def rate(_: float, log_energy: np.ndarray) -> np.ndarray:
            energy = np.exp(log_energy)
            m1 = np.exp(-2 * energy)
            return (special.ellipe(-np.expm1(-2 * energy)) / special.ellipkm1(m1) - m1) / energy

        run = solve_ivp(rate, (0, elapsed), [np.log(energy0)], "DOP853", rtol=1e-12, atol=1e-12)
        value = oracles.euler_tanh_energy_averaged(elapsed / (0.1 * 2.0**2), energy0, 2.0, 0.1)
        assert float(value) == pytest.approx(float(np.exp(run.y[0, -1])), rel=1e-9)

    def test_laws_meet_at_large_energies(self) -> None:
        arguments = (1e5, 30.0, 1.0, 0.1)
        root, averaged = oracles.euler_tanh_energy(*arguments), oracles.euler_tanh_energy_averaged(*arguments)
        assert float(averaged) == pytest.approx(float(root), rel=1e-13)

    def test_gradients_and_dtype(self) -> None:
        check_grads(
            oracles.euler_tanh_energy_averaged, (100.0, 1.0, 1.0, 0.1), order=1, modes=["rev"], rtol=1e-6, atol=1e-6
        )
        check_grads(oracles.euler_tanh_energy, (100.0, 1.0, 1.0, 0.1), order=1, modes=["rev"], rtol=1e-6, atol=1e-6)
        arguments = np.array([100.0, 1.0, 1.0, 0.1], np.float32)
        for law in (oracles.euler_tanh_energy, oracles.euler_tanh_energy_averaged):
            assert law(*arguments).dtype == np.float32
            assert float(law(*arguments)) == pytest.approx(float(law(*arguments.astype(float))), rel=10 * EPS32)


def pair_velocity(omega: float):
    """The field of the tanh pair for SciPy."""
    return lambda t, y: omega * np.array([np.tanh(y[1]), -np.tanh(y[0])])


def numpy_euler_energies(y: np.ndarray, omega: float, dt: float, times: list[float]) -> dict[float, float]:
    """Energies at `times` of a plain NumPy Euler loop."""
    energies, step = {}, 0
    for t in times:
        while step < round(t / dt):
            y = y + dt * omega * np.array([np.tanh(y[1]), -np.tanh(y[0])])
            step += 1
        energies[t] = energy_of(y)
    return energies


def bisect(function, high: float) -> float:
    """The zero of an increasing function in [0, high]."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2
