"""Exponents and chaos indicators: linear systems with known ones, structure, textbook chaos, and equal paths."""

import functools
import importlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import lanes_with, skew
from scipy.integrate import solve_ivp

import jaxosc as jo
from jaxosc.orbits.growth import grow, schedule_of
from jaxosc.orbits.indicators import gali, megno
from jaxosc.orbits.lyapunov import lyapunov_spectrum, standard_error
from jaxosc.orbits.runs import frame_of
from jaxosc.solvers import PoissonSplitting
from jaxosc.weights import DenseSkew, RotationBlocks, Symmetrizable


def lorenz(t, y, args):
    """sigma, rho, beta in `args`."""
    sigma, rho, beta = args
    return jnp.stack([sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]])


def rossler(t, y, args):
    """a, b, c in `args`."""
    a, b, c = args
    return jnp.stack([-y[1] - y[2], y[0] + a * y[1], b + y[2] * (y[0] - c)])


LORENZ, ROSSLER = (10.0, 28.0, 8 / 3), (0.2, 0.2, 5.7)


@functools.cache
def networks(n=8, count=24, scale=2.0):
    """Random skew networks of spectral norm 1, and starts in chaos."""
    matrices = np.stack([skew(n, seed) for seed in range(count)])
    weight = DenseSkew(jnp.asarray(matrices[..., *np.triu_indices(n, 1)]))
    return jo.CurrentRNN(weight), scale * np.random.default_rng(n).standard_normal((count, n))


class TestKnownExponents:
    def test_linear_field(self):
        """y' = A y: the real parts of the eigenvalues."""
        rates = np.array([0.3, 0.05, -0.2, -0.2, -1.0])
        core = np.diag(rates)
        core[2, 3], core[3, 2] = 1.5, -1.5
        basis = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0]
        a = jnp.asarray(basis @ core @ basis.T)
        found = lyapunov_spectrum(lambda t, y, args: a @ y, np.zeros(5), t1=300.0, dt=0.05, transient=100.0)
        # Tsit5 at dt = 0.05 is right to 1e-8, and the frame has turned into place to exp(-0.15 * 100).
        np.testing.assert_allclose(found.exponents, rates, atol=2e-6)
        assert found.known_zeros == 0
        assert np.isnan(found.pairing_residual)

    def test_linear_network_with_leak(self):
        """y' = W y - leak y: all exponents are -leak, and pairs sum to -2 leak."""
        field = jo.CurrentRNN(DenseSkew.from_matrix(skew(4, 5)), jo.Identity(), leak=[0.0, 0.1, 0.3])
        found = lyapunov_spectrum(field, np.ones(4), t1=2000.0, dt=0.1)
        wanted = np.repeat(-np.array([[0.0], [0.1], [0.3]]), 4, axis=1)
        # What does not grow leaves 1/t of a bounded function.
        np.testing.assert_allclose(found.exponents, wanted, atol=1e-3)
        assert np.all(found.pairing_residual < 1e-3)

    def test_a_pair_has_none(self):
        """n = 2 closes: two zeros, and the averages decay like log(t) / t."""
        found = lyapunov_spectrum(jo.CurrentRNN(DenseSkew.from_matrix(skew(2, 1))), [1.0, 0.5], t1=5000.0, dt=0.1)
        assert np.abs(found.exponents).max() < 3 * np.log(5000) / 5000
        assert found.known_zeros == 2
        assert found.zero_residual == np.abs(found.exponents).max()
        assert np.all(np.abs(found.exponents) < 4 * found.error)

    @pytest.mark.parametrize(
        ("field", "args", "wanted", "t1", "dt", "within"),
        [
            (lorenz, LORENZ, [0.9056, 0, -14.5723], 400.0, 0.01, 0.01),
            (rossler, ROSSLER, [0.0714, 0, -5.3943], 2500.0, 0.05, 0.02),
        ],
    )
    def test_textbook_chaos(self, field, args, wanted, t1, dt, within):
        """64 orbits at once: the average as statistics allow (0.1 % Lorenz, 0.4 % Rossler, one sigma), whose roundings,
        and with them the orbits, are others in other versions of JAX.
        """
        y0 = np.random.default_rng(0).standard_normal((64, 3))
        found = lyapunov_spectrum(field, y0, t1=t1, dt=dt, transient=50.0, args=args)
        assert not np.any(found.result)
        mean = np.mean(np.asarray(found.exponents), axis=0)
        assert mean[0] == pytest.approx(wanted[0], rel=within)
        np.testing.assert_allclose(mean, wanted, rtol=0.002, atol=within * wanted[0])
        # The error that is told is the one that is there, or somewhat more.
        scatter = np.std(np.asarray(found.exponents)[:, 0])
        assert 0.7 * scatter < np.median(np.asarray(found.error)[:, 0]) < 4 * scatter


class TestStructure:
    @pytest.mark.parametrize(
        "n", [4, 5, pytest.param(8, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)]
    )
    def test_pairs_and_zeros(self, n):
        field, y0 = networks(n)
        found = lyapunov_spectrum(field, y0, t1=4000.0, dt=0.2)
        zeros = 2 if n % 2 == 0 else 3
        assert np.all(found.known_zeros == zeros)
        np.testing.assert_allclose(np.sum(found.exponents, axis=-1), 0, atol=1e-12)  # the steps keep volumes
        # 1/t of the logarithm of how badly W is conditioned: at most 10 / 4000 among these networks.
        assert np.median(found.pairing_residual) < 1e-3
        assert np.max(found.pairing_residual) < 3e-3
        assert np.median(found.zero_residual) < 2e-3

    def test_casimirs_and_gain_of_a_batch(self):
        weight = RotationBlocks(np.array([1.0, 0.4]), 5)
        assert lyapunov_spectrum(jo.CurrentRNN(weight), np.ones(5), t1=10.0, dt=0.1).known_zeros == 3
        dense = Symmetrizable.from_energy_weights(DenseSkew.from_matrix(skew(4, 3)), [0.5, 1.0, 2.0, 1.0])
        found = lyapunov_spectrum(jo.CurrentRNN(dense), 2 * np.ones(4), t1=4000.0, dt=0.1)
        assert found.known_zeros == 2
        assert found.pairing_residual < 2e-3

    def test_nothing_is_claimed_where_nothing_is_known(self):
        field = jo.CurrentRNN(skew(4, 1) + 0.3 * np.eye(4)[::-1])
        found = lyapunov_spectrum(field, np.ones(4), t1=20.0, dt=0.1)
        assert found.known_zeros == 0 and np.isnan(found.pairing_residual)
        some = lyapunov_spectrum(*networks(4), t1=20.0, dt=0.1, num_exponents=2)
        assert some.exponents.shape == (24, 2)
        assert np.all(np.isnan(some.pairing_residual)) and np.all(np.isnan(some.zero_residual))


class TestWays:
    def test_one_batch_product_and_vmap_agree(self):
        field, y0 = networks(3, 4)
        options = dict(t1=30.0, dt=0.1, samples=8, transient=3.0)
        batch = lyapunov_spectrum(field, y0, **options)
        single = [
            lyapunov_spectrum(jax.tree.map(lambda leaf, k=k: leaf[k] if leaf.ndim else leaf, field), y0[k], **options)
            for k in range(2)
        ]
        for k in range(2):
            np.testing.assert_allclose(batch.exponents[k], single[k].exponents, atol=1e-11)
        mapped = jax.vmap(lambda w, y: lyapunov_spectrum(jo.CurrentRNN(w), y, **options).exponents)(field.weight, y0)
        np.testing.assert_allclose(batch.exponents, mapped, atol=1e-11)
        product = lyapunov_spectrum(field, y0[:3], pairing="product", **options)
        assert product.exponents.shape == (4, 3, 3) and product.known_zeros.shape == (4, 3)
        for k in range(3):
            np.testing.assert_allclose(product.exponents[k, k], batch.exponents[k], atol=1e-11)

    def test_float32_is_close(self):
        field, y0 = networks(3)
        narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), field)
        options = dict(t1=60.0, dt=0.1, samples=8)  # chaos multiplies roundings of 1e-7 by exp(0.05 * 60) = 20
        wide = lyapunov_spectrum(field, y0, **options)
        found = lyapunov_spectrum(narrow, y0.astype(np.float32), **options)
        assert found.exponents.dtype == found.error.dtype == np.float32
        np.testing.assert_allclose(found.exponents, wide.exponents, atol=2e-4)

    def test_agrees_with_variational_equations(self):
        """The largest finite-time growth by SciPy, from the same deviation."""
        field, y0 = networks(4, 3)
        options = dict(t1=50.0, dt=0.05, solver=PoissonSplitting(4), num_exponents=1)
        ours = lyapunov_spectrum(field, y0, **options)
        frame = np.asarray(frame_of(None, 4, 1, jnp.float64))[:, 0]
        for k in range(3):
            w = skew(4, k)

            def both(t, z, w=w):
                return np.concatenate([w @ np.tanh(z[:4]), w @ (z[4:] / np.cosh(z[:4]) ** 2)])

            run = solve_ivp(both, (0, 50.0), np.concatenate([y0[k], frame]), method="DOP853", rtol=1e-11, atol=1e-11)
            growth = np.log(np.linalg.norm(run.y[4:, -1])) / 50.0
            assert ours.exponents[k, 0] == pytest.approx(growth, abs=1e-6)  # order 4 at dt = 0.05

    def test_chunks_change_nothing(self):
        """More lanes than a chunk holds, the last chunk ragged."""
        lanes, x = lanes_with(3, 700, own=True)
        frame, schedule = frame_of(None, 3, 2, x.dtype), schedule_of(0.0, 8.0, 0.1, 0.0, 4, 5).cast(x.dtype)
        run = eqx.filter_jit(lambda lanes, x: grow(lanes, x, frame, PoissonSplitting(2), schedule, 1e6, samples=4).logs)
        whole = run(lanes, x)
        few = run(eqx.tree_at(lambda lanes: lanes.matrix, lanes, lanes.matrix[..., 650:690]), x[:, 650:690])
        np.testing.assert_array_equal(whole[..., 650:690], few)

    def test_compiles_once_for_all_times(self, capfd):
        field, y0 = networks(4, 3)
        traced = []

        @eqx.filter_jit
        def counted(t1, dt):
            traced.append(0)
            return lyapunov_spectrum(field, y0, t1=t1, dt=dt, samples=4).exponents

        for t1, dt in ((5.0, 0.1), (9.0, 0.2), (4.0, 0.05)):
            inside = counted(jnp.asarray(t1), jnp.asarray(dt))
            outside = lyapunov_spectrum(field, y0, t1=t1, dt=dt, samples=4)
            np.testing.assert_allclose(inside, outside.exponents, atol=1e-12)
        assert len(traced) == 1

    def test_schedule(self):
        for t1, dt, transient, every in (
            (10.0, 0.1, 0.0, 10),
            (7.3, 0.2, 1.0, 3),
            (1.0, 0.5, 0.0, 10),
            (1e4, 0.1, 5.0, 7),
        ):
            plan = schedule_of(0.0, t1, dt, transient, 4, every)
            assert plan.dt <= dt * (1 + 1e-6) and plan.steps <= every
            assert 4 * plan.duration() == pytest.approx(t1 - transient)
            assert plan.dt * plan.steps * plan.ahead >= transient * (1 - 1e-6)

    def test_members_that_leave_are_marked(self):
        """y' = y^3 - y escapes from above 1 and stays below; one that jumps to infinity is not finite."""
        found = lyapunov_spectrum(
            lambda t, y, args: y**3 - y, np.array([[0.5], [1.5]]), t1=20.0, dt=0.01, samples=8, escape_norm=1e3
        )
        assert found.result[0] == jo.Result.successful
        assert found.result[1] in (jo.Result.escaped, jo.Result.non_finite)
        assert found.exponents[0, 0] == pytest.approx(-1, abs=0.1)
        assert np.isnan(found.exponents[1, 0]) and np.isnan(found.error[1, 0])
        slow = lyapunov_spectrum(lambda t, y, args: y, np.ones((1, 1)), t1=20.0, dt=0.01, samples=8, escape_norm=1e3)
        assert slow.result[0] == jo.Result.escaped
        assert np.isfinite(slow.series[0, 1, 0]) and np.isnan(slow.series[0, -1, 0])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (dict(dt=-0.1), "dt is -0.1"),
            (dict(num_exponents=5), "from 1 to n = 4"),
            (dict(samples=2), "samples = 2"),
            (dict(transient=20.0), "t1 > t0"),
            (dict(renormalise_every=0), "renormalise_every"),
            (dict(y0=np.ones(3)), "n = 4"),
            (dict(field=3.0), "expected a jo.CurrentRNN"),
            (dict(field=lorenz, y0=np.ones(3), solver=PoissonSplitting(2)), "Runge-Kutta"),
            (dict(field=lorenz, y0=np.ones(3), solver="tsit5"), "Diffrax"),
        ],
    )
    def test_refuses(self, change, words):
        field, y0 = networks(4, 3)
        options = dict(field=field, y0=y0, t1=10.0, dt=0.1) | change
        with pytest.raises(jo.JaxoscError, match=words):
            lyapunov_spectrum(options.pop("field"), options.pop("y0"), **options)

    def test_error_of_correlated_samples(self):
        """Independent numbers: sigma / sqrt(n); each one repeated 4 times: as few as there are."""
        values = np.random.default_rng(3).standard_normal((16, 200))
        plain = np.sqrt(np.mean(np.square(jax.jit(standard_error)(jnp.asarray(values)))))
        repeated = np.sqrt(np.mean(np.square(jax.jit(standard_error)(jnp.asarray(np.repeat(values, 4, axis=0))))))
        assert 1.0 < plain / 0.25 < 1.5  # the largest of three estimates
        assert repeated == pytest.approx(plain, rel=1e-12)

    def test_speaks(self):
        text = repr(lyapunov_spectrum(*networks(4, 3), t1=20.0, dt=0.1))
        assert "3 members, k = 4" in text and "pairing residual" in text


class TestIndicators:
    def test_order_and_chaos(self):
        """Two separate pairs are a torus; n = 8 at |y| = 2 is chaotic."""
        torus = jo.CurrentRNN(RotationBlocks(np.array([1.0, 0.618]), 4))
        options = dict(t1=2000.0, dt=0.2)
        calm = megno(torus, [1.0, 0.2, -0.5, 1.5], **options)
        assert calm.mean == pytest.approx(2, abs=0.2)  # 400 periods
        field, y0 = networks(8)
        wild = megno(field, y0, **options)
        assert np.median(wild.mean) > 10
        assert np.all(wild.series[:, -1] == wild.value)

    @pytest.mark.slow
    def test_megno_knows_the_exponent(self):
        field, y0 = networks(8)
        options = dict(t1=2000.0, dt=0.2)
        largest = lyapunov_spectrum(field, y0, **options).exponents[:, 0]
        ratio = np.asarray(megno(field, y0, **options).exponent / largest)
        assert abs(np.median(ratio) - 1) < 0.15  # of one orbit they scatter by 10 to 30 %

    def test_megno_of_a_known_growth(self):
        """|v| = 1 + t along a shear: Y = 2 (1 - log(1 + t) / t); |v| = exp(lambda t): Y = lambda t."""
        shear = megno(
            lambda t, y, args: jnp.stack([y[1], jnp.zeros(())]), np.ones(2), t1=200.0, dt=0.1, renormalise_every=1
        )
        assert shear.value == pytest.approx(2, abs=0.1)
        grown = megno(lambda t, y, args: 0.1 * y, np.zeros(2), t1=50.0, dt=0.1)
        np.testing.assert_allclose(grown.series, 0.1 * grown.ts, rtol=1e-8)
        assert grown.exponent == pytest.approx(0.1, rel=0.01)

    def test_gali_and_sali(self):
        """Of y' = diag(a) y: the volume of vectors that are known at all times."""
        rates = np.array([0.2, -0.1, -0.4])
        found = gali(lambda t, y, args: jnp.asarray(rates) * y, np.zeros(3), t1=10.0, dt=0.05, num_deviations=2)
        vectors = np.exp(rates * 10.0)[:, None] * np.asarray(frame_of(None, 3, 2, jnp.float64))
        vectors /= np.linalg.norm(vectors, axis=0)
        assert found.value == pytest.approx(np.prod(np.linalg.svd(vectors)[1]), rel=1e-6)
        sali = min(np.linalg.norm(vectors @ [1, sign]) for sign in (1, -1))
        assert found.sali == pytest.approx(sali, rel=1e-6)

    @pytest.mark.slow
    def test_gali_tells_torus_from_chaos(self):
        torus = jo.CurrentRNN(RotationBlocks(np.array([1.0, 0.618]), 4))
        calm = gali(torus, [1.0, 0.2, -0.5, 1.5], t1=3000.0, dt=0.1)
        assert calm.value > 1e-4
        field, y0 = networks(8)
        wild = gali(field, y0, t1=3000.0, dt=0.1)
        assert np.median(wild.value) < 1e-10
        assert wild.sali.shape == (24,)


@pytest.mark.slow
def test_the_benchmark_runs(fresh_python, repository, tmp_path):
    """At small size, with whatever peers are there; and it draws its conclusion from made-up rows."""
    found = fresh_python("-m", "benchmarks.orbits", "--quick", "--out", str(tmp_path))
    assert found.returncode == 0, found.stderr
    record = json.loads((tmp_path / "orbits.json").read_text())
    assert all(row["microseconds"] > 0 and row["distance"] < 0.1 for row in record["rows"])
    assert record["scipy"]["largest difference"] < 1e-7  # DOP853 at 1e-10 against order 8
    assert {row["name"] for row in record["chaos"]} == {"Lorenz", "Rossler"}
    assert "up to" in found.stdout


def test_the_benchmark_compares_equal_accuracy(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository))
    orbits = importlib.import_module("benchmarks.orbits")
    timing = orbits.Timing((1.0,), (1.0,), 1.0)
    rows = [
        orbits.Row(name, dt, timing, microseconds, distance, 0.0)
        for name, dt, microseconds, distance in (
            ("jaxosc", 0.1, 2.0, 1.0),
            ("jaxosc", 0.5, 1.0, 1.2),
            ("lyapax", 0.1, 40.0, 1.0),
            ("lyapax", 0.5, 10.0, 1.04),
        )
    ]
    found = orbits.answers(rows)
    assert found["ratio"] == 5
    assert found["ratio at equal dt"] == {0.1: 20, 0.5: 10}
    assert "reached" in found["sentences"][0]
