# SPDX-License-Identifier: Apache-2.0
"""Questions with known answers: rooms of textured points, full of repeated structure, and a handheld camera.

Nothing is rendered: points carry descriptors that change with the viewing direction and are matched by
`features.match`. Wrong links between views arise by themselves, where motifs and furniture repeat or where
descriptors chance to be alike.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from point_scenes.appearance import Look
from point_scenes.rooms import Decorator
from point_scenes.walks import Kind, walk

from pose_bridge import features
from pose_bridge.config import FeaturesConfig
from pose_bridge.errors import ConfigError
from pose_bridge.estimators.base import Problem
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

Range = tuple[float, float]

IMAGE_SIZES = ((360, 640), (640, 480))  # width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class PointSceneConfig:
    """What scenes are drawn from; ranges are (low, high).

    Attributes:
        weights: How often each kind comes, in the order of `Kind`.
        gap_deg: Between the directions from which the two sides look.
        context: Views around each end.
        repetition: Share of the texture that is repeated; beyond [0, 1] too, so that scenes without any and
            with nothing else are common.
        texture_per_m2: Points on walls.
        furniture_per_m2: Points on pieces of furniture that may stand in several places.
        boxes: In a room.
        twins: Share of scenes with the same piece of furniture before both ends, seen from about one side.
        focal_px: Of all views of a question.
        reach_deg: Change of viewing direction over which a descriptor becomes another; scenes that reach far
            stand for matches with simulated tilts.
        dropout: Share of the points that a view misses.
        noise_px: Standard deviation of keypoints.
        stray: Share of keypoints with ten times that.
        clutter: Keypoints per view that are no point of the scene.
        max_points: Keypoints per view that are points of the scene.
    """

    weights: tuple[float, ...] = (0.44, 0.14, 0.08, 0.08, 0.04, 0.09, 0.13)
    gap_deg: Range = (10.0, 120.0)
    context: tuple[int, int] = (0, 4)
    repetition: Range = (-0.2, 1.1)
    texture_per_m2: Range = (80.0, 500.0)
    furniture_per_m2: Range = (150.0, 800.0)
    boxes: tuple[int, int] = (2, 14)
    twins: float = 0.12
    focal_px: Range = (350.0, 700.0)
    reach_deg: Range = (30.0, 90.0)
    dropout: Range = (0.2, 0.55)
    noise_px: Range = (0.3, 1.0)
    stray: Range = (0.02, 0.05)
    clutter: tuple[int, int] = (100, 400)
    max_points: int = 1500

    def __post_init__(self) -> None:
        if len(self.weights) != len(Kind) or min(self.weights) < 0 or not sum(self.weights) > 0:
            raise ConfigError(f"weights must be {len(Kind)} numbers >= 0, not all 0, got {self.weights}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "weights" and isinstance(value, tuple) and not (value[0] <= value[1]):
                raise ConfigError(f"{field.name} must be (low, high), got {value}")


@dataclass(frozen=True, eq=False)
class SimulatedQuestion:
    """A problem and its answer.

    Attributes:
        problem: Views without a picture, with features and plain matches of all pairs.
        T_reference_camera: Of each view, metres; None for views of another room.
        point_ids: Which point of the scene each keypoint of each view is; -1 for clutter.
        kind: How the sides lie to each other.
        gap_deg: Rotation between reference and target; NaN in another room.
        repetition: Share of the texture that is repeated.
        reach_deg: Change of viewing direction over which a descriptor becomes another.
    """

    problem: Problem
    T_reference_camera: list[Array | None]
    point_ids: list[NDArray[np.intp]]
    kind: Kind
    gap_deg: float
    repetition: float
    reach_deg: float

    @property
    def T_reference_target(self) -> Array | None:
        """The answer, metres; None if there is none."""
        return self.T_reference_camera[1]


def simulate(seed: int, settings: PointSceneConfig | None = None) -> SimulatedQuestion:
    """Draw a scene and a question about it; the same seed gives the same one.

    Raises:
        ConfigError: The settings draw an impossible camera.
    """
    rng = np.random.default_rng(seed)
    settings = settings or PointSceneConfig()
    kind = list(Kind)[rng.choice(len(Kind), p=np.divide(settings.weights, sum(settings.weights)))]
    width, height = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    camera = Camera.from_focal_px(rng.uniform(*settings.focal_px), width, height)
    room_m = np.array([*rng.uniform(3.0, 7.5, 2), rng.uniform(2.4, 3.2)])

    T_world_camera, sides = walk(
        rng, kind, room_m, camera, gap_deg=settings.gap_deg, context=settings.context
    )
    decorator = Decorator(
        rng,
        repetition=settings.repetition,
        texture_per_m2=settings.texture_per_m2,
        furniture_per_m2=settings.furniture_per_m2,
        boxes=settings.boxes,
        twins=settings.twins,
    )
    here = decorator.place(room_m, T_world_camera, 0)
    places = [here, here]
    if kind is Kind.OTHER_ROOM:
        places[1] = decorator.place(room_m, T_world_camera, len(here.cloud.points))

    look = Look(
        rng,
        decorator.textures,
        reach_deg=settings.reach_deg,
        dropout=settings.dropout,
        noise_px=settings.noise_px,
        stray=settings.stray,
        clutter=settings.clutter,
        max_points=settings.max_points,
    )
    seen = [look.see(camera, T, places[side]) for T, side in zip(T_world_camera, sides, strict=True)]
    problem = Problem(
        views=[
            View(id=f"view {index}", image=_label(camera, seed, index), camera=camera)
            for index in range(len(seen))
        ],
        features=[found for found, _ in seen],
        matches={
            (a, b): features.match(seen[a][0], seen[b][0], FeaturesConfig().ratio, wide=False)
            for a, b in itertools.combinations(range(len(seen)), 2)
        },
        sides=sides,
        seed=seed,
    )
    nowhere = kind is Kind.OTHER_ROOM
    truth = [
        None if nowhere and side else rigid.relative(T_world_camera[0], T)
        for T, side in zip(T_world_camera, sides, strict=True)
    ]
    R_reference_target = T_world_camera[0][:3, :3].T @ T_world_camera[1][:3, :3]
    return SimulatedQuestion(
        problem=problem,
        T_reference_camera=truth,
        point_ids=[ids for _, ids in seen],
        kind=kind,
        gap_deg=float("nan")
        if nowhere
        else float(np.degrees(rotations.rotation_angle_rad(R_reference_target))),
        repetition=decorator.repetition,
        reach_deg=look.reach_deg,
    )


def _label(camera: Camera, seed: int, index: int) -> NDArray[np.uint8]:
    """A black image but for what makes its fingerprint, the key of caches, its own."""
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    image.reshape(-1)[:16] = np.array([seed, index], np.uint64).view(np.uint8)
    return image
