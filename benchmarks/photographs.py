# SPDX-License-Identifier: Apache-2.0
"""The bridge on real photographs with known poses.

    python benchmarks/photographs.py [--photographs FOLDER] [--full] [--seed 0]

All pairs of 50 to 90 degrees, each asked in two settings: `between`, with 8 views evenly between the two, and
`around3`, with the views within 3 of either end only, as a robot would have them. Beside it the two views
alone. A sample of the pairs unless `--full`, which takes about an hour and goes on where it was stopped
(`--rows`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report

from pose_bridge import photographs
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.estimators.pairs import PairVerifier
from pose_bridge.estimators.two_view import TwoViewEstimator
from pose_bridge.features import FeatureStore
from pose_bridge.geometry import distances, rigid, rotations
from pose_bridge.linking import Linker
from pose_bridge.views import Answer, Question, Translation

HOLE = ("0054", "0072")  # the walk jumps by 44 degrees between these two
WRONG_ROTATION_DEG, WRONG_DIRECTION_DEG = 5.0, 15.0
SAMPLE = {"between": 12, "around3": 12, "two_views": 40}
BINS_DEG = ((0, 15), (15, 30), (30, 50), (50, 70), (70, 90))
Row = dict[str, Any]


class Walk:
    """The photographs in the order of the walk, with their true poses."""

    def __init__(self, folder: Path) -> None:
        cameras = photographs.read_cameras(folder / "cameras.json")
        frames = json.loads((folder / "cameras.json").read_text())["frames"]
        self.views = [photographs.read_view(folder / frame["file"], cameras) for frame in frames]
        self.names = [Path(frame["file"]).stem for frame in frames]
        self.T_world_camera = [rigid.from_digits(frame["T_world_camera"]) for frame in frames]
        self.hole = self.names.index(HOLE[0]) if HOLE[0] in self.names else -1

    def T(self, reference: int, target: int) -> np.ndarray:
        return rigid.relative(self.T_world_camera[reference], self.T_world_camera[target])

    def angle_deg(self, a: int, b: int) -> float:
        return float(np.degrees(rotations.rotation_angle_rad(self.T(a, b)[:3, :3])))

    def pairs(self, low_deg: float, high_deg: float) -> list[tuple[int, int]]:
        count = range(len(self.views))
        return [(a, b) for a in count for b in count if a < b and low_deg <= self.angle_deg(a, b) < high_deg]

    def spans_hole(self, a: int, b: int) -> bool:
        return a <= self.hole < b

    def sides(self, setting: str, a: int, b: int) -> tuple[list[int], list[int]]:
        """Context of either end."""
        if setting == "two_views":
            return [], []
        if setting == "between":
            middle = [int(v) for v in np.round(np.linspace(a, b, 10))[1:-1]]
            middle = sorted(set(middle) - {a, b})
            half = len(middle) // 2
            return middle[:half], middle[half:]
        last = len(self.views) - 1
        near_a, near_b = (set(range(max(0, v - 3), min(last, v + 3) + 1)) - {a, b} for v in (a, b))
        return sorted(v for v in near_a if abs(v - a) <= abs(v - b)), sorted(
            v for v in near_b if abs(v - b) < abs(v - a)
        )

    def gap_deg(self, left: list[int], right: list[int]) -> float:
        """Smallest angle between a view of one side and one of the other."""
        return min(self.angle_deg(x, y) for x in left for y in right)


def ask(walk: Walk, bridge: Bridge, setting: str, pair: tuple[int, int], seed: int) -> Row:
    """One question and how good its answer is."""
    a, b = pair
    left, right = walk.sides(setting, a, b)
    question = Question(
        reference=walk.views[a],
        target=walk.views[b],
        reference_context=tuple(walk.views[v] for v in left),
        target_context=tuple(walk.views[v] for v in right),
        budget_s=120.0,
        seed=seed,
    )
    answer = bridge.answer(question)
    evidence = answer.evidence
    return {
        "setting": setting,
        "pair": [walk.names[a], walk.names[b]],
        "angle_deg": round(walk.angle_deg(a, b), 2),
        "gap_deg": round(walk.gap_deg([a, *left], [b, *right]), 2),
        "hole": walk.spans_hole(a, b),
        "status": answer.status.name,
        "reason": answer.reason.name,
        "stage": answer.stage.name,
        "estimator": answer.estimator,
        "probability": round(answer.probability, 4),
        "evidence": {} if evidence is None else {n: round(v, 4) for n, v in evidence.features.items()},
        "seconds": round(answer.elapsed_s, 2),
        **errors(answer, walk.T(a, b)),
    }


class TwoViews:
    """The essential matrix of two views as it comes, judged by nobody: what the bridge starts from.

    Right is what has the rotation within 5 degrees, and the direction too where the two views claim one.
    """

    def __init__(self) -> None:
        config = Config()
        store = FeatureStore(config.features, config.views)
        self._linker = Linker(config, store, PairVerifier(config.sfm))
        self._estimator = TwoViewEstimator(config.two_view)

    def errors(self, walk: Walk, pair: tuple[int, int], seed: int) -> Row:
        question = Question(reference=walk.views[pair[0]], target=walk.views[pair[1]], seed=seed)
        try:
            found = self._estimator.estimate(self._linker.pair(question, Control()), Control())
        except NoEstimateError:
            return {"unjudged_within_5_deg": False}
        T, T_true = found.T_reference_target, walk.T(*pair)
        error = max(
            distances.rotation_error_deg(T[:3, :3], T_true[:3, :3]),
            distances.translation_error_deg(T[:3, 3], T_true[:3, 3]) if found.translation_defined else 0.0,
        )
        return {"unjudged_within_5_deg": error <= 5.0}


def errors(answer: Answer, T_true: np.ndarray) -> Row:
    """Of an accepted answer; wrong by the signed direction too, where the answer has one."""
    if not answer.accepted:
        return {"wrong": False}
    rotation = distances.rotation_error_deg(answer.rotation, T_true[:3, :3])
    row: Row = {"rotation_error_deg": round(rotation, 4), "wrong": rotation > WRONG_ROTATION_DEG}
    if answer.translation >= Translation.DIRECTION:
        direction = distances.translation_error_deg(answer.direction, T_true[:3, 3])
        row["direction_error_deg"] = round(direction, 4)
        row["wrong"] = row["wrong"] or direction > WRONG_DIRECTION_DEG
    return row


def questions(walk: Walk, full: bool, seed: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Pairs by setting; a sample is stratified by the hole (or by angle for two views), drawn by the seed."""
    rng = np.random.default_rng(seed)
    wide = walk.pairs(50, 90)
    for setting in ("around3", "between"):
        for strata in (True, False):
            members = [pair for pair in wide if walk.spans_hole(*pair) is strata]
            take = len(members) if full else min(len(members), SAMPLE[setting] * len(members) // len(wide))
            yield from ((setting, members[k]) for k in sorted(rng.permutation(len(members))[:take]))
    for low, high in BINS_DEG:
        members = walk.pairs(low, high)
        take = len(members) if full else min(len(members), SAMPLE["two_views"] // len(BINS_DEG))
        yield from (("two_views", members[k]) for k in sorted(rng.permutation(len(members))[:take]))


def stored_features_ratios(walk: Walk, seed: int) -> list[float]:
    """Time with the views' features at hand over time from the images, same questions, one run."""
    ratios = []
    for pair in walk.pairs(50, 90)[:: len(walk.pairs(50, 90)) // 5]:
        left, right = walk.sides("between", *pair)
        views = [*pair, *left, *right]
        fresh, stored = Bridge(), Bridge()
        for view in views:
            stored.prepare(walk.views[view])
        start = time.perf_counter()
        ask(walk, stored, "between", pair, seed)
        middle = time.perf_counter()
        ask(walk, fresh, "between", pair, seed)
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return ratios


def targets(rows: list[Row], ratios: list[float], seed: int) -> list[dict[str, Any]]:
    """The numbers that were asked for."""

    def some(setting: str, hole: bool | None = None) -> list[Row]:
        return [r for r in rows if r["setting"] == setting and (hole is None or r["hole"] is hole)]

    def accepted(chosen: list[Row]) -> list[Row]:
        return [r for r in chosen if r["status"] == "ACCEPTED"]

    def rotation(name: str, chosen: list[Row], q: float, wanted: str) -> dict[str, Any]:
        good = accepted(chosen)
        groups = [r["pair"][0] for r in good]
        return report.quantile(name, [r["rotation_error_deg"] for r in good], groups, q, wanted, seed)

    near, far, around = some("between", False), some("between", True), some("around3")
    return [
        report.share("between_accepted", len(accepted(near)), len(near), ">= 1.0"),
        rotation("between_p95_rotation_deg", near, 0.95, "<= 0.5"),
        report.share("hole_accepted", len(accepted(far)), len(far), ">= 0.75"),
        rotation("hole_p90_rotation_deg", far, 0.90, "<= 2.0"),
        report.share("around3_accepted", len(accepted(around)), len(around), ">= 0.8"),
        rotation("around3_p90_rotation_deg", around, 0.90, "<= 1.0"),
        report.count("wrong", sum(r["wrong"] for r in rows), len(accepted(rows)), "== 0"),
        report.statistic(
            "stored_features_time_ratio",
            ratios,
            range(len(ratios)),
            lambda sample: float(np.median(sample)),
            "<= 0.4",
            seed,
        ),
    ]


def tables(rows: list[Row]) -> dict[str, Any]:
    """By gap between the sides, by angle for the two views alone, by rung and by reason."""
    found: dict[str, Any] = {}
    for setting in ("around3", "between", "two_views"):
        chosen = [r for r in rows if r["setting"] == setting]
        key = "angle_deg" if setting == "two_views" else "gap_deg"
        found[f"{setting}_by_{key}"] = {
            f"{low}-{high}": _summary([r for r in chosen if low <= r[key] < high]) for low, high in BINS_DEG
        }
        found[f"{setting}_stages"] = dict(Counter(r["stage"] for r in chosen if r["status"] == "ACCEPTED"))
        found[f"{setting}_reasons"] = dict(Counter(r["reason"] for r in chosen if r["status"] != "ACCEPTED"))
    return found


def _summary(rows: list[Row]) -> Row:
    good = [r for r in rows if r["status"] == "ACCEPTED"]
    rotation = [r["rotation_error_deg"] for r in good]
    unjudged = [r["unjudged_within_5_deg"] for r in rows if "unjudged_within_5_deg" in r]
    return {
        **({"unjudged_within_5_deg": round(float(np.mean(unjudged)), 3)} if unjudged else {}),
        "n": len(rows),
        "accepted": len(good),
        "wrong": sum(r["wrong"] for r in rows),
        "median_rotation_deg": round(float(np.median(rotation)), 3) if good else None,
        "worst_rotation_deg": round(max(rotation), 3) if good else None,
        "median_seconds": round(float(np.median([r["seconds"] for r in rows])), 2) if rows else None,
    }


def draw(rows: list[Row], path: Path) -> None:
    """Share of the pairs of 50 to 90 degrees that are answered within an error, by setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = {
        "between": "8 views evenly between the two",
        "around3": "views within 3 of either end",
        "two_views": "the two views alone",
    }
    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    for setting, label in labels.items():
        asked = [r for r in rows if r["setting"] == setting and 50 <= r["angle_deg"] < 90]
        found = sorted(r["rotation_error_deg"] for r in asked if r["status"] == "ACCEPTED")
        share = 100 * np.arange(len(found) + 1) / max(len(asked), 1)
        axes.step([0.01, *found, 10.0], [*share, share[-1]], where="post", linewidth=2.2, label=label)
    axes.set(xscale="log", xlim=(0.02, 10), ylim=(0, 101), xlabel="rotation error, degrees")
    axes.set_ylabel("pairs accepted with at most this error, %")
    axes.axvline(0.2, color="0.6", linestyle=":", linewidth=1)
    axes.text(
        0.19, 3, "ground truth's own error", rotation=90, ha="right", va="bottom", color="0.4", fontsize=8
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Ask, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "fox"
    default = Path(os.environ.get("PHOTOS", beside))
    parser.add_argument(
        "--photographs", type=Path, default=default, help="folder with images/ and cameras.json"
    )
    parser.add_argument("--full", action="store_true", help="all pairs, not a sample")
    parser.add_argument(
        "--rows",
        type=Path,
        default=Path("build/benchmarks/photographs.jsonl"),
        help="where --full keeps its answers; those of another commit or seed are asked anew",
    )
    parser.add_argument("--figure", type=Path, help="draw the errors here")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    walk = Walk(args.photographs)
    todo = list(questions(walk, args.full, args.seed))
    known, measured = {}, [report.commit(), args.seed]
    if not args.full:
        args.rows = args.rows.with_name(args.rows.stem + "_sample.jsonl")
    elif args.rows.exists():
        rows_there = map(json.loads, args.rows.read_text().splitlines())
        known = {(r["setting"], *r["pair"]): r for r in rows_there if r["measured"] == measured}
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    bridge, two_views, rows = Bridge(), TwoViews(), []
    with args.rows.open("a" if known else "w") as file:
        for done, (setting, pair) in enumerate(todo, 1):
            names = tuple(walk.names[v] for v in pair)
            row = known.get((setting, *names))
            if row is None:
                row = {**ask(walk, bridge, setting, pair, args.seed), "measured": measured}
                if setting == "two_views":
                    row |= two_views.errors(walk, pair, args.seed)
                file.write(json.dumps(row) + "\n")
                file.flush()
            rows.append(row)
            report.progress(
                done, len(todo), f"{setting} {names[0]}-{names[1]}: {row['status']} {row['stage']}"
            )
    if args.figure:
        draw(rows, args.figure)
    ratios = stored_features_ratios(walk, args.seed)
    report.finish("photographs", args.seed, tables(rows), targets(rows, ratios, args.seed))


if __name__ == "__main__":
    main()
