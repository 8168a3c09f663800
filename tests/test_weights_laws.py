"""Random weights: declared laws, scales, and draws that depend on nothing but their key."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weight_rows import (
    ROWS,
    WITH_ONE_GAIN,
    each_row,
    formed,
    odd_and_even,
    same,
    transposed,
)

import jaxosc as jo
from jaxosc.weights import (
    DenseSkew,
    Symmetrizable,
)


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
