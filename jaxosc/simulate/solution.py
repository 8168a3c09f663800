"""What `simulate` gives back, and how it introduces itself."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import is_concrete
from .._results import Result


class Solution(eqx.Module):
    """Trajectories of one network or of a batch, with a result code per member.

    **Attributes:**

    - `ts`: (times,) when states were kept, in the field's units of time.
    - `ys`: (..., times, n) states; a member that left keeps its last good state.
    - `result`: (...) int8 codes of `jo.Result`, 0 is success.
    - `energy_drift`: (...) (H(t1) - H(t0)) / max(|H(t0)|, tiny), signed.
    - `reduced`: measures of the reducers by name, each (...).
    - `stats`: `num_steps` (...) taken, `dt`, `solver`, `engine` ("fixed" or "adaptive"); of adaptive runs
      `lockstep_efficiency`, the share of its turns in which a member made a step and did not wait for others.
    """

    ts: Float[Array, " times"]
    ys: Float[Array, "*batch times n"]
    result: Int[Array, "*batch"]
    energy_drift: Float[Array, "*batch"]
    reduced: dict[str, Array]
    stats: dict[str, Any]

    def __repr__(self) -> str:
        batch, (times, n) = self.ys.shape[:-2], self.ys.shape[-2:]
        members = " x ".join(map(str, batch)) + " members" if batch else "one member"
        lines = [f"Solution of {members}, n = {n}, {self.ys.dtype}, {_how(self.stats)}"]
        if not is_concrete(jax.tree.leaves(self)):
            return f"{lines[0]} (inside a JAX transformation)"
        ts = np.asarray(self.ts)
        kept = f"t = {ts[0]:.6g}" if times == 1 else f"{times} times, t = {ts[0]:.6g} .. {ts[-1]:.6g}"
        lines.append(f"  kept          {kept}; ys {tuple(self.ys.shape)}")
        lines.append(f"  result        {_result_counts(np.asarray(self.result))}")
        lines.append(f"  energy drift  {_spread(np.asarray(self.energy_drift))}")
        lines += [f"  {name:<13} {_spread(np.asarray(value))}" for name, value in self.reduced.items()]
        return "\n".join(lines)


def _how(stats: dict[str, Any]) -> str:
    steps = stats["num_steps"]
    if not is_concrete(steps):
        return f"{stats['solver']!r}"
    fewest, most = int(np.min(np.asarray(steps))), int(np.max(np.asarray(steps)))
    count = f"{most:,} steps" if fewest == most else f"{fewest:,} to {most:,} steps"
    size = f" of dt = {float(stats['dt']):.6g}" if stats["engine"] == "fixed" else " of adaptive size"
    return f"{stats['solver']!r}, {count}{size}"


def _result_counts(codes: np.ndarray) -> str:
    if codes.ndim == 0:
        result = Result(int(codes))
        return result.name if result is Result.successful else f"{result.name}: {result.advice}"
    present, counts = np.unique(codes, return_counts=True)
    return ", ".join(f"{count:,} {Result(int(code)).name}" for code, count in zip(present, counts, strict=True))


def _spread(values: np.ndarray) -> str:
    if values.ndim == 0:
        return f"{values:.3g}"
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "not finite for any member"
    missing = values.size - finite.size
    worst = finite.flat[np.argmax(np.abs(finite))]
    note = f" ({missing:,} not finite)" if missing else ""
    return f"median {np.median(finite):.3g}, largest {worst:.3g}{note}"
