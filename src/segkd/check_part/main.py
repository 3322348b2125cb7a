"""The command: build the parts that the command line names, and print a finding for each line of their contracts."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

from omegaconf import DictConfig
from pydantic import Field, PlainValidator
from torch.optim import Optimizer

from segkd.check_part.dataset_contract import check_dataset
from segkd.check_part.findings import Finding, describe_crash
from segkd.check_part.loss_contract import check_loss
from segkd.check_part.network_contract import check_network
from segkd.check_part.other_contracts import check_callback, check_logger, check_optimizer, check_schedule
from segkd.config.instantiate import NetworkSpec, Spec, list_accepted_keys, parse_spec
from segkd.config.overrides import check_named_parts
from segkd.config.schema import (
    CallbackSpec,
    LoggerSpec,
    LossSpec,
    OptionalNetwork,
    OptionalSpec,
    Settings,
    load_settings,
)
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel

_NORMALIZATION = (127.5, 127.5, 127.5), (64.0, 64.0, 64.0)


def _parse_dataset(node: Any) -> Spec | None:
    if isinstance(node, Mapping) and node.get("root") is None:
        if not node.keys() - {"root", "_target_"} and node.get("_target_") is None:
            return None
        if "_target_" in node and "root" not in list_accepted_keys(node):
            node = {key: value for key, value in node.items() if key != "root"}  # the command's own `root: null`
    return parse_spec(node, "choose a dataset with dataset=NAME", SegmentationDataset)


OptionalOptimizer = Annotated[
    Spec | None, PlainValidator(lambda node: parse_spec(node, kind=Optimizer) if node else None)
]
OptionalDataset = Annotated[Spec | None, PlainValidator(_parse_dataset)]


class CheckPartSettings(Settings):
    """Settings of `python -m segkd.check_part`."""

    loss: dict[str, LossSpec] = Field(description="losses to check", json_schema_extra={"values": "[NAME,…]"})
    model: OptionalNetwork = Field(description="a network to check", json_schema_extra={"values": "NAME"})
    dataset: OptionalDataset = Field(description="a dataset to check", json_schema_extra={"values": "NAME"})
    optimizer: OptionalOptimizer = Field(description="an optimizer to check", json_schema_extra={"values": "NAME"})
    schedule: OptionalSpec = Field(description="a schedule to check", json_schema_extra={"values": "NAME"})
    callbacks: dict[str, CallbackSpec] = Field(
        description="callbacks to check", json_schema_extra={"values": "[NAME,…]"}
    )
    logger: dict[str, LoggerSpec] = Field(description="loggers to check", json_schema_extra={"values": "[NAME,…]"})
    classes: int = Field(ge=2, description="number of classes of the networks on which a loss or a network is checked")
    features: list[str] = Field(
        description="features that a loss reads, besides encoder, kd_logits and the loss's own key `feature`",
        json_schema_extra={"values": "[NAME,…]"},
    )


class Part(NamedTuple):
    """A part that the command line names."""

    title: str
    spec: Spec
    check: Callable[[], list[Finding]]


def check_part(cfg: DictConfig) -> None:
    """Print the findings of each part, and a summary.

    Raises:
        UserError: No part is named, or one cannot be built.
        SystemExit: With code 1 if a part breaks its contract.
    """
    check_named_parts(cfg)
    parts = list(_list_parts(load_settings(cfg, CheckPartSettings)))
    if not parts:
        raise UserError(
            "no part to check; name one: loss=NAME, model=NAME, dataset=NAME, optimizer=NAME, schedule=NAME, callbacks=[NAME] "
            "or logger=[NAME]"
        )
    findings = [finding for part in parts for finding in _check(part)]
    count = sum(finding.is_fault for finding in findings)
    names = ", ".join(part.title for part in parts)
    print(
        f"{names}: {len(findings)} line{'s' * (len(findings) != 1)} of the contract, {count or 'no'} fault{'s' * (count != 1)}"
    )
    if count:
        raise SystemExit(1)


def _check(part: Part) -> list[Finding]:
    """Check a part and print what is found."""
    try:
        findings = part.check()
    except UserError as error:
        raise UserError(f"{part.title}: {error}") from None
    except Exception as error:
        raise UserError(f"{part.title}: {part.spec.path} cannot be built: {describe_crash(error)}") from error
    print(f"{part.title} ({part.spec.path})")
    width = max(len(finding.line) for finding in findings)
    for finding in findings:
        print(f"  {finding.line.ljust(width)}  {finding.sentence}")
    return findings


def _list_parts(settings: CheckPartSettings) -> Iterator[Part]:
    for name, spec in settings.loss.items():
        names = dict.fromkeys([*settings.features, *_get_own_feature(spec)])
        yield Part(f"loss {name}", spec, partial(check_loss, spec.build, settings.classes, names))
    if settings.model is not None:
        yield Part("model", settings.model, partial(_check_network, settings.model, settings.classes))
    if settings.dataset is not None:
        yield Part("dataset", settings.dataset, partial(check_dataset, settings.dataset.build))
    if settings.optimizer is not None:
        yield Part("optimizer", settings.optimizer, partial(check_optimizer, settings.optimizer.build))
    if settings.schedule is not None:
        yield Part("schedule", settings.schedule, partial(check_schedule, settings.schedule.build))
    for name, spec in settings.callbacks.items():
        yield Part(f"callback {name}", spec, partial(check_callback, spec.build))
    for name, spec in settings.logger.items():
        yield Part(f"logger {name}", spec, partial(_check_logger, spec))


def _get_own_feature(spec: Spec) -> list[str]:
    """Return the feature that a loss's config names."""
    feature = spec.arguments.get("feature")
    return [feature] if isinstance(feature, str) else []


def _check_network(spec: NetworkSpec, classes: int) -> list[Finding]:
    if spec.target.has_members:
        raise UserError("it combines networks; check its members one by one")
    if given := [key for key in ("checkpoint", "init_from", "class_map") if getattr(spec, key) is not None]:
        raise UserError(f"model.{given[0]} is given, and a new network with random weights is checked; leave it out")
    network: SegmentationModel = spec.build(num_classes=classes, normalization=Normalization(*_NORMALIZATION))
    return check_network(network)


def _check_logger(spec: Spec) -> list[Finding]:
    if spec.path.startswith("segkd."):
        raise UserError("segkd's own loggers need a run; check one of your own")
    takes_folder = "save_dir" in inspect.signature(spec.target).parameters and "save_dir" not in spec.arguments
    with tempfile.TemporaryDirectory() as folder:
        return check_logger(partial(spec.build, **({"save_dir": folder} if takes_folder else {})))
