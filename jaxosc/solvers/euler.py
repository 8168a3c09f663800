"""Forward Euler twice: the loop that everybody writes by hand, and the same step as a Diffrax solver.

The loop is the package's independent reference: plain `jax.lax`, no Diffrax, no engine. Both are order 1. Linear
networks: |y|^2 grows by exactly 1 + dt^2 w^2 a step. Odd bounded sigma: H never decreases (H is convex) and grows like
sqrt(t), so the frequency falls for ever; see `jo.oracles`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import require_finite, require_positive
from .._errors import JaxoscError
from ..fields import AbstractField, require_size


def euler_loop(
    field: AbstractField, y0: Any, dt: Any, num_steps: int, save_every: int = 1
) -> tuple[Float[Array, " times"], Float[Array, "times n"]]:
    """Integrate `field` by y <- y + dt f(y), `num_steps` times, as a hand-written loop.

    Order 1; one evaluation of the field a step; conserves Casimirs to rounding and nothing else.

    **Arguments:**

    - `field`: one network (n neurons).
    - `y0`: (n,), the start.
    - `dt`: step size > 0, in units of time.
    - `num_steps`: number of steps, a multiple of `save_every`.
    - `save_every`: keep every so many-th state.

    **Returns:** times (num_steps / save_every + 1,) from 0 and states (times, n), the start first.

    **Raises:** `JaxoscError` for a start of another size, dt <= 0, or steps that `save_every` does not divide.
    """
    y0 = jnp.asarray(y0, jnp.result_type(jnp.asarray(y0), field.dtype))
    require_size(field, y0)
    require_finite("y0", y0)
    require_positive("dt", dt)
    if num_steps < 1 or save_every < 1 or num_steps % save_every:
        raise JaxoscError(
            f"Got num_steps = {num_steps} and save_every = {save_every}, expected positive numbers of which the second"
            " divides the first: change one of them."
        )
    dt = jnp.asarray(dt, y0.dtype)

    def step(y: Array, _: None) -> tuple[Array, None]:
        return y + dt * field(0.0, y, None), None

    def stride(y: Array, _: None) -> tuple[Array, Array]:
        y, _ = jax.lax.scan(step, y, length=save_every)
        return y, y

    _, later = jax.lax.scan(stride, y0, length=num_steps // save_every)
    ts = dt * save_every * jnp.arange(num_steps // save_every + 1, dtype=y0.dtype)
    return ts, jnp.concatenate([y0[None], later])


class ForwardEuler(diffrax.AbstractSolver):
    """Forward Euler, y1 = y0 + dt f(y0), as a Diffrax solver with Hermite dense output.

    Order 1. Energy: not conserved, see this file's head. Casimirs: to rounding. Stable for no linear oscillation, at
    any dt. The engine of `jo.simulate` knows it and runs it without Diffrax.
    """

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar[Callable[..., diffrax.ThirdOrderHermitePolynomialInterpolation]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation
    )

    def order(self, terms: Any) -> int:
        """The order of convergence, 1."""
        return 1

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        """No state."""
        return

    def step(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: None, made_jump: Any) -> Any:
        """One step, in Diffrax's form: new state, no error estimate, dense output, no state, success."""
        control = terms.contr(t0, t1)
        k0 = terms.vf_prod(t0, y0, args, control)
        y1 = jax.tree.map(jnp.add, y0, k0)
        dense_info = dict(y0=y0, y1=y1, k0=k0, k1=terms.vf_prod(t1, y1, args, control))
        return y1, None, dense_info, None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        """The vector field at a point."""
        return terms.vf(t0, y0, args)
