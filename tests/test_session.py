# SPDX-License-Identifier: Apache-2.0
"""A robot that drives, sees, is carried away and asks where it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from robot_world import CAMERA, MAP, T_BASE_CAMERA, T_MAP_ODOM, Oracle, picture, standing

from pose_bridge.config import AutoConfig, Config, KeyframesConfig, MapConfig
from pose_bridge.control import Control
from pose_bridge.errors import (
    BadInputError,
    NeedMotionError,
    NoExtrinsicsError,
    NoMapError,
    NoViewsError,
    StaleError,
    StorageError,
    UnknownKeyframeError,
)
from pose_bridge.geometry import rigid
from pose_bridge.session import Picture, Session
from pose_bridge.views import Require

S = 10**9


class Robot:
    """Drives a session: each step is a report of odometry before and after a picture."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.now_ns = S

    def step(self, T_odom_base: np.ndarray, **known: object) -> str:
        self.now_ns += S // 2
        self.session.move(self.now_ns - S // 10, T_odom_base)
        self.session.move(self.now_ns + S // 10, T_odom_base)
        seen = Picture(
            stamp_ns=self.now_ns,
            image=picture(self.now_ns // S + 1000 * (self.now_ns % S > 0)),
            camera=CAMERA,
            camera_id="camera",
            **{"T_base_camera": T_BASE_CAMERA, **known},
        )
        return self.session.see(seen)

    def map_a_room(self) -> None:
        self.session.move(self.now_ns, standing(0, 0, 0))
        self.session.set_map_pose(np.eye(4))
        for place in MAP:
            assert self.step(place.T_map_base) == ""

    def be_kidnapped(self, looks: int = 6) -> None:
        self.session.kidnapped()
        for index in range(looks):
            T_map_base = standing(2.0, 2.0 + 0.1 * index, -90.0 + 30.0 * index)
            assert self.step(rigid.inverse(T_MAP_ODOM) @ T_map_base) == ""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    config = Config(
        map=MapConfig(directory=str(tmp_path / "maps")),
        keyframes=KeyframesConfig(min_sharpness=0.0),
    )
    return Session(config, Oracle())


def control(budget_s: float = 20.0) -> Control:
    made = Control()
    made.start(budget_s)
    return made


def test_kidnapped_and_found(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    assert len(session.keyframes.mapped()) == len(MAP)
    robot.be_kidnapped()
    assert len(session.keyframes.mapped()) == len(MAP)  # what it sees now has no place yet
    found = session.relocalize(control(), wait_for_motion=False)
    np.testing.assert_allclose(found.best.T_map_odom, T_MAP_ODOM, atol=1e-5)
    assert session.set_map_pose(found.best.T_map_odom) == 6  # and so the map grows
    assert len(session.keyframes.mapped()) == len(MAP) + 6


def test_a_picture_may_come_after_a_later_place_in_the_map(session: Session) -> None:
    """As SLAM's word on the newest odometry does while a picture is being processed."""
    robot = Robot(session)
    T_before, T_after = standing(1.0, 0.0, 0.0), standing(2.0, 0.0, 0.0)
    session.set_map_pose(T_before, robot.now_ns)
    session.set_map_pose(T_after, robot.now_ns + S)
    robot.step(standing(0.0, 0.0, 0.0))  # S / 2 later
    robot.step(standing(0.4, 0.0, 0.0))
    first, second = session.keyframes.mapped()
    np.testing.assert_allclose(first.T_map_base, T_before)
    np.testing.assert_allclose(second.T_map_base, T_after @ standing(0.4, 0.0, 0.0))


def test_what_was_seen_before_the_kidnap_is_no_view(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    session.kidnapped()
    with pytest.raises(NoViewsError):
        session.relocalize(control(), wait_for_motion=False)


def test_it_waits_for_the_robot_to_move(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    robot.be_kidnapped(1)

    def drive() -> None:
        for step in range(4):
            time.sleep(0.1)
            robot.step(rigid.inverse(T_MAP_ODOM) @ standing(2.0, 2.1 + 0.1 * step, -60.0 + 30.0 * step))

    driver = threading.Thread(target=drive)
    driver.start()
    found = session.relocalize(control())
    driver.join()
    np.testing.assert_allclose(found.best.T_map_odom, T_MAP_ODOM, atol=1e-5)


def test_who_does_not_move_is_told_to(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    robot.be_kidnapped(1)
    with pytest.raises(NeedMotionError, match="turn"):
        session.relocalize(control(4.0))


def test_kidnapped_again_while_it_is_looked_for(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    robot.be_kidnapped(1)
    threading.Timer(0.3, session.kidnapped).start()
    with pytest.raises(StaleError):
        session.relocalize(control())


def test_nothing_to_find_it_in(session: Session) -> None:
    with pytest.raises(NoMapError):
        session.relocalize(control())
    Robot(session).be_kidnapped()
    with pytest.raises(NoMapError):
        session.relocalize(control())


def test_extrinsics_are_needed(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    session.kidnapped()
    for index in range(3):
        robot.step(standing(0.4 * index, 0, 30 * index), T_base_camera=None)
    with pytest.raises(NoExtrinsicsError, match="tf"):
        session.relocalize(control(), wait_for_motion=False)


def test_a_jump_of_odometry_is_a_kidnap(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    assert session.move(robot.now_ns + 2 * S // 10, standing(30, 0, 0)) != ""
    assert robot.step(standing(30, 0, 0)) == ""
    newest = session.keyframes.all()[-1]
    assert newest.epoch == 1
    assert newest.T_map_base is None


def test_the_clock_goes_back(session: Session) -> None:
    """A bag that loops."""
    robot = Robot(session)
    robot.map_a_room()
    robot.now_ns = S // 2
    assert robot.step(standing(0, 0, 0)) == ""
    assert session.odometry.epoch == 1
    assert session.keyframes.all()[-1].T_map_base is None


def test_pictures_without_odometry_are_kept_but_have_no_place(session: Session) -> None:
    session.set_map_pose(np.eye(4))
    seen = Picture(
        stamp_ns=S, image=picture(0), camera=CAMERA, camera_id="camera", T_base_camera=T_BASE_CAMERA
    )
    assert session.see(seen) == ""
    (kept,) = session.keyframes.all()
    assert kept.T_odom_base is None
    assert kept.T_map_base is None


def test_a_map_goes_to_disk_and_back(session: Session) -> None:
    with pytest.raises(NoMapError):
        session.save_map("home")
    robot = Robot(session)
    robot.map_a_room()
    assert session.save_map("home") == len(MAP)
    before = session.keyframes.all()
    robot.be_kidnapped()
    assert session.load_map("home") == len(MAP)
    after = session.keyframes.all()
    assert [keyframe.id for keyframe in after] == [keyframe.id for keyframe in before]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_allclose(one.T_map_base, other.T_map_base)
    robot.be_kidnapped()
    found = session.relocalize(control(), wait_for_motion=False)
    np.testing.assert_allclose(found.best.T_map_odom, T_MAP_ODOM, atol=1e-5)


def test_a_loaded_map_is_never_taken_for_this_run(session: Session) -> None:
    """However often it was saved and loaded: its odometry and its names are another run's."""
    robot = Robot(session)
    robot.map_a_room()
    for _ in range(3):
        session.save_map("home")
        session.load_map("home")
        assert all(keyframe.epoch < 0 for keyframe in session.keyframes.all())
    other = Session(session.config, Oracle())
    other.load_map("home")
    again = Robot(other)
    again.be_kidnapped()  # none of its keyframes has the name of one of the map
    assert len(other.keyframes) == len(MAP) + 6


def test_names_of_maps(session: Session) -> None:
    Robot(session).map_a_room()
    for name in ("../home", "a/b", "", ".."):
        with pytest.raises(BadInputError):
            session.save_map(name)
        with pytest.raises((BadInputError, StorageError)):
            session.load_map(name)
    assert len(session.keyframes) == len(MAP)  # nothing was lost


def test_a_question_between_keyframes(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    robot.be_kidnapped()
    first, last = session.keyframes.all()[2], session.keyframes.all()[-2]
    asked = session.question(first, last, require=Require.METRIC, seed=7)
    assert (asked.reference.id, asked.target.id, asked.seed) == (first.id, last.id, 7)
    assert asked.require is Require.METRIC
    names = [view.id for view in (*asked.reference_context, *asked.target_context)]
    assert len(set(names)) == len(names)
    assert asked.reference_context
    assert asked.target_context
    epoch = {keyframe.id: keyframe.epoch for keyframe in session.keyframes.all()}
    assert {epoch[view.id] for view in asked.reference_context} == {first.epoch}
    assert {epoch[view.id] for view in asked.target_context} == {last.epoch}
    assert asked.upright


def test_odometry_that_did_not_break_is_a_prior(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    robot.be_kidnapped()
    first, last, seen = (session.keyframes.all()[index] for index in (2, len(MAP) - 1, -2))
    prior = session.question(first, last).prior
    assert prior is not None
    np.testing.assert_allclose(
        prior.T_reference_target, rigid.relative(first.T_odom_camera, last.T_odom_camera), atol=1e-9
    )
    near = session.question(session.keyframes.all()[1], first).prior
    assert near is not None
    assert np.trace(near.covariance) < np.trace(prior.covariance)
    assert session.question(first, seen).prior is None
    assert session.question(first, last, prior=near).prior is near


def test_pictures_of_an_earlier_stretch_are_stale(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    robot.be_kidnapped()
    seen = session.keyframes.of_epoch(session.odometry.epoch)
    session.kidnapped()
    with pytest.raises(StaleError):
        session.relocalize(control(), views=seen)


def test_named_by_id_or_time(session: Session) -> None:
    robot = Robot(session)
    robot.map_a_room()
    some = session.keyframes.all()[3]
    assert session.named(some.id) is some
    assert session.named(stamp_ns=some.stamp_ns + S // 100) is some
    for wrong in ({"keyframe_id": "nobody"}, {"stamp_ns": 5}):
        with pytest.raises(UnknownKeyframeError):
            session.named(**wrong)


def test_pairs_in_the_background(tmp_path: Path) -> None:
    session = Session(
        Config(
            auto=AutoConfig(enabled=True, min_angle_deg=30.0), keyframes=KeyframesConfig(min_sharpness=0.0)
        ),
        Oracle(),
    )
    Robot(session).map_a_room()
    pair = session.background_pair()
    assert pair is not None
    a, b = pair
    cosine = a.T_odom_camera[:3, 2] @ b.T_odom_camera[:3, 2]
    assert np.degrees(np.arccos(cosine)) >= 30.0
    session.forget()
    assert session.background_pair() is None
    assert len(session.keyframes) == 0
