"""The training step: the LightningModule, its phases and the adversarial game."""
