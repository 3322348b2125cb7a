"""Group runs by method, and find their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segkd.config.keys import flatten
from segkd.runs.compatibility import rename_setting
from segkd.runs.run import Run

BASELINE = "baseline"
"""Name of a method without distillation."""

IGNORED_KEYS = (
    "seed", "name", "output_dir", "resume", "check_teacher", "check_classes", "dry_run", "logger", "wandb", "checkpoint", "data.workers",
    "trainer.progress", "trainer.log_every", "trainer.log_gradient_shares_every", "trainer.validate_every", "dataset.root",
)  # fmt: skip
"""Keys that do not change what is learned."""

_TRAIN_DATA = "train data"
_CALLBACKS = "callbacks"
_LABELS = "labels"  # the losses that do not use the teacher; no key of a config
_HASH_DIGITS = 8
_MIN_DIGITS, _MAX_DIGITS = 3, 17  # of a number in a method's name; 17 tell any two floats apart
_LENGTH_KEYS = ("trainer.max_epochs", "trainer.limit_train_batches")


def group_by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs that differ in nothing but their seed; baselines come first.

    A method is named by its distillation terms, and by the settings in which it differs from the other runs.
    """
    keys_by_run = [get_method_keys(run) for run in runs]
    values: dict[str, list[Any]] = {}
    for keys in keys_by_run:
        for key, value in keys.items():
            values.setdefault(key, []).append(value)
    texts = {key: format_values(key_values) for key, key_values in values.items()}
    varying = {key: text for key, text in texts.items() if len(set(text.values())) > 1}
    methods: dict[str, list[Run]] = {}
    for run, keys in zip(runs, keys_by_run, strict=True):
        settings = [format_setting(key, varying[key][str(keys[key])]) for key in varying if key in keys]
        name = ", ".join([" + ".join(run.terms) or BASELINE, *settings])
        methods.setdefault(name, []).append(run)
    return dict(sorted(methods.items(), key=lambda item: not item[0].startswith(BASELINE)))


def format_values(values: Sequence[Any]) -> dict[str, str]:
    """Return the text of each value of a key: null as in yaml, numbers with no more digits than tell them apart.

    Args:
        values: as a config has them.

    Returns:
        `str(value)` → text.
    """
    texts = {str(value): "null" if value is None else str(value) for value in values}
    numbers = {str(value): float(value) for value in values if type(value) in (int, float)}
    for digits in range(_MIN_DIGITS, _MAX_DIGITS):
        short = {text: f"{number:.{digits}g}" for text, number in numbers.items()}
        if len(set(short.values())) == len(set(numbers.values())):
            # A number with that many digits before its point, such as 1024, is printed in full.
            full = {text: f"{n:.15g}" for text, n in numbers.items() if abs(n) >= 10**digits}
            return {**texts, **short, **full}
    return texts


def format_setting(key: str, value: str) -> str:
    """Return `student=ESPNetC` for the key `student._target_` and the value `segkd.models.espnet.ESPNetC`."""
    if key.endswith("._target_"):
        key, value = key.removesuffix("._target_"), value.rpartition(".")[2]
    return f"{key}={value}"


def find_baselines(runs: Sequence[Run], methods: Mapping[str, Sequence[Run]]) -> list[Sequence[Run]]:
    """Return the methods that train the student of `runs` alike but without distillation, for any length."""
    keys = get_method_keys(runs[0])
    return [
        candidates
        for candidates in methods.values()
        if not candidates[0].terms and is_same_recipe(keys, get_method_keys(candidates[0]))
    ]


def is_same_recipe(keys: Mapping[str, Any], other_keys: Mapping[str, Any]) -> bool:
    """Return whether two methods agree in all keys that both have, apart from the length of the training."""
    return all(keys[key] == other_keys[key] for key in keys.keys() & other_keys.keys() if key not in _LENGTH_KEYS)


def get_method_keys(run: Run) -> dict[str, Any]:
    """Return the keys of a run's config that tell its method, without those of terms that it does not use."""
    unused = [] if run.terms else ["teacher"]
    if "adversarial" not in run.terms:
        unused += ["adversary", "optimizers.discriminator"]
    excluded = (*IGNORED_KEYS, *unused)
    keys = {
        key: value
        for key, value in (rename_setting(*item) for item in flatten(run.config))
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in excluded)
    }
    label_losses = sorted(name for name in run.config["loss"] if name not in run.terms)
    callbacks = sorted(run.config.get("callbacks") or {})  # the config of a run without any has no key of theirs
    parts = {_LABELS: " + ".join(label_losses) or "none", _CALLBACKS: " + ".join(callbacks) or "none"}
    return {**keys, **_describe_train_data(run), **parts}


def _describe_train_data(run: Run) -> dict[str, str]:
    """Return the number of training images and the start of their hash; nothing for data that the config tells, or unknown."""
    data = run.train_data
    if "root" not in run.config.get("dataset", {}) or data.get("contents") is None:
        return {}
    return {_TRAIN_DATA: f"{data['images']} images ({data['contents'][:_HASH_DIGITS]})"}
