"""Metrics: sums over all images of all processes, from which each score is computed once."""

from segkd.metrics.confusion import ConfusionMatrix, Scores, constant_class_miou

__all__ = ["ConfusionMatrix", "Scores", "constant_class_miou"]
