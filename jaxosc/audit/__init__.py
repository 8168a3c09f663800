"""Audits: what a solver with a step size keeps of a network, with the law of what it loses (floor 5).

    print(jo.audit(field, y0, jo.solvers.PoissonSplitting(2), dt=0.1, t1=1e4))

The modules: `windows` (what happened when, without aliasing), `fits` and `laws` (which law an error follows),
`invariants` (what is measured), `runs` (the runs that it takes), `run` (the function), `sentences` and `verdict` (the
report).
"""

from .run import INVARIANTS as INVARIANTS, audit as audit
from .verdict import Audit as Audit, Finding as Finding
