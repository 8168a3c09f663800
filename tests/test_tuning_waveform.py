"""Waveforms: lines against the bound of Cramer and Rao, networks recovered from what they played, free runs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxosc as jo
from jaxosc.tuning import Waveform, fit_waveform, read_waveform
from jaxosc.tuning.waveform_lines import harmonic_lines, refine, spectral_lines
from jaxosc.tuning.waveform_loss import Samples, Unknowns, loss, residuals
from jaxosc.weights import DenseSkew, RotationBlocks, Symmetrizable, Unconstrained

THREE = np.array([1, math.sqrt(2), math.sqrt(5)])
NOISE = math.sqrt(1.5 / 100)  # 20 dB below three sines of amplitude 1

TS = np.arange(40) * 0.1
WAVE = np.sin(3 * TS)
PAIR = jo.CurrentRNN(RotationBlocks(jnp.array([3.0])))
START = np.array([0.1, 0.0])


@pytest.fixture(scope="module")
def pair() -> Waveform:
    return fit_waveform(PAIR, START, TS, WAVE, max_steps=3, horizons=(1.0,))


def three_sines(seed: int, per_period: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten periods of the slowest, with noise."""
    generator = np.random.default_rng(seed)
    ts = np.arange(10 * per_period) / per_period
    waves = np.sin(2 * np.pi * (THREE * ts[:, None] + generator.random(3))).sum(axis=1)
    return ts, waves + NOISE * generator.standard_normal(len(ts))


def cramer_rao(per_period: int) -> np.ndarray:
    """The least deviation of the three frequencies, relative, for each by itself."""
    per_sample = math.sqrt(24 * NOISE**2 / (10 * per_period) ** 3)
    return per_sample * per_period / (2 * math.pi * THREE)


def cosines(frequencies: list[float], amplitudes: list[float], ts: np.ndarray) -> np.ndarray:
    return sum(a * np.cos(2 * np.pi * f * ts + 7 * f) for f, a in zip(frequencies, amplitudes, strict=True))


class TestLines:
    def test_nearer_than_a_window_tells(self) -> None:
        """Two lines 1.3 bins apart and a weak one, without noise: exact but for rounding."""
        ts = np.arange(300) * 0.1
        wanted = [0.5, 0.5 + 1.3 / 30, 1.37]
        signal = 2.0 + cosines(wanted, [1.0, 0.7, 1e-3], ts)[:, None]
        np.testing.assert_allclose(np.sort(spectral_lines(signal, 0.1, 3, sure=False)), wanted, rtol=1e-8)

    def test_reaches_the_bound(self) -> None:
        """Mean square of 30 errors in units of the bound: chi-squared with 30 degrees of freedom over 30, below 1.7
        but for 1 in 100; the lines' neighbours cost up to a fifth more.
        """
        errors = []
        for seed in range(10):
            _, signal = three_sines(seed, 200)
            found = np.sort(spectral_lines(signal[:, None], 1 / 200, 9, sure=True))
            assert len(found) == 3  # and no noise taken for a line
            errors.append((found / THREE - 1) / cramer_rao(200))
        assert 0.4 < np.mean(np.square(errors)) < 2

    def test_base_of_harmonics(self) -> None:
        """A base that is not itself in the signal, of which two multiples are the strongest."""
        ts = np.arange(500) * 0.05
        signal = cosines([0.62, 0.93, 1.55], [1.0, 1.0, 0.5], ts)[:, None]
        found = harmonic_lines(signal, 0.05, 5)
        np.testing.assert_allclose(found, 0.31 * np.arange(1, 6), rtol=1e-7)
        near = harmonic_lines(signal, 0.05, 5, near=0.6)
        assert abs(near[0] / 0.6 - 1) < 0.2
        # Locked lines keep their ratios, wherever they go.
        moved = refine(signal, 0.05, 0.312 * np.arange(1, 6), locked=True)
        np.testing.assert_allclose(moved / moved[0], np.arange(1, 6), rtol=1e-14)


class TestLoss:
    field = jo.CurrentRNN(DenseSkew.random(jax.random.key(1), 3))
    y0 = jnp.array([0.9, -0.4, 0.6])

    def samples(self, adjoint: object = None) -> Samples:
        values = jnp.asarray(np.random.default_rng(1).standard_normal((40, 2)))
        return Samples(values, jnp.ones(40), 0.1, 2, jo.solvers.PoissonSplitting(2), adjoint)

    @pytest.mark.parametrize("n", [2, 3])
    def test_is_what_least_squares_leaves(self, n: int) -> None:
        samples = self.samples()
        field, y0 = jo.CurrentRNN(DenseSkew.random(jax.random.key(1), n)), self.y0[:n]
        unknowns = Unknowns(field, y0, samples.duration, False, True)
        ys = jo.simulate(field, y0, t1=7.8, dt=0.1, save_every=2, solver=samples.solver).ys
        columns = np.concatenate([ys, np.ones((40, 1))], axis=1)
        # n = 3 has a Casimir, which the offset doubles: the columns depend on each other.
        assert np.linalg.matrix_rank(columns, tol=1e-9) == 3
        weights = np.linalg.lstsq(columns, np.asarray(samples.values), rcond=1e-10)[0]
        wanted = np.mean((columns @ weights - samples.values) ** 2)
        np.testing.assert_allclose(loss(unknowns.start, samples, unknowns), wanted, rtol=1e-9)

    def test_gradient_by_a_reversible_run(self) -> None:
        """Against differences: 1e-6 of the size from the step's square, and cancellation."""
        samples = self.samples(jo.Reversible())
        unknowns = Unknowns(self.field, self.y0, samples.duration, False, True)
        z = 0.1 + unknowns.start
        slope = jax.grad(loss)(z, samples, unknowns)
        for k, h in enumerate(1e-5 * np.eye(len(z))):
            up, down = (float(loss(z + sign * h, samples, unknowns)) for sign in (1, -1))
            np.testing.assert_allclose(slope[k], (up - down) / 2e-5, atol=1e-7)
        forward = jax.jvp(lambda z: jnp.sum(residuals(z, self.samples(), unknowns) ** 2), (z,), (jnp.ones_like(z),))[1]
        np.testing.assert_allclose(forward, jnp.sum(slope), rtol=1e-8)


class TestFit:
    def test_plays_three_sines_on(self) -> None:
        """Without noise: 30 times the window later the phases still agree, which needs frequencies to 1e-8."""
        ts = np.arange(200) * 0.05
        frequencies, amplitudes = [0.5, 0.7, 1.1], [1.0, 0.5, 0.7]
        target = 3 + np.stack([cosines(frequencies, amplitudes, ts), cosines(frequencies, [0.2, 1, 0], ts)], axis=1)
        # Of order 2, whose steps turn 1e-3 too fast: what was fitted is the frequency of these very steps.
        options = dict(neurons=6, periodic=False, amplitudes=(1e-4,), solver=jo.solvers.PoissonSplitting(2))
        found = fit_waveform(None, None, ts, target, **options)
        assert found.readout.shape == (2, 6)
        # The network's wave has a third harmonic of amplitude^2/48, and splitting at dt |W| = 0.25 one of 1e-7.
        assert found.error < 1e-5
        np.testing.assert_allclose(np.sort(found.frequencies), frequencies, rtol=1e-7)
        later = 300 + ts
        wanted = 3 + cosines(frequencies, amplitudes, later)
        np.testing.assert_allclose(found(later)[:, 0], wanted, atol=1e-4)
        np.testing.assert_allclose(found.generate(ts[-1]), found(ts), atol=1e-12)
        assert len(found.generate(ts[-1])) == 200
        assert "3 planes" in found.reason and "error" in repr(found)

    def test_takes_one_plane_for_a_triangle(self) -> None:
        """A far start of the pair runs along a square: each neuron a triangle. The criterion sees that two do."""
        ts = np.arange(300) * 0.05
        noise = 0.02 * np.random.default_rng(1).standard_normal(300)
        target = 2 / np.pi * np.arcsin(np.sin(2 * np.pi * 0.53 * ts)) + noise
        found = fit_waveform(None, None, ts, target, neurons=2, amplitudes=(0.01, 3.0))
        assert "amplitude 3" in found.reason
        assert found.error < 1.05 * 0.02 / target.std()  # noise and nothing else
        sine = fit_waveform(None, None, ts, target, neurons=2, amplitudes=(0.01,))
        assert sine.error > 0.1  # the third harmonic has a ninth of the first's amplitude

    def test_keeps_multiples_together(self) -> None:
        """A periodic signal with noise: 100 windows later its shape is what it was."""
        ts = np.arange(600) * 0.1
        generator = np.random.default_rng(3)
        target = np.exp(3 * np.cos(2 * np.pi * 0.1 * ts)) / 20 + 0.05 * generator.standard_normal(600)
        found = fit_waveform(None, None, ts, target, neurons=12, periodic=True)
        assert "multiples" in found.reason
        other = fit_waveform(None, None, ts, target, neurons=12, periodic=0.11)
        np.testing.assert_allclose(other.frequencies, found.frequencies, rtol=1e-6)
        base = float(jnp.min(found.frequencies))
        np.testing.assert_allclose(np.sort(found.frequencies) / base, np.arange(1, 7), rtol=1e-7)
        period = 1 / base
        phases = np.linspace(0, period, 40)
        np.testing.assert_allclose(found(600 * period + phases), found(phases), atol=1e-3)

    @pytest.mark.parametrize("method", ["least_squares", "adam"])
    def test_recovers_a_network_from_what_it_played(self, method: str) -> None:
        """Four coupled neurons at amplitude 1, from weights and a start that are 10 % off."""
        truth = jo.CurrentRNN(DenseSkew.random(jax.random.key(1), 4))
        start = jax.random.normal(jax.random.key(2), (4,))
        ts = np.arange(150) * 0.3
        played = jo.simulate(truth, start, t1=ts[-1], dt=0.1, save_every=3, solver=jo.solvers.PoissonSplitting(4)).ys
        off = 1 + 0.1 * jax.random.normal(jax.random.key(3), (6,))
        field = jo.CurrentRNN(DenseSkew(truth.weight.entries * off))
        target = played @ np.array([1.0, -0.5, 0.3, 0.8])
        before = fit_waveform(field, 0.9 * start, ts, target, dt=0.1, max_steps=1)
        found = fit_waveform(field, 0.9 * start, ts, target, dt=0.1, method=method)
        assert before.error > 0.05
        # What the ridge leaves, 1e-6; Adam is on its way (0.01 after 2,000 steps).
        assert found.error < (2e-6 if method == "least_squares" else 0.3 * before.error)
        if method == "least_squares":
            longer = np.arange(0, 300, 0.3)
            run = jo.simulate(truth, start, t1=299.7, dt=0.1, save_every=3, solver=jo.solvers.PoissonSplitting(4)).ys
            np.testing.assert_allclose(found(longer)[:, 0], run @ np.array([1.0, -0.5, 0.3, 0.8]), atol=1e-3)

    def test_blocks_of_dense_samples(self) -> None:
        """More than 64 samples to a period are averaged in blocks, and the start moved back to the first sample."""
        ts = 5 + np.arange(3000) / 300
        target = cosines([1.0], [2.0], ts)
        found = fit_waveform(None, None, ts, target, neurons=2, periodic=False, amplitudes=(1e-3,))
        np.testing.assert_allclose(found(ts)[:, 0], target, atol=2e-6)
        assert found.t0 == 5 and found.spacing == pytest.approx(1 / 300)

    def test_start_is_that_of_the_first_sample(self) -> None:
        """Of a saturated pair, whose readout cannot turn the phase; blocks begin a little later."""
        field, start = jo.CurrentRNN(RotationBlocks(jnp.array([2.0]))), np.array([2.0, 1.0])
        ts = np.arange(2000) * 0.01
        run = jo.simulate(field, start, t1=ts[-1], dt=0.01, save_every=1, solver=jo.solvers.PoissonSplitting(4))
        found = fit_waveform(field, start, ts, run.ys[:, 0], horizons=(1.0,))
        # Means of blocks of 5 are off by a few 1e-4 of the wave.
        np.testing.assert_allclose(found.y0, start, rtol=5e-3)
        assert found.error < 1e-3

    def test_float32(self) -> None:
        ts = np.arange(200) * 0.05
        field = jo.CurrentRNN(RotationBlocks(jnp.asarray([3.1], jnp.float32)))
        target = cosines([0.5], [1.0], ts)
        found = fit_waveform(field, np.float32([0.1, 0.0]), ts, target)
        assert found.y0.dtype == found.readout.dtype == jnp.float32
        # The third harmonic of amplitude 0.1 is 2e-4; the step that least squares cannot see is root of eps.
        assert found.error < 2e-3
        np.testing.assert_allclose(found.frequencies, 0.5, rtol=1e-4)

    def test_inside_a_transformation(self, pair: Waveform) -> None:
        ts, shown = TS, []

        def scaled(waveform: Waveform) -> jax.Array:
            shown.append(repr(waveform))
            return waveform(ts)

        np.testing.assert_allclose(jax.jit(scaled)(pair), pair(ts), atol=1e-12)
        assert "inside a JAX transformation" in shown[0]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((None, None, TS**1.1, WAVE), {}, "equally spaced"),
        ((None, None, TS[::-1], WAVE), {}, "equally spaced"),
        ((None, None, TS, WAVE[:-1]), {}, "ts of shape"),
        ((None, None, TS[:9], WAVE[:9]), {}, "at least 16"),
        ((None, None, TS, np.where(TS > 2, np.nan, WAVE)), {}, "target holds"),
        ((None, None, TS, 0 * WAVE + 0.1), {}, "constant"),
        ((None, None, TS, np.random.default_rng(0).standard_normal(40)), {}, "no line stands out"),
        ((None, None, TS, WAVE), {"method": "magic"}, "one of least_squares, adam"),
        ((None, None, TS, WAVE), {"horizons": (0.5,)}, "end with 1"),
        ((None, None, TS, WAVE), {"neurons": 1}, "neurons = 1"),
        ((None, None, TS, WAVE), {"activation": jo.ReLU()}, "odd increasing"),
        ((PAIR, None, TS, WAVE), {}, "no y0"),
        ((PAIR, 0 * START, TS, WAVE), {}, "at rest"),
        ((PAIR, START, TS, WAVE), {"neurons": 2}, "says it already"),
        ((jo.RateRNN(PAIR.weight), START, TS, WAVE), {}, "same orbits"),
        ((jo.CurrentRNN(Unconstrained(jnp.eye(2))), START, TS, WAVE), {}, "skew one"),
        ((jo.CurrentRNN(PAIR.weight, leak=0.1), START, TS, WAVE), {}, "drive or leak"),
    ],
)
def test_refuses(arguments: tuple, options: dict, words: str) -> None:
    with pytest.raises(jo.JaxoscError, match=words):
        fit_waveform(*arguments, **options)


def test_refuses_times_before_the_data(pair: Waveform) -> None:
    for times, words in ((TS - 1, "before the waveform's t0"), (TS[::-1], "ascending"), (-1.0, "after t0")):
        with pytest.raises(jo.JaxoscError, match=words):
            pair.generate(times)


def test_hidden_skewness_is_taken() -> None:
    """The search moves d as well, which stays positive and keeps an energy."""
    weight = Symmetrizable.from_energy_weights(DenseSkew(jnp.array([3.0])), jnp.array([1.0, 2.0]))
    found = fit_waveform(jo.CurrentRNN(weight), START, TS, WAVE)
    assert found.error < 1e-2
    energy = jax.vmap(found.field.energy)(found.states(np.linspace(0, 400, 200)))
    np.testing.assert_allclose(energy, energy[0], rtol=1e-4)


class TestRead:
    def test_columns_and_header(self, tmp_path) -> None:
        path = tmp_path / "wave.csv"
        path.write_text("\ufefft, left, right\n# a remark\n0, 1, 2\n\n0.5, -1e-3, 4\n")
        ts, channels = read_waveform(path)
        np.testing.assert_array_equal(ts, [0, 0.5])
        np.testing.assert_array_equal(channels, [[1, 2], [-1e-3, 4]])
        path.write_text("0;1\n1;2\n")
        np.testing.assert_array_equal(read_waveform(str(path))[1], [[1], [2]])

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("t,x\n0,1\n1,oops\n", "'oops' in line 3, column 2"),
            ("0,1\n1,nan\n", "'nan' in line 2"),
            ("0,1\n1\n", "Got 1 columns in line 2"),
            ("0\n1\n", "at least one channel"),
            ("t,x\n", "header and no rows"),
            ("\n", "without a row"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path, text: str, words: str) -> None:
        path = tmp_path / "wave.csv"
        path.write_text(text)
        with pytest.raises(jo.JaxoscError, match=words):
            read_waveform(path)

    def test_no_file(self, tmp_path) -> None:
        with pytest.raises(jo.JaxoscError, match="cannot be read"):
            read_waveform(tmp_path / "none.csv")


@pytest.mark.slow
def test_three_noisy_sines_for_a_thousand_periods() -> None:
    """Ten periods of the slowest at 20,000 samples each and 20 dB: the bound is 2.1e-5 for it, a fifth of what is
    allowed. The free run lasts 1,000 periods of the slowest; its lines are found by another method, in each half.
    """
    for seed in range(5):
        ts, signal = three_sines(seed, 20_000)
        found = fit_waveform(None, None, ts, signal)
        assert found.readout.shape == (1, 6)
        free = np.arange(0, 1000, 1 / 20)
        played = np.asarray(found(free))
        halves = []
        for part in (slice(0, 10_000), slice(10_000, None)):
            lines = jo.orbits.frequency(free[part], played[part], count=3)
            order = np.argsort(np.asarray(lines.frequencies))
            halves.append((np.asarray(lines.frequencies)[order], np.asarray(lines.amplitudes)[order]))
            assert (np.abs(halves[-1][0] / THREE - 1) < 1e-4).all()
            assert (np.abs(halves[-1][0] / THREE - 1) < 4.5 * cramer_rao(20_000)).all()
        np.testing.assert_allclose(halves[0][0], halves[1][0], rtol=1e-9)
        np.testing.assert_allclose(halves[0][1], halves[1][1], rtol=1e-6)
        assert np.abs(played).max() < 3.3
