"""Shares of chaotic orbits are counts of the data, and their intervals are SciPy's."""

import numpy as np
import pytest
import xarray
from scipy.stats import binom, binomtest
from synthetic import synthetic_atlas

import jaxosc as jo
from jaxosc.sweeps import chaotic_shares, wilson_interval

CHAOTIC, QUASI, PERIODIC, ESCAPING, UNDECIDED = 3, 2, 1, 4, 6


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_wilson_intervals_are_scipys(confidence):
    for m in (1, 7, 64):
        low, high = wilson_interval(np.arange(m + 1), m, confidence)
        for k in range(m + 1):
            truth = binomtest(k, m).proportion_ci(confidence, method="wilson")
            # Roundings; SciPy's own ends at 0 and 1 miss them by 1e-17.
            assert (low[k], high[k]) == pytest.approx((truth.low, truth.high), rel=1e-12, abs=1e-15)


def test_wilson_intervals_end_at_none_and_all_and_open_without_trials():
    low, high = wilson_interval([0, 5, 0], [5, 5, 0])
    assert (low[0], high[1], low[2], high[2]) == (0, 1, 0, 1)
    assert 0 < high[0] < 1 and 0 < low[1] < 1
    assert wilson_interval(np.zeros((2, 1)), np.ones(3))[0].shape == (2, 3)


@pytest.mark.parametrize("m", [16, 64])
def test_wilson_intervals_cover_as_often_as_they_say(m):
    k, share = np.arange(m + 1), np.linspace(0, 1, 2001)[1:-1]
    low, high = (end[:, None] for end in wilson_interval(k, m))
    covered = np.sum(binom.pmf(k[:, None], m, share) * ((low <= share) & (share <= high)), axis=0)
    assert covered.mean() == pytest.approx(0.95, abs=0.005)  # the docstring's bounds
    assert covered.min() > 0.83
    middle = covered[(share > 0.05) & (share < 0.95)]
    assert middle.min() > 0.91 and middle.max() < 0.99


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "words"),
    [
        (-1, 3, 0.95, "successes = -1"),
        (4, 3, 0.95, "successes <= trials"),
        (np.nan, 3, 0.95, "count both again"),
        (1, np.inf, 0.95, "count both again"),
        (1, 3, 95, "confidence = 95"),
        (1, 3, 0.0, "between 0 and 1"),
    ],
)
def test_wilson_says_what_is_wrong(successes, trials, confidence, words):
    with pytest.raises(jo.JaxoscError, match=words):
        wilson_interval(successes, trials, confidence)


def small(codes) -> xarray.Dataset:
    """An atlas of four cells, each with the draws of a row of `codes` in turn."""
    data = synthetic_atlas(activation=("tanh",), weight_law=("dense_skew",), neurons=(3, 8), draws=8)
    data["orbit"].values[...] = np.asarray(codes, "i1").reshape(data["orbit"].shape)
    return data


def test_shares_are_counts_of_decided_orbits():
    shares = chaotic_shares(
        small(
            [
                [PERIODIC] * 8,
                [CHAOTIC] * 3 + [QUASI] * 3 + [UNDECIDED, ESCAPING],
                [CHAOTIC] * 4 + [-1] * 4,
                [UNDECIDED] * 8,
            ]
        )
    ).squeeze()
    assert shares.share.dims == ("neurons", "energy")
    np.testing.assert_array_equal(shares.share, [[0, 0.5], [1, np.nan]])
    np.testing.assert_array_equal(shares.decided, [[8, 6], [4, 0]])
    np.testing.assert_array_equal(shares.undecided, [[0, 0.25], [0, 1]])
    low, high = wilson_interval([[0, 3], [4, 0]], [[8, 6], [4, 0]])
    np.testing.assert_array_equal(shares.low, low)
    np.testing.assert_array_equal(shares.high, high)
    assert shares.energy.values.tolist() == [0.1, 3.0]
    assert "95 %" in shares.low.attrs["long_name"] and "flag_values" not in shares.decided.attrs


def test_cells_without_a_computed_orbit_say_nothing():
    shares = chaotic_shares(small([[-1] * 8] * 4), confidence=0.5)
    for name, value in (("share", np.nan), ("undecided", np.nan), ("decided", 0), ("low", 0), ("high", 1)):
        np.testing.assert_array_equal(shares[name], np.full(shares.share.shape, value), err_msg=name)
    assert "50 %" in shares.high.attrs["long_name"]


def test_all_dimensions_but_the_members_stay():
    data = synthetic_atlas(draws=8)
    shares = chaotic_shares(data)
    assert set(shares.sizes) == set(data.sizes) - {"draw", "ic"}
    here = dict(activation="softsign", weight_law="bipartite", neurons=8, energy=3.0)
    orbit = data.orbit.sel(here).values
    decided = np.isin(orbit, [PERIODIC, QUASI, CHAOTIC])
    found = shares.sel(here).squeeze()
    assert float(found.share) == pytest.approx(np.sum(orbit == CHAOTIC) / np.sum(decided), rel=1e-15)


def test_chaotic_shares_say_what_is_wrong():
    data = synthetic_atlas(draws=4)
    with pytest.raises(jo.JaxoscError, match="expected a sweep's"):
        chaotic_shares(data.drop_vars("orbit"))
    with pytest.raises(jo.JaxoscError, match=r"2 starts .* dataset\.isel\(ic=\[0\]\)"):
        chaotic_shares(xarray.concat([data, data.assign_coords(ic=[1])], "ic"))
    renamed = data.assign(orbit=data.orbit.assign_attrs(flag_values=[0, 1], flag_meanings="good bad"))
    with pytest.raises(jo.JaxoscError, match="words good, bad, expected chaotic"):
        chaotic_shares(renamed)
    with pytest.raises(jo.JaxoscError, match="confidence = 2"):
        chaotic_shares(data, confidence=2)
