# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from keyframe_samples import BLANK, T_BASE_CAMERA, keyframe, planar

from pose_bridge.errors import BadCameraError, BadImageError, BadInputError


def test_poses_of_the_camera() -> None:
    T_odom_base, T_map_base = planar(1.0, 2.0, 30.0), planar(-3.0, 0.5, 100.0)
    found = keyframe("k", T_odom_base, T_map_base=T_map_base)
    np.testing.assert_allclose(found.T_odom_camera, T_odom_base @ T_BASE_CAMERA, atol=1e-12)
    np.testing.assert_allclose(found.T_map_camera, T_map_base @ T_BASE_CAMERA, atol=1e-12)
    ahead = found.T_odom_camera[:3, 2]
    np.testing.assert_allclose(ahead, [np.cos(np.pi / 6), np.sin(np.pi / 6), 0.0], atol=1e-12)


def test_what_is_not_known_is_none() -> None:
    assert keyframe("k").T_odom_camera is None
    assert keyframe("k").T_map_camera is None
    unmounted = keyframe("k", planar(0, 0), T_map_base=planar(0, 0), T_base_camera=None)
    assert unmounted.T_odom_camera is None
    assert unmounted.T_map_camera is None


def test_a_moved_copy_knows_its_new_pose() -> None:
    before = keyframe("k", planar(0, 0))
    assert before.T_map_camera is None
    after = dataclasses.replace(before, T_map_base=planar(1, 0))
    np.testing.assert_allclose(after.T_map_camera, planar(1, 0) @ T_BASE_CAMERA)


def test_the_view_holds_what_the_keyframe_holds() -> None:
    mask = np.ones(BLANK.shape[:2], bool)
    depth_m = np.ones(BLANK.shape[:2], np.float32)
    found = keyframe("k", planar(1, 0), mask=mask, depth_m=depth_m, stamp_ns=7)
    view = found.view(found.T_odom_camera)
    assert (view.id, view.stamp_ns, view.camera) == ("k", 7, found.camera)
    assert view.image is found.image
    assert view.mask is mask
    assert view.depth_m is depth_m
    np.testing.assert_array_equal(view.T_side_camera, found.T_odom_camera)
    assert found.view().T_side_camera is None


@pytest.mark.parametrize(
    ("known", "error", "says"),
    [
        ({"image": BLANK[:, :-1]}, BadCameraError, "view k"),
        ({"image": BLANK[..., 0]}, BadImageError, "view k"),
        ({"mask": np.ones((3, 3), bool)}, BadInputError, "mask"),
        ({"T_map_base": np.full((4, 4), np.nan)}, BadInputError, "keyframe k: T_map_base"),
        ({"T_odom_base": 2 * np.eye(4)}, BadInputError, "keyframe k: T_odom_base"),
        ({"T_base_camera": np.eye(3)}, BadInputError, "keyframe k: T_base_camera"),
    ],
)
def test_what_does_not_fit_is_refused(known: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        keyframe("k", **known)
