# SPDX-License-Identifier: Apache-2.0
"""The one language of all benchmarks: targets with intervals, and one JSON object as the last line.

A number of which nothing is wanted is reported like a target.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pose_bridge.evaluation import intervals
from pose_bridge.evaluation.report import plain


def share(name: str, good: int, total: int, wanted: str) -> dict[str, Any]:
    """A rate with its Clopper-Pearson interval."""
    value = good / total if total else float("nan")
    return _target(name, value, intervals.rate(good, total), total, wanted)


def count(name: str, found: int, total: int, wanted: str) -> dict[str, Any]:
    """How many of a total, with the Clopper-Pearson interval of the rate."""
    row = share(name, found, total, wanted)
    return {**row, "value": found, "met": _met(found, wanted), "interval95_of": "rate"}


def known(name: str, measured: dict[str, Any], n: int, wanted: str) -> dict[str, Any]:
    """A number that came with its interval."""
    return _target(name, measured["value"], measured["interval95"], n, wanted)


def quantile(
    name: str, values: Sequence[float], groups: Sequence[Any], q: float, wanted: str, seed: int
) -> dict[str, Any]:
    """A quantile with its bootstrap interval, resampled by group (pairs that share a view go together)."""
    return statistic(name, values, groups, lambda sample: float(np.quantile(sample, q)), wanted, seed)


def statistic(
    name: str,
    values: Sequence[float],
    groups: Sequence[Any],
    of: Callable[[np.ndarray], float],
    wanted: str,
    seed: int,
) -> dict[str, Any]:
    """Any statistic with its bootstrap interval, resampled by group."""
    if not len(values):
        return _target(name, float("nan"), [float("nan")] * 2, 0, wanted)
    array = np.asarray(values, float)
    return _target(name, of(array), intervals.bootstrap(array, groups, of, seed), len(array), wanted)


def progress(done: int, total: int, text: str) -> None:
    """One line on stderr."""
    print(f"\r[{done}/{total}] {text:<70}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def commit() -> str:
    """The commit that is measured."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def finish(benchmark: str, seed: int, results: dict[str, Any], targets: list[dict[str, Any]]) -> None:
    """Print the JSON object."""
    found = {
        "benchmark": benchmark,
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": seed,
        "results": results,
        "targets": targets,
    }
    print(json.dumps(plain(found), allow_nan=False))


def _target(name: str, value: float, interval: Sequence[float], n: int, wanted: str) -> dict[str, Any]:
    shown = None if np.isnan(value) else round(float(value), 4)
    return {
        "name": name,
        "value": shown,
        "interval95": [None if np.isnan(v) else round(float(v), 4) for v in interval],
        "n": n,
        "wanted": wanted or None,
        "met": shown is not None and _met(value, wanted) if wanted else None,
    }


def _met(value: float, wanted: str) -> bool:
    relation, bound = wanted.split()
    value = float(value)  # numpy's comparisons are not what JSON holds
    return {"<=": value <= float(bound), ">=": value >= float(bound), "==": value == float(bound)}[relation]
