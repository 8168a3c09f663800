"""The random numbers of a sweep: weights, symmetric parts and starts as pure functions of (seed, draw, ic).

A number must not depend on how the work is cut. The key of draw d is folded from the seed and d, and nothing else. That
is not yet enough for bit-equality: a compiled transform (erfinv inside `normal`) may round differently in another batch
shape or at another place in it. So generation always runs in tiles of one fixed shape, and a draw's place within its
tile is a function of its index.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..weights import AbstractWeight
from .spec import Sweep

TILE = 32
"""Draws, and starts of a draw, that are generated together. Part of the data: another tile is another ensemble."""

# Which stream of a draw's key a number comes from.
_WEIGHT, _SYMMETRIC, _STARTS = 0, 1, 2


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """JAX in the width of `dtype` in this thread only, whatever the session's setting: same program, same bits."""
    with jax.enable_x64(dtype == "float64"):
        yield


class Ensemble:
    """Draws of one sweep at one size n and law, for one thread. Call its methods within `precision(sweep.dtype)`."""

    def __init__(self, sweep: Sweep, law: type[AbstractWeight], neurons: int) -> None:
        self._seed, self._law, self._neurons, self._dtype = sweep.seed, law, neurons, np.dtype(sweep.dtype)
        self._start_law = "uniform" if sweep.ic.law == "uniform" else "normal"
        # The last tile of each kind: a shared block asks for one draw after the other.
        self._tiles: dict[Any, tuple[tuple[int, ...], Any]] = {}

    def weights(self, draws: np.ndarray) -> AbstractWeight:
        """The weights of the given draws, one leading axis, in their order."""
        return self._gathered(_weight, (self._law, self._neurons, self._dtype), draws)

    def symmetric_parts(self, draws: np.ndarray) -> Float[np.ndarray, "draws n n"]:
        """M of the given draws: (A + A.T)/sqrt(2) for A with entries N(0, 1)/sqrt(n)."""
        return self._gathered(_symmetric_part, (self._neurons, self._dtype), draws)

    def starts(self, draws: np.ndarray, ics: np.ndarray) -> Float[np.ndarray, "lanes n"]:
        """Raw starts of the pairs (draws[k], ics[k]): entries N(0, 1), or uniform in [-1, 1] for that law."""
        pairs = np.stack([draws // TILE, ics // TILE], axis=-1)
        found = np.empty((len(draws), self._neurons), self._dtype)
        for tile in np.unique(pairs, axis=0):
            here = (pairs == tile).all(axis=-1)
            corner = (int(tile[0]) * TILE, int(tile[1]) * TILE)
            values = self._tile(_start_tile, (self._start_law, self._neurons, self._dtype), corner)
            found[here] = values[draws[here] % TILE, ics[here] % TILE]
        return found

    def _gathered(self, make: Callable[..., Any], facts: tuple[Any, ...], draws: np.ndarray) -> Any:
        tiles, place = np.unique(draws // TILE, return_inverse=True)
        parts = [self._tile(_draw_tile, (make, *facts), (int(tile) * TILE,)) for tile in tiles]
        rows = place * TILE + draws % TILE
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[rows], *parts)

    def _tile(self, program: Callable[..., Any], facts: tuple[Any, ...], corner: tuple[int, ...]) -> Any:
        kept = self._tiles.get(facts)
        if kept is None or kept[0] != corner:
            kept = corner, jax.device_get(program(facts, self._seed, *corner))
            self._tiles[facts] = kept
        return kept[1]


def sized_starts(law: str, radius: float, raw: Float[Array, "lanes n"]) -> Float[Array, "lanes n"]:
    """Starts of size `radius` from raw ones; laws of energies get unit directions here, their size from the field."""
    if law in ("normal", "uniform"):
        return radius * raw
    unit = raw / jnp.linalg.norm(raw, axis=-1, keepdims=True)
    return radius * unit if law == "sphere" else unit


def _draw_key(seed: Any, draw: Any, stream: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), draw)


def _weight(law: type[AbstractWeight], n: int, dtype: np.dtype, seed: Any, draw: Any) -> AbstractWeight:
    # The size is folded in, or the first numbers of a large network would be those of a small one.
    return law.random(jax.random.fold_in(_draw_key(seed, draw, _WEIGHT), n), n, dtype=dtype)


def _symmetric_part(n: int, dtype: np.dtype, seed: Any, draw: Any) -> Float[Array, "n n"]:
    entries = jax.random.normal(jax.random.fold_in(_draw_key(seed, draw, _SYMMETRIC), n), (n, n), dtype)
    return (entries + entries.T) / np.sqrt(2 * n).astype(dtype)


@functools.partial(jax.jit, static_argnums=0)
def _draw_tile(facts: tuple[Any, ...], seed: Any, first: Any) -> Any:
    make, *rest = facts
    return jax.vmap(lambda k: make(*rest, seed, first + k))(jnp.arange(TILE))


@functools.partial(jax.jit, static_argnums=0)
def _start_tile(facts: tuple[Any, ...], seed: Any, first_draw: Any, first_ic: Any) -> Array:
    law, n, dtype = facts

    def one(draw: Array, ic: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(_draw_key(seed, draw, _STARTS), n), ic)
        if law == "uniform":
            return jax.random.uniform(key, (n,), dtype, -1, 1)
        return jax.random.normal(key, (n,), dtype)

    draws, ics = first_draw + jnp.arange(TILE), first_ic + jnp.arange(TILE)
    return jax.vmap(lambda draw: jax.vmap(lambda ic: one(draw, ic))(ics))(draws)
