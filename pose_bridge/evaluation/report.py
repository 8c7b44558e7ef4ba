# SPDX-License-Identifier: Apache-2.0
"""The report on a run: a page to read, its numbers, and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pose_bridge.errors import StorageError
from pose_bridge.evaluation import figures, page
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.datasets.base import Dataset
from pose_bridge.evaluation.summary import column, of_one_place, summary


def write(rows: Sequence[Row], methods: Sequence[str], dataset: Dataset, folder: Path, seed: int = 0) -> Path:
    """Write report.md, report.json and the figures, and return where the page is.

    Args:
        rows: Of a run, at least one.
        methods: In the order of the columns.
        dataset: Where the photographs of the examples are.
        folder: Into which.
        seed: Of the bootstraps.

    Raises:
        BadInputError: There are no rows.
        StorageError: It cannot be written.
    """
    numbers = summary(rows, methods, seed)
    pairs = of_one_place(rows)
    columns = [column(pairs, name) for name in methods]
    try:
        drawn = figures.draw(pairs, columns, numbers, dataset, folder)
        (folder / "report.json").write_text(json.dumps(_plain(numbers), indent=1) + "\n")
        path = folder / "report.md"
        path.write_text(page.of(numbers, drawn))
    except OSError as error:
        raise StorageError(f"{folder}: the report cannot be written: {error}") from error
    return path


def _plain(value: Any) -> Any:
    """As JSON has it: no number is null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
