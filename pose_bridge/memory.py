# SPDX-License-Identifier: Apache-2.0
"""Telling that memory ran out from other errors: every library says it in words of its own."""

from __future__ import annotations

import cv2

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
