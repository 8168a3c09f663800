"""The choice of a law on made-up series."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxosc.audit.fits import BOUNDED, EXACT, EXPONENTIAL, LINEAR, SETTLING, SQRT, Series, fit
from jaxosc.audit.laws import exact_law, law_of, law_of_distance, rounding_bound


class TestLaws:
    """The choice of a law on series that are made up: what the engine cannot be asked for a thousand times."""

    times = np.linspace(0.5, 63.5, 64)

    def series(self, means: np.ndarray, swing: float = 1e-3, relative: bool = True) -> Series:
        return Series(self.times, means, 1.0 if relative else 0.0, swing, relative)

    def share(self, verdict: str, make: Callable[[np.random.Generator], Series], draws: int) -> float:
        return float(np.mean([law_of(make(np.random.default_rng(seed))).verdict == verdict for seed in range(draws)]))

    def test_a_wander_is_bounded(self) -> None:
        """Red noise with memories from one window to a third of the run, as large as the oscillation."""

        def wander(memory: float) -> Callable[[np.random.Generator], Series]:
            def make(rng: np.random.Generator) -> Series:
                kept = np.exp(-1 / memory)
                values = [rng.standard_normal()]
                for _ in self.times[1:]:
                    values.append(kept * values[-1] + np.sqrt(1 - kept**2) * rng.standard_normal())
                return self.series(1 + 3e-4 * np.array(values))

            return make

        # A wander with a memory of a third of the run looks like a drift now and then; it never may often.
        for memory, least in ((1.0, 1.0), (5.0, 0.95), (20.0, 0.85)):
            assert self.share(BOUNDED, wander(memory), 20) >= least

    @pytest.mark.parametrize("slow", [0.7, 1.5, 4.0])
    def test_a_beat_is_bounded(self, slow: float) -> None:
        """Slow oscillations of 0.7 turns a run and more, of a third of the fast one's size."""
        phases = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        laws = [law_of(self.series(1 + 3e-4 * np.cos(2 * np.pi * slow * self.times / 64 + p))) for p in phases]
        assert [law.verdict for law in laws] == [BOUNDED] * 12

    @pytest.mark.parametrize(
        ("verdict", "curve"),
        [
            (LINEAR, lambda u: 1 + 0.02 * u),
            (LINEAR, lambda u: 1 - 0.5 * u),
            (LINEAR, lambda u: 1 + 30 * u),
            (SQRT, lambda u: 1 + 5 * np.sqrt(u)),
            (SQRT, lambda u: np.sqrt(1 + 400 * u)),
            (EXPONENTIAL, lambda u: np.exp(3 * u)),
            (EXPONENTIAL, lambda u: np.exp(-20 * u)),
            (EXPONENTIAL, lambda u: 0.3 + 0.7 * np.exp(-3 * u)),
        ],
    )
    def test_a_drift_is_named(self, verdict: str, curve: Callable[[np.ndarray], np.ndarray]) -> None:
        """With a scatter of two per mille of the quantity from window to window."""

        def make(rng: np.random.Generator) -> Series:
            clean = curve(self.times / 64)
            return self.series(clean * (1 + 2e-3 * rng.standard_normal(64)))

        assert self.share(verdict, make, 6) == 1.0

    @pytest.mark.parametrize(
        ("name", "curve"),
        [
            (LINEAR, lambda t: 1 + 0.2 * t),
            (SQRT, lambda t: 1 + 0.2 * np.sqrt(t)),
            (EXPONENTIAL, lambda t: 2 * np.exp(0.05 * t)),
            (SETTLING, lambda t: 0.5 + 3 * np.exp(-1.5 * (t - 0.5) / 63)),  # the slowest rate that is offered
        ],
    )
    def test_a_law_fits_itself(self, name: str, curve: Callable[[np.ndarray], np.ndarray]) -> None:
        series = self.series(curve(self.times))
        assert fit(series, name)(2 * self.times) == pytest.approx(curve(2 * self.times), rel=1e-9)

    def test_a_signed_quantity_drifts_too(self) -> None:
        law = law_of(self.series(-1e-3 * self.times, relative=False))
        assert (law.verdict, law.confidence) == (LINEAR, 1.0)
        assert law.rate == pytest.approx(-1e-3, rel=1e-6)

    def test_rounding_is_told_from_a_small_error_by_when_it_comes(self) -> None:
        steps = np.arange(1.0, 100_001.0, 33.0)
        bound = rounding_bound(steps, 2, 2.2e-16)
        assert bound[-1] < 2e-11
        walk = 2.2e-16 * np.sqrt(steps)
        assert exact_law(walk, bound, 1e4).verdict == EXACT
        assert exact_law(walk, bound, 1e4).confidence == 1.0
        assert exact_law(np.full_like(steps, 1e-12), bound, 1e4) is None  # smaller than the walk may be, but at once

    @pytest.mark.parametrize(("power", "verdict"), [(0.05, BOUNDED), (0.5, SQRT), (1.0, LINEAR), (2.0, LINEAR)])
    def test_distances_have_powers(self, power: float, verdict: str) -> None:
        law = law_of_distance(self.times, 1e-9 * self.times**power)
        assert (law.verdict, law.confidence) == (verdict, 1.0)
        assert law.exponent == pytest.approx(power, abs=1e-6)

    def test_distances_in_chaos_grow_exponentially(self) -> None:
        law = law_of_distance(self.times, 1e-15 * np.exp(0.5 * self.times))
        assert law.verdict == EXPONENTIAL
        assert law.rate == pytest.approx(0.5, rel=1e-6)
