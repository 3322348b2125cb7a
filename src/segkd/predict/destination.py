"""Where predictions are written to: a folder, an image, a video or a GIF."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from segkd.errors import UserError
from segkd.predict.rendering import ID_OUTPUTS, OutputKind
from segkd.predict.settings import PredictSettings
from segkd.predict.writers import Write, write_file, write_folder, write_gif, write_video

_DEFAULT_FPS = 10.0  # of a video whose source has no frame rate


class Destination(NamedTuple):
    """Where the outputs go, and which they are."""

    path: Path
    suffix: str
    """Of a file; '' for a folder."""
    outputs: list[OutputKind]


def resolve_destination(settings: PredictSettings) -> Destination:
    """Return where the outputs go, and which they are.

    Raises:
        UserError: a key is missing, the kind of file is unknown, or the outputs do not fit into it.
    """
    networks = len(settings.runs) + len(settings.checkpoints)
    has_input = settings.input is not None or settings.split is not None
    names_network = networks > 0 or settings.model is not None  # whether they fit together is checked with the dataset
    if not names_network or not has_input or settings.output is None:
        raise UserError(
            "say what to predict: run=DIR input=IMAGE|DIR|VIDEO|camera output=DIR|FILE; split=NAME, in place of input, "
            "predicts a split of a dataset"
        )
    output = settings.output
    suffix = "" if output.is_dir() else output.suffix.lower()
    if suffix and suffix not in (known := (".mp4", ".gif", ".png", ".jpg", ".jpeg")):
        raise UserError(f"output={output} is of an unknown kind; give a folder, or a file ending in {', '.join(known)}")
    default: list[OutputKind] = ["class_ids", "color_masks", "overlay"]
    if networks > 1:
        default = ["side_by_side"]
    elif suffix:
        default = ["overlay"]
    outputs = [*dict.fromkeys(settings.outputs or default)]
    if networks > 1 and outputs != ["side_by_side"]:
        raise UserError(
            f"{', '.join(outputs)} of {networks} networks would not be told apart; give outputs=[side_by_side], or one network"
        )
    if suffix and len(outputs) > 1:
        raise UserError(f"{output} takes one of the outputs {', '.join(outputs)}; give one, or a folder as output")
    if suffix not in ("", ".png") and outputs[0] in ID_OUTPUTS:
        raise UserError(f"{output} cannot hold {outputs[0]}, which are numbers; give a folder or a .png as output")
    return Destination(output, suffix, outputs)


def check_destination(output: Path, settings: PredictSettings) -> None:
    """Refuse to overwrite, and to write into the input.

    Raises:
        UserError: the output exists, is the input, or lies inside it.
    """
    source = Path(settings.input or "")
    if settings.input and source.exists() and output.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"output={output} lies in input={source}, and the next run would predict it; give an output elsewhere"
        )
    exists = any(output.iterdir()) if output.is_dir() else output.exists()
    if exists and not settings.overwrite:
        raise UserError(
            f"{output} exists already; give another output, or overwrite=true, which replaces files of the same name"
        )


def open_writer(
    output: OutputKind,
    destination: Destination,
    settings: PredictSettings,
    rate: float | None,
    length: int | None,
    title: str,
) -> AbstractContextManager[Write]:
    """Return the writer of an output.

    Raises:
        UserError: several frames would go into one image.
    """
    path = destination.path
    match destination.suffix:
        case "":
            return write_folder(path / output)
        case ".mp4":
            return write_video(path, settings.fps or rate or _DEFAULT_FPS, settings.width)
        case ".gif":
            return write_gif(path, settings.fps or rate or _DEFAULT_FPS, settings.width)
    if length != 1:
        raise UserError(
            f"{path} is one image, and {title} may be many; give a folder, .mp4 or .gif as output, or limit=1"
        )
    return write_file(path)
