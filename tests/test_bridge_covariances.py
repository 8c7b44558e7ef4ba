# SPDX-License-Identifier: Apache-2.0
"""What an answer says of the view that is tied best is that view's own uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import CAMERA, evidence

from pose_bridge import scale
from pose_bridge.bridge import Bridge
from pose_bridge.config import Config
from pose_bridge.estimators import bundle
from pose_bridge.estimators.base import Problem, Tracks
from pose_bridge.estimators.rigs import RigEstimator
from pose_bridge.geometry import rigid
from pose_bridge.views import View

PLACES = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [3.0, 0.0, 4.0], [0.0, 0.0, 0.8]]  # reference, target, tied, map
SIDES = (0, 1, 1, 0)
SIGMA_M = {1: 0.1, 2: 0.03, 3: 0.002}  # the target hangs on by odometry


@pytest.mark.parametrize("rigid_sides", [False, True])
def test_a_view_that_is_known_well_is_not_blurred_by_the_target(rigid_sides: bool) -> None:
    config = Config()
    poses = [rigid.make(np.eye(3), place) for place in PLACES]
    image = np.zeros((480, 640, 3), np.uint8)
    views = tuple(
        View(id=f"v{index}", image=image, camera=CAMERA, T_side_camera=T) for index, T in enumerate(poses)
    )
    problem = Problem(views, (), {}, SIDES, 0)
    joint = np.diag([sigma**2 for view in (1, 2, 3) for sigma in [SIGMA_M[view]] * 3 + [0.002] * 3])
    none = Tracks.of_rows([])
    estimate = bundle.estimate_of(
        RigEstimator(config.rigs),
        dict(enumerate(poses)),
        np.empty((0, 3)),
        none,
        np.zeros(1),
        joint,
        (1, 2, 3),
        rigid_sides,
    )
    metres = scale.metric_scale(problem, estimate, config.scale)
    found = Bridge(config)._covariances(problem, estimate, evidence(target_view_id="v2"), metres)
    assert set(found) == {"v1", "v2"}
    tied_m = np.sqrt(np.linalg.eigvalsh(found["v2"][:3, :3]))
    wheels_m = config.scale.odometry_sigma * 5.0  # the way to it, by wheels that err by as much
    assert tied_m[0] == pytest.approx(SIGMA_M[2], rel=0.1)
    assert tied_m[-1] < 1.2 * np.hypot(SIGMA_M[2], wheels_m)
