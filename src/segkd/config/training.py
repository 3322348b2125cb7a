"""Settings of a training: the keys of `segkd.train`, which `calibrate` and `benchmark mode=step` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, StrictBool

from segkd.config.schema import (
    Accelerator,
    CallbackSpec,
    CheckClasses,
    DatasetSpec,
    LoggerSpec,
    LossSpec,
    OptimizerSpec,
    OptionalSpec,
    RequiredSpec,
    Settings,
    Student,
    Teacher,
)

PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class JitterSettings(Settings):
    """Ranges of color jitter."""

    brightness: float = Field(ge=0, le=1, description="greatest change of brightness")
    contrast: float = Field(ge=0, le=1, description="greatest change of contrast")
    saturation: float = Field(ge=0, le=1, description="greatest change of saturation")
    hue: float = Field(ge=0, le=0.5, description="greatest change of hue")


class DataSettings(Settings):
    """Batches and augmentation."""

    batch_size: PositiveInt = Field(description="images of a batch, over all devices")
    crop_size: tuple[PositiveInt, PositiveInt] | None = Field(
        description="height and width of training crops; null: the dataset's image size"
    )
    scale: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(lambda scale: _check_range(scale))] = Field(
        description="range of the random scale before the crop"
    )
    flip: float = Field(ge=0, le=1, description="probability of a horizontal flip")
    jitter: JitterSettings = Field(description="color jitter")
    workers: int = Field(ge=0, description="loading processes per training process")
    on_device: StrictBool = Field(
        description="keep the training split on the device and augment there, without workers"
    )
    train_split: str = Field(description="the split to train on", json_schema_extra={"values": "NAME"})
    val_split: str = Field(description="the split to validate on", json_schema_extra={"values": "NAME"})
    unlabeled: Path | None = Field(
        description="folder of images for distillation only; needs a teacher and a distillation loss",
        json_schema_extra={"values": "DIR|null"},
    )
    unlabeled_ratio: PositiveFloat = Field(
        description="unlabeled images per labeled image; the batch grows accordingly"
    )


class TrainerSettings(Settings):
    """Devices and length of the training."""

    max_epochs: PositiveInt = Field(description="epochs of the run")
    devices: PositiveInt | Literal["auto"] | None = Field(
        description="devices per machine; null: as many processes as torchrun or srun started, else 1"
    )
    accelerator: Accelerator = Field(description="device type")
    num_nodes: PositiveInt | None = Field(description="machines; null: those of torchrun or srun, else 1")
    precision: Annotated[Literal["32-true", "bf16-mixed"], BeforeValidator(lambda value: _refuse_half(value))] = Field(
        description="float precision"
    )
    gradient_clip: float | None = Field(gt=0, description="greatest norm of a phase's gradient; null: no clipping")
    validate_every: PositiveInt = Field(description="epochs between validations")
    log_every: PositiveInt = Field(description="batches between logged rows")
    log_gradient_shares_every: PositiveInt | None = Field(
        description="batches between measurements of each term's share of the student's gradient (share/NAME); null: never",
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        description="decay of a moving average of the student, which is then validated and kept, e.g. 0.999",
    )
    on_nan: Literal["stop", "skip"] = Field(
        description="what to do with an update whose loss or gradient is NaN or Inf"
    )
    sync_batchnorm: StrictBool = Field(description="BatchNorm statistics over all GPUs")
    channels_last: StrictBool = Field(description="channels-last memory format of student and teacher")
    compile: StrictBool = Field(description="torch.compile student and teacher")
    micro_batches: PositiveInt = Field(
        description="micro-batches in which a batch passes through the networks, to save memory; losses use the full batch"
    )
    teacher_bf16: StrictBool = Field(description="run the teacher in bfloat16, whatever the precision")
    limit_train_batches: PositiveInt | Fraction | None = Field(
        description="batches of an epoch, or a fraction of them; null: all"
    )
    limit_val_batches: PositiveInt | Fraction | None = Field(
        description="batches of a validation, or a fraction of them; null: all"
    )
    progress: bool = Field(
        description="show progress bars; without them, or without a terminal, print a line at the end of each epoch"
    )


class CheckpointSettings(Settings):
    """Checkpoints besides those at the end of every epoch."""

    every_steps: PositiveInt | None = Field(
        description="batches between checkpoints; null: only at the end of an epoch"
    )
    every_minutes: PositiveFloat | None = Field(description="minutes between checkpoints; null: no clock")


class WandbSettings(Settings):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        description="auto: WANDB_MODE, or else online with an API key, and offline without"
    )
    project: str | None = Field(description="project; null: WANDB_PROJECT, or segkd")
    entity: str | None = Field(description="user or team; null: WANDB_ENTITY, or that of the key")
    group: str | None = Field(
        description="group of the run; null: WANDB_RUN_GROUP, or in a sweep the name of its folder"
    )
    tags: list[str] = Field(description="tags of the run; []: WANDB_TAGS")
    timeout: PositiveInt = Field(description="seconds to wait for W&B at each call")
    panels_every: PositiveInt | None = Field(description="validations between images with masks; null: no images")
    panels: PositiveInt = Field(description="images with masks")


class TrainSettings(Settings):
    """Run and parts."""

    name: str = Field(description="name of the run; by default that of its folder or of the experiment")
    seed: int = Field(ge=0, lt=2**31, description="seed of weights, order and augmentation")
    output_dir: Path = Field(description="folder of the run", json_schema_extra={"values": "DIR"})
    resume: Literal["auto"] | Path | None = Field(
        description="continue from the newest valid checkpoint in output_dir, or from a file",
        json_schema_extra={"values": "auto|FILE|null"},
    )
    check_teacher: Literal["stop", "warn", "off"] = Field(
        description="what to do if the teacher is no better than the best constant class"
    )
    check_classes: CheckClasses
    # The run's folder depends on it before it is validated, so only true is true.
    dry_run: StrictBool = Field(description="print networks, losses and their costs; train and write nothing")
    dataset: DatasetSpec = Field(description="the dataset")
    student: Student = Field(
        description="the network to train", json_schema_extra={"key": "model@student", "values": "NAME"}
    )
    teacher: Teacher = Field(
        description="the frozen network to learn from; none: labels only",
        json_schema_extra={"key": "model@teacher", "values": "NAME|none"},
    )
    loss: dict[str, LossSpec] = Field(
        min_length=1, description="what the student minimizes", json_schema_extra={"values": "[NAME,…]"}
    )
    adversary: OptionalSpec = Field(
        description="the discriminator of holistic distillation", json_schema_extra={"values": "none|holistic"}
    )
    optimizers: dict[str, OptimizerSpec] = Field(
        description="the student's optimizer",
        json_schema_extra={"key": "optimizer@optimizers.student", "values": "adam|adamw|sgd"},
    )
    schedule: RequiredSpec = Field(description="learning-rate schedule")
    data: DataSettings = Field(description="batches and augmentation")
    trainer: TrainerSettings = Field(description="devices and length of the training")
    checkpoint: CheckpointSettings = Field(description="checkpoints")
    logger: dict[str, LoggerSpec] = Field(
        description="where curves go; metrics.csv is always written", json_schema_extra={"values": "[NAME,…]"}
    )
    callbacks: dict[str, CallbackSpec] = Field(
        description="Lightning callbacks of your own", json_schema_extra={"values": "[NAME,…]"}
    )
    wandb: WandbSettings = Field(description="Weights & Biases")


def _check_range(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("the least factor comes first")
    return scale


def _refuse_half(value: Any) -> Any:
    if value in (16, "16", "16-mixed", "16-true", "fp16", "float16", "half"):
        raise ValueError(
            "float16 scales losses and breaks clipping and the gradient penalty; use trainer.precision=bf16-mixed or 32-true"
        )
    return value
