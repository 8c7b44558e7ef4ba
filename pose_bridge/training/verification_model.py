# SPDX-License-Identifier: Apache-2.0
"""Fits the verification's probability model on rendered rooms.

    python -m pose_bridge.training.verification_model

Every question goes through the three rungs as the bridge would climb them; each candidate, rivals included,
is one row: its evidence, and whether it is correct. One logistic regression per rung, wrong candidates
weighted to `WRONG_SHARE`. Real photographs are for testing the model, never for fitting it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

from pose_bridge import covariance, verification
from pose_bridge.bridge import ladder
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BadInputError, NoEstimateError
from pose_bridge.estimators.base import Array, Estimate
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import distances, rigid
from pose_bridge.simulation import questions
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.kidnap import Kind, kidnap, stranger
from pose_bridge.simulation.traveller import Traveller
from pose_bridge.views import Answer, Question, Reason, Translation

# +1: more of it speaks for an answer, -1: against it. A fit with little data must not learn the opposite.
SIGN = {
    "log_tracks": 1,
    "log_patches": 1,
    "log_support": 1,
    "agreement": 1,
    "log_rotation_sigma_deg": -1,
    "rival_patches": -1,
    "log_pairs": -1,
}
# Of the rigs' rung: how surely the target is known depends on how far by odometry it is from what is tied;
# and the more pairs of views are matched, the more matches agree by chance.
EVIDENCE: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("two_view", "registration", "sfm"),
    ("log_tracks", "log_patches", "agreement", "log_rotation_sigma_deg", "rival_patches"),
)
EVIDENCE["rigs"] = ("log_support", "agreement", "rival_patches", "log_pairs")
RIDGE = 1e-2
# The share of wrong candidates that a rung is judged for. Two views that share little are what the package is
# for, and an essential matrix is found between any two: of the direct rung's candidates, half.
WRONG_SHARE = {"two_view": 0.5, "registration": 0.25, "sfm": 0.25, "rigs": 0.5}
MIN_STD = 1e-3
CORRECT_PLACE_M = 0.25  # of a robot that is looked for
FIRST_STYLE = 1_000_000  # benchmarks and the demo have lower ones: they show other furniture

Row = tuple[str, dict[str, float], bool]


def rows_of(seed: int) -> list[Row]:
    """Answer one simulated question on every rung: (estimator, evidence, correct) of each candidate.

    No rows where the room that the seed furnishes has no place for the question that it draws.
    """
    try:
        drawn = questions.draw(FIRST_STYLE + seed, 0, seed)
    except BadInputError:
        return []
    T = drawn.T_reference_target
    return list(_rows(drawn.question, {} if T is None else {drawn.question.target.id: T}))


def rows_of_search(seed: int) -> list[Row]:
    """Look for one simulated robot, every second time in a room that it never mapped: rows as `rows_of`."""
    kind, at_home = list(Kind)[seed % 2], seed // 2 % 2 == 0
    style = FIRST_STYLE + seed
    try:
        story = kidnap(Room(style, 0), seed, kind)
        frames = story.kidnapped if at_home else stranger(Room(style, 1), seed)
    except BadInputError:
        return []
    robot = Traveller(Config(), _Nobody(), story.mapping)
    robot.carried(frames)
    question = robot.session.search().next_question(Control())
    if question is None:
        return []
    T_reference_map = rigid.inverse(np.asarray(question.reference.T_side_camera))
    truth = {
        view.id: T_reference_map @ robot.truth[view.stamp_ns] @ np.asarray(view.T_base_camera)
        for view in robot.seen
    }
    return list(_rows(question, truth if at_home else {}, CORRECT_PLACE_M))


class _Nobody:
    """In place of a bridge: this robot's questions are answered rung by rung."""

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        return Answer.rejected(Reason.NO_OVERLAP, "nobody was asked")


def _rows(question: Question, T_reference_view: Mapping[str, Array], near_m: float = 0.0) -> Iterator[Row]:
    """Candidates of all rungs; right are those that are so where the sides are tied best, if that is known.

    Args:
        question: To all rungs.
        T_reference_view: The truth by id, of the target at least; nothing: no answer is right.
        near_m: See `correct`.
    """
    config = Config()
    for rung in ladder(config, FeatureStore(config.features, config.views)):
        if not rung.serves(question):
            continue
        try:
            problem = rung.problem(question, Control())
            found = verification.candidates(rung.estimator, problem, Control(), config.context.alternatives)
        except NoEstimateError:
            continue
        names, target = [view.id for view in problem.views], question.target.id
        for estimate, evidence in found:
            tied = evidence.target_view_id if evidence.target_view_id in T_reference_view else target
            right = target in T_reference_view and correct(
                estimate,
                names.index(tied),
                T_reference_view[tied],
                float(np.linalg.norm(T_reference_view[target][:3, 3])),
                near_m,
            )
            yield rung.estimator.name, evidence.features, right


def correct(estimate: Estimate, view: int, T_true: Array, unit_m: float, near_m: float = 0.0) -> bool:
    """Whether an estimate is correct in the sense of docs/method.md.

    Args:
        estimate: Of the pair.
        view: Index of the view that counts.
        T_true: T_reference_view, (4, 4).
        unit_m: The true baseline, unit of an estimate that has no metres.
        near_m: A place this near to the true one is correct, whatever the direction.
    """
    config = Config()
    T = estimate.T_reference_camera[view]
    if distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]) > distances.CORRECT_ROTATION_DEG:
        return False
    in_metres = None
    if estimate.rigid_sides:
        share_m = distances.CORRECT_SHARE * float(np.linalg.norm(T_true[:3, 3]))
        unit_m, near_m = 1.0, max(near_m, distances.CORRECT_M, share_m)
        _, in_metres = covariance.with_scale(estimate, unit_m, config.scale.odometry_sigma)
    known, _ = covariance.translation(estimate, in_metres, config.verification)
    if known is Translation.UNDEFINED:
        return True
    near = bool(np.linalg.norm(T[:3, 3] * unit_m - T_true[:3, 3]) <= near_m)
    off_deg = distances.translation_error_deg(T[:3, 3], T_true[:3, 3])
    return near or (known is Translation.DIRECTION and off_deg <= distances.CORRECT_DIRECTION_DEG)


def fit(rows: list[tuple[dict[str, float], bool]], estimator: str) -> dict[str, object]:
    """Fit one estimator's model: clipped and standardized evidence, ridge, signs as physics has them."""
    names, wrong_share = EVIDENCE[estimator], WRONG_SHARE[estimator]
    x = np.array([[features[name] for name in names] for features, _ in rows])
    right = np.array([label for _, label in rows])
    low, high = np.percentile(x, [1, 99], axis=0)
    clipped = np.clip(x, low, high)
    mean, std = clipped.mean(axis=0), clipped.std(axis=0)
    std = np.where(std > MIN_STD, std, 1.0)  # what never varies says nothing
    z = (clipped - mean) / std
    weight = np.where(right, (1 - wrong_share) / right.mean(), wrong_share / (1 - right.mean()))

    def loss(parameters: Array) -> float:
        margin = (z @ parameters[1:] + parameters[0]) * np.where(right, 1, -1)
        return float(np.mean(weight * np.logaddexp(0, -margin)) + RIDGE * np.sum(parameters[1:] ** 2) / 2)

    bounds = [(None, None)] + [(0, None) if SIGN[name] > 0 else (None, 0) for name in names]
    solved = minimize(loss, np.zeros(len(names) + 1), method="L-BFGS-B", bounds=bounds)
    return {
        "wrong_share": wrong_share,
        "candidates": len(rows),
        "right": int(right.sum()),
        "intercept": round(float(solved.x[0]), 4),
        "weights": {name: round(float(w), 4) for name, w in zip(names, solved.x[1:], strict=True)},
        "mean": {name: round(float(v), 4) for name, v in zip(names, mean, strict=True)},
        "std": {name: round(float(v), 4) for name, v in zip(names, std, strict=True)},
        "range": {
            name: [round(float(a), 4), round(float(b), 4)]
            for name, a, b in zip(names, low, high, strict=True)
        },
    }


def collect(make: Callable[[int], list[Row]], seeds: range, workers: int, path: Path) -> Iterator[Row]:
    """Rows of all questions, with progress on stderr; those that lie in the file are not made again."""
    known: dict[int, list[Row]] = {}
    if path.exists():
        known = {record["seed"]: record["rows"] for record in map(json.loads, path.read_text().splitlines())}
    path.parent.mkdir(parents=True, exist_ok=True)
    todo = [seed for seed in seeds if seed not in known]
    with (
        path.open("a") as file,
        ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool,
    ):
        for done, (seed, rows) in enumerate(zip(todo, pool.map(make, todo), strict=True), 1):
            known[seed] = rows
            file.write(json.dumps({"seed": seed, "rows": rows}) + "\n")
            file.flush()
            print(f"\r{done} of {len(todo)} questions", end="", file=sys.stderr, flush=True)
    for seed in seeds:
        yield from known[seed]


def main() -> None:
    """Simulate, fit, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=1500, help="simulated pairs")
    parser.add_argument("--searches", type=int, default=150, help="simulated robots that are looked for")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=verification.MODEL_FILE)
    parser.add_argument("--rows", type=Path, default=Path("build"), help="where rows are kept between runs")
    args = parser.parse_args()
    rows: list[Row] = []
    for name, make, count in (
        ("questions", rows_of, args.questions),
        ("searches", rows_of_search, args.searches),
    ):
        seeds = range(args.first_seed, args.first_seed + count)
        rows += collect(make, seeds, args.workers, args.rows / f"verification_{name}.jsonl")
    model = {
        "fitted_on": f"{args.questions} questions and {args.searches} searches in rendered rooms from seed "
        f"{args.first_seed}",
        "estimators": {
            estimator: fit(
                [(features, label) for name, features, label in rows if name == estimator], estimator
            )
            for estimator in WRONG_SHARE
        },
    }
    args.output.write_text(json.dumps(model, indent=1) + "\n")


if __name__ == "__main__":
    main()
