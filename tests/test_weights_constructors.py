"""Constructors of weights: what they make of a matrix, and the one sentence for what they refuse."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.csgraph
from weight_rows import (
    each_dtype,
    each_row,
)

import jaxosc as jo
from jaxosc.weights import (
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
