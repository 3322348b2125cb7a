"""Keys of earlier versions, of Lightning and of mmsegmentation, and their names in segkd."""

from __future__ import annotations

import re

from segkd.config.renamed_keys import RENAMED_TRAINING_KEYS, update_key

RENAMED = {
    **RENAMED_TRAINING_KEYS,
    "adversary/form": "adversary/gan_loss",
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
"""Key of an earlier version → the key now. `update_key` also knows the keys that end in `.tap`."""

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
    "batch_size": "data.batch_size",
    "check_val_every_n_epoch": "trainer.validate_every",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "gradient_clip_val": "trainer.gradient_clip",
    "learning_rate": "optimizers.student.lr",
    "log_every_n_steps": "trainer.log_every",
    "lr": "optimizers.student.lr",
    "num_epochs": "trainer.max_epochs",
    "num_workers": "data.workers",
    "pretrained": "student.init_from",
    "val_interval": "trainer.validate_every",
    "workers_per_gpu": "data.workers",
}
"""Last part of a key of Lightning, mmsegmentation or timm → the key in segkd."""

EXPLAINED = {
    "accumulate": "use trainer.micro_batches=N: the batch goes through the networks in N parts",
    "accumulate_grad_batches": "use trainer.micro_batches=N: the batch goes through the networks in N parts",
    "carry": "the stage is gone; copy the runs with tar",
    "max_steps": "use trainer.max_epochs=N, which counts epochs",
    "dataset.root": "name the dataset too: dataset=NAME dataset.root=DIR",
    "model": "use model@student=NAME or model@teacher=NAME",
    "optimizer": "use optimizer@optimizers.student=NAME",
}
"""Key, or its first or last part → the cure, where a name alone would not explain it."""


def find_cure(key: str, keys: list[str]) -> str | None:
    """Return what to do instead of giving a key that has no counterpart, if this command can do it.

    Args:
        key: as it was typed.
        keys: the keys of the command.
    """
    group, last = key.partition(".")[0], key.rpartition(".")[2]
    cure = next((EXPLAINED[name] for name in (key, last, group) if name in EXPLAINED), None)
    named = re.search(r"[\w@.]+(?==)", cure or "")
    parts = {part for known in keys for part in known.split(".")}
    return cure if named is None or {*re.split(r"[@.]", named[0])} & parts else None


def find_new_key(key: str, keys: list[str]) -> str | None:
    """Return segkd's name for a key of an earlier version or of another framework; None if it is neither.

    Args:
        key: as it was typed.
        keys: the keys of the command.
    """
    new = RENAMED.get(key)
    if new is None and (updated := update_key(key)) != key:
        new = updated
    if new is None:
        new = USUAL_NAMES.get(key.rpartition(".")[2])
    # In a command without the new key, the old one means something else; a config group ("/") has no value of its own.
    is_known = new is not None and any(
        known == new or known.startswith(f"{new}.") for known in (*keys, new if "/" in new else "")
    )
    return new if is_known else None
