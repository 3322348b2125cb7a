"""The output folder of an import: never in the export, and complete or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segkd.data.folder import METADATA_FILE
from segkd.errors import UserError
from segkd.utils.files import atomic_write, make_dir


def check_destination(output: Path, sources: Sequence[Path | None], overwrite: bool) -> None:
    """Check that a folder can be written, and that no source lies in it or around it.

    Args:
        output: The folder.
        sources: The export, and the folder of its images if it lies elsewhere.
        overwrite: Whether a dataset there is replaced.

    Raises:
        UserError: The folder holds something else, or something and `overwrite` is false; or it would change a source.
    """
    target = output.resolve()
    for source in (source.resolve() for source in sources if source is not None):
        if target == source or source in target.parents:
            raise UserError(f"output={output} lies in {source}, which is only read; give a folder outside it")
        if target in source.parents:
            raise UserError(f"output={output} holds {source}, which is only read; give another folder")
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() and not overwrite:
        raise UserError(
            f"output={output} already holds something; give another folder, or overwrite=true to replace it"
        )
    if output.exists() and not (output / METADATA_FILE).is_file():
        raise UserError(
            f"output={output} is no dataset (it has no {METADATA_FILE}), and overwrite=true replaces nothing else; "
            "give another folder"
        )


@contextmanager
def replace_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `output` at the end, or is removed on failure."""
    output = output.resolve()  # of a link, what it leads to is replaced
    make_dir(output.parent, "output")
    replaced = output.with_name(f".{output.name}.replaced")
    with atomic_write(output, "output") as folder:
        folder.mkdir()
        yield folder
        if output.exists():
            output.replace(replaced)
    if replaced.exists():
        shutil.rmtree(replaced)
