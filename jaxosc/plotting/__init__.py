"""Pictures of networks and sweeps: functions that take data, draw with matplotlib and return the Axes.

Those of one picture (`phase_portrait`, `energy_over_time`, `frequency_spectrum`, `poincare_section`,
`lyapunov_convergence`, `period_energy`, `frequency_energy`, `tuning_history`, `orbit_classes`) take `ax=`; those of
small multiples (`stability_map`, `drift_against_dt`, `result_shares`, `phase_portraits`, `energies_over_time`,
`chaos_atlas`) take `figure=` and return an array of Axes. `style(dark=...)` is the look; without it they keep to the
caller's own matplotlib settings.
"""

from .appearance import style as style
from .atlas import chaos_atlas as chaos_atlas
from .classes import orbit_classes as orbit_classes
from .drift import drift_against_dt as drift_against_dt
from .energy import energies_over_time as energies_over_time, energy_over_time as energy_over_time
from .exponents import lyapunov_convergence as lyapunov_convergence
from .families import period_energy as period_energy
from .maps import stability_map as stability_map
from .portraits import (
    Orbit as Orbit,
    phase_portrait as phase_portrait,
    phase_portraits as phase_portraits,
)
from .rendering import webp as webp
from .sections import poincare_section as poincare_section
from .shares import result_shares as result_shares
from .spectrum import frequency_spectrum as frequency_spectrum
from .summaries import code_shares as code_shares, drift_summary as drift_summary
from .tuning import frequency_energy as frequency_energy, tuning_history as tuning_history
