"""Lightning loggers of a training."""
