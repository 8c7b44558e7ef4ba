# SPDX-License-Identifier: Apache-2.0
"""An answer as a picture: the two views, what links them, and where the cameras stand."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.cli import words
from pose_bridge.errors import BadInputError, StorageError
from pose_bridge.geometry.arrays import Array
from pose_bridge.views import Answer, Evidence, Question, Translation, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = {".png", ".pdf", ".svg", ".jpg", ".jpeg"}
_REFERENCE, _TARGET, _CONTEXT = "#1f5fa8", "#c8352b", "#9a9a9a"
_DPI = 150
_PICTURES_WIDTH_IN, _MAP_WIDTH_IN = 6.6, 5.4
_HEIGHT_IN = (4.6, 10.0)
_LEGEND_BELOW_IN = 0.42
_MAX_LINES = 60
_GAP = 1.02  # where the right picture begins, in widths of the left one
_MAX_SIDE_PX = 900
_SHOWN_SIGMAS = 2.0
_FRUSTUM = 0.13  # depth, as a part of the map's extent


def check_writable(path: Path) -> None:
    """Check, before anything is computed, that a figure can be written.

    Raises:
        StorageError: There is no such folder, or it may not be written to.
        BadInputError: The file's ending names no picture.
    """
    if path.suffix.lower() not in _FORMATS:
        raise BadInputError(f"--figure {path}: the ending must be one of {', '.join(sorted(_FORMATS))}")
    if not path.parent.is_dir():
        raise StorageError(f"--figure {path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StorageError(f"--figure {path}: cannot be written; choose another folder or name")


def draw(question: Question, answer: Answer, path: Path) -> None:
    """Draw an answer into a file.

    Raises:
        StorageError: It cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(
        {"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9.5, "axes.linewidth": 0.6}
    ):
        figure = Figure(figsize=_size_in(question, answer), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        _compose(figure, question, answer)
        try:
            figure.savefig(path)
        except OSError as error:
            raise StorageError(
                f"cannot write {path} ({error.strerror}); free the disk, or choose another folder"
            ) from error


def _compose(figure: Figure, question: Question, answer: Answer) -> None:
    halves = figure.subfigures(1, 2, squeeze=False, width_ratios=(_PICTURES_WIDTH_IN, _MAP_WIDTH_IN))
    pictures, right = halves[0]
    pairs = _pairs(question, answer)
    shares = {"height_ratios": [_share(pair) for pair in pairs]}
    rows = pictures.subplots(len(pairs), 1, squeeze=False, gridspec_kw=shares)[:, 0]
    for axes, pair in zip(rows, pairs, strict=True):
        _draw_pair(axes, pair, ends=(question.reference.id, question.target.id))
    if answer.evidence is not None and _bridging(question, answer.evidence) == pairs[-1]:
        _draw_links(rows[-1], pairs[-1], answer.evidence)
    axes = right.subplots()
    if words.has_pose(answer):
        _draw_map(figure, axes, question, answer)
    else:
        _draw_reason(axes, question, answer)


def _pairs(question: Question, answer: Answer) -> list[tuple[View, View]]:
    """Return the pairs that are shown below each other: the ends, and the two views that bridge them."""
    ends = (question.reference, question.target)
    bridging = None if answer.evidence is None else _bridging(question, answer.evidence)
    return [ends] if bridging in (None, ends) else [ends, bridging]


def _bridging(question: Question, evidence: Evidence) -> tuple[View, View] | None:
    views = {view.id: view for view in _views(question)}
    left, right = views.get(evidence.reference_view_id), views.get(evidence.target_view_id)
    return None if left is None or right is None else (left, right)


def _share(pair: tuple[View, View]) -> float:
    """Height over width of two pictures beside each other."""
    return 1.0 / sum(view.camera.width / view.camera.height for view in pair)


def _size_in(question: Question, answer: Answer) -> tuple[float, float]:
    height_in = sum(_share(pair) * _PICTURES_WIDTH_IN + 0.5 for pair in _pairs(question, answer))
    return _PICTURES_WIDTH_IN + _MAP_WIDTH_IN, float(np.clip(height_in, *_HEIGHT_IN))


def _views(question: Question) -> Iterator[View]:
    yield from (question.reference, question.target, *question.reference_context, *question.target_context)


def _draw_pair(axes: Axes, pair: tuple[View, View], ends: tuple[str, str]) -> None:
    """Draw two pictures beside each other, at the height of the left one, with their names above."""
    T_axes_right = _right_place(pair)
    for view, end, (scale, offset) in zip(pair, ends, ((1.0, 0.0), T_axes_right), strict=True):
        width, height = view.camera.width * scale, view.camera.height * scale
        axes.imshow(
            _small(view.image), extent=(offset, offset + width, height, 0), interpolation="antialiased"
        )
        side, colour = ("Reference: ", _REFERENCE) if view is pair[0] else ("Target: ", _TARGET)
        axes.annotate(
            (side if view.id == end else "") + _short(view.id),
            (offset + width / 2.0, 0.0),
            (0.0, 4.0),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=colour,
        )
    axes.set_xlim(0.0, offset + width)
    axes.set_ylim(height, 0.0)
    axes.set_axis_off()


def _right_place(pair: tuple[View, View]) -> tuple[float, float]:
    """Return the scale and the offset, px of the left picture, at which the right one is drawn."""
    left, right = pair
    return left.camera.height / right.camera.height, left.camera.width * _GAP


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _MAX_SIDE_PX / max(image.shape[:2])
    if scale >= 1.0:
        return image
    # matplotlib would hold every pixel in memory as four floats
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _draw_links(axes: Axes, pair: tuple[View, View], evidence: Evidence) -> None:
    """Draw lines between what both views see, and how many there are below."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    scale, offset = _right_place(pair)
    starts, ends = evidence.reference_points_px, evidence.target_points_px * scale + (offset, 0.0)
    # Evenly over the height of the picture, so that a few lines stand for all.
    order = np.argsort(starts[:, 1], kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(_MAX_LINES, len(order))).astype(int))]
    if len(shown):
        colours = colormaps["turbo"](np.linspace(0.05, 0.95, len(shown)))
        lines = np.stack([starts[shown], ends[shown]], axis=1)
        axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=0.55, alpha=0.8))
        for points in (starts[shown], ends[shown]):
            axes.scatter(
                points[:, 0], points[:, 1], s=7, c=colours, edgecolors="white", linewidths=0.3, zorder=3
            )
    count = f"{evidence.tracks} tracks link the two sides"
    if len(shown) < evidence.tracks:
        count += f"; {len(shown)} are shown"
    axes.annotate(count, (0.5, 0.0), (0.0, -5.0), "axes fraction", "offset points", ha="center", va="top")


def _draw_reason(axes: Axes, question: Question, answer: Answer) -> None:
    axes.set_axis_off()
    headline = _filled(words.headline(answer, question.require), 40)
    axes.text(
        0.05,
        0.56,
        headline,
        va="bottom",
        fontsize=13,
        weight="bold",
        linespacing=1.3,
        transform=axes.transAxes,
    )
    paragraphs = [answer.reason_text[:1].upper() + answer.reason_text[1:]]
    if helps := words.advice(answer, question.require):
        paragraphs.append(f"What would help: {helps}.")
    text = "\n\n".join(_filled(paragraph, 52) for paragraph in paragraphs if paragraph)
    axes.text(0.05, 0.53, text, va="top", fontsize=10.5, linespacing=1.4, transform=axes.transAxes)


def _draw_map(figure: Figure, axes: Axes, question: Question, answer: Answer) -> None:
    """Draw the cameras from above: x is the reference camera's right, y its forward."""
    from matplotlib.patches import Wedge

    cameras = _cameras(question, answer)
    target = cameras[question.target.id][:3, 3]
    centres = np.array([T[[0, 2], 3] for T in cameras.values()])
    extent = max(float(np.ptp(centres, axis=0).max()), 1e-9 if answer.translation else 1.0)
    colours = {question.reference.id: ("reference", _REFERENCE), question.target.id: ("target", _TARGET)}
    names = set()
    for view in sorted(_views(question), key=lambda view: view.id in colours):
        if view.id in cameras:
            name, colour = colours.get(view.id, ("other photographs", _CONTEXT))
            label = None if name in names else name
            names.add(name)
            _draw_camera(axes, view, cameras[view.id], extent * _FRUSTUM, colour, label)
    if answer.translation is not Translation.UNDEFINED:
        bearing_deg = float(np.degrees(np.arctan2(target[2], target[0])))
        half_deg = float(np.degrees(answer.direction_sigma_rad)) * _SHOWN_SIGMAS
        radius = float(np.hypot(target[0], target[2]))
        wedge = Wedge((0.0, 0.0), radius, bearing_deg - half_deg, bearing_deg + half_deg)
        wedge.set(facecolor=_TARGET, alpha=0.18, linewidth=0, label=f"direction ± {_SHOWN_SIGMAS:g} σ")
        axes.add_patch(wedge)
        axes.plot(*zip((0.0, 0.0), target[[0, 2]], strict=True), "--", color="black", linewidth=0.7, zorder=1)
    _finish_map(figure, axes, question, answer, extent)


def _finish_map(figure: Figure, axes: Axes, question: Question, answer: Answer, extent: float) -> None:
    from matplotlib.transforms import ScaledTranslation

    unit = {Translation.METRIC: "m", Translation.DIRECTION: "baseline = 1"}.get(answer.translation)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    if unit is None:
        axes.set(xticks=[], yticks=[])
    axes.set_xlabel("right of the reference" + (f" ({unit})" if unit else ""))
    axes.set_ylabel("in front of the reference" + (f" ({unit})" if unit else ""))
    axes.grid(color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    title = _filled(words.headline(answer, question.require), 58)
    if np.isfinite(answer.probability):
        title += f"\n{answer.status.name.capitalize()} on the {answer.stage.name.lower()} rung,"
        title += f" probability {answer.probability:.2f}"
    axes.set_title(
        f"{title}\n\nCameras from above, in the reference camera's axes", loc="left", linespacing=1.35
    )
    below = ScaledTranslation(0.0, -_LEGEND_BELOW_IN, figure.dpi_scale_trans)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=axes.transAxes + below,
        ncol=4,
        frameon=False,
        columnspacing=1.2,
        handletextpad=0.4,
        handlelength=1.1,
    )


def _draw_camera(axes: Axes, view: View, T: Array, depth: float, colour: str, label: str | None) -> None:
    """Draw where a camera stands and what it looks at, as a triangle."""
    half_width = depth * view.camera.width / (2.0 * view.camera.K[0, 0])
    corners_camera = np.array([[0.0, 0.0, 0.0], [-half_width, 0.0, depth], [half_width, 0.0, depth]])
    corners = corners_camera @ T[:3, :3].T + T[:3, 3]
    order = 2 if colour == _CONTEXT else 3
    axes.fill(corners[:, 0], corners[:, 2], facecolor=colour, alpha=0.35, linewidth=0, zorder=order)
    outline = np.vstack([corners, corners[:1]])
    axes.plot(outline[:, 0], outline[:, 2], color=colour, linewidth=1.0, zorder=order)
    axes.plot(T[0, 3], T[2, 3], "o", color=colour, markersize=3.5, zorder=order, label=label)


def _cameras(question: Question, answer: Answer) -> dict[str, Array]:
    """Return T_reference_camera by view: in metres, in baselines, or of the ends alone, at one place."""
    T_reference_target = np.eye(4)
    T_reference_target[:3, :3] = answer.rotation
    ends = {question.reference.id: np.eye(4), question.target.id: T_reference_target}
    if answer.translation is Translation.UNDEFINED:
        return ends
    metric = answer.translation is Translation.METRIC
    T_reference_target[:3, 3] = answer.T_reference_target[:3, 3] if metric else answer.direction
    cameras = {name: T.copy() for name, T in answer.cameras.items()}
    if not metric and question.target.id in cameras:
        baseline = float(np.linalg.norm(cameras[question.target.id][:3, 3]))
        for T in cameras.values():
            T[:3, 3] /= baseline
        return {**cameras, **ends}
    return {**cameras, **ends} if metric else ends


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


def _short(name: str, length: int = 34) -> str:
    return name if len(name) <= length else "…" + name[1 - length :]
