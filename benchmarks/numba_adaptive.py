"""Tsit5 compiled by numba, member by member, each with step sizes of its own: what people write who do not use JAX."""

import functools
from typing import Any

import diffrax
import numba
import numpy as np

from .numba_loops import rational_tanh
from .problems import Problem
from .runners import Runner

FIRST, SAFETY, LEAST, MOST = 0.1, 0.9, 0.2, 10.0
"""The first step, and how a step may change: Diffrax's own settings."""


@functools.cache
def tsit5_kernel() -> Any:
    """(W (n, n) or one each, starts and ends (members, n), steps (members,), tolerance, t1) to nothing."""
    tableau = diffrax.Tsit5().tableau
    stages = len(tableau.b_sol)
    lower = np.zeros((stages, stages))
    for row, numbers in enumerate(tableau.a_lower):
        lower[row + 1, : row + 1] = numbers
    error_weights, tanh = np.asarray(tableau.b_error), rational_tanh("float64")

    @numba.njit(fastmath=True, error_model="numpy")
    def velocity(matrix: Any, y: Any, active: Any, out: Any) -> None:
        n = len(y)
        for i in range(n):
            active[i] = tanh(y[i])
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += matrix[i, j] * active[j]
            out[i] = total

    @numba.njit(fastmath=True, error_model="numpy")
    def kernel(matrices: Any, starts: Any, ends: Any, steps: Any, rtol: float, t1: float) -> None:
        members, n = starts.shape
        k = np.empty((stages, n))
        trial, active = np.empty(n), np.empty(n)
        for member in range(members):
            matrix = matrices[min(member, len(matrices) - 1)]
            y = starts[member].copy()
            t, dt, count = 0.0, FIRST, 0
            velocity(matrix, y, active, k[0])
            while t < t1:
                dt = min(dt, t1 - t)
                # The last stage is the first of the next step, and its state is the new one.
                for stage in range(1, stages):
                    for i in range(n):
                        total = 0.0
                        for before in range(stage):
                            total += lower[stage, before] * k[before, i]
                        trial[i] = y[i] + dt * total
                    velocity(matrix, trial, active, k[stage])
                norm = 0.0
                for i in range(n):
                    error = 0.0
                    for stage in range(stages):
                        error += error_weights[stage] * k[stage, i]
                    scale = rtol + rtol * max(abs(y[i]), abs(trial[i]))
                    norm += (dt * error / scale) ** 2
                norm = np.sqrt(norm / n)
                count += 1
                if norm <= 1.0:
                    t = t1 if t + dt >= t1 * (1 - 1e-14) else t + dt
                    y[:] = trial
                    k[0] = k[stages - 1]
                dt *= min(MOST, max(LEAST, SAFETY * max(norm, 1e-10) ** -0.2))
            ends[member] = y
            steps[member] = count

    return kernel


def by_numba(problem: Problem) -> Runner:
    """To the last of the times only."""
    kernel = tsit5_kernel()
    matrices = problem.matrix if problem.is_own else problem.matrix[None]

    def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
        ends, steps = np.empty_like(problem.starts), np.empty(len(problem.starts), np.int64)
        kernel(matrices, problem.starts, ends, steps, rtol, float(ts[-1]))
        return ends[:, None], steps

    return run
