"""Keys of earlier versions, of Lightning and of mmsegmentation, and their names in segkd."""

from __future__ import annotations

RENAMED = {
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
    "adversary/form": "adversary/gan_loss",
    "loss.pairwise.node": "loss.pairwise.node_size",
    "loss.lovasz.since": "loss.lovasz.start_at",
    "loss.cirkd.places": "loss.cirkd.max_positions",
    "loss.cirkd_memory.places": "loss.cirkd_memory.max_positions",
    "loss.cirkd_memory.pushed": "loss.cirkd_memory.pixels_per_class",
    "loss.cirkd_memory.pixels_drawn": "loss.cirkd_memory.num_pixel_samples",
    "loss.cirkd_memory.regions_drawn": "loss.cirkd_memory.num_region_samples",
    "loss.cirkd_memory.regions": "loss.cirkd_memory.class_source",
    "loss.ifvd.regions": "loss.ifvd.class_source",
    "scores": "metrics",
    "block": "bootstrap_block",
    "resamples": "bootstrap_samples",
    "label_files": "submission_dir",
    "views": "outputs",
    "longest": "max_side",
    "frames": "max_frames",
    "megabytes": "max_upload_mb",
    "export.allowed_loss": "max_miou_drop",
    "allowed_loss": "max_miou_drop",
    "export.normalization": "include_normalization",
    "normalization": "include_normalization",
    "only": "select",
    "rows": "methods",
}
"""Key of an earlier version → the key now. A key that ends in `.tap` is now one that ends in `.feature`."""

RENAMED_OPTIONS = {
    ("preset", "conference"): "skd_cvpr_code",
    ("sweep", "camvid_drives"): "camvid_leave_one_sequence_out",
    ("optimizer", "critic_adam"): "discriminator_adam",
    ("experiment", "espnet_camvid_plain"): "espnet_camvid_logits_and_features",
    ("experiment", "espnet_camvid_unlabelled"): "espnet_camvid_unlabeled",
    ("experiment", "camvid_scratch/plain"): "camvid_scratch/logits_and_features",
}
"""Group and option of an earlier version → the option now."""

USUAL_NAMES = {
    "accumulate": "trainer.micro_batches",
    "accumulate_grad_batches": "trainer.micro_batches",
    "batch_size": "data.batch_size",
    "check_val_every_n_epoch": "trainer.validate_every",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "gradient_clip_val": "trainer.gradient_clip",
    "learning_rate": "optimizers.student.lr",
    "log_every_n_steps": "trainer.log_every",
    "lr": "optimizers.student.lr",
    "max_steps": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_workers": "data.workers",
    "pretrained": "student.init_from",
    "val_interval": "trainer.validate_every",
    "workers_per_gpu": "data.workers",
}
"""Last part of a key of Lightning, mmsegmentation or timm → ours."""

EXPLAINED = {
    "dataset.root": "name the dataset too: dataset=NAME dataset.root=DIR",
    "model": "use model@student=NAME or model@teacher=NAME",
    "optimizer": "use optimizer@optimizers.student=NAME",
}
"""Keys that are nearly right → the cure."""


def find_new_key(key: str, keys: list[str]) -> str | None:
    """Return segkd's name for a key of an earlier version or of another framework; None if it is neither.

    Args:
        key: as it was typed.
        keys: the keys of the command.
    """
    new = RENAMED.get(key)
    if new is None and key.endswith(".tap"):
        new = key.removesuffix(".tap") + ".feature"
    if new is None:
        new = USUAL_NAMES.get(key.rpartition(".")[2])
    # In a command without the new key, the old one means something else; a config group ("/") has no value of its own.
    is_known = new is not None and any(
        known == new or known.startswith(f"{new}.") for known in (*keys, new if "/" in new else "")
    )
    return new if is_known else None
