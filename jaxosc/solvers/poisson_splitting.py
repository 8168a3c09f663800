"""Poisson splitting: one coordinate of the energy at a time, each solved exactly.

y' = W sigma(y) splits into n fields, the i-th driven by sigma(y_i) alone: y' = W[:, i] sigma(y_i). If W has a zero
diagonal, y_i stands still in it, so its flow is exact and as cheap as a column of Euler's step:

    y <- y + dt W[:, i] sigma(y_i).

Doing i = 1..n in order is chi(dt), backward is its adjoint chi*(dt); compositions.py raises the order, and flows of the
same neurons that follow each other become one. Every factor is the exact flow of a Poisson system with the same W, so
for skew W (also hidden) the numerical solution follows a modified energy: H oscillates and does not drift, however long
the run. Casimirs hold to rounding. Neurons that never meet move together (`Bipartite`: the leapfrog).

- Diagonal entries (`Unconstrained` weights): the scalar equation of a coordinate is then solved by one step of a
  Runge-Kutta method of order 4 (8 for orders 6 and 8); nothing is conserved then.
- Bias, input and leak: x' = b + u - leak x is solved exactly, before the first and after the last coordinate, with the
  time as one more coordinate: u(t) is frozen while t stands still and t advances in a flow of its own. An orbit with
  leak obeys the law of dissipation of its splitting.
- Rate form: r_i <- r_i + dt sigma((W r + b + u)_i), conjugate to the above.

Source: McLachlan, *Phys. Rev. Lett.* 71 (1993) for splitting of Poisson systems; Hairer, Lubich, Wanner, VII.4.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import JaxoscError
from ..fields import AbstractField
from .compositions import COMPOSITIONS
from .half_sweeps import HalfSweeps
from .lanes import Lanes, lanes_of
from .states import AbstractState, CompensatedState, LatticeState, PlainState, grid_of, on_grid


class PoissonSplitting(diffrax.AbstractSolver):
    """Explicit splitting solver of order 1, 2, 4, 6 or 8 that keeps the energy of a skew network for ever.

    Cost per step: 1, 2, 12, 18 or 34 sweeps, each as much work as one step of forward Euler. Conserved: Casimirs to
    rounding; the energy to O(dt^order) for all times (skew, symmetrizable, with bias; without leak and drive).
    Time-symmetric but for order 1: a run backward returns to its start, to rounding. Fails (energy error grows) when dt
    times the spectral norm of W nears 2; use at most 0.25 (order 2) or 0.5 (order 4 and more) for good accuracy. Not
    adaptive: it gives no error estimate. Dense output: cubic Hermite, O(dt^4).

    **Arguments:**

    - `order`: 1 (forward sweep), 2 (palindromic), 4 (Blanes and Moan 2002), 6 or 8 (Kahan and Li 1997). Default 2.
    - `compensated`: carry what rounding loses from step to step. For float32 runs beyond 10^5 steps: their energy
      drifts 20 times less or better. Costs about a third more.
    - `lattice`: run on multiples of 2^-40 (float64; 2^-18 in float32), where every step can be taken back: run forward
      and back it returns to the very same bits, in chaos too. The start is rounded to the lattice, the energy gets a
      noise of that size. States must stay below 4,096 (float64) or 32 (float32) in size. Needs a zero diagonal, no leak
      and no drive.

    The field must be a `jo.CurrentRNN` or `jo.RateRNN`: the solver needs its W.

    **Raises:** `JaxoscError` for another order, both modes at once, a vector field that is not one of these, and a
    network that the lattice mode cannot run.

    **Source:** McLachlan 1993; compositions.py and states.py name those of the coefficients and of the two modes.
    """

    accuracy: int = eqx.field(static=True)
    compensated: bool = eqx.field(static=True)
    lattice: bool = eqx.field(static=True)

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def __init__(self, order: int = 2, *, compensated: bool = False, lattice: bool = False):
        if order not in COMPOSITIONS:
            raise JaxoscError(
                f"Got PoissonSplitting(order={order!r}), expected one of {sorted(COMPOSITIONS)}: choose one of these."
            )
        if compensated and lattice:
            raise JaxoscError(
                "Got PoissonSplitting with compensated and lattice, expected at most one, since sums on the lattice are"
                " exact: drop one."
            )
        self.accuracy, self.compensated, self.lattice = order, compensated, lattice

    def __repr__(self) -> str:
        modes = "".join(f", {name}=True" for name in ("compensated", "lattice") if getattr(self, name))
        return f"PoissonSplitting(order={self.accuracy}{modes})"

    def order(self, terms: Any) -> int:
        """The order of convergence."""
        return self.accuracy

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> Any:
        """What the compensated mode carries from step to step (n,), else None; checks the vector field."""
        require_runnable(self, lanes_of(field_of(terms)))
        return jnp.zeros_like(y0) if self.compensated else None

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: Any, made_jump: Any) -> Any:
        """One step, in Diffrax's form: new state, no error estimate, dense output, memory, success."""
        control = terms.contr(t0, t1)
        lanes, t = lanes_of(field_of(terms)), jnp.asarray(t0 * direction_of(terms), y0.dtype)
        memory = None if solver_state is None else solver_state[:, None]
        x1, memory = splitting_step(self, lanes, t, jnp.asarray(control, y0.dtype), y0[:, None], memory)
        y1 = x1[:, 0]
        k0, k1 = (terms.vf_prod(t, y, args, control) for t, y in ((t0, y0), (t1, y1)))
        memory = None if memory is None else memory[:, 0]
        return y1, None, dict(y0=y0, y1=y1, k0=k0, k1=k1), memory, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return terms.vf(t0, y0, args)


def require_runnable(solver: PoissonSplitting, lanes: Lanes) -> None:
    """Raise one sentence if the lattice mode cannot take the steps of these networks back."""
    if solver.lattice and not (lanes.hollow and lanes.leak is None and lanes.drive is None):
        what = "a weight with a diagonal" if not lanes.hollow else "a drive" if lanes.leak is None else "a leak"
        raise JaxoscError(
            f"Got {what} in the lattice mode, expected a zero diagonal, no leak and no drive, since it can take back"
            " only what components get from others: use compensated=True instead."
        )


def splitting_step(
    solver: PoissonSplitting,
    lanes: Lanes,
    t: Any,
    dt: Float[Array, ""],
    x: Float[Array, "n lanes"],
    lost: Float[Array, "n lanes"] | None = None,
) -> tuple[Float[Array, "n lanes"], Float[Array, "n lanes"] | None]:
    """One step of size `dt` from time t in every lane, and what the compensated mode carries on (None elsewhere)."""
    start: AbstractState
    if solver.lattice:
        start = LatticeState(on_grid(x, grid_of(x.dtype)), grid_of(x.dtype))
    else:
        start = PlainState(x) if lost is None else CompensatedState(x, lost)
    end = HalfSweeps(lanes, solver.accuracy, in_one_place=solver.lattice).step(start, t, dt)
    return end.settled() if isinstance(end, CompensatedState) else (end.value(), None)


def field_of(terms: Any, solver: str = "PoissonSplitting") -> AbstractField:
    """The network inside Diffrax's term, which `diffeqsolve` wraps (a public `.term` each) to run backward in time."""
    term = terms
    while not isinstance(term, diffrax.ODETerm):
        term = term.term
    if not isinstance(term.vector_field, AbstractField):
        raise JaxoscError(
            f"Got the vector field {term.vector_field!r}, expected a jo.CurrentRNN or jo.RateRNN, whose weight"
            f" {solver} needs: build one, or use a Runge-Kutta solver such as diffrax.Tsit5()."
        )
    return term.vector_field


def direction_of(terms: Any) -> Any:
    """1, or -1 under a wrapper that runs backward: Diffrax's own time is then the negative of the field's."""
    direction, term = 1, terms
    while not isinstance(term, diffrax.ODETerm):
        direction, term = direction * getattr(term, "direction", 1), term.term
    return direction
