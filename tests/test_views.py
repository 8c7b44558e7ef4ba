# SPDX-License-Identifier: Apache-2.0
import dataclasses
import math

import numpy as np
import pytest
from synthetic import evidence

from pose_bridge.errors import (
    BadCameraError,
    BadImageError,
    BadInputError,
    NoEstimateError,
    PoseBridgeError,
)
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import (
    Answer,
    Question,
    Reason,
    ScaleSource,
    Stage,
    Status,
    Translation,
    View,
)

NUMBERS = (
    "rotation",
    "rotation_covariance_rad2",
    "direction",
    "direction_sigma_rad",
    "T_reference_target",
    "covariance",
)
T = rigid.make(rotations.so3_exp(np.array([0.1, 0.7, 0.0])), [3.0, 0.0, 4.0])
COVARIANCE = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) * 1e-4


def view(name: str = "v", height: int = 120, width: int = 160, **known: object) -> View:
    image = np.zeros((height, width, 3), np.uint8)
    return View(**{"id": name, "image": image, "camera": Camera.from_focal_px(150.0, 160, 120), **known})


def accepted(translation: Translation = Translation.METRIC, **known: object) -> Answer:
    return Answer(
        **{
            "status": Status.ACCEPTED,
            "translation": translation,
            "_T_reference_target": T,
            "_covariance": COVARIANCE,
            "_direction_sigma_rad": 0.01,
            **known,
        }
    )


# --- answers


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NONE])
def test_a_failure_holds_no_number(reason: Reason) -> None:
    answer = Answer.rejected(reason, "why", stage=Stage.CONTEXT, probability=0.3, real_frames=7)
    assert not answer.accepted
    assert answer.status is Status.REJECTED
    assert answer.translation is Translation.UNDEFINED
    assert answer.scale_source is ScaleSource.NONE
    assert math.isnan(answer.scale_sigma)
    assert math.isnan(answer.elapsed_s)
    assert answer.cameras == {}
    for name in NUMBERS:
        with pytest.raises(NoEstimateError, match=f"{reason.name}.*why"):
            getattr(answer, name)
    for item in dataclasses.fields(answer):
        value = getattr(answer, item.name)
        if item.name not in ("probability", "real_frames") and isinstance(value, float):
            assert math.isnan(value), item.name
        assert not isinstance(value, np.ndarray), item.name


@pytest.mark.parametrize("status", [Status.REJECTED, Status.NO_ESTIMATE])
@pytest.mark.parametrize(
    "given", [("_T_reference_target",), ("_covariance",), ("_T_reference_target", "_covariance")]
)
def test_a_failure_cannot_be_given_numbers(status: Status, given: tuple[str, ...]) -> None:
    numbers = {"_T_reference_target": T, "_covariance": COVARIANCE}
    with pytest.raises(BadInputError, match=status.name):
        Answer(status=status, reason=Reason.NO_OVERLAP, **{name: numbers[name] for name in given})


@pytest.mark.parametrize("missing", ["_T_reference_target", "_covariance"])
def test_what_is_accepted_must_have_them(missing: str) -> None:
    with pytest.raises(BadInputError, match="ACCEPTED"):
        accepted(**{missing: None})


def test_a_failure_needs_a_reason() -> None:
    with pytest.raises(BadInputError, match="reason"):
        Answer.rejected(Reason.NONE, "")
    with pytest.raises(BadInputError, match="reason"):
        Answer(status=Status.NO_ESTIMATE)


def test_a_hypothesis_is_not_accepted() -> None:
    answer = accepted(status=Status.HYPOTHESIS, reason=Reason.LOW_PROBABILITY)
    assert not answer.accepted
    np.testing.assert_array_equal(answer.T_reference_target, T)


def test_numbers_as_far_as_they_are_known() -> None:
    known = {
        Translation.UNDEFINED: NUMBERS[:2],
        Translation.DIRECTION: NUMBERS[:4],
        Translation.METRIC: NUMBERS,
    }
    for translation, names in known.items():
        answer = accepted(translation)
        for name in NUMBERS:
            if name in names:
                assert np.isfinite(getattr(answer, name)).all()
            else:
                with pytest.raises(NoEstimateError, match=f"translation is {translation.name}"):
                    getattr(answer, name)


def test_what_the_numbers_are() -> None:
    answer = accepted()
    np.testing.assert_array_equal(answer.rotation, T[:3, :3])
    np.testing.assert_allclose(answer.direction, [0.6, 0.0, 0.8])
    np.testing.assert_array_equal(answer.rotation_covariance_rad2, COVARIANCE[3:, 3:])
    assert answer.direction_sigma_rad == 0.01


def test_the_same_about_another_camera() -> None:
    """Its numbers, and the points that tie it stay where they are."""
    T_other = rigid.make(np.eye(3), [1.0, 0.0, 0.0])
    points = np.array([[1.0, 2.0, 3.0]])
    answer = accepted(
        cameras={"t": T, "o": T_other},
        covariances={"o": COVARIANCE / 2},
        evidence=evidence(tracks=9, target_view_id="o", points=points),
    )
    other = answer.about("o")
    np.testing.assert_array_equal(other.T_reference_target, T_other)
    np.testing.assert_array_equal(other.covariance, COVARIANCE / 2)
    assert other.direction_sigma_rad == pytest.approx(np.sqrt(1.5e-4))
    np.testing.assert_array_equal(other.evidence.points, points)
    with pytest.raises(NoEstimateError):
        dataclasses.replace(answer, translation=Translation.DIRECTION).about("o")


def test_an_answer_without_numbers_is_about_nothing() -> None:
    with pytest.raises(NoEstimateError):
        Answer.rejected(Reason.NO_OVERLAP, "nothing").about("o")


# --- questions


def test_the_same_question_between_other_views() -> None:
    question = Question(reference=view("r"), target=view("t"), target_context=(view("o"),))
    other = question.between("r", "o")
    assert (other.reference.id, other.target.id) == ("r", "o")
    assert [v.id for v in other.target_context] == ["t"]
    with pytest.raises(BadInputError, match="view r is not on that side"):
        question.between("r", "r")


def test_a_question_with_defaults() -> None:
    question = Question(reference=view("a"), target=view("b"))
    assert question.budget_s is None
    assert question.reference_context == ()


@pytest.mark.parametrize(
    ("known", "what"),
    [
        ({"budget_s": 0.0}, "budget_s"),
        ({"budget_s": -1.0}, "budget_s"),
        ({"budget_s": math.nan}, "budget_s"),
        ({"min_probability": 0.0}, "min_probability"),
        ({"min_probability": 1.01}, "min_probability"),
        ({"min_probability": math.nan}, "min_probability"),
        ({"min_extent_m": -0.1}, "min_extent_m"),
        ({"min_extent_m": math.nan}, "min_extent_m"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"target": view("a")}, "'a'"),
    ],
    ids=str,
)
def test_questions_that_cannot_be_meant(known: dict[str, object], what: str) -> None:
    with pytest.raises(BadInputError, match=what):
        Question(**{"reference": view("a"), "target": view("b"), **known})


def test_the_ends_of_the_ranges_are_fine() -> None:
    Question(reference=view("a"), target=view("b"), budget_s=1e-9, min_probability=1.0, seed=2**64 - 1)


# --- views


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((120, 160), np.uint8),
        np.zeros((120, 160, 1), np.uint8),
        np.zeros((120, 160, 4), np.uint8),
        np.zeros((120, 160, 3), np.uint16),
        np.zeros((120, 160, 3), np.float32),
        np.zeros((0, 160, 3), np.uint8),
        np.zeros((120, 0, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype} {image.shape}",
)
def test_pictures_of_another_kind_are_refused(image: np.ndarray) -> None:
    with pytest.raises(BadImageError, match="view left:"):
        view("left", image=image)


def test_a_camera_of_another_size_is_refused() -> None:
    with pytest.raises(BadCameraError, match=r"view left.*160x120"):
        view("left", 120, 161)
    with pytest.raises(BadCameraError, match="view left"):
        view("left", 160, 120)  # upright and lying


@pytest.mark.parametrize("name", ["mask", "depth_m"])
def test_layers_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match=f"view left.*{name}"):
        view("left", **{name: np.ones((160, 120), bool if name == "mask" else np.float32)})


@pytest.mark.parametrize(
    "pose",
    [np.eye(3), 2 * np.eye(4), np.diag([1.0, 1.0, -1.0, 1.0]), np.full((4, 4), np.nan)],
    ids=["shape", "scaled", "mirrored", "NaN"],
)
def test_poses_that_are_none_are_refused(pose: np.ndarray) -> None:
    with pytest.raises(PoseBridgeError):
        view(T_side_camera=pose)
