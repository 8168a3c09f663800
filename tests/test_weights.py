"""Weights: exact structure, products, and life under JAX's transformations."""

import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weight_rows import (
    ROWS,
    SKEW,
    Row,
    each_dtype,
    each_row,
    each_size,
    even_part,
    formed,
    leaves,
    odd_and_even,
    same,
    transposed,
)

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
