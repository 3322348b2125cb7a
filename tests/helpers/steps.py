"""Training steps of random or given maps, which are part of the package."""

from segkd.check_part.steps import make_step, make_step_from_maps

__all__ = ["make_step", "make_step_from_maps"]
