# SPDX-License-Identifier: Apache-2.0
"""The fake worker for a node, which names views itself: a file says what to do to the next question.

python moody_worker.py MOOD FILE_DESCRIPTOR
"""

import sys
from pathlib import Path

import numpy as np
from robot_world import COVARIANCE, T_MAP_ODOM, evidence
from worker import fake_worker

from pose_bridge.control import Control
from pose_bridge.errors import NoEstimateError
from pose_bridge.geometry import rigid
from pose_bridge.views import Answer, Question, Reason, ScaleSource, Stage, Status, Translation

NO_TEXT = "\ud800 as it is"  # half a character
MOOD = Path(sys.argv[1])
T_REFERENCE_TARGET = rigid.se3_exp([0.5, -0.2, 0.1, 0.1, 0.8, -0.1])


class MoodyBridge(fake_worker.FakeBridge):
    def answer(self, question: Question, control: Control) -> Answer:
        mood, *details = MOOD.read_text().split(" ", 1)
        control.step("looking at the two views")
        control.step("context: matching")
        if mood == "rejects":
            return Answer.rejected(Reason.WEAK_BRIDGE, *details, stage=Stage.CONTEXT, probability=0.25)
        if mood == "mumbles":
            return Answer.rejected(Reason.WEAK_BRIDGE, NO_TEXT, stage=Stage.CONTEXT)
        if mood == "stammers":
            raise NoEstimateError(NO_TEXT)
        if mood == "guesses":
            return answer(question, Status.HYPOTHESIS)
        if mood == "hesitates":
            control.better(answer(question))
            control.step("context: estimating")
            mood = "patiently"
        getattr(self, mood)(question, control, *details)
        return answer(question)


def answer(question: Question, status: Status = Status.ACCEPTED) -> Answer:
    """The truth, where both cameras are posed: odometry lies at T_MAP_ODOM in the map."""
    reference, target = question.reference.T_side_camera, question.target.T_side_camera
    posed = reference is not None and target is not None
    views = [question.reference, question.target, *question.reference_context, *question.target_context]
    T = rigid.relative(reference, T_MAP_ODOM @ target) if posed else T_REFERENCE_TARGET
    return Answer(
        status=status,
        translation=Translation.METRIC,
        scale_source=ScaleSource.ODOMETRY,
        scale_sigma=0.02,
        probability=0.9,
        stage=Stage.CONTEXT,
        estimator="moody",
        real_frames=len(views),
        evidence=evidence(question, T) if posed else None,
        cameras={view.id: np.eye(4) for view in views},
        _T_reference_target=T,
        _covariance=COVARIANCE,
        _direction_sigma_rad=0.01,
    )


if __name__ == "__main__":
    fake_worker.FakeBridge = MoodyBridge
    fake_worker.main([], int(sys.argv[-1]))
