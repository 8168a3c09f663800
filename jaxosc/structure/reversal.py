"""Time reversal: signed permutations R of the neurons with R R = 1 and R W R = -W.

If R commutes with the activation, y(t) -> R y(-t) takes solutions to solutions, and an orbit that meets the fixed
points of R twice closes. Permutations commute with every elementwise sigma, changes of sign with odd ones. A network
of two groups that see only each other has R = diag(1, ..., -1, ...). The search goes neuron by neuron along the
connections, where W prunes it; it gives up after a fixed number of attempts, so None means "none was found".
Source: Lamb, Roberts, *Time-reversal symmetry in dynamical systems: a survey* (1998), section 2.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

_MOST_ATTEMPTS = 10_000


def time_reversal(
    matrix: Float64[np.ndarray, "n n"], tolerance: float, *, signs: bool
) -> Float64[np.ndarray, "n n"] | None:
    """R (n, n) of entries 0, 1 and -1 with R R = 1 and max |R W R + W| <= tolerance max |W|, or None.

    **Arguments:** `signs`: whether neurons may change sign, which needs an odd activation.
    """
    largest = np.abs(matrix).max()
    if largest == 0:
        return np.eye(len(matrix))
    search = _Search(matrix / largest, tolerance, (1, -1) if signs else (1,))
    if not search.succeeds():
        return None
    reversal = np.zeros_like(matrix)
    reversal[search.image, np.arange(len(matrix))] = search.sign
    return reversal


class _Search:
    """A depth-first search; `image[i]` is where neuron i goes (-1: not yet), `sign[i]` with which sign."""

    def __init__(self, matrix: np.ndarray, tolerance: float, signs: tuple[int, ...]):
        self.matrix = matrix
        self.tolerance = tolerance
        self.signs = signs
        self.order = _along_connections(matrix, tolerance)
        self.image = np.full(len(matrix), -1)
        self.sign = np.zeros(len(matrix))
        self.attempts = 0

    def succeeds(self) -> bool:
        """Place all neurons, taking the last one back where none fits; whether that worked."""
        open_choices = [self._choices()]
        while open_choices and self.attempts <= _MOST_ATTEMPTS:
            found = any(self._fits(i) for i in open_choices[-1])  # stops at the first, which stays placed
            if found and (self.image >= 0).all():
                return True
            if found:
                open_choices.append(self._choices())
            else:
                open_choices.pop()
        return False

    def _choices(self) -> Iterator[int]:
        """Exchange the next neuron of the order with itself or another, with either sign, one after the other."""
        i = next(neuron for neuron in self.order if self.image[neuron] < 0)
        # R and -R reverse alike, so the first neuron keeps its sign.
        signs = self.signs[:1] if (self.image < 0).all() else self.signs
        free = [int(j) for j in np.flatnonzero(self.image < 0) if j != i]
        for partner in (i, *free):
            for sign in signs:
                self.attempts += 1
                self.image[[i, partner]] = partner, i
                self.sign[[i, partner]] = sign
                yield i
                self.image[[i, partner]] = -1

    def _fits(self, i: int) -> bool:
        """Whether W between neuron i and all that are placed turns its sign; for its partner it says the same."""
        placed = np.flatnonzero(self.image >= 0)
        target, sign = self.image[placed], self.sign[i] * self.sign[placed]
        out = self.matrix[self.image[i], target] * sign + self.matrix[i, placed]
        back = self.matrix[target, self.image[i]] * sign + self.matrix[placed, i]
        return bool(max(np.abs(out).max(), np.abs(back).max()) <= self.tolerance)


def _along_connections(matrix: np.ndarray, tolerance: float) -> list[int]:
    """The neurons, each after one that it is connected with where there is one."""
    linked = (np.abs(matrix) > tolerance) | (np.abs(matrix.T) > tolerance)
    seen = np.zeros(len(matrix), bool)
    order: list[int] = []
    for start in range(len(matrix)):
        walk = [] if seen[start] else [start]
        seen[start] = True
        for i in walk:  # grows while it is read: breadth first
            new = np.flatnonzero(linked[i] & ~seen)
            seen[new] = True
            walk += new.tolist()
        order += walk
    return order
