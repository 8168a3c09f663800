"""How a run ended, per member: a small integer code with one sentence of advice each.

Codes and not exceptions, because one blown-up member of a sweep must never stop the other million.
"""

import enum


class Result(enum.IntEnum):
    """What became of one member; stored as int8 in solutions and datasets."""

    successful = 0
    escaped = 1
    non_finite = 2
    max_steps_reached = 3
    solver_failed = 4
    irreversible = 5

    @property
    def advice(self) -> str:
        """One sentence on what it means and what to try."""
        return _ADVICE[self]


_ADVICE = {
    Result.successful: "the member reached t1.",
    Result.escaped: (
        "the norm of the state exceeded `escape_norm` and the member was frozen there: take a smaller dt or a"
        " structure-preserving solver, check with `check_activation` that the energy has bounded level sets, or raise"
        " `escape_norm`."
    ),
    Result.non_finite: (
        "the state became NaN or infinite within one step: take a smaller dt, and look for NaN in weight, bias and y0."
    ),
    Result.max_steps_reached: "the step-size controller used up `max_steps`: raise it, or loosen rtol and atol.",
    Result.irreversible: (
        "the run back did not find its start again, as chaos has amplified the roundings: its reversible gradient would"
        " be wrong, so take adjoint=jo.Checkpointed(), a shorter run, or PoissonSplitting(lattice=True)."
    ),
    Result.solver_failed: "the solver reported a failure of its own: try a smaller dt or another solver.",
}

ORBITS = ("fixed_point", "periodic", "quasi_periodic", "chaotic", "escaping", "collapsing", "undecided")
"""Kinds of orbits in the order of their codes 0, 1, ..., which datasets hold too."""
