"""A checkpoint is whole or not there: whatever instant a write ends at, and whatever becomes of the newest file."""

from __future__ import annotations

import errno
import hashlib
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import segkd.train.checkpointing.files
from segkd.errors import UserError
from segkd.runs.layout import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from segkd.train.checkpointing.files import CheckpointFiles


class KilledError(BaseException):
    """Stands for the end of the process."""


def content(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((1000,), step)}


def newest(directory: Path) -> int:
    """The step of the newest whole checkpoint, as a new process finds it."""
    path = CheckpointFiles(directory).latest_valid()
    assert path is not None
    loaded = torch.load(path, weights_only=True)
    assert (loaded["weights"] == loaded["step"]).all()
    return int(loaded["step"])


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    made = CheckpointFiles(tmp_path)
    for step in (1, 2):
        made.write(content(step))
    return made


def test_the_last_two_are_kept_with_their_hashes(files: CheckpointFiles, tmp_path: Path) -> None:
    files.write(content(3))
    assert {path.name for path in tmp_path.iterdir()} == {
        LAST_CHECKPOINT,
        f"{LAST_CHECKPOINT}.sha256",
        PREVIOUS_CHECKPOINT,
        f"{PREVIOUS_CHECKPOINT}.sha256",
    }
    for name, step in ((LAST_CHECKPOINT, 3), (PREVIOUS_CHECKPOINT, 2)):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert (tmp_path / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
        assert torch.load(tmp_path / name, weights_only=True)["step"] == step


def calls(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> Iterator[int]:
    """Counts whatever a write does to the disk; `act` is told the number before each."""
    count = iter(range(10**6))

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            act(next(count))
            return function(*arguments, **options)

        return call

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "open")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    return count


def test_a_write_may_end_at_any_instant(
    files: CheckpointFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    for instant in range(100):
        with monkeypatch.context() as patch:

            def kill(number: int, instant: int = instant) -> None:
                if number == instant:
                    raise KilledError

            calls(patch, kill)
            try:
                files.write(content(3))
                break
            except KilledError:
                pass
        found.append(newest(tmp_path))
        files = CheckpointFiles(tmp_path)
        files.latest_valid()
        files.write(content(2))  # whatever lies there, a run goes on from it
        assert newest(tmp_path) == 2
    assert len(found) > 10
    assert found == sorted(found)  # the old one until the last rename, and then the new one
    assert set(found) == {2, 3}


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "gone", "another's"])
def test_the_newest_is_damaged(files: CheckpointFiles, tmp_path: Path, damage: str) -> None:
    whole = files.last.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    if damage == "gone":
        files.last.unlink()
    else:
        files.last.write_bytes({"truncated": whole[:-1], "emptied": b"", "flipped": flipped, "another's": b"x"}[damage])
    assert newest(tmp_path) == 1
    again = CheckpointFiles(tmp_path)
    again.latest_valid()
    again.write(content(2))  # which must not put the damaged one in the place of the whole one
    assert newest(tmp_path) == 2
    files.last.write_bytes(b"")
    assert newest(tmp_path) == 1


def test_no_valid_checkpoint(files: CheckpointFiles, tmp_path: Path) -> None:
    for path in (files.last, files.previous):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is valid \(last.ckpt, previous.ckpt differ"):
        CheckpointFiles(tmp_path).latest_valid()
    assert CheckpointFiles(tmp_path / "nowhere").latest_valid() is None


def test_a_full_disk_leaves_the_earlier_ones(
    files: CheckpointFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = segkd.train.checkpointing.files._write_synced
    for allowed in range(3):
        with monkeypatch.context() as patch:
            room = iter(range(allowed))

            def full(path: Path, what: bytes, room: Iterator[int] = room) -> None:
                if next(room, None) is None:
                    path.write_bytes(bytes(what)[: len(what) // 2])
                    raise OSError(errno.ENOSPC, "No space left on device")
                write(path, what)

            patch.setattr(segkd.train.checkpointing.files, "_write_synced", full)
            with pytest.raises(OSError, match="No space left"):
                files.write(content(3))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    files.write(content(3))
    assert newest(tmp_path) == 3


class Careless(CheckpointFiles):
    """The fault that the kills must find: it writes where the earlier one lies."""

    def write(self, content: dict[str, Any]) -> None:
        torch.save(content, self.last)
        self.last.with_name(f"{LAST_CHECKPOINT}.sha256").write_text(hashlib.sha256(self.last.read_bytes()).hexdigest())


def write_forever(files: CheckpointFiles, numbers: int, told: int) -> None:
    """Writes checkpoint after checkpoint, and tells before and after each."""
    for step in itertools.count(1):
        os.write(told, f"begin {step}\n".encode())
        files.write({"step": step, "weights": torch.full((numbers,), step)})
        os.write(told, f"end {step}\n".encode())


def kill_in_writes(directory: Path, times: int, seed: int, kind: type[CheckpointFiles] = CheckpointFiles) -> int:
    """Kill a process that writes without end, at random moments; how often it was within a write."""
    rng, within = random.Random(seed), 0
    for number in range(times):
        run = directory / str(number)
        run.mkdir()
        end, told = os.pipe()
        process = multiprocessing.get_context("fork").Process(target=write_forever, args=(kind(run), 300_000, told))
        process.start()
        os.close(told)
        with open(end) as said:  # noqa: PTH123
            while said.readline() != "end 2\n":
                assert process.is_alive()
            time.sleep(rng.random() * 0.05)
            process.kill()
            process.join()
            begun, step = (said.read().splitlines() or ["end 2"])[-1].split()
        within += begun == "begin"
        assert newest(run) in {int(step), int(step) - (begun == "begin")}
    return within


def test_killed_while_it_writes(tmp_path: Path) -> None:
    assert kill_in_writes(tmp_path, 8, seed=0) > 0


def test_the_kills_find_a_careless_writer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is valid"):
        kill_in_writes(tmp_path, 50, seed=0, kind=Careless)


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    assert kill_in_writes(tmp_path, 50, seed=1) >= 10
