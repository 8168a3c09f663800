"""Pair splitting: exact for the pair, order 2 elsewhere, the energy kept to rounding at any step size and amplitude."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from problems import BY_NAME, rotation, skew
from test_solvers import SLOPE_TOLERANCE, diffrax_final, duration_of, measured_orders, random_start, step_counts

import jaxosc as jo
from jaxosc.simulate import run_lanes
from jaxosc.solvers import PairSplitting, lanes_of
from jaxosc.solvers.pair_flows import TanhPlanes, elliptic_sine
from jaxosc.solvers.pair_splitting import first_place, pair_step, planes_of, tournament
from jaxosc.sweeps import catalogue
from jaxosc.weights import DenseSkew, Symmetrizable

SOLVERS = {"pair_splitting": PairSplitting()}
"""Not in the table of test_solvers.py, whose rows run on every problem: half of them are not for this solver."""

LINEAR_ROWS = ("linear_three", "linear_eight", "linear_bias", "linear_leak", "linear_symmetrizable")
"""Problems that it solves to order 2."""

EXACT_ROWS = ("linear_pair", "tanh_pair", "tanh_pair_large", "tanh_two_pairs", "tanh_rotation_blocks")
"""Problems that it solves exactly, as their planes have no neuron in common."""


def network(n: int, seed: int, activation=None, **options) -> jo.CurrentRNN:
    """A network of spectral norm 1."""
    return jo.CurrentRNN(DenseSkew.from_matrix(skew(n, seed)), activation, **options)


def driven(n: int, seed: int) -> jo.CurrentRNN:
    """A tanh network with everything that moves it besides its planes."""
    shift = np.linspace(0, 1, n)
    bias = random_start(n, seed + 1) / 4
    return network(n, seed, bias=bias, leak=0.1, drive=lambda t: 0.4 * jnp.sin(1.3 * t + shift))


def final(field, y0, t1, dt, **options):
    return np.asarray(jo.simulate(field, y0, t1=t1, dt=dt, solver=PairSplitting(), **options).ys[..., -1, :])


def followed(field, y0, t1):
    """The same by Tsit5 at steps of 0.002, whose error is 1e-13 here."""
    return np.asarray(jo.simulate(field, y0, t1=t1, dt=0.002, solver=diffrax.Tsit5()).ys[-1])


class TestOrder:
    @pytest.mark.parametrize("name", LINEAR_ROWS)
    def test_closed_forms(self, name: str) -> None:
        problem = BY_NAME[name]
        duration, steps = duration_of(problem), step_counts(2, duration_of(problem))
        exact = problem.exact(np.array(duration))
        ends = [final(problem.make_field(), jnp.array(problem.y0), duration, duration / count) for count in steps]
        errors = [float(np.linalg.norm(end - exact)) for end in ends]
        assert measured_orders(errors, steps) == pytest.approx(2, abs=SLOPE_TOLERANCE)
        assert errors[-1] < 0.03 * np.linalg.norm(exact - problem.y0)

    def test_tanh_of_eight(self) -> None:
        field, y0, steps = network(8, 17), 1.5 * random_start(8, 33), step_counts(2, 4.0)
        exact = followed(field, y0, 4.0)
        errors = [float(np.linalg.norm(final(field, y0, 4.0, 4.0 / count) - exact)) for count in steps]
        assert measured_orders(errors, steps) == pytest.approx(2, abs=SLOPE_TOLERANCE)
        assert errors[-1] < 0.03 * np.linalg.norm(exact - y0)

    @pytest.mark.slow
    def test_driven_in_diffrax(self) -> None:
        """Order 2 with bias, leak and drive, by people who never call simulate, and the numbers of the engine."""
        field, y0, steps = driven(3, 32), random_start(3, 34), step_counts(2, 4.0)
        exact = followed(field, y0, 4.0)
        solve = jax.jit(lambda count: diffrax_final(field, PairSplitting(), y0, 4.0, count))
        ends = [np.asarray(solve(count)) for count in steps]
        errors = [float(np.linalg.norm(end - exact)) for end in ends]
        assert measured_orders(errors, steps) == pytest.approx(2, abs=SLOPE_TOLERANCE)
        assert errors[-1] < 0.03 * np.linalg.norm(exact - y0)
        assert ends[0] == pytest.approx(final(field, y0, 4.0, 4.0 / steps[0]), abs=1e-12)

    @pytest.mark.slow
    def test_dense_output(self) -> None:
        """The steps of the pair are exact, so the order between them is that of the Hermite polynomial: 4."""
        problem, steps = BY_NAME["tanh_pair"], (32, 64, 128)

        @jax.jit
        def states(count, times):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(problem.make_field()),
                PairSplitting(),
                0.0,
                4.0,
                4.0 / count,
                jnp.array(problem.y0),
                saveat=diffrax.SaveAt(ts=times),
                max_steps=None,
            ).ys

        errors = []
        for count in steps:
            times = (np.floor(np.linspace(1, count - 1, 23)) + 0.5) * (4.0 / count)
            errors.append(float(np.abs(states(count, times) - problem.exact(times)).max()))
        assert measured_orders(errors, steps) == pytest.approx(4, abs=SLOPE_TOLERANCE)

    def test_declared(self) -> None:
        assert PairSplitting().order(None) == 2
        assert repr(PairSplitting()) == "PairSplitting()"


class TestExact:
    @pytest.mark.parametrize("name", EXACT_ROWS)
    def test_planes_without_a_common_neuron(self, name: str) -> None:
        problem = BY_NAME[name]
        end, exact = final(problem.make_field(), jnp.array(problem.y0), 11.0, 0.5), problem.exact(np.array(11.0))
        # The exponential of a matrix, which gives the linear rows, is good to some 1e-13; the rest to 1e-14.
        assert end == pytest.approx(exact, abs=1e-12)
        assert np.abs(exact - problem.y0).max() > 0.3

    @pytest.mark.parametrize("dt", [pytest.param(0.01, marks=pytest.mark.slow), 0.3, 1.2, 1.4, 9.0, 70.0])
    def test_the_pair_at_any_step_size(self, dt: float) -> None:
        """From rest to |y| = 1000, in one program: 40 steps against the closed form, relative to the size."""
        omega, shapes = -1.1, np.array([[0.7, -0.4], [1.0, 0.9999], [0.0, 1.0], [-0.2, -0.9]])
        sizes = np.repeat([1e-8, 1e-3, 0.3, 1, 4, 20, 60, 300, 1000], 4)[:, None]
        y0 = sizes * np.tile(shapes, (9, 1))
        run = jo.simulate(
            jo.CurrentRNN(DenseSkew.from_matrix(rotation(omega))),
            y0,
            t1=40 * dt,
            dt=dt,
            solver=PairSplitting(),
            save_every=1,
        )
        exact = jax.vmap(lambda start: jo.oracles.pair_solution(run.ts, start, omega))(jnp.asarray(y0))
        # The phase: 40 steps of sn to 2e-15, and what the closed form itself loses over a time (1e-11 at 3e3).
        assert np.abs(np.asarray(run.ys) - exact).max(axis=(1, 2)) / sizes[:, 0] == pytest.approx(
            np.zeros(36), abs=3e-13 + 1e-14 * 40 * dt
        )
        assert (np.ptp(run.ys, axis=1).max(axis=-1) > min(dt, 0.2) * np.minimum(sizes[:, 0], 1)).all()

    def test_long_turns_are_made_of_short_ones(self) -> None:
        """An angle of 2.64 is turned in many parts, two of 1.32 in one each: they must agree."""
        field = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.1)))
        for y0 in 2 * random_start(2, 35, 5):
            once, twice = (final(field, y0, 2.4, dt) for dt in (2.4, 1.2))
            assert once == pytest.approx(twice, abs=3e-14)
            assert np.abs(once - y0).max() > 0.3

    def test_elliptic_sine(self) -> None:
        m = np.array([0, 1e-9, 0.3, 0.7, 0.99, 1 - 1e-12, 1])
        for v, tolerance in ((1e-6, 2e-15), (-0.2, 2e-15), (1.0, 2e-15), (1.5, 4e-15), (2.0, 3e-13)):
            exact = np.array([float(mpmath.ellipfun("sn", v, m=value)) for value in m])
            assert elliptic_sine(jnp.array([v]), jnp.asarray(m)) == pytest.approx(exact, rel=tolerance)


class TestEnergy:
    def drifts(self, steps: float, dt: float, activation=None) -> np.ndarray:
        """Largest energy error, by amplitude: 0.001, 1 and all neurons at |y| = 60; asserts that all moved."""
        small, middle, large = (random_start(8, seed, 2) for seed in (36, 37, 38))
        y0 = np.concatenate([1e-3 * small, middle, 60 * np.sign(large)])
        run = jo.simulate(
            network(8, 17, activation),
            y0,
            t1=steps * dt,
            dt=dt,
            solver=PairSplitting(),
            reducers=(jo.EnergyDrift(),),
            save_every=int(steps) // 50,
        )
        assert (np.ptp(run.ys, axis=1).max(axis=-1) > np.abs(y0).max(axis=-1)).all()
        return np.abs(run.reduced["energy_drift_max"]).reshape(3, 2).max(axis=-1)

    @pytest.mark.parametrize(
        ("dt", "activation"), [pytest.param(0.1, None, marks=pytest.mark.slow), (1.0, None), (0.1, jo.Identity())]
    )
    def test_to_rounding(self, dt: float, activation) -> None:
        """Rounding walks: 52 turns and 2e4 steps of a third of eps each make 1e-13."""
        assert (self.drifts(2e4, dt, activation) < 1e-12).all()

    @pytest.mark.slow
    @pytest.mark.parametrize("dt", [0.1, 1.0])
    def test_over_a_million_steps(self, dt: float) -> None:
        """Measured: 3e-13 and less, and 5e-12 at the smallest size, where a plane turns by the same angle always."""
        assert (self.drifts(1e6, dt) < 2e-11).all()

    @pytest.mark.parametrize("activation", [pytest.param(jo.Tanh(), marks=pytest.mark.slow), jo.Identity()])
    def test_at_steps_that_are_too_long(self, activation) -> None:
        """Planes that turn several times a step: nothing is left of the orbit, all of the energy."""
        y0 = 2 * random_start(5, 39, 3)
        run = jo.simulate(network(5, 40, activation), y0, t1=2e4, dt=20.0, solver=PairSplitting(), save_every=10)
        energy = jax.vmap(jax.vmap(network(5, 40, activation).energy))(run.ys)
        # 16 turns of 64 parts in each of 1000 steps: a million roundings of a third of eps walk to 1e-13.
        assert energy / energy[:, :1] == pytest.approx(np.ones(energy.shape), abs=1e-12)
        assert np.ptp(run.ys, axis=1).min() > 1

    def test_hidden_skewness(self) -> None:
        d = np.array([0.5, 1.0, 3.0, 1.5, 0.1])
        weight = Symmetrizable.from_energy_weights(DenseSkew.from_matrix(skew(5, 41)), d)
        field, y0 = jo.CurrentRNN(weight, jo.Identity()), random_start(5, 42)
        run = jo.simulate(field, y0, t1=1e4, dt=1.0, solver=PairSplitting(), save_every=10)
        energy = field.energy(run.ys)
        assert energy / energy[0] == pytest.approx(np.ones(len(energy)), abs=1e-12)
        assert np.ptp(run.ys, axis=0).min() > 0.5

    @pytest.mark.slow
    def test_what_wanders(self) -> None:
        """As the docstring says: H + c.y of a bias and the Casimirs err by O(dt^2), and more as time goes on.

        The planes are Poisson maps each of its own structure, so nothing that all of them share keeps the rest.
        """
        biased = network(8, 43, bias=random_start(8, 44) / 10)
        for field, value in ((biased, biased.energy), (network(5, 46), network(5, 46).casimirs)):
            y0, worst = 2 * random_start(field.size, 45), []
            for dt in (0.2, 0.1):
                run = jo.simulate(field, y0, t1=2e3, dt=dt, solver=PairSplitting(), save_every=round(1 / dt))
                values = np.asarray(value(run.ys)).reshape(2001)
                errors = np.abs(values - values[0])
                worst.append(errors[:41].max())
                assert errors.max() > (2 if dt == 0.2 else 1.2) * worst[-1]
            assert worst[0] / worst[1] == pytest.approx(4, rel=0.1)
            assert 1e-4 < worst[0] < 0.01

    @pytest.mark.slow
    def test_float32(self) -> None:
        """Energy: the rounding of float32, 10^4 steps; trajectory: that of float64 over a short time."""
        y0 = random_start(8, 48)
        field = jo.CurrentRNN(DenseSkew.from_matrix(skew(8, 17).astype(np.float32)))
        options = dict(dt=0.1, solver=PairSplitting(), reducers=(jo.EnergyDrift(),))
        long, short = (jo.simulate(field, y0.astype(jnp.float32), t1=t1, **options) for t1 in (1e3, 20.0))
        assert long.ys.dtype == np.float32
        assert abs(float(long.reduced["energy_drift_max"])) < 2e-5
        assert short.ys[-1] == pytest.approx(final(network(8, 17), y0, 20.0, 0.1), abs=2e-5)
        assert np.abs(short.ys[-1] - y0).max() > 0.3


class TestFarOut:
    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
    def test_coordinates_and_back(self, dtype) -> None:
        """From 1e-8 to 1e6, beyond what sech can be in the dtype: a few eps of y."""
        y = np.geomspace(1e-8, 1e6, 200).astype(dtype)
        y = jnp.asarray(np.stack([y, -y, 0 * y]))
        place, back = jax.jit(lambda y: (place := TanhPlanes().enter(y), TanhPlanes().leave(place)))(y)
        assert back == pytest.approx(np.asarray(y), rel=6 * float(jnp.finfo(dtype).eps), abs=0)
        assert (place.r > 0).all() and (place.far > 0).any()

    @pytest.mark.slow
    def test_a_neuron_goes_out_and_comes_back(self) -> None:
        """The pair in float32 from |y| = 120, where sech is 0, through 0 to -120 and back, against the closed form.

        Errors: 970 steps that round |y| = 120 by 4e-6 each, and a dt that is wrong by 2e-8 of a period of 485.
        """
        y0 = np.array([120.0, 0.3], np.float32)
        period = float(jo.oracles.pair_period(np.sum(np.log(np.cosh(y0.astype(float)))), 1.0))
        field = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0).astype(np.float32)))
        run = jo.simulate(field, y0, t1=period, dt=0.5, solver=PairSplitting(), save_every=1)
        exact = jo.oracles.pair_solution(np.arange(len(run.ts)) * float(run.stats["dt"]), y0.astype(float), 1.0)
        assert run.ys == pytest.approx(np.asarray(exact), abs=5e-3)
        assert np.asarray(run.ys).min(axis=0) == pytest.approx([-120, -120], abs=2)

    def test_nobody_is_disturbed(self) -> None:
        """To the others a neuron at 2000 is one at 500, of which float64 still knows the sech."""
        field, y0 = network(4, 54), random_start(4, 50)
        near, far = (final(field, y0.at[1].set(size), 20.0, 0.1) for size in (500.0, 2000.0))
        assert far - [0, 1500, 0, 0] == pytest.approx(near, abs=3e-12)  # 200 roundings of 2000
        assert np.abs(near - y0.at[1].set(500.0)).min() > 0.1


class TestLayout:
    @pytest.mark.parametrize("n", range(2, 10))
    def test_tournament(self, n: int) -> None:
        seats = tournament(n)
        assert (np.sort(seats.reshape(len(seats), -1)) == np.arange(n + n % 2)).all()
        met = {tuple(sorted(pair)) for plane in np.moveaxis(seats, 1, -1) for pair in plane.tolist()}
        assert len(met) == seats[:, 0].size == (n + n % 2) * (n + n % 2 - 1) // 2

    @pytest.mark.parametrize("n", [3, 6])
    def test_against_one_plane_after_the_other(self, n: int) -> None:
        """Odd and even: the closed form of the pair on each plane in the order of the rounds."""
        weight, dt, y0 = skew(n, 51), 0.8, np.asarray(random_start(n, 52))
        y = y0.copy()
        turn = jax.jit(jo.oracles.pair_solution)
        rounds = [[(i, j) for i, j in zip(*sides, strict=True) if max(i, j) < n] for sides in tournament(n)]
        for _ in range(2):
            for planes in [*rounds, *rounds[::-1]]:
                for i, j in planes:
                    y[[i, j]] = turn(dt / 2, jnp.asarray(y[[i, j]]), weight[i, j])
        assert final(jo.CurrentRNN(DenseSkew.from_matrix(weight)), y0, 1.6, dt) == pytest.approx(y, abs=1e-13)
        assert np.abs(y - y0).max() > 0.3

    @pytest.mark.parametrize("activation", [jo.Tanh(), jo.Identity()])
    def test_lanes_with_shared_and_own_weights(self, activation) -> None:
        """One network after the other, all with weights of their own, and gains on a shared one: the same numbers."""
        gains, y0 = jnp.array([0.5, 1.0, 2.0]), random_start(4, 53, 3)
        base = network(4, 54, activation)
        own = jax.vmap(lambda gain: jo.CurrentRNN(base.weight.scaled(gain), activation))(gains)
        fields = [jo.CurrentRNN(base.weight.scaled(gain), activation) for gain in gains]
        single = np.stack([final(field, start, 2.0, 0.1) for field, start in zip(fields, y0, strict=True)])
        lanes = lanes_of(base)
        shared = type(lanes)(lanes.matrix, activation, gain=gains, hollow=True, skew=True)
        run = jax.jit(lambda y0: run_lanes(shared, y0, PairSplitting(), (), t0=0.0, dt=0.1, num_steps=20))(y0.T)
        shares = np.asarray(run.y).T
        assert final(own, y0, 2.0, 0.1) == pytest.approx(single, abs=1e-14)
        assert shares == pytest.approx(single, abs=1e-14)
        assert np.abs(shares - y0).max() > 0.3

    def test_a_batch_of_networks_under_vmap_runs_one_branch(self) -> None:
        """Short turns and long ones differ in cost by 64: a condition of its own for each member would run both."""
        fields = jax.vmap(lambda entries: jo.CurrentRNN(DenseSkew(entries)))(random_start(3, 64, 4))

        def step(field, y0):
            lanes = lanes_of(field)
            return pair_step(lanes, 0.0, jnp.asarray(0.1), y0[:, None], first_place(lanes, y0[:, None]))[0]

        program = jax.make_jaxpr(jax.vmap(jax.vmap(step, in_axes=(None, 0)), in_axes=(0, None)))
        assert str(program(fields, random_start(3, 65, 2))).count("= cond[") == 1

    @pytest.mark.parametrize("field", [network(5, 55), driven(5, 55), network(5, 55, jo.Identity())])
    def test_runs_back_to_its_start(self, field: jo.CurrentRNN) -> None:
        y0 = 2 * random_start(5, 56)
        there = final(field, y0, 20.0, 0.2)
        back = final(field, there, 0.0, 0.2, t0=20.0)
        # 100 steps there and back of a few eps each, and stretching by the orbit, which is not a closed one.
        assert back == pytest.approx(np.asarray(y0), abs=1e-12)
        assert np.abs(there - y0).max() > 0.3


class TestGradients:
    """Of the states after five steps, in one program: W, y0 and dt are arguments."""

    @staticmethod
    def end(weight, y0, dt):
        lanes = lanes_of(jo.CurrentRNN(weight))
        start = (y0[:, None], first_place(lanes, y0[:, None]))
        after, _ = jax.lax.scan(lambda c, _: (pair_step(lanes, 0.0, dt, *c), None), start, length=5)
        return after[0][:, 0]

    @pytest.mark.parametrize(
        ("size", "dt"), [pytest.param(1.0, 0.25, marks=pytest.mark.slow), (30.0, 0.25), (1.0, 4.0)]
    )
    def test_against_differences(self, size: float, dt: float) -> None:
        """Forward and backward, by everything at once: near, far out, and with turns in many parts."""
        weight, y0 = DenseSkew.from_matrix(skew(3, 57)), size * random_start(3, 58)
        point = (weight.entries, y0, jnp.asarray(dt))
        along = (random_start(3, 62), random_start(3, 63), jnp.asarray(0.3))
        shifted = (jax.tree.map(lambda a, b, sign=sign: a + sign * 1e-5 * b, point, along) for sign in (1, -1))
        ahead, behind = (np.asarray(_forward(at, along)[0]) for at in shifted)
        differences = (ahead - behind) / 2e-5
        # Of states near 30 by steps of 1e-5: 1e-9 of rounding, and 1e-10 times the third derivative (1e4 at dt = 4).
        tolerance = 1e-7 * (1 + np.abs(differences).max())
        assert _forward(point, along)[1] == pytest.approx(differences, abs=tolerance)
        rows = [_backward(point, row) for row in np.eye(3)]
        backward = [sum(float(jnp.sum(a * b)) for a, b in zip(row, along, strict=True)) for row in rows]
        assert backward == pytest.approx(differences, abs=tolerance)
        assert np.abs(differences).min() > 0.01

    def test_at_rest_and_without_coupling(self) -> None:
        """No square root of zero, no branch that is not taken makes a NaN: the flow at rest is the rotation by W t."""
        point = (jnp.array([0.8, 0.0, 0.0]), jnp.zeros(3), jnp.asarray(0.25))
        jacobian = [_backward(point, row)[1] for row in np.eye(3)]
        c, s = np.cos(1.0), np.sin(1.0)
        assert np.stack(jacobian) == pytest.approx(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), abs=1e-14)


def _of_entries(entries, y0, dt):
    return TestGradients.end(DenseSkew(entries), y0, dt)


# Compiling takes most of the time here, and less of it so.
_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
_forward = _quickly(lambda point, along: jax.jvp(_of_entries, point, along))
_backward = _quickly(lambda point, row: jax.vjp(_of_entries, *point)[1](row))


class TestRefuses:
    @pytest.mark.parametrize("name", ["tanh_pair_rate", "linear_rate_leak"])
    def test_the_rate_form(self, name: str) -> None:
        with pytest.raises(jo.JaxoscError, match=r"run jo\.CurrentRNN\(weight, activation\) from field\.preactivation"):
            jo.simulate(BY_NAME[name].make_field(), jnp.array(BY_NAME[name].y0), t1=1.0, dt=0.1, solver=PairSplitting())

    def test_what_it_says_to_do_instead(self) -> None:
        """The advice for the rate form: the current form from field.preactivation(r) is that network."""
        problem = BY_NAME["tanh_pair_rate"]
        rate, r0 = problem.make_field(), jnp.array(problem.y0)
        end = final(jo.CurrentRNN(rate.weight), rate.preactivation(r0), 3.0, 0.5)
        exact = rate.preactivation(jnp.asarray(problem.exact(np.array(3.0))))
        assert end == pytest.approx(np.asarray(exact), abs=1e-13)

    @pytest.mark.parametrize(
        ("field", "words"),
        [
            (network(3, 59, jo.HardTanh()), r"HardTanh.*jo\.Tanh\(\) or jo\.Identity\(\).*DiscreteGradient"),
            (jo.CurrentRNN(0.1 * np.eye(3) + skew(3, 60)), "not known to be skew.*PoissonSplitting"),
            (jo.CurrentRNN(Symmetrizable.random(jax.random.key(0), 3)), r"S diag\(d\).*DiscreteGradient"),
        ],
        ids=["activation", "symmetric part", "symmetrizable"],
    )
    def test_planes_without_a_closed_form(self, field: jo.CurrentRNN, words: str) -> None:
        with pytest.raises(jo.JaxoscError, match=words):
            jo.simulate(field, np.ones(3), t1=1.0, dt=0.1, solver=PairSplitting())
        with pytest.raises(jo.JaxoscError, match=words):
            diffrax_final(field, PairSplitting(), np.ones(3), 1.0, 10)

    def test_a_field_that_is_no_network(self) -> None:
        with pytest.raises(jo.JaxoscError, match="whose weight PairSplitting needs"):
            diffrax_final(lambda t, y, args: -y, PairSplitting(), np.ones(3), 1.0, 10)

    def test_a_plain_array_that_is_skew_is_welcome(self) -> None:
        assert isinstance(planes_of(lanes_of(jo.CurrentRNN(jnp.asarray(skew(3, 61))))), TanhPlanes)


def test_has_its_name_in_sweeps() -> None:
    assert isinstance(catalogue.SOLVERS["pair_splitting"](), PairSplitting)
