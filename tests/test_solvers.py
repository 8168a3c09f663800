"""Every solver on every problem with a closed form: order of accuracy, what is conserved for how long, equivalences."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from problems import BY_NAME, PROBLEMS, Problem, rotation, skew

import jaxosc as jo
from jaxosc.fields import AbstractField, casimir_vectors
from jaxosc.solvers import DiscreteGradient, PoissonSplitting
from jaxosc.weights import DenseSkew

SOLVERS = {
    "euler": jo.ForwardEuler(),
    "splitting_1": PoissonSplitting(1),
    "splitting_2": PoissonSplitting(2),
    "splitting_4": PoissonSplitting(4),
    "splitting_6": PoissonSplitting(6),
    "splitting_8": PoissonSplitting(8),
    "discrete_gradient": DiscreteGradient(),
}
ORDERS = {"euler": 1, "discrete_gradient": 2} | {f"splitting_{order}": order for order in (1, 2, 4, 6, 8)}
STEPS_PER_THREE_TIME_UNITS = {1: (128, 256, 512), 2: (32, 64, 128), 4: (8, 16, 32), 6: (8, 12, 16), 8: (5, 6, 8)}
"""By order: coarse enough that rounding is far below the error, fine enough that the leading term rules."""

SLOPE_TOLERANCE = 0.15
"""Of the observed order; the next term of the error is a few per cent of the first at these step sizes."""

every_solver = pytest.mark.parametrize("name", SOLVERS)


def measured_orders(errors: list[float], steps: list[int]) -> np.ndarray:
    """Slopes of log error against log dt between neighbouring step sizes."""
    return np.diff(np.log(errors)) / -np.diff(np.log(steps))


def duration_of(problem: Problem) -> float:
    """Past the first turns, and at no symmetric point of a closed orbit, where errors may cancel."""
    return 0.6 * problem.period if problem.period else 4.0


def step_counts(order: int, duration: float) -> list[int]:
    return [count * int(np.ceil(duration / 3)) for count in STEPS_PER_THREE_TIME_UNITS[order]]


def diffrax_final(field: AbstractField, solver, y0, duration: float, num_steps: int):
    """The final state by Diffrax itself."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        0.0,
        duration,
        duration / num_steps,
        jnp.asarray(y0),
        stepsize_controller=diffrax.ConstantStepSize(),
        max_steps=None,
    ).ys[-1]


def bounded_field(n: int, seed: int, activation=None, **options) -> jo.CurrentRNN:
    """A tanh network of spectral norm 1."""
    return jo.CurrentRNN(DenseSkew.from_matrix(skew(n, seed)), activation, **options)


def random_start(n: int, seed: int, *batch: int) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((*batch, n)))


SHARING_CODE = {"splitting_1", "splitting_6", "splitting_8", "discrete_gradient"}
"""Solvers that meet only some problems in the quick run: another solver runs the same code on the others."""

TELLING = {"linear_three", "linear_leak", "tanh_pair", "tanh_pair_rate", "tanh_two_pairs"}


# A large orbit turns at corners in no time: its error at order 8 falls to rounding before the leading term rules. The
# discrete gradient, which stays on the orbit and goes along its straight sides exactly, has an error of 1e-12 there.
ORDER_ROWS = [
    pytest.param(
        name, problem, marks=[pytest.mark.slow] if name in SHARING_CODE and problem.name not in TELLING else []
    )
    for name in SOLVERS
    for problem in PROBLEMS
    if (name, problem.name) not in {("splitting_8", "tanh_pair_large"), ("discrete_gradient", "tanh_pair_large")}
]


def trends(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of lines through rows of window means (members, windows), per window, and their standard errors."""
    numbers = np.arange(means.shape[1]) - (means.shape[1] - 1) / 2
    slopes = means @ numbers / (numbers @ numbers)
    residuals = means - means.mean(axis=1, keepdims=True) - slopes[:, None] * numbers
    variances = (residuals**2).sum(axis=1) / (means.shape[1] - 2)
    return slopes, np.sqrt(variances / (numbers @ numbers))


class TestOrder:
    @pytest.mark.parametrize(("name", "problem"), ORDER_ROWS, ids=str)
    def test_in_the_engine(self, name: str, problem: Problem) -> None:
        field, duration, y0 = problem.make_field(), duration_of(problem), jnp.array(problem.y0)
        steps = step_counts(ORDERS[name], duration)
        exact = problem.exact(np.array(duration))
        runs = [jo.simulate(field, y0, t1=duration, dt=duration / n, solver=SOLVERS[name]) for n in steps]
        errors = [float(np.linalg.norm(run.ys[-1] - exact)) for run in runs]
        assert measured_orders(errors, steps)[-1] == pytest.approx(ORDERS[name], abs=SLOPE_TOLERANCE)
        assert errors[-1] < 0.03 * np.linalg.norm(exact - problem.y0)

    @pytest.mark.parametrize("problem", ["tanh_pair_rate", "linear_leak"])
    @every_solver
    def test_in_diffrax(self, name: str, problem: str) -> None:
        """The same by people who never call simulate, and the same numbers."""
        row, solver = BY_NAME[problem], SOLVERS[name]
        field, duration = row.make_field(), duration_of(row)
        steps = step_counts(ORDERS[name], duration)
        final = jax.jit(lambda n: diffrax_final(field, solver, row.y0, duration, n))
        states = [np.asarray(final(n)) for n in steps]
        errors = [float(np.linalg.norm(state - row.exact(np.array(duration)))) for state in states]
        assert measured_orders(errors, steps)[-1] == pytest.approx(ORDERS[name], abs=SLOPE_TOLERANCE)
        engine = jo.simulate(field, jnp.array(row.y0), t1=duration, dt=duration / steps[0], solver=solver)
        assert states[0] == pytest.approx(np.asarray(engine.ys[-1]), abs=1e-12)

    @every_solver
    def test_declared(self, name: str) -> None:
        assert SOLVERS[name].order(None) == ORDERS[name]

    @pytest.mark.parametrize("name", ["splitting_2", "splitting_4"])
    def test_dense_output(self, name: str) -> None:
        """In the middle of steps: cubic Hermite, order 4, unless the steps themselves are less accurate."""
        problem, duration = BY_NAME["tanh_pair"], 4.0
        steps = [2 * count for count in step_counts(ORDERS[name], duration)]

        @jax.jit
        def states(num_steps, times):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(problem.make_field()),
                SOLVERS[name],
                0.0,
                duration,
                duration / num_steps,
                jnp.array(problem.y0),
                saveat=diffrax.SaveAt(ts=times),
                max_steps=None,
            ).ys

        errors = []
        for count in steps:
            times = (np.floor(np.linspace(1, count - 1, 23)) + 0.5) * (duration / count)
            errors.append(float(np.abs(states(count, times) - problem.exact(times)).max()))
        assert measured_orders(errors, steps) == pytest.approx(min(ORDERS[name], 4), abs=SLOPE_TOLERANCE)
        engine = jo.simulate(
            problem.make_field(),
            jnp.array(problem.y0),
            t1=duration,
            dt=duration / count,
            solver=SOLVERS[name],
            ts=times,
        )
        assert engine.ys == pytest.approx(np.asarray(states(count, times)), abs=1e-12)

    def test_event(self) -> None:
        """Started on the axis at (-a, 0), neuron 1 crosses zero upward after exactly a quarter of the period."""
        problem = BY_NAME["tanh_pair"]
        y0 = jnp.array([-1.3, 0.0])
        crossing = diffrax.Event(lambda t, y, args, **_: y[0], optimistix.Newton(1e-12, 1e-12), direction=True)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(problem.make_field()), PoissonSplitting(4), 0.0, 50.0, 0.05, y0, event=crossing
        )
        quarter = float(jo.oracles.pair_period(np.log(np.cosh(1.3)), 1.0)) / 4
        assert solution.result == diffrax.RESULTS.event_occurred
        assert float(solution.ts[-1]) == pytest.approx(quarter, abs=2e-8)  # Hermite: dt^4 y''''/384
        assert solution.ys[-1] == pytest.approx([0.0, 1.3], abs=2e-8)


class TestSplitting:
    @pytest.mark.parametrize("n", [5, 20])
    @pytest.mark.parametrize("order", [1, 2])
    def test_against_a_numpy_sweep(self, n: int, order: int) -> None:
        """Unrolled and looped over columns alike."""
        weight, dt = skew(n, seed=7), 0.3
        expected = np.asarray(random_start(n, 8))
        y0 = expected.copy()
        for _ in range(10):
            forward, backward = range(n), reversed(range(n))
            for i in forward if order == 1 else [*forward, *backward]:
                expected = expected + dt / order * weight[:, i] * np.tanh(expected[i])
        run = jo.simulate(
            jo.CurrentRNN(DenseSkew.from_matrix(weight)), y0, t1=3.0, dt=dt, solver=PoissonSplitting(order)
        )
        assert run.ys[-1] == pytest.approx(expected, abs=1e-14)
        assert np.abs(expected - y0).max() > 0.3

    def test_rate_form_is_the_current_form_in_other_coordinates(self) -> None:
        weight, bias, r0 = DenseSkew.from_matrix(skew(6, seed=9)), random_start(6, 10) / 3, random_start(6, 11)
        rate, current = jo.RateRNN(weight, bias=bias), jo.CurrentRNN(weight)
        options = dict(t1=50.0, dt=0.25, solver=PoissonSplitting(2), save_every=10)
        rates = jo.simulate(rate, r0, **options)
        currents = jo.simulate(current, rate.preactivation(r0), **options)
        assert rate.preactivation(rates.ys) == pytest.approx(np.asarray(currents.ys), abs=1e-12)

    @pytest.mark.parametrize("order", [2, 4])
    def test_runs_back_to_its_start(self, order: int) -> None:
        """Symmetric compositions are their own inverse with dt negated; Diffrax runs backward by t1 < t0."""
        field, y0 = bounded_field(3, 12, bias=random_start(3, 13) / 4), random_start(3, 14)

        @jax.jit
        def solve(start, t0, t1):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(field), PoissonSplitting(order), t0, t1, (t1 - t0) / 100, start, max_steps=None
            ).ys[-1]

        there = solve(y0, 0.0, 30.0)
        assert solve(there, 30.0, 0.0) == pytest.approx(np.asarray(y0), abs=1e-13)
        assert np.abs(there - y0).max() > 0.3

    def test_float32_follows_float64(self) -> None:
        field, y0 = bounded_field(8, 15), random_start(8, 16)
        narrow_field, narrow_y0 = jax.tree.map(lambda a: a.astype(jnp.float32), (field, y0))
        narrow, wide = (jo.simulate(f, y, t1=20.0, dt=0.1) for f, y in ((narrow_field, narrow_y0), (field, y0)))
        assert narrow.ys.dtype == np.float32
        assert narrow.ys == pytest.approx(np.asarray(wide.ys), abs=2e-5)

    def test_refuses(self) -> None:
        with pytest.raises(jo.JaxoscError, match="order=3"):
            PoissonSplitting(3)
        with pytest.raises(jo.JaxoscError, match="whose weight PoissonSplitting needs"):
            diffrax_final(lambda t, y, args: -y, PoissonSplitting(2), [1.0, 2.0], 1.0, 10)


class TestLongRuns:
    @pytest.mark.parametrize(
        ("order", "bound"),
        [
            (2, 1e-3),
            pytest.param(4, 2e-8, marks=pytest.mark.slow),
            pytest.param(6, 2e-10, marks=pytest.mark.slow),
            pytest.param(8, 2e-12, marks=pytest.mark.slow),
        ],
    )
    def test_energy_neither_grows_nor_drifts(self, order: int, bound: float) -> None:
        """10^6 steps of dt = 0.1, n = 8, spectral norm 1: the energy error oscillates within its bound, without trend.

        The slope of the means of 100 windows stays within its own standard error for every member (order 8: there is
        nothing left but rounding).
        The starts are regular orbits (amplitudes 0.2 and 0.3), where that is no matter of chance: the error is a sum
        of oscillations. In chaos the error at each time is a function of a wandering state, and the slope of a random
        walk passes its standard error in a third of all cases whatever the method does. Orders 6 and 8 carry what
        rounding loses: plain sums walk by 10^-12 over 10^6 steps, which is all that would be seen.
        """
        field, starts = bounded_field(8, 18), random_start(8, 19, 4)
        y0 = jnp.concatenate([0.2 * starts, 0.3 * starts])
        solver = PoissonSplitting(order, compensated=order > 4)
        run = jo.simulate(field, y0, t1=1e5, dt=0.1, solver=solver, save_every=100)
        assert (run.stats["num_steps"] == 1_000_000).all()
        energy = np.asarray(field.energy(run.ys))
        errors = energy / energy[:, :1] - 1
        assert bound / 1e3 < np.abs(errors).max() < bound
        assert np.abs(run.ys - y0[:, None]).max(axis=1).min() > 0.1
        slopes, standard_errors = trends(errors[:, 1:].reshape(8, 100, -1).mean(axis=-1))
        if order == 8:
            # What is left is no error of the method: a thousand roundings in 10^6 steps, of one sign or the other.
            assert np.abs(100 * slopes).max() < 1000 * np.finfo(float).eps
        else:
            assert (np.abs(slopes) < standard_errors).all()
            assert 100 * standard_errors.max() < bound / 10  # what such a test can see

    @every_solver
    def test_casimirs_of_odd_networks(self, name: str) -> None:
        field, y0 = bounded_field(3, 19), random_start(3, 20)
        vectors = casimir_vectors(field)
        run = jo.simulate(field, y0, t1=1000.0, dt=0.1, solver=SOLVERS[name], save_every=1000)
        values = np.asarray(run.ys) @ vectors.T
        assert vectors.shape == (1, 3)
        assert abs(values[0, 0]) > 0.1
        assert values == pytest.approx(np.full((11, 1), values[0, 0]), abs=1e-12)
        assert np.ptp(run.ys, axis=0).max() > 1

    def test_tsit5_follows_the_closed_form(self) -> None:
        problem = BY_NAME["tanh_pair"]
        times = np.linspace(0, 10, 101) * problem.period
        run = jo.simulate(
            problem.make_field(),
            jnp.array(problem.y0),
            t1=times[-1],
            solver=diffrax.Tsit5(),
            rtol=1e-10,
            atol=1e-12,
            ts=times,
        )
        assert run.ys == pytest.approx(problem.exact(times), abs=1e-8)


class TestEulerLoop:
    def test_equals_diffrax_and_the_engine(self) -> None:
        field, y0 = bounded_field(8, 21, bias=np.full(8, 0.3), leak=0.2), random_start(8, 22)
        ts, ys = jo.euler_loop(field, y0, 0.125, 400, save_every=4)
        saveat = diffrax.SaveAt(ts=jnp.linspace(0, 50, 101))
        for solver in (diffrax.Euler(), jo.ForwardEuler()):
            solution = diffrax.diffeqsolve(diffrax.ODETerm(field), solver, 0.0, 50.0, 0.125, y0, saveat=saveat)
            assert ys == pytest.approx(np.asarray(solution.ys), abs=1e-12)
            assert ts == pytest.approx(np.asarray(solution.ts), abs=1e-12)
            engine = jo.simulate(field, y0, t1=50.0, dt=0.125, solver=solver, save_every=4)
            assert ys == pytest.approx(np.asarray(engine.ys), abs=1e-12)
        assert np.abs(ys[-1] - y0).max() > 0.3

    def test_linear_growth_factor(self) -> None:
        omega, dt = 1.3, 0.05
        field = jo.CurrentRNN(DenseSkew.from_matrix(rotation(omega)), jo.Identity())
        _, ys = jo.euler_loop(field, np.array([0.6, -0.2]), dt, 500)
        squares = np.sum(np.asarray(ys) ** 2, axis=-1)
        growth = np.full(500, float(jo.oracles.euler_linear_growth(omega, dt)))
        assert squares[1:] / squares[:-1] == pytest.approx(growth, abs=1e-10)
        assert squares[-1] > 5 * squares[0]

    @pytest.mark.parametrize("dt", [0.05, 0.2])
    def test_square_root_law(self, dt: float) -> None:
        """At t = 10^4 and beyond the tanh pair has grown as the oracle says: within 3 %, and in fact within 0.5 %."""
        omega = 1.5
        field, y0 = jo.CurrentRNN(DenseSkew.from_matrix(rotation(omega))), jnp.array([0.4, -0.9])
        steps = round(2e4 / dt)
        ts, ys = jo.euler_loop(field, y0, dt, steps, save_every=steps // 20)
        energy = np.asarray(field.energy(ys))
        late = np.asarray(ts) >= 1e4
        law = jo.oracles.euler_tanh_energy(ts, energy[0], omega, dt)
        assert energy[late] == pytest.approx(np.asarray(law)[late], rel=5e-3)
        averaged = jo.oracles.euler_tanh_energy_averaged(ts, energy[0], omega, dt)
        assert energy[late] == pytest.approx(np.asarray(averaged)[late], rel=2e-3)
        assert energy[-1] > 20 * energy[0]

    def test_energy_never_falls(self) -> None:
        field = bounded_field(8, 23)
        _, ys = jo.euler_loop(field, random_start(8, 24), 0.1, 2000)
        assert np.diff(field.energy(ys)).min() > 0

    def test_refuses(self) -> None:
        field = bounded_field(3, 25)
        with pytest.raises(jo.JaxoscError, match="divides"):
            jo.euler_loop(field, np.ones(3), 0.1, 10, save_every=3)
        with pytest.raises(jo.JaxoscError, match=r"dt is -0\.1"):
            jo.euler_loop(field, np.ones(3), -0.1, 10)
        with pytest.raises(jo.JaxoscError, match="n = 3"):
            jo.euler_loop(field, np.ones(4), 0.1, 10)
        with pytest.raises(jo.JaxoscError, match="y0 holds 1 NaN"):
            jo.euler_loop(field, np.array([1.0, np.nan, 0.0]), 0.1, 10)
