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
import numpy as np

import jaxosc as jo
from jaxosc.solvers.compositions import SWEEPS_PER_STEP
from jaxosc.solvers.taylor import order_for

from .evaluations import discrete_gradient_iterations, implicit_evaluations, stages_of
from .problems import Problem
from .runners import Runner, by_diffrax, by_heyoka, by_scipy, euler_loop, simulated

OURS, ENGINE, PEER = "ours", "engine", "peer"
"""Our solver; Diffrax's solver in our engine (`jo.simulate`); somebody else's solver in somebody else's loop."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to integrate.

    **Attributes:** `family` of the three above; `knob`, what `short` and `long` are values of ("dt" or "rtol") in the
    runs to t = 100 and in the long ones, each `long` one also in `short`; `make`, problem to runner; `evaluations`, how
    often the activation of all neurons is evaluated in a step, given problem and setting; `most`, the most members that
    it is given in short and in long runs, where its time is proportional to them.
    """

    name: str
    family: str
    knob: str
    short: tuple[float, ...]
    long: tuple[float, ...]
    make: Callable[[Problem], Runner]
    evaluations: Callable[[Problem, float], float]
    most: tuple[int, int] | None = None

    def problem(self, problem: Problem, is_long: bool) -> Problem:
        """The part of the problem that the method is given."""
        return problem if self.most is None else problem.only(self.most[is_long])


def methods_for(n: int) -> list[Method]:
    """All methods that can run here, ours first."""
    found = [
        *_splittings(),
        *_energy_conserving(n),
        *_taylor(),
        _loop(),
        *_engine(),
        *_diffrax(),
        _implicit(),
        _scipy(),
    ]
    return [*found, _heyoka(n)] if importlib.util.find_spec("heyoka") is not None else found


def missing() -> list[str]:
    """Which peers are left out and why, a sentence for each."""
    if importlib.util.find_spec("heyoka") is None:
        return ['heyoka is left out, since it is not installed: pip install ".[bench]" brings it where it has a wheel.']
    return []


def _splittings() -> list[Method]:
    steps: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
        1: ((0.5, 0.2, 0.05, 0.02), (0.5, 0.2)),
        2: ((0.5, 0.2, 0.1, 0.05, 0.02), (0.5, 0.2)),
        4: ((1.0, 0.625, 0.4, 0.25, 0.125), (1.0, 0.625)),
        6: ((1.0, 0.625, 0.4, 0.25), (1.0, 0.625)),
        8: ((1.25, 1.0, 0.625, 0.4, 0.25), (1.25, 0.625)),
    }
    return [
        Method(
            f"PoissonSplitting({order})",
            OURS,
            "dt",
            *steps[order],
            simulated(jo.solvers.PoissonSplitting(order)),
            _always(SWEEPS_PER_STEP[order]),
        )
        for order in steps
    ]


def _energy_conserving(n: int) -> list[Method]:
    """The solvers that keep the energy itself."""
    # A round turns planes of two neurons each: it renews every neuron once, as an evaluation of the activation would.
    rounds = _always(2 * (n + n % 2) - 3)
    pair, gradient = jo.solvers.PairSplitting(), jo.solvers.DiscreteGradient()
    tsit5, dopri8 = (jo.solvers.EnergyProjection(solver) for solver in (diffrax.Tsit5(), diffrax.Dopri8()))
    steps = (1.25, 0.8, 0.625, 0.4, 0.2, 0.125)
    return [
        Method("PairSplitting", OURS, "dt", (1.25, 0.5, 0.2), (1.25,), simulated(pair), rounds),
        Method(
            "DiscreteGradient", OURS, "dt", (0.5, 0.2, 0.1), (0.5,), simulated(gradient), discrete_gradient_iterations
        ),
        # The projection evaluates sigma and its derivative once more.
        Method(repr(tsit5), OURS, "dt", (1.0, 0.5, 0.25), (1.0, 0.5), simulated(tsit5), _always(stages_of(tsit5) + 2)),
        Method(repr(dopri8), OURS, "dt", steps, steps, simulated(dopri8), _always(stages_of(dopri8) + 2)),
    ]


def _taylor() -> list[Method]:
    """Taylor series by tolerance, plain and projected (which evaluates sigma and its derivative once more)."""
    plain = jo.solvers.Taylor()
    projected = jo.solvers.EnergyProjection(plain)
    short, long = (1e-3, 1e-4, 1e-6, 1e-9, 1e-12, 1e-15), (1e-4, 1e-6, 1e-12, 1e-15)
    return [
        Method(repr(plain), OURS, "rtol", short, long, simulated(plain, adaptive=True), _order),
        Method(
            repr(projected),
            OURS,
            "rtol",
            short,
            long,
            simulated(projected, adaptive=True),
            lambda problem, tol: _order(problem, tol) + 2,
        ),
    ]


def _order(problem: Problem, tol: float) -> float:
    return float(order_for(tol, tol, np.float64))


def _loop() -> Method:
    """The loop that everybody writes."""
    return Method("euler_loop", PEER, "dt", (0.1, 0.02), (0.1,), euler_loop, _always(1))


def _engine() -> list[Method]:
    """Diffrax's tableaux, run by our engine."""
    steps = {
        diffrax.Tsit5(): ((0.5, 0.25, 0.125), (0.5,)),
        diffrax.Dopri8(): ((1.25, 0.625, 0.4, 0.25), (1.25, 0.625)),
    }
    return [
        Method(f"{_name(solver)} in jo.simulate", ENGINE, "dt", *both, simulated(solver), _always(stages_of(solver)))
        for solver, both in steps.items()
    ]


def _diffrax() -> list[Method]:
    steps = {
        diffrax.Euler(): ((0.1, 0.02), (0.1,)),
        diffrax.Heun(): ((0.2, 0.05), (0.2,)),
        diffrax.Tsit5(): ((0.5, 0.25, 0.125), (0.5,)),
        diffrax.Dopri8(): ((1.25, 0.625, 0.4, 0.25), (1.25, 0.625)),
    }
    tolerances = {
        diffrax.Tsit5(): ((1e-3, 1e-5, 1e-7, 1e-9), (1e-5,)),
        diffrax.Dopri8(): ((1e-5, 1e-7, 1e-9, 1e-11), (1e-5, 1e-9)),
    }
    fixed = [
        Method(f"diffrax {_name(solver)}", PEER, "dt", *both, by_diffrax(solver), _always(stages_of(solver)))
        for solver, both in steps.items()
    ]
    adaptive = [
        Method(
            f"diffrax {_name(solver)}, adaptive",
            PEER,
            "rtol",
            *both,
            by_diffrax(solver, adaptive=True),
            _always(stages_of(solver)),
        )
        for solver, both in tolerances.items()
    ]
    return fixed + adaptive


def _implicit() -> Method:
    """An implicit one. No long runs: at 20 to 80 microseconds for a unit of time of a pair they would take minutes."""
    solver = diffrax.Kvaerno5()
    evaluations = functools.partial(implicit_evaluations, solver)
    runner = by_diffrax(solver, adaptive=True)
    return Method("diffrax Kvaerno5, adaptive", PEER, "rtol", (1e-4, 1e-7), (), runner, evaluations, most=(16, 0))


def _scipy() -> Method:
    # The runner counts steps of twelve evaluations, those of DOP853 without its dense output.
    return Method("SciPy DOP853", PEER, "rtol", (1e-5, 1e-8, 1e-11), (1e-8,), by_scipy, _always(12), most=(2, 1))


def _heyoka(n: int) -> Method:
    """Taylor series of the order that the tolerance asks for; an order of a step counts as an evaluation."""
    # At n = 32 the steps of 1e-15 take 20 seconds to compile.
    tolerances = (1e-6, 1e-9, 1e-12, 1e-15) if n < 32 else (1e-6, 1e-9, 1e-12)
    chosen = (tolerances[0], tolerances[-1])
    return Method("heyoka Taylor", PEER, "rtol", tolerances, chosen, by_heyoka, _taylor_order, most=(16, 16))


def _taylor_order(problem: Problem, tol: float) -> float:
    """The order that heyoka takes for a tolerance (Jorba and Zou, *Experiment. Math.* 14, 2005)."""
    return float(np.ceil(1 - np.log(tol) / 2))


def _always(value: float) -> Callable[[Problem, float], float]:
    return lambda problem, setting: value


def _name(solver: Any) -> str:
    return type(solver).__name__
