"""How each library integrates many members to many times, at its documented best on one core."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import jaxosc as jo

from .problems import Problem

Runner: TypeAlias = Callable[[float, np.ndarray], tuple[Any, Any]]
"""(setting, times) to states (members, times, n) and steps per member, a mean or one for each."""


def simulated(solver: Any, adaptive: bool = False) -> Callable[[Problem], Runner]:
    """`jo.simulate`, called as people call it: outside of a jit, so that each call pays for its checks in Python.

    The setting is dt, or both tolerances.
    """

    def make(problem: Problem) -> Runner:
        starts, field = jnp.asarray(problem.starts), problem.field

        def run(setting: float, ts: np.ndarray) -> tuple[Any, Any]:
            kept = None if len(ts) == 1 else ts
            steps: dict[str, Any] = dict(rtol=setting, max_steps=100_000_000) if adaptive else dict(dt=setting)
            solution = jo.simulate(field, starts, t1=float(ts[-1]), ts=kept, solver=solver, **steps)
            return solution.ys, solution.stats["num_steps"]

        return run

    return make


def simulated_adaptively(solver: Any) -> Callable[[Problem], Runner]:
    """The same with steps that follow a tolerance, the relative and the absolute one being equal."""

    def make(problem: Problem) -> Runner:
        starts, field = jnp.asarray(problem.starts), problem.field

        def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
            kept = None if len(ts) == 1 else ts
            solution = jo.simulate(field, starts, t1=float(ts[-1]), ts=kept, solver=solver, rtol=rtol, atol=rtol)
            return solution.ys, solution.stats["num_steps"]

        return run

    return make


def euler_loop(problem: Problem) -> Runner:
    """The hand-written loop under `vmap` and `jit`; equal intervals between the times."""
    starts, field = jnp.asarray(problem.starts), problem.field

    @functools.partial(jax.jit, static_argnums=(1, 2, 3))
    def loop(starts: Any, dt: float, num_steps: int, save_every: int) -> Any:
        return jax.vmap(lambda y0: jo.euler_loop(field, y0, dt, num_steps, save_every)[1][1:])(starts)

    def run(dt: float, ts: np.ndarray) -> tuple[Any, Any]:
        num_steps = round(float(ts[-1]) / dt)
        return loop(starts, dt, num_steps, num_steps // len(ts)), num_steps

    return run


def by_diffrax(solver: Any, adaptive: bool = False, width: int | None = None) -> Callable[[Problem], Runner]:
    """`diffrax.diffeqsolve` under `vmap` and `jit`.

    At its best: failures as values (`throw=False`, `EQX_ON_ERROR=nan`); no bound on the steps (measured: an exact bound
    makes no forward run faster, and costs a compilation each); step size and tolerance traced; and only the end of an
    interval saved, with a scan over the intervals, which begin with the mean step of the one before. `width`: so many
    members at a time, each with a network of its own; all at once if None.
    """

    def make(problem: Problem) -> Runner:
        starts, matrix = jnp.asarray(problem.starts), jnp.asarray(problem.matrix)
        term = diffrax.ODETerm(lambda t, y, matrix: matrix @ jnp.tanh(y))

        def one_interval(matrix: Any, setting: Any, carry: tuple[Any, Any], duration: Any) -> tuple[Any, Any]:
            y, dt = carry
            controller = diffrax.PIDController(rtol=setting, atol=setting) if adaptive else diffrax.ConstantStepSize()
            solution = diffrax.diffeqsolve(
                term,
                solver,
                0.0,
                duration,
                dt,
                y,
                matrix,
                saveat=diffrax.SaveAt(t1=True),
                stepsize_controller=controller,
                max_steps=None,
                throw=False,
            )
            dt = duration / solution.stats["num_accepted_steps"] if adaptive else dt
            return (solution.ys[-1], dt), (solution.ys[-1], solution.stats["num_steps"])

        @jax.jit
        def solve(matrix: Any, starts: Any, setting: Any, durations: Any) -> tuple[Any, Any]:
            def one(matrix: Any, y0: Any) -> tuple[Any, Any]:
                first = jnp.asarray(0.1, y0.dtype) if adaptive else setting
                interval = functools.partial(one_interval, matrix, setting)
                _, (ys, steps) = jax.lax.scan(interval, (y0, first), durations)
                return ys, jnp.sum(steps)

            if width is not None:
                return jax.lax.map(lambda both: one(*both), (matrix, starts), batch_size=width)
            return jax.vmap(one, in_axes=(0 if problem.is_own else None, 0))(matrix, starts)

        def run(setting: float, ts: np.ndarray) -> tuple[Any, Any]:
            durations = jnp.asarray(np.diff(ts, prepend=0.0), starts.dtype)
            return solve(matrix, starts, jnp.asarray(setting, starts.dtype), durations)

        return run

    return make


def by_scipy(problem: Problem) -> Runner:
    """SciPy's DOP853, member by member. Steps are evaluations over 12."""

    def solved(matrix: np.ndarray, y0: np.ndarray, rtol: float, ts: np.ndarray) -> Any:
        options = dict(method="DOP853", t_eval=ts, rtol=rtol, atol=rtol)
        return solve_ivp(lambda t, y: matrix @ np.tanh(y), (0, ts[-1]), y0, **options)

    matrices = np.broadcast_to(problem.matrix, (len(problem.starts), problem.n, problem.n))

    def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
        solutions = [solved(matrix, y0, rtol, ts) for matrix, y0 in zip(matrices, problem.starts, strict=True)]
        return np.stack([solution.y.T for solution in solutions]), np.mean([s.nfev for s in solutions]) / 12

    return run


def by_heyoka(problem: Problem) -> Runner:
    """heyoka's Taylor integrator, members in batches as wide as the vector registers; what it compiles is kept.

    Weights that each member has for itself are run-time parameters.
    """
    import heyoka

    n, width = problem.n, heyoka.recommended_simd_size()
    names = heyoka.make_vars(*[f"y{i}" for i in range(n)])
    active = [heyoka.tanh(name) for name in names]

    def entry(i: int, j: int) -> Any:
        return heyoka.par[i * n + j] if problem.is_own else float(problem.matrix[i, j])

    rows = [heyoka.sum([entry(i, j) * active[j] for j in range(n) if j != i]) for i in range(n)]

    @functools.cache
    def integrator(tol: float) -> Any:
        # Compact mode is two to four times slower at n = 32; written out, n = 128 would compile for many minutes.
        equations = list(zip(names, rows, strict=True))
        return heyoka.taylor_adaptive_batch(equations, np.zeros((n, width)), tol=tol, compact_mode=n > 32)

    def run(tol: float, ts: np.ndarray) -> tuple[Any, Any]:
        members, taylor, steps = len(problem.starts), integrator(tol), 0.0
        states = np.zeros((members, len(ts), n))
        for begin in range(0, members, width):
            chosen = np.minimum(np.arange(begin, begin + width), members - 1)
            taylor.set_time(0.0)
            taylor.state[:] = problem.starts[chosen].T
            if problem.is_own:
                # The parameters end with the last one that the equations name.
                taylor.pars[:] = problem.matrix[chosen].reshape(width, n * n).T[: len(taylor.pars)]
            for number, t in enumerate(ts):
                taylor.propagate_until(float(t))
                states[chosen, number] = taylor.state.T
                steps += float(np.mean([result[3] for result in taylor.propagate_res]))
        return states, steps / -(-members // width)

    return run
