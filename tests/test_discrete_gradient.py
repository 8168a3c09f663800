"""The discrete gradient method: mean values to rounding, energy at any step size, failures of single members."""

import functools
import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from problems import skew
from scipy.integrate import solve_ivp
from test_activations import REFERENCES, every_class, every_dtype

import jaxosc as jo
from jaxosc.fields import casimir_vectors
from jaxosc.solvers import DiscreteGradient, Lanes, lanes_of
from jaxosc.solvers.discrete_gradient import discrete_gradient_step
from jaxosc.solvers.mean_values import mean_value
from jaxosc.weights import DenseSkew, Symmetrizable

SOLVER = DiscreteGradient()


def steep(y):
    """Smooth, neither odd nor bounded, four times as steep as the activations of the package."""
    return jnp.tanh(4.0 * y) + 0.1 * y


def leaky(y):
    """A kink at 0, where a function of one's own is cut."""
    return jnp.where(y > 0, y, 0.2 * y)


def jumping(y):
    """A jump at 0."""
    return jnp.sign(y) + jnp.tanh(y)


ACTIVATIONS = [cls() for cls in REFERENCES] + [jo.Elementwise(fn) for fn in (steep, leaky)]


def name_of(activation):
    return getattr(activation, "fn", type(activation)).__name__


QUICK = {"Tanh", "Erf", "HardTanh", "leaky"}
"""Of the activations, one for each way to a mean value; the slow run has all of them."""


def starts(n: int, seed: int, *batch: int) -> jnp.ndarray:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((*batch, n)))


def dense(n: int, seed: int) -> DenseSkew:
    """Spectral norm 1."""
    return DenseSkew.from_matrix(skew(n, seed))


def symmetrizable(n: int, seed: int) -> Symmetrizable:
    d = np.exp(0.5 * np.random.default_rng(seed).standard_normal(n))
    return Symmetrizable.from_energy_weights(dense(n, seed), d)


def energy_run(field, y0, dt, num_steps, solver=SOLVER):
    """The largest relative energy errors at every tenth step, and the final states, of members that all moved on."""
    run = jo.simulate(field, y0, t1=dt * num_steps, dt=dt, solver=solver, reducers=(jo.EnergyDrift(),), throw=False)
    assert (run.result == jo.Result.successful).all()
    assert (run.stats["num_steps"] == num_steps).all()
    assert np.abs(run.ys[..., -1, :] - y0).max() > 0.3 * np.abs(y0).max()
    return np.abs(run.reduced["energy_drift_max"]), run.ys[..., -1, :]


@eqx.filter_jit
def march(lanes, x, dt, num_steps, solver=SOLVER):
    """Some steps without the engine: the states (n, lanes), and per lane the largest energy error and any failure."""
    start = lanes.energy(x)

    def step(_, state):
        x, worst, all_solved = state
        x, solved = discrete_gradient_step(solver, lanes, 0.0, dt, x)
        return x, jnp.maximum(worst, jnp.abs(lanes.energy(x) - start)), all_solved & solved

    x, worst, solved = jax.lax.fori_loop(0, num_steps, step, (x, jnp.zeros(x.shape[1]), jnp.ones(x.shape[1], bool)))
    return x, worst / jnp.abs(start), solved


def drift_of(lanes, x, dt, num_steps, solver=SOLVER):
    """The largest relative energy errors, of lanes that are all solved and moved on."""
    end, drift, solved = march(lanes, x, jnp.array(dt), jnp.array(num_steps), solver)
    assert solved.all()
    assert np.abs(end - x).max() > 0.3 * np.abs(x).max()
    return drift


class TestMeanValues:
    @every_dtype
    @every_class
    def test_against_many_digits(self, cls, dtype):
        """Short and long paths, near kinks and far out: step times mean is the difference of potentials."""
        generator, activation = np.random.default_rng(1), cls()
        signs = generator.choice([-1.0, 1.0], (3, 300))
        y = signs[0] * 10 ** generator.uniform(-6, 1.8, 300)
        y[:100] = generator.choice([-1.0, 0.0, 1.0], 100) + signs[1, :100] * 10 ** generator.uniform(-9, -1, 100)
        step = signs[2] * 10 ** generator.uniform(-9, 1, 300)
        step[::10] = 0
        y, step = y.astype(dtype), step.astype(dtype)
        mean = jax.jit(lambda y, step: mean_value(activation, y, step))(y, step)
        assert mean.dtype == dtype
        sigma, _, potential = REFERENCES[cls]
        with mp.workdps(50):
            paths = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(y, step, strict=True)]
            ends = [(potential(a), potential(a + b)) for a, b in paths]
            exact = [(ends[k][1] - ends[k][0]) / b if b else sigma(a) for k, (a, b) in enumerate(paths)]
            sizes = [float(max(abs(sigma(a)), abs(sigma(a + b)))) for a, b in paths]
            scales = [float(max(abs(first), abs(last))) for first, last in ends]
            errors = np.array([float(mp.mpf(float(g)) - e) for g, e in zip(mean, exact, strict=True)])
        eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
        # Two potentials of up to 6 eps each; the worst measured is 4.
        assert (np.abs(errors * step) <= 6 * eps * np.array(scales) + tiny).all()
        # As a value it is as good as sigma, but for long paths far out; next to a kink the rounded end adds its bit.
        near = (np.abs(y) < 4) & (np.abs(step) <= 0.125)
        assert (np.abs(errors) <= 6 * eps * np.array(sizes) + tiny)[near].all()
        assert near.sum() > 100

    @pytest.mark.parametrize(
        "activation", [jo.Identity(), jo.Tanh(), jo.Arctan(), jo.HardTanh(), jo.Elementwise(steep)], ids=name_of
    )
    def test_derivatives(self, activation):
        """Forward and in reverse, against differences of the quotient itself, or for a short step by its series."""
        y, step = jnp.array([0.9, -1.3, 0.2, 0.4, -0.8, 0.3]), jnp.array([0.7, -0.6, 0.05, -0.3, 1.1, 5e-6])

        @jax.jit
        def measure(y, step):
            mean = functools.partial(mean_value, activation)
            gradients = jax.grad(lambda y, step: mean(y, step).sum(), (0, 1))(y, step)
            ones, zeros = jnp.ones_like(y), jnp.zeros_like(y)
            forward = [jax.jvp(mean, (y, step), tangents)[1] for tangents in ((ones, zeros), (zeros, ones))]
            start, end = y[:5], y[:5] + step[:5]
            long = jnp.stack([start + 1e-4, start - 1e-4, end + 1e-4, end - 1e-4])
            points = y[5] + step[5] * jnp.array([1 / 2, 2 / 3])
            return gradients, forward, activation.potential(long), activation.derivative(points)

        reverse, forward, (start_up, start_down, end_up, end_down), slopes = map(np.asarray, measure(y, step))
        length = np.asarray(step)[:5]
        assert np.stack(reverse) == pytest.approx(np.stack(forward), abs=1e-14)
        in_y = ((end_up - start_up) - (end_down - start_down)) / length / 2e-4
        middle = (start_up + start_down) / 2
        in_step = ((end_up - middle) / (length + 1e-4) - (end_down - middle) / (length - 1e-4)) / 2e-4
        # The differences are good to 1e-8 where sigma is smooth, to 1e-4 next to a kink or where the path is short.
        assert reverse[0][:5] == pytest.approx(in_y, abs=1e-3)
        assert reverse[1][:5] == pytest.approx(in_step, abs=1e-3)
        # By the next term, step^2 / 24.
        assert np.array([reverse[0][5], reverse[1][5]]) == pytest.approx(slopes * [1, 1 / 2], abs=1e-11)

    def test_functions_of_ones_own_are_cut_at_zero(self):
        y, step = jnp.array([-0.03, 0.04, -1e-9, 0.0]), jnp.array([0.05, -0.06, 1e-7, 0.1])
        for fn, potential in (
            (leaky, lambda y: y * leaky(y) / 2),
            (jumping, lambda y: jnp.abs(y) + jo.Tanh().potential(y)),
        ):
            expected = np.asarray((potential(y + step) - potential(y)) / step)
            # The quotient of the closed form is good to 1e-9 at its shortest path.
            assert mean_value(jo.Elementwise(fn), y, step) == pytest.approx(expected, abs=1e-8)


class TestEnergy:
    @pytest.mark.parametrize(
        "activation",
        [pytest.param(sigma, marks=[] if name_of(sigma) in QUICK else [pytest.mark.slow]) for sigma in ACTIVATIONS],
        ids=name_of,
    )
    def test_of_every_activation(self, activation):
        """To rounding, in steps large enough to cross kinks and to leave the quadrature.

        Three neurons in a ring with a positive c in its kernel: there even `ReLU` stays bounded.
        """
        ring = jnp.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
        x = starts(8, 2, 3)
        x = x.at[0].set(jnp.abs(x[0]))  # with all three below 0, `ReLU` stands still and has no energy
        # A random walk of 500 roundings of 1e-16 of the state is 3e-15; energies are 0.05 and more.
        assert drift_of(Lanes(ring[:, :, None], activation), x, 0.3, 500).max() < 4e-14

    @pytest.mark.parametrize(
        "activation", [jo.Tanh(), pytest.param(jo.HardTanh(), marks=pytest.mark.slow)], ids=name_of
    )
    def test_at_absurd_step_sizes(self, activation):
        """dt |W| from 0.05 to 20 side by side, in lanes that share W and differ in gain."""
        matrix = lanes_of(jo.CurrentRNN(dense(6, 6))).matrix
        lanes = Lanes(matrix, activation, gain=jnp.geomspace(0.05, 20, 8))
        assert drift_of(lanes, starts(8, 7, 6), 1.0, 50).max() < 1e-13  # states grow to 20, and so do their roundings

    @pytest.mark.parametrize("form", [jo.CurrentRNN, pytest.param(jo.RateRNN, marks=pytest.mark.slow)])
    def test_of_hidden_skewness_with_bias(self, form):
        """n = 8, where every bias is in the range of S; a weak one, so that orbits are bounded."""
        lanes = lanes_of(form(symmetrizable(8, 3), bias=starts(8, 4) / 10))
        for dt in (0.1, 3.0):
            assert drift_of(lanes, starts(2, 5, 8), dt, 1000).max() < 1e-13

    @pytest.mark.parametrize("dt", [0.1, 1.0, 3.0])
    def test_walks_by_rounding_alone(self, dt):
        """20,000 steps: a walk of as many roundings is 1e-14, a bias of one rounding a step would be 4e-12.

        By plain iteration, by both, by Newton's method. An odd network, whose Casimir is kept as well.
        """
        field, y0 = jo.CurrentRNN(dense(7, 17)), starts(7, 19, 2)
        drift, end = energy_run(field, y0, dt, 20_000)
        assert drift.max() < 1.5e-13
        vectors = casimir_vectors(field)
        assert vectors.shape == (1, 7)
        assert np.abs(y0 @ vectors.T).min() > 0.1
        assert end @ vectors.T == pytest.approx(np.asarray(y0 @ vectors.T), abs=1e-12)

    @pytest.mark.parametrize("size", [60.0, 1e-6])
    def test_far_out_and_far_in(self, size):
        """At |y| = 60, where tanh is 1 to all digits, and in the linear regime, where the energy is 1e-12."""
        y0 = size * starts(7, 19, 2) / 2
        assert energy_run(jo.CurrentRNN(dense(7, 17)), y0, 0.3, 1000)[0].max() < 1e-13

    @pytest.mark.slow
    @pytest.mark.parametrize("dt", [0.1, 1.0])
    def test_over_a_million_steps(self, dt):
        """2e-11 at most, where explicit solvers of order 2 oscillate by 1e-4."""
        assert energy_run(jo.CurrentRNN(dense(8, 17)), starts(8, 19), dt, 1_000_000)[0] < 2e-11

    def test_dissipation_by_a_leak(self):
        """H(y') - H(y) = -dt leak sum_i d_i g_i (y_i + y_i') / 2 in every step, to rounding."""
        leak, dt, weight = 0.2, jnp.array(0.4), symmetrizable(5, 9)
        lanes, states = lanes_of(jo.CurrentRNN(weight, leak=leak)), [starts(2, 10, 5)]
        for _ in range(40):
            states.append(march(lanes, states[-1], dt, 1)[0])

        @jax.jit
        def measure(before, after):
            means = mean_value(jo.Tanh(), before, after - before)
            power = jnp.sum(lanes.energy_weights * means * (before + after) / 2, axis=0)
            return lanes.energy(before), lanes.energy(after), -dt * leak * power

        for before, after in itertools.pairwise(states):
            energy, later, expected = map(np.asarray, measure(before, after))
            assert later - energy == pytest.approx(expected, abs=1e-14)
            assert (later < energy).all()
        assert (later < 0.1 * np.asarray(lanes.energy(states[0]))).all()

    @pytest.mark.slow
    def test_loose_tolerances_cost_energy(self):
        lanes = lanes_of(jo.CurrentRNN(dense(7, 17)))
        drift = drift_of(lanes, starts(2, 18, 7), 0.1, 1000, DiscreteGradient(rtol=1e-6))
        assert 1e-12 < drift.max() < 1e-3  # 1,000 steps of 1e-6 at the worst


class TestTrajectory:
    @pytest.mark.slow
    def test_runs_back_to_its_start(self):
        """The method is its own inverse with dt negated; Diffrax runs backward by t1 < t0."""
        field, y0 = jo.CurrentRNN(dense(3, 13), bias=starts(3, 14) / 4, leak=0.02), starts(3, 15)

        @jax.jit
        def solve(start, t0, t1):
            term = diffrax.ODETerm(field)
            return diffrax.diffeqsolve(term, SOLVER, t0, t1, (t1 - t0) / 100, start, max_steps=None).ys[-1]

        there = solve(y0, 0.0, 30.0)
        assert solve(there, 30.0, 0.0) == pytest.approx(np.asarray(y0), abs=1e-13)
        assert np.abs(there - y0).max() > 0.3

    @pytest.mark.parametrize("form", [jo.RateRNN, pytest.param(jo.CurrentRNN, marks=pytest.mark.slow)])
    def test_order_with_everything(self, form):
        """Hidden skewness, bias, leak and drive together, n = 8, against SciPy at 1e-12."""
        weight, bias, leak, phases = symmetrizable(8, 20), np.asarray(starts(8, 21)) / 2, 0.1, np.arange(8.0)
        field = form(weight, bias=bias, leak=leak, drive=lambda t: 0.5 * jnp.sin(1.3 * t + phases))
        matrix, y0, t1 = np.asarray(weight.matrix()), np.asarray(starts(8, 22)), 4.0

        def velocity(t, x):
            inflow = bias + 0.5 * np.sin(1.3 * t + phases)
            rate = matrix @ np.tanh(x) + inflow if form is jo.CurrentRNN else np.tanh(matrix @ x + inflow)
            return rate - leak * x

        exact = solve_ivp(velocity, (0, t1), y0, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        steps = [40, 80, 160]
        runs = [jo.simulate(field, y0, t1=t1, dt=t1 / n, solver=SOLVER).ys[-1] for n in steps]
        errors = [float(np.linalg.norm(run - exact)) for run in runs]
        assert np.diff(np.log(errors)) / -np.diff(np.log(steps)) == pytest.approx(2, abs=0.15)
        assert errors[-1] < 0.01 * np.linalg.norm(exact - y0)


class TestFailures:
    @pytest.fixture(scope="class")
    @staticmethod
    def field():
        """A sine falls: at large steps its equation has many solutions or none that is found. One gain too many."""
        weights = jnp.stack([0.3 * skew(4, 30), 40 * skew(4, 31), 0.5 * skew(4, 32)])
        return jax.vmap(lambda w: jo.CurrentRNN(w, jo.Elementwise(jnp.sin)))(weights)

    def test_of_one_member(self, field):
        """One member fails and is frozen where it was; the others end as they do without it, to the last bit."""
        y0 = 3 * starts(4, 33, 3)
        run = jo.simulate(field, y0, t1=40.0, dt=1.0, solver=SOLVER)
        assert run.result.tolist() == [jo.Result.successful, jo.Result.solver_failed, jo.Result.successful]
        assert run.stats["num_steps"][1] < 40
        assert np.isfinite(run.ys).all()
        alone = jax.tree.map(lambda leaf: leaf[jnp.array([0, 0, 2])], field)
        others = jo.simulate(alone, y0[jnp.array([0, 0, 2])], t1=40.0, dt=1.0, solver=SOLVER)
        assert (run.ys[::2] == others.ys[::2]).all()
        assert np.abs(run.ys[::2, -1] - y0[::2]).max() > 0.3

    @pytest.mark.slow
    def test_of_too_few_iterations(self):
        """Two of each kind suffice for a gain of 1e-4 and not for 1."""
        weights = jnp.stack([1e-4 * skew(4, 34), skew(4, 35)])
        field = jax.vmap(lambda w: jo.CurrentRNN(w, jo.Tanh()))(weights)
        run = jo.simulate(field, starts(4, 36, 2), t1=3.0, dt=1.0, solver=DiscreteGradient(max_iterations=2))
        assert run.result.tolist() == [jo.Result.successful, jo.Result.solver_failed]

    @pytest.mark.slow
    def test_in_diffrax(self):
        field, solver = jo.CurrentRNN(dense(4, 35)), DiscreteGradient(max_iterations=1)
        run = diffrax.diffeqsolve(diffrax.ODETerm(field), solver, 0.0, 3.0, 1.0, starts(4, 36), throw=False)
        assert run.result == diffrax.RESULTS.nonlinear_max_steps_reached

    def test_refuses(self):
        for options, words in (
            (dict(rtol=-1.0), "rtol = -1.0"),
            (dict(atol=float("nan")), "atol = nan"),
            (dict(max_iterations=0), "max_iterations = 0"),
        ):
            with pytest.raises(jo.JaxoscError, match=words):
                DiscreteGradient(**options)
        with pytest.raises(jo.JaxoscError, match="whose weight DiscreteGradient needs"):
            diffrax.diffeqsolve(diffrax.ODETerm(lambda t, y, args: -y), SOLVER, 0.0, 1.0, 0.1, jnp.ones(2))


class TestLanes:
    def test_batch_is_the_loop(self):
        """Own weights, leaks and gains; each member ends as it does alone, to rounding."""
        weights = jnp.stack([g * skew(5, 40 + k) for k, g in enumerate((0.5, 1.0, 4.0))])
        make = jax.vmap(lambda w, leak: jo.CurrentRNN(w, jo.Tanh(), leak=leak))
        fields, y0 = make(weights, jnp.array([0.0, 0.1, 0.05])), starts(5, 43, 3)
        options = dict(t1=10.0, dt=0.5, solver=SOLVER)
        together = jo.simulate(fields, y0, **options)
        for k in range(3):
            field = jo.CurrentRNN(weights[k], jo.Tanh(), leak=fields.leak[k])
            assert together.ys[k] == pytest.approx(np.asarray(jo.simulate(field, y0[k], **options).ys), abs=1e-12)

    @pytest.mark.slow
    def test_float32(self):
        """Follows float64, and its energy walks by rounding: sqrt(20,000) roundings of float32 are 1e-5."""
        field, y0 = jo.CurrentRNN(dense(7, 17)), starts(7, 19, 2)
        narrow_field, narrow_y0 = jax.tree.map(lambda a: a.astype(jnp.float32), (field, y0))
        _, narrow = energy_run(narrow_field, narrow_y0, 0.1, 200)
        assert narrow.dtype == np.float32
        assert narrow == pytest.approx(np.asarray(energy_run(field, y0, 0.1, 200)[1]), abs=2e-5)
        assert energy_run(narrow_field, narrow_y0, 0.1, 20_000)[0].max() < 1e-4


class TestDerivatives:
    def test_of_a_run(self):
        """By the implicit function theorem, in reverse (the transpose of forward), against central differences."""
        primals = jnp.asarray(skew(3, 50)), starts(3, 51), jnp.array(0.1)

        @jax.jit
        @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
        def final(matrix, y0, leak):
            field = jo.CurrentRNN(matrix, leak=leak)
            run = jo.simulate(field, y0, t1=5.0, dt=0.5, solver=SOLVER)
            return jnp.sum(run.ys[-1] * jnp.array([1.0, -2.0, 0.5]))

        tangents = jnp.asarray(np.random.default_rng(52).standard_normal((3, 3))), starts(3, 53), jnp.array(0.7)
        up, down = (final(*(p + s * 1e-5 * t for p, t in zip(primals, tangents, strict=True)))[0] for s in (1, -1))
        slope = sum(jnp.sum(g * t) for g, t in zip(final(*primals)[1], tangents, strict=True))
        assert slope == pytest.approx(float(up - down) / 2e-5, abs=1e-8)
        assert abs(slope) > 0.1
