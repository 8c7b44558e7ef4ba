# SPDX-License-Identifier: Apache-2.0
"""Which videos are made, and which are not worth looking at."""

from __future__ import annotations

import numpy as np
import pytest

from pose_bridge.config import LtxConfig
from pose_bridge.generators import base
from pose_bridge.generators.base import Take
from pose_bridge.geometry.cameras import Camera

KEPT = LtxConfig().max_end_difference


def test_every_prompt_in_both_orders_and_then_other_noise() -> None:
    plan = base.takes(2, 6, seed=7)
    assert plan == [
        Take(prompt=0, reversed=False, seed=7),
        Take(prompt=0, reversed=True, seed=7),
        Take(prompt=1, reversed=False, seed=7),
        Take(prompt=1, reversed=True, seed=7),
        Take(prompt=0, reversed=False, seed=8),
        Take(prompt=0, reversed=True, seed=8),
    ]
    assert len({*base.takes(1, 10, seed=0)}) == 10


def video() -> tuple[np.ndarray, list[np.ndarray]]:
    """A picture that becomes another one."""
    rng = np.random.default_rng(0)
    first, last = (rng.uniform(20, 230, (32, 32, 3)).astype(np.float32) for _ in range(2))
    frames = np.stack([first + share * (last - first) for share in np.linspace(0, 1, 9)]).astype(np.float32)
    return frames, [frames[0].astype(np.uint8), frames[-1].astype(np.uint8)]


def test_nothing_is_wrong_with_a_good_one() -> None:
    frames, ends = video()
    assert base.fault(frames, ends, KEPT) == ""
    assert base.fault(frames + np.float32(8.0), ends, KEPT) == ""  # a little brighter


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nan", "no number"),
        ("black", "1 frames are blank"),
        ("white", "9 frames are blank"),
        ("still", "all frames are the same"),
        ("first", "does not show the reference"),
        ("last", "does not show the target"),
        ("cut", "jumps from one picture to another"),
        ("late cut", "jumps from one picture to another"),
    ],
)
def test_what_is_wrong_is_said(how: str, said: str) -> None:
    frames, ends = video()
    if how == "nan":
        frames[4, 0, 0, 0] = np.nan
    elif how == "black":
        frames[4] = 0.0
    elif how == "white":
        frames[:] = 255.0
    elif how == "still":
        frames[:] = frames[:1]
    elif "cut" in how:
        change = 5 if how == "cut" else -1
        frames[:change], frames[change:] = frames[0].copy(), frames[-1].copy()
        frames += np.random.default_rng(1).normal(0.0, 1.0, frames.shape).astype(np.float32)
    else:
        end = 0 if how == "first" else -1
        frames[end] = frames[end, ::-1]
    assert said in base.fault(frames, ends, KEPT)


def test_two_views_of_one_thing_may_give_a_still_video() -> None:
    frames, ends = video()
    frames[:] = frames[:1]
    assert base.fault(frames, [ends[0], ends[0]], KEPT) == ""


def test_views_know_that_nobody_took_them() -> None:
    frames, _ = video()
    camera = Camera.from_focal_px(30.0, 32, 32)
    take = Take(prompt=1, reversed=True, seed=5)
    found = base.views(frames, camera, "ltx 12ab", "turn", take)
    assert len(found) == 7  # without the ends: those were seen
    assert len({view.id for view in found}) == 7
    for number, view in enumerate(found, 1):
        assert view.generated is not None
        assert (view.generated.model, view.generated.prompt) == ("ltx 12ab", "turn")
        assert (view.generated.seed, view.generated.reversed, view.generated.frame) == (5, True, number)
        np.testing.assert_array_equal(view.image, np.round(frames[number]).astype(np.uint8))
