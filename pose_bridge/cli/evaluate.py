# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge evaluate`: methods side by side on a list of pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pose_bridge.cli import config as settings
from pose_bridge.cli.failures import reported


def evaluate(
    pairs: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The list that `pose_bridge pairs` wrote.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Answers and the report; goes on with what is there.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT:FOLDER", help="Where the photographs are.", show_default="as in the list"
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="With commas: direct, context, pair, true-frames, generated-average, d_med, d_total, "
            "oracle, generated; all but the first two need a profile with models. Differences are to the "
            "first.",
        ),
    ] = "direct,context",
    config: settings.File = None,
    profile: settings.Profile = "real",
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Seconds for an answer of direct or context; models take what they need.",
            show_default="setting",
        ),
    ] = None,
    odometry: Annotated[
        bool,
        typer.Option("--odometry", help="Views of a side know how they lie to each other, as on a robot."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is random.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    """Ask methods about pairs, and write report.md with numbers, intervals, paired differences and figures.

    May be stopped at any time and started again: no pair is lost, or asked twice. `accelerate launch` spreads
    the pairs over processes, and so over GPUs.
    """
    with reported(verbose=verbose):
        from pose_bridge.evaluation import benchmark, processes, report
        from pose_bridge.evaluation.datasets import pairs as lists
        from pose_bridge.evaluation.datasets.layouts import opened
        from pose_bridge.evaluation.methods import Panel

        listed, names = lists.load(pairs), [name.strip() for name in method.split(",")]
        photographs, using = opened(dataset or listed.dataset), settings.load(config, profile)
        if budget is not None:
            using = replace(using, bridge=replace(using.bridge, budget_s=budget))
        share = processes.share()  # first: it says which GPU the models belong on
        panel = Panel(using, names, odometry=odometry)
        if share.index == 0:
            run = benchmark.Run.of(dataset or listed.dataset, listed, names, using, seed, odometry=odometry)
            benchmark.begin(out, run)
        share.wait()
        place = (share.index, share.count)
        own = len(benchmark.waiting(listed, out, place))
        with _progress(quiet=share.index > 0) as progress:
            task = progress.add_task("pairs", total=own)
            for row in benchmark.answer(photographs, listed, panel, out, seed, place):
                progress.update(task, advance=1, description=row.pair.id)
        share.wait()
        if share.index == 0:
            page = report.write(benchmark.rows(out), names, photographs, out, seed)
            typer.echo(f"{page} and its figures are written", err=True)


def _progress(*, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False, quiet=quiet))
