"""A lack of memory is one sentence with what to lower."""

from __future__ import annotations

import errno
from typing import Any

import cv2
import pytest
import torch

from segkd.cli import launch
from segkd.cli.commands import COMMANDS
from segkd.cli.memory import explain_memory
from tests.helpers.commands import Command

EXHAUSTED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
    MemoryError(),
    cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 8 bytes"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]  # fmt: skip


@pytest.mark.parametrize("error", EXHAUSTED, ids=lambda error: str(error)[:40])
def test_lack_of_memory_is_recognized(error: Exception) -> None:
    for command in COMMANDS:
        assert "lower" in str(explain_memory(error, command))


def test_device_and_cure_are_named() -> None:
    assert str(explain_memory(EXHAUSTED[0], "train")).startswith("out of GPU memory; lower data.batch_size")
    assert "trainer.micro_batches" in str(explain_memory(EXHAUSTED[4], "train"))
    assert str(explain_memory(MemoryError(), "evaluate")).startswith("out of memory; score in windows")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[2]' is invalid"),
        OSError(errno.ENOENT, "No such file"),
        ValueError("'out of memory' is no name"),
    ],
)
def test_another_error_is_none(error: Exception) -> None:
    assert explain_memory(error, "train") is None


def test_planted_error_ends_in_a_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cfg: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(launch, "load_command", lambda name: fail)
    ended = command("evaluate", "run=x")
    assert (ended.code, ended.out) == (2, "")
    assert (
        ended.err
        == "segkd: out of memory; score in windows with window=[H,W], or lower workers, or end what else uses it\n"
    )
