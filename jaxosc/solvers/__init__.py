"""Solvers that know the structure of the field, and the hand-written Euler loop (floor 3)."""

from .discrete_gradient import DiscreteGradient as DiscreteGradient
from .energy_projection import EnergyProjection as EnergyProjection
from .euler import ForwardEuler as ForwardEuler, euler_loop as euler_loop
from .lanes import Lanes as Lanes, lanes_of as lanes_of
from .pair_splitting import PairSplitting as PairSplitting
from .poisson_splitting import PoissonSplitting as PoissonSplitting
from .taylor import Taylor as Taylor
