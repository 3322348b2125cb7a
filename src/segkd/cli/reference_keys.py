"""What the reference says beyond the descriptions of settings: keys that no field has, and links."""

from __future__ import annotations

from typing import NamedTuple

from segkd.config.paths import list_options
from segkd.config.reference import KeyDoc, format_options


class ExtraKeys(NamedTuple):
    """Keys that no settings field has, and where they are listed."""

    commands: tuple[str, ...]
    """Empty: all commands that list `after`."""
    after: str
    """The key before them; "" for the beginning, "trainer." for the beginning of its table."""
    keys: list[KeyDoc]
    mode: str = ""
    """Of the command, if it has modes."""

    def is_of(self, command: str, mode: str) -> bool:
        """Return whether the keys belong to a command in a mode."""
        return (not self.commands or command in self.commands) and self.mode in ("", mode)


def _choose(group: str, default: str, description: str) -> KeyDoc:
    """Return the key that chooses from a config group."""
    values, listed = format_options(list_options(group), default)
    return KeyDoc(group, values, default, f"{description}. Names: {', '.join(listed)}" if listed else description)


_PLUGINS = KeyDoc(
    "plugins", "[PACKAGE,…]", "", "packages of your own that the config may name parts of; never from a file"
)

EXTRA_KEYS = (
    ExtraKeys(("evaluate", "predict", "serve", "benchmark"), "accelerator", [_PLUGINS]),
    ExtraKeys(("check", "export", "pack", "stats"), "workers", [_PLUGINS]),
    ExtraKeys(
        ("train",), "", [KeyDoc("experiment", "NAME", "null", "a complete recipe; every other key overrides it")]
    ),
    ExtraKeys((), "dataset", [KeyDoc("dataset.root", "DIR", "null", "folder of the dataset")]),
    ExtraKeys(
        ("train",),
        "model@student",
        [
            KeyDoc("student.checkpoint", "FILE|null", "null", "initial weights of the network; null: random"),
            KeyDoc(
                "student.init_from",
                "imagenet|FILE|null",
                "null",
                "initial weights of the layers that match: torchvision's, or those of a network of the same family",
            ),
        ],
    ),
    ExtraKeys(
        ("train", "evaluate"),
        "model@teacher",
        [
            KeyDoc(
                "teacher.checkpoint",
                "FILE|pretrained",
                "null",
                "weights of the teacher; pretrained: an adapter's constructor loads them",
            )
        ],
    ),
    ExtraKeys(
        ("train",),
        "model@teacher",
        [KeyDoc("teacher.class_map", "{OURS: [THEIRS]}|null", "null", "classes of a teacher that has others")],
    ),
    ExtraKeys(
        ("train",),
        "loss",
        [
            KeyDoc("loss.NAME.weight", "X", "per loss", "weight of a selected loss"),
            _choose("preset", "none", "a published form of the losses; losses may be left out, values not changed"),
        ],
    ),
    ExtraKeys(
        ("train",),
        "adversary",
        [
            KeyDoc("adversary.weight", "X", "0.001", "weight of the adversarial loss"),
            KeyDoc("adversary/gan_loss", "wasserstein|hinge", "wasserstein", "loss of the discriminator"),
        ],
    ),
    ExtraKeys(
        ("train",),
        "optimizer@optimizers.student",
        [KeyDoc("optimizers.student.lr", "X", "per optimizer", "learning rate; 5e-4 adam, 1e-3 adamw, 0.01 sgd")],
    ),
    ExtraKeys(
        ("train",),
        "trainer.",
        [_choose("trainer", "default", "gpu: bfloat16 on one GPU; ddp: all GPUs of the machine")],
    ),
    ExtraKeys(
        ("train",),
        "dry_run",
        [
            _PLUGINS,
            KeyDoc("-m KEY", "A,B", "", "a sweep: one training per value"),
            KeyDoc("-m sweep", "NAME", "", "a sweep of configs/sweep; hydra/launcher=joblib runs several jobs at once"),
        ],
    ),
    ExtraKeys(("study",), "", [_choose("plan", "camvid", "methods and dataset; a plan may set any key below")]),
    ExtraKeys(("calibrate",), "batches", [KeyDoc("KEY", "VALUE", "", "all keys of segkd.train")]),
    ExtraKeys(("benchmark",), "output_dir", [KeyDoc("KEY", "VALUE", "", "all keys of segkd.train")], "step"),
)

PAGES = {
    "experiment": "cli.md#experiments",
    "dataset": "datasets.md",
    "model@student": "networks.md",
    "student.init_from": "networks.md#initial-weights",
    "teacher.class_map": "../how-to/teachers.md",
    "loss": "losses.md",
    "loss.NAME.weight": "#keys-of-the-losses",
    "preset": "losses.md#presets",
    "adversary": "losses.md#the-adversarial-loss",
    "trainer.ema": "../how-to/resume-and-preemption.md#moving-average",
    "trainer.on_nan": "../how-to/resume-and-preemption.md#nan-and-inf",
    "trainer.micro_batches": "../how-to/resume-and-preemption.md#micro-batches",
    "trainer.channels_last": "../how-to/speed.md",
    "trainer.log_gradient_shares_every": "../how-to/balance-losses.md#during-a-training",
    "resume": "../how-to/resume-and-preemption.md",
    "logger": "../how-to/loggers.md",
    "callbacks": "../how-to/loggers.md#callbacks",
    "wandb.mode": "../how-to/loggers.md#weights-biases",
    "plugins": "../how-to/plugins.md",
    "-m KEY": "../how-to/sweeps.md",
    "metrics": "metrics.md",
    "corruptions": "metrics.md#corrupted-images",
    "shares": "../how-to/balance-losses.md",
}
"""Key → page that explains it, from docs/reference."""
