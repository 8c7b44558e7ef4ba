# SPDX-License-Identifier: Apache-2.0
"""A robot that stands where it likes, and a bridge that knows the truth."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pose_bridge.control import Control
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.views import Answer, Evidence, Question, Reason, Stage, Status, Translation

CAMERA = Camera.from_focal_px(80.0, 96, 72)
R_BASE_CAMERA = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
T_BASE_CAMERA = rigid.make(R_BASE_CAMERA, [0.1, 0.0, 0.5])
T_MAP_ODOM = rigid.make(rotations.so3_exp([0.0, 0.0, 2.0]), [3.0, 1.0, 0.0])
AHEAD_M = 3.0
COVARIANCE = np.diag([0.02**2] * 3 + [0.005**2] * 3)


def standing(x: float, y: float, yaw_deg: float) -> np.ndarray:
    return rigid.make(rotations.so3_exp([0.0, 0.0, np.radians(yaw_deg)]), [x, y, 0.0])


def picture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (72, 96), np.uint8)
    return np.repeat(cv2.GaussianBlur(noise, (0, 0), 1.5)[..., None], 3, axis=2)


def keyframe(name: str, seed: int, epoch: int, T_map_base: np.ndarray, mapped: bool) -> Keyframe:
    T_odom_base = T_map_base if mapped else rigid.inverse(T_MAP_ODOM) @ T_map_base
    return Keyframe(
        id=name,
        stamp_ns=seed * 10**9,
        image=picture(seed),
        camera=CAMERA,
        camera_id="camera",
        epoch=epoch,
        T_odom_base=T_odom_base,
        T_base_camera=T_BASE_CAMERA,
        T_map_base=T_map_base if mapped else None,
    )


MAP = [keyframe(f"m{i}", i, 0, standing(0.5 * i, 0.0, 20.0 * i), True) for i in range(8)]
SEEN = [keyframe(f"v{i}", 20 + i, 1, standing(2.0, 2.0 + 0.1 * i, -90.0 + 30.0 * i), False) for i in range(8)]


class Oracle:
    """A bridge that knows the truth, but for what it is told to get wrong.

    Args:
        lies: By id of the target: how the answer's T_map_base is moved.
        blind: Targets without an answer.
        ties: How many tracks tie a picture to the map, by its id; they are AHEAD_M ahead of it.
    """

    def __init__(
        self,
        lies: dict[str, np.ndarray] | None = None,
        blind: Callable[[str], bool] = lambda _: False,
        ties: Callable[[str], int] = lambda _: 20,
    ):
        self.lies, self.blind, self.ties = lies or {}, blind, ties
        self.asked: list[Question] = []

    def answer(self, question: Question, control: Control | None = None) -> Answer:
        control = control or Control()
        control.check()
        self.asked.append(question)
        if self.blind(question.target.id):
            return Answer.rejected(Reason.NO_OVERLAP, "nothing", stage=Stage.CONTEXT)
        T_true = T_MAP_ODOM @ question.target.T_side_camera
        T_map_target = self.lies.get(question.target.id, np.eye(4)) @ T_true
        T = rigid.relative(question.reference.T_side_camera, T_map_target)
        robots = [question.target, *question.target_context]
        cameras = {view.id: np.eye(4) for view in (question.reference, *question.reference_context)}
        cameras |= {
            view.id: T @ rigid.relative(question.target.T_side_camera, view.T_side_camera) for view in robots
        }
        return Answer(
            status=Status.ACCEPTED,
            translation=Translation.METRIC,
            probability=0.9,
            stage=Stage.CONTEXT,
            evidence=evidence(question, T, self.ties),
            cameras=cameras,
            covariances={view.id: COVARIANCE for view in robots},
            _T_reference_target=T,
            _covariance=COVARIANCE,
        )


def evidence(
    question: Question, T_reference_target: np.ndarray, ties: Callable[[str], int] = lambda _: 20
) -> Evidence:
    """Tracks AHEAD_M ahead of every picture of the target side, as many as `ties` says."""
    views = [question.target, *question.target_context]
    T_target_view = [rigid.relative(question.target.T_side_camera, v.T_side_camera) for v in views]
    ahead = [(T_reference_target @ T @ [0.0, 0.0, AHEAD_M, 1.0])[:3] for T in T_target_view]
    points = np.repeat(ahead, [ties(view.id) for view in views], axis=0)
    return Evidence(
        tracks=len(points),
        features={},
        reference_view_id=question.reference.id,
        target_view_id=max(views, key=lambda view: ties(view.id)).id,
        reference_points_px=np.empty((0, 2)),
        target_points_px=np.empty((0, 2)),
        points=points,
    )
