"""`python -m segkd.serve`: a page on which one drops an image or a clip and sees what the networks of runs see in it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Annotated, Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig
from pydantic import Field, PositiveInt, StrictBool

from segkd.config.schema import Settings, load_settings
from segkd.errors import UserError
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.checkpoint_io import load_student
from segkd.predict.drawing import data_uri
from segkd.predict.rendering import Palette
from segkd.runs.load import load_run_teacher
from segkd.runs.methods import BASELINE
from segkd.runs.run import read_run
from segkd.serve.viewer import Viewer
from segkd.utils.devices import resolve_device
from segkd.utils.signals import GracefulShutdown

TEMPLATES = Path(__file__).parent / "templates"
_HOUR = 3600  # seconds; each hour, uploads that are older go
# So that what is read aloud is what is written: Gradio calls its button "Click to upload or drop files".
_UPLOAD = {"upload_text.drop_file": "Click to upload", "upload_text.click_to_upload": "drop files"}

Answer = Callable[[str | None], tuple[str, str | None]]
"""From the path of an upload, if there is one, to a piece of HTML and the path of a film."""


class ServeSettings(Settings):
    """`python -m segkd.serve`."""

    run: Path | Annotated[list[Path], Field(min_length=1)] | None
    teacher: StrictBool
    opacity: float = Field(ge=0, le=1)
    max_side: Annotated[int, Field(ge=32)]
    max_frames: PositiveInt
    max_upload_mb: PositiveInt
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]


class Shown(NamedTuple):
    """A network, and what the page says of it."""

    network: SegmentationModel
    learnt_from: str

    @property
    def parameters(self) -> int:
        return count_parameters(self.network)


def serve(cfg: DictConfig) -> None:
    """Answer until a signal ends it; the address is printed when the page is there."""
    settings = load_settings(cfg, ServeSettings)
    if settings.run is None:
        raise UserError("say whose student to show: run=DIR, or several as run=[DIR,DIR]")
    runs = settings.run if isinstance(settings.run, list) else [settings.run]
    with GracefulShutdown(), TemporaryDirectory() as uploads:
        gradio = _gradio(uploads)
        palette = _palette(runs)
        networks = {**(_teacher(runs) if settings.teacher else {}), **_students(runs)}
        device = resolve_device(settings.accelerator)
        viewer = Viewer(
            {name: shown.network.to(device).eval() for name, shown in networks.items()},
            palette,
            settings.opacity,
            settings.max_side,
            settings.max_frames,
        )
        page = _page(gradio, run_viewer(viewer, networks, _named(device), _template()), palette.dataset)
        _listen(gradio, page, settings)
        print(f"http://{settings.host}:{settings.port}", flush=True)
        Event().wait()  # until a signal


def run_viewer(viewer: Viewer, networks: Mapping[str, Shown], device: str, template: Any) -> Answer:
    """What the page shows of an upload; a fault of the upload is a sentence on it."""

    def predict_file(upload: str | None) -> tuple[str, str | None]:
        if upload is None:
            return "", None
        path = Path(upload)
        try:
            sight = viewer.predict_file(path, path.with_name(f"{path.stem} seen.mp4"))
        except UserError as error:
            return template.render(fault=str(error).replace(upload, path.name)), None
        height, width = sight.pictures["image"].shape[:2]
        said = template.render(
            fault=None,
            pictures={} if sight.film else {name: data_uri(picture) for name, picture in sight.pictures.items()},
            film=sight.film,
            classes=viewer.palette.classes,
            milliseconds=sight.milliseconds,
            networks=networks,
            size=f"{width}×{height}",
            device=device,
        )
        return said, None if sight.film is None else str(sight.film)

    return predict_file


def _gradio(uploads: str) -> Any:
    """Gradio, which keeps uploads in a folder of ours and tells nobody of them.

    Raises:
        UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # both are read on import
    os.environ["GRADIO_TEMP_DIR"] = uploads
    try:
        import gradio
    except ImportError:
        raise UserError("the page needs gradio, which is not installed; pip install 'segkd[serve]'") from None
    return gradio


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined  # Gradio needs it too

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((TEMPLATES / "viewer.html").read_text())


def _palette(runs: Sequence[Path]) -> Palette:
    """What all of them tell apart.

    Raises:
        UserError: they differ in it.
    """
    first, *others = (Palette.of_run(run) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if other.classes != first.classes:
            raise UserError(
                f"{runs[0]} knows the classes of {first.dataset} and {run} those of {other.dataset}; show runs of the same"
            )
    return first


def _teacher(runs: Sequence[Path]) -> dict[str, Shown]:
    """Of the first run that has one."""
    for run in runs:
        network = load_run_teacher(run)
        if network is not None:
            return {"teacher": Shown(network, "")}
    return {}


def _students(runs: Sequence[Path]) -> dict[str, Shown]:
    """By what taught them; by their folders too, where two would have one name."""
    taught = [read_run(run).terms if (run / "config.yaml").is_file() else None for run in runs]
    names = ["student" if terms is None else "distilled" if terms else BASELINE for terms in taught]
    return {
        name if names.count(name) == 1 else f"{name} ({run})": Shown(
            load_student(run), "" if terms is None else " + ".join(["labels", *terms])
        )
        for run, name, terms in zip(runs, names, taught, strict=True)
    }


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"a CPU with {threads} thread{'s' * (threads != 1)}"


def _page(gradio: Any, see: Answer, dataset: str) -> Any:
    def shown(upload: str | None) -> tuple[str, Any]:
        said, film = see(upload)
        return said, gradio.Video(film, visible=film is not None)

    with gradio.Blocks(title="segkd", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        gradio.HTML(f"<h1>What the networks see</h1><p>They were trained on {dataset}.</p>")
        upload = gradio.File(label="An image or a clip")
        film = gradio.Video(label="Side by side", visible=False, autoplay=False)
        said = gradio.HTML()
        upload.change(shown, upload, [said, film], api_name="see", show_progress_on=said)
    return page


def _listen(gradio: Any, page: Any, settings: ServeSettings) -> None:
    """Have a thread serve the page.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """
    try:
        with socket.create_server((settings.host, settings.port)):
            pass  # Gradio would look at the loopback alone
        page.launch(
            server_name=settings.host,
            server_port=settings.port,
            max_file_size=f"{settings.max_upload_mb}mb",
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=(TEMPLATES / "serve.css").read_text(),
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            i18n=gradio.I18n(en=_UPLOAD),
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {settings.host}, port {settings.port} ({error.strerror}); give another host or port"
        ) from None
