"""Sweeps: declare axes, see the plan, run it into a store that survives interruption, read it with xarray (floor 6).

    sweep = jo.sweeps.Sweep(activation=["tanh", "relu"], dt=[0.01, 0.1], gain=[0.5, 1, 2], duration=200)
    print(sweep.plan())
    data = sweep.run("results")            # an xarray.Dataset; run it again, or resume("results"), to continue

The modules: `spec` (what a sweep is), `catalogue` (names), `plan` (how it is cut), `ensemble` (random numbers),
`kernel` (the compiled block), `runner` (the work), `store` (Zarr and the ledger), `verdict` (orbit classes),
`chaos_shares` (how many of them are chaotic).
"""

from .axes import Axis as Axis
from .catalogue import ACTIVATIONS as ACTIVATIONS, SOLVERS as SOLVERS, WEIGHT_LAWS as WEIGHT_LAWS
from .chaos_shares import chaotic_shares as chaotic_shares, wilson_interval as wilson_interval
from .members import Member as Member, member as member, spec_of as spec_of
from .plan import Plan as Plan
from .runner import resume as resume, run as run
from .spec import Starts as Starts, Sweep as Sweep
from .store import Status as Status, load as load, status as status
from .studies import STUDIES as STUDIES, chaos_study as chaos_study, default_study as default_study
from .text import load_spec as load_spec
