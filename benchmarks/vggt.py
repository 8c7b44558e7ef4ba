# SPDX-License-Identifier: Apache-2.0
"""Seconds and peak memory of VGGT for a few views; full size, random weights.

    python benchmarks/vggt.py [--full] [--size full] [--views 2 5 10]

Each number of views runs in a process of its own, so that its peak memory is its own: of the process without
a GPU, of the GPU with one. The published network takes 0.05 s for 2 views and 0.11 s for 8 on an H100 (no
heads). One pass, ten with `--full`; on a GPU after a first one that does not count.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from consensus import SIZES, loaded, save

from pose_bridge.control import Control
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

MOST_GIB = 12.0
PUBLISHED_S = {2: 0.05, 8: 0.11}  # on an H100


def measure(size: str, count: int, passes: int, folder: Path) -> dict[str, Any]:
    """Guess the cameras of so many views, and their depth."""
    estimator = loaded(size, folder)
    rng, camera = np.random.default_rng(0), Camera.from_focal_px(500.0, 640, 480)
    views = [
        View(id=str(n), image=rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), camera=camera)
        for n in range(count)
    ]
    on_gpu = torch.cuda.is_available()
    seconds = []
    for _ in range(passes + on_gpu):
        start_s = time.perf_counter()
        estimator.estimate_many([views], Control(), depth=True)
        seconds.append(time.perf_counter() - start_s)
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {
        "views": count,
        "seconds": round(float(np.median(seconds[on_gpu:])), 3),
        "peak_memory_gib": round(peak / 2**30, 2),
        "on": torch.cuda.get_device_name() if on_gpu else "CPU",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--views", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    passes = 10 if args.full else 1
    if args.one is not None:
        print(json.dumps(measure(args.size, args.views[0], passes, args.one)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        report.progress(0, len(args.views), "writing random weights")
        save(args.size, Path(folder))
        for done, count in enumerate(args.views):
            report.progress(done, len(args.views), f"{count} views")
            command = [sys.executable, __file__, "--size", args.size, "--views", str(count), "--one", folder]
            said = subprocess.run(
                command + ["--full"] * args.full, stdout=subprocess.PIPE, text=True, check=True
            )
            rows.append(json.loads(said.stdout.splitlines()[-1]))
    report.progress(len(args.views), len(args.views), "done")
    peak = max(row["peak_memory_gib"] for row in rows)
    target = {
        "name": "peak_memory_gib",
        "value": peak,
        "interval95": [peak, peak],
        "n": len(rows),
        "wanted": f"<= {MOST_GIB:g}",
        "met": peak <= MOST_GIB,
    }
    report.finish("vggt", args.seed, {"rows": rows, "published_s_on_h100": PUBLISHED_S}, [target])


if __name__ == "__main__":
    main()
