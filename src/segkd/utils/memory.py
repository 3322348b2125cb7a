"""Recognize a lack of memory."""

from __future__ import annotations

_PHRASES = (
    "out of memory",  # CUDA, cuDNN
    "can't allocate memory",  # PyTorch's allocator on a CPU
    "not enough memory",  # the same on Windows
    "Cannot allocate memory",  # the system
    "Insufficient memory",  # OpenCV
    "MemoryError",  # of a loading process, whose traceback is the text of another error
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of the machine or of its GPU is used up.

    It goes by names and texts: importing torch and OpenCV for their types would take seconds.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    is_foreign = isinstance(error, RuntimeError | OSError) or type(error).__module__.startswith("cv2")
    return is_foreign and any(phrase in str(error) for phrase in _PHRASES)
