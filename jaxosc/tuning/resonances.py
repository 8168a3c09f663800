"""Relations between frequencies: whole numbers k with k.f = 0, which turn a torus into something else."""

import functools
import itertools

import numpy as np
from jaxtyping import Float, Int


@functools.cache
def relations(count: int, order: int) -> Int[np.ndarray, "relations count"]:
    """All k != 0 of `count` whole numbers with |k_1| + |k_2| + ... <= order, one of each pair k, -k.

    There are about (2 count)^order / (2 order!) of them: 96 for 4 frequencies and order 4, 30,000 for 16.
    """
    found = []
    for size in range(1, order + 1):
        for places in itertools.combinations_with_replacement(range(count), size):
            absolute = np.bincount(places, minlength=count)
            used = np.flatnonzero(absolute)
            for signs in itertools.product((1, -1), repeat=len(used) - 1):
                relation = absolute.copy()
                relation[used[1:]] *= np.array(signs, int)
                found.append(relation)
    return np.array(found)


def nearest_relation(
    frequencies: Float[np.ndarray, "sets count"], order: int
) -> tuple[Int[np.ndarray, "sets count"], Float[np.ndarray, " sets"]]:
    """The k of each set whose |k.f| is smallest, and how small: in units of the fastest frequency."""
    ks = relations(frequencies.shape[1], order)
    off = np.abs(frequencies @ ks.T) / frequencies.max(axis=1, keepdims=True)
    best = off.argmin(axis=1)
    return ks[best], np.take_along_axis(off, best[:, None], axis=1)[:, 0]


def relation_in_words(k: Int[np.ndarray, " count"]) -> str:
    """Such as "2 f1 = f2 + f3", frequencies counted from 1."""
    left, right = (
        " + ".join(f"{'' if size == 1 else f'{size} '}f{place + 1}" for place, size in enumerate(side) if size > 0)
        for side in (k, -k)
    )
    return f"{left or 0} = {right or 0}"
