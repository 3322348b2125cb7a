"""Tell that the data of a run are no longer what it was validated on."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import yaml

from segkd.runs.layout import RECORD_FILES

log = logging.getLogger(__name__)


def warn_of_changed_data(run: Path, split: str, title: str, data: dict[str, Any]) -> None:
    """Warn on stderr if the split on which a run was validated holds other files now.

    Args:
        run: folder of the run.
        split: the split that is scored; others are not recorded.
        title: name of the dataset and the split.
        data: what `identify_data` says of the split now.
    """
    config_file, environment_file = (run / name for name in RECORD_FILES)
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError
    ):  # they may hold anything
        if yaml.safe_load(config_file.read_bytes())["data"]["val_split"] != split:
            return
        former = json.loads(environment_file.read_bytes())["data"]["val"]
        if None not in (former["contents"], data["contents"]) and former["contents"] != data["contents"]:
            log.warning(
                "%s holds other files than in the training of %s (%d images, then %d); images that it was trained on may be "
                "among them",
                *(title, run, data["images"], former["images"]),
            )
