"""How often a step evaluates the activation of all neurons, where no table says so."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import jaxosc as jo
from jaxosc.solvers.mean_values import mean_value

from .problems import Problem


def stages_of(solver: Any) -> int:
    """Of an explicit Runge-Kutta method; a last stage that is the first of the next step is not counted."""
    if isinstance(solver, jo.solvers.EnergyProjection):
        return stages_of(solver.solver)
    if isinstance(solver, diffrax.Euler):  # the one without a tableau
        return 1
    return len(solver.tableau.b_sol) - bool(solver.tableau.fsal)


def discrete_gradient_iterations(problem: Problem, dt: float) -> float:
    """Of `DiscreteGradient`: its plain iteration done by hand, in the first steps."""
    y = jnp.asarray(problem.starts[: problem.checked].T)
    matrix, activation = jnp.asarray(problem.matrix), jo.Tanh()
    counts: list[int] = []

    @jax.jit
    def update(y: Any, d: Any) -> Any:
        return dt * jnp.matmul(matrix, mean_value(activation, y, d), precision="highest")

    for _ in range(10):
        d, count, change, tolerance = update(y, jnp.zeros_like(y)), 1, np.inf, 0.0
        while np.any(change > tolerance) and count < 64:
            following = update(y, d)
            change = np.abs(following - d).max(axis=0)
            tolerance = 2 * np.finfo(float).eps * (np.abs(y).max(axis=0) + np.abs(d).max(axis=0))
            d, count = following, count + 1
        y, counts = y + d, [*counts, count]
    return float(np.mean(counts))


def implicit_evaluations(solver: Any, problem: Problem, rtol: float) -> float:
    """Of an adaptive implicit solver: counted by a callback in a short run of one member."""
    field, count = problem.field, 0

    def seen(_: Any) -> None:
        nonlocal count
        count += 1

    def velocity(t: Any, y: Any, args: Any) -> Any:
        jax.debug.callback(seen, y[0])
        return field(t, y, args)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        solver,
        0.0,
        20.0,
        0.1,
        jnp.asarray(problem.starts[0]),
        saveat=diffrax.SaveAt(t1=True),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
        throw=False,
    )
    jax.block_until_ready(solution.ys)
    jax.effects_barrier()
    return count / int(solution.stats["num_steps"])
