"""Validate a composed config: every key has a type, and one error lists all faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from torch import nn
from torch.optim import Optimizer

from segkd.config.faults import describe_faults
from segkd.config.instantiate import NetworkSpec, Spec, list_accepted_keys, parse_optional_spec, parse_spec
from segkd.config.renamed_values import check_values
from segkd.config.targets import resolve_target
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.models.base import SegmentationModel
from segkd.models.class_names import ClassCheck


class DatasetRoot(NamedTuple):
    """Where the dataset of a run lies now."""

    path: str | None


Accelerator = Literal["auto", "cpu", "gpu", "cuda"]
"""Device to compute on."""

CheckClasses = Annotated[
    ClassCheck,
    Field(description="what weights and the dataset must agree in: names and order of classes, or their count alone"),
]

RequiredSpec = Annotated[Spec, PlainValidator(parse_spec)]
LossSpec = Annotated[Spec, PlainValidator(lambda node: parse_spec(node, kind=Loss))]
LoggerSpec = Annotated[Spec, PlainValidator(lambda node: parse_spec(node, kind=Logger))]
CallbackSpec = Annotated[Spec, PlainValidator(lambda node: parse_spec(node, kind=Callback))]
OptimizerSpec = Annotated[Spec, PlainValidator(lambda node: parse_spec(node, kind=Optimizer))]
OptionalSpec = Annotated[Spec | None, PlainValidator(parse_optional_spec)]
OptionalNetwork = Annotated[NetworkSpec | None, PlainValidator(lambda node: _parse_network(node))]
Student = Annotated[NetworkSpec, PlainValidator(lambda node: _parse_student(node))]
Teacher = Annotated[NetworkSpec | None, PlainValidator(lambda node: _parse_teacher(node))]
DatasetSpec = Annotated[
    Spec, PlainValidator(lambda node: parse_spec(node, "choose a dataset with dataset=NAME", SegmentationDataset))
]
DatasetOfRun = Annotated[Spec | DatasetRoot, PlainValidator(lambda node: _parse_dataset_of_run(node))]
"""A dataset, or where that of a run lies now: `{root: DIR}`."""

RunFolders = Annotated[list[str], BeforeValidator(lambda runs: _as_list(runs))]
"""Folders of runs, as glob patterns."""


class Settings(BaseModel):
    """Base class of settings: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _parse_network(node: Any) -> NetworkSpec | None:
    path = node.get("_target_") if isinstance(node, Mapping) else None
    if path is not None and not issubclass(target := resolve_target(path), SegmentationModel):
        is_module = issubclass(target, nn.Module)
        cure = f"wrap it, model=adapter network={path}" if is_module else "choose one with model=NAME"
        raise ValueError(f"{target.__name__} is not a network; {cure}")
    return cast("NetworkSpec | None", parse_optional_spec(node))


def _parse_student(node: Any) -> NetworkSpec:
    spec = _parse_network(node)
    if spec is None:
        raise ValueError("no student given; choose one with model@student=NAME")
    return spec


def _parse_teacher(node: Any) -> NetworkSpec | None:
    spec = _parse_network(node)
    if spec is None and isinstance(node, Mapping) and node.get("checkpoint") is not None:
        raise ValueError("teacher.checkpoint is given, but no teacher; choose the network with model@teacher=NAME")
    return spec


def _parse_dataset_of_run(node: Any) -> Spec | DatasetRoot:
    if not isinstance(node, Mapping):
        raise ValueError("choose a dataset with dataset=NAME dataset.root=DIR")
    if node.get("_target_") is None:
        if unknown := node.keys() - {"root", "_target_"}:
            raise ValueError(
                f"dataset.{', dataset.'.join(sorted(unknown))} of which dataset? give dataset=NAME dataset.root=DIR"
            )
        return DatasetRoot(node.get("root"))
    is_idle = node.get("root") is None and "root" not in list_accepted_keys(node)  # the commands' own `root: null`
    given = {key: value for key, value in node.items() if not (is_idle and key == "root")}
    return parse_spec(given, kind=SegmentationDataset)


def _as_list(runs: Any) -> Any:
    if not runs:
        raise ValueError("give folders of runs: runs='runs/quickstart/*', or a list")
    return [runs] if isinstance(runs, str) else runs


S = TypeVar("S", bound=Settings)


def load_settings(cfg: DictConfig, settings: type[S]) -> S:
    """Return the settings of a composed config.

    Raises:
        UserError: something is wrong; one message lists all faults.
    """
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    check_values(config)
    try:
        return settings.model_validate(config)
    except ValidationError as error:
        raise UserError(describe_faults(settings, config, error)) from None
