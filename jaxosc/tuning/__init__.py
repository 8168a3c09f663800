"""Tuning: networks that oscillate at wanted frequencies or with a wanted waveform (floor 6)."""

from .curves import (
    FrequencyCurve as FrequencyCurve,
    energy_for_frequency as energy_for_frequency,
    frequency_curve as frequency_curve,
)
from .design import Design as Design, design as design
from .frequency_tuning import tune_frequency as tune_frequency
from .measures import (
    AbstractMeasure as AbstractMeasure,
    EventReturns as EventReturns,
    Line as Line,
    Measured as Measured,
    PairFormula as PairFormula,
    Returns as Returns,
    Rotation as Rotation,
)
from .outcomes import Outcome as Outcome
from .time_scale import rescaled as rescaled
from .tuned import Tuned as Tuned
from .turning import orbit_frequency as orbit_frequency
from .waveform import fit_waveform as fit_waveform
from .waveform_file import read_waveform as read_waveform
from .waveform_result import Waveform as Waveform
