"""Verdicts on orbits: one clear case of each kind, members as in a batch, and what is said about them."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import pair_period, rotation, skew

import jaxosc as jo
from jaxosc.orbits import ORBITS, classify
from jaxosc.orbits.evidence import padded
from jaxosc.orbits.lines import independent_lines
from jaxosc.orbits.motion import watch
from jaxosc.orbits.verdicts import Rule
from jaxosc.weights import DenseSkew, RotationBlocks, Symmetrizable

CYCLE = np.array([[0.12, 2.0], [-1.0, -0.1]])

# Four neurons that are chaotic at |y| of some units and on tori below: known from a run of 10^4 turns.
FOUR = jo.CurrentRNN(DenseSkew.from_matrix(skew(4, 0)))


def lorenz(t, y, rho):
    """sigma = 10, beta = 8/3."""
    return jnp.stack([10 * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])


def dense(matrices):
    """The weights of skew matrices (count, n, n)."""
    return DenseSkew(jnp.asarray(matrices[..., *np.triu_indices(matrices.shape[-1], 1)]))


class TestKinds:
    def test_closed(self):
        """n = 2: rank 2; the period that was found on the way is that of the closed form."""
        found = classify(jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.3))), [1.0, -0.5])
        assert (found.kind, found.num_frequencies, found.confidence) == ("periodic", 1, 1.0)
        assert ORBITS[found.code] == "periodic"
        # A cubic through steps of 1/64 turn, and a solver of order 4.
        assert found.period == pytest.approx(pair_period((1.0, -0.5), 1.3), rel=1e-7)
        assert "rank 2" in found.reason

    def test_limit_cycle_and_rest(self):
        """The cycle attracts from outside and inside; only zero stays where it is."""
        found = classify(jo.CurrentRNN(CYCLE), np.array([[3.0, 1.0], [0.01, 0.0], [0.0, 0.0]]))
        assert list(found.kind) == ["periodic", "periodic", "fixed_point"]
        assert found.period[0] == pytest.approx(found.period[1], rel=1e-5)  # the tolerance of a return
        assert "came back" in found.reason[0] and "at rest" in found.reason[2]
        assert list(found.disagreement) == ["", "", ""]

    @pytest.mark.slow
    def test_torus_with_its_frequencies(self):
        weight = RotationBlocks(jnp.asarray([[1.0, 0.618], [1.4, 0.9]]))
        found = classify(jo.CurrentRNN(weight), np.array([[1.0, 0.2, -0.5, 1.5], [0.3, 1.0, 1.2, 0.0]]))
        assert list(found.kind) == ["quasi_periodic"] * 2
        assert list(found.num_frequencies) == [2, 2]
        assert np.all(found.miss > 1e-4) and np.all(np.abs(found.megno - 2) < 0.3)
        assert "MEGNO" in found.reason[0] and "GALI_2 1e-" in found.reason[0]

    def test_order_and_chaos_of_one_network(self):
        found = classify(FOUR, np.array([[0.05, 0.02, -0.04, 0.03], [6.0, -5.0, 4.0, 3.0]]), lines=False)
        assert list(found.kind) == ["quasi_periodic", "chaotic"]
        assert found.exponent[1] > 10 * found.exponent[0]

    def test_rest_escape_and_a_straight_line(self):
        """ReLU pairs: off is rest; else they end up moving straight. y' = W y outward escapes at once."""
        relu = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)), jo.ReLU())
        found = classify(relu, np.array([[-1.0, -2.0], [1.0, 0.5]]))
        assert list(found.kind) == ["fixed_point", "escaping"]
        assert "straight" in found.reason[1]
        outward = classify(jo.CurrentRNN(rotation(1.0) + 0.2 * np.eye(2), jo.Identity()), [0.1, 0.0])
        assert outward.kind == "escaping" and outward.result == jo.Result.escaped

    def test_slow_escape_of_a_saturated_network(self):
        """tanh with a positive symmetric part: the norm grows like t and never passes `escape_norm`."""
        found = classify(jo.CurrentRNN(rotation(1.0) + 0.2 * np.eye(2)), [0.1, 0.0])
        assert found.kind == "escaping" and found.result == jo.Result.successful

    def test_collapse(self):
        """By theory where a conservative network leaks, by the run where a symmetric part takes energy."""
        leaky = classify(jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)), leak=1e-6), [1.0, 0.0])
        assert leaky.kind == "collapsing" and "leak" in leaky.reason
        damped = classify(jo.CurrentRNN(rotation(1.0) - 0.05 * np.eye(2)), [1.0, 0.0])
        assert damped.kind == "collapsing" and "fell" in damped.reason

    def test_rest_away_from_zero(self):
        field = jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.0)), bias=jnp.asarray([0.3, -0.2]), leak=0.2)
        found = classify(field, [2.0, 1.0])
        assert found.kind == "fixed_point" and "come to rest" in found.reason

    @pytest.mark.parametrize(("rho", "kind"), [(28.0, "chaotic"), (10.0, "fixed_point"), (0.5, "collapsing")])
    def test_functions(self, rho, kind):
        found = classify(lorenz, [1.0, 2.0, 3.0], dt=0.01, args=rho)
        assert found.kind == kind
        if kind == "chaotic":
            assert found.exponent == pytest.approx(0.9056, rel=0.2)  # of one orbit over 300 turns

    def test_hidden_skewness_of_a_plain_matrix(self):
        """W = S diag(d) in an `Unconstrained` weight counts as bound, and n = 3 closes."""
        w = skew(3, 2) * np.array([0.5, 1.0, 2.0])
        found = classify(jo.CurrentRNN(w), [1.0, 0.3, -0.7])
        assert found.kind == "periodic" and "rank 2" in found.reason
        assert found.miss < 1e-6
        same = Symmetrizable.from_energy_weights(DenseSkew.from_matrix(skew(3, 2)), [0.5, 1.0, 2.0])
        assert classify(jo.CurrentRNN(same), [1.0, 0.3, -0.7]).period == pytest.approx(found.period, rel=1e-6)

    def test_rate_form_is_judged_by_its_activity(self):
        """y = W r + b of the tanh pair."""
        bias, w = np.array([0.2, -0.5]), rotation(1.1)
        r = np.linalg.solve(w, np.array([1.2, 0.4]) - bias)
        found = classify(jo.RateRNN(DenseSkew.from_matrix(w), bias=bias), r)
        assert found.kind == "periodic"
        assert found.period == pytest.approx(pair_period((1.2, 0.4), 1.1), rel=1e-7)


class TestWays:
    def test_a_batch_is_its_members_one_by_one(self):
        """Networks of very different speed and kind in one batch."""
        matrices = np.stack([gain * skew(3, seed) for seed, gain in ((1, 1.0), (2, 30.0), (3, 0.01), (4, 1.0))])
        leak = jnp.asarray([0.0, 0.0, 1e-3, 0.0])
        field = jo.CurrentRNN(dense(matrices), leak=leak)
        # The last one rests: tanh y is in the kernel of W.
        resting = np.arctanh(np.array([matrices[3, 1, 2], -matrices[3, 0, 2], matrices[3, 0, 1]]) / 2)
        starts = np.array([[1.0, 0.5, -0.3], [6.0, 2.0, 1.0], [1.0, 1.0, 0.0], resting])
        batch = classify(field, starts)
        assert list(batch.kind) == ["periodic", "periodic", "collapsing", "fixed_point"]
        for k in range(4):
            one = classify(jo.CurrentRNN(dense(matrices[k]), leak=float(leak[k])), starts[k])
            assert one.kind == batch.kind[k]
            if one.kind == "periodic":
                assert one.period == pytest.approx(batch.period[k], rel=1e-6)
        assert batch.turn[0] > 5 * batch.turn[1]  # 30 times the gain, at a larger amplitude

    def test_pairing_and_axes(self):
        field = jo.CurrentRNN(dense(np.stack([skew(2, 1), 2 * skew(2, 1)])))
        starts = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]])
        found = classify(field, starts, pairing="product")
        assert found.kind.shape == found.period.shape == found.reason.shape == (2, 3)
        np.testing.assert_allclose(found.period[0], 2 * found.period[1], rtol=1e-6)
        assert "6 orbits" in repr(found) and "6 periodic" in repr(found)

    @pytest.mark.slow
    def test_float32_agrees(self):
        weight = RotationBlocks(jnp.asarray([[1.0, 0.618], [1.4, 0.9]], jnp.float32))
        starts = np.array([[1.0, 0.2, -0.5, 1.5], [0.3, 1.0, 1.2, 0.0]], np.float32)
        found = classify(jo.CurrentRNN(weight), starts)
        assert found.megno.dtype == np.float64 and list(found.kind) == ["quasi_periodic"] * 2
        assert list(found.num_frequencies) == [2, 2]
        cycle = classify(jo.CurrentRNN(CYCLE.astype(np.float32)), np.array([3.0, 1.0], np.float32))
        assert cycle.kind == "periodic"

    def test_speaks_of_one(self):
        text = repr(classify(jo.CurrentRNN(DenseSkew.from_matrix(rotation(1.3))), [1.0, -0.5]))
        assert text.startswith("Classification(periodic, confidence 1.00: W has rank 2")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (dict(y0=np.ones(3)), "n = 2"),
            (dict(y0=np.array([np.nan, 1.0])), "NaN"),
            (dict(periods=0), "periods is 0"),
            (dict(longer=-1), "longer = -1"),
            (dict(dt=-0.1), "dt is -0.1"),
            (dict(solver="tsit5"), "expected an instance"),
            (dict(pairing="all"), "pairing"),
            (dict(field=lorenz, y0=np.ones(3)), "without dt"),
            (dict(field=3.0, dt=0.1), "expected a jo.CurrentRNN"),
            (dict(field=jo.CurrentRNN(rotation(1.0), drive=lambda t: jnp.ones(2) * t)), "driven"),
        ],
    )
    def test_refuses(self, change, words):
        options = dict(field=jo.CurrentRNN(rotation(1.0)), y0=np.ones(2)) | change
        with pytest.raises(jo.JaxoscError, match=words):
            classify(options.pop("field"), options.pop("y0"), **options)

    def test_refuses_to_be_traced(self):
        field = jo.CurrentRNN(rotation(1.0))
        with pytest.raises(jo.JaxoscError, match="outside of jax"):
            jax.jit(lambda y: classify(field, y).code)(jnp.ones(2))


class TestParts:
    def test_batch_sizes_are_few(self):
        assert {padded(count, 1000) for count in range(1, 1001)} == {16, 125, 1000}
        assert all(padded(count, 1000) >= count for count in range(1, 1001))
        assert padded(1, 30) == 30

    def test_watch_of_a_circle(self):
        """y' = W y: mean 0, size and spread the radius, speed omega times it, and a return after every period."""

        def circle(t, y, args):
            return 2.0 * jnp.stack([y[1], -y[0]])

        steps = 64 * 10 + 32
        solver = diffrax.Tsit5()
        close = jnp.asarray([1e-5, 0.0])
        x0 = jnp.asarray([[3.0, 1.0], [0.0, 1.0]])
        found = jax.jit(lambda x0, n: watch(circle, x0, solver, None, 0.0, np.pi / 64, n, close, 1e6))(x0, steps)
        np.testing.assert_allclose(found.first_hit[0], np.pi, rtol=1e-8)
        assert list(found.hits) == [10, 0]
        np.testing.assert_allclose(found.size, [3, np.sqrt(2)], rtol=1e-7)  # what Tsit5 loses
        np.testing.assert_allclose(found.speed, 2 * found.size, rtol=1e-7)
        np.testing.assert_allclose(found.largest, found.size, rtol=1e-7)
        assert np.all(found.miss < 1e-6)
        # Half a turn more than whole ones: the mean is off by a diameter over the length.
        assert np.all(np.abs(found.spread / found.size - 1) < 1e-3)

    @pytest.mark.parametrize(("frequencies", "wanted"), [((1.0,), 1), ((1.0, 0.618), 2), ((1.0, 2.0), 1)])
    def test_lines(self, frequencies, wanted):
        """Known sums of waves, with a combination of order 3 where there are two."""
        t = np.arange(4096) / 16
        waves = [np.cos(2 * np.pi * f * t + k) / (k + 1) for k, f in enumerate(frequencies)]
        mixed = np.cos(2 * np.pi * (2 * frequencies[0] - frequencies[-1]) * t) / 5
        assert independent_lines(np.stack([sum(waves) + mixed, waves[0]], axis=-1)[None], 4) == [wanted]

    def test_every_rule_has_a_kind_and_a_sentence(self):
        from jaxosc.orbits.reasons import SENTENCES
        from jaxosc.orbits.verdicts import CODE_OF, KINDS

        assert set(SENTENCES) == set(KINDS) == set(Rule)
        assert {ORBITS[code] for code in CODE_OF} == set(ORBITS)
