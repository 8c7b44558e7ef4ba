# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge pairs`: which pairs of a data set are asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from pose_bridge.cli.failures import ExitCode, reported
from pose_bridge.errors import StorageError
from pose_bridge.evaluation.datasets import pairs as drawing
from pose_bridge.evaluation.datasets.layouts import LAYOUTS, opened
from pose_bridge.evaluation.datasets.pairs import PAPERS, PairList, PairRule

ANY_YAW_DEG, ANY_COUNT = (50.0, 90.0), 300


def pairs(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="LAYOUT:FOLDER",
            help=f"Layouts: {', '.join(LAYOUTS)}; simulator:test needs no files.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Write the list there.")],
    yaw: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="FROM TO", help="Turn about the vertical, degrees.", show_default="as the papers"
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="At most so many pairs.", show_default="as the papers")
    ] = None,
    per_scene: Annotated[
        int | None,
        typer.Option(
            min=0, help="So many of a scene, then the next; 0: in turns.", show_default="as the papers"
        ),
    ] = None,
    context: Annotated[
        int, typer.Option(min=0, help="Views before and after either end that belong to its side.")
    ] = 0,
    elsewhere: Annotated[
        int, typer.Option(min=0, help="So many more whose target is of another place that looks alike.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Draw pairs of a data set within a range of yaw, as InterPose and those after it do, and save the list.

    The same folder, rule and seed give the same list. Layouts that the papers use have their rules for
    defaults, others 50 to 90 degrees and 300 pairs.
    """
    with reported():
        if output.exists() and not force:
            raise StorageError(f"{output} exists; add --force to overwrite it")
        known = PAPERS.get(dataset.partition(":")[0], PairRule(yaw_deg=ANY_YAW_DEG, count=ANY_COUNT))
        rule = PairRule(
            yaw_deg=known.yaw_deg if yaw is None else yaw,
            count=known.count if count is None else count,
            per_scene=known.per_scene if per_scene is None else per_scene,
            context=context,
            elsewhere=elsewhere,
            seed=seed,
        )
        drawn = track(
            drawing.draw(opened(dataset), rule),
            "drawing pairs",
            total=rule.count + rule.elsewhere,
            console=Console(stderr=True),
            transient=True,
        )
        found = PairList(dataset=dataset, rule=rule, pairs=tuple(drawn))
        low, high = rule.yaw_deg
        if not found.pairs:
            typer.echo(f"no two views of any scene are turned by {low:g} to {high:g} degrees", err=True)
            raise typer.Exit(ExitCode.NO_POSE)
        drawing.save(output, found)
        scenes = len({pair.scene for pair in found.pairs})
        wanted = rule.count + rule.elsewhere
        fewer = "" if len(found.pairs) == wanted else f", {wanted} were asked for"
        of = "one scene" if scenes == 1 else f"{scenes} scenes"
        typer.echo(f"{output}: {len(found.pairs)} pairs of {of}{fewer}", err=True)
