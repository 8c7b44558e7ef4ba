# SPDX-License-Identifier: Apache-2.0
"""How much like photographs the simulated rooms are, and how fast they are rendered.

    python benchmarks/simulation.py [--full] [--seed 0] [--size 320x240]

Pairs of views of one piece of furniture, as a walk around it would take them, by the angle between them: how
often the essential matrix of their local features is right within 5 degrees, judged by nobody. Photographs
gave 97, 79, 48, 21 and 10 % (benchmarks/photographs.py, docs/results.md); within 10 points of that is wanted.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from statistics import fmean as mean
from typing import Any

import cv2
import numpy as np
import report
from photographs import BINS_DEG, TwoViews

from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.simulation.furnished import Room, planar
from pose_bridge.simulation.robot import DEFAULT_BUILD, Build, Frame
from pose_bridge.views import View

# largest ratio of the two distances in the walk of the photographs (its 90 % quantile), by angle
RATIO = dict(zip(BINS_DEG, (1.07, 1.49, 1.45, 1.39, 1.23), strict=True))
PHOTOGRAPHS = (0.97, 0.79, 0.48, 0.21, 0.10)
TOLERANCE = 0.10
DISTANCE_M = (0.8, 2.5)
AGITATION_RADPS = 0.15  # a robot that looks at something does not stand perfectly still
NEAR_M = 0.6  # what is seen this near to the middle of a piece of furniture is that piece, or close before it
TRIES = 20000
RENDERED = 40
Row = dict[str, Any]


class Pair:
    """Two views, as `TwoViews` wants them."""

    def __init__(self, frames: tuple[Frame, Frame]) -> None:
        self._T_world_camera = [frame.T_world_camera for frame in frames]
        self.views = [
            View(id=str(index), image=frame.image, camera=frame.camera) for index, frame in enumerate(frames)
        ]

    def T(self, reference: int, target: int) -> np.ndarray:
        return rigid.relative(self._T_world_camera[reference], self._T_world_camera[target])

    def angle_deg(self) -> float:
        return float(np.degrees(rotations.rotation_angle_rad(self.T(0, 1)[:3, :3])))


def frame(room: Room, build: Build, x_m: float, y_m: float, yaw_rad: float, seed: tuple[int, ...]) -> Frame:
    """What a robot sees there."""
    T = planar(x_m, y_m, yaw_rad)
    turn_radps = float(np.random.default_rng(seed).normal(0.0, AGITATION_RADPS))
    return Frame(
        stamp_ns=0,
        room=room,
        build=build,
        T_world_base=T,
        T_odom_base=T,
        odometry=0,
        turn_radps=turn_radps,
        seed=seed,
    )


def sees(view: Frame, point_m: np.ndarray) -> bool:
    """Whether nothing stands before a piece of furniture with that middle."""
    rows, columns = view.depth_m.shape
    distance_m = float(np.linalg.norm(view.T_world_camera[:2, 3] - point_m[:2]))
    return abs(float(view.depth_m[rows // 2, columns // 2]) - distance_m) < NEAR_M


def pair(room: Room, build: Build, bin_deg: tuple[int, int], rng: np.random.Generator) -> Pair | None:
    """Two places that look at the same piece of furniture, from directions that far apart."""
    places = room.free_places()
    for _ in range(TRIES):
        point = room.pieces_m[rng.integers(len(room.pieces_m))]
        ends = places[rng.choice(len(places), 2, replace=False)]
        ways = point[:2] - ends
        yaws, distances_m = np.arctan2(ways[:, 1], ways[:, 0]), np.linalg.norm(ways, axis=1)
        ratio, turn_deg = distances_m[1] / distances_m[0], abs(np.degrees(between(*yaws)))
        fits = bin_deg[0] <= turn_deg < bin_deg[1] and 1.0 <= ratio < RATIO[bin_deg]
        if fits and DISTANCE_M[0] < distances_m[0] < DISTANCE_M[1]:
            first, second = (
                frame(room, build, *end, yaw_rad, (6, int(rng.integers(2**31))))
                for end, yaw_rad in zip(ends, yaws, strict=True)
            )
            if sees(first, point) and sees(second, point):
                return Pair((first, second))
    return None


def between(yaw_rad: float, other_rad: float) -> float:
    """From one direction to the other, -pi to pi."""
    return (other_rad - yaw_rad + np.pi) % (2.0 * np.pi) - np.pi


def rows(rooms: int, per_room: int, build: Build, seed: int) -> Iterator[Row]:
    """Ask pairs of every angle in every room; a room without such a pair is passed over."""
    judge = TwoViews()
    for index in range(rooms):
        room = Room(style_seed=1000 * seed + index, room_seed=0)
        rng = np.random.default_rng([7, seed, index])
        for low, high in BINS_DEG:
            for _ in range(per_room):
                found = pair(room, build, (low, high), rng)
                if found is not None:
                    good = judge.errors(found, (0, 1), seed)["unjudged_within_5_deg"]
                    yield {
                        "room": index,
                        "bin": f"{low}-{high}",
                        "angle_deg": found.angle_deg(),
                        "good": good,
                    }
        report.progress(index + 1, rooms, f"{room.size_m[0]:.1f} x {room.size_m[1]:.1f} m")


def milliseconds(build: Build, seed: int) -> list[float]:
    """Processor time of one picture each, on one thread: what else the machine does does not count."""
    threads, times = cv2.getNumThreads(), []
    cv2.setNumThreads(1)
    for index in range(RENDERED // 8):
        room = Room(style_seed=1000 * seed + index, room_seed=0)
        rng = np.random.default_rng([8, seed, index])
        places = room.free_places()
        for _ in range(8):
            view = frame(
                room, build, *places[rng.integers(len(places))], rng.uniform(-np.pi, np.pi), (index,)
            )
            start = time.thread_time()
            assert view.image.size
            times.append(1e3 * (time.thread_time() - start))
    cv2.setNumThreads(threads)
    return times


def main() -> None:
    """Look, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="60 rooms instead of 20")
    parser.add_argument("--size", default="320x240", help="of the pictures")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    camera: Camera = DEFAULT_BUILD.camera.resize(width, height)
    build = dataclasses.replace(DEFAULT_BUILD, camera=camera)
    asked = list(rows(60 if args.full else 20, 4, build, args.seed))
    times = milliseconds(build, args.seed)
    targets, table = [], {}
    for (low, high), photographs in zip(BINS_DEG, PHOTOGRAPHS, strict=True):
        some = [r for r in asked if r["bin"] == f"{low}-{high}"]
        groups = [r["room"] for r in some]
        good = [float(r["good"]) for r in some]
        table[f"{low}-{high}"] = report.statistic("share", good, groups, mean, ">= 0", args.seed)
        off = report.statistic(
            f"two_view_{low}_{high}_off_photographs",
            good,
            groups,
            lambda sample, there=photographs: abs(mean(sample) - there),
            f"<= {TOLERANCE}",
            args.seed,
        )
        targets.append(off)
    targets.append(
        report.statistic(
            "render_ms", times, range(len(times)), lambda sample: float(np.median(sample)), "<= 50", args.seed
        )
    )
    results = {
        "size": args.size,
        "two_view_within_5_deg_by_angle_deg": {
            name: {"share": row["value"], "interval95": row["interval95"], "n": row["n"]}
            for name, row in table.items()
        },
        "photographs": PHOTOGRAPHS,
        "render_p95_ms": round(float(np.percentile(times, 95)), 1),
    }
    report.finish("simulation", args.seed, results, targets)


if __name__ == "__main__":
    main()
