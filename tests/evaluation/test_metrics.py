# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from synthetic import CAMERA

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation import metrics
from pose_bridge.evaluation.metrics import Estimated, pose_errors
from pose_bridge.geometry import rigid, rotations

NAN = np.nan


def pose(yaw_deg: float, t: list[float]) -> np.ndarray:
    return rigid.make(rotations.so3_exp(np.radians([0.0, yaw_deg, 0.0])), t)


def test_errors_of_pairs() -> None:
    truth = [pose(50.0, [1.0, 0.0, 0.0])] * 5 + [pose(50.0, [0.0, 0.0, 0.0])]
    errors = pose_errors(
        [
            Estimated(pose(53.0, [1.0, 1.0, 0.0]), metric=True),
            Estimated(pose(50.0, [-2.0, 0.0, 0.0])),
            Estimated(pose(40.0, [0.0, 0.0, 0.0]), directed=False),
            None,
            Estimated(truth[0], metric=True),
            Estimated(truth[0]),
        ],
        truth,
    )
    np.testing.assert_allclose(errors.rotation_deg, [3.0, 0.0, 10.0, NAN, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(errors.translation_deg, [45.0, 180.0, NAN, NAN, 0.0, NAN], atol=1e-6)
    # the line on which the reference lies, seen from a target that is turned by 3 degrees too much
    seen = np.linalg.inv(pose(53.0, [1.0, 1.0, 0.0]))[:3, 3] / np.sqrt(2.0)
    first = np.degrees(np.arccos(abs(seen @ np.linalg.inv(truth[0])[:3, 3])))
    np.testing.assert_allclose(errors.as_in_papers_deg, [first, 0.0, NAN, NAN, 0.0, NAN], atol=1e-6)
    np.testing.assert_allclose(errors.translation_m, [1.0, NAN, NAN, NAN, 0.0, NAN], atol=1e-9)
    assert metrics.placed(errors.rotation_deg, errors.translation_m).tolist() == [
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert len(errors) == 6


def test_a_missing_answer_is_within_no_limit() -> None:
    assert metrics.share_within([1.0, NAN, 6.0, 5.0], 5.0) == 0.25
    assert np.isnan(metrics.share_within([], 5.0))
    assert metrics.auc([NAN, NAN]) == 0.0


def test_areas_by_hand() -> None:
    assert metrics.auc([0.0]) == 1.0
    assert metrics.auc([29.5]) == pytest.approx(1 / 30)
    assert metrics.auc([15.0, 100.0]) == pytest.approx(0.5 * 15 / 30)
    rotation, translation = [0.5, 20.5], [10.5, 0.5]
    assert metrics.auc_joint(rotation, translation) == pytest.approx((20 / 30 + 10 / 30) / 2)
    assert metrics.auc_smaller(rotation, translation) == pytest.approx((30 / 30 + 10 / 30) / 2)
    # up to 10 degrees one of two has the rotation, and one the direction; from 11 on both have the direction
    assert metrics.mean_average_accuracy(rotation, translation) == pytest.approx((20 * 0.5 + 10 * 1.0) / 30)
    assert metrics.auc([3.5, 0.5], limit_deg=5) == pytest.approx((2 / 5 + 5 / 5) / 2)


def test_an_area_is_that_of_the_public_evaluation() -> None:
    """A histogram of whole degrees, its cumulative sum, and the mean of that."""
    rng = np.random.default_rng(0)
    rotation, translation = rng.gamma(2.0, 6.0, (2, 500))
    histogram, _ = np.histogram(np.maximum(rotation, translation), bins=np.arange(31))
    expected = np.mean(np.cumsum(histogram / 500))
    assert metrics.auc_joint(rotation, translation) == pytest.approx(expected)


def test_what_is_drawn_by_the_answer() -> None:
    truth = pose(30.0, [1.0, 0.0, 0.5])
    error_px = metrics.virtual_correspondence_error_px
    assert error_px(truth, truth, CAMERA) == pytest.approx(0.0, abs=1e-9)
    # beside by 1 mm: a point at z is off by f / z mm; all stay inside the picture's border or lie on it
    rng = np.random.default_rng(0)
    sizes = [error_px(truth @ pose(0.0, (1e-3 * d).tolist()), truth, CAMERA) for d in rng.normal(size=(3, 3))]
    assert all(0.01 < size < 1.0 for size in sizes)
    down = truth @ pose(0.0, [0.0, 1e-4, 0.0])
    z = 1.8 + 0.3 * np.arange(-3, 4)
    seen = np.abs(np.add.outer(0.3 * np.arange(-1.5, 2.0), np.zeros(7))) < 240.0 / CAMERA.K[1, 1] * z
    expected = np.where(seen, CAMERA.K[1, 1] * 1e-4 / z, 0.0).mean()
    assert error_px(down, truth, CAMERA) == pytest.approx(expected, rel=1e-3)
    assert error_px(truth @ pose(180.0, [0.0, 0.0, 0.0]), truth, CAMERA) > metrics.DRAWN_PX


def test_what_is_drawn_from_behind_the_camera_is_smaller() -> None:
    """Held to be 0.9 m behind where it is, it draws points of depth z like those of z + 0.9."""
    truth = pose(70.0, [2.0, 0.0, 1.0])
    steps = [0.3 * np.arange(-3, 4), 0.3 * np.arange(-1.5, 2.0), 1.8 + 0.3 * np.arange(-3, 4)]
    off_px = [
        np.linalg.norm(seen(x, y, z) - seen(x, y, z + 0.9))
        for x in steps[0]
        for y in steps[1]
        for z in steps[2]
    ]
    behind = truth @ pose(0.0, [0.0, 0.0, -0.9])
    found = metrics.virtual_correspondence_error_px(behind, truth, CAMERA)
    assert found == pytest.approx(np.mean(off_px))


def seen(x: float, y: float, z: float) -> np.ndarray:
    """Where a point is in a picture, on its border at most."""
    px = CAMERA.K[[0, 1], [0, 1]] * np.array([x, y]) / z + CAMERA.K[:2, 2]
    return np.clip(px, 0.0, [CAMERA.width, CAMERA.height])


@pytest.mark.parametrize("errors", [[-1.0], [[1.0]]])
def test_what_is_no_error_is_refused(errors: list) -> None:
    with pytest.raises(BadInputError):
        metrics.auc(errors)


def test_answers_and_pairs_must_be_as_many() -> None:
    with pytest.raises(BadInputError, match="1 answers to 0 pairs"):
        pose_errors([None], [])
    with pytest.raises(BadInputError):
        pose_errors([Estimated(np.full((4, 4), NAN))], [np.eye(4)])
