"""What a config may say: every key has a type, and all faults are told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PositiveInt,
    StrictBool,
    ValidationError,
)

from segkd.config.instantiate import NetworkSpec, Spec, accepted_keys, parse_optional_spec, parse_spec
from segkd.errors import UserError


class DatasetRoot(NamedTuple):
    """Where the data set of a run lies now, where no other data set is chosen."""

    path: str | None


RequiredSpec = Annotated[Spec, PlainValidator(parse_spec)]
OptionalSpec = Annotated[Spec | None, PlainValidator(parse_optional_spec)]
OptionalNetwork = Annotated[NetworkSpec | None, PlainValidator(lambda node: _parse_network(node))]
Student = Annotated[NetworkSpec, PlainValidator(lambda node: _parse_student(node))]
Teacher = Annotated[NetworkSpec | None, PlainValidator(lambda node: _parse_teacher(node))]
DatasetSpec = Annotated[Spec, PlainValidator(lambda node: parse_spec(node, "choose a data set with dataset=NAME"))]
DatasetOfRun = Annotated[Spec | DatasetRoot, PlainValidator(lambda node: _parse_dataset_of_run(node))]
"""A data set, or where that of a run lies now: `{root: DIR}`."""

_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]
RunFolders = Annotated[list[str], BeforeValidator(lambda runs: _listed(runs))]
"""Folders of runs, as glob patterns."""


class Settings(BaseModel):
    """Base of all settings: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class JitterSettings(Settings):
    """Ranges of colour changes."""

    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, le=1)
    saturation: float = Field(ge=0, le=1)
    hue: float = Field(ge=0, le=0.5)


class DataSettings(Settings):
    """How batches are made."""

    batch_size: PositiveInt
    crop_size: tuple[PositiveInt, PositiveInt] | None
    scale: Annotated[tuple[_Positive, _Positive], AfterValidator(lambda scale: _ascending(scale))]
    flip: float = Field(ge=0, le=1)
    jitter: JitterSettings
    workers: int = Field(ge=0)
    on_device: StrictBool = False
    train_split: str
    val_split: str
    unlabelled: Path | None
    unlabelled_ratio: _Positive


class TrainerSettings(Settings):
    """What of Lightning's Trainer makes sense here; the rest is ours to do (clipping, step counts) or unsound."""

    max_epochs: PositiveInt
    devices: PositiveInt | Literal["auto"]
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]
    num_nodes: PositiveInt
    precision: Annotated[str, AfterValidator(lambda p: _precision(p))]
    gradient_clip: float | None = Field(gt=0)
    validate_every: PositiveInt
    log_every: PositiveInt
    log_gradient_shares_every: PositiveInt | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    on_nan: Literal["stop", "skip"] = "stop"
    sync_batchnorm: StrictBool = False
    channels_last: StrictBool = False
    compile: StrictBool = False
    micro_batches: PositiveInt = 1
    teacher_bf16: StrictBool = False
    limit_train_batches: PositiveInt | _Share | None
    limit_val_batches: PositiveInt | _Share | None
    progress: bool


class CheckpointSettings(Settings):
    """When the run is saved, besides at every epoch's end."""

    every_steps: PositiveInt | None
    every_minutes: _Positive | None


class WandbSettings(Settings):
    """Where curves go besides metrics.csv."""

    mode: Literal["auto", "online", "offline", "disabled"]
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    timeout: PositiveInt
    panels_every: PositiveInt | None = None
    panels: PositiveInt = 4


class TrainSettings(Settings):
    """`python -m segkd.train`."""

    name: str
    seed: int = Field(ge=0, lt=2**31)
    output_dir: Path
    resume: Literal["auto"] | Path | None
    check_teacher: Literal["stop", "warn", "off"]
    dry_run: StrictBool  # the run's folder hangs on it before it is validated, so that only true is true
    dataset: DatasetSpec
    data: DataSettings
    student: Student
    teacher: Teacher
    loss: dict[str, RequiredSpec] = Field(min_length=1)
    adversary: OptionalSpec
    optimizers: dict[str, RequiredSpec]
    schedule: RequiredSpec
    trainer: TrainerSettings
    checkpoint: CheckpointSettings
    wandb: WandbSettings


class DemoSettings(Settings):
    """`python -m segkd.demo`."""

    seed: int = Field(ge=0, lt=2**31)
    output_dir: Path
    epochs: PositiveInt | None


def _parse_network(node: Any) -> NetworkSpec | None:
    spec = parse_optional_spec(node)
    if spec is not None and not isinstance(spec, NetworkSpec):
        raise ValueError(f"{spec.target.__name__} is not a network; choose one with model=NAME")
    return spec


def _parse_student(node: Any) -> NetworkSpec:
    spec = _parse_network(node)
    if spec is None:
        raise ValueError("no student given; choose one with model@student=NAME")
    return spec


def _parse_teacher(node: Any) -> NetworkSpec | None:
    spec = _parse_network(node)
    if spec is None and node.get("checkpoint") is not None:
        raise ValueError("teacher.checkpoint is given, but no teacher; choose the network with model@teacher=NAME")
    return spec


def _parse_dataset_of_run(node: Any) -> Spec | DatasetRoot:
    if node.get("_target_") is None:
        if unknown := node.keys() - {"root", "_target_"}:
            raise ValueError(
                f"dataset.{', dataset.'.join(sorted(unknown))} of which data set? give dataset=NAME dataset.root=DIR"
            )
        return DatasetRoot(node.get("root"))
    is_idle = node.get("root") is None and "root" not in accepted_keys(node)  # the commands' own `root: null`
    return parse_spec({key: value for key, value in node.items() if not (is_idle and key == "root")})


def _listed(runs: Any) -> Any:
    if not runs:
        raise ValueError("say which: runs='runs/quickstart/*', or a list of folders")
    return [runs] if isinstance(runs, str) else runs


def _ascending(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("the least factor comes first")
    return scale


def _precision(value: str) -> str:
    allowed = ("32-true", "bf16-mixed")
    if value == "16-mixed":
        raise ValueError(
            "16-mixed scales losses and breaks clipping and the critic's penalty; use bf16-mixed or 32-true"
        )
    if value not in allowed:
        raise ValueError(f"precision is {' or '.join(allowed)}")
    return value


S = TypeVar("S", bound=Settings)


def load_settings(cfg: DictConfig, settings: type[S]) -> S:
    """The typed settings of a composed config.

    Raises:
        UserError: with all faults in one message.
    """
    try:
        return settings.model_validate(OmegaConf.to_container(cfg, resolve=True))
    except ValidationError as error:
        raise UserError("; ".join(_sentence(fault) for fault in error.errors())) from None


def _sentence(fault: Any) -> str:
    """One fault: which key, what is wrong, what was given."""
    key = ".".join(
        str(part) for part in fault["loc"] if not str(part).startswith(("function-", "literal[", "constrained"))
    )
    ours = fault["type"] == "value_error"  # said as it should be read; it may open with the name of a class
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"there is no key '{key}'"
    given = "" if ours and isinstance(fault["input"], dict) else f" (given: {fault['input']})"
    return f"{key}: {message[0].lower() + message[1:] if not ours and message.split()[0].istitle() else message}{given}"
