"""Lines of a spectrum and mean rotations: against signals of known lines, and the period of the pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import pair_period, rotation

import jaxosc as jo
from jaxosc.solvers import PoissonSplitting
from jaxosc.weights import DenseSkew, RotationBlocks

PAIR = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)))
STARTS = np.array([[0.5, 0.3], [2.0, 1.0]])
FREQUENCIES = 1 / np.array([pair_period(start, 1.0) for start in STARTS])
TIMES = np.arange(4000) * 0.1
TWO_LINES = np.stack([np.cos(TIMES) + 0.1 * np.sin(np.sqrt(2) * TIMES), np.cos(TIMES + 1)], axis=-1)
LINES = np.array([1, np.sqrt(2)]) / (2 * np.pi)


class TestFrequency:
    # Over 400 units of time, 32 and 59 turns: what the method leaves beside the solver, order 8 here.
    @pytest.mark.parametrize(("method", "tolerance"), [("fft", 1e-13), ("birkhoff", 1e-9)])
    def test_of_the_pair(self, method: str, tolerance: float) -> None:
        options = dict(t1=400.0, dt=0.1, save_every=2, solver=PoissonSplitting(8))
        found = jo.orbits.frequency(PAIR, STARTS, method=method, **options)
        np.testing.assert_allclose(found.frequency, FREQUENCIES, rtol=tolerance)
        np.testing.assert_allclose(found.period, 1 / found.frequency)
        assert (np.abs(found.frequency - FREQUENCIES) <= found.error[..., 0]).all()
        assert (np.asarray(found.error) < 1e-7).all()
        single = jo.orbits.frequency(PAIR, STARTS[1], method=method, **options)
        np.testing.assert_allclose(single.frequency, found.frequency[1], rtol=1e-14)
        assert "+-" in repr(single) and "each of 2 orbits" in repr(found)

    def test_two_lines_and_their_amplitudes(self) -> None:
        found = jo.orbits.frequency(TIMES, TWO_LINES, count=2)
        # The weaker line is 26 bins away, where the window is down to 1e-9 of its top.
        np.testing.assert_allclose(found.frequencies, LINES, rtol=1e-11)
        np.testing.assert_allclose(found.amplitudes, [np.sqrt(2), 0.1], rtol=1e-8)

    def test_harmonics_of_a_closed_orbit(self) -> None:
        found = jo.orbits.frequency(PAIR, STARTS[1], t1=400.0, dt=0.1, solver=PoissonSplitting(8), count=3)
        np.testing.assert_allclose(found.frequencies, FREQUENCIES[1] * np.array([1, 3, 5]), rtol=1e-9)

    def test_mean_rotation_on_a_torus(self) -> None:
        field = jo.CurrentRNN(RotationBlocks.from_frequencies([0.1, 0.2 / np.sqrt(2)]), jo.Identity())
        found = jo.orbits.frequency(field, [3.0, 0, 1.0, 0], t1=600.0, dt=0.1, method="birkhoff")
        # The angle in the plane in which most happens is that of the larger circle.
        np.testing.assert_allclose(found.frequency, 0.1, rtol=1e-6)

    @pytest.mark.parametrize("method", ["fft", "birkhoff"])
    def test_gradient(self, method: str) -> None:
        """A gain g gives g times the frequency: samples spread by g in time see the very same states."""

        def simulated(stretch: jax.Array) -> jax.Array:
            times = jnp.asarray(TIMES) * stretch
            return jo.orbits.frequency(TIMES, jnp.stack([jnp.cos(times), jnp.sin(times)], -1), method=method).frequency

        np.testing.assert_allclose(jax.grad(simulated)(1.0), LINES[0], rtol=1e-9)

    def test_float32(self) -> None:
        found = jo.orbits.frequency(TIMES.astype(np.float32), TWO_LINES.astype(np.float32), count=2)
        assert found.frequencies.dtype == jnp.float32
        np.testing.assert_allclose(found.frequencies, LINES, rtol=2e-6)  # phases of 400 radians, rounded to 3e-5
        assert (np.abs(np.asarray(found.frequencies) - LINES) <= 2 * np.asarray(found.error)).all()

    @pytest.mark.parametrize(
        ("arguments", "options", "words"),
        [
            ((TIMES, TWO_LINES), dict(method="music"), "one of fft, birkhoff"),
            ((TIMES, TWO_LINES), dict(method="birkhoff", count=2), "expected 1"),
            ((TIMES[:9], TWO_LINES[:9]), dict(), "at least 32"),
            ((TIMES**1.1, TWO_LINES), dict(), "not equally spaced"),
            ((PAIR, STARTS), dict(dt=0.1), "expected both"),
        ],
    )
    def test_refuses(self, arguments: tuple, options: dict, words: str) -> None:
        with pytest.raises(jo.JaxoscError, match=words):
            jo.orbits.frequency(*arguments, **options)
