# SPDX-License-Identifier: Apache-2.0
"""Work that is spread over processes, and goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import report

Row = dict[str, Any]
Job = tuple[int, ...]
CORES = os.cpu_count() or 1
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add what every such benchmark takes."""
    parser.add_argument("--full", action="store_true", help="everything, not a sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=CORES, help="processes, which share the cores; 1 for a robot's speed"
    )
    parser.add_argument(
        "--rows",
        type=Path,
        default=Path(f"build/benchmarks/{name}.jsonl"),
        help="where --full keeps its answers; those of another commit or seed are asked anew",
    )


def rows(work: Callable[[Job], list[Row]], jobs: Sequence[Job], args: argparse.Namespace) -> list[Row]:
    """Do all jobs, each in one process, and return their rows in the order of the jobs.

    Args:
        work: A function at the top of a module.
        jobs: Each one's argument.
        args: From `arguments`.
    """
    path = args.rows if args.full else args.rows.with_name(args.rows.stem + "_sample.jsonl")
    measured = [report.commit(), args.seed]
    known = dict(_kept(path, measured)) if args.full and path.exists() else {}
    todo = [job for job in jobs if job not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    # They are read when a library is loaded, which the processes do anew.
    threads = max(1, CORES // args.workers)
    os.environ.update(dict.fromkeys(THREAD_LIMITS, str(threads)))
    pool = ProcessPoolExecutor(
        args.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(threads,),
    )
    with path.open("a" if known else "w") as file, pool:
        running = {pool.submit(work, job): job for job in todo}
        for done, future in enumerate(as_completed(running), len(known) + 1):
            job = running[future]
            known[job] = future.result()
            record = {"job": job, "measured": measured, "rows": known[job]}
            file.write(json.dumps(record) + "\n")
            file.flush()
            report.progress(done, len(jobs), f"room {job[1]}: {len(known[job])} questions")
    return [row for job in jobs for row in known[job]]


def _begin(threads: int) -> None:
    """Of each process: its share of the cores, and no word about what a benchmark does to its robots."""
    cv2.setNumThreads(threads)
    logging.getLogger("pose_bridge").setLevel(logging.ERROR)


def _kept(path: Path, measured: list[Any]) -> Iterator[tuple[Job, list[Row]]]:
    for record in map(json.loads, path.read_text().splitlines()):
        if record["measured"] == measured:
            yield tuple(record["job"]), record["rows"]
