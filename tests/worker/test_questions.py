# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from worker.same import assert_same
from worker.test_protocol import through

from pose_bridge.errors import BadInputError
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Prior, Question, Require, Stage, View
from pose_bridge.worker import questions
from pose_bridge.worker.protocol import Message
from pose_bridge.worker.questions import MissingPicturesError, Recent

SIZE = (8, 10)
PICTURE_BYTES = 8 * 10 * 3
RNG = np.random.default_rng(0)
CAMERA = Camera.from_opencv(
    np.diag([20.0, 20.0, 1.0]), [0.1, 0.0, 0.0, 0.0, 0.01], width=SIZE[1], height=SIZE[0]
)


def view(name: str, **known: object) -> View:
    image = RNG.integers(0, 256, (*SIZE, 3), np.uint8)
    return View(**{"id": name, "image": image, "camera": CAMERA, **known})


def question(**known: object) -> Question:
    depth = RNG.normal(size=SIZE).astype(np.float32)
    depth[0, 0] = np.nan
    T = rigid.make(np.eye(3), [1.0, 2.0, 3.0])
    return Question(
        **{
            "reference": view("a", depth_m=depth, stamp_ns=2**62, mask=depth > 0),
            "target": view("b", T_side_camera=T),
            "reference_context": (view("c"), view("d", T_side_camera=T)),
            "prior": Prior(T_reference_target=T, covariance=np.eye(6)),
            "upright": True,
            "require": Require.METRIC,
            "max_stage": Stage.REGISTER,
            "budget_s": 1 / 3,
            "seed": 2**64 - 1,
            **known,
        }
    )


def memory(pictures: float = 100.0) -> Recent:
    return Recent(int(pictures * PICTURE_BYTES))


def travels(asked: Question, sent: Recent, known: Recent) -> tuple[Question, int]:
    """What arrives, and how many pictures travelled."""
    body = questions.to_body(asked, sent)
    count = len(body["pictures"])
    return questions.from_body(through(Message("question", 1, body)).body, known), count


def test_a_question_arrives_as_it_was() -> None:
    asked = question()
    sent, known = memory(), memory()
    arrived, pictures = travels(asked, sent, known)
    assert_same(arrived, asked)
    assert pictures == 4
    again, pictures = travels(asked, sent, known)
    assert_same(again, asked)
    assert pictures == 0
    assert again.reference.fingerprint == dataclasses.replace(asked.reference).fingerprint


def test_a_picture_travels_once_whatever_else_is_known_of_it() -> None:
    sent, known = memory(), memory()
    picture = view("a")
    other = dataclasses.replace(picture, id="z", stamp_ns=5, T_side_camera=np.eye(4))
    asked = question(reference=picture, target_context=(other,))
    arrived, pictures = travels(asked, sent, known)
    assert_same(arrived, asked)
    assert pictures == 4
    moved = question(reference=other, target=picture, reference_context=())
    arrived, pictures = travels(moved, sent, known)
    assert_same(arrived, moved)
    assert pictures == 0


def test_another_mask_or_camera_is_another_picture() -> None:
    sent, known = memory(), memory()
    asked = question()
    travels(asked, sent, known)
    for change in ({"mask": np.zeros(SIZE, bool)}, {"camera": Camera.from_focal_px(30.0, *SIZE[::-1])}):
        changed = dataclasses.replace(asked, target=dataclasses.replace(asked.target, **change))
        arrived, pictures = travels(changed, sent, known)
        assert_same(arrived, changed)
        assert pictures == 1


@pytest.mark.parametrize("room", [0.0, 1.0, 2.5, 4.5])
def test_little_memory_only_costs_time(room: float) -> None:
    """Both sides forget the same pictures; not even a question that is larger than the memory is a miss."""
    sent, known = memory(room), memory(room)
    asked = [question() for _ in range(3)]
    for index in (0, 0, 1, 2, 1, 0):
        arrived, _ = travels(asked[index], sent, known)
        assert_same(arrived, asked[index])


def test_a_forgotten_picture_is_missed() -> None:
    asked, sent = question(), memory()
    travels(asked, sent, memory())
    with pytest.raises(MissingPicturesError):
        travels(asked, sent, memory())
    sent.clear()
    assert_same(travels(asked, sent, memory())[0], asked)


def test_what_cannot_be_meant_is_refused_on_arrival_too() -> None:
    body = questions.to_body(question(), memory()) | {"budget_s": -1.0}
    with pytest.raises(BadInputError, match="budget_s"):
        questions.from_body(body, memory())


def test_the_least_recently_used_is_forgotten() -> None:
    recent: Recent[int] = Recent(10)
    for name, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        recent.use(name, value, 4)
    assert [name in recent for name in "abc"] == [True, False, True]
    assert (recent["a"], recent["c"]) == (3, 4)
    recent.use("d", 5, 11)
    assert not any(name in recent for name in "abcd")
    recent.use("e", 6, 10)
    assert recent["e"] == 6
