# SPDX-License-Identifier: Apache-2.0
"""Whether the covariances of metric answers hold, in rendered rooms.

    python benchmarks/covariance.py [--full] [--seed 0] [--workers 2]

Questions as a robot's session asks them: two ends that look at one thing, or past it, from 10 to 90 degrees
apart, with neighbours around them, odometry on one side or both, depth or none. Of every accepted metric
answer: its error in units of its covariance, rotation and translation apart.

coverage: share of the errors inside the ellipsoids that should hold 50, 90 and 95 %; of rotation and of
translation, the one that is farther off. nll_gain_nat: how much more likely the errors are under the answers'
own covariances than under the best constant one of each rung, fitted on these very errors.

A sample of six rooms unless `--full`, which takes about an hour and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from statistics import fmean
from typing import Any

import farm
import numpy as np
import report
from scipy.stats import chi2

from pose_bridge.bridge import Bridge
from pose_bridge.config import Config
from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import calibration
from pose_bridge.geometry import distances, uncertainty
from pose_bridge.simulation.questions import DrawnQuestion, QuestionSettings, draw
from pose_bridge.views import Answer, Require, ScaleSource, Stage

ROOMS, ANSWERS = 50, 12  # answers wanted of a room
SAMPLE_ROOMS, SAMPLE_ANSWERS = 6, 8
QUESTIONS_PER_ANSWER = 6  # at most; then the room is given up
# Where no answer is right, nothing can be said of its covariance: neither twins nor other rooms.
ASKED = {"weights": (0.8, 0.2, 0.0, 0.0, 0.0), "gap_deg": (10.0, 90.0), "context": (1, 4)}
KNOWN = ((1.0, 0.0), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))  # odometry, depth: shares of the sides
BUDGET_S = 120.0
LEVELS = (0.5, 0.9, 0.95)
WITHIN = 0.05
SURPRISING_NEES = 50.0
FEWEST_OF_A_STAGE = 25  # answers, to fit a constant covariance to
GAPS_DEG = ((0, 15), (15, 30), (30, 50), (50, 70), (70, 180))
PARTS = {"rotation": slice(3, 6), "translation": slice(0, 3)}
Row = dict[str, Any]


def ask_room(job: farm.Job) -> list[Row]:
    """Accepted metric answers about one room, and how many questions that took: (seed, room, answers)."""
    seed, index, wanted = job
    bridge, style = Bridge(Config()), 1000 * seed + index
    rows: list[Row] = []
    for number in range(QUESTIONS_PER_ANSWER * wanted):
        odometry, depth = KNOWN[number % len(KNOWN)]
        settings = QuestionSettings(**ASKED, odometry=odometry, depth=depth)
        try:
            drawn = draw(style, 0, number, settings)
        except BadInputError:
            continue
        question = dataclasses.replace(drawn.question, require=Require.METRIC, budget_s=BUDGET_S)
        answer = bridge.answer(question)
        row: Row = {"room": index, "number": number, "metric": answer.meets(Require.METRIC)}
        row["why_not"] = "" if row["metric"] else answer.reason.name
        rows.append(row | described(drawn, answer) if row["metric"] else row)
        if sum(row["metric"] for row in rows) == wanted:
            break
    return rows


def described(drawn: DrawnQuestion, answer: Answer) -> Row:
    """An answer's error beside what it claims."""
    T, T_true, C = answer.T_reference_target, drawn.T_reference_target, answer.covariance
    error = uncertainty.error_vector(T, T_true)
    sides = (drawn.question.reference, drawn.question.target)
    return {
        "stage": answer.stage.name,
        "scale_source": answer.scale_source.name,
        "scale_sigma": answer.scale_sigma,
        "odometry": sum(end.T_side_camera is not None for end in sides),
        "depth": sum(end.depth_m is not None for end in sides),
        "gap_deg": drawn.gap_deg,
        "baseline_m": float(np.linalg.norm(T_true[:3, 3])),
        "tracks": answer.evidence.tracks,
        "probability": answer.probability,
        "error": error.tolist(),
        "covariance": C.tolist(),
        "nees": float(calibration.nees(error[None], C[None])[0]),
        **{
            f"nees_{name}": float(calibration.nees(error[None, part], C[None, part, part])[0])
            for name, part in PARTS.items()
        },
    }


def coverage(rows: list[Row], level: float, seed: int) -> dict[str, Any]:
    """Share of the errors inside the ellipsoids, of rotation and translation the one that is farther off."""
    off = {}
    for name in PARTS:
        target = report.statistic(
            f"coverage_{100 * level:.0f}",
            inside(rows, name, level).astype(float),
            [row["room"] for row in rows],
            fmean,
            f">= {level - WITHIN:g}",
            seed,
        )
        off[name] = {**target, "of": name, "wanted": f"within {WITHIN:g} of {level:g}"}
    worst = max(off.values(), key=lambda target: abs((target["value"] or 0.0) - level))
    return {**worst, "met": worst["value"] is not None and abs(worst["value"] - level) <= WITHIN}


def inside(rows: list[Row], part: str, level: float) -> np.ndarray:
    """Which errors of rotation or translation lie inside their ellipsoids."""
    own = PARTS[part]
    errors = np.array([row["error"] for row in rows]).reshape(-1, 6)[:, own]
    covariances = np.array([row["covariance"] for row in rows]).reshape(-1, 6, 6)[:, own, own]
    return calibration.inside(errors, covariances, level)


def gains_nat(rows: list[Row]) -> list[tuple[int, float]]:
    """By answer, of rungs with enough of them: its room, and how much its own covariance says more."""
    found = []
    for stage in Stage:
        some = [row for row in rows if row["stage"] == stage.name]
        if len(some) < FEWEST_OF_A_STAGE:
            continue
        errors = np.array([row["error"] for row in some])
        constant = np.broadcast_to(calibration.best_constant(errors), (len(some), 6, 6))
        own = np.array([row["covariance"] for row in some])
        gain = calibration.negative_log_likelihood(errors, constant)
        gain -= calibration.negative_log_likelihood(errors, own)
        found += list(zip([row["room"] for row in some], gain.tolist(), strict=True))
    return found


def targets(rows: list[Row], seed: int) -> list[dict[str, Any]]:
    """The numbers that were asked for."""
    return [*(coverage(rows, level, seed) for level in LEVELS), gain_nat(rows, seed)]


def gain_nat(rows: list[Row], seed: int) -> dict[str, Any]:
    """Mean over answers, drawn anew by rooms."""
    gains = gains_nat(rows)
    return report.statistic(
        "nll_gain_nat", [gain for _, gain in gains], [room for room, _ in gains], fmean, ">= 0.5", seed
    )


def is_correct(row: Row) -> bool:
    """In the sense of docs/method.md: of a place that is another one no covariance says how far off it is."""
    error = np.array(row["error"])
    reach_m = max(distances.CORRECT_M, distances.CORRECT_SHARE * row["baseline_m"])
    turned_deg = np.degrees(np.linalg.norm(error[3:]))
    return bool(turned_deg <= distances.CORRECT_ROTATION_DEG and np.linalg.norm(error[:3]) <= reach_m)


def tables(asked: list[Row], rows: list[Row], seed: int) -> dict[str, Any]:
    """By source of scale, gap and rung; and the answers that surprise."""
    sources = [source.name for source in ScaleSource if source is not ScaleSource.NONE]
    right = [row for row in rows if is_correct(row)]
    surprising = [row for row in rows if row["nees"] > SURPRISING_NEES]
    return {
        "questions": len(asked),
        "why_not": dict(Counter(row["why_not"] for row in asked if row["why_not"])),
        "all": _summary(rows),
        "wrong": len(rows) - len(right),
        "nll_gain_of_correct_ones_nat": gain_nat(right, seed),
        "by_scale_source": {
            name: _summary(some)
            for name in sources
            if (some := [row for row in rows if row["scale_source"] == name])
        },
        "by_gap_deg": {
            f"{low}-{high}": _summary([row for row in rows if low <= row["gap_deg"] < high])
            for low, high in GAPS_DEG
        },
        "by_stage": {
            stage.name: _summary(some)
            for stage in Stage
            if (some := [row for row in rows if row["stage"] == stage.name])
        },
        "nees_over_50": len(surprising),
        "surprising": [_explained(row) for row in sorted(surprising, key=lambda row: -row["nees"])],
    }


def _summary(rows: list[Row]) -> Row:
    """Coverage, and by which factor the variances of a typical answer fall short."""
    summary: Row = {"n": len(rows)}
    for name in PARTS if rows else ():
        summary[f"{name}_coverage"] = [round(float(inside(rows, name, level).mean()), 3) for level in LEVELS]
        typical = np.median([row[f"nees_{name}"] for row in rows]) / chi2.median(3)
        summary[f"{name}_variance_short_by"] = round(float(typical), 2)
    return summary


def _explained(row: Row) -> Row:
    """What went wrong where, in one line."""
    error, sigma = np.array(row["error"]), np.sqrt(np.diag(row["covariance"]))
    kept = ("room", "number", "stage", "scale_source", "tracks", "odometry", "depth")
    return {
        **{name: row[name] for name in kept},
        **{name: round(row[name], 3) for name in ("gap_deg", "baseline_m", "probability", "scale_sigma")},
        **{name: round(row[name], 1) for name in ("nees", "nees_rotation", "nees_translation")},
        "error_m": np.round(error[:3], 4).tolist(),
        "sigma_m": np.round(sigma[:3], 4).tolist(),
        "error_deg": np.round(np.degrees(error[3:]), 3).tolist(),
        "sigma_deg": np.round(np.degrees(sigma[3:]), 3).tolist(),
    }


def main() -> None:
    """Ask, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    farm.arguments(parser, "covariance")
    args = parser.parse_args()
    rooms, wanted = (ROOMS, ANSWERS) if args.full else (SAMPLE_ROOMS, SAMPLE_ANSWERS)
    asked = farm.rows(ask_room, [(args.seed, room, wanted) for room in range(rooms)], args)
    rows = [row for row in asked if row["metric"]]
    report.finish("covariance", args.seed, tables(asked, rows, args.seed), targets(rows, args.seed))


if __name__ == "__main__":
    main()
