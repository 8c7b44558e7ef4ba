# SPDX-License-Identifier: Apache-2.0
"""Whose word counts for where the robot is, and that nothing old is mapped or told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from installed import require_ros
from robot_world import T_MAP_ODOM, standing

require_ros()

from pose_bridge.config import Config  # noqa: E402
from pose_bridge.errors import BadInputError, StaleError  # noqa: E402
from pose_bridge.ros.whereabouts import Whereabouts  # noqa: E402
from pose_bridge.session import Session  # noqa: E402

S = 10**9
T_OLD = standing(-3.0, 1.0, 40.0)  # where odometry lay in the map before the robot was carried away


class Tf:
    """What tf says, and whether ours is held there."""

    def __init__(self) -> None:
        self.said: np.ndarray | None = None
        self.held = True

    def T_map_odom(self, stamp_ns: int, T_odom_base: np.ndarray) -> np.ndarray | None:
        return self.said

    def stop_map_odom(self) -> None:
        self.held = False


class Nobody:
    def answer(self, *_: Any) -> Any:
        raise AssertionError("nobody asks")


class World:
    def __init__(self) -> None:
        config = Config()
        self.session, self.tf = Session(config, Nobody()), Tf()
        self.whereabouts = Whereabouts(config.relocalize, self.session, self.tf)
        self.mapped: list[np.ndarray] = []
        self.session.set_map_pose = lambda T, *_: self.mapped.append(T)
        self.move(S)

    def move(self, stamp_ns: int) -> None:
        self.session.move(stamp_ns, standing(1.0, 0.0, 0.0))

    def hypothesis(self) -> Any:
        """Found by a picture of now."""
        view = SimpleNamespace(epoch=self.session.odometry.epoch)
        return SimpleNamespace(best=SimpleNamespace(view=view, T_map_odom=T_MAP_ODOM))

    def lose(self) -> None:
        self.session.kidnapped()
        self.whereabouts.lose()
        self.move(2 * S)


def test_tf_is_followed_until_the_robot_is_lost() -> None:
    world = World()
    world.whereabouts.follow_tf()
    assert world.mapped == []  # tf says nothing
    world.tf.said = T_OLD
    world.whereabouts.follow_tf()
    assert world.mapped == [T_OLD]
    world.lose()
    world.whereabouts.follow_tf()
    assert world.mapped == [T_OLD]
    assert not world.tf.held


def test_tf_counts_again_once_it_agrees_with_what_was_found() -> None:
    world = World()
    world.lose()
    world.whereabouts.find(world.hypothesis(), lambda: None)
    world.tf.said = T_OLD
    world.whereabouts.follow_tf()
    assert world.mapped == []
    near = T_MAP_ODOM @ standing(0.05, 0.02, 0.5)
    world.tf.said = near
    world.whereabouts.follow_tf()
    world.tf.said = T_OLD  # who corrects itself is believed from then on
    world.whereabouts.follow_tf()
    assert [T is near for T in world.mapped] == [True, False]


def test_somebody_s_word_counts_at_once() -> None:
    world = World()
    world.lose()
    world.whereabouts.find(world.hypothesis(), lambda: None)
    world.whereabouts.say(T_OLD, 0)
    world.tf.said = T_OLD
    world.whereabouts.follow_tf()
    assert len(world.mapped) == 2


def test_what_was_found_before_odometry_broke_is_not_told() -> None:
    world = World()
    found, told = world.hypothesis(), []
    world.lose()
    with pytest.raises(StaleError):
        world.whereabouts.find(found, lambda: told.append(1))
    assert told == []
    world.tf.said = T_OLD
    world.whereabouts.follow_tf()
    assert world.mapped == []
    assert world.whereabouts.hypotheses == ()


def test_what_could_not_be_told_was_not_found() -> None:
    world = World()
    world.lose()

    def refuse() -> None:
        raise BadInputError("no")

    with pytest.raises(BadInputError):
        world.whereabouts.find(world.hypothesis(), refuse)
    world.tf.said = T_MAP_ODOM
    world.whereabouts.follow_tf()
    assert world.mapped == []


def test_places_are_forgotten_with_the_robot() -> None:
    world = World()
    world.whereabouts.suspect((world.hypothesis(),))
    assert len(world.whereabouts.hypotheses) == 1
    world.whereabouts.lose()
    assert world.whereabouts.hypotheses == ()
