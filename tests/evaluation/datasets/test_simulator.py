# SPDX-License-Identifier: Apache-2.0
"""The simulator as a data set."""

from __future__ import annotations

import numpy as np
import pytest

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation.datasets.layouts import opened
from pose_bridge.evaluation.datasets.pairs import PairRule, draw
from pose_bridge.geometry import rigid
from pose_bridge.simulation.walks import FRAMES, Split, room_of


def test_a_walk_is_a_scene() -> None:
    dataset = opened("simulator:validation")
    names = dataset.scenes()
    assert len(set(names)) == len(names) == 1600
    scene = dataset.scene("house003/room1/outward2")
    assert (scene.name, scene.metric, scene.kind, len(scene.frames)) == (
        "house003/room1/outward2",
        True,
        "outward",
        FRAMES,
    )
    view, again = scene.frames[4].view(), dataset.scene(scene.name).frame("04").view()
    np.testing.assert_array_equal(view.image, again.image)
    assert (view.camera.width, view.camera.height, view.image.shape) == (320, 240, (240, 320, 3))
    assert view.image.std() > 5.0


def test_splits_show_other_houses() -> None:
    pictures = [
        opened(f"simulator:{split}").scene("house000/room0/outward0").frames[0].view().image
        for split in ("train", "validation", "test")
    ]
    for one, other in zip(pictures, [*pictures[1:], pictures[0]], strict=True):
        assert np.abs(one.astype(float) - other).mean() > 10.0


def test_other_rooms_of_the_house_are_elsewhere() -> None:
    dataset = opened("simulator:test")
    others = dataset.elsewhere("house007/room2/centred1")
    assert len(others) == 12
    assert set(others) <= set(dataset.scenes())
    assert {name.split("/")[0] for name in others} == {"house007"}
    assert {name.split("/")[1] for name in others} == {"room0", "room1", "room3"}


def test_frames_that_are_alike_look_at_equal_furniture() -> None:
    """Seen from the frame, a piece of furniture lies in the picture, and one of its kind in the other."""
    dataset = opened("simulator:test")
    found = [
        (name, other, pair)
        for name in ("house001/room0/outward0", "house001/room1/centred1")
        for other in dataset.elsewhere(name)[:6]
        for pair in dataset.alike(name, other)[:3]
    ]
    assert len(found) > 5
    for name, other, pair in found:
        kinds = []
        for scene, frame in zip((name, other), pair, strict=True):
            house, room = int(scene[5:8]), int(scene[13])
            T = dataset.scene(scene).frame(frame).T_world_camera
            pieces = room_of(Split.TEST, house, room).pieces_m
            points = rigid.transform(rigid.inverse(T), pieces)
            before = (points[:, 2] > 0.4) & (np.abs(points[:, 0]) < 0.8 * points[:, 2])
            kinds.append(set(pieces[before, 2].tolist()))
        assert kinds[0] & kinds[1]


def test_pairs_are_drawn_of_it() -> None:
    rule = PairRule(yaw_deg=(50.0, 90.0), count=2, per_scene=1, context=1, elsewhere=2)
    drawn = list(draw(opened("simulator:validation"), rule))
    assert len(drawn) == 4
    for pair in drawn[:2]:
        assert 50.0 <= pair.yaw_deg < 90.0
        assert len(pair.between) == 3
        assert pair.kind in ("outward", "centred")
    for pair in drawn[2:]:
        assert pair.scene.split("/")[0] == pair.target_scene.split("/")[0]
        assert pair.scene.split("/")[1] != pair.target_scene.split("/")[1]


def test_a_walk_that_found_no_way_has_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise BadInputError("no way")

    monkeypatch.setattr("pose_bridge.simulation.walks.walk", nowhere)
    assert opened("simulator:test").scene("house000/room0/outward0").frames == []


@pytest.mark.parametrize("spec", ["simulator:", "simulator:exam"])
def test_there_are_three_splits(spec: str) -> None:
    with pytest.raises(BadInputError, match="simulator:test"):
        opened(spec)


@pytest.mark.parametrize(
    "name", ["", "kitchen", "house000/room0/centred0", "house000/room9/outward0", "house000/room0/outward0x"]
)
def test_scenes_that_there_are_not(name: str) -> None:
    with pytest.raises(BadInputError, match="has no scene"):
        opened("simulator:test").scene(name)
