# SPDX-License-Identifier: Apache-2.0
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyframe_samples import SECOND_NS, T_BASE_CAMERA, ids, keyframe, planar

from pose_bridge.config import KeyframesConfig
from pose_bridge.errors import BadInputError, UnknownKeyframeError
from pose_bridge.keyframes import sight
from pose_bridge.keyframes.buffer import KeyframeBuffer
from pose_bridge.keyframes.keyframe import Keyframe


def buffer(max_count: int = 100, **settings: float) -> KeyframeBuffer:
    return KeyframeBuffer(KeyframesConfig(max_count=max_count, **settings))


def filled(*keyframes: Keyframe, max_count: int = 100) -> KeyframeBuffer:
    made = buffer(max_count)
    for one in keyframes:
        made.add(one)
    return made


# --- what it holds


def test_by_id_and_in_order() -> None:
    held = filled(keyframe(2), keyframe(1), keyframe(3))
    assert ids(held.all()) == ["2", "1", "3"]
    assert held.get("1").id == "1"
    assert len(held) == 3
    with pytest.raises(UnknownKeyframeError, match="'4'"):
        held.get("4")


def test_an_id_is_given_once() -> None:
    held = filled(keyframe(1))
    with pytest.raises(BadInputError, match="'1'"):
        held.add(keyframe(1))
    with pytest.raises(BadInputError, match="same id"):
        held.replace([keyframe(2), keyframe(2)])
    assert ids(held.all()) == ["1"]


def test_by_time() -> None:
    held = filled(*(keyframe(n) for n in (1, 2, 3)))
    assert held.at(2 * SECOND_NS).id == "2"
    assert held.at(2 * SECOND_NS + 49_000_000).id == "2"
    assert held.at(2 * SECOND_NS - 49_000_000).id == "2"
    with pytest.raises(UnknownKeyframeError, match=r"the nearest, 2, is 0\.060 s"):
        held.at(2 * SECOND_NS + 60_000_000)
    with pytest.raises(UnknownKeyframeError, match="there are none"):
        buffer().at(0)


def test_of_two_at_one_time_the_later_one() -> None:
    held = filled(keyframe("old", stamp_ns=5), keyframe("new", stamp_ns=5))
    assert held.at(5).id == "new"


def test_mapped_and_of_an_epoch() -> None:
    held = filled(keyframe(1), keyframe(2, T_map_base=np.eye(4)), keyframe(3, epoch=1))
    assert ids(held.mapped()) == ["2"]
    assert ids(held.of_epoch(0)) == ["1", "2"]
    held.clear()
    assert held.all() == []


def test_map_poses_of_an_epoch_from_a_time_on() -> None:
    held = filled(
        *(keyframe(n, planar(n, 0), epoch=n // 3) for n in range(6)),
        keyframe(6, None, epoch=1),  # without odometry there is nothing to place
    )
    T_map_odom = planar(10.0, 5.0, 90.0)
    assert held.with_map_poses(T_map_odom, 1, 4 * SECOND_NS) == 2
    assert ids(held.mapped()) == ["4", "5"]
    np.testing.assert_allclose(held.get("4").T_map_base[:3, 3], [10.0, 9.0, 0.0])
    assert held.with_map_poses(T_map_odom, 1) == 3
    assert held.with_map_poses(T_map_odom, 7) == 0
    with pytest.raises(BadInputError):
        held.with_map_poses(2 * np.eye(4), 0)
    assert ids(held.mapped()) == ["3", "4", "5"]


# --- what goes when there are too many


def nearest_steps(keyframes: list[Keyframe]) -> np.ndarray:
    apart = sight.steps_between(keyframes, keyframes, KeyframesConfig())
    np.fill_diagonal(apart, np.inf)
    return apart.min(axis=1)


def test_the_most_redundant_goes() -> None:
    places = [0.0, 1.0, 2.0, 2.1, 3.1, 6.0]
    held = filled(*(keyframe(n, planar(x, 0)) for n, x in enumerate(places)), max_count=5)
    assert ids(held.all()) == ["0", "1", "3", "4", "5"] or ids(held.all()) == ["0", "1", "2", "4", "5"]


def test_of_two_the_one_with_more_company() -> None:
    places = [0.0, 1.0, 1.1, 5.0, 9.0]
    held = filled(*(keyframe(n, planar(x, 0)) for n, x in enumerate(places)), max_count=4)
    assert ids(held.all()) == ["0", "2", "3", "4"]


def test_turned_is_as_good_as_moved() -> None:
    held = filled(
        keyframe(0, planar(0, 0)),
        keyframe(1, planar(0, 0, 90)),
        keyframe(2, planar(0.2, 0)),
        keyframe(3, planar(9, 0)),
        max_count=3,
    )
    assert "1" in ids(held.all())


def test_the_newest_stays() -> None:
    held = filled(*(keyframe(n, planar(0.01 * n, 0)) for n in range(10)), max_count=3)
    assert ids(held.all())[-1] == "9"
    assert len(held) == 3


def test_without_poses_the_oldest_goes() -> None:
    held = filled(*(keyframe(n) for n in range(10)), max_count=4)
    assert ids(held.all()) == ["6", "7", "8", "9"]


def test_odometry_of_two_epochs_is_not_compared() -> None:
    held = filled(
        keyframe(0, planar(0, 0), epoch=0),
        keyframe(1, planar(0, 0), epoch=1),
        keyframe(2, planar(3, 0), epoch=1),
        keyframe(3, planar(3.1, 0), epoch=1),
        keyframe(4, planar(9.0, 0), epoch=1),
        max_count=4,
    )
    assert {"0", "1"} <= set(ids(held.all()))


def test_through_the_map_they_are() -> None:
    held = buffer(3)
    held.add(keyframe(0, planar(0, 0), epoch=0))
    held.add(keyframe(1, planar(0, 0), epoch=1))
    held.add(keyframe(2, planar(5, 0), epoch=1))
    held.with_map_poses(np.eye(4), 0)
    held.with_map_poses(np.eye(4), 1)
    held.add(keyframe(3, planar(9, 0), epoch=1))
    assert ids(held.all()) == ["1", "2", "3"]


def test_a_room_stays_covered() -> None:
    """Ten rounds through a room leave it covered, not the last round only."""
    rng = np.random.default_rng(0)
    rounds = [
        planar(2 * np.cos(a) + rng.normal(0, 0.1), 2 * np.sin(a) + rng.normal(0, 0.1), np.degrees(a))
        for a in np.arange(200) * (10 * 2 * np.pi / 200)
    ]
    held = filled(*(keyframe(n, T) for n, T in enumerate(rounds)), max_count=20)
    angles = sorted(np.arctan2(k.T_odom_base[1, 3], k.T_odom_base[0, 3]) for k in held.all())
    gaps = np.diff([*angles, angles[0] + 2 * np.pi])
    assert np.degrees(gaps.max()) < 60.0


POSES = st.lists(
    st.tuples(
        st.floats(-2, 2), st.floats(-2, 2), st.floats(-180, 180), st.integers(0, 2), st.sampled_from("omb-")
    ),
    max_size=40,
)


@given(POSES, st.integers(2, 8), st.integers(0, 40))
def test_what_is_remembered_of_distances_is_true(poses: list, max_count: int, change: int) -> None:
    held = buffer(max_count)
    for n, (x, y, yaw, epoch, known) in enumerate(poses):
        T = planar(x, y, yaw)
        held.add(
            keyframe(
                n,
                T if known in "ob" else None,
                epoch=epoch,
                T_map_base=T if known in "mb" else None,
            )
        )
        assert len(held) == min(n + 1, max_count)
        assert held.all()[-1].id == str(n)
        if n == change:
            held.with_map_poses(planar(1, 1, 45), epoch)
        elif held._nearest_steps:
            truth = nearest_steps(held.all())
            np.testing.assert_allclose(list(map(held._nearest_steps.get, ids(held.all()))), truth, atol=1e-6)


def test_too_many_at_once_are_thinned_out() -> None:
    held = buffer(10)
    held.replace([keyframe(n, planar(0.1 * n, 0)) for n in range(30)])
    x = [k.T_odom_base[0, 3] for k in held.all()]
    assert len(x) == 10
    assert np.diff(x).max() < 0.65


# --- threads


def test_for_any_thread() -> None:
    held, stop, start = buffer(30), threading.Event(), threading.Barrier(7)

    def add(thread: int) -> None:
        start.wait(10)
        for n in range(60):
            held.add(keyframe(f"{thread}_{n}", planar(n % 7, thread, 10 * n), epoch=thread))

    def read() -> int:
        start.wait(10)
        reads = 0
        while not stop.is_set():
            now = held.all()
            assert len(now) <= 30
            assert len(set(ids(now))) == len(now)
            if now:
                held.neighbours(now[-1], 3)
            held.with_map_poses(np.eye(4), reads % 4)
            reads += 1
        return reads

    with ThreadPoolExecutor(7) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        writers = [pool.submit(add, thread) for thread in range(4)]
        for writer in writers:
            writer.result(timeout=60)
        stop.set()
        assert all(reader.result(timeout=60) > 0 for reader in readers)
    assert len(held) == 30


# --- distances


def test_steps_by_hand() -> None:
    settings = KeyframesConfig(min_distance_m=0.5, min_turn_deg=10.0)
    T = np.array([planar(0, 0), planar(1, 0), planar(0, 0, 30), planar(1, 0, 30)]) @ T_BASE_CAMERA
    T[:, :3, 3] -= T[:, :3, :3] @ np.linalg.inv(T_BASE_CAMERA)[:3, 3]  # turned about the camera
    apart = sight.steps(T[:1], T, settings)[0]
    expected_m = np.linalg.norm(T[:, :3, 3] - T[0, :3, 3], axis=1)
    expected = np.hypot(expected_m / 0.5, np.array([0, 0, 3, 3]))
    np.testing.assert_allclose(apart, expected, atol=1e-6)


def test_odometry_before_the_map_within_an_epoch() -> None:
    a = keyframe(1, planar(0, 0), T_map_base=planar(0, 0))
    b = keyframe(2, planar(1, 0), T_map_base=planar(7, 0))
    c = keyframe(3, planar(1, 0), T_map_base=planar(7, 0), epoch=1)
    d = keyframe(4, planar(1, 0), epoch=1)
    T = sight.relative_poses(a, [b, c, d])
    np.testing.assert_allclose(T[0, 2, 3], 1.0)
    np.testing.assert_allclose(T[1, 2, 3], 7.0)
    assert np.isnan(T[2]).all()
    for one, other in itertools.product((a, b, c, d), repeat=2):
        apart = sight.steps_between([one], [other], KeyframesConfig())[0, 0]
        relative = sight.relative_poses(one, [other])
        expected = sight.steps(relative, np.eye(4)[None], KeyframesConfig())[0, 0]
        np.testing.assert_allclose(apart, expected, atol=1e-5)
