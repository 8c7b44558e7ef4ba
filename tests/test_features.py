# SPDX-License-Identifier: Apache-2.0
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from pose_bridge import features
from pose_bridge.config import FeaturesConfig, ViewsConfig
from pose_bridge.errors import BadImageError
from pose_bridge.features import Features, FeatureStore, Once
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

SETTINGS = FeaturesConfig()
SIZES = ViewsConfig()


def texture(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Blots of all sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for sigma in (1.5, 3.0, 6.0, 12.0):
        total += sigma * cv2.GaussianBlur(rng.normal(0.0, 1.0, (height, width)), (0, 0), sigma)
    total = 127 + 50 * total / total.std()
    return np.repeat(np.clip(total, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def view(image: np.ndarray, **known: object) -> View:
    height, width = image.shape[:2]
    return View(**{"id": "v", "image": image, "camera": Camera.from_focal_px(300.0, width, height), **known})


def extract(of: View, wide: bool = False, settings: FeaturesConfig = SETTINGS, **sizes: int) -> Features:
    return features.extract(of, settings, ViewsConfig(**sizes), wide=wide)


def blobs(centres: np.ndarray, size: tuple[int, int], sigma_px: float) -> np.ndarray:
    """Gaussian blobs; centres in coordinates where pixel centres are at + 0.5."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    total = np.zeros(size)
    for x, y in centres:
        total += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma_px**2))
    return np.repeat((20 + 200 * np.clip(total, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


CENTRES = np.array([[80.0, 60.0], [200.3, 70.7], [120.5, 150.5], [251.25, 180.75]])


def nearest_px(points_px: np.ndarray, centre: np.ndarray) -> float:
    return float(np.linalg.norm(points_px - centre, axis=1).min(initial=np.inf))


# --- where keypoints are


@pytest.mark.parametrize("centre", CENTRES, ids=str)
def test_pixel_centres_are_at_one_half(centre: np.ndarray) -> None:
    found = extract(view(blobs(CENTRES, (240, 320), 4.0)))
    assert nearest_px(found.points_px, centre) < 0.1


@pytest.mark.parametrize("tilt", [1.5, 2.0])
@pytest.mark.parametrize("centre", CENTRES, ids=str)
def test_so_they_are_in_simulated_views(centre: np.ndarray, tilt: float) -> None:
    image = view(blobs(CENTRES, (240, 320), 4.0))
    gray = cv2.cvtColor(image.image, cv2.COLOR_RGB2GRAY)
    apart_px = [
        nearest_px(features._tilted_sift(gray, tilt, direction_rad, SETTINGS)[0], centre)
        for direction_rad in np.arange(5) * np.pi / 5
    ]
    found = [
        distance for distance in apart_px if distance < 10
    ]  # long shapes are left out, some of these are
    assert found
    assert max(found) < 0.5


@pytest.mark.parametrize("factor", [2, 3])
def test_so_they_are_in_large_images_that_are_reduced(factor: int) -> None:
    found = extract(
        view(blobs(factor * CENTRES, (240 * factor, 320 * factor), 4.0 * factor)), max_side_px=320
    )
    for centre in factor * CENTRES:
        assert nearest_px(found.points_px, centre) < 0.1 * factor


def test_rays_belong_to_the_pixels() -> None:
    camera = Camera.from_opencv(
        [[300, 0, 160], [0, 310, 118], [0, 0, 1]], [-0.2, 0.05, 0.001, 0.0], width=320, height=240
    )
    found = extract(view(texture(0), camera=camera), wide=True)
    np.testing.assert_array_equal(found.points, camera.normalize(found.points_px))
    rays = np.c_[found.points, np.ones(len(found.points))]
    np.testing.assert_allclose(camera.project(rays), found.points_px, atol=1e-3)


# --- what is kept


@pytest.mark.parametrize("wide", [False, True])
def test_indices_and_descriptors_fit(wide: bool) -> None:
    found = extract(view(texture(1)), wide)
    assert len(found.points) == len(found.points_px) > 100
    assert found.descriptors.shape == (len(found.owner), 128)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1.0, atol=1e-3)
    np.testing.assert_array_equal(np.unique(found.owner), np.arange(len(found.points)))
    assert found.owner[: found.plain_descriptors].max() + 1 == found.plain_points
    assert (found.plain_points < len(found.points)) == wide


def test_wide_features_begin_with_the_plain_ones() -> None:
    mask = np.ones((240, 320), bool)
    mask[:, :100] = False
    for image in (view(texture(2)), view(texture(2), mask=mask)):
        plain, wide = extract(image), extract(image, True)
        points, descriptors = wide.plain_points, wide.plain_descriptors
        assert len(plain.points) == plain.plain_points == points
        np.testing.assert_array_equal(plain.points_px, wide.points_px[:points])
        np.testing.assert_array_equal(plain.descriptors, wide.descriptors[:descriptors])
        np.testing.assert_array_equal(plain.owner, wide.owner[:descriptors])


@pytest.mark.parametrize("wide", [False, True])
def test_what_the_mask_hides_is_not_used(wide: bool) -> None:
    mask = np.zeros((240, 320), bool)
    mask[60:180, 80:240] = True
    everything, found = extract(view(texture(3)), wide), extract(view(texture(3), mask=mask), wide)
    assert 20 < len(found.points) < len(everything.points)
    columns, rows = found.points_px.astype(int).T
    assert mask[rows, columns].all()
    inside = mask[everything.points_px[:, 1].astype(int), everything.points_px[:, 0].astype(int)]
    np.testing.assert_array_equal(everything.points_px[inside], found.points_px)
    np.testing.assert_array_equal(everything.descriptors[inside[everything.owner]], found.descriptors)


def test_nothing_to_see() -> None:
    for image in (np.zeros((240, 320, 3), np.uint8), np.full((240, 320, 3), 255, np.uint8)):
        for wide in (False, True):
            found = extract(view(image), wide)
            assert found.points.shape == found.points_px.shape == (0, 2)
            assert len(found.owner) == len(found.descriptors) == found.plain_points == 0
            assert features.match(found, found, 0.8, wide=wide).shape == (0, 2)
    hidden = extract(view(texture(4), mask=np.zeros((240, 320), bool)))
    assert len(hidden.points) == len(hidden.descriptors) == 0


@pytest.mark.parametrize("size", [(63, 500), (500, 63), (1, 1)])
def test_small_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(BadImageError, match="64 px"):
        extract(view(np.full((*size, 3), 127, np.uint8)))
    extract(view(texture(5, 64, 64)))


def test_no_more_than_asked_for() -> None:
    for count in (50, 120):
        found = extract(view(texture(6)), settings=FeaturesConfig(max_features=count))
        assert count / 2 < len(found.points) <= count + 1  # SIFT keeps ties


# --- matches


def warped(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """By an affine map of pixel coordinates with centres at + 0.5."""
    moved = np.c_[affine[:, :2], affine[:, 2] + affine[:, :2] @ [0.5, 0.5] - 0.5]
    size = image.shape[1::-1]
    return cv2.warpAffine(image, moved, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def foreshortened(factor: float, angle_rad: float = 0.0) -> np.ndarray:
    """As if the camera went round the texture: squeezed along one direction about the middle."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn = np.array([[cos, -sin], [sin, cos]])
    A = turn @ np.diag([1 / factor, 1.0]) @ turn.T
    middle = np.array([160.0, 120.0])
    return np.c_[A, middle - A @ middle]


def right(a: Features, b: Features, pairs: np.ndarray, affine: np.ndarray) -> np.ndarray:
    expected = a.points_px[pairs[:, 0]] @ affine[:, :2].T + affine[:, 2]
    return np.linalg.norm(expected - b.points_px[pairs[:, 1]], axis=1) < 3.0


def test_matches_are_one_to_one_and_right() -> None:
    affine = foreshortened(1.2)
    a, b = extract(view(texture(7))), extract(view(warped(texture(7), affine)))
    pairs = features.match(a, b, 0.8, wide=False)
    assert len(pairs) > 80
    assert right(a, b, pairs, affine).mean() > 0.95
    for side in (0, 1):
        assert len(np.unique(pairs[:, side])) == len(pairs)
    strict = features.match(a, b, 0.5, wide=False)
    np.testing.assert_array_equal(strict, pairs[: len(strict)])  # most distinct first
    other_way = features.match(b, a, 0.8, wide=False)
    assert len(set(map(tuple, other_way[:, ::-1])) & set(map(tuple, pairs))) > 0.8 * len(pairs)


@pytest.mark.parametrize("angle_rad", [0.0, 0.6])
def test_simulated_tilts_reach_further(angle_rad: float) -> None:
    affine = foreshortened(3.0, angle_rad)
    a, b = (extract(view(image), True) for image in (texture(8), warped(texture(8), affine)))
    plain, wide = (features.match(a, b, 0.8, wide=wide) for wide in (False, True))
    assert right(a, b, wide, affine).sum() > 2 * right(a, b, plain, affine).sum()
    assert right(a, b, wide, affine).sum() > 20


def test_pictures_of_different_things_hardly_match() -> None:
    a, b = extract(view(texture(9))), extract(view(texture(10)))
    assert len(features.match(a, b, 0.8, wide=False)) < 0.05 * len(a.points)


def test_a_repeated_pattern_does_not_match() -> None:
    """Its best place is not better than the next one."""
    tile = texture(11, 80, 80)
    a, b = extract(view(tile)), extract(view(np.tile(tile, (3, 4, 1))))
    assert len(features.match(a, b, 0.8, wide=False)) < 0.2 * len(a.points)


# --- extracted once


def test_extracted_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], features.extract

    def slow(*arguments: object, **options: object) -> Features:
        calls.append(options)
        time.sleep(0.05)
        return original(*arguments, **options)

    monkeypatch.setattr(features, "extract", slow)
    store, together = FeatureStore(SETTINGS, SIZES), threading.Barrier(8)
    image = texture(12)

    def ask(number: int) -> Features:
        together.wait()
        return store.features(view(image, id=f"v{number}"), wide=True)  # by what it shows, not by its name

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(calls) == 1
    assert all(one is found[0] for one in found)
    assert store.features(view(image)) is found[0]  # the plain ones are its beginning
    assert len(calls) == 1
    store.features(view(image, mask=np.ones((240, 320), bool)))  # another mask is another view
    assert len(calls) == 2


def test_matches_are_remembered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], features.match

    def count(*arguments: object, **options: object) -> np.ndarray:
        calls.append(options)
        return original(*arguments, **options)

    monkeypatch.setattr(features, "match", count)
    store, a, b = FeatureStore(SETTINGS, SIZES), view(texture(13)), view(texture(14))
    assert store.matches(a, b) is store.matches(a, b)
    assert len(calls) == 1
    store.matches(a, b, wide=True)
    assert len(calls) == 2


def test_an_error_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    original, fail = features.extract, [MemoryError("once")]

    def sometimes(*arguments: object, **options: object) -> Features:
        if fail:
            raise fail.pop()
        return original(*arguments, **options)

    monkeypatch.setattr(features, "extract", sometimes)
    store, image = FeatureStore(SETTINGS, SIZES), view(texture(15))
    with pytest.raises(MemoryError):
        store.features(image)
    assert len(store.features(image).points) > 0


def test_those_who_wait_hear_of_the_error() -> None:
    once: Once[int] = Once(4)
    started = threading.Event()

    def fails() -> int:
        started.set()
        time.sleep(0.1)
        raise ValueError("no")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(once.get, ("key",), fails)
        started.wait()
        second = pool.submit(once.get, ("key",), fails)
        for asked in (first, second):
            with pytest.raises(ValueError, match="no"):
                asked.result(timeout=5)
    assert once.get(("key",), lambda: 3) == 3


def test_only_so_much_is_remembered() -> None:
    once: Once[int] = Once(2)
    for key in (1, 2, 1, 3):  # 2 was not used for longest
        once.get((key,), lambda key=key: key)
    assert [once.has((key,)) for key in (1, 2, 3)] == [True, False, True]
    assert once.get((2,), lambda: 5) == 5


def test_a_view_changed_is_another_view() -> None:
    base = view(texture(16))
    mask = np.ones((240, 320), bool)
    mask[0, 0] = False
    brighter = base.image.copy()
    brighter[0, 0, 0] ^= 1
    others = [
        dataclasses.replace(base, mask=mask),
        dataclasses.replace(base, image=brighter),
        dataclasses.replace(base, camera=Camera.from_focal_px(301.0, 320, 240)),
    ]
    prints = {one.fingerprint for one in (base, *others)}
    assert len(prints) == 4
    assert dataclasses.replace(base, id="other", stamp_ns=5).fingerprint == base.fingerprint
