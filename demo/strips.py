# SPDX-License-Identifier: Apache-2.0
"""The figure of `make demo-mini`: videos as strips, and where their parts have the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pose_bridge import generated
from pose_bridge.geometry.arrays import Array
from pose_bridge.views import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mini import Bridged

SIZE_IN, DPI = (13.0, 5.1), 130
FRAME_PX = (120, 90)
ARROW = 0.28  # length of a looking direction, by the baseline


def draw(found: Bridged, path: Path) -> None:
    """Draw the true way and each video as strips, and beside them the poses from above."""
    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    rows = [("true views between", found.true_views)]
    for number, video in enumerate(found.videos):
        total_deg = found.choice.d_total_deg[number]
        believed = ": believed" if number == found.choice.video else ""
        rows.append((f"video {number + 1}, $D_{{total}}$ {total_deg:.0f}°{believed}", list(video.views)))
    grid = figure.add_gridspec(len(rows), 2, width_ratios=[1.7, 1.0])
    ends = found.question.reference, found.question.target
    for number, (text, views) in enumerate(rows):
        axes = figure.add_subplot(grid[number, 0])
        axes.imshow(_strip([ends[0], *views, ends[1]]))
        axes.set_title(text, fontsize=9, loc="left", color="black" if number == 0 else f"C{number - 1}")
        axes.set_axis_off()
    _above(figure.add_subplot(grid[:, 1]), found)
    figure.savefig(path)


def _strip(views: Sequence[View]) -> np.ndarray:
    frames = []
    for index, view in enumerate(views):
        frame = cv2.resize(view.image, FRAME_PX, interpolation=cv2.INTER_AREA)
        if index in (0, len(views) - 1):  # given, not made
            frame = cv2.copyMakeBorder(frame[4:-4, 4:-4], 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        frames.append(frame)
    return np.hstack(frames)


def _above(axes: Axes, found: Bridged) -> None:
    """Poses seen from above, x to the right and z ahead of the reference, the baseline being 1."""
    for number, poses in enumerate(found.poses):
        for T in poses:
            _camera(axes, T, f"C{number}", alpha=0.35, width=1.0)
        chosen = number == found.choice.video
        label = f"video {number + 1}" + (" (believed)" if chosen else "")
        _camera(axes, found.choice.medoids[number], f"C{number}", width=4.0 if chosen else 2.0, label=label)
    _camera(axes, found.T_pair, "0.5", width=2.5, label="the two views alone")
    _camera(axes, generated.to_unit(found.T_true), "black", width=2.5, label="truth")
    _camera(axes, np.eye(4), "black", width=1.2)
    axes.annotate("reference", (0.0, -0.08), ha="center", va="top", fontsize=9)
    axes.set(aspect="equal", xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), xticks=[], yticks=[])
    axes.set_title("where the target is, and where it looks, from above", fontsize=10)
    axes.legend(loc="lower center", ncols=2, fontsize=8, frameon=False)


def _camera(
    axes: Axes, T: Array, colour: str, *, width: float, alpha: float = 1.0, label: str | None = None
) -> None:
    (x, _, z), (dx, _, dz) = T[:3, 3], T[:3, 2] * ARROW
    axes.plot([x, x + dx], [z, z + dz], color=colour, alpha=alpha, linewidth=width, label=label)
    axes.plot([x], [z], "o", color=colour, alpha=alpha, markersize=2.0 + 1.2 * width)
