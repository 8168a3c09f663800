"""The least time that one Euler step can take: a tanh and n multiply-adds for each neuron, at the machine's own speed.

Both speeds are measured when the benchmark runs, by loops in C that do nothing else, in cache and in registers. The sum
is a limit for programs that do one after the other on the vector units: overlapping them can come out a little below,
and products on the tile unit that some processors have, far below.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

from .reference import library

TANH_COUNT = 2048
"""As in the C file."""

FMA_CHAINS = 16
"""As in the C file."""

ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one core: `tanh`, nanoseconds for one; `gflops`, 10^9 multiplications and additions a second."""

    tanh: float
    gflops: float

    def euler(self, n: int) -> float:
        """Nanoseconds per neuron and step."""
        return self.tanh + 2 * n / self.gflops


@functools.cache
def limits(dtype: str) -> Limits:
    """Measured once for each type: the best of a few rounds, since a limit is what nothing disturbed."""
    loaded, width = library(8, dtype), library(8, dtype).vector_width()
    tanh_turns, fma_turns = 2_000, 1_000_000
    tanh = best(lambda: loaded.tanh_turns(1.0, tanh_turns)) / (TANH_COUNT * tanh_turns)
    fma = best(lambda: loaded.fma_turns(0.5, 0.1, fma_turns)) / (2 * FMA_CHAINS * width * fma_turns)
    return Limits(1e9 * tanh, 1e-9 / fma)


def best(run: Callable[[], object]) -> float:
    """The least CPU seconds of a few calls."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return min(seconds)
