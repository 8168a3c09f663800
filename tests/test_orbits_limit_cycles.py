"""Limit cycles: the gallery against SciPy and its proof, pairs, basins, families, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rotation, skew
from scipy.integrate import solve_ivp
from scipy.stats import binomtest

import jaxosc as jo
from jaxosc.orbits.found_cycles import OUTCOMES, LimitCycle, LimitCycles, sorted_by_share
from jaxosc.weights import Symmetrizable

GALLERY = jo.orbits.gallery()
M = 48


@functools.cache
def found(name: str) -> LimitCycles:
    return jo.orbits.limit_cycles(GALLERY[name].field, starts=M, key=jax.random.key(7))


class Flow:
    """SciPy's view of y' = W tanh(y) - leak y."""

    def __init__(self, name: str) -> None:
        field = GALLERY[name].field
        self.matrix, self.leak = np.asarray(field.weight.matrix()), float(field.leak)

    def __call__(self, t: float, y: np.ndarray) -> np.ndarray:
        return self.matrix @ np.tanh(y) - self.leak * y

    def end(self, y0: np.ndarray, t1: float) -> np.ndarray:
        return solve_ivp(self, (0, t1), y0, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]

    def returned(self, y0: np.ndarray, normal: np.ndarray, offset: float, about: float) -> np.ndarray:
        """Where the orbit meets the section normal.y = offset after a turn of about the given time."""

        def event(t: float, y: np.ndarray) -> float:
            return normal @ y - offset

        event.terminal, event.direction = True, 1
        most = solve_ivp(self, (0, 0.9 * about), y0, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        run = solve_ivp(self, (0, 0.6 * about), most, "DOP853", rtol=1e-12, atol=1e-13, events=event)
        return run.y_events[0][0]


def return_multipliers(flow: Flow, cycle: LimitCycle) -> np.ndarray:
    """Eigenvalues of the return map on the section across the flow, by central differences, largest first."""
    velocity = flow(0.0, cycle.y0)
    normal = velocity / np.linalg.norm(velocity)
    frame = np.linalg.svd(normal[None])[2][1:].T
    step = 1e-4
    columns = []
    for direction in frame.T:
        ends = [
            flow.returned(cycle.y0 + sign * step * direction, normal, normal @ cycle.y0, cycle.period)
            for sign in (1, -1)
        ]
        columns.append(frame.T @ (ends[0] - ends[1]) / (2 * step))
    values = np.linalg.eigvals(np.array(columns).T)
    return values[np.argsort(-np.abs(values))]


def check_against_scipy(name: str) -> None:
    flow = Flow(name)
    for cycle in found(name):
        np.testing.assert_allclose(flow.end(cycle.y0, cycle.period), cycle.y0, atol=1e-8)  # Tsit5 at 0.05/|W|
        assert np.linalg.norm(flow.end(cycle.y0, cycle.period / 2) - cycle.y0) > 0.1
        np.testing.assert_allclose(cycle.multipliers[0], 1, atol=1e-8)
        # step^2 and the tolerance of SciPy over the step: 1e-8.
        np.testing.assert_allclose(cycle.multipliers[1:], return_multipliers(flow, cycle), atol=1e-6)


def check_gallery(name: str) -> None:
    example, result = GALLERY[name], found(name)
    assert example.name == name and len(result) == example.cycles
    for cycle in result:
        np.testing.assert_allclose(cycle.period, example.period, rtol=1e-8)
        np.testing.assert_allclose(np.abs(cycle.multipliers[1]), example.largest, atol=5e-5)
        assert cycle.stable and cycle.margin == pytest.approx(1 - example.largest, abs=5e-5)
        assert cycle.frequency == 1 / cycle.period


def check_basins(result: LimitCycles, m: int = M) -> None:
    """Every start has one outcome, and shares are those of the counts."""
    assert sum(result.counts.values()) == m and sum(result.shares.values()) == pytest.approx(1, abs=1e-12)
    assert set(result.counts) == set(OUTCOMES)
    assert sum(cycle.starts for cycle in result) == result.counts["limit_cycle"]
    np.testing.assert_array_equal(result.cycle_of >= 0, result.outcomes == "limit_cycle")
    for number, cycle in enumerate(result):
        assert cycle.starts == (result.cycle_of == number).sum() and cycle.share == cycle.starts / m
        assert cycle.interval[0] <= cycle.share <= cycle.interval[1]
    assert [c.starts for c in result] == sorted((c.starts for c in result), reverse=True)


class TestProven:
    """W = [[1.25, 2], [-2, 1.25]], leak 1: the theorem of the gallery, its numbers, and what the search finds."""

    def test_every_start_ends_on_the_one_cycle(self) -> None:
        check_gallery("proven")
        result = found("proven")
        check_basins(result)
        assert GALLERY["proven"].proven and result.counts["limit_cycle"] == M and result[0].mirror == 0
        for word in ("48 of 48 starts ended on one limit cycle", "period 3.950427", "its own mirror image", "0.2337"):
            assert word in repr(result)

    def test_scipy_agrees(self) -> None:
        check_against_scipy("proven")

    def test_it_turns_with_the_symmetry(self) -> None:
        """With y also (y_2, -y_1) is an orbit: the only cycle is a quarter of a turn later its own image."""
        cycle = found("proven")[0]
        quarter = Flow("proven").end(cycle.y0, cycle.period / 4)
        back, forth = np.array([cycle.y0[1], -cycle.y0[0]]), np.array([-cycle.y0[1], cycle.y0[0]])
        assert min(np.abs(quarter - back).max(), np.abs(quarter - forth).max()) < 1e-8

    def test_numbers_of_the_proof(self) -> None:
        ratio, wide = 0.8, np.linspace(1e-3, 3.0, 3000)
        g = np.tanh(wide) ** 2 - ratio * wide * np.tanh(wide)
        assert g.max() < 0.031 and g[wide >= 1.03].max() < -0.031
        assert np.arccosh(np.cosh(1.03) ** 2) < 1.57
        y = np.linspace(0.05, 1.57, 500)
        s, e = np.tanh(y), np.log(np.cosh(y))
        fall = (s * (1 + 2 * e) - y) / (np.sinh(y) * np.cosh(y) - y)
        assert (np.diff(fall) < 0).all() and fall[-1] > 0.24
        h = e * (2 - s**2) - s**2 - ratio * (2 * e - y * s)
        assert (h < 0).all()
        # The divergence of f/E itself, by the library's own field and automatic differentiation.
        field = GALLERY["proven"].field
        grid = jnp.stack(jnp.meshgrid(jnp.linspace(-1.57, 1.57, 60), jnp.linspace(-1.57, 1.57, 60)), -1).reshape(-1, 2)

        def divided(y: jax.Array) -> jax.Array:
            return field(0.0, y, None) / jnp.sum(jnp.log(jnp.cosh(y)))

        divergence = jax.vmap(lambda y: jnp.trace(jax.jacfwd(divided)(y)))(grid)
        assert float(divergence.max()) < 0


class TestPairs:
    def test_two_members_with_half_the_starts_each(self) -> None:
        check_gallery("pair_of_four")
        result = found("pair_of_four")
        check_basins(result)
        assert [cycle.mirror for cycle in result] == [1, 0]
        # The law of starts is symmetric: each share is 1/2. 99.9 % of all keys pass.
        assert binomtest(result[0].starts, M, 0.5).pvalue > 1e-3
        assert "mirror image of 1" in repr(result)

    def test_the_second_is_the_image_of_the_first(self) -> None:
        first, second = found("pair_of_four")
        flow, other = Flow("pair_of_four"), -first.y0
        turn = solve_ivp(flow, (0, first.period), other, "DOP853", rtol=1e-11, atol=1e-12, max_step=0.005)
        assert np.linalg.norm(turn.y.T - second.y0, axis=1).min() < 0.02
        own = solve_ivp(flow, (0, first.period), first.y0, "DOP853", rtol=1e-11, atol=1e-12, max_step=0.005)
        assert np.linalg.norm(own.y.T - second.y0, axis=1).min() > 0.3

    def test_an_image_that_no_start_found_is_there_as_well(self) -> None:
        result = found("pair_of_four")
        mine = result.starts[result.cycle_of == 0]
        starts = mine[np.arange(M) % len(mine)]
        again = jo.orbits.limit_cycles(GALLERY["pair_of_four"].field, starts=starts)
        assert [cycle.starts for cycle in again] == [M, 0] and [cycle.mirror for cycle in again] == [1, 0]
        assert again[1].interval[0] == 0.0

    def test_scipy_agrees(self) -> None:
        check_against_scipy("pair_of_four")


@pytest.mark.slow
class TestWithoutLeak:
    """The planar network of the gallery, one with families and one whose orbits escape: all of one compiled shape."""

    def test_planar(self) -> None:
        check_gallery("planar")
        result = found("planar")
        check_basins(result)
        assert result.counts["limit_cycle"] == M and not GALLERY["planar"].proven
        run = solve_ivp(
            Flow("planar"), (0, 7), result[0].y0, "DOP853", rtol=1e-12, atol=1e-13, events=lambda t, y: y[1]
        )
        np.testing.assert_allclose(np.abs(run.y_events[0][:, 0]), 1.50386316, atol=1e-8)
        check_against_scipy("planar")

    def test_time_reversal_makes_families(self) -> None:
        """[[0.4, 1], [-1, -0.4]] conserves nothing that is known, yet every orbit closes: no limit cycle."""
        field = jo.CurrentRNN(np.array([[0.4, 1.0], [-1.0, -0.4]]))
        result = jo.orbits.limit_cycles(field, starts=M, rounds=1, transient=100.0)
        assert len(result) == 0 and result.counts["family"] == M
        assert "come in families" in repr(result)

    def test_escape(self) -> None:
        field = jo.CurrentRNN(np.array([[0.4, 1.0], [-1.0, 0.3]]))
        result = jo.orbits.limit_cycles(field, starts=M)
        assert result.shares["escaped"] == 1 and "None of 48" in repr(result)
        check_basins(result)


@pytest.mark.slow
def test_a_cycle_beside_points_of_rest() -> None:
    check_gallery("beside_rest")
    result = found("beside_rest")
    check_basins(result)
    assert result.counts["limit_cycle"] + result.counts["fixed_point"] == M and result.counts["fixed_point"] > 0
    low, high = result.interval("fixed_point")
    assert low < 142 / 256 < high  # what 256 other starts gave
    flow = Flow("beside_rest")
    rest = result.ends[result.outcomes == "fixed_point"]
    assert max(np.linalg.norm(flow(0.0, y)) for y in rest) < 1e-4
    check_against_scipy("beside_rest")


@pytest.mark.slow
def test_float32_and_the_rate_form() -> None:
    """r' = sigma(W r) - leak r has the orbits of y = W r, which obeys y' = W sigma(y) - leak y."""
    matrix = np.array([[1.25, 2.0], [-2.0, 1.25]], np.float32)
    narrow = jo.orbits.limit_cycles(jo.CurrentRNN(matrix, leak=1.0), starts=M)
    rate = jo.orbits.limit_cycles(jo.RateRNN(matrix.astype(float), leak=1.0), starts=M)
    assert narrow[0].y0.dtype == np.float32 and [r.counts["limit_cycle"] for r in (narrow, rate)] == [M, M]
    np.testing.assert_allclose(narrow[0].period, GALLERY["proven"].period, rtol=1e-5)
    np.testing.assert_allclose(rate[0].period, GALLERY["proven"].period, rtol=1e-8)
    np.testing.assert_allclose(rate[0].multipliers[1], found("proven")[0].multipliers[1], atol=1e-7)


class TestStarts:
    def test_box_and_own_starts_and_keys(self) -> None:
        """Nothing runs: draws alone."""
        from jaxosc.orbits.limit_cycles import _drawn

        field = GALLERY["pair_of_four"].field
        box = np.asarray(_drawn(field, 500, "box", (0.1, 2.0), None))
        assert box.shape == (500, 4) and -2 < box.min() < -1.9 and 1.9 < box.max() < 2
        shell = np.linalg.norm(np.asarray(_drawn(field, 500, "shell", (0.1, 3.0), jax.random.key(1))), axis=1)
        assert shell.min() > 0.1 and shell.max() < 3 and abs(np.median(np.log(shell)) - np.log(0.3) / 2) < 0.3
        np.testing.assert_array_equal(_drawn(field, box, "shell", (0.1, 3.0), None), box)
        np.testing.assert_array_equal(
            np.asarray(_drawn(field, 5, "shell", (1, 2), None)),
            np.asarray(_drawn(field, 5, "shell", (1, 2), jax.random.key(0))),
        )


class TestShares:
    def test_sorting_moves_numbers_and_mirrors(self) -> None:
        bare = LimitCycle(np.zeros(2), 1.0, np.array([1, 0.5]), 0.0, 0.0)
        cycles = [dataclasses.replace(bare, mirror=1), dataclasses.replace(bare, mirror=0), bare]
        ordered, cycle_of = sorted_by_share(cycles, np.array([0, 1, 1, 2, 2, 2, -1]), 0.95)
        assert [cycle.starts for cycle in ordered] == [3, 2, 1] and [cycle.mirror for cycle in ordered] == [None, 2, 1]
        np.testing.assert_array_equal(cycle_of, [2, 1, 1, 0, 0, 0, -1])


class TestRefusals:
    def test_of_networks_without_limit_cycles(self) -> None:
        flat = np.outer([1.0, 2.0, 0.5], [1.0, 1.0, 0.2]) + np.outer([0.0, 1.0, 1.0], [0.3, 1.0, -1.0])
        batch = jo.CurrentRNN(np.stack([rotation(1.0) + np.eye(2)] * 2))
        for field, words in (
            (jo.CurrentRNN(rotation(1.0)), "skew and no leak.*periodic_orbit.*continue_family"),
            (jo.CurrentRNN(skew(4, 3) * np.array([1.0, 2.0, 0.5, 1.0])), "symmetrizable and no leak"),
            (jo.CurrentRNN(Symmetrizable.random(jax.random.key(0), 4)), "none is isolated"),
            (jo.RateRNN(rotation(1.0), bias=np.ones(2)), "skew and no leak"),
            (jo.CurrentRNN(flat), "rank 2 < 3"),
            (batch, "single one"),
            (jo.CurrentRNN(np.eye(2), drive=lambda t: jnp.ones(2)), "without drive"),
            (rotation(1.0), "jo.CurrentRNN or jo.RateRNN"),
        ):
            with pytest.raises(jo.JaxoscError, match=words):
                jo.orbits.limit_cycles(field)

    def test_of_options(self) -> None:
        field = GALLERY["planar"].field
        for options, words in (
            (dict(starts=0), "starts = 0"),
            (dict(starts=np.ones(2)), r"expected \(m, 2\)"),
            (dict(law="ball"), "expected one of shell, box"),
            (dict(radii=(3.0, 0.1)), "smaller and the larger"),
            (dict(dt=-1.0), "dt is -1"),
            (dict(rounds=0), "rounds = 0"),
            (dict(confidence=1.0), "confidence = 1"),
            (dict(solver="euler"), "expected an instance"),
        ):
            with pytest.raises(jo.JaxoscError, match=words):
                jo.orbits.limit_cycles(field, **options)

    def test_within_a_transformation(self) -> None:
        with pytest.raises(jo.JaxoscError, match="outside of JAX"):
            jax.jit(lambda w: jo.orbits.limit_cycles(jo.CurrentRNN(w)))(jnp.eye(2))

    def test_of_unknown_outcomes(self) -> None:
        with pytest.raises(jo.JaxoscError, match="expected one of"):
            found("proven").interval("periodic")
