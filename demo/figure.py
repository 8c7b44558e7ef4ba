# SPDX-License-Identifier: Apache-2.0
"""The demo as a picture: the room from above, the map, where the robot was and where it was said to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Ellipse

from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.simulation.furnished import Room

if TYPE_CHECKING:
    from found import Found
    from witness import Witness

# Okabe and Ito's colours, which everybody can tell apart
MAPPED, WAY, TRUTH, ANSWER = "#0072B2", "#B07500", "#000000", "#D55E00"
ABOVE_M = 60.0
PX_PER_M = 160
MARGIN_M = 0.2
PALE = 0.45  # share of white in the room, so that what is drawn on it stands out
SIGMAS_95 = 5.991**0.5  # of two degrees of freedom
ARROW_M = 0.3
DPI = 150


def draw(
    found: Found,
    keyframes: Sequence[Keyframe],
    witness: Witness,
    kidnapped_ns: tuple[int, int],
    path: Path,
    room: Room,
) -> None:
    """Draw into a file.

    Args:
        found: The answer beside the truth.
        keyframes: Of the map.
        witness: Has the way and the pictures.
        kidnapped_ns: Stamps between which the robot was in the room that it had mapped.
        path: Of the file.
        room: That room.
    """
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10}):
        sheet = Figure(figsize=(10.0, 9.2), dpi=DPI, layout="constrained")
        FigureCanvasAgg(sheet)
        above, below = sheet.subfigures(2, 1, height_ratios=(5.6, 4.0))
        grid = above.add_gridspec(2, 2, width_ratios=(2.1, 1.0), height_ratios=(1.0, 0.75))
        chart = above.add_subplot(grid[:, 0])
        side, words = (above.add_subplot(grid[row, 1]) for row in (0, 1))
        since_ns, until_ns = kidnapped_ns
        way = [T for stamp_ns, T in sorted(witness.truth.items()) if since_ns < stamp_ns <= until_ns]
        _draw_room(chart, room)
        _draw_map(chart, keyframes)
        _draw_way(chart, way)
        _draw_answer(chart, found)
        _finish(chart, room)
        _draw_close_up(side, found)
        _write(words, chart, found)
        strips = [image for stamp_ns, image in witness.strips.items() if since_ns < stamp_ns <= until_ns]
        if strips:
            _draw_strip(below, strips[-1])
        else:
            _draw_ends(below, found, keyframes, witness)
        sheet.savefig(path)


def _draw_room(axes: Axes, room: Room) -> None:
    """What a camera far above sees; the ceiling is seen from inside only."""
    width_m, depth_m, _ = room.size_m + 2.0 * MARGIN_M
    size = (round(width_m * PX_PER_M), round(depth_m * PX_PER_M))
    camera = Camera.from_focal_px(PX_PER_M * ABOVE_M, *size)
    R_world_camera = np.diag([1.0, -1.0, -1.0])
    eye = [room.size_m[0] / 2.0, room.size_m[1] / 2.0, ABOVE_M]
    picture = room.picture(rigid.make(R_world_camera, eye), camera)
    grey = picture.image.astype(float) @ (0.3, 0.6, 0.1)
    pale = np.where(np.isfinite(picture.depth_m), PALE * 255.0 + (1.0 - PALE) * grey, 255.0)
    extent = (-MARGIN_M, room.size_m[0] + MARGIN_M, -MARGIN_M, room.size_m[1] + MARGIN_M)
    axes.imshow(pale, cmap="gray", vmin=0.0, vmax=255.0, extent=extent, interpolation="antialiased")


def _draw_map(axes: Axes, keyframes: Sequence[Keyframe]) -> None:
    for index, keyframe in enumerate(keyframes):
        label = f"{len(keyframes)} keyframes of the map" if index == 0 else None
        _draw_robot(axes, keyframe.T_map_base, MAPPED, label, size=4.5, alpha=0.8)


def _draw_way(axes: Axes, way: Sequence[np.ndarray]) -> None:
    places = np.array([T[:2, 3] for T in way])
    axes.plot(
        places[:, 0], places[:, 1], color=WAY, linewidth=2.2, label="way after the kidnapping", zorder=3
    )
    axes.plot(
        *places[0], "s", mfc="none", mec=WAY, mew=1.8, ms=14, linestyle="", label="set down here", zorder=5
    )


def _draw_answer(axes: Axes, found: Found) -> None:
    _draw_robot(axes, found.T_true, TRUTH, "truth", size=9, alpha=1.0)
    _draw_robot(axes, found.T_answer, ANSWER, "answer, 95 % ellipse", size=6, alpha=1.0)
    _draw_ellipse(axes, found)


def _draw_robot(
    axes: Axes, T_world_base: Any, colour: str, label: str | None, *, size: float, alpha: float
) -> None:
    """A dot, and a line to where it looks."""
    here, ahead = T_world_base[:2, 3], T_world_base[:2, 3] + ARROW_M * T_world_base[:2, 0]
    axes.plot(*zip(here, ahead, strict=True), color=colour, linewidth=0.25 * size, alpha=alpha, zorder=4)
    axes.plot(
        *here, "o", color=colour, markersize=size, alpha=alpha, zorder=4, label=label, mec="white", mew=0.5
    )


def _draw_ellipse(axes: Axes, found: Found) -> None:
    variances, axes_of = np.linalg.eigh(found.covariance[:2, :2])
    width, height = 2.0 * SIGMAS_95 * np.sqrt(variances)
    angle = float(np.degrees(np.arctan2(axes_of[1, 0], axes_of[0, 0])))
    place = found.T_answer[:2, 3]
    ellipse = Ellipse(
        place, width, height, angle=angle, facecolor=ANSWER, edgecolor=ANSWER, alpha=0.3, zorder=3
    )
    axes.add_patch(ellipse)


def _finish(axes: Axes, room: Room) -> None:
    axes.set_xlim(-MARGIN_M, room.size_m[0] + MARGIN_M)
    axes.set_ylim(-MARGIN_M, room.size_m[1] + MARGIN_M)
    axes.set_aspect("equal")
    axes.set_xlabel("x (m)")
    axes.set_ylabel("y (m)")
    axes.set_title("The room from above: mapped from one side, the robot set down on the other", loc="left")


def _draw_close_up(axes: Axes, found: Found) -> None:
    _draw_answer(axes, found)
    reach_m = max(1.4 * found.error_m, 1.4 * SIGMAS_95 * float(found.sigmas[:2].max()), 0.1)
    x_m, y_m = found.T_answer[:2, 3]
    axes.set_xlim(x_m - reach_m, x_m + reach_m)
    axes.set_ylim(y_m - reach_m, y_m + reach_m)
    axes.set_aspect("equal")
    axes.grid(color="#e0e0e0", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title("Close by", loc="left")


def _write(axes: Axes, chart: Axes, found: Found) -> None:
    """What the colours mean, and what came out."""
    axes.set_axis_off()
    text = (
        f"Off by {100.0 * found.error_m:.1f} cm and {found.error_deg:.1f}°;\n"
        f"{found.stage.name.lower()} rung, probability {found.probability:.2f};\n"
        f"answered after {found.seconds:.1f} s."
    )
    axes.text(0.0, 1.0, text, transform=axes.transAxes, va="top", linespacing=1.5)
    axes.legend(*chart.get_legend_handles_labels(), loc="lower left", borderaxespad=0.0, frameon=False)


def _draw_strip(part: SubFigure, strip: np.ndarray) -> None:
    """The node's own picture of what ties the two together."""
    axes = part.subplots()
    axes.imshow(strip, interpolation="antialiased")
    axes.set_title(
        "What ties the two together: the map's view, and the robot's from the other side", loc="left"
    )
    axes.set_axis_off()


def _draw_ends(part: SubFigure, found: Found, keyframes: Sequence[Keyframe], witness: Witness) -> None:
    named = {keyframe.id: keyframe for keyframe in keyframes}
    left, right = part.subplots(1, 2)
    left.imshow(named[found.keyframe_id].image, interpolation="antialiased")
    left.set_title("The place in the map", color=MAPPED, loc="left")
    right.imshow(witness.pictures[found.stamp_ns], interpolation="antialiased")
    right.set_title("What the robot saw from the other side", color=ANSWER, loc="left")
    for axes in (left, right):
        axes.set_axis_off()
