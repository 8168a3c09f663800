"""Hidden skewness: whether W = S diag(d) with S skew and d > 0, and which d.

If it is, A = D^(1/2) W D^(-1/2) is skew, and A's entries do not depend on d: |a_ij| = sqrt(|w_ij w_ji|). Along every
edge of the graph of W the ratio d_j / d_i = |w_ij| / |w_ji| is given, so d follows from any spanning forest, up to one
positive factor for each connected component. The forest of largest |a_ij| takes the entries that are known best. All
other edges, and all signs, then have to fit: that is the residual. W = diag(a) S diag(d) is the same kind of matrix:
its d is d / a.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

_MOST_LOG = 300.0
"""Beyond exp of this, d is clipped: such a matrix is not symmetrizable in any float."""


class Scaling(NamedTuple):
    """The only possible d, and what it makes of W."""

    d: Float64[np.ndarray, "b n"]
    scaled: Float64[np.ndarray, "b n n"]


def best_scaling(matrices: Float64[np.ndarray, "b n n"]) -> Scaling:
    """d (b, n) with geometric mean 1 on each component, and A = D^(1/2) W D^(-1/2) (b, n, n).

    Cost: n steps of O(b n), and a few arrays of the size of `matrices`.
    """
    log_d = _log_weights(matrices)
    half = 0.5 * (log_d[:, :, None] - log_d[:, None, :])
    return Scaling(np.exp(log_d), matrices * np.exp(np.clip(half, -_MOST_LOG, _MOST_LOG)))


def skew_defect(matrices: Float64[np.ndarray, "b n n"]) -> Float64[np.ndarray, " b"]:
    """max |W + W.T| / max |W| of each matrix; 0 for a zero matrix, 2 for a symmetric one."""
    largest = np.abs(matrices).max(axis=(1, 2))
    defect = np.abs(matrices + np.swapaxes(matrices, 1, 2)).max(axis=(1, 2))
    return defect / np.where(largest > 0, largest, 1.0)


def _log_weights(matrices: np.ndarray) -> np.ndarray:
    """log d by Prim's algorithm for the largest spanning forest, all matrices of the batch in step."""
    count, n, _ = matrices.shape
    sizes = np.abs(matrices)
    edges = np.sqrt(sizes * np.swapaxes(sizes, 1, 2))
    edges[:, np.arange(n), np.arange(n)] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log(sizes) - np.log(np.swapaxes(sizes, 1, 2))  # log(d_j / d_i) at [i, j], used along edges only
    members = np.arange(count)
    outside = np.ones((count, n), bool)
    nearest = np.zeros((count, n))  # the strongest edge from the tree to each neuron
    parent = np.zeros((count, n), int)
    log_d, component = np.zeros((count, n)), np.zeros((count, n), int)
    latest = np.full(count, -1)
    for _ in range(n):
        new = np.argmax(np.where(outside, nearest, -1.0), axis=1)
        linked = nearest[members, new] > 0
        source = parent[members, new]
        step = np.where(linked, ratios[members, source, new], 0.0)
        log_d[members, new] = np.where(linked, log_d[members, source], 0.0) + step
        latest = latest + ~linked
        component[members, new] = latest
        outside[members, new] = False
        closer = outside & (edges[members, new] > nearest)
        nearest = np.where(closer, edges[members, new], nearest)
        parent = np.where(closer, new[:, None], parent)
    return np.clip(_centred(log_d, component), -_MOST_LOG, _MOST_LOG)


def _centred(log_d: np.ndarray, component: np.ndarray) -> np.ndarray:
    """log d minus its mean over the component that each neuron is in."""
    count, n = log_d.shape
    place = component + n * np.arange(count)[:, None]
    totals = np.bincount(place.ravel(), weights=log_d.ravel(), minlength=count * n)
    sizes = np.bincount(place.ravel(), minlength=count * n)
    return log_d - (totals / np.maximum(sizes, 1))[place]
