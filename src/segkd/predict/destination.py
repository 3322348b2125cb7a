"""Where predictions are written to: a folder, an image, a video or a GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from segkd.errors import UserError
from segkd.predict.label_values import LabelValues
from segkd.predict.labeled_dataset import is_images_of, write_dataset
from segkd.predict.palette import Palette
from segkd.predict.pipeline import Output
from segkd.predict.rendering import ID_OUTPUTS, OutputKind, Renderer, make_renderer
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
    if suffix and "dataset" in outputs:
        raise UserError(f"{output} is a file, and a dataset is a folder; give a folder as output")
    if suffix not in ("", ".png") and outputs[0] in ID_OUTPUTS:
        raise UserError(f"{output} cannot hold {outputs[0]}, which are numbers; give a folder or a .png as output")
    return Destination(output, suffix, outputs)


def check_destination(destination: Destination, settings: PredictSettings) -> None:
    """Refuse to overwrite, and to write into the input; a dataset may be made around the images that are its input.

    Raises:
        UserError: the output exists, is the input, or lies inside it.
    """
    source, output = Path(settings.input or ""), destination.path
    if settings.input and source.exists() and output.resolve().is_relative_to(source.resolve()):
        raise UserError(
            f"output={output} lies in input={source}, and the next run would predict it; give an output elsewhere"
        )
    own = {source.resolve()} if "dataset" in destination.outputs and is_images_of(output, source) else set()
    exists = any(path.resolve() not in own for path in output.iterdir()) if output.is_dir() else output.exists()
    if exists and not settings.overwrite:
        raise UserError(
            f"{output} exists already; give another output, or overwrite=true, which replaces files of the same name"
        )


OpenOutputs = Callable[[float | None, int | None, str], list[AbstractContextManager[Output]]]
"""Frame rate, number of frames and title of the input → the outputs, each a context."""


def open_outputs(
    destination: Destination, settings: PredictSettings, palette: Palette, values: LabelValues
) -> OpenOutputs:
    """Return what opens the outputs, of which nothing is written before.

    Raises:
        UserError: an output does not suit the classes.
    """
    # A folder has one legend.png, and its images keep their size.
    legend = palette.classes if settings.legend and destination.suffix else {}
    source = Path(settings.input) if settings.input else None
    renderers = {
        output: make_renderer(output, palette, settings.opacity, legend, values, settings.min_confidence)
        for output in destination.outputs
    }

    def open_all(rate: float | None, length: int | None, title: str) -> list[AbstractContextManager[Output]]:
        return [
            write_dataset(destination.path, source, palette, values)
            if output == "dataset"
            else _write_rendered(render, _open_writer(output, destination, settings, rate, length, title))
            for output, render in renderers.items()
        ]

    return open_all


@contextmanager
def _write_rendered(render: Renderer, writer: AbstractContextManager[Write]) -> Iterator[Output]:
    with writer as write:
        yield lambda prediction: write(prediction.frame.name, render(prediction), prediction.frame.time)


def _open_writer(
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
