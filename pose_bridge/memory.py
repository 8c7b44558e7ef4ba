# SPDX-License-Identifier: Apache-2.0
"""Telling that memory ran out from other errors: every library says it in words of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from pose_bridge.errors import OutOfMemoryError

_OPENCV_NO_MEMORY = -4
_WORDS = ("bad_alloc", "can't start new thread", "out of memory", "can't allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error of Python, OpenCV, C++ or torch says that memory ran out."""
    if isinstance(error, cv2.error):
        return getattr(error, "code", None) == _OPENCV_NO_MEMORY
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in words for word in _WORDS)
    )


@contextmanager
def guarded(message: str) -> Iterator[None]:
    """Run a block.

    Args:
        message: What did not fit, and what to do.

    Raises:
        OutOfMemoryError: It ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise OutOfMemoryError(message) from None
