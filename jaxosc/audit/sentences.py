"""The findings in words: what happened, how fast, and whose doing it is."""

import math

from .fits import BOUNDED, EXACT, EXPONENTIAL, SQRT
from .laws import Law


def energy_sentence(law: Law, size: float, cause: str | None, num_steps: int) -> str:
    """`cause` says why the network itself changes its energy, None when it keeps it."""
    happened = _happened("energy", law, size, num_steps)
    if law.verdict in (EXACT, BOUNDED):
        return happened + ("." if cause is None else f", although {cause} could change it.")
    return f"{happened}; {_doing(cause)}."


def casimir_sentence(law: Law, size: float, cause: str | None, num_steps: int, trivial: bool) -> str:
    """`cause` says why the network itself changes it; `trivial`: it is one number for all states (rate form)."""
    happened = _happened("linear invariant c.y", law, size, num_steps)
    if trivial:
        return f"{happened} (in the rate form c.(W r + b) = c.b whatever the state is)."
    return f"{happened}." if law.verdict in (EXACT, BOUNDED) else f"{happened}; {_doing(cause)}."


def volume_sentence(law: Law, size: float, own_rate: float | None, num_steps: int) -> str:
    """`own_rate` is the network's constant divergence, None when it varies from state to state."""
    if own_rate is None:
        own = "changes as the network's divergence says"
    elif own_rate == 0:
        own = "keeps its size"
    else:
        kind = "shrinks" if own_rate < 0 else "grows"
        own = f"{kind} by a factor e every {1 / abs(own_rate):.3g} units of time, as it should"
    if law.verdict == EXACT:
        return f"Phase-space volume {own}, up to rounding ({size:.1e} of its logarithm in {num_steps:,} steps)."
    if law.verdict == BOUNDED:
        return f"Phase-space volume {own}, up to an error of its logarithm within {size:.1e}."
    assert law.rate is not None
    kind = "gains" if law.rate > 0 else "loses"
    if law.verdict == SQRT:
        how = f"like the square root of time, by {size:.2g} in its logarithm so far"
    else:
        how = f"a factor e every {1 / abs(law.rate):.3g} units of time"
    against = "" if own_rate == 0 else " against what the network's divergence makes of it"
    return f"Phase-space volume {kind} {how}{against}; that is the solver's doing."


def oddness_sentence(verdict: str, size: float) -> str:
    """Of a network that is odd itself."""
    if verdict == EXACT:
        return f"A step from -y is minus the step from y, up to rounding ({size:.1e})."
    return f"A step from -y misses minus the step from y by up to {size:.1e} of the orbit's size."


def reversal_sentence(law: Law, size: float, defect: float, symmetric: bool, lost_after: float | None) -> str:
    """`defect` is that of a single step forth and back; `lost_after` the time after which the way back is lost."""
    if law.verdict == EXACT:
        return f"The way back with -dt leads to the start, up to rounding ({size:.1e} of the orbit's size)."
    step = (
        "A single step is undone to rounding"
        if symmetric
        else f"A step of -dt does not undo one of dt ({defect:.1e} of the orbit's size)"
    )
    lost = "" if lost_after is None else f", and the way back is lost after t = {lost_after:.3g}"
    if law.verdict == EXPONENTIAL:
        assert law.rate is not None
        chaos = "but the orbit multiplies" if symmetric else "and the orbit multiplies"
        return f"{step}, {chaos} what is left by e every {1 / law.rate:.3g} units of time{lost}."
    so_far = "" if math.isinf(size) else f", by {size:.1e} at most"
    if law.verdict == BOUNDED:
        return f"{step}; the way back stays near the way forth{so_far}{lost}."
    return f"{step}; the way back leaves the way forth like t^{law.exponent:.2g}{so_far}{lost}."


def _doing(cause: str | None) -> str:
    """Whose fault it is."""
    if cause is None:
        return "that is the solver's doing, the network itself keeps it"
    return f"the network itself changes it, by {cause}"


def _happened(what: str, law: Law, size: float, num_steps: int) -> str:
    if law.verdict == EXACT:
        return f"The {what} is kept to rounding: its largest relative error in {num_steps:,} steps is {size:.1e}"
    if law.verdict == BOUNDED:
        return (
            f"The {what} oscillates within {size:.1e} and does not drift (less than {law.hidden:.0e} per unit time"
            " could hide in this run)"
        )
    assert law.rate is not None
    grows = law.rate > 0
    if law.level is not None:
        every = f"by a factor e every {1 / abs(law.rate):.3g} units of time"
        return f"The {what} settles at {law.level:.3g} of its start, {every}"
    if law.verdict == EXPONENTIAL:
        kind, factor = ("grows", "doubling") if grows else ("decays", "halving")
        return f"The {what} {kind} exponentially, {factor} every {math.log(2) / abs(law.rate):.3g} units of time"
    if law.verdict == SQRT:
        kind = "grows" if grows else "falls"
        return f"The {what} {kind} like the square root of time, by {size:.2g} of its size so far"
    kind = "grows" if grows else "is lost"
    return f"The {what} {kind} steadily, {abs(law.rate):.2g} of its size per unit time"
