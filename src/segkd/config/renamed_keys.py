"""Keys of a training that earlier versions called otherwise, on the command line and in `config.yaml` files."""

from __future__ import annotations

RENAMED_TRAINING_KEYS = {
    "preflight": "check_teacher",
    "student.backbone_checkpoint": "student.init_from",
    "teacher.backbone_checkpoint": "teacher.init_from",
    "student.taps": "student.features",
    "teacher.taps": "teacher.features",
    "data.unlabelled": "data.unlabeled",
    "data.unlabelled_ratio": "data.unlabeled_ratio",
    "trainer.shares_every": "trainer.log_gradient_shares_every",
    "adversary.sees": "adversary.discriminator_input",
    "adversary.order": "adversary.update_first",
    "adversary.critic_steps": "adversary.n_critic",
    "adversary.tap": "adversary.feature",
    "adversary.form": "adversary.gan_loss",
    "adversary.form.penalty": "adversary.gan_loss.gradient_penalty_weight",
    "loss.pairwise.node": "loss.pairwise.node_size",
    "loss.lovasz.since": "loss.lovasz.start_at",
    "loss.cirkd.places": "loss.cirkd.max_positions",
    "loss.cirkd_memory.places": "loss.cirkd_memory.max_positions",
    "loss.cirkd_memory.pushed": "loss.cirkd_memory.pixels_per_class",
    "loss.cirkd_memory.pixels_drawn": "loss.cirkd_memory.num_pixel_samples",
    "loss.cirkd_memory.regions_drawn": "loss.cirkd_memory.num_region_samples",
    "loss.cirkd_memory.regions": "loss.cirkd_memory.class_source",
    "loss.ifvd.regions": "loss.ifvd.class_source",
}
"""Dotted key of version 0.1.0 → the key now; what lies below it moves too. See `update_key` for `.tap`."""


def update_key(key: str) -> str:
    """Return today's name of a dotted key; a key that was not renamed stays."""
    if key.endswith(".tap"):
        return f"{key.removesuffix('.tap')}.feature"
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if new := RENAMED_TRAINING_KEYS.get(".".join(parts[:length])):
            return ".".join([new, *parts[length:]])
    return key
