# SPDX-License-Identifier: Apache-2.0
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from keyframe_samples import keyframe, planar

from pose_bridge.config import AutoConfig
from pose_bridge.keyframes.keyframe import Keyframe
from pose_bridge.keyframes.pair_queue import PAIRS_PER_KEYFRAME, PairQueue

A = keyframe("a", planar(0, 0))


def queue(**settings: float) -> PairQueue:
    return PairQueue(AutoConfig(**settings))


def offered(*others: Keyframe, **settings: float) -> PairQueue:
    made = queue(**settings)
    made.offer(A, others)
    return made


@pytest.mark.parametrize(
    ("other", "is_pair"),
    [
        (keyframe("b", planar(1, 0, 29)), False),
        (keyframe("b", planar(1, 0, 31)), True),
        (keyframe("b", planar(4, 0, 180)), True),
        (keyframe("b", planar(6.3, 0, 180)), False),
        (keyframe("b", planar(5.7, 0, 180)), True),
        (keyframe("b", planar(1, 0, 90), epoch=1), False),
        (keyframe("b"), False),
    ],
)
def test_near_and_from_another_side(other: Keyframe, is_pair: bool) -> None:
    assert offered(other).take() == (("a", "b") if is_pair else None)


def test_through_the_map_between_epochs() -> None:
    made = queue()
    made.offer(keyframe("a", T_map_base=planar(0, 0)), [keyframe("b", T_map_base=planar(3, 0, 180), epoch=1)])
    assert made.take() == ("a", "b")


def test_what_looks_at_the_same_comes_first() -> None:
    back_to_back = keyframe("b", planar(-0.5, 0, 180))
    face_to_face = keyframe("c", planar(4, 0, 180))
    round_a_corner = keyframe("d", planar(1, -1, 50))
    made = offered(back_to_back, face_to_face, round_a_corner)
    taken = [made.take() for _ in range(4)]
    assert taken[0] == ("a", "d")
    assert set(taken[1:3]) == {("a", "b"), ("a", "c")}
    assert taken[2] == ("a", "b")
    assert taken[3] is None


def test_a_pair_that_is_given_back_comes_last() -> None:
    made = offered(keyframe("b", planar(1, 0, 31)), keyframe("c", planar(2, 0, 120)))
    first = made.take()
    assert first is not None
    made.give_back(first)
    assert made.take() not in (first, None)
    assert made.take() == first
    assert made.take() is None


def test_each_pair_once() -> None:
    b = keyframe("b", planar(1, 0, 90))
    made = offered(b)
    made.offer(b, [A])
    made.offer(A, [A, b])
    assert len(made) == 1
    assert made.take() == ("a", "b")
    made.offer(b, [A])
    assert made.take() is None


def test_what_was_asked_elsewhere_need_not_be() -> None:
    b = keyframe("b", planar(1, 0, 90))
    made = offered(b)
    made.done(("b", "a"))
    assert made.take() is None
    made.offer(A, [b])
    assert made.take() is None
    made.clear()
    made.offer(A, [b])
    assert made.take() == ("a", "b")


def test_pairs_of_keyframes_that_are_gone_are_forgotten() -> None:
    b, c = keyframe("b", planar(1, 0, 90)), keyframe("c", planar(1, 0, -90))
    made = offered(b, c)
    assert len(made) == 2
    made.offer(keyframe("d"), [A, c])
    assert made.take() == ("a", "c")
    assert made.take() is None


def test_no_more_than_may_wait_and_the_best_of_them() -> None:
    made = queue(max_waiting=5)
    keyframes: list[Keyframe] = []
    for n in range(12):
        keyframes.append(keyframe(n, planar(2 * np.cos(n), 2 * np.sin(n), np.degrees(n) + 180)))
        made.offer(keyframes[-1], keyframes)
        assert len(made) <= 5
    everything = queue()
    for n, one in enumerate(keyframes):
        everything.offer(one, keyframes[: n + 1])
    best = [everything.take() for _ in range(5)]
    assert [made.take() for _ in range(5)] == best
    assert None not in best


def test_a_keyframe_brings_few_pairs() -> None:
    made = offered(*(keyframe(n, planar(2, 0.1 * n, 120)) for n in range(20)))
    assert len(made) == PAIRS_PER_KEYFRAME


def test_no_pair_is_taken_twice_whoever_takes() -> None:
    made = queue(max_waiting=1000)
    keyframes = [keyframe(n, planar(0.1 * n, 0, 40 * n)) for n in range(40)]
    start = threading.Barrier(5)

    def offer() -> None:
        start.wait(10)
        for one in keyframes:
            made.offer(one, keyframes)

    def take() -> list:
        start.wait(10)
        return [pair for pair in (made.take() for _ in range(300)) if pair is not None]

    with ThreadPoolExecutor(5) as pool:
        offering = [pool.submit(offer) for _ in range(2)]
        taking = [pool.submit(take) for _ in range(3)]
        for one in offering:
            one.result(timeout=60)
        taken = [pair for one in taking for pair in one.result(timeout=60)]
    while (pair := made.take()) is not None:
        taken.append(pair)
    assert len(taken) > 20
    assert len(set(taken)) == len(taken)
