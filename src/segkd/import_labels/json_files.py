"""Read the JSON files of an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segkd.data.image_io import read_bytes
from segkd.errors import UserError


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: It cannot be read, or is no JSON.
    """
    content = read_bytes(path)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} in line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError:
        reason = "it is not text in UTF-8"
    except (RecursionError, ValueError) as error:  # also numbers of too many digits
        reason = str(error)
    raise UserError(f"{path} is no valid JSON ({reason}); export it again")
