"""Simulation: the fixed-step engine with streaming reducers, adaptive steps, and `simulate` over both (floor 4)."""

from ..solvers.lanes import Lanes as Lanes, lanes_of as lanes_of
from .adjoints import Checkpointed as Checkpointed, Reversible as Reversible
from .engine import LaneRun as LaneRun, SaveTimes as SaveTimes, run_lanes as run_lanes
from .reducers import (
    AbstractReducer as AbstractReducer,
    Crossings as Crossings,
    EnergyDrift as EnergyDrift,
    Norms as Norms,
)
from .run import simulate as simulate
from .solution import Solution as Solution
