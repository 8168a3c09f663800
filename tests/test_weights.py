"""Weights: exact structure, random laws, constructors and their errors, and life under JAX's transformations."""

import dataclasses
import functools
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.csgraph

import jaxosc as jo
from jaxosc.weights import (
    AbstractWeight,
    BandedSkew,
    Bipartite,
    Circulant,
    DenseSkew,
    LowRankSkew,
    RotationBlocks,
    SparseSkew,
    Symmetrizable,
    Unconstrained,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One random law: how to draw from it, and what is known about the draws."""

    cls: type[AbstractWeight]
    options: tuple[tuple[str, Any], ...]
    count: Callable[[int], int]  # number of parameters
    rank: Callable[[int], int]  # number of nonzero eigenvalues
    largest: float  # mean largest |eigenvalue| at gain 1, n = 64, as the package's documentation states it
    degree: int = 1  # the matrix is homogeneous of this degree in the parameters; 0 where it is not

    def random(self, key, n, **rest):
        return self.cls.random(key, n, **dict(self.options), **rest)

    def draws(self, seed, number, n=7, *, gain=1.0, dtype=jnp.float64):
        """A batch of weights. Small ones are cut from a batch of MANY: compiling costs seconds, drawing nothing."""
        keys = jax.random.split(jax.random.key(seed), MANY if n < 10 else number)
        many = draw_many(keys, gain, row=self, n=n, dtype=dtype)
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[:number]), many)

    def draw(self, seed, n=7, **rest):
        """One weight."""
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0]), self.draws(seed, 1, n, **rest))


MANY = 4000


# Programs at module level are compiled once for the whole file.
@functools.partial(jax.jit, static_argnames=("row", "n", "dtype"))
def draw_many(keys, gain, *, row, n, dtype):
    return jax.vmap(lambda key: row.random(key, n, gain=gain, dtype=dtype))(keys)


@jax.jit
def formed(weight):
    return weight.matrix()


def even_part(n):
    """The rank of almost every skew matrix."""
    return 2 * (n // 2)


ROWS = {
    "dense": Row(DenseSkew, (), lambda n: n * (n - 1) // 2, even_part, 1.9),
    "blocks": Row(RotationBlocks, (), lambda n: n // 2, even_part, 1.8),
    "circulant": Row(Circulant, (), lambda n: (n - 1) // 2, lambda n: 2 * ((n - 1) // 2), 2.3),
    "chain": Row(BandedSkew, (), lambda n: n - 1, even_part, 2.2),
    "band": Row(BandedSkew, (("bandwidth", 4),), lambda n: 4 * n - 10, even_part, 1.9),
    "sparse": Row(SparseSkew, (("degree", 3),), lambda n: round(1.5 * n), even_part, 2.1),
    "rank2": Row(LowRankSkew, (), lambda n: 2 * n, lambda n: 2, 1.0, degree=2),
    "rank4": Row(LowRankSkew, (("rank", 4),), lambda n: 4 * n, lambda n: 4, 1.2, degree=2),
    "bipartite": Row(Bipartite, (), lambda n: (n // 2) * (n - n // 2), even_part, 1.9),
    "star": Row(Bipartite, (("p", 1),), lambda n: n - 1, lambda n: 2, 1.0),
    "symmetrizable": Row(Symmetrizable, (), lambda n: n * (n - 1) // 2 + n, even_part, 2.2, degree=0),
    "unconstrained": Row(Unconstrained, (), lambda n: n * n, lambda n: n, 1.1),
}
SKEW = [name for name, row in ROWS.items() if row.cls.skew]
WITH_ONE_GAIN = [name for name in ROWS if name != "unconstrained"]

each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
each_dtype = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["f32", "f64"])
each_size = pytest.mark.parametrize("n", [7, 8])
odd_and_even = pytest.mark.parametrize(("n", "dtype"), [(7, jnp.float64), (8, jnp.float32)], ids=["7-f64", "8-f32"])


def transposed(matrices):
    return np.swapaxes(matrices, -1, -2)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(a, b):
    """Equal trees, bit for bit (no weight here holds a NaN)."""
    return bool(eqx.tree_equal(a, b))


# --- structure ---


@odd_and_even
@pytest.mark.parametrize("name", SKEW)
def test_the_matrix_is_skew_bit_for_bit(name, n, dtype):
    matrices = np.asarray(formed(ROWS[name].draws(1, 16, n, gain=1.7, dtype=dtype)))
    assert matrices.shape == (16, n, n)
    assert matrices.dtype == dtype
    assert (transposed(matrices) == -matrices).all()
    assert (np.diagonal(matrices, axis1=-2, axis2=-1) == 0).all()
    assert (np.abs(matrices).max(axis=(1, 2)) > 0.01).all()


def test_skew_survives_a_gradient_step():
    row = ROWS["rank4"]
    weight = row.draw(0)
    target = jax.random.normal(jax.random.key(1), (7, 7))
    gradient = jax.jit(jax.grad(lambda w: jnp.sum((w.matrix() - target) ** 2)))(weight)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, weight, gradient)
    matrix = np.asarray(formed(moved))
    assert np.abs(matrix - np.asarray(formed(weight))).max() > 0.01
    assert (-matrix == matrix.T).all()


@each_row
def test_class_facts_are_true(row):
    matrix = np.asarray(formed(row.draw(2)))
    assert (not np.diagonal(matrix).any()) == row.cls.hollow
    assert (-matrix == matrix.T).all() == row.cls.skew
    assert row.cls.law.endswith(".")


@odd_and_even
def test_symmetrizable_is_skew_after_scaling(n, dtype):
    weight = ROWS["symmetrizable"].draw(3, n, dtype=dtype)
    matrix = np.asarray(formed(weight), np.float64)
    d = np.asarray(weight.energy_weights(), np.float64)
    scaled = np.sqrt(d)[:, None] * matrix / np.sqrt(d)[None, :]
    # One rounding in each entry s_ij d_j: the sum of two is off by at most two.
    assert np.abs(scaled + scaled.T).max() <= 2 * jnp.finfo(dtype).eps * np.abs(scaled).max()
    assert np.abs(scaled).max() > 0.1
    assert d.max() / d.min() > 2
    # sum_i d_i potential(y_i) is conserved: sigma^T D W sigma = 0 for every sigma.
    sigma = np.random.default_rng(0).normal(size=n)
    rate = sigma @ (d[:, None] * matrix) @ sigma
    assert abs(rate) <= n**2 * jnp.finfo(dtype).eps * d.max() ** 2 * np.abs(scaled).max() * (sigma @ sigma)


@each_dtype
def test_energy_weights_stay_positive_and_finite(dtype):
    skew_part = DenseSkew(jnp.ones(1, dtype))
    weight = Symmetrizable(skew_part, jnp.array([-1e4, 1e4], dtype))
    d = np.asarray(weight.energy_weights())
    assert (d > 0).all()
    assert np.isfinite(d).all()
    assert np.isfinite(np.asarray(weight.matrix())).all()
    assert DenseSkew(jnp.ones(1)).energy_weights() is None


@odd_and_even
@each_row
def test_number_of_parameters_and_rank(row, n, dtype):
    weight = row.draw(4, n, dtype=dtype)
    assert sum(leaf.size for leaf in jax.tree.leaves(weight)) == row.count(n)
    assert np.linalg.matrix_rank(np.asarray(formed(weight))) == row.rank(n)


# --- the product with a vector ---


WIDE = {
    "fourier odd": Row(Circulant, (), lambda n: 0, even_part, 0.0),
    "wide band": Row(BandedSkew, (("bandwidth", 12),), lambda n: 0, even_part, 0.0),
}


PRODUCTS = [(row, n) for row in ROWS.values() for n in (7, 8)]
PRODUCTS += [(row, n) for row in WIDE.values() for n in (65, 66)]


@pytest.mark.parametrize(("row", "n"), PRODUCTS)
def test_matvec_is_the_matrix_times_the_vector(row, n):
    dtype = jnp.float64 if n % 2 else jnp.float32
    weight = row.draw(5, n, dtype=dtype)
    v = jax.random.normal(jax.random.key(6), (n,), dtype)
    product, matrix = jax.jit(lambda w, v: (w.matvec(v), w.matrix()))(weight, v)
    assert product.dtype == dtype
    matrix = np.asarray(matrix, np.float64)
    expected = matrix @ np.asarray(v, np.float64)
    # n products and sums round by eps each; 4 covers the second factor of low rank and the butterflies of the FFT.
    size = np.linalg.norm(matrix) * np.linalg.norm(v)
    assert np.abs(product - expected).max() <= 4 * n * jnp.finfo(dtype).eps * size
    assert np.abs(expected).max() > 0.01


@each_row
def test_matvec_of_a_batch_is_vmapped(row):
    weights = row.draws(7, 3)
    vectors = jax.random.normal(jax.random.key(8), (3, 7))
    products = jax.jit(jax.vmap(lambda weight, v: weight.matvec(v)))(weights, vectors)
    expected = np.einsum("kij,kj->ki", formed(weights), vectors)
    np.testing.assert_allclose(products, expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(jo.JaxoscError, match=r"a batch, expected a single weight; use jax\.vmap"):
        weights.matvec(vectors[0])


@each_row
def test_matvec_wants_a_vector_of_its_size(row):
    weight = row.draw(0)
    for length in (1, 6, 8, 14):
        with pytest.raises(jo.JaxoscError, match=rf"vector of shape \({length},\), expected \(7,\)"):
            weight.matvec(jnp.ones(length))


# --- closed forms ---


def test_rotation_blocks_turn_at_the_given_frequencies():
    weight = RotationBlocks([0.5, -2.0, 1.25], size=7)
    np.testing.assert_array_equal(weight.matrix()[:2, :2], [[0, 0.5], [-0.5, 0]])
    eigenvalues = np.linalg.eigvals(np.asarray(weight.matrix()))
    np.testing.assert_allclose(np.sort(eigenvalues.imag), [-2, -1.25, -0.5, 0, 0.5, 1.25, 2], atol=1e-14)
    np.testing.assert_array_equal(eigenvalues.real, 0)
    in_cycles = RotationBlocks.from_frequencies([1.0, 0.25])
    np.testing.assert_allclose(in_cycles.angular_frequencies, [2 * math.pi, math.pi / 2], rtol=1e-15)
    assert in_cycles.size == 4


@each_size
def test_circulant_eigenvalues(n):
    weight = ROWS["circulant"].draw(9, n)
    k = np.arange(1, (n - 1) // 2 + 1)
    j = np.arange(n)
    closed_form = -2 * np.sin(2 * math.pi * np.outer(j, k) / n) @ np.asarray(weight.coefficients)
    eigenvalues = np.linalg.eigvals(np.asarray(weight.matrix()))
    np.testing.assert_allclose(np.sort(eigenvalues.imag), np.sort(closed_form), atol=1e-14 * n)
    column = np.asarray(weight.matrix())[:, 0]
    np.testing.assert_array_equal(column, weight.first_column())
    np.testing.assert_array_equal(np.roll(column, 3), np.asarray(weight.matrix())[:, 3])


def test_entries_stand_where_the_docstrings_say():
    dense = DenseSkew([1.0, 2.0, 3.0]).matrix()
    np.testing.assert_array_equal(dense, [[0, 1, 2], [-1, 0, 3], [-2, -3, 0]])
    banded = BandedSkew.from_diagonals([[1.0, 2.0, 3.0], [4.0, 5.0]])
    np.testing.assert_array_equal(banded.matrix(), [[0, 1, 4, 0], [-1, 0, 2, 5], [-4, -2, 0, 3], [0, -5, -3, 0]])
    sparse = SparseSkew([1.0, 2.0, 3.0], [(1, 3), (2, 0), (0, 1)])
    np.testing.assert_array_equal(sparse.matrix(), [[0, 3, -2, 0], [-3, 0, 0, 1], [2, 0, 0, 0], [0, -1, 0, 0]])
    bipartite = Bipartite([[1.0, 2.0]])
    np.testing.assert_array_equal(bipartite.matrix(), [[0, 1, 2], [-1, 0, 0], [-2, 0, 0]])
    low_rank = LowRankSkew([[1.0], [0.0], [2.0]], [[0.0], [3.0], [1.0]])
    np.testing.assert_array_equal(low_rank.matrix(), [[0, 3, 1], [-3, 0, -6], [-1, 6, 0]])
    symmetrizable = Symmetrizable.from_energy_weights(DenseSkew([1.0]), [2.0, 3.0])
    np.testing.assert_allclose(symmetrizable.matrix(), [[0, 3], [-2, 0]], rtol=1e-15)
    np.testing.assert_array_equal(Unconstrained([[1, 2], [3, 4]]).matrix(), [[1.0, 2.0], [3.0, 4.0]])


# --- random laws ---


def assert_mean(samples, expected):
    """The mean of independent samples is as expected within five standard errors (by chance missed once in 2e6)."""
    samples = np.asarray(samples, np.float64).ravel()
    error = samples.std() / math.sqrt(samples.size)
    assert abs(samples.mean() - expected) < 5 * error, (samples.mean(), expected, error)


NORMAL_PARAMETERS = [
    ("dense", lambda w: w.entries, lambda n: 1 / n),
    ("circulant", lambda w: w.coefficients, lambda n: (1 if n % 2 else 1 - 1 / n) / n),
    ("chain", lambda w: w.entries, lambda n: 1 / 2),
    ("band", lambda w: w.entries, lambda n: (n - 1) / (2 * (4 * n - 10))),
    ("sparse", lambda w: w.entries, lambda n: (n - 1) / (2 * round(1.5 * n))),
    ("rank4", lambda w: w.v, lambda n: (1 if n % 2 == 0 else (1 - 1 / n) ** -0.5) / n),
    ("bipartite", lambda w: w.coupling, lambda n: (1 if n % 2 else 1 - 1 / n) / (n - n // 2)),
    ("symmetrizable", lambda w: w.skew_part.entries, lambda n: math.exp(-0.25) / n),
    ("unconstrained", lambda w: w.entries, lambda n: 1 / n),
]


@odd_and_even
@pytest.mark.parametrize(("name", "where", "variance"), NORMAL_PARAMETERS, ids=[r[0] for r in NORMAL_PARAMETERS])
def test_parameters_are_normal_with_the_declared_variance(name, where, variance, n, dtype):
    gain = 1.0 if name == "rank4" else 3.0  # there the gain is on U alone
    samples = np.asarray(where(ROWS[name].draws(10, 4000, n, gain=gain, dtype=dtype)), np.float64)
    standard = samples / (gain * math.sqrt(variance(n)))
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert_mean(standard**power, moment)
    flat = standard.reshape(4000, -1)
    assert_mean(flat[:, 0] * flat[:, 1], 0)


@odd_and_even
def test_block_frequencies_follow_the_semicircle(n, dtype):
    gain = 3.0
    mean_square = 1.0 if n % 2 else 1 - 1 / n
    omega = np.asarray(ROWS["blocks"].draws(11, 4000, n, gain=gain, dtype=dtype).angular_frequencies) / gain
    standard = omega / math.sqrt(mean_square)
    assert np.abs(standard).max() <= 2
    for power, moment in ((1, 0), (2, 1), (4, 2), (6, 5)):  # the Catalan numbers
        assert_mean(standard**power, moment)


def test_energy_weights_are_lognormal():
    row = dataclasses.replace(ROWS["symmetrizable"], options=(("spread", 0.8),))
    d = np.asarray(row.draws(12, 4000).energy_weights())
    assert_mean(d, math.exp(0.32))
    assert_mean(np.log(d), 0)
    assert_mean(np.log(d) ** 2, 0.64)
    np.testing.assert_array_equal(Symmetrizable.random(jax.random.key(0), 4, spread=0.0).energy_weights(), 1)


@odd_and_even
@pytest.mark.parametrize("name", WITH_ONE_GAIN)
def test_gain_is_the_root_mean_square_frequency(name, n, dtype):
    row = ROWS[name]
    matrices = np.asarray(formed(row.draws(13, 4000, n, gain=2.0, dtype=dtype)), np.float64)
    # The trace of -W^2 is the sum of omega^2 over all eigenvalues.
    sums = -np.sum(matrices * transposed(matrices), axis=(1, 2))
    assert_mean(sums / row.rank(n), 4.0 * (1 if n % 2 else 1 - 1 / n))


@each_row
def test_spectral_scales_are_comparable(row):
    matrices = np.asarray(formed(row.draws(14, 40, 64)))
    largest = np.abs(np.linalg.eigvals(matrices)).max(axis=1)
    # The documented value is rounded to 0.1, which leaves 0.05 besides the error of the mean.
    error = largest.std() / math.sqrt(40)
    assert abs(largest.mean() - row.largest) < 0.05 + 4 * error
    assert 0.9 < largest.mean() < 2.6


# float64 for the three ways to draw (normal, uniform, lognormal), float32 for the other classes.
DRAWS = [(ROWS[name], jnp.float64) for name in ("dense", "blocks")]
DRAWS += [(dataclasses.replace(ROWS["symmetrizable"], options=(("spread", 0.3),)), jnp.float64)]
DRAWS += [(ROWS["rank4"], jnp.float32)]
DRAWS += [
    pytest.param(ROWS[name], jnp.float32, marks=pytest.mark.slow)
    for name in ("circulant", "band", "sparse", "bipartite", "unconstrained")
]


@pytest.mark.parametrize(("row", "dtype"), DRAWS)
def test_a_draw_depends_on_its_key_alone(row, dtype):
    keys = jax.random.split(jax.random.key(15), 3)
    gains = jnp.array([0.5, 0.7, 2.0])

    def draw(key, gain):
        return row.random(key, 7, gain=gain, dtype=dtype)

    one_by_one = [draw(key, float(gain)) for key, gain in zip(keys, gains, strict=True)]
    looped = jax.tree.map(lambda *members: jnp.stack(members), *one_by_one)
    assert same(jax.jit(jax.vmap(draw))(keys, gains), looped)
    with_constant_gain = jax.jit(lambda key: draw(key, 0.7))(keys[1])
    assert same(with_constant_gain, one_by_one[1])
    assert same(draw(keys[0], 0.5), one_by_one[0])
    assert not same(one_by_one[0], draw(keys[1], 0.5))


def test_keys_of_the_old_kind_are_keys_as_well():
    key = jax.random.key(15)
    assert same(DenseSkew.random(jax.random.key_data(key), 7), DenseSkew.random(key, 7))


@pytest.mark.parametrize("name", ["rank2", "rank4", "symmetrizable"])  # the other matrices are made without arithmetic
def test_a_matrix_does_not_depend_on_its_batch(name):
    weights = ROWS[name].draws(16, 48, 8, dtype=jnp.float32)
    together = np.asarray(formed(weights))
    for size in (1, 3, 16):
        chunks = [slice(start, start + size) for start in range(0, 48, size)]
        parts = [jax.tree.map(lambda leaf, chunk=chunk: leaf[chunk], weights) for chunk in chunks]
        np.testing.assert_array_equal(np.concatenate([formed(part) for part in parts]), together)
    alone = jax.tree.map(lambda leaf: leaf[5], weights)
    np.testing.assert_array_equal(formed(alone), together[5])
    np.testing.assert_array_equal(alone.matrix(), together[5])


def test_the_default_dtype_is_that_of_the_session():
    def dtype_of(row):
        return jax.eval_shape(lambda: row.random(jax.random.key(0), 5)).dtype

    assert {dtype_of(row) for row in ROWS.values()} == {jnp.dtype("float64")}
    with jax.enable_x64(False):
        assert {dtype_of(row) for row in ROWS.values()} == {jnp.dtype("float32")}
        with pytest.raises(jo.JaxoscError, match="dtype=float64 in a session without 64-bit numbers"):
            DenseSkew.random(jax.random.key(0), 3, dtype=jnp.float64)


# --- constructors and their errors ---


@each_dtype
def test_from_matrix_gives_back_the_matrix(dtype):
    matrix = np.random.default_rng(16).normal(size=(6, 6)).astype(dtype)
    matrix = matrix - matrix.T
    for given in (matrix, jnp.asarray(matrix)):
        weight = DenseSkew.from_matrix(given)
        assert weight.dtype == dtype
        np.testing.assert_array_equal(weight.matrix(), matrix)
    np.testing.assert_array_equal(DenseSkew.from_matrix([[0, 2], [-2, 0]]).matrix(), [[0.0, 2.0], [-2.0, 0.0]])


@each_dtype
def test_from_matrix_forgives_rounding_only(dtype):
    rng = np.random.default_rng(17)
    skew = rng.normal(size=(40, 40)).astype(dtype)
    skew = (skew - skew.T) / np.sqrt(dtype(80))
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0].astype(dtype)
    turned = turn @ skew @ turn.T
    assert np.abs(turned + turned.T).max() > 0
    matrix = np.asarray(DenseSkew.from_matrix(turned).matrix())
    assert (-matrix == matrix.T).all()
    np.testing.assert_array_equal(matrix, 0.5 * (turned - turned.T))
    turned[3, 5] += 1e3 * 40 * jnp.finfo(dtype).eps * np.abs(turned).max()
    with pytest.raises(jo.JaxoscError, match=r"at \[3, 5\]"):
        DenseSkew.from_matrix(turned)


def test_from_matrix_says_by_how_much_it_is_not_skew():
    matrix = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0], [0.0, -1.5, 0.0]])
    with pytest.raises(jo.JaxoscError) as caught:
        DenseSkew.from_matrix(matrix)
    message = str(caught.value)
    assert "max |W + W.T| = 0.5 at [1, 2] where max |W| = 2" in message
    assert "(W - W.T)/2" in message
    assert "Unconstrained" in message
    assert message.count(". ") == 0  # one sentence


def test_a_sparse_weight_has_the_pattern_of_its_matrix():
    matrix = np.array([[0.0, 0.0, -2.5], [0.0, 0.0, 1.0], [2.5, -1.0, 0.0]])
    for given in (matrix, jnp.asarray(matrix), scipy.sparse.csr_array(matrix)):
        weight = SparseSkew.from_matrix(given)
        assert weight.edges == ((0, 2), (1, 2))
        np.testing.assert_array_equal(weight.matrix(), matrix)
    assert SparseSkew.from_matrix(np.pad(matrix, (0, 1))).size == 4
    with pytest.raises(jo.JaxoscError, match="got a traced matrix"):
        jax.jit(lambda m: SparseSkew.from_matrix(m).entries)(matrix)


@pytest.mark.parametrize(("n", "degree"), [(2, 4), (3, 2), (9, 2), (20, 5.5), (6, 100)])
def test_a_random_graph_is_connected_and_of_its_degree(n, degree):
    weight = SparseSkew.random(jax.random.key(0), n, degree=degree)
    assert len(weight.edges) == len(set(weight.edges)) == max(1, min(round(n * degree / 2), n * (n - 1) // 2))
    assert SparseSkew.random(jax.random.key(1), n, degree=degree).edges == weight.edges
    graph = scipy.sparse.csr_array(np.asarray(weight.matrix()))
    assert scipy.sparse.csgraph.connected_components(graph)[0] == 1
    if n > 6:
        assert SparseSkew.random(jax.random.key(0), n, degree=degree, graph=1).edges != weight.edges


def test_colours_of_known_graphs():
    """Two for an even ring and for a tree, three for an odd ring, n where all meet."""
    rings = {n: SparseSkew(np.ones(n), [(i, (i + 1) % n) for i in range(n)]) for n in (8, 9)}
    tree = SparseSkew(np.ones(14), [(i, (i - 1) // 2) for i in range(1, 15)])
    full = SparseSkew(np.ones(10), itertools.combinations(range(5), 2))
    assert [len(weight.colours) for weight in (rings[8], rings[9], tree, full)] == [2, 3, 2, 5]


BAD_MATRICES = [
    (np.zeros((2, 3)), r"shape \(2, 3\), expected \(n, n\)"),
    (np.zeros(4), r"shape \(4,\), expected \(n, n\)"),
    (np.zeros((1, 1)), r"shape \(1, 1\), expected \(n, n\) with n >= 2"),
    (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
    (np.array([[0, np.nan], [1, 0]]), "1 NaN or infinite"),
    (np.array([[0, np.inf], [-np.inf, 0]]), "2 NaN or infinite"),
    (np.array([[0, 1j], [-1j, 0]]), "complex128, expected real"),
    (np.eye(3), r"max \|W \+ W.T\| = 2"),
]


@pytest.mark.parametrize(("matrix", "message"), BAD_MATRICES)
def test_from_matrix_refuses(matrix, message):
    with pytest.raises(jo.JaxoscError, match=message):
        DenseSkew.from_matrix(matrix)


def test_from_matrix_checks_traced_values_when_they_run():
    entries = eqx.filter_jit(lambda matrix: DenseSkew.from_matrix(matrix).entries)
    np.testing.assert_array_equal(entries(jnp.array([[0.0, 3.0], [-3.0, 0.0]])), [3.0])
    for bad in ([[0.0, 3.0], [3.0, 0.0]], [[0.0, np.nan], [0.0, 0.0]], [[0.0, np.inf], [np.inf, 0.0]]):
        with pytest.raises(eqx.EquinoxRuntimeError, match="not skew"):
            jax.block_until_ready(entries(jnp.array(bad)))


BAD_CALLS = {
    "number of entries": (lambda: DenseSkew(jnp.ones(4)), "4 entries, expected n"),
    "no entries": (lambda: DenseSkew(jnp.ones(0)), "0 entries, expected n"),
    "scalar entries": (lambda: DenseSkew(1.0), r"shape \(\), expected at least 1 axis"),
    "complex": (lambda: DenseSkew(jnp.ones(3, complex)), "complex128, expected real"),
    "block size": (lambda: RotationBlocks([1.0, 2.0], size=6), "2 angular frequencies for n=6"),
    "no blocks": (lambda: RotationBlocks([]), "n=0, expected n >= 2"),
    "coefficients": (lambda: Circulant([1.0, 2.0], 7), r"2 coefficients for n=7, expected \(n - 1\) // 2 = 3"),
    "circulant pair": (lambda: Circulant.random(jax.random.key(0), 2), "n=2, expected n >= 3"),
    "band entries": (lambda: BandedSkew(jnp.ones(4), 2), "4 entries for bandwidth 2"),
    "band of nothing": (lambda: BandedSkew(jnp.ones(4), 0), "4 entries for bandwidth 0"),
    "band too wide": (lambda: BandedSkew.random(jax.random.key(0), 4, bandwidth=4), r"bandwidth=4, expected 1 .. 3"),
    "diagonal lengths": (lambda: BandedSkew.from_diagonals([[1.0, 2.0], [1.0, 2.0]]), r"lengths \[2, 2\]"),
    "no diagonals": (lambda: BandedSkew.from_diagonals([]), r"lengths \[\]"),
    "edges": (lambda: SparseSkew([1.0, 2.0], [(0, 1)]), "2 entries for 1 edges"),
    "edge of one": (lambda: SparseSkew([1.0], [(1, 1)]), r"edge \(1, 1\), expected two different neurons of 0 .. 1"),
    "edge outside": (
        lambda: SparseSkew([1.0], [(0, 3)], 3),
        r"edge \(0, 3\), expected two different neurons of 0 .. 2",
    ),
    "edge of three": (lambda: SparseSkew([1.0], [(0, 1, 2)]), r"edge \(0, 1, 2\), expected pairs"),
    "edge twice": (lambda: SparseSkew([1.0, 2.0], [(0, 1), (1, 0)]), r"edge \(1, 0\) twice"),
    "degree": (lambda: SparseSkew.random(jax.random.key(0), 5, degree=0), "degree=0, expected a number above 0"),
    "no edge": (lambda: SparseSkew.from_matrix(np.zeros((3, 3))), "matrix of zeros"),
    "not sparse skew": (lambda: SparseSkew.from_matrix(np.eye(3)), r"max \|W \+ W.T\| = 2"),
    "odd rank": (lambda: LowRankSkew.random(jax.random.key(0), 5, rank=3), "rank 3 for n=5, expected an even rank"),
    "rank": (lambda: LowRankSkew(jnp.ones((3, 2)), jnp.ones((3, 2))), "rank 4 for n=3"),
    "factors": (lambda: LowRankSkew(jnp.ones((3, 1)), jnp.ones((4, 1))), r"shape \(3, 1\).*shape \(4, 1\)"),
    "empty group": (lambda: Bipartite(jnp.ones((0, 3))), r"shape \(0, 3\), expected p >= 1"),
    "group": (lambda: Bipartite.random(jax.random.key(0), 4, p=4), "p=4, expected 1 .. 3"),
    "not skew": (lambda: Symmetrizable(Unconstrained(jnp.eye(2)), jnp.ones(2)), "expected a skew weight"),
    "lengths of d": (lambda: Symmetrizable(DenseSkew([1.0]), jnp.ones(3)), r"shape \(3,\) float64, expected \(2,\)"),
    "dtype of d": (
        lambda: Symmetrizable(DenseSkew([1.0]), jnp.ones(2, jnp.float32)),
        "float32, expected .* float64",
    ),
    "sign of d": (lambda: Symmetrizable.from_energy_weights(DenseSkew([1.0]), [1.0, -2.0]), "d is -2.0"),
    "range of d": (
        lambda: Symmetrizable.from_energy_weights(DenseSkew(np.ones(1, np.float32)), [1.0, 1e25]),
        r"d from 1 to 1e\+25, expected 8e-20 to 1e\+19 in float32",
    ),
    "spread": (lambda: Symmetrizable.random(jax.random.key(0), 3, spread=-1.0), "spread=-1.0"),
    "not square": (lambda: Unconstrained(jnp.ones((2, 3))), r"shape \(2, 3\), expected \(n, n\)"),
    "one neuron": (lambda: Unconstrained(jnp.ones((1, 1))), r"with n >= 2"),
    "integer dtype": (lambda: DenseSkew.random(jax.random.key(0), 3, dtype=int), "expected a real float"),
    "gain shape": (lambda: DenseSkew.random(jax.random.key(0), 3, gain=jnp.ones(2)), r"gain of shape \(2,\)"),
    "gain value": (lambda: DenseSkew.random(jax.random.key(0), 3, gain=math.nan), "gain holds 1 NaN"),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_bad_arguments_are_named_in_one_sentence(call, message):
    with pytest.raises(jo.JaxoscError, match=message) as caught:
        call()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@each_row
def test_one_neuron_is_refused(row):
    for n in (1, 0, -3):
        with pytest.raises(jo.JaxoscError, match=rf"{row.cls.__name__} got n={n}, expected n >= [23]"):
            row.random(jax.random.key(0), n)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_parameters_must_be_finite(bad):
    for make in (
        lambda x: DenseSkew([x, 1.0, 2.0]),
        lambda x: RotationBlocks([x]),
        lambda x: Circulant([x], 3),
        lambda x: BandedSkew([x], 1),
        lambda x: SparseSkew([x], [(0, 1)]),
        lambda x: LowRankSkew([[x], [1.0]], [[1.0], [1.0]]),
        lambda x: Bipartite([[x]]),
        lambda x: Symmetrizable(DenseSkew([1.0]), [x, 0.0]),
        lambda x: Unconstrained([[x, 0.0], [0.0, 0.0]]),
    ):
        make(0.5)
        with pytest.raises(jo.JaxoscError, match="1 NaN or infinite"):
            make(bad)


def test_traced_energy_weights_are_checked_when_they_run():
    make = eqx.filter_jit(lambda d: Symmetrizable.from_energy_weights(DenseSkew([1.0]), d).energy_weights())
    np.testing.assert_allclose(make(jnp.array([2.0, 0.25])), [2.0, 0.25], rtol=1e-15)
    with pytest.raises(eqx.EquinoxRuntimeError, match="needs every d > 0"):
        jax.block_until_ready(make(jnp.array([2.0, 0.0])))


# --- scaling, batches, transformations ---


@odd_and_even
@each_row
def test_scaled_multiplies_the_matrix(row, n, dtype):
    weight = row.draw(18, n, dtype=dtype)
    scaled = weight.scaled(2.5)
    assert type(scaled) is row.cls
    assert scaled.dtype == dtype
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(formed(scaled), 2.5 * formed(weight), rtol=tolerance, atol=tolerance)
    # A gain in another precision does not change that of the weight.
    assert same(weight.scaled(jnp.asarray(2.5, jnp.float64)), scaled)
    assert same(weight.scaled(np.float32(2.5)), scaled)
    with pytest.raises(jo.JaxoscError, match=r"gain of shape \(3,\), expected \(\) or \(\)"):
        weight.scaled(jnp.ones(3))
    with pytest.raises(jo.JaxoscError, match="gain holds 1 NaN"):
        weight.scaled(math.nan)


@each_row
def test_a_batch_takes_a_gain_for_each_member(row):
    weights = row.draws(19, 3)
    gains = jnp.array([0.5, -1.0, 2.0])
    expected = np.asarray(gains)[:, None, None] * np.asarray(formed(weights))
    np.testing.assert_allclose(formed(weights.scaled(gains)), expected, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(formed(weights.scaled(2.0)), 2 * np.asarray(formed(weights)), rtol=1e-14)
    vmapped = jax.vmap(lambda weight, gain: weight.scaled(gain))(weights, gains)
    assert same(vmapped, weights.scaled(gains))
    assert jax.vmap(row.draw(19).scaled)(gains).batch_shape == (3,)


@each_row
def test_batch_shape(row):
    assert row.draw(0).batch_shape == ()
    weights = jax.tree.map(lambda leaf: leaf.reshape(1, 3, *leaf.shape[1:]), row.draws(19, 3))
    assert weights.batch_shape == (1, 3)
    assert weights.size == 7
    matrices = formed(weights)
    assert matrices.shape == (1, 3, 7, 7)
    np.testing.assert_array_equal(matrices[0], formed(row.draws(19, 3)))
    inside = []
    jax.vmap(lambda w: inside.append((w.batch_shape, w.size)))(weights)
    assert inside == [((3,), 7)]
    d = weights.energy_weights()
    assert d is None or d.shape == (1, 3, 7)


@each_row
def test_gradients_through_matvec_and_matrix(row):
    weight = row.draw(20)
    u, v = jax.random.normal(jax.random.key(21), (2, 7))

    @jax.jit
    def by_product(w):
        return jax.value_and_grad(lambda w: u @ w.matvec(v))(w)

    def by_matrix(w):
        return u @ (w.matrix() @ v)

    value, gradient = by_product(weight)
    for a, b in zip(leaves(gradient), leaves(jax.jit(jax.grad(by_matrix))(weight)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    rng = np.random.default_rng(22)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), weight)
    slope = sum(np.vdot(a, b) for a, b in zip(leaves(gradient), leaves(direction), strict=True))
    step = 1e-5
    ahead, _ = by_product(jax.tree.map(lambda p, t: p + step * t, weight, direction))
    behind, _ = by_product(jax.tree.map(lambda p, t: p - step * t, weight, direction))
    # Central difference: step^2 = 1e-10 of truncation, eps/step = 2e-11 of rounding, times a few.
    np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=0, atol=3e-9)
    assert abs(slope) > 1e-3
    if row.degree:  # Euler's theorem on homogeneous functions
        along = sum(np.vdot(a, b) for a, b in zip(leaves(gradient), leaves(weight), strict=True))
        np.testing.assert_allclose(along, row.degree * value, rtol=1e-12, atol=1e-14)


def test_one_compilation_serves_every_gain():
    traces = []

    @jax.jit
    def matrix(weight):
        traces.append(weight.size)
        return weight.matrix()

    for gain in (0.1, 1.0, 10.0):
        matrix(DenseSkew.random(jax.random.key(0), 5, gain=gain))
    matrix(DenseSkew.random(jax.random.key(1), 6))
    assert traces == [5, 6]


@each_row
def test_pickling(row):
    weight = row.draws(23, 3)
    loaded = pickle.loads(pickle.dumps(weight))
    assert same(loaded, weight)
    assert repr(loaded) == repr(weight)


def test_repr_says_what_a_person_wants_to_know():
    assert repr(DenseSkew(np.ones((64, 28)))) == "DenseSkew(n=8, batch=(64,), float64)"
    assert repr(DenseSkew(np.ones(28, np.float32))) == "DenseSkew(n=8, float32)"
    assert repr(BandedSkew(np.ones(13), 2)) == "BandedSkew(n=8, bandwidth=2, float64)"
    assert repr(SparseSkew([1.0, 2.0], [(0, 1), (1, 3)])) == "SparseSkew(n=4, edges=2, float64)"
    assert repr(LowRankSkew(np.ones((8, 2)), np.ones((8, 2)))) == "LowRankSkew(n=8, rank=4, float64)"
    assert repr(Bipartite(np.ones((3, 5)))) == "Bipartite(n=8, p=3, float64)"
    assert repr(Symmetrizable(DenseSkew(np.ones(28)), np.ones(8))) == "Symmetrizable(n=8, float64)"
    shapes = jax.eval_shape(lambda: DenseSkew.random(jax.random.key(0), 3))
    assert repr(shapes) == "DenseSkew(n=3, float64)"
    # Trees that are no weights still print.
    assert "entries=None" in repr(eqx.filter(DenseSkew([1.0]), False))


class Path(AbstractWeight):
    """A weight of one's own: neurons on a line, one coupling for all neighbours."""

    skew = True
    hollow = True
    law = "The coupling is gain."
    coupling: jax.Array
    size: int = eqx.field(static=True)

    @property
    def batch_shape(self):
        return self.coupling.shape

    def matrix(self):
        upper = jnp.eye(self.size, k=1)
        return jnp.multiply.outer(self.coupling, upper - upper.T)

    def matvec(self, v):
        return self.coupling * ((jnp.eye(self.size, k=1) - jnp.eye(self.size, k=-1)) @ v)

    def scaled(self, gain):
        return Path(self.coupling * gain, self.size)

    @classmethod
    def random(cls, key, n, *, gain=1.0, dtype=float):
        return cls(jnp.asarray(gain, dtype), n)


def test_a_weight_of_ones_own_works_in_a_field():
    weight = Path(jnp.asarray(2.0), 3)
    assert repr(weight) == "Path(n=3, float64)"
    assert weight.energy_weights() is None
    field = jo.CurrentRNN(weight, jo.Identity())
    np.testing.assert_array_equal(field(0.0, jnp.array([1.0, 0.0, 0.0]), None), [0.0, -2.0, 0.0])
    wrapped = Symmetrizable.from_energy_weights(weight, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(wrapped.matvec(jnp.ones(3)), [4.0, 4.0, -4.0], rtol=1e-14)
    with pytest.raises(TypeError, match="abstract"):
        AbstractWeight()
