"""Measure networks, exported files and training steps."""
