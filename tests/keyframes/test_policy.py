# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest
from keyframe_samples import planar, texture

from pose_bridge.config import KeyframesConfig
from pose_bridge.keyframes.policy import KeyframePolicy

SHARP = texture(0)


def policy(**settings: float) -> KeyframePolicy:
    return KeyframePolicy(KeyframesConfig(**settings))


def wall(seed: int, level: int = 140) -> np.ndarray:
    """A plain wall with the camera's noise."""
    noise = np.random.default_rng(seed).normal(0.0, 1.5, (240, 320, 1))
    return np.clip(np.round(level + noise), 0, 255).astype(np.uint8).repeat(3, axis=2)


def smeared(image: np.ndarray, along: int, length_px: int = 13) -> np.ndarray:
    size = (length_px, 1) if along == 0 else (1, length_px)
    noise = np.random.default_rng(1).normal(0.0, 1.5, image.shape)
    return np.clip(cv2.blur(image, size) + noise, 0, 255).astype(np.uint8)


# --- moved


@pytest.mark.parametrize(
    ("T", "verdict"),
    [
        (planar(0.24, 0.0), "has not moved"),
        (planar(0.0, 0.26), ""),
        (planar(0.0, 0.0, 14.5), "has not moved"),
        (planar(0.0, 0.0, -15.5), ""),
        (planar(0.0, 0.0, 180.0), ""),
    ],
)
def test_moved_or_turned_by_odometry(T: np.ndarray, verdict: str) -> None:
    judge = policy()
    start = planar(4.0, -2.0, 70.0)
    assert judge.judge(SHARP, start) == ""
    assert judge.judge(SHARP, start @ T) == verdict


def test_against_the_last_one_kept_not_the_last_one_seen() -> None:
    judge = policy()
    kept = [x for x in np.arange(0.0, 2.01, 0.1) if not judge.judge(SHARP, planar(x, 0.0))]
    np.testing.assert_allclose(kept, np.arange(0.0, 2.01, 0.3))


def test_a_picture_not_kept_does_not_become_the_last_one() -> None:
    judge = policy()
    assert judge.judge(SHARP, planar(0, 0)) == ""
    assert judge.judge(np.zeros_like(SHARP), planar(1, 0)) == "badly exposed"
    assert judge.judge(SHARP, planar(1.1, 0)) == ""


def test_a_break_of_odometry_asks_for_a_new_one() -> None:
    judge = policy()
    assert judge.judge(SHARP, planar(0, 0)) == ""
    judge.reset()
    assert judge.judge(SHARP, planar(0, 0)) == ""


@pytest.mark.parametrize("last", [None, planar(0, 0)])
def test_without_odometry_by_what_it_looks_like(last: np.ndarray | None) -> None:
    judge = policy()
    assert judge.judge(SHARP, last) == ""
    for same in (SHARP, cv2.convertScaleAbs(SHARP, alpha=0.8, beta=20), np.roll(SHARP, 3, axis=1)):
        assert judge.judge(same, None) == "has not moved"
    assert judge.judge(np.roll(SHARP, 100, axis=1), None) == ""
    assert judge.judge(SHARP, None) == ""


def test_without_odometry_a_plain_wall_is_kept_once() -> None:
    judge = policy()
    verdicts = [judge.judge(wall(seed), None) for seed in range(20)]
    assert verdicts == ["", *["has not moved"] * 19]


# --- sharp


@pytest.mark.parametrize("along", [0, 1])
def test_a_smeared_picture_is_blurred(along: int) -> None:
    judge = policy()
    verdicts = [judge.judge(texture(x), planar(x, 0)) for x in range(6)]
    assert verdicts == [""] * 6
    assert judge.judge(smeared(texture(6), along), planar(6, 0)) == "blurred"
    assert judge.judge(texture(7), planar(7, 0)) == ""


def test_plain_walls_are_not_blurred() -> None:
    judge = policy()
    for x in range(6):
        judge.judge(texture(x), planar(x, 0))
    assert [judge.judge(wall(x), planar(x, 0)) for x in range(6, 12)] == [""] * 6
    assert judge.judge(texture(12), planar(12, 0)) == ""


def test_what_never_gets_sharper_is_kept_in_the_end() -> None:
    """Out of focus for good: less is better than nothing."""
    judge = policy()
    for x in range(20):
        judge.judge(texture(x), planar(x, 0))
    verdicts = [judge.judge(smeared(texture(x), 0), planar(x, 0)) for x in range(20, 40)]
    assert verdicts[0] == "blurred"
    assert verdicts[-1] == ""


def test_sharpness_that_nobody_asks_for() -> None:
    judge = policy(min_sharpness=0.0)
    for x in range(6):
        judge.judge(texture(x), planar(x, 0))
    assert judge.judge(smeared(texture(6), 0), planar(6, 0)) == ""


# --- well exposed


@pytest.mark.parametrize("level", [0, 255])
def test_black_or_white_is_badly_exposed(level: int) -> None:
    image = texture(1)
    image[:, :200] = level  # 62 %
    assert policy().judge(image, planar(0, 0)) == "badly exposed"
    assert policy(max_clipped=0.65).judge(image, planar(0, 0)) == ""


def test_only_what_may_be_used_counts() -> None:
    image, mask = texture(2), np.ones((240, 320), bool)
    image[:, :200], mask[:, :200] = 0, False
    assert policy().judge(image, planar(0, 0), mask) == ""
    assert policy().judge(image, planar(0, 0), ~mask) == "badly exposed"
    assert policy().judge(texture(2), planar(0, 0), np.zeros((240, 320), bool)) == "badly exposed"


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (700, 2), (1080, 1920)])
def test_any_size(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    assert policy().judge(image, planar(0, 0), np.ones(size, bool)) == ""
    assert policy().judge(image, None) == ""
