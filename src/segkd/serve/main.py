"""`python -m segkd.serve`: a web demo that shows the predictions of several networks for an image or a video."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Annotated

from omegaconf import DictConfig
from pydantic import Field, PositiveInt, StrictBool

from segkd.config.schema import Accelerator, Settings, load_settings
from segkd.errors import UserError
from segkd.predict.palette import Palette
from segkd.serve.networks import load_networks
from segkd.serve.viewer import Viewer
from segkd.serve.web_demo import (
    build_page,
    describe_device,
    import_gradio,
    launch_page,
    load_template,
    make_upload_handler,
)
from segkd.utils.devices import resolve_device
from segkd.utils.signals import GracefulShutdown


class ServeSettings(Settings):
    """Settings of `python -m segkd.serve`."""

    run: Path | Annotated[list[Path], Field(min_length=1)] | None = Field(
        description="folders of finished runs with the same classes, such as a baseline and a distilled student",
        json_schema_extra={"values": "DIR|[DIR,…]", "required": True},
    )
    teacher: StrictBool = Field(description="show the teacher of the first run that has one")
    opacity: float = Field(ge=0, le=1, description="opacity of the colors over the image")
    max_side: Annotated[int, Field(ge=32)] = Field(description="longest side in pixels; larger images are shrunk to it")
    max_frames: PositiveInt = Field(description="frames of a video; later ones are ignored")
    max_upload_mb: PositiveInt = Field(description="largest upload in megabytes")
    host: str = Field(
        description="address to listen on; 0.0.0.0: every machine that can reach this one, without a password",
        json_schema_extra={"values": "ADDRESS"},
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="port to listen on")
    accelerator: Accelerator = Field(description="device to compute on")


def serve(cfg: DictConfig) -> None:
    """Serve until a signal ends it; the address is printed when the web demo is ready."""
    settings = load_settings(cfg, ServeSettings)
    if settings.run is None:
        raise UserError("no run given; choose one with run=DIR, or several with run=[DIR,DIR]")
    runs = settings.run if isinstance(settings.run, list) else [settings.run]
    with GracefulShutdown(), TemporaryDirectory() as upload_dir:
        gradio = import_gradio(upload_dir)
        palette = Palette.from_runs(runs)
        networks = load_networks(runs, settings.teacher)
        device = resolve_device(settings.accelerator)
        viewer = Viewer(
            {name: served.network.to(device).eval() for name, served in networks.items()},
            palette,
            settings.opacity,
            settings.max_side,
            settings.max_frames,
        )
        handler = make_upload_handler(viewer, networks, describe_device(device), load_template())
        page = build_page(gradio, handler, palette.dataset)
        launch_page(gradio, page, settings.host, settings.port, settings.max_upload_mb)
        print(f"http://{settings.host}:{settings.port}", flush=True)
        Event().wait()  # until a signal
