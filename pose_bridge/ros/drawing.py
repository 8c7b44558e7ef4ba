# SPDX-License-Identifier: Apache-2.0
"""What RViz shows: keyframes and hypotheses as markers, and the views that bridged as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from pose_bridge.config import FramesConfig
from pose_bridge.geometry import rigid, rotations
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.relocalization import Hypothesis
from pose_bridge.ros import images, poses
from pose_bridge.views import Answer, Evidence, Question, View

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Colour = tuple[float, float, float]

MOST_KEYFRAMES = 1000
MOST_HYPOTHESES = 10
MOST_POINTS = 60

MAPPED, UNMAPPED, HYPOTHESIS = (0.12, 0.38, 0.66), (0.6, 0.6, 0.6), (0.78, 0.21, 0.17)
FAINT = 0.35
FRUSTUM_DEPTH_M = 0.2
EDGES = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])  # of `_corners`
LINE_M = 0.01
ARROW_M = (0.5, 0.08, 0.08)
ELLIPSE_SIGMAS = 2.448  # 95 % of a normal distribution in the plane
LEAST_WIDTH_M = 0.02
TEXT_M = 0.2

STRIP_HEIGHT_PX = 360
LINE_HEIGHT_PX = 22
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.5
WHITE = (255, 255, 255)


def markers(
    keyframes: Sequence[Keyframe], hypotheses: Sequence[Hypothesis], frames: FramesConfig, epoch: int
) -> MarkerArray:
    """Return all that is to be seen from now on; what was shown before goes.

    Args:
        keyframes: Mapped ones stand in the map, others where odometry had them.
        hypotheses: Places where the robot may be, best first.
        frames: Names.
        epoch: Of odometry; where keyframes of another epoch are that are not mapped, nobody knows.
    """
    newest = keyframes[-MOST_KEYFRAMES:]
    mapped = [(k, k.T_map_camera) for k in newest if k.T_map_camera is not None]
    rest = [k for k in newest if k.T_map_base is None and k.epoch == epoch]
    unmapped = [(k, k.T_odom_camera) for k in rest if k.T_odom_camera is not None]
    return MarkerArray(
        markers=[
            Marker(action=Marker.DELETEALL),
            _frusta("mapped", frames.map, mapped, MAPPED),
            _frusta("unmapped", frames.odom, unmapped, UNMAPPED),
            *_places(hypotheses[:MOST_HYPOTHESES], frames.map),
        ]
    )


def strip(question: Question, answer: Answer) -> Image:
    """Return the two views that bridged side by side, with what links them; the two ends if nothing did.

    Stamped as the target is.

    Args:
        question: Holds the views.
        answer: Of any status; what was found is written below.
    """
    evidence = answer.evidence
    left, right = _bridging(question, evidence) or (question.reference, question.target)
    height = min(STRIP_HEIGHT_PX, left.camera.height, right.camera.height)
    canvas = np.hstack([_reduced(view.image, height) for view in (left, right)])
    if evidence is not None and (left.id, right.id) == (evidence.reference_view_id, evidence.target_view_id):
        offset = _width(left, height)
        starts = evidence.reference_points_px * height / left.camera.height
        ends = evidence.target_points_px * height / right.camera.height + (offset, 0.0)
        _draw_links(canvas, starts, ends)
    names = np.hstack([_line(view.id, _width(view, height)) for view in (left, right)])
    canvas = np.vstack([names, canvas, _line(_verdict(answer), canvas.shape[1])])
    message = images.encode(canvas)
    message.header.stamp = poses.to_stamp(question.target.stamp_ns)
    return message


def _frusta(namespace: str, frame: str, placed: Sequence[tuple[Keyframe, Array]], colour: Colour) -> Marker:
    """Return cameras as the outlines of what they see, all in one marker."""
    marker = _marker(namespace, 0, frame, Marker.LINE_LIST, colour)
    marker.scale.x = LINE_M
    lines = [rigid.transform(T, _corners(keyframe))[EDGES].reshape(-1, 3) for keyframe, T in placed]
    # at once: on some platforms each assignment is checked point by point
    marker.points = [_point(end) for end in np.concatenate(lines)] if lines else []
    return marker


def _corners(keyframe: Keyframe) -> Array:
    """Return the camera's centre and the undistorted corners of its picture at some depth, (5, 3)."""
    width, height, K = keyframe.camera.width, keyframe.camera.height, keyframe.camera.K
    px = np.array([[0.0, 0.0, 1.0], [width, 0.0, 1.0], [width, height, 1.0], [0.0, height, 1.0]])
    rim = px @ np.linalg.inv(K).T * FRUSTUM_DEPTH_M
    return np.vstack([np.zeros(3), rim])


def _places(hypotheses: Sequence[Hypothesis], frame: str) -> Iterator[Marker]:
    """Yield an arrow, an ellipse on the floor and a text for each place; the best one is opaque."""
    for number, hypothesis in enumerate(hypotheses):
        alpha = 1.0 if number == 0 else FAINT
        T_map_base = hypothesis.best.T_map_base
        arrow = _marker("hypotheses", number, frame, Marker.ARROW, HYPOTHESIS, alpha)
        arrow.pose = poses.to_pose(T_map_base)
        arrow.scale.x, arrow.scale.y, arrow.scale.z = ARROW_M
        yield arrow
        ellipse = _marker("uncertainty", number, frame, Marker.CYLINDER, HYPOTHESIS, alpha * FAINT)
        T_map_ellipse, widths_m = ellipse_on_floor(T_map_base, hypothesis.best.covariance)
        ellipse.pose = poses.to_pose(T_map_ellipse)
        ellipse.scale.x, ellipse.scale.y = widths_m.tolist()
        ellipse.scale.z = LINE_M
        yield ellipse
        text = _marker("words", number, frame, Marker.TEXT_VIEW_FACING, HYPOTHESIS, alpha)
        text.pose.position = _point(T_map_base[:3, 3] + (0.0, 0.0, 2.0 * TEXT_M))
        text.scale.z = TEXT_M
        text.text = f"{hypothesis.probability:.2f}, {hypothesis.independent} agree"
        yield text


def ellipse_on_floor(T_map_base: Array, covariance: Array) -> tuple[Array, Array]:
    """Return where the ellipse lies that holds the base with 95 %, (4, 4), and its two widths, metres.

    Args:
        T_map_base: (4, 4).
        covariance: Of (dt, dr), axes of the map, (6, 6).
    """
    variances, axes = np.linalg.eigh(covariance[:2, :2])
    longer = axes[:, 1]
    turn = rotations.so3_exp([0.0, 0.0, float(np.arctan2(longer[1], longer[0]))])
    widths_m = 2.0 * ELLIPSE_SIGMAS * np.sqrt(np.maximum(variances[::-1], 0.0))
    return rigid.make(turn, T_map_base[:3, 3]), np.maximum(widths_m, LEAST_WIDTH_M)


def _marker(namespace: str, number: int, frame: str, kind: int, colour: Colour, alpha: float = 1.0) -> Marker:
    red, green, blue = colour
    marker = Marker(ns=namespace, id=number, type=kind, action=Marker.ADD, frame_locked=True)
    marker.header.frame_id = frame  # no stamp: it stands there at all times
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    return marker


def _point(xyz: Array) -> Point:
    x, y, z = xyz.tolist()
    return Point(x=x, y=y, z=z)


def _bridging(question: Question, evidence: Evidence | None) -> tuple[View, View] | None:
    if evidence is None:
        return None
    views = (question.reference, question.target, *question.reference_context, *question.target_context)
    known = {view.id: view for view in views}
    left, right = known.get(evidence.reference_view_id), known.get(evidence.target_view_id)
    return None if left is None or right is None else (left, right)


def _width(view: View, height: int) -> int:
    return max(1, round(view.camera.width * height / view.camera.height))


def _reduced(image: Pixels, height: int) -> Pixels:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _draw_links(canvas: Pixels, starts: Array, ends: Array) -> None:
    """Draw what both pictures show in the same colours; a few, evenly over the height, stand for all.

    Args:
        canvas: Both pictures, RGB, drawn into.
        starts: In the left one, (N, 2), pixel centres at + 0.5.
        ends: In the right one, (N, 2).
    """
    order = np.argsort(starts[:, 1], kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_POINTS, len(order))).astype(int))]
    hues = np.linspace(20, 235, len(shown)).astype(np.uint8)[:, None]
    colours = cv2.applyColorMap(hues, cv2.COLORMAP_TURBO)[:, 0, ::-1].tolist() if len(shown) else []
    for index, colour in zip(shown, colours, strict=True):
        start, end = (tuple(int(c) for c in np.floor(point[index])) for point in (starts, ends))
        cv2.line(canvas, start, end, colour, 1, cv2.LINE_AA)
        for centre in (start, end):
            cv2.circle(canvas, centre, 4, WHITE, -1, cv2.LINE_AA)
            cv2.circle(canvas, centre, 3, colour, -1, cv2.LINE_AA)


def _verdict(answer: Answer) -> str:
    tracks = "" if answer.evidence is None else f", {answer.evidence.tracks} tracks"
    if answer.accepted:
        return f"{answer.status.name} {answer.stage.name}{tracks}, probability {answer.probability:.2f}"
    return f"{answer.status.name} {answer.reason.name}{tracks}: {answer.reason_text}"


def _line(text: str, width: int) -> Pixels:
    """Return one line of text on black, cut off where it does not fit; what OpenCV cannot draw is a ?."""
    canvas = np.zeros((LINE_HEIGHT_PX, width, 3), np.uint8)
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, plain, (6, LINE_HEIGHT_PX - 7), FONT, FONT_SCALE, WHITE, 1, cv2.LINE_AA)
    return canvas
