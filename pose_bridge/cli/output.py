# SPDX-License-Identifier: Apache-2.0
"""An answer on stdout: for people, or as one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from pose_bridge.cli import words
from pose_bridge.errors import ErrorCode
from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.views import Answer, Evidence, Question, Translation


def print_json(question: Question, answer: Answer) -> None:
    """Print one JSON object; numbers that are not meant to be used are null."""
    typer.echo(json.dumps(to_dict(question, answer), allow_nan=False))


def to_dict(question: Question, answer: Answer) -> dict[str, Any]:
    """Return an answer as plain values."""
    posed, known = words.has_pose(answer), answer.translation
    directed = posed and known is not Translation.UNDEFINED
    metric = posed and known is Translation.METRIC
    return {
        "status": answer.status.name,
        "reason": answer.reason.name,
        "reason_text": answer.reason_text,
        "error_code": int(ErrorCode.NONE),
        "reference_id": question.reference.id,
        "target_id": question.target.id,
        "require": question.require.name,
        "stage": answer.stage.name,
        "probability": _number(answer.probability),
        "translation": known.name,
        "rotation": _rotation(answer.rotation) if posed else None,
        "rotation_covariance_rad2": answer.rotation_covariance_rad2.tolist() if posed else None,
        "direction": answer.direction.tolist() if directed else None,
        "direction_sigma_deg": _number(math.degrees(answer.direction_sigma_rad)) if directed else None,
        "position_m": answer.T_reference_target[:3, 3].tolist() if metric else None,
        "covariance": answer.covariance.tolist() if metric else None,
        "scale_source": answer.scale_source.name,
        "scale_sigma": _number(answer.scale_sigma),
        "estimator": answer.estimator,
        "generator": answer.generator,
        "real_frames": answer.real_frames,
        "generated_frames": answer.generated_frames,
        "agreeing": answer.agreeing,
        "evidence": None if answer.evidence is None else _evidence(answer.evidence),
        "cameras": {name: T.tolist() for name, T in answer.cameras.items()},
        "cameras_unit": "m" if metric else "up_to_scale",
        "elapsed_s": _number(answer.elapsed_s),
    }


def print_for_people(question: Question, answer: Answer) -> None:
    """Print a sentence, what would help if the answer is no, and a small table."""
    console = Console(highlight=False)
    style = "bold green" if answer.meets(question.require) else "bold yellow"
    console.print(words.headline(answer, question.require), style=style, markup=False)
    if answer.reason_text and not answer.meets(question.require):
        console.print(f"Reason: {answer.reason.name}, {answer.reason_text}", markup=False)
    if helps := words.advice(answer, question.require):
        console.print(f"What would help: {helps}.", markup=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _rows(question, answer):
        table.add_row(name, value)
    console.print()
    console.print(table)


def _rows(question: Question, answer: Answer) -> Iterator[tuple[str, str]]:
    yield "from, to", f"{question.reference.id}, {question.target.id}"
    yield "status", answer.status.name
    if words.has_pose(answer):
        axis = _vector(words.rotation_axis(answer))
        yield "rotation", f"{words.rotation_deg(answer):.2f}° about {axis} (right, down, forward)"
        yield "quaternion xyzw", _vector(rotations.quat_xyzw_from_rotation(answer.rotation), 5)
        if answer.translation is not Translation.UNDEFINED:
            sigma_deg = math.degrees(answer.direction_sigma_rad)
            yield "direction", f"{_vector(answer.direction)} ± {sigma_deg:.2f}°"
        if answer.translation is Translation.METRIC:
            yield "position, m", _vector(answer.T_reference_target[:3, 3])
    if math.isfinite(answer.probability):
        yield "probability", f"{answer.probability:.3f}"
    if answer.evidence is not None:
        yield "tracks that link", str(answer.evidence.tracks)
    yield "rung", answer.stage.name.lower()
    if answer.real_frames:
        yield "photographs used", str(answer.real_frames)
    if answer.generated_frames:
        yield "generated views", f"{answer.generated_frames}, by {answer.generator}"
    if answer.agreeing:
        yield "guesses that agree", str(answer.agreeing)
    if math.isfinite(answer.elapsed_s):
        yield "time", f"{answer.elapsed_s:.1f} s"


def _vector(values: Array, digits: int = 3) -> str:
    return "(" + ", ".join(f"{value:.{digits}f}" for value in values) + ")"


def _rotation(R: Array) -> dict[str, Any]:
    return {"matrix": R.tolist(), "quat_xyzw": rotations.quat_xyzw_from_rotation(R).tolist()}


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "tracks": int(evidence.tracks),
        "features": {name: _number(value) for name, value in evidence.features.items()},
        "reference_view_id": evidence.reference_view_id,
        "target_view_id": evidence.target_view_id,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
