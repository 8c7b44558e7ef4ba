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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

from pose_bridge import covariance, verification
from pose_bridge.bridge import Rung
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import BadInputError, NoEstimateError
from pose_bridge.estimators.base import Array, Estimate
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.estimators.registration import RegistrationEstimator
from pose_bridge.estimators.sfm import SfmEstimator
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import distances
from pose_bridge.linking import Linker
from pose_bridge.simulation import questions
from pose_bridge.views import Translation

# +1: more of it speaks for an answer, -1: against it. A fit with little data must not learn the opposite.
SIGN = {
    "log_tracks": 1,
    "log_patches": 1,
    "agreement": 1,
    "log_rotation_sigma_deg": -1,
    "rival_patches": -1,
}
RIDGE = 1e-2
# The share of wrong candidates that a rung is judged for. Two views that share little are what the package is
# for, and an essential matrix is found between any two: of the direct rung's candidates, half.
WRONG_SHARE = {"direct": 0.5, "register": 0.25, "context": 0.25}
MIN_STD = 1e-3
CORRECT_ROTATION_DEG = 5.0  # docs/method.md: correct
CORRECT_DIRECTION_DEG = 15.0
FIRST_STYLE = 1_000_000  # benchmarks and the demo have lower ones: they show other furniture

Row = tuple[str, dict[str, float], bool]


def rungs(config: Config) -> list[Rung]:
    """The ladder, each rung by itself."""
    verifier = PairVerifier(config.sfm)
    linker = Linker(config.context, FeatureStore(config.features, config.views), verifier)
    sfm = SfmEstimator(config.sfm, verifier)
    return [
        Rung(linker.pair, TwoViewEstimator(config.two_view)),
        Rung(
            linker.reference_side,
            RegistrationEstimator(config.register, verifier, sfm),
            lambda question: bool(question.reference_context),
        ),
        Rung(
            linker.context,
            sfm,
            lambda question: bool(question.reference_context or question.target_context),
        ),
    ]


def rows_of(seed: int) -> list[Row]:
    """Answer one simulated question on every rung: (stage, evidence, correct) of each candidate.

    No rows where the room that the seed furnishes has no place for the question that it draws.
    """
    config = Config()
    try:
        drawn = questions.draw(FIRST_STYLE + seed, 0, seed)
    except BadInputError:
        return []
    rows = []
    for rung in rungs(config):
        if not rung.applies(drawn.question):
            continue
        try:
            problem = rung.problem(drawn.question, Control())
            found = verification.candidates(rung.estimator, problem, Control(), config.context.alternatives)
        except NoEstimateError:
            continue
        rows += [
            (
                rung.estimator.stage.name.lower(),
                evidence.features,
                correct(estimate, drawn.T_reference_target),
            )
            for estimate, evidence in found
        ]
    return rows


def correct(estimate: Estimate, T_true: Array | None) -> bool:
    """Whether an estimate is correct in the sense of docs/method.md; in another place nothing is."""
    if T_true is None:
        return False
    T = estimate.T_reference_target
    if distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]) > CORRECT_ROTATION_DEG:
        return False
    known, _ = covariance.translation(estimate, False, Config().verification)
    if known is Translation.UNDEFINED:
        return True
    return distances.translation_error_deg(T[:3, 3], T_true[:3, 3]) <= CORRECT_DIRECTION_DEG


def fit(rows: list[tuple[dict[str, float], bool]], wrong_share: float) -> dict[str, object]:
    """Fit one rung's model: clipped and standardized evidence, ridge, signs as physics has them."""
    names = list(SIGN)
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


def collect(seeds: range, workers: int, path: Path) -> Iterator[Row]:
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
        for done, (seed, rows) in enumerate(zip(todo, pool.map(rows_of, todo), strict=True), 1):
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
    parser.add_argument("--scenes", type=int, default=1500, help="simulated questions")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=verification.MODEL_FILE)
    parser.add_argument(
        "--rows",
        type=Path,
        default=Path("build/verification_rooms.jsonl"),
        help="where rows are kept between runs",
    )
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.scenes)
    rows = list(collect(seeds, args.workers, args.rows))
    model = {
        "fitted_on": f"{args.scenes} questions in rendered rooms from seed {args.first_seed}",
        "stages": {
            stage: fit([(features, label) for name, features, label in rows if name == stage], share)
            for stage, share in WRONG_SHARE.items()
        },
    }
    args.output.write_text(json.dumps(model, indent=1) + "\n")


if __name__ == "__main__":
    main()
