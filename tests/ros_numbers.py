# SPDX-License-Identifier: Apache-2.0
"""Which numbers a message holds, and whether it may hold them: a plausible number is the worst error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

OF_THE_JUDGING = {".probability", ".processing_time_s"}  # known of a rejection, too


def finite_numbers(message: Any, path: str = "") -> list[str]:
    """Every floating-point number of a message that is finite, whatever it is in."""
    found = []
    for name, kind in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if hasattr(value, "get_fields_and_field_types"):
            found += finite_numbers(value, f"{path}.{name}")
        elif kind.startswith(("sequence<", "float", "double")):
            for item in np.ravel(np.array(value, dtype=object)):
                if hasattr(item, "get_fields_and_field_types"):
                    found += finite_numbers(item, f"{path}.{name}[]")
                elif isinstance(item, float) and math.isfinite(item):
                    found.append(f"{path}.{name}")
    return found


def undue_numbers(message: Any) -> list[str]:
    """Numbers of an answer, a result or feedback that somebody could take for a pose, and should not."""
    found = [name for name in finite_numbers(message) if name not in (".progress", ".elapsed_s")]
    if hasattr(message, "error_code"):
        return _undue_in_result(message, found)
    answer = getattr(message, "best_so_far", message)
    accepted = getattr(answer, "status", None) == getattr(answer, "STATUS_ACCEPTED", 3)
    return [] if accepted else [name for name in found if f".{name.split('.')[-1]}" not in OF_THE_JUDGING]


def _undue_in_result(result: Any, found: list[str]) -> list[str]:
    if result.error_code != result.NONE:
        return [name for name in found if not name.startswith(".hypotheses[]")]
    answer = result.relative_pose
    if answer.status in (answer.STATUS_ACCEPTED, answer.STATUS_HYPOTHESIS):  # the latter for who asked only
        return []
    return [name for name in found if name.removeprefix(".relative_pose") not in OF_THE_JUDGING]
