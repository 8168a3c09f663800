"""What tuning a frequency gives back, and how it is told."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import is_concrete
from ..fields import AbstractField
from .outcomes import Outcome, counted_outcomes


class Tuned(eqx.Module):
    """Tuned networks: one, or a batch with the axes that field and start had together.

    **Attributes:**

    - `field`, `y0`: (...) networks and starts (..., n) that `jo.simulate` takes; where tuning failed, the best there
      was.
    - `frequency`: (...) as measured on them, in cycles per unit of time; `target`: (...) as wanted.
    - `error`: (...) how far the frequency is off in a run twice as long; 0 where it is no matter of a window.
    - `result`: (...) int8 codes of `jo.tuning.Outcome`.
    - `history`: (steps, ...) frequencies on the way, `losses`: (steps, ...) the loss of a search by gradients, if any.
    - `state`: of the optimiser, for `resume`.
    """

    field: AbstractField
    y0: Float[Array, "*batch n"]
    frequency: Float[Array, "*batch"]
    target: Float[Array, "*batch"]
    error: Float[Array, "*batch"]
    result: Int[Array, "*batch"]
    history: Float[Array, "steps *batch"]
    losses: Float[Array, "steps *batch"] | None = None
    state: Any = None

    @property
    def reached(self) -> Array:
        """(...) whether the frequency is the target within the tolerance."""
        return self.result == Outcome.reached

    def reasons(self) -> list[str]:
        """For each member in turn one sentence on what became of it, failures with advice."""
        told = []
        for got, wanted, code in zip(*(np.ravel(v) for v in (self.frequency, self.target, self.result)), strict=True):
            off = abs(got / wanted - 1)
            outcome = Outcome(int(code))
            told.append(
                f"{outcome.name.replace('_', ' ')}: frequency {got:.10g}, wanted {wanted:.10g}, {off:.1e} off"
                + ("" if outcome is Outcome.reached else f"; {outcome.advice}")
            )
        return told

    def shaped(self, shape: tuple[int, ...]) -> "Tuned":
        """The same members (m,) with batch axes `shape`."""

        def first(leaf: Any) -> Any:
            return leaf.reshape(*shape, *leaf.shape[1:])

        def second(leaf: Any) -> Any:
            return leaf.reshape(leaf.shape[0], *shape, *leaf.shape[2:])

        return Tuned(
            jax.tree.map(first, self.field),
            first(self.y0),
            first(self.frequency),
            first(self.target),
            first(self.error),
            first(self.result),
            second(self.history),
            None if self.losses is None else second(self.losses),
            self.state,
        )

    def __repr__(self) -> str:
        if not is_concrete((self.y0, self.result)):
            return "Tuned (inside a JAX transformation)"
        n = self.y0.shape[-1]
        if not self.result.shape:
            return f"Tuned(n = {n}, {self.reasons()[0]})"
        off = np.abs(np.asarray(self.frequency / self.target) - 1)
        known = off[np.isfinite(off)]
        span = f", off by {np.median(known):.1e} in the median and at most {known.max():.1e}" if known.size else ""
        return "\n  ".join([f"Tuned({self.result.size:,} networks, n = {n}{span})", *counted_outcomes(self.result)])


def stacked(frequencies: list[Array]) -> Float[Array, "steps members"]:
    """A history from its lines."""
    return jnp.stack([jnp.asarray(line) for line in frequencies])
