# SPDX-License-Identifier: Apache-2.0
"""What InterPose's consensus costs when work is shared, and when it stops as soon as the answer is clear.

    python benchmarks/consensus.py [--full] [--seed 0] [--size small]

Shared work: the poses of 11 subsets of 5 views from each of 4 videos by a VGGT with random weights (speed
does not depend on their values), one subset by one against all at once, by turns. The ratio of their
floating-point operations, counted, is what no implementation can beat by this means.

Stopping early: clouds of poses as subsets of videos give them, of several qualities mixed (random weights
would agree on everything, and stopping would be free): each video's centre is off by 2, 8 or 40 degrees, and
its poses lie around it within 0.7, 3 or 20 degrees times 0.5 to 2, heavy-tailed, one in ten far off. What the
race says is compared with what all subsets say, and both with the truth. `--full`: 10000 clouds, not 1000.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import report
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from pose_bridge.config import VggtConfig
from pose_bridge.control import Control
from pose_bridge.estimators.base import Guess
from pose_bridge.estimators.vggt.estimator import VggtEstimator
from pose_bridge.estimators.vggt.network import Architecture, Vggt
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.selection import consensus
from pose_bridge.views import View

VIDEOS, SUBSETS, SUBSET_VIEWS, FRAMES = 4, 11, 5, 25
SIZES = {
    "small": (
        Architecture(
            width=384,
            depth=12,
            heads=6,
            mlp=1536,
            dino_depth=12,
            dino_heads=6,
            dino_mlp=1536,
            dense_channels=(48, 96, 192, 384),
            dense_features=64,
        ),
        224,
    ),
    "full": (Architecture(), 518),
}
ROUNDS = 3
QUALITIES_DEG = (
    (2.0, 0.7),
    (8.0, 3.0),
    (40.0, 20.0),
)  # how far off a video's centre is, and its poses from it
FAR_OFF_DEG, FAR_OFF_SHARE = 30.0, 0.1
PAIR_OFF_DEG = 15.0  # what the two views alone say


def save(size: str, folder: Path) -> None:
    """Write random weights, as a checkpoint would be published."""
    torch.manual_seed(0)
    state = Vggt(SIZES[size][0]).state_dict()
    for name, tensor in state.items():  # a field of view that a camera may have
        if name == "camera_head.pose_branch.fc2.weight":
            tensor.mul_(0.1)
        elif name == "camera_head.pose_branch.fc2.bias":
            tensor.copy_(torch.tensor([0.3, 0.1, 0.1, 0.0, 0.0, 0.0, 0.3, 0.25, 0.25]))
    save_file(state, folder / "model.safetensors")


def loaded(size: str, folder: Path) -> VggtEstimator:
    """Return the network with those weights."""
    return VggtEstimator(VggtConfig(weights=str(folder), long_side_px=SIZES[size][1]))


def films(rng: np.random.Generator) -> list[list[View]]:
    """Frames of each video, the two ends being the same in all."""
    camera = Camera.from_focal_px(250.0, 320, 320)

    def view(name: str) -> View:
        return View(id=name, image=rng.integers(0, 256, (320, 320, 3)).astype(np.uint8), camera=camera)

    reference, target = view("reference"), view("target")
    inner = [[view(f"{video}/{frame}") for frame in range(FRAMES - 2)] for video in range(VIDEOS)]
    return [[reference, *frames, target] for frames in inner]


def shared_work(estimator: VggtEstimator, seed: int) -> dict[str, float]:
    """Time and operations of all subsets at once over one by one, and how far their poses differ."""
    sets = [
        [film[frame] for frame in some]
        for number, film in enumerate(films(np.random.default_rng(seed)))
        for some in consensus.subsets(FRAMES, SUBSET_VIEWS, SUBSETS, seed + number)
    ]
    unique = {view.id for some in sets for view in some}

    def one_by_one() -> list[Guess]:
        return [guess for some in sets for guess in estimator.estimate_many([some], Control())]

    def at_once() -> list[Guess]:
        return estimator.estimate_many(sets, Control())

    def counted(work: object) -> int:
        with FlopCounterMode(display=False) as counter:
            work()  # type: ignore[operator]
        return counter.get_total_flops()

    operations = [counted(work) for work in (at_once, one_by_one)]
    ratios, off = [], 0.0
    for number in range(ROUNDS):
        report.progress(number, ROUNDS, "shared work")
        seconds = []
        guesses = []
        for work in (at_once, one_by_one) if number % 2 else (one_by_one, at_once):
            start_s = time.perf_counter()
            guesses.append(work())
            seconds.append(time.perf_counter() - start_s)
        ratios.append(seconds[0] / seconds[1] if number % 2 else seconds[1] / seconds[0])
        for a, b in zip(*guesses, strict=True):
            for name in a.T_reference_camera:
                off = max(off, float(np.abs(a.T_reference_camera[name] - b.T_reference_camera[name]).max()))
    report.progress(ROUNDS, ROUNDS, "shared work")
    return {
        "ratio": float(np.median(ratios)),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "operations_ratio": operations[0] / operations[1],
        "largest_difference": off,
        "views": len(unique),
        "views_one_by_one": sum(map(len, sets)),
    }


def cloud(rng: np.random.Generator, T: np.ndarray, spread_deg: float, count: int) -> np.ndarray:
    """Poses around one, (count, 4, 4)."""
    found = []
    for _ in range(count):
        spread = FAR_OFF_DEG if rng.uniform() < FAR_OFF_SHARE else spread_deg
        turn, shift = np.radians(spread) * rng.standard_t(4, (2, 3)) / np.sqrt(3.0)
        t = T[:3, 3] + shift / 2.0
        found.append(rigid.make(rotations.so3_exp(turn) @ T[:3, :3], t / np.linalg.norm(t)))
    return np.array(found)


def clouds(seed: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """The truth, the poses of each video's subsets, and what the two views alone say."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=3)
    T = rigid.make(rotations.so3_exp(rng.uniform(-1.0, 1.0, 3)), direction / np.linalg.norm(direction))
    videos = []
    for off_deg, spread_deg in (QUALITIES_DEG[index] for index in rng.integers(0, 3, VIDEOS)):
        centre = cloud(rng, T, off_deg, 1)[0]
        videos.append(cloud(rng, centre, spread_deg * rng.uniform(0.5, 2.0), SUBSETS))
    return T, videos, cloud(rng, T, PAIR_OFF_DEG, 1)[0]


def stopping(count: int, seed: int) -> list[dict[str, float]]:
    """Of each cloud: the share that was asked, how far from the full answer, and both errors."""
    rows = []
    for number in range(count):
        if number % 100 == 0:
            report.progress(number, count, "stopping early")
        T, videos, T_pair = clouds(seed * 1_000_000 + number)
        everything = consensus.choose(videos, T_pair)
        found = consensus.race(lambda video, some, v=videos: v[video][list(some)], VIDEOS, SUBSETS, T_pair)
        answers = found.T_reference_target, everything.T_reference_target
        errors = [distances.rotation_error_deg(answer[:3, :3], T[:3, :3]) for answer in answers]
        poses = np.concatenate(videos)
        oracle = min(distances.rotation_error_deg(pose[:3, :3], T[:3, :3]) for pose in poses)
        mean = consensus.average(poses)
        by_spread = everything.medoids[int(everything.d_med_deg.argmin())]
        rows.append(
            {
                "share": found.asked / everything.asked,
                "apart_deg": float(consensus.distances_deg(*answers)),
                "race": errors[0],
                "d_total": errors[1],
                "d_med": distances.rotation_error_deg(by_spread[:3, :3], T[:3, :3]),
                "average": distances.rotation_error_deg(mean[:3, :3], T[:3, :3]),
                "pair": distances.rotation_error_deg(T_pair[:3, :3], T[:3, :3]),
                "oracle": oracle,
            }
        )
    report.progress(count, count, "stopping early")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=SIZES, default="small")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save(args.size, Path(folder))
        shared = shared_work(loaded(args.size, Path(folder)), args.seed)
    rows = stopping(10_000 if args.full else 1_000, args.seed)
    groups = range(len(rows))
    worse = [row["race"] - row["d_total"] for row in rows]
    ratio = {
        "name": "shared_time_ratio",
        "value": round(shared["ratio"], 3),
        "interval95": [round(shared["ratio_low"], 3), round(shared["ratio_high"], 3)],
        "interval95_of": f"smallest and largest of {ROUNDS} rounds",
        "n": ROUNDS,
        "wanted": "<= 0.75",
        "met": shared["ratio"] <= 0.75,
    }
    within = sum(row["apart_deg"] <= 1.0 for row in rows)
    report.finish(
        "consensus",
        args.seed,
        {
            "size": args.size,
            "architecture": dataclasses.asdict(SIZES[args.size][0]),
            "shared": shared,
            "sequential_error_added_deg": report.statistic("", worse, groups, np.mean, "<= 0", args.seed),
            "mean_rotation_error_deg": {
                name: round(float(np.mean([row[name] for row in rows])), 2)
                for name in ("pair", "average", "d_med", "d_total", "race", "oracle")
            },
        },
        [
            ratio,
            report.statistic(
                "sequential_subset_share",
                [row["share"] for row in rows],
                groups,
                np.mean,
                "<= 0.5",
                args.seed,
            ),
            report.share("sequential_within_1deg", within, len(rows), ">= 0.95"),
        ],
    )


if __name__ == "__main__":
    main()
