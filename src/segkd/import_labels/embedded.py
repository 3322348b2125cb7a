"""Images and masks that are written into an annotation as text."""

from __future__ import annotations

import base64
import binascii
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from segkd.data.label_samples import read_stored_label
from segkd.errors import UserError
from segkd.import_labels.annotations import Mask

_MAX_BYTES = 1 << 28  # of one mask's file; as a PNG it is far smaller


def decode_base64(text: Any, what: str) -> bytes:
    """Return the bytes of base64.

    Raises:
        UserError: It is none.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise UserError(f"{what} is no base64; export it again") from None


def decompress(content: bytes, what: str) -> bytes:
    """Return what zlib compressed.

    Raises:
        UserError: It is damaged, or expands to more than a mask can need.
    """
    decoder = zlib.decompressobj()
    try:
        result = decoder.decompress(content, _MAX_BYTES)
    except zlib.error as error:
        raise UserError(f"{what} cannot be decompressed ({error}); export it again") from None
    if decoder.unconsumed_tail or not decoder.eof:
        reason = f"it expands to more than {_MAX_BYTES} bytes" if decoder.unconsumed_tail else "its end is missing"
        raise UserError(f"{what} cannot be decompressed, for {reason}; export it again")
    return result


def read_embedded_mask(content: bytes, what: str) -> Mask:
    """Return the mask of an image file: where it is opaque if some of it is not, else where it is not black.

    Args:
        content: Bytes of the file.
        what: What it is, for error messages.

    Raises:
        UserError: It is no image.
    """
    stored = read_stored_label(content, Path(what))
    samples = stored.samples
    if stored.palette:
        alpha = np.array([stored.alpha_by_index.get(index, 255) for index in range(256)])[samples]
        color = np.array([any(color) for color in stored.palette] + [False] * 256, np.bool_)[samples]
    else:
        channels = samples[..., None] if samples.ndim == 2 else samples
        has_alpha = channels.shape[2] in (2, 4)
        alpha = channels[..., -1] if has_alpha else np.full(channels.shape[:2], 255)
        color = channels[..., :-1].any(2) if has_alpha else channels.any(2)
    return np.asarray(color if alpha.all() else alpha > 0)
