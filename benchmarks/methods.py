"""The methods that are compared: ours, Diffrax's, SciPy's and heyoka's, each behind the same small interface.

A method makes a runner for a problem, once, so that all its settings share what it compiles. The runner takes a setting
(step size or tolerance) and the times to report, and gives states (members, times, n) and the steps taken per member.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import jaxosc as jo
from jaxosc.solvers.compositions import SWEEPS_PER_STEP
from jaxosc.solvers.mean_values import mean_value

from .problems import Problem

OURS, ENGINE, PEER = "ours", "engine", "peer"
"""Our solver; Diffrax's solver in our engine (`jo.simulate`); somebody else's solver in somebody else's loop."""

Runner = Callable[[float, np.ndarray], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to integrate.

    **Attributes:** `family` of the three above; `knob`, what `short` and `long` are values of: "dt" or "rtol", in the
    runs to t = 100 and in the long ones; `make`, problem to runner; `evaluations`, how often the activation of all
    neurons is evaluated in a step, given problem and setting; `most`, the most members that it is given (one core's
    time grows in proportion for those that take them one by one).
    """

    name: str
    family: str
    knob: str
    short: tuple[float, ...]
    long: tuple[float, ...]
    make: Callable[[Problem], Runner]
    evaluations: Callable[[Problem, float], float]
    most: int | None = None

    def problem(self, problem: Problem) -> Problem:
        """The part of the problem that the method is given."""
        return problem if self.most is None else problem.only(self.most)


def methods_for(n: int) -> list[Method]:
    """All methods that can run here, ours first."""
    found = [*_splittings(n), *_engine(), *_diffrax(n), _scipy()]
    if importlib.util.find_spec("heyoka") is not None:
        found.append(_heyoka(n))
    return found


def missing() -> list[str]:
    """Why a peer is left out, a sentence for each."""
    if importlib.util.find_spec("heyoka") is None:
        return ["heyoka is left out: it is not installed (pip install '.[bench]' brings it where it has a wheel)."]
    return []


def _splittings(n: int) -> list[Method]:
    """What this package is about, and the loop that everybody writes."""
    sweeps = {order: functools.partial(_constant, SWEEPS_PER_STEP[order]) for order in SWEEPS_PER_STEP}
    steps: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
        1: ((0.2, 0.05, 0.02), (0.2,)),
        2: ((0.5, 0.2, 0.1, 0.05, 0.02), (0.5, 0.2)),
        4: ((1.0, 0.625, 0.4, 0.25, 0.125), (1.0, 0.5)),
        6: ((1.0, 0.625, 0.4, 0.25), (1.0, 0.5)),
        8: ((1.25, 1.0, 0.625, 0.4), (1.25, 1.0)),
    }
    found = [
        Method(f"PoissonSplitting({order})", OURS, "dt", *steps[order], _simulated(solver), sweeps[order])
        for order, solver in ((order, jo.solvers.PoissonSplitting(order)) for order in steps)
    ]
    exact = jo.solvers.PoissonSplitting(8, compensated=True)
    found.append(
        Method("PoissonSplitting(8), compensated", OURS, "dt", (0.625,), (1.0,), _simulated(exact), sweeps[8])
    )
    # A round turns a plane of every two neurons: it renews each neuron once, as an evaluation of the activation would.
    rounds = functools.partial(_constant, 2 * (n + n % 2) - 3)
    pair, gradient = jo.solvers.PairSplitting(), jo.solvers.DiscreteGradient()
    found.append(Method("PairSplitting", OURS, "dt", (1.0, 0.5, 0.2), (1.0,), _simulated(pair), rounds))
    steps_of_gradient = (1.0, 0.5, 0.2), (1.0,)
    found.append(
        Method("DiscreteGradient", OURS, "dt", *steps_of_gradient, _simulated(gradient), _discrete_gradient_iterations)
    )
    found.append(Method("euler_loop", OURS, "dt", (0.1, 0.02), (0.1,), _euler_loop, functools.partial(_constant, 1)))
    return found


def _engine() -> list[Method]:
    """Diffrax's tableaux, run by our engine."""
    return [
        Method(
            f"{type(solver).__name__} in jo.simulate", ENGINE, "dt", short, long, _simulated(solver), _stages_of(solver)
        )
        for solver, short, long in (
            (diffrax.Tsit5(), (0.5, 0.25, 0.125), (0.5,)),
            (diffrax.Dopri8(), (1.25, 0.625, 0.4, 0.25), (1.0,)),
        )
    ]


def _diffrax(n: int) -> list[Method]:
    fixed = [
        Method(f"diffrax {type(solver).__name__}", PEER, "dt", short, long, _by_diffrax(solver), _stages_of(solver))
        for solver, short, long in (
            (diffrax.Euler(), (0.1, 0.02), (0.1,)),
            (diffrax.Heun(), (0.2, 0.05), (0.2,)),
            (diffrax.Tsit5(), (0.5, 0.25, 0.125), (0.5,)),
            (diffrax.Dopri8(), (1.25, 0.625, 0.4, 0.25), (1.0,)),
        )
    ]
    adaptive = [
        Method(
            f"diffrax {type(solver).__name__}, adaptive",
            PEER,
            "rtol",
            short,
            long,
            _by_diffrax(solver, adaptive=True),
            evaluations,
        )
        for solver, short, long, evaluations in (
            (diffrax.Tsit5(), (1e-3, 1e-5, 1e-7, 1e-9), (1e-5,), _stages_of(diffrax.Tsit5())),
            (diffrax.Dopri8(), (1e-5, 1e-7, 1e-9, 1e-11), (1e-6, 1e-9, 1e-11), _stages_of(diffrax.Dopri8())),
            (diffrax.Kvaerno5(), (1e-4, 1e-7), (1e-4,), functools.partial(_implicit_evaluations, diffrax.Kvaerno5())),
        )
    ]
    return fixed + adaptive


def _scipy() -> Method:
    # Steps are steps of twelve evaluations here (the runner divides by them), as SciPy counts evaluations.
    return Method(
        "SciPy DOP853", PEER, "rtol", (1e-5, 1e-8, 1e-11), (1e-8,), _by_scipy, functools.partial(_constant, 12), most=2
    )


def _heyoka(n: int) -> Method:
    """Taylor series of the order that the tolerance asks for; an order of a step counts as an evaluation."""
    tolerances = (1e-6, 1e-9, 1e-12, 1e-15) if n <= 8 else (1e-6, 1e-12)
    return Method(
        "heyoka Taylor", PEER, "rtol", tolerances, tolerances[1::2], _by_heyoka, _taylor_order, most=16
    )


def _constant(value: float, problem: Problem, setting: float) -> float:
    return value


def _stages_of(solver: Any) -> Callable[[Problem, float], float]:
    """Evaluations of the field in a step; a last stage that is the first of the next step is not counted."""
    if isinstance(solver, diffrax.Euler):  # the one without a tableau
        return functools.partial(_constant, 1)
    return functools.partial(_constant, len(solver.tableau.b_sol) - bool(solver.tableau.fsal))


def _simulated(solver: Any) -> Callable[[Problem], Runner]:
    def make(problem: Problem) -> Runner:
        starts, field = jnp.asarray(problem.starts), problem.field

        def run(dt: float, ts: np.ndarray) -> tuple[Any, Any]:
            kept = None if len(ts) == 1 else ts
            solution = jo.simulate(field, starts, t1=float(ts[-1]), dt=dt, ts=kept, solver=solver)
            return solution.ys, solution.stats["num_steps"]

        return run

    return make


def _euler_loop(problem: Problem) -> Runner:
    starts, field = jnp.asarray(problem.starts), problem.field

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def loop(starts: Any, dt: Any, num_steps: int, save_every: int) -> Any:
        return jax.vmap(lambda y0: jo.euler_loop(field, y0, dt, num_steps, save_every)[1])(starts)[:, 1:]

    def run(dt: float, ts: np.ndarray) -> tuple[Any, Any]:
        num_steps = round(float(ts[-1]) / dt)
        # Concrete, or `euler_loop` would check a traced step size.
        return loop(starts, dt, num_steps, num_steps // len(ts)), num_steps

    return run


def _by_diffrax(solver: Any, adaptive: bool = False) -> Callable[[Problem], Runner]:
    """`diffeqsolve` under `vmap`, only the end of each interval saved, a scan over the intervals.

    At its best: errors as values (`throw=False`, `EQX_ON_ERROR=nan`), no bound on the steps (a bound makes no forward
    run faster), step sizes and tolerances traced, the first step of an interval as long as those of the one before.
    """

    def make(problem: Problem) -> Runner:
        starts, term = jnp.asarray(problem.starts), diffrax.ODETerm(problem.field)

        @jax.jit
        def solve(starts: Any, setting: Any, durations: Any) -> tuple[Any, Any]:
            def one(y0: Any) -> tuple[Any, Any]:
                def interval(carry: tuple[Any, Any], duration: Any) -> tuple[Any, Any]:
                    y, dt = carry
                    controller = (
                        diffrax.PIDController(rtol=setting, atol=setting) if adaptive else diffrax.ConstantStepSize()
                    )
                    solution = diffrax.diffeqsolve(
                        term,
                        solver,
                        0.0,
                        duration,
                        dt,
                        y,
                        saveat=diffrax.SaveAt(t1=True),
                        stepsize_controller=controller,
                        max_steps=None,
                        throw=False,
                    )
                    y, steps = solution.ys[-1], solution.stats["num_steps"]
                    dt = duration / solution.stats["num_accepted_steps"] if adaptive else dt
                    return (y, dt), (y, steps)

                first = jnp.asarray(0.1) if adaptive else setting
                _, (ys, steps) = jax.lax.scan(interval, (y0, first), durations)
                return ys, jnp.sum(steps)

            return jax.vmap(one)(starts)

        return lambda setting, ts: solve(starts, setting, np.diff(ts, prepend=0.0))

    return make


def _by_scipy(problem: Problem) -> Runner:
    matrix = problem.matrix

    def velocity(t: float, y: np.ndarray) -> np.ndarray:
        return matrix @ np.tanh(y)

    def run(rtol: float, ts: np.ndarray) -> tuple[Any, Any]:
        options = dict(method="DOP853", t_eval=ts, rtol=rtol, atol=rtol)
        solutions = [solve_ivp(velocity, (0, ts[-1]), y0, **options) for y0 in problem.starts]
        return np.stack([solution.y.T for solution in solutions]), np.mean([s.nfev for s in solutions]) / 12

    return run


def _by_heyoka(problem: Problem) -> Runner:
    """Members in batches as wide as the vector registers; what it compiles is kept by tolerance."""
    import heyoka

    n, width = problem.n, heyoka.recommended_simd_size()
    names = heyoka.make_vars(*[f"y{i}" for i in range(n)])
    active = [heyoka.tanh(name) for name in names]
    rows = [
        heyoka.sum([float(problem.matrix[i, j]) * active[j] for j in range(n) if j != i]) for i in range(n)
    ]

    @functools.cache
    def integrator(tol: float) -> Any:
        # Written out, n = 128 would compile for hours; at n = 32 compact mode takes two to four times the time.
        equations, compact = list(zip(names, rows, strict=True)), n > 32
        return heyoka.taylor_adaptive_batch(equations, np.zeros((n, width)), tol=tol, compact_mode=compact)

    def run(tol: float, ts: np.ndarray) -> tuple[Any, Any]:
        members = len(problem.starts)
        taylor, states, steps = integrator(tol), np.zeros((members, len(ts), n)), 0
        for begin in range(0, members, width):
            chosen = np.minimum(np.arange(begin, begin + width), members - 1)
            taylor.set_time(0.0)
            taylor.state[:] = problem.starts[chosen].T
            for number, t in enumerate(ts):
                taylor.propagate_until(float(t))
                states[chosen, number] = taylor.state.T
                steps += sum(result[3] for result in taylor.propagate_res) / width
        return states, steps / -(-members // width)

    return run


def _taylor_order(problem: Problem, tol: float) -> float:
    """The order that heyoka takes: where the remainder e^-2p of its longest steps meets the tolerance."""
    return float(np.ceil(-np.log(tol) / 2 + 1))


def _discrete_gradient_iterations(problem: Problem, dt: float) -> float:
    """Evaluations of the mean activation in a step: the solver's plain iteration done by hand, in its first steps."""
    y = jnp.asarray(problem.starts[: problem.checked].T)
    activation, counts = jo.Tanh(), []

    @jax.jit
    def update(y: Any, d: Any) -> Any:
        return dt * jnp.asarray(problem.matrix) @ mean_value(activation, y, d)

    for _ in range(20):
        d = update(y, jnp.zeros_like(y))
        tolerance = 2 * np.finfo(float).eps * (np.abs(y).max(axis=0) + np.abs(d).max(axis=0))
        change, count = np.inf, 1
        while (change > tolerance).any() and count < 100:
            following = update(y, d)
            change, d, count = np.abs(following - d).max(axis=0), following, count + 1
        y, counts = y + d, [*counts, count + 1]
    return float(np.mean(counts))


def _implicit_evaluations(solver: Any, problem: Problem, rtol: float) -> float:
    """Evaluations of the field in a step of one member, counted by a callback in a short run."""
    count = 0

    def velocity(t: Any, y: Any, args: Any) -> Any:
        def seen(_: Any) -> None:
            nonlocal count
            count += 1

        jax.debug.callback(seen, y[0])
        return problem.field(t, y, args)

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
