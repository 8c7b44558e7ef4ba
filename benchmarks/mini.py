# SPDX-License-Identifier: Apache-2.0
"""What the small models that ship with the package are worth, in houses that none of them has seen.

    python benchmarks/mini.py [--full] [--seed 0] [--runs build/mini] [--workers 2] [--answers COMMIT]

Five evaluations by `pose_bridge evaluate`, each in a folder of its own below --runs, which say more than is
printed here and go on where they were stopped. Answers of another commit or seed lie in other folders; those
that were published (docs/results.md) are kept in benchmarks/answers and unpacked when they are asked for:

neighbours   pairs of 0 to 30 degrees, by vggt-mini
extreme      pairs of 50 to 90 degrees: the two views, true views between, and videos by ltx-mini
extreme-wide the same with vggt-mini-wide
promoted     pairs of 50 to 90 degrees with views and odometry around either end, so many that guesses from
             other views may agree, and of two places: what comes of hypotheses, given all the time they take
places       the bridge with real views only, without models, and pairs whose target is in another room of the
             house
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import farm
import numpy as np
import report

from pose_bridge.evaluation import benchmark
from pose_bridge.evaluation.benchmark import Row
from pose_bridge.evaluation.columns import column, groups, of_one_place
from pose_bridge.evaluation.summary import summary
from pose_bridge.geometry.arrays import Array

VIDEOS = "pair,true-frames,generated-average,d_med,d_total,oracle"
DATASET = "simulator:test"
ANSWERS = Path(__file__).parent / "answers"
HALF_TURN = 180.0
COLUMNS = ("answered", "right", "mean rotation error", "median rotation error", "AUC30")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One folder below --runs.

    Attributes:
        methods: That are asked, as the command line has them.
        drawn: How pairs are drawn, likewise.
        pairs: How many, of the sample and of everything.
        elsewhere: How many more of two places.
        more: Further arguments.
        config: Settings beside the profile's, as YAML.
        profile: With models, none for those that need none.
    """

    methods: str
    drawn: tuple[str, ...]
    pairs: tuple[int, int]
    elsewhere: tuple[int, int] = (0, 0)
    more: tuple[str, ...] = ()
    config: str = ""
    profile: str = "mini"


FAR = ("--yaw", "50", "90")
WIDE = 'vggt:\n  weights: "shipped:vggt-mini-wide"\n'
EVALUATIONS = {
    "neighbours": Evaluation(methods="pair", drawn=("--yaw", "0", "30"), pairs=(20, 300)),
    "extreme": Evaluation(methods=VIDEOS, drawn=FAR, pairs=(8, 300)),
    "extreme-wide": Evaluation(methods=VIDEOS, drawn=FAR, pairs=(8, 300), config=WIDE),
    "promoted": Evaluation(
        methods="generated",
        drawn=(*FAR, "--context", "8"),
        pairs=(3, 300),
        elsewhere=(2, 200),
        more=("--odometry",),
    ),
    "places": Evaluation(
        methods="context",
        drawn=(*FAR, "--context", "3"),
        pairs=(6, 300),
        elsewhere=(10, 3000),
        more=("--odometry", "--budget", "60"),  # that no answer hangs on what else the machine does
        profile="",
    ),
}


def rows_of(name: str, folder: Path, args: argparse.Namespace) -> list[Row]:
    """Return the answers of an evaluation, asking what was not asked yet.

    Args:
        name: Of it.
        folder: Of all.
        args: Of the command line.
    """
    one, out, listed = EVALUATIONS[name], folder / name, folder / f"{name}.json"
    pairs, strangers = one.pairs[args.full], one.elsewhere[args.full]
    if not listed.exists():
        counts = ["--count", str(pairs), "--elsewhere", str(strangers), "--per-scene", "1"]
        run(["pairs", DATASET, "-o", str(listed), *one.drawn, *counts, "--seed", str(args.seed)])
    asking = ["evaluate", "--pairs", str(listed), "--out", str(out), "--method", one.methods, *one.more]
    asking += ["--seed", str(args.seed)]
    if one.profile:
        asking += ["--profile", one.profile]
    if one.config:
        settings = folder / f"{name}.yaml"
        settings.write_text(one.config)
        asking += ["--config", str(settings)]
    run(asking, args.workers if args.full else 1)
    return benchmark.rows(out)


def run(command: list[str], processes: int = 1) -> None:
    """Run a command of pose_bridge, and end with it if it fails."""
    spread = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    line = [*(spread if processes > 1 else []), "-m", "pose_bridge.cli.main", *command]
    if subprocess.run([sys.executable, *line], stdout=sys.stderr, check=False).returncode:
        sys.exit(f"pose_bridge {command[0]} ended as said above; ask again, or elsewhere with --runs")


def rotation_deg(rows: list[Row], method: str) -> Array:
    """Return a method's rotation errors, NaN without an answer."""
    return column(of_one_place(rows), method).errors.rotation_deg


def of_places(rows: list[Row]) -> list[str]:
    """Return what each pair of one place is drawn anew by, for an interval."""
    _, group = groups(rows)
    return [group(row) for row in of_one_place(rows)]


def median(name: str, rows: list[Row], method: str, wanted: str, seed: int) -> dict[str, Any]:
    """A method's median rotation error of all pairs; without an answer it is off by half a turn."""
    errors = np.nan_to_num(rotation_deg(rows, method), nan=HALF_TURN)
    return report.quantile(name, errors, of_places(rows), 0.5, wanted, seed)


def gain(name: str, rows: list[Row], wanted: str, seed: int) -> dict[str, Any]:
    """By which share of the two views' mean rotation error D_total's is smaller.

    Where videos give no answer, that of the two views is what there is; without that it is half a turn off.
    """
    alone = np.nan_to_num(rotation_deg(rows, "pair"), nan=HALF_TURN)
    videos = rotation_deg(rows, "d_total")
    errors = np.stack([alone, np.where(np.isnan(videos), alone, videos)], axis=1)

    def smaller(sample: Array) -> float:
        mean = sample.mean(axis=0)
        return float(1.0 - mean[1] / mean[0])

    return report.statistic(name, errors, of_places(rows), smaller, wanted, seed)


def table(found: dict[str, Any]) -> dict[str, Any]:
    """InterPose's Table 1: of each method, with intervals, and less the two views alone."""
    less = found["differences"]
    return {
        method: {name: numbers[name] for name in COLUMNS} | {"less the pair": less.get(method, {})}
        for method, numbers in found["methods"].items()
    }


def main() -> None:
    """Ask, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="everything, not a sample; takes hours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("build/mini"))
    parser.add_argument("--workers", type=int, default=farm.CORES, help="processes of --full")
    parser.add_argument(
        "--answers", metavar="COMMIT", default=report.commit(), help="go on with those of another commit"
    )
    args = parser.parse_args()
    folder = args.runs / f"{'full' if args.full else 'sample'}-{args.answers}-{args.seed}"
    kept = ANSWERS / f"mini-{folder.name}.tar.xz"
    if not folder.exists() and kept.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.unpack_archive(kept, part)
        part.rename(folder)  # whole or not at all
    elif not folder.exists() and args.answers != report.commit():
        parser.error(f"no answers of {args.answers}: neither {kept} nor {folder} exists")
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for number, name in enumerate(EVALUATIONS):
        report.progress(number, len(EVALUATIONS), name)
        rows[name] = rows_of(name, folder, args)
    report.progress(len(EVALUATIONS), len(EVALUATIONS), "")
    found = {
        name: summary(some, EVALUATIONS[name].methods.split(","), args.seed) for name, some in rows.items()
    }
    strangers = found["places"]["other_places"]["context"]
    report.finish(
        "mini",
        args.seed,
        {
            "answers_of_commit": args.answers,
            "extreme": table(found["extreme"]),
            "extreme-wide": table(found["extreme-wide"]),
            "hypotheses": found["promoted"]["hypotheses"]["generated"],
            "hypotheses, other places": found["promoted"]["other_places"]["generated"],
            "other_places": strangers,
            "decisions": found["places"]["decisions"],
        },
        [
            median("neighbours_median_rotation_deg", rows["neighbours"], "pair", "<= 3.0", args.seed),
            median("true_frames_median_rotation_deg", rows["extreme"], "true-frames", "<= 5.0", args.seed),
            gain("generated_rotation_gain", rows["extreme"], ">= 0.15", args.seed),
            gain("generated_rotation_gain_wide", rows["extreme-wide"], "", args.seed),
            report.known("false_accepts", strangers["share accepted"], strangers["pairs"], "<= 0.001"),
            report.known("recall_at_default", strangers["recall"], found["places"]["pairs"], ""),
        ],
    )


if __name__ == "__main__":
    main()
