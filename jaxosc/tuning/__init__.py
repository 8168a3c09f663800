"""Tuning: networks that oscillate at wanted frequencies or with a wanted waveform (floor 6)."""

from .design import Design as Design, design as design
