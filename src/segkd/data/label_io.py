"""Decoding of label files: values as they are stored, in every form that can be read without loss."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segkd.data.image_io import Color, LabelArray, LabelEncoding
from segkd.data.label_commands import make_command
from segkd.data.label_samples import StoredLabel, read_stored_label
from segkd.errors import UserError

_MAX_ID = 255


class Label(NamedTuple):
    """A decoded label file."""

    values: LabelArray
    """H W."""
    palette: tuple[Color, ...] = ()
    """Colors of the indices, if the values are palette indices."""
    conversion: str = ""
    """How the stored form differs from the usual one, such as 'an opaque alpha channel, which is dropped'; or empty."""


def decode_label(content: bytes, path: Path, encoding: LabelEncoding) -> Label:
    """Decode the bytes of a label file.

    Raises:
        DamagedFileError: The bytes are not a complete image.
        UserError: The label has another encoding.
    """
    stored = read_stored_label(content, path)
    if encoding == "colors":
        return _convert_colors(stored, path)
    if encoding == "palette" and stored.palette:
        return Label(stored.samples, stored.palette)
    return _convert_ids(stored, path)


def _convert_ids(stored: StoredLabel, path: Path) -> Label:
    expected = "one 8-bit channel of ids"
    samples, conversions = _drop_alpha(stored, path, expected, channels=(2,))
    if stored.palette or samples.ndim != 2 or samples.dtype.kind not in "iu":
        raise _make_encoding_error(stored, path, expected)
    if samples.dtype != np.uint8:
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high > _MAX_ID:
            raise _make_encoding_error(stored, path, expected, f" with ids from {low} to {high}")
        conversions.append(f"{8 * samples.itemsize} bits per pixel, with ids below 256")
    if stored.is_white_zero:
        conversions.append("0 for white (WhiteIsZero) and its ids read as they are stored")
    return Label(samples.astype(np.uint8, copy=False), (), " and ".join(conversions))


def _convert_colors(stored: StoredLabel, path: Path) -> Label:
    expected = "three 8-bit channels of colors"
    if stored.palette:
        return Label(_look_up_colors(stored, path))
    samples, conversions = _drop_alpha(stored, path, expected, channels=(2, 4))
    if samples.dtype != np.uint8 or samples.shape[2:] not in ((), (3,)):
        raise _make_encoding_error(stored, path, expected)
    if stored.is_white_zero:
        samples = stored.maximum - samples
    if stored.maximum < 255:
        samples = ((samples.astype(np.uint16) * 255 + stored.maximum // 2) // stored.maximum).astype(np.uint8)
    if samples.ndim == 2:
        samples = np.broadcast_to(samples[..., None], (*samples.shape, 3))
        conversions.append("one gray channel, which is read as red, green and blue")
    red, green, blue = (samples[..., channel].astype(np.int32) for channel in range(3))
    return Label(red << 16 | green << 8 | blue, (), " and ".join(conversions))


def _drop_alpha(
    stored: StoredLabel, path: Path, expected: str, channels: tuple[int, ...]
) -> tuple[np.ndarray, list[str]]:
    """Return the samples without alpha, and what to say of it.

    Args:
        stored: The label.
        path: The file, for the error message.
        expected: The expected form, for the error message.
        channels: Numbers of channels of which the last one is alpha.

    Raises:
        UserError: Alpha is not opaque everywhere, so it may mean something.
    """
    samples = stored.samples
    if samples.shape[2:] not in [(count,) for count in channels]:
        return samples, []
    if (samples[..., -1] != stored.maximum).any():
        raise _make_encoding_error(stored, path, expected, ", of which alpha is not opaque everywhere")
    colors = samples[..., 0] if samples.shape[2] == 2 else samples[..., :-1]
    return colors, ["an opaque alpha channel, which is dropped"]


def _look_up_colors(stored: StoredLabel, path: Path) -> LabelArray:
    table = np.array(stored.palette, np.int32)
    if stored.samples.max() >= len(table):
        raise UserError(f"label {path} has palette indices beyond its {len(table)} colors; save it again")
    if any(alpha != 255 and (stored.samples == index).any() for index, alpha in stored.alpha_by_index.items()):
        command = make_command(path, 'i.convert("RGB")')
        raise UserError(f"label {path} has a palette with transparent colors; convert it: {command}")
    values: npt.NDArray[np.int32] = table[:, 0] << 16 | table[:, 1] << 8 | table[:, 2]
    colors: npt.NDArray[np.int32] = values[stored.samples]
    return colors


def _make_encoding_error(stored: StoredLabel, path: Path, expected: str, detail: str = "") -> UserError:
    samples = stored.samples
    palette = " with a palette" if stored.palette else ""
    cure = "configure its encoding (`python -m segkd.check` proposes a table)"
    has_alpha = samples.shape[2:] in ((2,), (4,)) and bool((samples[..., -1] != stored.maximum).any())
    if samples.shape[2:] == (2,) or (samples.ndim == 3 and "ids" in expected and _has_equal_channels(samples)):
        reason = ", if its alpha means nothing," if has_alpha else ""
        cure = f"take its first channel{reason} with {make_command(path, 'i.getchannel(0)')}, or {cure}"
    elif samples.shape[2:] == (4,) and "colors" in expected:
        command = make_command(path, 'i.convert("RGB")')
        cure = f"drop alpha, if it means nothing, with {command}"
    else:
        cure = f"convert it, or {cure}"
    return UserError(f"label {path} is not {expected} but {samples.shape} {samples.dtype}{palette}{detail}; {cure}")


def _has_equal_channels(samples: np.ndarray) -> bool:
    return bool((samples[..., :3] == samples[..., :1]).all())
