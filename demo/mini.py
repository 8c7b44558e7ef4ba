# SPDX-License-Identifier: Apache-2.0
"""Two views that hardly overlap, bridged by the small models that come with the package: `make demo-mini`.

Nothing real stands between them. ltx-mini makes videos from the one to the other, vggt-mini guesses the pose
from parts of each (of all, to draw them), and what most of the best video's parts say is the hypothesis. The
truth is shown beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from strips import draw

from pose_bridge import generated
from pose_bridge.config import Config
from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError, PoseBridgeError
from pose_bridge.evaluation.datasets.base import Scene
from pose_bridge.evaluation.datasets.simulator import Simulator
from pose_bridge.generated import GeneratedRung, Models
from pose_bridge.generators.base import Generator, Take, Video
from pose_bridge.geometry import distances
from pose_bridge.geometry.arrays import Array
from pose_bridge.models import configured, profile
from pose_bridge.selection import consensus
from pose_bridge.selection.consensus import Choice
from pose_bridge.views import Answer, Question, View

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "demo-mini"
SPLIT, SCENE = "validation", "house092/room0/centred3"
REFERENCE, TARGET = "16", "02"  # a pair that comes out well


class Recorded:
    """A generator that keeps its videos.

    Args:
        generator: That makes them.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator, self.name = generator, generator.name
        self.videos: list[Video] = []

    @property
    def prompts(self) -> tuple[str, ...]:
        """See `Generator`."""
        return self._generator.prompts

    def video(self, reference: View, target: View, take: Take, control: Control) -> Video:
        """See `Generator`."""
        self.videos.append(self._generator.video(reference, target, take, control))
        return self.videos[-1]


@dataclass(frozen=True, eq=False)
class Bridged:
    """All that was made of a pair.

    Attributes:
        question: About it.
        true_views: Between the two, as many as a video has.
        T_true: T_reference_target, (4, 4).
        videos: Those without a fault.
        poses: Of each video's parts, with a baseline of 1, (V, parts, 4, 4).
        T_pair: What the two views alone say, likewise.
        choice: Which is believed.
        answer: What the bridge's rung makes of it.
    """

    question: Question
    true_views: list[View]
    T_true: Array
    videos: list[Video]
    poses: list[Array]
    T_pair: Array
    choice: Choice
    answer: Answer


def bridged(
    config: Config, models: Models, scene: Scene, names: tuple[str, str], console: Console
) -> Bridged:
    """Bridge two views of a walk.

    Raises:
        NoEstimateError: There is nothing to draw: no video is without a fault, or the network has no answer,
            or both views were taken in one place.
    """
    T_true = scene.T_reference_target(*names)
    if not distances.has_direction(T_true[:3, 3]):
        raise NoEstimateError(
            "both views were taken in one place, where videos have no way to go; name others"
        )
    reference, target = (scene.frame(name).view() for name in names)
    question = Question(reference=reference, target=target, allow_hypothesis=True)
    control = Control(on_progress=lambda text: console.print(f"[dim]{text}[/]"))
    recorded = Recorded(models.generator)
    rung = GeneratedRung(config, lambda _: Models(recorded, models.guesser))
    answer = rung.answer(question, control)
    for video in recorded.videos:
        if video.fault:
            console.print(f"a video is not looked at: {video.fault}")
    videos = [video for video in recorded.videos if not video.fault]
    if not videos:
        raise NoEstimateError(f"there is nothing to draw: {answer.reason_text}")

    def guessed(sets: Sequence[Sequence[View]]) -> Array:
        guesses = models.guesser.estimate_many(sets, control)
        return np.array([generated.to_unit(guess.T_reference_camera[target.id]) for guess in guesses])

    (T_pair,) = guessed([[reference, target]])
    poses = [guessed(parts) for parts in generated.parts_of(question, videos, config.generated)]
    first, last = (int(name) for name in names)
    between = np.linspace(first, last, config.ltx.num_frames).round().astype(int)[1:-1]
    return Bridged(
        question=question,
        true_views=[scene.frames[index].view() for index in between],
        T_true=T_true,
        videos=videos,
        poses=poses,
        T_pair=T_pair,
        choice=consensus.choose(poses, T_pair),
        answer=answer,
    )


def errors_deg(T: Array, T_true: Array) -> tuple[float, float]:
    """Return by how much rotation and direction are off."""
    rotation = distances.rotation_error_deg(T[:3, :3], T_true[:3, :3])
    return rotation, distances.translation_error_deg(T[:3, 3], T_true[:3, 3])


def table(found: Bridged) -> Table:
    """What the two views and each video say, and which is believed."""
    shown = Table(title="poses, with the truth beside them")
    for name in (
        "from",
        "parts disagree",
        "from the pair's",
        "together",
        "rotation off",
        "direction off",
        "",
    ):
        shown.add_column(name, justify="left" if name in ("from", "") else "right")
    off = errors_deg(found.T_pair, found.T_true)
    shown.add_row("the two views", "", "", "", *(f"{value:.0f}°" for value in off), "")
    choice = found.choice
    for number, T in enumerate(choice.medoids):
        numbers = (choice.d_med_deg[number], choice.d_bias_deg[number], choice.d_total_deg[number])
        cells = [f"{value:.0f}°" for value in (*numbers, *errors_deg(T, found.T_true))]
        shown.add_row(f"video {number + 1}", *cells, "believed" if number == choice.video else "")
    return shown


def summary(found: Bridged, seconds: float) -> dict[str, Any]:
    """The same as JSON."""
    choice = found.choice
    return {
        "status": found.answer.status.name,
        "reason": found.answer.reason_text,
        "believed_video": choice.video + 1,
        "d_total_deg": choice.d_total_deg.tolist(),
        "errors_deg": {
            "pair": errors_deg(found.T_pair, found.T_true),
            "believed": errors_deg(choice.T_reference_target, found.T_true),
        },
        "seconds": round(seconds, 1),
    }


def main() -> int:
    """Bridge two views, print the table, draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", default=SCENE, help=f"of the simulator's {SPLIT} houses")
    parser.add_argument("--views", nargs=2, default=(REFERENCE, TARGET), metavar=("REFERENCE", "TARGET"))
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    console, start_s = Console(), time.monotonic()
    config = configured(profile("mini").settings, {"generated": {"within_deg": 0.0}})  # all parts are asked
    try:
        scene = Simulator(Path(SPLIT)).scene(args.scene)
        found = bridged(config, generated.load(config), scene, tuple(args.views), console)
    except PoseBridgeError as error:
        console.print(f"[red]{error}[/]")
        return 1
    console.print(table(found))
    console.print(f"{found.answer.status.name}: {found.answer.reason_text}")
    args.out.mkdir(parents=True, exist_ok=True)
    draw(found, args.out / "mini.png")
    (args.out / "result.json").write_text(
        json.dumps(summary(found, time.monotonic() - start_s), indent=1) + "\n"
    )
    console.print(f"{args.out / 'mini.png'} shows it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
