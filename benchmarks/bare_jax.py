"""Euler in JAX with nothing around it: what the compiler can do, to tell its limits from what `jo.simulate` adds.

Members last; chunks whose states (and weights) stay in cache go through their whole time loop. No checks, no freezing
of members that escape, one fixed number of steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .problems import Problem

COLUMNS_UP_TO, OWN_COLUMNS_UP_TO = 11, 32
"""Up to this n a product is a sum of columns; beyond, a matrix product."""


def chunk_width(n: int, is_own: bool) -> int:
    """How many members go together, the fastest of a few that were tried on one machine."""
    if is_own:
        return 256 if n <= 4 else 64 if n <= 16 else 8 if n <= OWN_COLUMNS_UP_TO else 4
    return 128 if n <= COLUMNS_UP_TO else 1024


def bare(problem: Problem, dt: float, num_steps: int) -> Callable[[], Any]:
    """Final states (members, n), by a function without arguments; whole chunks only."""
    n, members = problem.n, len(problem.starts)
    width = min(chunk_width(n, problem.is_own), members)
    chunks = members // width
    by_columns = n <= (OWN_COLUMNS_UP_TO if problem.is_own else COLUMNS_UP_TO)
    starts = jnp.asarray(problem.starts[: chunks * width]).reshape(chunks, width, n)
    matrix = jnp.asarray(problem.matrix)
    if problem.is_own:
        matrix = matrix[: chunks * width].reshape(chunks, width, n, n)
    if by_columns:
        # Laid out beforehand: the compiler would merge the change of layout into each step.
        matrix = jnp.moveaxis(matrix, 1, -1) if problem.is_own else matrix[..., None]

    def velocity(matrix: Any, y: Any) -> Any:
        active = jnp.tanh(y)
        if not by_columns:
            return jnp.einsum("mij,jm->im", matrix, active) if problem.is_own else matrix @ active
        total = matrix[:, 0] * active[0]
        for j in range(1, n):
            total = total + matrix[:, j] * active[j]
        return total

    def chunk(matrix: Any, starts: Any) -> Any:
        return jax.lax.fori_loop(0, num_steps, lambda _, y: y + dt * velocity(matrix, y), starts.T).T

    @jax.jit
    def run(matrix: Any, starts: Any) -> Any:
        if problem.is_own:
            ends = jax.lax.map(lambda both: chunk(*both), (matrix, starts))
        else:
            ends = jax.lax.map(lambda y0: chunk(matrix, y0), starts)
        return ends.reshape(-1, n)

    return lambda: run(matrix, starts)
