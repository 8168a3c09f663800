"""Orbits: which kind an orbit is of, and the numbers that say so (floor 5)."""

from .._results import ORBITS as ORBITS
from .classify import Classification as Classification, classify as classify
from .crossings import CrossingRecord as CrossingRecord, Section as Section, poincare_crossings as poincare_crossings
from .floquet import FloquetMultipliers as FloquetMultipliers, floquet_multipliers as floquet_multipliers
from .found_cycles import LimitCycle as LimitCycle, LimitCycles as LimitCycles
from .frequencies import Frequencies as Frequencies, frequency as frequency
from .gallery import Example as Example, gallery as gallery
from .indicators import Gali as Gali, Megno as Megno, gali as gali, megno as megno
from .limit_cycles import limit_cycles as limit_cycles
from .lyapunov import LyapunovSpectrum as LyapunovSpectrum, lyapunov_spectrum as lyapunov_spectrum
from .periodic import (
    PeriodicOrbit as PeriodicOrbit,
    continue_family as continue_family,
    periodic_orbit as periodic_orbit,
)
from .periods import Period as Period, period as period
