"""Observers of a run: they never change a loss, a weight or a learning rate."""
