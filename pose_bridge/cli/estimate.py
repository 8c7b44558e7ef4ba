# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge estimate`."""

from __future__ import annotations

import dataclasses
import logging
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pose_bridge import models
from pose_bridge.cli import config as settings
from pose_bridge.cli import figure as figures
from pose_bridge.cli import output
from pose_bridge.cli.failures import ExitCode, reported
from pose_bridge.cli.waiting import wait_for
from pose_bridge.config import Config
from pose_bridge.errors import BadInputError
from pose_bridge.photographs import Side, Sides, read_cameras, read_sides
from pose_bridge.views import Question, Require, Stage


class Requirement(str, Enum):
    """How much is asked for, as a word on the command line."""

    ROTATION = "rotation"
    DIRECTION = "direction"
    METRIC = "metric"


class Rung(str, Enum):
    """The highest rung, as a word on the command line."""

    DIRECT = "direct"
    REGISTER = "register"
    CONTEXT = "context"


class Poses(str, Enum):
    """The sides whose poses are used, as a word on the command line."""

    NONE = "none"
    REFERENCE = "reference"
    BOTH = "both"


_POSED: dict[Poses, frozenset[Side]] = {
    Poses.NONE: frozenset(),
    Poses.REFERENCE: frozenset({Side.REFERENCE}),
    Poses.BOTH: frozenset(Side),
}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Question)}
_CONFIG = Config()


def estimate(
    reference: Annotated[Path, typer.Argument(help="Photograph of the reference view.")],
    target: Annotated[Path, typer.Argument(help="Photograph of the target view.")],
    cameras: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="cameras.json: size, K and distortion of the photographs."),
    ] = None,
    focal_px: Annotated[
        float | None,
        typer.Option(metavar="PX", help="Focal length of all photographs instead. Neither: EXIF's."),
    ] = None,
    reference_context: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Photographs around the reference; quoted, may be repeated."),
    ] = None,
    target_context: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Photographs around the target, likewise.")
    ] = None,
    require: Annotated[
        Requirement | None,
        typer.Option(help="How much must be known.", show_default=Require(_DEFAULTS["require"]).name.lower()),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="S", help="Seconds that it may take.", show_default=f"{_CONFIG.bridge.budget_s:g}"
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Answers less sure than this are rejected.",
            show_default=f"{_CONFIG.verification.min_probability:g}",
        ),
    ] = None,
    max_stage: Annotated[
        Rung | None,
        typer.Option(help="Highest rung to use.", show_default=Stage(_DEFAULTS["max_stage"]).name.lower()),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of what is random.", show_default=str(_DEFAULTS["seed"])),
    ] = None,
    poses: Annotated[
        Poses,
        typer.Option(
            help="Sides whose T_world_camera in the cameras.json are used as odometry: they must be metric."
        ),
    ] = Poses.NONE,
    config: settings.File = None,
    profile: settings.Profile = "real",
    hypothesis: Annotated[
        bool,
        typer.Option(
            "--hypothesis", help="Also say what a profile's models alone suggest: somewhere to look, no pose."
        ),
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the answer: .png, .pdf, .svg or .jpg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log, and show where errors arose.")] = False,
) -> None:
    """Say where the target camera is, seen from the reference camera, or why that cannot be told.

    Exit codes: 0 known, as much as was required; 1 not known; 2 an error (a line on stderr); 130 Ctrl-C.
    """
    with reported(as_json=as_json, verbose=verbose):
        if verbose:
            logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s: %(message)s")
            logging.getLogger("PIL").setLevel(logging.INFO)
            logging.getLogger("matplotlib").setLevel(logging.INFO)
        loaded = settings.load(config, profile)
        models.check(loaded)
        if figure is not None:
            figures.check_writable(figure)
        sides = _sides(
            reference, target, reference_context or [], target_context or [], cameras, focal_px, poses
        )
        question = _question(sides, require, max_stage, budget, min_probability, seed)
        question = dataclasses.replace(question, allow_hypothesis=hypothesis)

        from pose_bridge.bridge import Bridge  # here, because --help need not wait for its libraries

        bridge = Bridge(loaded)
        budget_s = loaded.bridge.budget_s if question.budget_s is None else question.budget_s
        answer = wait_for(lambda control: bridge.answer(question, control), budget_s)
        if not as_json:  # before the figure, which may fail
            output.print_for_people(question, answer)
        if figure is not None:
            figures.draw(question, answer, figure)
        if as_json:  # after the figure, because an error is the one JSON object then
            output.print_json(question, answer)
        raise typer.Exit(ExitCode.OK if answer.meets(question.require) else ExitCode.NO_POSE)


def _sides(
    reference: Path,
    target: Path,
    reference_context: list[str],
    target_context: list[str],
    cameras: Path | None,
    focal_px: float | None,
    poses: Poses,
) -> Sides:
    if poses is not Poses.NONE and cameras is None:
        raise BadInputError(f"--poses {poses.value} needs a cameras.json with poses; add --cameras")
    return read_sides(
        reference,
        target,
        reference_context,
        target_context,
        calibration=None if cameras is None else read_cameras(cameras),
        focal_px=focal_px,
        posed=_POSED[poses],
    )


def _question(
    sides: Sides,
    require: Requirement | None,
    max_stage: Rung | None,
    budget_s: float | None,
    min_probability: float | None,
    seed: int | None,
) -> Question:
    question = Question(
        reference=sides.reference,
        target=sides.target,
        reference_context=sides.reference_context,
        target_context=sides.target_context,
        budget_s=budget_s,
        min_probability=min_probability,
    )
    if require is not None:
        question = dataclasses.replace(question, require=Require[require.name])
    if max_stage is not None:
        question = dataclasses.replace(question, max_stage=Stage[max_stage.name])
    if seed is not None:
        question = dataclasses.replace(question, seed=seed)
    return question
