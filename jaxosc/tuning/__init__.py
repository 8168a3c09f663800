"""Tuning: networks that oscillate at wanted frequencies or with a wanted waveform (floor 6)."""
