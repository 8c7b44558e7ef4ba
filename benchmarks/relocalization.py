# SPDX-License-Identifier: Apache-2.0
"""Kidnapped robots in rendered rooms: how often they find themselves, and whether they ever do so wrongly.

    python benchmarks/relocalization.py [--full] [--seed 0] [--workers 2]

A robot maps a room, is carried elsewhere, spins once, drives 2 m, and asks where it is; half of the time it
had mapped one half of the room only, looking across, and now looks back or aside from the other half. As a
SLAM system would, the truth says where odometry lies in the map while it maps. Besides, robots are set down
in other rooms of the same style: they have to say that they do not know. Localized: within 0.25 m and 5
degrees of the truth when the picture that answered was taken.

Two baselines have the same pictures, and neither is judged. Both take the keyframe and the picture that match
best (retrieval with geometric check). `register` triangulates the keyframe with its neighbours from their
places in the map, and resects the picture; it is adjusted like the bridge's own rung. `two_view` is the
essential matrix of the two, its length told by the truth, which is more than any robot knows. The gain is
over the better of the two.

A sample of two rooms unless `--full`, which takes hours and goes on where it was stopped. A search may take
`relocalize.budget_s` by the clock: measure on an idle machine. `--workers 1` gives each search all cores, as
a robot would; with more, searches are slower, and some may not end.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

import farm
import numpy as np
import report

from pose_bridge import covariance, scale
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BadInputError, NoEstimateError, NotLocalizedError, NoViewsError
from pose_bridge.estimators.base import Estimate
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.estimators.registration import RegistrationEstimator
from pose_bridge.estimators.sfm import SfmEstimator
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import distances, rigid, uncertainty
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.neighbours import neighbours
from pose_bridge.keyframes.retrieval import Retriever
from pose_bridge.linking import Linker
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.kidnap import Kidnapping, Kind, kidnap, stranger
from pose_bridge.simulation.robot import Frame
from pose_bridge.simulation.traveller import Traveller
from pose_bridge.views import Question

RIGHT_M, RIGHT_DEG = 0.25, 5.0
ROOMS, KIDNAPS, STRANGERS = 30, 2, 7  # kidnaps of each kind in a room; strangers for the maps of a room
SAMPLE_ROOMS, SAMPLE_KIDNAPS, SAMPLE_STRANGERS = 2, 1, 1
STRANGER = "STRANGER"
BASELINES = ("register", "two_view")
SEEDS = 100  # of one story, until the room has a place for it
Row = dict[str, Any]


def localize(robot: Traveller, at_home: bool, seed: int) -> Row:
    """Ask where it is; in a room that it never mapped, every answer is false."""
    control, start_s = Control(), time.perf_counter()
    control.start(robot.session.config.relocalize.budget_s)
    try:
        found = robot.session.relocalize(control, wait_for_motion=False, seed=seed)
    except (NotLocalizedError, NoViewsError) as error:
        seconds = time.perf_counter() - start_s
        return {
            "seconds": round(seconds, 2),
            "localized": False,
            "false": False,
            "why": type(error).__name__,
        }
    seconds, best = time.perf_counter() - start_s, found.best
    row = {
        "seconds": round(seconds, 2),
        "probability": round(best.answer.probability, 3),
        "stage": best.answer.stage.name,
        "things": found.agreeing(robot.session.config.relocalize),
        "sigma_m": round(best.sigma_m, 4),
    }
    if not at_home:
        return {**row, "localized": False, "false": True}
    T_true = robot.truth[best.view.stamp_ns]
    right = is_right(best.T_map_base, T_true)
    return {
        **row,
        "localized": right,
        "false": not right,
        "error_m": round(float(np.linalg.norm(best.T_map_base[:3, 3] - T_true[:3, 3])), 4),
        "error_deg": round(distances.rotation_error_deg(best.T_map_base[:3, :3], T_true[:3, :3]), 3),
        "nees": round(uncertainty.nees(best.T_map_base, best.covariance, T_true), 2),
    }


class Baseline:
    """What is done without a bridge: the keyframe and the picture that match best, and nobody judges."""

    def __init__(self, config: Config) -> None:
        features = dataclasses.replace(config.features, cache_views=config.keyframes.max_count)
        store, verifier = FeatureStore(features, config.views), PairVerifier(config.sfm)
        self._config = config
        self._retriever = Retriever(store, config.keyframes)
        self._linker = Linker(config, store, verifier)
        self._two_view = TwoViewEstimator(config.two_view)
        self._register = RegistrationEstimator(config.register, verifier, SfmEstimator(config.sfm, verifier))

    def localize(self, robot: Traveller, at_home: bool, seed: int) -> Row:
        """Ask both where the robot is."""
        seen = {view.id: view for view in robot.seen}
        found = self._retriever.candidates([view.view() for view in seen.values()], robot.map, 1)
        if not found:
            return {f"{name}_{what}": False for name in BASELINES for what in ("localized", "false")}
        place, view = found[0].keyframe, seen[found[0].view_id]
        T_true = robot.truth[view.stamp_ns]
        row = {}
        for name, ask in zip(BASELINES, (self._registered, self._by_two_views), strict=True):
            try:
                right = at_home and is_right(ask(place, view, robot, T_true, seed), T_true)
                row |= {f"{name}_localized": right, f"{name}_false": not right}
            except NoEstimateError:
                row |= {f"{name}_localized": False, f"{name}_false": False}
        return row

    def _registered(
        self, place: Keyframe, view: Keyframe, robot: Traveller, T_true: np.ndarray, seed: int
    ) -> np.ndarray:
        around = neighbours(place, robot.map, self._config.keyframes.neighbours, self._config.keyframes)
        question = Question(
            reference=place.view(place.T_map_camera),
            target=view.view(),
            reference_context=tuple(other.view(other.T_map_camera) for other in around),
            seed=seed,
        )
        problem = self._linker.reference_side(question, Control())
        estimate = self._register.estimate(problem, Control())
        metres = scale.metric_scale(problem, estimate, self._config.scale)
        return _in_map(estimate, metres.factor, place, view)

    def _by_two_views(
        self, place: Keyframe, view: Keyframe, robot: Traveller, T_true: np.ndarray, seed: int
    ) -> np.ndarray:
        question = Question(reference=place.view(), target=view.view(), seed=seed)
        estimate = self._two_view.estimate(self._linker.pair(question, Control()), Control())
        T = rigid.relative(place.T_map_camera, T_true @ view.T_base_camera)
        return _in_map(estimate, float(np.linalg.norm(T[:3, 3])), place, view)


def _in_map(estimate: Estimate, factor: float, place: Keyframe, view: Keyframe) -> np.ndarray:
    """T_map_base when the picture was taken."""
    T, _ = covariance.with_scale(estimate, factor, 0.0)
    return place.T_map_camera @ T @ rigid.inverse(view.T_base_camera)


def is_right(T_map_base: np.ndarray, T_true: np.ndarray) -> bool:
    """Whether a place is near enough to the truth to count."""
    off_m = float(np.linalg.norm(T_map_base[:3, 3] - T_true[:3, 3]))
    off_deg = distances.rotation_error_deg(T_map_base[:3, :3], T_true[:3, :3])
    return off_m <= RIGHT_M and off_deg <= RIGHT_DEG


def stories(room: Room, kind: Kind, count: int, seed: int) -> Iterator[Kidnapping]:
    """Kidnappings in a room; a seed for which it has no place is passed over."""
    told = 0
    for own in range(SEEDS):
        try:
            story = kidnap(room, SEEDS * seed + own, kind)
        except BadInputError:
            continue
        yield story
        told += 1
        if told == count:
            return


def strangers(style: int, first_room: int, count: int, seed: int) -> Iterator[list[Frame]]:
    """What robots see in as many other rooms of a style."""
    told, room = 0, first_room
    while told < count:
        try:
            frames = stranger(Room(style, room), SEEDS * seed + room)
        except BadInputError:
            frames = []
        room += 1
        if frames:
            told += 1
            yield frames


def ask_room(job: farm.Job) -> list[Row]:
    """All questions about one room: (seed, room, kidnaps of each kind, strangers)."""
    seed, index, kidnaps, unknown = job
    config, style = Config(), 1000 * seed + index
    bridge, baseline = Bridge(config), Baseline(config)
    elsewhere = list(strangers(style, 1, unknown, seed))
    told = [story for kind in Kind for story in stories(Room(style, 0), kind, kidnaps, seed)]
    rows = []
    for number, story in enumerate(told):
        robot = Traveller(config, bridge, story.mapping)
        visits = [(story.kind.name, story.kidnapped)]
        visits += [(STRANGER, frames) for frames in elsewhere[number :: len(told)]]
        for name, frames in visits:
            robot.carried(frames)
            at_home = name != STRANGER
            rows.append(
                {
                    "room": index,
                    "kind": name,
                    "map_of": story.kind.name,
                    "map": len(robot.map),
                    "seen": len(robot.seen),
                    **localize(robot, at_home, seed),
                    **baseline.localize(robot, at_home, seed),
                }
            )
    return rows


def targets(rows: list[Row], seed: int) -> list[dict[str, Any]]:
    """The numbers that were asked for."""
    opposite = [row for row in rows if row["kind"] == Kind.OPPOSITE.name]
    rooms, better = [row["room"] for row in opposite], better_baseline(rows)
    gains = [float(row["localized"]) - float(row[f"{better}_localized"]) for row in opposite]
    gain = report.statistic("opposite_gain", gains, rooms, fmean, ">= 0.15", seed)
    gain["met"] = gain["met"] and gain["interval95"][0] > 0.0
    localized = [float(row["localized"]) for row in opposite]
    seconds = [row["seconds"] for row in rows]
    return [
        report.statistic("opposite_localized", localized, rooms, fmean, ">= 0.5", seed),
        {**gain, "over": better},
        report.count("false_localizations", sum(row["false"] for row in rows), len(rows), "== 0"),
        report.quantile("seconds_per_answer", seconds, [row["room"] for row in rows], 0.5, "<= 60", seed),
    ]


def better_baseline(rows: list[Row]) -> str:
    """The one that finds more robots on the opposite side."""
    opposite = [row for row in rows if row["kind"] == Kind.OPPOSITE.name]
    return max(BASELINES, key=lambda name: sum(row[f"{name}_localized"] for row in opposite))


def tables(rows: list[Row]) -> dict[str, Any]:
    """By kind."""
    return {
        kind: _summary([row for row in rows if row["kind"] == kind])
        for kind in (*(kind.name for kind in Kind), STRANGER)
    }


def _summary(rows: list[Row]) -> Row:
    found = [row for row in rows if "error_m" in row]
    counts = {
        name: sum(row[name] for row in rows)
        for name in (
            "localized",
            "false",
            *(f"{b}_{what}" for b in BASELINES for what in ("localized", "false")),
        )
    }
    return {
        "n": len(rows),
        **counts,
        "why_not": dict(Counter(row["why"] for row in rows if "why" in row)),
        "stages": dict(Counter(row["stage"] for row in rows if "stage" in row)),
        "median_error_m": _median(row["error_m"] for row in found),
        "median_error_deg": _median(row["error_deg"] for row in found),
        "median_nees": _median(row["nees"] for row in found),
        "median_seconds": _median(row["seconds"] for row in rows),
        "worst_seconds": max((row["seconds"] for row in rows), default=None),
    }


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return round(float(np.median(known)), 4) if known else None


def main() -> None:
    """Carry robots about, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    farm.arguments(parser, "relocalization")
    args = parser.parse_args()
    rooms, per_room = (
        (ROOMS, (KIDNAPS, STRANGERS)) if args.full else (SAMPLE_ROOMS, (SAMPLE_KIDNAPS, SAMPLE_STRANGERS))
    )
    jobs = [(args.seed, room, *per_room) for room in range(rooms)]
    rows = farm.rows(ask_room, jobs, args)
    report.finish("relocalization", args.seed, tables(rows), targets(rows, args.seed))


if __name__ == "__main__":
    main()
