"""Loops compiled by numba: members in chunks, members last, and a rational tanh, since its own is ten times slower."""

import functools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from jaxosc.native.rational_tanh import BOTTOM, MOST, TOP

from .problems import Problem

CHUNK = 64
"""Members of a chunk: their states stay in the first cache."""


@functools.cache
def rational_tanh(dtype: str) -> Any:
    """tanh of a number of that type, in nothing but multiplications and a division."""
    # Every number of the right type: a literal or a float64 among them makes float64 of float32.
    real = np.dtype(dtype).type
    top, bottom = (polynomial(tuple(map(real, numbers[dtype]))) for numbers in (TOP, BOTTOM))
    most = real(MOST[dtype])

    @numba.njit(fastmath=True, error_model="numpy")
    def tanh(x: Any) -> Any:
        x = min(max(x, -most), most)
        p, q = x * top(x * x), bottom(x * x)
        return (p * q + p * q) / (q * q + p * p)

    return tanh


def polynomial(numbers: tuple[Any, ...]) -> Any:
    """Horner's scheme as functions in each other, which the compiler inlines (it does not unroll loops over tuples)."""
    constant = numbers[0]
    if len(numbers) == 1:
        return numba.njit(lambda s: constant)
    rest = polynomial(numbers[1:])
    return numba.njit(fastmath=True)(lambda s: constant + s * rest(s))


@functools.cache
def euler_kernel(dtype: str) -> Any:
    """W (n, n, 1 or members), starts and ends (n, members), dt and steps to nothing; compiled at the first call."""
    tanh = rational_tanh(dtype)
    real = np.dtype(dtype).type

    @numba.njit(fastmath=True, error_model="numpy")
    def kernel(matrix: Any, starts: Any, ends: Any, dt: Any, num_steps: Any) -> None:
        n, members = starts.shape
        active = np.empty((n, CHUNK), real)
        change = np.empty(CHUNK, real)
        y = np.empty((n, CHUNK), real)
        mine = np.empty((n, n, min(CHUNK, matrix.shape[2])), real)
        mine[:] = matrix[:, :, : mine.shape[2]]
        for begin in range(0, members, CHUNK):
            width = min(CHUNK, members - begin)
            y[:, :width] = starts[:, begin : begin + width]
            if matrix.shape[2] > 1:
                mine[:, :, :width] = matrix[:, :, begin : begin + width]
            for _ in range(num_steps):
                for i in range(n):
                    for k in range(width):
                        active[i, k] = tanh(y[i, k])
                for i in range(n):
                    change[:] = real(0)
                    for j in range(n):
                        if matrix.shape[2] == 1:
                            w = mine[i, j, 0]
                            for k in range(width):
                                change[k] += w * active[j, k]
                        else:
                            for k in range(width):
                                change[k] += mine[i, j, k] * active[j, k]
                    for k in range(width):
                        y[i, k] += dt * change[k]
            ends[:, begin : begin + width] = y[:, :width]

    return kernel


def by_numba(problem: Problem, dt: float, num_steps: int) -> Callable[[], np.ndarray]:
    """As `euler_loops`: final states (members, n)."""
    kernel = euler_kernel(problem.starts.dtype.name)
    matrix = np.moveaxis(problem.matrix, 0, -1) if problem.is_own else problem.matrix[..., None]
    matrix, starts = np.ascontiguousarray(matrix), np.ascontiguousarray(problem.starts.T)
    step = problem.starts.dtype.type(dt)

    def run() -> np.ndarray:
        ends = np.empty_like(starts)
        kernel(matrix, starts, ends, step, num_steps)
        return ends.T

    return run
