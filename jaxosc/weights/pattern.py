"""Skew weights of a given graph: which neurons meet is fixed, how strongly is a parameter."""

import functools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self, SupportsIndex

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxosc._checks import is_concrete
from jaxosc._errors import JaxoscError

from ._base import AbstractWeight
from ._checks import (
    Values,
    check_vector,
    checked_dtype,
    checked_parameters,
    checked_size,
    concrete_skew,
    scaled_parameters,
)
from ._draws import normals, times
from ._mirror import mirrored

Edges = tuple[tuple[int, int], ...]


class SparseSkew(AbstractWeight):
    """A skew matrix that is zero but for the pairs of neurons in `edges`: a graph of who meets whom.

    `matvec` costs 2 n k operations, k the most partners that a neuron has. A splitting step goes group by group of
    neurons that never meet (`colours`), however large n is.

    Args:
        entries: W[i, j] for each edge (i, j), shape (..., m).
        edges: m pairs (i, j) of different neurons; kept as i < j in rising order, entries with them.
        size: n; by default the largest neuron in `edges` and the ones before it.

    Raises `JaxoscError` when an edge is not a pair of different neurons 0 .. n - 1, stands there twice, or their number
    is not that of the entries; when an entry is not finite; when n < 2.
    """

    entries: Float[Array, "*batch m"]
    size: int = eqx.field(static=True)
    edges: Edges = eqx.field(static=True)
    skew: ClassVar[bool] = True
    hollow: ClassVar[bool] = True
    law: ClassVar[str] = (
        "A ring through all neurons in random order and further random pairs, n degree / 2 edges in all, the same for "
        "every key; their entries are independent, gain * N(0, 1) sqrt((n-1)/(2 m)) with m the number of edges."
    )

    def __init__(self, entries: Values, edges: Iterable[Any], size: SupportsIndex | None = None) -> None:
        values = checked_parameters("SparseSkew", entries, axes=1)
        pairs = [tuple(operator.index(neuron) for neuron in edge) for edge in edges]
        others = [pair for pair in pairs if len(pair) != 2]
        if others:
            raise JaxoscError(f"SparseSkew got the edge {others[0]}, expected pairs (i, j).")
        if len(pairs) != values.shape[-1] or not pairs:
            raise JaxoscError(
                f"SparseSkew got {values.shape[-1]} entries for {len(pairs)} edges, expected one for each, and one at "
                "least; use SparseSkew.from_matrix for a full matrix."
            )
        largest = max(max(pair) for pair in pairs)
        self.size = largest + 1 if size is None else checked_size("SparseSkew", size)
        _check_edges(pairs, self.size)
        order = sorted(range(len(pairs)), key=lambda k: tuple(sorted(pairs[k])))
        self.edges = tuple((min(pairs[k]), max(pairs[k])) for k in order)
        sign = np.array([1 if pairs[k][0] < pairs[k][1] else -1 for k in order])
        # Most edges are given in order already: nothing is then done to the entries (a tracer, or a batch).
        if order != list(range(len(pairs))):
            values = values[..., np.array(order)]
        self.entries = values if np.all(sign == 1) else values * sign.astype(values.dtype)

    @classmethod
    def from_matrix(cls, matrix: Any) -> Self:
        """The weight of a skew matrix, shape (n, n), with the edges where it is not zero.

        A SciPy sparse matrix is taken as well. What counts as skew is said in `DenseSkew.from_matrix`.

        Raises `JaxoscError` when W is not square, smaller than 2 x 2, not finite, or not skew, when it is zero, and
        under a JAX transformation, where nobody can see which entries are zero.
        """
        name = "SparseSkew.from_matrix"
        if not is_concrete(matrix):
            raise JaxoscError(f"{name} got a traced matrix, expected values: pass entries and edges, or DenseSkew.")
        array = concrete_skew(name, matrix.toarray() if hasattr(matrix, "toarray") else matrix)
        upper = np.triu(0.5 * array - 0.5 * array.T, 1)
        rows, columns = np.nonzero(upper)
        if not len(rows):
            raise JaxoscError(f"{name} got a matrix of zeros, expected at least one pair of neurons that meet.")
        return cls(upper[rows, columns], zip(rows.tolist(), columns.tolist(), strict=True), len(array))

    @classmethod
    def random(
        cls,
        key: PRNGKeyArray,
        n: SupportsIndex,
        *,
        degree: float | int = 4,
        graph: int = 0,
        gain: ArrayLike = 1.0,
        dtype: DTypeLike = float,
    ) -> Self:
        """Normal entries on a random connected graph in which a neuron meets `degree` others on average.

        The graph depends on n, `degree` and the integer `graph`, not on the key: a batch of keys has one graph. It
        holds a ring, so that the degree is at least 2 (n - 1 at most: all pairs).

        Raises `JaxoscError` also for a degree that is not a number above 0.
        """
        size = checked_size("SparseSkew", n)
        if not 0 < degree < math.inf:
            raise JaxoscError(f"SparseSkew got degree={degree}, expected a number above 0, like 4.")
        edges = _random_graph(size, float(degree), operator.index(graph))
        draws = normals(key, (len(edges),), checked_dtype(dtype))
        return cls(times(draws, math.sqrt((size - 1) / (2 * len(edges))), gain), edges, size)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the entries."""
        return self.entries.shape[:-1]

    @property
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """Groups of neurons that never meet, by a greedy colouring: two for a graph that is bipartite."""
        return _colouring(self.size, self.edges)

    def matrix(self) -> Float[Array, "*batch n n"]:
        """The skew matrix, exactly."""
        index = np.full((self.size, self.size), -1)
        rows, columns = np.array(self.edges).T
        index[rows, columns] = np.arange(len(self.edges))
        return mirrored(self.entries, index)

    def matvec(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """`W @ v`."""
        check_vector(self, v)
        neighbours, places, signs = _partners(self.size, self.edges)
        return jnp.sum(self.entries[places] * signs.astype(self.dtype) * v[neighbours], axis=1)

    def scaled(self, gain: ArrayLike) -> Self:
        """The weight of `gain * W`."""
        return eqx.tree_at(lambda w: w.entries, self, scaled_parameters(self, self.entries, gain))


def _check_edges(pairs: Sequence[tuple[int, ...]], size: int) -> None:
    seen: set[tuple[int, int]] = set()
    for i, j in pairs:
        pair = min(i, j), max(i, j)
        if i == j or pair[0] < 0 or pair[1] >= size:
            raise JaxoscError(f"SparseSkew got the edge {(i, j)}, expected two different neurons of 0 .. {size - 1}.")
        if pair in seen:
            raise JaxoscError(f"SparseSkew got the edge {(i, j)} twice (a pair and its mirror are one), drop one.")
        seen.add(pair)


@functools.lru_cache(maxsize=256)
def _random_graph(size: int, degree: float, graph: int) -> Edges:
    """A ring in random order and other pairs, drawn without repetition until n degree / 2 edges are there."""
    rng = np.random.default_rng((size, graph))
    order = rng.permutation(size).tolist()
    ring = {(min(i, j), max(i, j)) for i, j in zip(order, order[1:] + order[:1], strict=True)}
    others = [pair for pair in zip(*np.triu_indices(size, 1), strict=True) if pair not in ring]
    more = max(0, min(round(size * degree / 2) - len(ring), len(others)))
    chosen = rng.choice(len(others), more, replace=False).tolist() if more else []
    return tuple(sorted(ring | {(int(others[k][0]), int(others[k][1])) for k in chosen}))


@functools.lru_cache(maxsize=256)
def _partners(size: int, edges: Edges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each neuron its partners, the places of their entries and the signs, shape (n, most partners), padded."""
    lists: list[list[tuple[int, int, int]]] = [[] for _ in range(size)]
    for place, (i, j) in enumerate(edges):
        lists[i].append((j, place, 1))
        lists[j].append((i, place, -1))
    most = max(len(row) for row in lists)
    padded = np.array([row + [(0, 0, 0)] * (most - len(row)) for row in lists])
    return padded[..., 0], padded[..., 1], padded[..., 2]


@functools.lru_cache(maxsize=256)
def _colouring(size: int, edges: Edges) -> tuple[tuple[int, ...], ...]:
    """Neuron by neuron, the one with the most colours among its partners first (DSATUR).

    D. Brélaz, *Commun. ACM* 22 (1979) 251-256. With two colours where two suffice, seldom more than one above the least
    elsewhere.
    """
    partners: list[set[int]] = [set() for _ in range(size)]
    for i, j in edges:
        partners[i].add(j)
        partners[j].add(i)
    colour: dict[int, int] = {}
    forbidden: list[set[int]] = [set() for _ in range(size)]
    while len(colour) < size:
        free = (i for i in range(size) if i not in colour)
        chosen = max(free, key=lambda i: (len(forbidden[i]), len(partners[i]), -i))
        colour[chosen] = next(c for c in range(size) if c not in forbidden[chosen])
        for other in partners[chosen]:
            forbidden[other].add(colour[chosen])
    return tuple(tuple(i for i in range(size) if colour[i] == c) for c in range(1 + max(colour.values())))
