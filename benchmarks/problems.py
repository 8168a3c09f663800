"""The networks that are integrated, their true solutions, and the three errors: state, energy, period.

One random skew W of spectral norm 1 for each n (n = 2: the pair of angular frequency 1), tanh, starts from a standard
normal distribution: |y_i| of about 1, where n >= 8 is chaotic. There a state can be right up to some time only, so it
is compared at t = 100. The energy is conserved for ever, and so is the period of the pair.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.special import ellipkinc, ellipkm1

import jaxosc as jo

SHORT = 100.0
"""When states are compared: about 15 turns, and the most that chaos leaves of eps is 1e-14 exp(0.04 * 100) = 5e-13."""

REFERENCE_DT = 0.05
"""At this step the methods of order 8 are at rounding: halving it changes nothing."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One network, or one for each member, and many starts; errors are those of the first `checked` members."""

    n: int
    matrix: Float[np.ndarray, "*members n n"]
    starts: Float[np.ndarray, "members n"]
    checked: int

    @functools.cached_property
    def field(self) -> jo.CurrentRNN:
        """The network, or the batch of them."""
        return jo.CurrentRNN(jo.weights.DenseSkew(self.matrix[..., *np.triu_indices(self.n, 1)]), jo.Tanh())

    @property
    def is_own(self) -> bool:
        """Whether each member has a W of its own."""
        return self.matrix.ndim == 3

    def only(self, members: int) -> "Problem":
        """The same with the first `members` starts."""
        matrix = self.matrix[:members] if self.is_own else self.matrix
        checked = min(self.checked, members)
        return dataclasses.replace(self, matrix=matrix, starts=self.starts[:members], checked=checked)

    def cast(self, dtype: str) -> "Problem":
        """The same rounded to a dtype."""
        return dataclasses.replace(self, matrix=self.matrix.astype(dtype), starts=self.starts.astype(dtype))


@dataclasses.dataclass(frozen=True)
class Reference:
    """True states (checked, n) at t1, and how far two independent ways to get them lie apart (median, largest)."""

    t1: float
    states: Float[np.ndarray, "checked n"]
    ways: tuple[str, str]
    uncertainty: float
    largest: float


def problem_of(n: int, members: int, checked: int = 16) -> Problem:
    """The network of n neurons with `members` starts; always the same ones."""
    generator = np.random.default_rng(n)
    matrix = np.array([[0.0, 1.0], [-1.0, 0.0]])
    if n > 2:
        draw = generator.standard_normal((n, n))
        matrix = (draw - draw.T) / np.linalg.norm(draw - draw.T, 2)
    starts = generator.standard_normal((members, n))
    return Problem(n, matrix, starts, min(checked, members))


def own_problem_of(n: int, members: int, checked: int = 16) -> Problem:
    """The same with a network for each member, all of spectral norm 1."""
    generator = np.random.default_rng(1000 + n)
    draw = generator.standard_normal((members, n, n))
    skew = draw - np.swapaxes(draw, -1, -2)
    # The squared norm is the largest eigenvalue of W^T W: several times cheaper than singular values, in many members.
    norm = np.sqrt(np.linalg.eigvalsh(-skew @ skew)[:, -1])
    return Problem(n, skew / norm[:, None, None], generator.standard_normal((members, n)), min(checked, members))


def reference_of(problem: Problem, t1: float) -> Reference:
    """True states: the closed form (n = 2) against order-8 splitting; else that against SciPy's DOP853."""
    starts = problem.starts[: problem.checked]
    solver = jo.solvers.PoissonSplitting(8, compensated=True)
    split = np.asarray(jo.simulate(problem.field, starts, t1=t1, dt=REFERENCE_DT, solver=solver).ys[:, 0])
    if problem.n == 2:
        other = np.stack([np.asarray(jo.oracles.pair_solution(t1, y0, 1.0)) for y0 in jnp.asarray(starts)])
        ways, states = ("closed form", repr(solver)), other
    else:
        other = true_states(problem, t1)
        ways, states = (repr(solver), "SciPy DOP853, rtol 1e-13"), split
    apart = np.abs(split - other).max(axis=-1)
    return Reference(t1, states, ways, float(np.median(apart)), float(apart.max()))


def true_states(problem: Problem, t1: float) -> Float[np.ndarray, "checked n"]:
    """Of the checked members, one network for all or one each, by SciPy's DOP853."""
    starts = problem.starts[: problem.checked].astype(np.float64)
    matrices = np.broadcast_to(problem.only(problem.checked).matrix, (len(starts), problem.n, problem.n))
    return np.stack(
        [_by_dop853(matrix.astype(np.float64), y0, t1) for matrix, y0 in zip(matrices, starts, strict=True)]
    )


def _by_dop853(matrix: Float[np.ndarray, "n n"], y0: Float[np.ndarray, " n"], t1: float) -> Float[np.ndarray, " n"]:
    return solve_ivp(lambda t, y: matrix @ np.tanh(y), (0, t1), y0, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]


def state_error(states: Float[np.ndarray, "members n"], reference: Reference) -> float:
    """Median over members of the largest error of a neuron."""
    members = min(len(states), len(reference.states))
    error = np.abs(states[:members] - reference.states[:members]).max(axis=-1)
    return float(np.median(np.where(np.isfinite(error), error, np.inf)))


def energy_error(problem: Problem, states: Float[np.ndarray, "members times n"]) -> float:
    """Median over members of the largest |H(t) / H(0) - 1| among the times."""
    members = min(len(states), problem.checked)
    start = energy(problem.starts[:members])
    error = np.abs(energy(states[:members]) / start[:, None] - 1).max(axis=-1)
    return float(np.median(np.where(np.isfinite(error), error, np.inf)))


def energy(states: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch"]:
    """H = sum of log cosh y_i, written so that large states do not overflow.

    In extended precision, where the machine has it: in float64 its own rounding, 3e-16 of it at n = 8, would pass for
    an error of the states.
    """
    wide = np.asarray(states, np.longdouble)
    return np.sum(np.logaddexp(wide, -wide) - np.log(np.longdouble(2)), axis=-1)


def period_error(
    problem: Problem, states: Float[np.ndarray, "members times 2"], ts: Float[np.ndarray, " times"]
) -> float:
    """Median over members of |period / true period - 1|, the period as time over turns of the whole run (n = 2)."""
    members = min(len(states), problem.checked)
    starts = problem.starts[:members]
    with_start = np.concatenate([starts[:, None], states[:members]], axis=1)
    period = ts[-1] / turns_of(with_start, np.append(0.0, ts))
    true = np.asarray(jo.oracles.pair_period(energy(starts).astype(np.float64), 1.0))
    error = np.abs(period / true - 1)
    return float(np.median(np.where(np.isfinite(error), error, np.inf)))


def turns_of(states: Float[np.ndarray, "members times 2"], ts: Float[np.ndarray, " times"]) -> np.ndarray:
    """Turns made from the first time to the last, whole and fractional, (members,).

    The fraction at each time is the phase in the closed form of the orbit that the state is on. How many whole turns
    lie between two times follows from the periods of the orbits at both ends: for certain where the period is right to
    half a turn in the interval, and to a few turns of many where the energy runs away.
    """
    phase, period = _phase_and_period(states)
    advance = np.diff(phase, axis=-1)
    expected = np.diff(ts) * 0.5 * (1 / period[:, 1:] + 1 / period[:, :-1])
    return np.sum(advance + np.round(expected - advance), axis=-1)


def _phase_and_period(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The phase, 0 to 1, and the period of the orbit of the pair that each state lies on.

    tanh y1 = k sn(u | m), tanh y2 = k cd(u | m), and a quarter period on (y1, y2) has become (y2, -y1): so the state is
    turned into the quarter around u = 0, where tan am(u) = sinh y1 / tanh y2.
    """
    y1, y2 = states[..., 0], states[..., 1]
    complement = np.exp(-2 * energy(states)).astype(np.float64)
    quarter = ellipkm1(complement)
    upright = np.abs(y1) <= np.abs(y2)
    turned = np.where(upright, np.where(y2 > 0, 0, 2), np.where(y1 > 0, 1, 3))
    small = np.choose(turned, [y1, -y2, -y1, y2])
    big = np.choose(turned, [y2, y1, -y2, -y1])
    local = ellipkinc(np.arctan(np.sinh(small) / np.tanh(big)), 1 - complement)
    local = np.where(complement < np.finfo(float).eps / 4, small, local)  # the limit of large energies
    return np.mod((turned + local / quarter) / 4, 1), 4 * quarter
