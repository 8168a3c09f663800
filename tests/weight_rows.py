"""The table of random laws that all tests of weights go through, and what they have in common."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
