"""Weights: Equinox modules whose parameters always give a matrix of the structure that the class names.

| class | matrix | parameters |
|---|---|---|
| `DenseSkew` | any skew matrix | n(n-1)/2 |
| `RotationBlocks` | independent planes of rotation | n // 2 |
| `Circulant` | skew coupling by distance on a ring | (n - 1) // 2 |
| `BandedSkew` | skew, zero beyond a bandwidth b | b (2n - b - 1)/2 |
| `LowRankSkew` | U V.T - V U.T, rank 2r | 2 n r |
| `SparseSkew` | skew, zero but for the edges of a graph | one for each edge |
| `Bipartite` | [[0, B], [-B.T, 0]] | p q |
| `Symmetrizable` | S diag(d), S skew, d > 0 | those of S, and n |
| `Unconstrained` | any matrix | n^2 |

`gain` means the same in every random law but that of `Unconstrained`: the root mean square angular frequency of the
linear network, over its nonzero ones (exactly for odd n, times sqrt(1 - 1/n) for even n). The largest frequency at
gain 1, n = 64, mean of 200 draws: DenseSkew 1.9, RotationBlocks 1.8, Circulant 2.3, BandedSkew 2.2 (bandwidth 1),
SparseSkew 2.1 (degree 4), LowRankSkew 1.0 (rank 2), Bipartite 1.9, Symmetrizable 2.2. It is the spectral norm too,
except for Symmetrizable (3.2). Unconstrained has the norm 2.0 and eigenvalues up to 1.1.
"""

from ._base import AbstractWeight as AbstractWeight
from .dense import DenseSkew as DenseSkew, Unconstrained as Unconstrained
from .low_rank import LowRankSkew as LowRankSkew
from .pattern import SparseSkew as SparseSkew
from .sparse import BandedSkew as BandedSkew, Bipartite as Bipartite
from .spectral import Circulant as Circulant, RotationBlocks as RotationBlocks
from .symmetrizable import Symmetrizable as Symmetrizable
