"""Closed forms that every solver of the package is held against; none of them integrates the network.

`pair_*`: two neurons with tanh, W = [[0, omega], [-omega, 0]]. `euler_*`: what the forward Euler loop does to the
energy. `pair_period_general`: the period for any odd increasing activation. What they need of elliptic functions is in
`jaxosc.oracles.elliptic`.
"""

from .euler import (
    euler_linear_growth as euler_linear_growth,
    euler_tanh_energy as euler_tanh_energy,
    euler_tanh_energy_averaged as euler_tanh_energy_averaged,
)
from .pair import pair_period as pair_period, pair_solution as pair_solution
from .quadrature import pair_period_general as pair_period_general
