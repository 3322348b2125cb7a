"""The web demo: Gradio's page, and the HTML that it shows for an upload."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from segkd.data.drawing import encode_data_uri
from segkd.errors import UserError
from segkd.serve.networks import ServedNetwork
from segkd.serve.viewer import Viewer
from segkd.utils.packages import explain_install

TEMPLATES = Path(__file__).parent / "templates"
_HOUR = 3600  # seconds; uploads older than an hour are deleted every hour
# Screen readers read Gradio's button as "Click to upload or drop files", so the visible text is swapped to agree with it.
_UPLOAD_TEXT = {"upload_text.drop_file": "Click to upload", "upload_text.click_to_upload": "drop files"}

UploadHandler = Callable[[str | None], tuple[str, str | None]]
"""Path of an upload, if there is one → HTML, and the path of a video."""


def import_gradio(upload_dir: str) -> Any:
    """Import Gradio with analytics off and uploads kept in a folder of ours.

    Raises:
        UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads both on import
    os.environ["GRADIO_TEMP_DIR"] = upload_dir
    try:
        import gradio
    except ImportError:
        raise UserError(f"the web demo needs gradio, which is not installed; {explain_install('serve')}") from None
    return gradio


def load_template() -> Any:
    """Return the template of a result."""
    from jinja2 import Environment, StrictUndefined  # comes with Gradio

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((TEMPLATES / "viewer.html").read_text(encoding="utf-8"))


def make_upload_handler(
    viewer: Viewer, networks: Mapping[str, ServedNetwork], device: str, template: Any
) -> UploadHandler:
    """Return the function that predicts an upload; an invalid upload gives an error message."""

    def predict(upload: str | None) -> tuple[str, str | None]:
        if upload is None:
            return "", None
        path = Path(upload)
        try:
            result = viewer.predict_file(path, path.with_name(f"{path.stem} predicted.mp4"))
        except UserError as error:
            return template.render(error=str(error).replace(upload, path.name)), None
        height, width = result.images["image"].shape[:2]
        html = template.render(
            error=None,
            images={} if result.video else {name: encode_data_uri(image) for name, image in result.images.items()},
            is_video=result.video is not None,
            classes=viewer.palette.classes,
            milliseconds=result.milliseconds,
            networks=networks,
            size=f"{width}×{height}",
            device=device,
        )
        return html, None if result.video is None else str(result.video)

    return predict


def build_page(gradio: Any, handler: UploadHandler, dataset: str) -> Any:
    """Build Gradio's page."""

    def show(upload: str | None) -> tuple[str, Any]:
        html, video = handler(upload)
        return html, gradio.Video(video, visible=video is not None)

    with gradio.Blocks(title="segkd", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        gradio.HTML(f"<h1>Compare segmentation networks</h1><p>The networks were trained on {dataset}.</p>")
        upload = gradio.File(label="Image or video")
        video = gradio.Video(label="Side by side", visible=False, autoplay=False)
        html = gradio.HTML()
        upload.change(show, upload, [html, video], api_name="predict", show_progress_on=html)
    return page


def launch_page(gradio: Any, page: Any, host: str, port: int, max_upload_mb: int) -> None:
    """Serve the page from a thread.

    Raises:
        UserError: the port is in use, or the address is not of this machine.
    """
    try:
        with socket.create_server((host, port)):
            pass  # Gradio would check the loopback address alone
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=f"{max_upload_mb}mb",
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=(TEMPLATES / "serve.css").read_text(encoding="utf-8"),
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            i18n=gradio.I18n(en=_UPLOAD_TEXT),
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port} ({error.strerror}); give another host or port") from None


def describe_device(device: torch.device) -> str:
    """Return the name of a GPU, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"a CPU with {threads} thread{'s' * (threads != 1)}"
