# SPDX-License-Identifier: Apache-2.0
"""Local features and matches of views: root-SIFT, plain and with simulated tilts, extracted once and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pose_bridge.config import FeaturesConfig, ViewsConfig
from pose_bridge.errors import BadImageError
from pose_bridge.views import View

SAME_PLACE_PX = 4.0  # a second best match this near to the best one is the same point, not a rival
MERGE_PX = 1.5  # keypoints of simulated views this near to a keypoint of the view itself are that keypoint
# OpenCV's SIFT doubles the image first, and puts keypoints this much too far right and down
SIFT_SHIFT_PX = 0.25
MATCH_ROWS = 2048  # rows of the similarity matrix that are held at a time

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Features:
    """Keypoints of one view and their descriptors; a keypoint may own several.

    Attributes:
        points_px: (N, 2), pixel centres at + 0.5. The first `plain_points` come from the view as it is.
        points: The same on the plane z = 1 of the undistorted camera, (N, 2).
        descriptors: Root-SIFT of unit length, float32 (M, 128). The first `plain_descriptors` come from the
            view as it is, the rest from simulated tilts.
        owner: Keypoint of each descriptor, (M,).
    """

    points_px: NDArray[np.float64]
    points: NDArray[np.float64]
    descriptors: NDArray[np.float32]
    owner: NDArray[np.intp]
    plain_points: int
    plain_descriptors: int


def extract(view: View, settings: FeaturesConfig, views: ViewsConfig, *, wide: bool) -> Features:
    """Find the view's local features.

    Args:
        view: The view; larger images than `views.max_side_px` are reduced first, coordinates stay the view's
            own.
        settings: How many and how faint.
        views: Size limits.
        wide: Also describe the view as it would look tilted, for matches across wide baselines (Morel and
            Yu, ASIFT: A new framework for fully affine invariant image comparison, 2009). The plain ones
            come first, unchanged.

    Raises:
        BadImageError: The image is smaller than `views.min_side_px`.
    """
    gray, scale = _reduced_gray(view, views)
    points, descriptors = _sift(gray, None, settings.max_features, settings.contrast_threshold)
    clouds, plain = [points], len(points)
    for level in range(1, settings.tilt_levels + 1) if wide else ():
        directions = settings.tilt_directions * 2 ** (level - 1)
        for direction in np.arange(directions) * (np.pi / directions):
            points, tilted = _tilted_sift(gray, 2.0**level, direction, settings)
            clouds.append(points)
            descriptors = np.vstack([descriptors, tilted])
    keypoints, owner = _merge(np.vstack(clouds), plain)
    return _usable(view, keypoints / scale, descriptors, owner, plain)


def _reduced_gray(view: View, views: ViewsConfig) -> tuple[NDArray[Any], float]:
    height, width = view.image.shape[:2]
    if min(height, width) < views.min_side_px:
        raise BadImageError(
            f"view {view.id}: {width}x{height} is too small; the shorter side needs {views.min_side_px} px"
        )
    gray = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, views.max_side_px / max(height, width))
    if scale < 1.0:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return gray, scale


def _sift(
    gray: NDArray[Any], mask: NDArray[Any] | None, limit: int, contrast: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    detector = cv2.SIFT.create(nfeatures=limit, contrastThreshold=contrast)
    keypoints, descriptors = detector.detectAndCompute(gray, mask)
    if descriptors is None:
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    # Arandjelovic and Zisserman, Three things everyone should know to improve object retrieval, 2012
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return np.array([keypoint.pt for keypoint in keypoints]) + 0.5 - SIFT_SHIFT_PX, root


def _tilted_sift(
    gray: NDArray[Any], tilt: float, direction_rad: float, settings: FeaturesConfig
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """SIFT of the image as a camera tilted about `direction_rad` sees it, in the image's own coordinates."""
    height, width = gray.shape
    cos, sin = np.cos(direction_rad), np.sin(direction_rad)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ np.array(
        [[cos, sin], [-sin, cos]]
    )
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    rotate = np.array([[cos, -sin, -low[0]], [sin, cos, -low[1]]])
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    turned = cv2.warpAffine(gray, rotate, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # the blur that a camera's pixels would add when they see the squeezed direction
    blurred = cv2.GaussianBlur(turned, (0, 0), sigmaX=0.8 * np.sqrt(tilt**2 - 1), sigmaY=0.01)
    squeeze = np.diag([1 / tilt, 1.0])
    affine = squeeze @ rotate
    size = (int(size[0] / tilt), size[1])
    tilted = cv2.warpAffine(blurred, np.c_[squeeze, np.zeros(2)], size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.full_like(gray, 255), affine, size, flags=cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((7, 7), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    points, descriptors = _sift(tilted, inside, settings.tilt_max_features, settings.tilt_contrast_threshold)
    integer_centred = points - 0.5 - affine[:, 2]
    return integer_centred @ np.linalg.inv(affine[:, :2]).T + 0.5, descriptors


def _merge(points: NDArray[np.float64], plain: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Give every descriptor a keypoint; those of tilted views a plain one where there is one nearby."""
    keypoints, owner = _unique_rows(points[:plain], 0.01)
    rest = points[plain:]
    if not len(rest):
        return keypoints, owner
    nearest = np.zeros(len(rest), np.intp)
    near = np.zeros(len(rest), bool)
    if len(keypoints):
        squared = (
            np.sum(rest**2, axis=1)[:, None] - 2 * rest @ keypoints.T + np.sum(keypoints**2, axis=1)[None, :]
        )
        nearest = squared.argmin(axis=1)
        near = squared[np.arange(len(rest)), nearest] < MERGE_PX**2
    new_keypoints, new_owner = _unique_rows(rest[~near], MERGE_PX)
    rest_owner = nearest
    rest_owner[~near] = new_owner + len(keypoints)
    return np.vstack([keypoints, new_keypoints]), np.concatenate([owner, rest_owner])


def _unique_rows(points: NDArray[np.float64], cell_px: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    if not len(points):
        return points, np.empty(0, np.intp)
    _, first, inverse = np.unique(np.floor(points / cell_px), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as they came: strongest first within one detection
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return points[first[order]], rank[inverse.reshape(-1)]


def _usable(
    view: View,
    keypoints_px: NDArray[np.float64],
    descriptors: NDArray[np.float32],
    owner: NDArray[np.intp],
    plain_descriptors: int,
) -> Features:
    """Leave out what the mask hides or the lens model cannot undistort."""
    points = view.camera.normalize(keypoints_px)
    keep = np.asarray(np.isfinite(points).all(axis=1))
    if view.mask is not None:
        columns = np.clip(keypoints_px[:, 0].astype(int), 0, view.camera.width - 1)
        rows = np.clip(keypoints_px[:, 1].astype(int), 0, view.camera.height - 1)
        keep &= view.mask[rows, columns]
    kept_descriptors = keep[owner] if len(owner) else np.empty(0, bool)
    plain_keypoints = int(owner[:plain_descriptors].max()) + 1 if plain_descriptors else 0
    return Features(
        points_px=keypoints_px[keep],
        points=points[keep],
        descriptors=descriptors[kept_descriptors],
        owner=(np.cumsum(keep) - 1)[owner[kept_descriptors]],
        plain_points=int(keep[:plain_keypoints].sum()),
        plain_descriptors=int(kept_descriptors[:plain_descriptors].sum()),
    )


def match(a: Features, b: Features, ratio: float, *, wide: bool) -> NDArray[np.intp]:
    """Match keypoints that are each other's best, and clearly better than any other place.

    Args:
        a: Features of one view.
        b: Features of the other.
        ratio: Largest distance relative to the best other place in b.
        wide: Use the descriptors of simulated tilts too.

    Returns:
        Keypoint indices (N, 2), most distinct first; a keypoint appears once.
    """
    owner_a, owner_b = (f.owner if wide else f.owner[: f.plain_descriptors] for f in (a, b))
    descriptors_a, descriptors_b = a.descriptors[: len(owner_a)], b.descriptors[: len(owner_b)]
    if len(owner_a) < 2 or len(owner_b) < 2:
        return np.empty((0, 2), np.intp)
    rows, columns, similarity = _mutual_best(descriptors_a, descriptors_b)
    if not len(rows):
        return np.empty((0, 2), np.intp)
    rival = _best_elsewhere(descriptors_a[rows] @ descriptors_b.T, b.points_px[owner_b], columns)
    quotient = np.sqrt(np.maximum(1 - similarity, 1e-9) / np.maximum(1 - rival, 1e-9))
    order = np.argsort(quotient, kind="stable")
    order = order[quotient[order] < ratio]
    pairs = np.stack([owner_a[rows[order]], owner_b[columns[order]]], axis=1)
    for side in (0, 1):
        _, first = np.unique(pairs[:, side], return_index=True)
        pairs = pairs[np.sort(first)]
    return pairs


def _mutual_best(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    best_of_a = np.empty(len(a), np.intp)
    similarity = np.empty(len(a), np.float32)
    highest_of_b = np.full(len(b), -np.inf, np.float32)
    for start in range(0, len(a), MATCH_ROWS):
        block = a[start : start + MATCH_ROWS] @ b.T
        best = block.argmax(axis=1)
        best_of_a[start : start + len(block)] = best
        similarity[start : start + len(block)] = block[np.arange(len(block)), best]
        np.maximum(highest_of_b, block.max(axis=0), out=highest_of_b)
    rows = np.nonzero(similarity >= highest_of_b[best_of_a])[0]
    return rows, best_of_a[rows], similarity[rows]


def _best_elsewhere(
    similarity: NDArray[np.float32], places_px: NDArray[np.float64], best: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Per row, the largest similarity in columns elsewhere than the best one. Overwrites `similarity`."""
    found = np.full(len(similarity), -1.0, np.float32)
    rows, columns = np.arange(len(similarity)), best
    while len(rows):
        similarity[rows, columns] = -1.0  # same place: out of the way, and look for the next best
        columns = similarity[rows].argmax(axis=1)
        values = similarity[rows, columns]
        apart_px = np.linalg.norm(places_px[columns] - places_px[best[rows]], axis=1)
        done = (apart_px > SAME_PLACE_PX) | (values <= -1.0)
        found[rows[done]] = values[done]
        rows, columns = rows[~done], columns[~done]
    return found


class Once(Generic[T]):
    """Computes a value per key once, whoever asks first; others wait. Keeps the most recently used ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._futures: OrderedDict[tuple[object, ...], Future[T]] = OrderedDict()

    def get(self, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        """Return what is known under the key, or compute it; an error is not remembered."""
        with self._lock:
            future = self._futures.get(key)
            mine = future is None
            if future is None:
                future = self._futures[key] = Future()
                while len(self._futures) > self._limit:
                    self._futures.popitem(last=False)
            else:
                self._futures.move_to_end(key)
        if mine:
            try:
                future.set_result(compute())
            except BaseException as error:
                with self._lock:
                    self._futures.pop(key, None)  # the next one tries again
                future.set_exception(error)
        return future.result()

    def has(self, key: tuple[object, ...]) -> bool:
        """Whether the value is known or under way."""
        with self._lock:
            return key in self._futures


class FeatureStore:
    """Features and matches of views, by what the picture shows, for as many threads as like to ask."""

    def __init__(self, settings: FeaturesConfig, views: ViewsConfig) -> None:
        self.settings = settings
        self.views = views
        self._features: Once[Features] = Once(2 * settings.cache_views)
        self._matches: Once[NDArray[np.intp]] = Once(60 * settings.cache_views)

    def accepts(self, view: View) -> bool:
        """Whether the picture is large enough to have features."""
        return min(view.image.shape[:2]) >= self.views.min_side_px

    def features(self, view: View, *, wide: bool = False) -> Features:
        """Return the view's features; extracted at the first call.

        Raises:
            BadImageError: The image is too small.
        """
        if wide:
            return self._features.get(
                (view.fingerprint, True), lambda: extract(view, self.settings, self.views, wide=True)
            )
        if self._features.has((view.fingerprint, True)):  # holds the plain ones as its beginning
            return self.features(view, wide=True)
        return self._features.get(
            (view.fingerprint, False), lambda: extract(view, self.settings, self.views, wide=False)
        )

    def matches(self, a: View, b: View, *, wide: bool = False) -> NDArray[np.intp]:
        """Return keypoint indices (N, 2) of the two views' matches, most distinct first."""
        return self._matches.get(
            (a.fingerprint, b.fingerprint, wide),
            lambda: match(
                self.features(a, wide=wide), self.features(b, wide=wide), self.settings.ratio, wide=wide
            ),
        )
