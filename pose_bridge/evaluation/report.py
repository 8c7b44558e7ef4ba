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
from pose_bridge.evaluation.columns import column, of_one_place
from pose_bridge.evaluation.datasets.base import Dataset
from pose_bridge.evaluation.summary import summary


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
    columns = [column(of_one_place(rows), name) for name in methods]
    try:
        drawn = figures.draw(rows, columns, numbers, dataset, folder)
        (folder / "report.json").write_text(json.dumps(plain(numbers), indent=1) + "\n")
        path = folder / "report.md"
        path.write_text(page.of(numbers, drawn))
    except OSError as error:
        raise StorageError(f"{folder}: the report cannot be written: {error}") from error
    return path


def plain(value: Any) -> Any:
    """Return it as JSON has it: what is no number is null."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
