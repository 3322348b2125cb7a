"""A callback of one's own."""

import pytorch_lightning as pl


class PrintBest(pl.Callback):
    """Prints the best validation score at the end of the training.

    Args:
        digits: of the score in percent.
    """

    def __init__(self, digits: int = 2) -> None:
        self.digits, self.best = digits, 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.best = max(self.best, float(trainer.callback_metrics["val/miou"]))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            print(f"best val mIoU {100 * self.best:.{self.digits}f}")
