"""Verdicts on W: rates on random matrices of every kind, the certificate, special cases, and the words."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import skew
from scipy.integrate import solve_ivp
from scipy.sparse.csgraph import connected_components

import jaxosc as jo
from jaxosc.structure.reversal import time_reversal

PER_SIZE = 67  # 15 sizes, n = 2..16: 1,005 matrices of each kind


def skews(generator, n):
    part = generator.standard_normal((n, n))
    return part - part.T


def weights(generator, n):
    """Four decades."""
    return 10 ** generator.uniform(-2, 2, n)


def sparse(generator, n):
    """A skew matrix of few entries, mostly disconnected, never zero."""
    kept = np.triu(generator.random((n, n)) < 1.5 / n, 1)
    kept[0, generator.integers(1, n)] = True
    return skews(generator, n) * (kept + kept.T)


def similar(generator, core, least=1, most=100):
    """T core T^-1, the condition of T log-uniform from `least` to `most`."""
    n = len(core)
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in range(2))
    spread = np.concatenate([[0.0, 1.0], generator.random(n - 2)])
    T = left * np.exp(spread * generator.uniform(np.log(least), np.log(most))) @ right
    return T @ core @ np.linalg.inv(T)


def rotation(omega):
    return np.array([[0.0, omega], [-omega, 0.0]])


def repeated(generator, n):
    """Few frequencies, each several times, and directions at rest."""
    core, frequencies = np.zeros((n, n)), generator.uniform(0.3, 3, max(n // 4, 1))
    for k in range(n // 2):
        if k == 0 or generator.random() < 0.8:
            core[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = rotation(generator.choice(frequencies))
    return core


def defective(generator, n):
    """A Jordan block of 2 or 3, of a pair +-i omega or of 0, beside a skew block."""
    block = np.eye(2) * 0 if generator.random() < 0.3 or n < 4 else rotation(generator.uniform(0.3, 3))
    length = 3 if generator.random() < 0.5 and n >= 6 else 2
    if not block.any():
        block = np.zeros((1, 1))
    size = len(block)
    core = np.zeros((n, n))
    for k in range(length):
        core[k * size : (k + 1) * size, k * size : (k + 1) * size] = block
        if k:
            core[(k - 1) * size : k * size, k * size : (k + 1) * size] = np.eye(size)
    rest = n - length * size
    core[n - rest :, n - rest :] = skews(generator, rest)
    return core


MAKERS = {
    "skew": ("skew", skews),
    "S D": ("symmetrizable", lambda g, n: skews(g, n) * weights(g, n)),
    "D1 S D2": ("symmetrizable", lambda g, n: weights(g, n)[:, None] * skews(g, n) * weights(g, n)),
    "sparse S D": ("symmetrizable", lambda g, n: sparse(g, n) * weights(g, n)),
    "T S T^-1": ("linear_centre", lambda g, n: similar(g, skews(g, n))),
    "T S T^-1, repeated": ("linear_centre", lambda g, n: similar(g, repeated(g, n))),
    "Gaussian": ("none", lambda g, n: g.standard_normal((n, n))),
    "defective": ("none", lambda g, n: similar(g, defective(g, n))),
}


def rate(name, dtype):
    """The share of right verdicts, batch by batch."""
    kind, make = MAKERS[name]
    generator = np.random.default_rng(list(MAKERS).index(name))
    batches = [np.array([make(generator, n) for _ in range(PER_SIZE)]) for n in range(2, 17)]
    return float(np.mean([np.mean(jo.structure(batch.astype(dtype)).kind == kind) for batch in batches]))


@pytest.mark.parametrize("name", MAKERS)
def test_every_matrix_is_judged_right_in_float64(name):
    assert rate(name, np.float64) == 1.0


@pytest.mark.parametrize("name", MAKERS)
def test_nearly_every_matrix_is_judged_right_in_float32(name):
    # Rounding to float32 puts T S T^-1 next to a defective matrix now and then; then nobody can tell.
    assert rate(name, np.float32) >= 0.98


def normalised(d, matrix):
    """d over its geometric mean on each connected component of the matrix."""
    count, labels = connected_components(matrix != 0, directed=False)
    log_d = np.log(d)
    for k in range(count):
        log_d[labels == k] -= log_d[labels == k].mean()
    return np.exp(log_d)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-8), (np.float32, 1e-5)])
@pytest.mark.parametrize("part", [skews, sparse])
def test_energy_weights_are_recovered(part, dtype, tolerance):
    """W = D1 S D2 is (D1 S D1) D2/D1."""
    generator = np.random.default_rng(8)
    for n in (2, 3, 8, 16):
        S = np.array([part(generator, n) for _ in range(50)])
        left, right = (np.array([weights(generator, n) for _ in range(50)]) for _ in range(2))
        verdict = jo.structure((left[:, :, None] * S * right[:, None, :]).astype(dtype))
        assert (verdict.kind == "symmetrizable").all()
        expected = [normalised(d, matrix) for d, matrix in zip(right / left, S, strict=True)]
        np.testing.assert_allclose(verdict.d, expected, rtol=tolerance)
        rebuilt = verdict.matrix / verdict.d[:, None, :]
        np.testing.assert_allclose(rebuilt, -np.swapaxes(rebuilt, 1, 2), rtol=tolerance)


def test_the_energy_of_the_certificate_is_conserved():
    generator = np.random.default_rng(9)
    W = skews(generator, 5) / 3 * np.array([0.3, 2.0, 1.0, 0.5, 4.0])
    d = jo.structure(W).d
    run = solve_ivp(lambda t, y: W @ np.tanh(y), (0, 30), generator.standard_normal(5), rtol=1e-11, atol=1e-11)
    energies = d @ np.log(np.cosh(run.y))
    assert np.abs(run.y[:, -1] - run.y[:, 0]).max() > 0.3
    np.testing.assert_allclose(energies, energies[0], rtol=1e-8)  # 1e-11 a step, some hundred steps
    unweighted = np.log(np.cosh(run.y)).sum(axis=0)
    assert np.ptp(unweighted) > 0.01 * unweighted[0]


GALLERY = {
    "zero": (np.zeros((3, 3)), "skew", 3),
    "one neuron at rest": ([[0.0]], "skew", 1),
    "one neuron": ([[-2.0]], "none", 0),
    "pair": (rotation(2.0), "skew", 0),
    "uncoupled neuron": (np.pad(rotation(1.0), (0, 1)), "skew", 1),
    "whole numbers": ([[0, 2], [-1, 0]], "symmetrizable", 0),
    "one way": ([[0.0, 1.0], [0.0, 0.0]], "none", 1),
    "same sign": ([[0.0, 1.0], [2.0, 0.0]], "none", 0),
    "reversible": ([[0.4, 1.0], [-1.0, -0.4]], "linear_centre", 0),
    "not reversible": ([[0.4, 1.5], [-1.0, -0.4]], "linear_centre", 0),
    "limit cycle": ([[0.12, 2.0], [-1.0, -0.1]], "none", 0),
    "cycle that does not close": ([[0, 1, 1], [-1, 0, 1], [-1, -2, 0]], "none", 0),
    "two blocks": (np.kron(np.eye(2), rotation(1.0)) * [1, 2, 1e6, 3e6], "symmetrizable", 0),
    "tiny": (1e-200 * rotation(1.0) * [1, 2], "symmetrizable", 0),
    "huge": (1e200 * rotation(1.0) * [1, 2], "symmetrizable", 0),
}


@pytest.mark.parametrize("name", GALLERY)
def test_gallery(name):
    W, kind, casimirs = GALLERY[name]
    verdict = jo.structure(W)
    assert (verdict.kind, verdict.casimirs) == (kind, casimirs)
    assert verdict.conservative is (kind in ("skew", "symmetrizable"))
    assert np.isfinite(verdict.d).all() == verdict.conservative
    expected = np.linalg.eigvals(np.asarray(W, float))
    np.testing.assert_allclose(np.sort(verdict.eigenvalues.imag), np.sort(expected.imag), rtol=1e-12, atol=1e-12)
    assert verdict.reason in str(verdict).replace("\n    ", " ")


def test_a_skew_matrix_with_rounding_is_skew():
    S, T = skew(6, 1), np.random.default_rng(0).standard_normal((6, 6))
    for W in (T @ S @ T.T, (T.astype(np.float32) @ S.astype(np.float32) @ T.T.astype(np.float32))):
        verdict = jo.structure(W)
        assert verdict.kind == "skew"
        assert 0 < verdict.residual <= verdict.tolerance
        assert (verdict.eigenvalues.real == 0).all()
        assert (verdict.d == 1).all()
    assert jo.structure(np.float32(T @ S @ T.T).astype(np.float64) + 1e-7 * np.eye(6)).kind == "none"
    assert jo.structure(skew(6, 1) + 1e-7 * np.eye(6), tolerance=1e-6).kind == "skew"


def test_units_of_the_neurons_do_not_matter():
    """D W D^-1 is the same network in other units, here over eight decades."""
    generator = np.random.default_rng(11)
    for name, (kind, make) in MAKERS.items():
        W = np.array([make(generator, 6) for _ in range(50)])
        units = 10 ** generator.uniform(-4, 4, (50, 6))
        found = jo.structure(W * units[:, :, None] / units[:, None, :]).kind
        assert set(found) == {"symmetrizable" if kind == "skew" else kind}, name


def test_badly_conditioned_centres():
    """Eigenvalues are off the axis by more than the tolerance; the change of W that brings them back is not."""
    generator = np.random.default_rng(12)
    verdict = jo.structure([similar(generator, skews(generator, 5), 1e4, 1e5) for _ in range(100)])
    off_axis = np.abs(verdict.eigenvalues.real).max(axis=1) / np.linalg.norm(verdict.matrix, axis=(1, 2))
    assert np.median(off_axis) > verdict.tolerance
    assert (verdict.kind == "linear_centre").all()


def test_small_entries_are_not_trusted():
    """Noise of rounding is all of W's own size; weights along entries of 1e-9 would carry it a billionfold."""
    generator, d = np.random.default_rng(13), np.array([1, 2, 0.5, 4, 0.25, 1])
    size = np.ones((6, 6))
    size[0, 2:] = size[2:, 0] = 1e-9
    W = skews(generator, 6) * size * d + 1e-16 * generator.standard_normal((6, 6))
    verdict = jo.structure(W)
    assert verdict.kind == "symmetrizable"
    np.testing.assert_allclose(verdict.d, normalised(d, W), rtol=1e-12)


class TestTrend:
    """What the symmetric part says, against the energy's own derivative."""

    @pytest.mark.parametrize(
        ("shift", "words"), [(-0.1, "every orbit collapses"), (0.1, "every orbit escapes"), (0.0, None)]
    )
    def test_definite(self, shift, words):
        W = skew(4, 2) * ([1, 2, 3, 4] if shift else 1) + shift * np.eye(4)
        verdict = jo.structure(W)
        assert verdict.kind == ("none" if shift else "skew")
        assert any(words in told for told in verdict.consequences) if words else verdict.symmetric_part == "zero"

    def test_semidefinite(self):
        verdict = jo.structure(skew(3, 2) - np.diag([0.0, 0.0, 1.0]))
        assert verdict.symmetric_part == "negative semidefinite"
        assert "never rises, so every orbit stays bounded" in " ".join(verdict.consequences)
        assert "bounded for ReLU" in " ".join(jo.structure(verdict.matrix, jo.ReLU()).consequences)

    def test_collapse_happens(self):
        W = skew(4, 2) * [1, 2, 3, 4] - 0.1 * np.eye(4)
        assert np.linalg.eigvalsh(W + W.T).max() > 0  # W's own symmetric part would not tell
        run = solve_ivp(lambda t, y: W @ np.tanh(y), (0, 400), [3.0, -2.0, 1.0, 0.5], rtol=1e-8, atol=1e-12)
        assert np.abs(run.y[:, -1]).max() < 1e-3


class TestReversal:
    def test_found_ones_reverse(self):
        generator = np.random.default_rng(5)
        R = np.zeros((6, 6))
        R[[0, 3, 2, 1, 4, 5], range(6)] = [1, -1, 1, -1, -1, 1]
        part = generator.standard_normal((6, 6))
        W = part - R @ part @ R
        found = time_reversal(W, 1e-12, signs=True)
        np.testing.assert_allclose(found @ W @ found, -W, atol=1e-12)
        np.testing.assert_array_equal(found @ found, np.eye(6))
        assert time_reversal(W, 1e-12, signs=False) is None
        assert time_reversal(part, 1e-12, signs=True) is None

    def test_exchange_serves_every_activation(self):
        W = GALLERY["reversible"][0]
        for activation in (jo.Tanh(), jo.ELU()):
            verdict = jo.structure(W, activation)
            np.testing.assert_array_equal(verdict.reversal, [[0, 1], [1, 0]])
            assert "exchanging neurons 0 and 1" in " ".join(verdict.consequences)
        assert jo.structure(GALLERY["not reversible"][0]).reversal is None

    def test_two_groups_reverse_at_any_size(self):
        weight = jo.weights.Bipartite.random(jax.random.key(0), 40)
        R = jo.structure(weight).reversal
        np.testing.assert_array_equal(np.abs(R), np.eye(40))
        assert jo.structure(weight, jo.ReLU()).reversal is None

    def test_the_search_ends(self):
        """Uncoupled equal pairs with a defect: exchanges without end if nobody counted."""
        W = np.kron(np.eye(20), rotation(1.0))
        W[-1, -1] = 0.5
        assert time_reversal(W, 1e-12, signs=True) is None


class TestConsequences:
    def told(self, W, activation=None):
        return " ".join(jo.structure(W, activation).consequences)

    @pytest.mark.parametrize("activation", [jo.Tanh(), jo.ELU(), jo.Elementwise(jnp.sinh)])
    def test_bounded(self, activation):
        assert "every orbit stays bounded" in self.told(rotation(1.0), activation)

    def test_escaping(self):
        assert "orbits can escape although H is conserved" in self.told(rotation(1.0), jo.Sigmoid())

    def test_rank_decides_on_closed_curves(self):
        assert "closed curves" in self.told(skew(3, 0))
        assert "chaotic" in self.told(skew(4, 0))
        assert "one Casimir" in self.told(skew(5, 0))

    @pytest.mark.parametrize(
        ("W", "words"),
        [
            (skew(4, 0), "every orbit is bounded, a sum of 2 oscillations"),
            ([[0.4, 1.5], [-1.0, -0.4]], "a positive quadratic form of y is conserved"),
            ([[0.0, 1.0], [0.0, 0.0]], "grows like a power"),
            ([[0.1, 1.0], [-1.0, 0.1]], "nearly every orbit escapes like exp(0.1 t)"),
            ([[-0.1, 1.0], [0.0, -0.1]], "every orbit collapses to 0"),
            (np.diag([0.0, -1.0]), "a part of nearly every one decays"),
        ],
    )
    def test_linear_networks(self, W, words):
        assert words in self.told(W, jo.Identity())

    def test_a_near_miss_is_told(self):
        rounded = np.round(skew(4, 3) * [1, 2, 3, 4], 6)
        assert "give a larger tolerance" in jo.structure(rounded).reason
        assert jo.structure(rounded, tolerance=1e-4).kind == "symmetrizable"


class TestBatch:
    def test_members_are_those_of_single_calls(self):
        generator = np.random.default_rng(3)
        batch = np.array([[make(generator, 5) for _, make in MAKERS.values()] for _ in range(2)])
        many = jo.structure(batch)
        assert many.kind.shape == many.residual.shape == many.reason.shape == (2, len(MAKERS))
        assert many.kind.tolist() == [[kind for kind, _ in MAKERS.values()]] * 2
        for k in np.ndindex(many.batch_shape):
            one = jo.structure(batch[k])
            assert isinstance(one.kind, str)
            assert str(many[k]) == str(one)
            np.testing.assert_array_equal(many[k].d, one.d)
        assert many[1].batch_shape == (len(MAKERS),)
        assert "4 symmetrizable" not in str(many[0]) and "3 symmetrizable" in str(many[0])
        assert jo.structure(np.zeros((0, 3, 3))).kind.shape == (0,)

    def test_weights(self):
        keys = jax.random.split(jax.random.key(1), 4)
        weight = jax.vmap(lambda key: jo.weights.Symmetrizable.random(key, 6, dtype=jnp.float32))(keys)
        verdict = jo.structure(weight)
        assert (verdict.dtype, verdict.kind.tolist()) == ("float32", ["symmetrizable"] * 4)
        d = np.asarray(weight.energy_weights(), np.float64)
        mean = np.exp(np.log(d).mean(axis=1, keepdims=True))
        np.testing.assert_allclose(verdict.d, d / mean, rtol=1e-5)  # rounding of float32 along five edges

    def test_short_floats_have_their_own_tolerance(self):
        W = jnp.asarray(skew(4, 1) * np.array([1, 2, 3, 4]), jnp.bfloat16)
        assert jo.structure(W).kind == "symmetrizable"
        assert jo.structure(np.asarray(W, np.float64)).kind == "none"
        assert jo.structure(W).tolerance == 0.1

    def test_pickle(self):
        verdict = jo.structure(skew(3, 1))
        assert str(pickle.loads(pickle.dumps(verdict))) == str(verdict)


REFUSED = {
    "not square": (lambda: jo.structure(np.ones((2, 3))), "shape (2, 3)"),
    "a vector": (lambda: jo.structure(np.ones(3)), "shape (3,)"),
    "empty": (lambda: jo.structure(np.ones((0, 0))), "shape (0, 0)"),
    "ragged": (lambda: jo.structure([[1.0], [1.0, 2.0]]), "rows of one length"),
    "NaN": (lambda: jo.structure([[0.0, np.nan], [1.0, np.inf]]), "2 NaN or infinite"),
    "complex": (lambda: jo.structure(1j * np.eye(2)), "real numbers"),
    "words": (lambda: jo.structure([["a"]]), "real numbers"),
    "traced": (lambda: jax.jit(lambda W: jo.structure(W).d)(jnp.eye(2)), "traced"),
    "no activation": (lambda: jo.structure(np.eye(2), jnp.tanh), "jo.Elementwise"),
    "tolerance": (lambda: jo.structure(np.eye(2), tolerance=-1), "tolerance = -1"),
    "no number": (lambda: jo.structure(np.eye(2), tolerance="small"), "tolerance = 'small'"),
    "batch": (lambda: jo.structure(np.zeros((2, 3, 3))).consequences, "verdict[k].consequences"),
    "index": (lambda: jo.structure(np.eye(2))[0], "single matrix"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence(name):
    call, words = REFUSED[name]
    with pytest.raises(jo.JaxoscError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
