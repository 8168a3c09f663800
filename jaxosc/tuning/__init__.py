"""Tuning: networks that oscillate at wanted frequencies or with a wanted waveform (floor 6)."""

from .waveform import fit_waveform as fit_waveform
from .waveform_file import read_waveform as read_waveform
from .waveform_result import Waveform as Waveform
