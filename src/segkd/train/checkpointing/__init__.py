"""Checkpoints that survive interruption, and exact resume."""
