"""What an audit says: one finding per invariant, and the report that a person reads."""

import dataclasses
import textwrap

from .._errors import JaxoscError
from .._results import Result
from .fits import BOUNDED, EXACT, EXPONENTIAL, LINEAR, SQRT

NOT_APPLICABLE = "not_applicable"
"""The verdict where there is nothing to keep or too little to see; the sentence says which."""

_WIDTH = 116

_DRIFTS = {SQRT: "square-root drift", LINEAR: "linear drift", EXPONENTIAL: "exponential change"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What happened to one invariant.

    **Attributes:**

    - `name`: "energy", "casimir 1", ..., "volume", "oddness" or "reversal".
    - `verdict`: exact, bounded, sqrt_drift, linear_drift, exponential; or not_applicable.
    - `sentence`: the same for a person, with the numbers and the cause.
    - `confidence`: in [0, 1], the share of pieces of the run that say the same.
    - `size`: the largest relative error in the run; None where nothing was measured.
    - `rate`: of the relative error per unit time (linear_drift), its coefficient of sqrt(t) (sqrt_drift), or the
      exponent per unit time (exponential); signed; None otherwise.
    - `exponent`: the power of t with which the error grew, None where it is no power.
    - `cause`: what in the network itself changes the invariant ("its leak of 0.1"); None when it is kept, or lost by
      the solver alone.
    """

    name: str
    verdict: str
    sentence: str
    confidence: float = 1.0
    size: float | None = None
    rate: float | None = None
    exponent: float | None = None
    cause: str | None = None

    @property
    def kept(self) -> bool:
        """Whether the invariant is exact or its error bounded."""
        return self.verdict in (EXACT, BOUNDED)


@dataclasses.dataclass(frozen=True, repr=False)
class Audit:
    """The report of `jo.audit`; print it.

    **Attributes:**

    - `network`, `solver`: in words; `dt`; `dtype` of the run.
    - `num_steps`: steps that were looked at, up to the end of the run, an escape, or the decay to rounding.
    - `failed`: the code of a run that left before its end, else None.
    - `findings`: one per invariant; `energy`, `casimirs`, `volume`, `oddness` and `reversal` pick from them.
    """

    network: str
    solver: str
    dt: float
    dtype: str
    num_steps: int
    failed: Result | None
    findings: tuple[Finding, ...]

    def finding(self, name: str) -> Finding:
        """The finding called `name`.

        **Raises:** `JaxoscError` for another name.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        known = ", ".join(finding.name for finding in self.findings)
        raise JaxoscError(f"Got the invariant {name!r}, expected one of {known}: choose one of these.")

    @property
    def energy(self) -> Finding:
        """The energy H."""
        return self.finding("energy")

    @property
    def casimirs(self) -> tuple[Finding, ...]:
        """One finding per Casimir c.y, in the order of `jo.casimir_vectors`; empty where W^T has no kernel."""
        return tuple(finding for finding in self.findings if finding.name.startswith("casimir "))

    @property
    def volume(self) -> Finding:
        """Phase-space volume, by its logarithm, against the network's own divergence."""
        return self.finding("volume")

    @property
    def oddness(self) -> Finding:
        """Whether a step commutes with y -> -y."""
        return self.finding("oddness")

    @property
    def reversal(self) -> Finding:
        """Whether the way back with -dt leads to the start."""
        return self.finding("reversal")

    @property
    def conservative(self) -> bool:
        """Whether the run ended where it should and its energy is exact or its error bounded."""
        return self.failed is None and self.energy.kept

    @property
    def verdict(self) -> str:
        """One sentence: conservative or not, and why."""
        energy = f"{_DRIFTS.get(self.energy.verdict, self.energy.verdict)} of the energy"
        doing = f"the network itself, by {self.energy.cause}" if self.energy.cause else "the solver"
        if self.failed is not None:
            end = f"the run ended as {self.failed.name.replace('_', ' ')} at t = {self.dt * self.num_steps:.4g}"
            return f"Not conservative: {end}" + ("." if self.energy.kept else f" ({energy}, by {doing}).")
        if not self.conservative:
            return f"Not conservative: {energy}, by {doing}."
        lost = [finding.name for finding in self.findings if not finding.kept and finding.verdict != NOT_APPLICABLE]
        but = f", but it does not keep: {', '.join(lost)}" if lost else ""
        return f"Conservative as far as this run can tell: the energy is {self.energy.verdict}{but}."

    def __str__(self) -> str:
        lines = [
            f"Audit of {self.network} under {self.solver}, dt = {self.dt:.6g}",
            f"  {self.num_steps:,} steps to t = {self.dt * self.num_steps:.6g} in {self.dtype}",
            *_wrapped("  ", self.verdict),
        ]
        for finding in self.findings:
            told = "" if finding.verdict == NOT_APPLICABLE else f"{finding.confidence:.2f}"
            head = f"  {finding.name:<10} {finding.verdict.replace('_', ' '):<15}{told:<6}"
            lines += _wrapped(head, finding.sentence)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
