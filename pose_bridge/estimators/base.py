# SPDX-License-Identifier: Apache-2.0
"""What every estimator takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pose_bridge.control import Control
from pose_bridge.features import Features
from pose_bridge.geometry import rigid
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import Stage, View

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
# (a, b) with a < b, indices into the views of a problem: keypoint indices (N, 2) of their matches
PairMatches = Mapping[tuple[int, int], Indices]


@dataclass(frozen=True, eq=False)
class Problem:
    """Views, their features and matches: one question to an estimator.

    Attributes:
        views: The reference first, the target second, then the context.
        features: Of each view.
        matches: By pair of views; not verified.
        sides: 0 for views given on the reference's side, 1 for those on the target's.
        seed: Of everything random.
        level: Both sides' poses have z up, and heights above the same ground.
        mapped: The reference side's poses are a map's; a robot's odometry errs more the longer the way.
    """

    views: Sequence[View]
    features: Sequence[Features]
    matches: PairMatches
    sides: Sequence[int]
    seed: int
    level: bool = False
    mapped: bool = False

    def focal_px(self) -> float:
        """A focal length that turns normalized coordinates into pixels of a typical view."""
        return float(np.median([view.camera.mean_focal_px for view in self.views]))

    def part(self, order: Sequence[int]) -> Problem:
        """Return the problem of some of the views, in the order in which they are named."""
        index = {view: new for new, view in enumerate(order)}
        matches = {}
        for (a, b), found in self.matches.items():
            if a in index and b in index:
                new = (index[a], index[b])
                matches[min(new), max(new)] = found if new[0] < new[1] else found[:, ::-1]
        return Problem(
            [self.views[view] for view in order],
            [self.features[view] for view in order],
            matches,
            [self.sides[view] for view in order],
            self.seed,
            self.level,
            self.mapped,
        )

    def way(self, side: int) -> list[int]:
        """Return the views of a side in the order in which they were taken."""
        own = [view for view, of in enumerate(self.sides) if of == side]
        return sorted(own, key=lambda view: self.views[view].stamp_ns)


@dataclass(frozen=True, eq=False)
class Tracks:
    """Which keypoints are the same point: one row per observation.

    Attributes:
        point: Index of the point, (O,).
        view: Index of the view, (O,).
        keypoint: Index of the keypoint in its view, (O,).
    """

    point: Indices
    view: Indices
    keypoint: Indices

    def visible(self, views: int) -> NDArray[np.intp]:
        """Return which keypoint of each view shows each point, -1 for none, (points, views)."""
        table = np.full((int(self.point.max(initial=-1)) + 1, views), -1, np.intp)
        table[self.point, self.view] = self.keypoint
        return table

    def point_of(self) -> dict[tuple[int, int], int]:
        """Return which point each (view, keypoint) shows."""
        nodes = zip(self.view.tolist(), self.keypoint.tolist(), strict=True)
        return dict(zip(nodes, self.point.tolist(), strict=True))

    def where(self, keep: NDArray[np.bool_]) -> Tracks:
        """Return the observations that `keep` names, (O,), with the points left renumbered."""
        _, point = np.unique(self.point[keep], return_inverse=True)
        return Tracks(point.reshape(-1), self.view[keep], self.keypoint[keep])

    @classmethod
    def of_rows(cls, rows: Iterator[tuple[int, int, int]] | Sequence[tuple[int, int, int]]) -> Tracks:
        """Build from (point, view, keypoint) rows."""
        table = np.array(list(rows), np.intp).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Views of the target side that should show much that the reference side saw from a like direction.

    Attributes:
        denied: How many show next to nothing of it.
        confirmed: How many show a good share.
    """

    denied: int = 0
    confirmed: int = 0


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an estimator found; nobody has judged it yet.

    Attributes:
        stage: The rung it belongs to.
        estimator: Its name, for people.
        T_reference_camera: By index into the problem's views: those that took part, in one unit of length.
        tracks: The points that the cameras rest on; observations of views that took part.
        points: In the reference camera's frame, (P, 3), the same unit.
        rms_px: Root mean square of the reprojection error.
        joint_covariance: Of (dt, dr) of `covariance_views`, stacked, (6n, 6n), error model of docs/method.md
            with the reference camera fixed. The unit of length is the baseline to the target, which has no
            error, unless sides are rigid.
        covariance_views: Which views the covariance is of; the target comes first.
        translation_defined: False for pure rotation: only the rotation means something.
        witnesses: What the target side's views say to it.
        rigid_sides: Odometry holds each side together; only the gap between them can be weak. Lengths are
            metres, and the covariance holds all but the error that odometry's distances have in common.
        unleveled: If both sides were taken to be level: T_reference_target in metres as it would be without
            that, (4, 4), and the covariance of its (dt, dr), (6, 6).
    """

    stage: Stage
    estimator: str
    T_reference_camera: Mapping[int, Array]
    tracks: Tracks
    points: Array
    rms_px: float
    joint_covariance: Array
    covariance_views: tuple[int, ...]
    translation_defined: bool = True
    witnesses: Witnesses = Witnesses()
    rigid_sides: bool = False
    unleveled: tuple[Array, Array] | None = None

    @property
    def T_reference_target(self) -> Array:
        """The pair's pose, (4, 4)."""
        return self.T_reference_camera[1]

    @property
    def covariance(self) -> Array:
        """Of (dt, dr) of the target, (6, 6)."""
        return self.covariance_of(1)

    def covariance_of(self, view: int) -> Array:
        """Of (dt, dr) of one of `covariance_views`, (6, 6)."""
        start = 6 * self.covariance_views.index(view)
        return self.joint_covariance[start : start + 6, start : start + 6]


def scaled_cameras(T_reference_camera: Mapping[int, Array], factor: float) -> dict[int, Array]:
    """Return the same cameras with every distance multiplied."""
    return {view: rigid.make(T[:3, :3], factor * T[:3, 3]) for view, T in T_reference_camera.items()}


def log_depth_ratios(
    problem: Problem, view: int, T_reference_camera: Array, points: Array, tracks: Tracks
) -> Array:
    """Return the logarithm of measured over estimated depth, (N,), of the points whose depth a view measured.

    Args:
        problem: Where keypoints and depths come from.
        view: Index.
        T_reference_camera: Of the view, (4, 4).
        points: (P, 3).
        tracks: Which view shows which point where.
    """
    depth_m = problem.views[view].depth_m
    if depth_m is None:
        return np.empty(0)
    rows = tracks.view == view
    column, row = problem.features[view].points_px[tracks.keypoint[rows]].astype(int).T
    height, width = depth_m.shape
    measured = depth_m[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(float)
    estimated = rigid.transform(rigid.inverse(T_reference_camera), points[tracks.point[rows]])[:, 2]
    good = np.isfinite(measured) & (measured > 0) & (estimated > 0)
    return np.asarray(np.log(measured[good] / estimated[good]))


@dataclass(frozen=True, eq=False)
class DepthGuess:
    """A network's word on how far away everything in a view is.

    Attributes:
        camera: Whose pixels these are; its axes are the view's own camera's, its lens has no distortion.
        depth_up_to_scale: (H, W), along the optical axis, unit of the cameras; NaN outside the view.
        confidence: (H, W), the more the surer, without a unit; 0 outside.
    """

    camera: Camera
    depth_up_to_scale: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Guess:
    """A network's word on where cameras are; no tracks stand behind it.

    Attributes:
        T_reference_camera: By id of the view, the first one the identity, in one unknown unit, (4, 4).
        focal_ratio: The focal length that it sees, by the known one: far from 1, it mistakes the scene; NaN
            where no camera has its field of view.
        depths: By id of the view; empty unless asked for.
    """

    T_reference_camera: Mapping[str, Array]
    focal_ratio: Mapping[str, float]
    depths: Mapping[str, DepthGuess]


class Guesser(Protocol):
    """Views in, cameras out, without matches."""

    name: str

    def estimate_many(
        self, sets: Sequence[Sequence[View]], control: Control, depth: bool = False
    ) -> list[Guess]:
        """Guess the cameras of each set, seen from its first one.

        Raises:
            NoEstimateError: The answer is no camera.
            OutOfMemoryError: Not even one set fits.
            CancelledError, BudgetSpentError: From `control`.
        """
        ...


class Estimator(Protocol):
    """Views and matches in, cameras out."""

    name: str
    stage: Stage

    def estimate(self, problem: Problem, control: Control) -> Estimate:
        """Estimate where the target (view 1) is, seen from the reference (view 0).

        Raises:
            NoEstimateError: Nothing was found; the message says why.
            CancelledError, BudgetSpentError: From `control`.
        """
        ...
