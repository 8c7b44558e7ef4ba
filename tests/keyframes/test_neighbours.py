# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyframe_samples import ids, keyframe, planar

from pose_bridge.config import KeyframesConfig
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.buffer import KeyframeBuffer
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.neighbours import neighbours

SETTINGS = KeyframesConfig()
HERE = keyframe("here", planar(0, 0))


def names(others: list[Keyframe], count: int, of: Keyframe = HERE) -> list[str]:
    return ids(neighbours(of, others, count, SETTINGS))


def test_what_looks_away_is_no_neighbour() -> None:
    others = [
        keyframe("away", planar(0.3, 0, 180)),
        keyframe("aside", planar(0.3, 0, 100)),
        keyframe("beside", planar(0, 0.5)),
    ]
    assert names(others, 3) == ["beside"]


def test_what_looks_at_it_from_the_other_side_is_not_recognized() -> None:
    assert names([keyframe("opposite", planar(4, 0, 180))], 1) == []


def test_a_baseline_to_the_side_rather_than_ahead() -> None:
    others = [keyframe("behind", planar(-0.5, 0)), keyframe("beside", planar(0, 0.5))]
    assert names(others, 2) == ["beside", "behind"]


def test_on_both_sides_rather_than_side_by_side() -> None:
    others = [keyframe(f"left{n}", planar(0, 0.5 + 0.02 * n)) for n in range(3)]
    others += [keyframe("right", planar(0, -0.6))]
    assert "right" in names(others, 2)
    assert len(names(others, 4)) == 4


def test_not_the_nearest_in_time() -> None:
    now = keyframe("now", planar(0, 0), stamp_ns=100)
    others = [
        keyframe("just before", planar(0, 0, 90), stamp_ns=99),
        keyframe("long ago", planar(0, 0.6), stamp_ns=1),
    ]
    assert names(others, 1, now) == ["long ago"]


def test_of_a_robot_that_turns_in_place() -> None:
    others = [keyframe(n, planar(0, 0, 20 * n)) for n in range(1, 18)]
    assert set(names(others, 2)) == {"1", "17"} or set(names(others, 2)) == {"2", "16"}


def test_without_odometry_by_time_within_the_epoch() -> None:
    blind = keyframe(5)
    others = [keyframe(n) for n in (1, 3, 6, 9)] + [keyframe("other", stamp_ns=5 * 10**9, epoch=1)]
    assert names(others, 3, blind) == ["6", "3", "1"]
    assert names(others, 0, blind) == []


def test_through_the_map_between_epochs() -> None:
    mapped = keyframe("m", planar(5, 5), epoch=1, T_map_base=planar(0, 0))
    others = [
        keyframe("a", planar(5, 5.5), epoch=0, T_map_base=planar(0, 0.5)),
        keyframe("b", planar(5, 5.5), epoch=0),
    ]
    assert names(others, 5, mapped) == ["a"]


def test_the_buffer_asks_the_same_question() -> None:
    held = KeyframeBuffer(SETTINGS)
    others = [keyframe(n, planar(0.1 * n, 0.3 * n, 5 * n)) for n in range(8)]
    held.replace(others)
    found = ids(held.neighbours(others[0], 4))
    assert found == names(others, 4, others[0])
    assert "0" not in found
    assert len(found) == 4


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(-1, 8))
def test_each_once_and_never_itself(seed: int, size: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    others = [
        keyframe(n, planar(*rng.uniform(-2, 2, 2), rng.uniform(-180, 180)), epoch=int(rng.integers(2)))
        for n in range(size)
    ]
    found = names([*others, HERE], count)
    assert len(set(found)) == len(found) <= max(count, 0)
    assert "here" not in found
    assert all(next(o for o in others if o.id == name).epoch == 0 for name in found)
    if count > 0:
        assert names([*others, HERE], count - 1) == found[: count - 1]


# --- what is seen alike


def alike(other: Keyframe, within_deg: float = 60.0, of: Keyframe = HERE) -> float:
    return float(sight.seen_alike(of, [other], sight.relative_poses(of, [other]), within_deg)[0])


def test_the_same_place_sees_the_same() -> None:
    assert alike(HERE) == pytest.approx(1.0)
    assert alike(keyframe("k")) == 0.0  # nobody knows where it is
    assert sight.seen_alike(HERE, [], np.zeros((0, 4, 4)), 60.0).shape == (0,)


def test_less_and_less_while_turning() -> None:
    shares = [alike(keyframe("k", planar(0, 0, turn))) for turn in (0, 10, 20, 40, 60, 80)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.95
    assert shares[-1] == 0.0


def test_half_of_it_turned_by_half_the_field_of_view() -> None:
    half_deg = np.degrees(HERE.camera.field_of_view_rad[0]) / 2
    camera_mounted = keyframe("k", planar(0, 0), T_base_camera=HERE.T_base_camera)
    turned = keyframe("k", planar(0, 0, half_deg))
    assert 0.3 < alike(turned, of=camera_mounted) < 0.6


def test_what_the_mask_hides_is_not_seen() -> None:
    left = np.zeros((72, 96), bool)
    left[:, :48] = True
    turned_left, turned_right = keyframe("l", planar(0, 0, 25)), keyframe("r", planar(0, 0, -25))
    masked = keyframe("here", planar(0, 0), mask=left)
    assert alike(turned_left, of=masked) > 2 * alike(turned_right, of=masked)
    assert alike(turned_left, of=keyframe("here", planar(0, 0), mask=np.zeros((72, 96), bool))) == 0.0
