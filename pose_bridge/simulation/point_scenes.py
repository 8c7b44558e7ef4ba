# SPDX-License-Identifier: Apache-2.0
"""Questions with known answers: rooms of textured points, full of repeated structure, and a handheld camera.

Nothing is rendered: points carry descriptors that change with the viewing direction and are matched by
`features.match`. Wrong links between views arise by themselves, where motifs and furniture repeat or where
descriptors chance to be alike.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pose_bridge import features
from pose_bridge.config import FeaturesConfig
from pose_bridge.errors import ConfigError
from pose_bridge.estimators.base import Problem
from pose_bridge.features import Features
from pose_bridge.geometry import rigid, rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.geometry.cameras import Camera
from pose_bridge.views import View

Range = tuple[float, float]

IMAGE_SIZES = ((360, 640), (640, 480))  # width, height
MARGIN_M = 0.3  # between cameras and walls or boxes
MOST_BOX_M = 1.8
UP = np.array([0.0, 0.0, 1.0])  # of a room: z; its corner is the origin
FACING_COS = np.cos(np.radians(75.0))  # surfaces seen at a flatter angle show no keypoint
BETWEEN_VIEWS = (3, 8)
MOST_MOTIFS = 40  # in stock; few of them fill a view with copies, which cannot be matched, many mislead

# Descriptors live near a surface of few dimensions, as those of photographs do: in d dimensions the chance
# that a random best match passes the ratio test is ratio^d, 2 % in eighteen. With 128 independent numbers
# there would be none, and matching would never go wrong by chance.
LATENT_SIZE = 18
DESCRIPTOR_SIZE = 128
CHANGING = 0.7  # share of a descriptor that depends on where it is seen from


class Kind(Enum):
    """How the two sides of a question lie to each other."""

    SAME_REGION = "same region"
    PARTIAL = "partial"  # the target looks past what the reference looks at
    OPPOSITE = "opposite"  # the same objects from behind
    BETWEEN = "between"  # with views all the way from one end to the other
    PAN = "pan"  # hardly any way between the sides
    OTHER_WALL = "other wall"  # looking away from each other
    OTHER_ROOM = "other room"  # with the same motifs and furniture: there is no answer


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


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Points on surfaces.

    Attributes:
        points: (N, 3).
        frames: Along the surface, along the surface, outward: columns, (N, 3, 3).
        textures: What each looks like: row of the descriptor model's tables, (N,).
    """

    points: Array
    frames: Array
    textures: NDArray[np.intp]

    @classmethod
    def join(cls, clouds: Iterable[_Cloud]) -> _Cloud:
        points, frames, textures = zip(*((c.points, c.frames, c.textures) for c in clouds), strict=True)
        return cls(np.concatenate(points), np.concatenate(frames), np.concatenate(textures))

    def moved(self, R: Array, t: Array) -> _Cloud:
        return _Cloud(self.points @ R.T + t, R @ self.frames, self.textures)


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Upright boxes: centres (B, 3), R_world_box (B, 3, 3), half sizes (B, 3)."""

    centres: Array
    rotations: Array
    halves: Array

    def hide(self, eye: Array, points: Array) -> NDArray[np.bool_]:
        """Return which points, (N, 3), some box stands before."""
        start = np.einsum("bji,bj->bi", self.rotations, eye - self.centres)
        way = np.einsum("bji,nj->nbi", self.rotations, points - eye)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings = np.stack([(-self.halves - start) / way, (self.halves - start) / way])
        enter = crossings.min(axis=0).max(axis=2)
        leave = crossings.max(axis=0).min(axis=2)
        # a point of the box itself is entered at 1
        return np.asarray(((enter < leave) & (enter > 0.0) & (enter < 0.99)).any(axis=1))


@dataclass(frozen=True, eq=False)
class _Place:
    cloud: _Cloud
    boxes: _Boxes
    first_id: int


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

    T_world_camera, sides = _walk(rng, settings, kind, room_m, camera)
    decorator = _Decorator(rng, settings)
    here = decorator.place(room_m, T_world_camera, 0)
    places = [here, here]
    if kind is Kind.OTHER_ROOM:
        places[1] = decorator.place(room_m, T_world_camera, len(here.cloud.points))

    look = _Look(rng, settings, decorator.textures)
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


# --- where the cameras are


def _walk(
    rng: np.random.Generator, settings: PointSceneConfig, kind: Kind, room_m: Array, camera: Camera
) -> tuple[list[Array], list[int]]:
    """Return T_world_camera and the side of each view: both ends first."""
    focus, eyes = min(
        (_ends(rng, settings, kind, room_m) for _ in range(20)), key=lambda e: _outside(e[1], room_m)
    )
    eyes = np.clip(eyes, MARGIN_M, room_m - MARGIN_M)
    targets = np.array([focus, focus])
    if kind in (Kind.OTHER_WALL, Kind.PAN):  # outward
        targets = 2.0 * eyes - focus
        targets[:, 2] = focus[2]
    elif kind is Kind.PARTIAL:
        way = focus - eyes[1]
        aside = rng.choice([-1.0, 1.0]) * np.cross(way, UP) * camera.width / (2.0 * camera.mean_focal_px)
        targets[1] += rng.uniform(0.5, 1.7) * aside
    tremor_rad = np.radians(rng.uniform(1.0, 7.0))
    ends = [_looking(eye, at, rng.normal(0.0, tremor_rad, 3)) for eye, at in zip(eyes, targets, strict=True)]
    views, sides = list(ends), [0, 1]
    if kind is Kind.BETWEEN:
        count = int(rng.integers(*BETWEEN_VIEWS, endpoint=True))
        for fraction in np.linspace(0.0, 1.0, count + 2)[1:-1]:
            views.append(_looking(_on_the_way(focus, eyes, fraction), focus, rng.normal(0.0, tremor_rad, 3)))
            sides.append(int(fraction > 0.5))
        return views, sides
    for side, end in enumerate(ends):
        around_end = _steps(rng, end, int(rng.integers(*settings.context, endpoint=True)), room_m)
        views += around_end
        sides += [side] * len(around_end)
    return views, sides


def _on_the_way(focus: Array, eyes: Array, fraction: float) -> Array:
    """Return the place at a fraction of the way between two, (2, 3), on an arc around the focus."""
    around = eyes - focus
    angles = np.unwrap(np.arctan2(around[:, 1], around[:, 0]))
    radii = np.linalg.norm(around[:, :2], axis=1)
    angle, radius, height = np.stack([angles, radii, around[:, 2]]) @ (1.0 - fraction, fraction)
    return np.asarray(focus + np.array([radius * np.cos(angle), radius * np.sin(angle), height]))


def _ends(
    rng: np.random.Generator, settings: PointSceneConfig, kind: Kind, room_m: Array
) -> tuple[Array, Array]:
    """Return a point (3,), and two places around it, (2, 3), perhaps outside the room."""
    gap_deg = settings.gap_deg[0] + np.ptp(settings.gap_deg) * rng.random() ** 2  # narrow ones more often
    if kind is Kind.OPPOSITE:
        gap_deg = rng.uniform(110.0, 180.0)
    elif kind is Kind.OTHER_WALL:
        gap_deg = rng.uniform(95.0, 180.0)
    elif kind is Kind.PAN:
        gap_deg = rng.uniform(10.0, 60.0)
    focus = rng.uniform(0.0, 1.0, 3) * room_m
    if kind not in (Kind.SAME_REGION, Kind.PARTIAL, Kind.BETWEEN):
        focus = rng.uniform(0.35, 0.65, 3) * room_m
    focus[2] = rng.uniform(0.4, 1.8)
    angles = rng.uniform(0.0, 2.0 * np.pi) + np.radians([0.0, gap_deg * rng.choice([-1.0, 1.0])])
    reach_m = rng.uniform(1.2, 4.0)
    if kind in (Kind.OTHER_WALL, Kind.PAN):
        reach_m = 0.1 if kind is Kind.PAN else rng.uniform(0.1, 0.8)
    radii = reach_m * rng.uniform(0.75, 1.33, 2)
    eyes = focus + np.stack([radii * np.cos(angles), radii * np.sin(angles), np.zeros(2)], axis=1)
    eyes[:, 2] = rng.uniform(1.0, 1.8) + rng.normal(0.0, 0.1, 2)
    return focus, eyes


def _outside(eyes: Array, room_m: Array) -> float:
    return float(np.abs(eyes - np.clip(eyes, MARGIN_M, room_m - MARGIN_M)).sum())


def _looking(eye: Array, at: Array, shake_rad: Array) -> Array:
    forward = at - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, UP)
    right = right / np.linalg.norm(right)
    R_world_camera = np.stack([right, np.cross(forward, right), forward], axis=1)
    return rigid.make(R_world_camera @ rotations.so3_exp(shake_rad), eye)


def _steps(rng: np.random.Generator, end: Array, count: int, room_m: Array) -> list[Array]:
    """Return poses of a handheld camera around one end: small steps, at times on the spot."""
    stride = rng.choice([1.0, 0.05, 0.0], p=[0.75, 0.15, 0.1])
    views = [end]
    for _ in range(count):
        last = end if rng.random() < 0.4 else views[-1]
        axis = rng.normal(size=3) * (0.4, 1.0, 0.2)  # mostly turning left or right
        turn_rad = np.radians(rng.uniform(0.5, 12.0)) * axis / np.linalg.norm(axis)
        way = rng.normal(size=3) * (1.0, 1.0, 0.3)
        way_m = stride * rng.uniform(0.05, 0.4) * way / np.linalg.norm(way)
        eye = np.clip(last[:3, 3] + way_m, MARGIN_M, room_m - MARGIN_M)
        views.append(rigid.make(last[:3, :3] @ rotations.so3_exp(turn_rad), eye))
    return views[1:]


# --- what is in the room


class _Decorator:
    """Fills rooms from one stock of motifs and furniture."""

    def __init__(self, rng: np.random.Generator, settings: PointSceneConfig) -> None:
        self._rng = rng
        self._settings = settings
        self.textures = 0  # distinct ones so far
        self.repetition = float(np.clip(rng.uniform(*settings.repetition), 0.0, 1.0))
        self._texture_per_m2 = np.exp(rng.uniform(*np.log(settings.texture_per_m2)))
        self._motifs = [self._motif() for _ in range(round(np.exp(rng.uniform(0.0, np.log(MOST_MOTIFS)))))]
        self._bricks = [(np.zeros((1, 2)), self._new(1)) for _ in range(rng.integers(2, 30))]
        self._papered = rng.random()  # how much of what repeats does so on a lattice
        self._models = [
            self._box_model(
                0.5 * self.repetition * rng.random(),
                0.5,
                rng.uniform(*settings.furniture_per_m2),
                symmetric=rng.random() < 0.4,
            )
            for _ in range(rng.integers(1, 7))
        ]
        self._same_furniture = rng.random() ** 2
        self._twins = rng.random() < settings.twins

    def place(self, room_m: Array, T_world_camera: list[Array], first_id: int) -> _Place:
        """Furnish a room of this size around the cameras, of which the first two are the ends."""
        rng, clouds = self._rng, self._shell(room_m)
        boxes: list[tuple[Array, Array, Array]] = []
        eyes = np.array([T[:3, 3] for T in T_world_camera])

        def stand(model: tuple[Array, _Cloud], spot: Array, yaw_rad: float) -> None:
            half, cloud = model
            R = rotations.so3_exp(yaw_rad * UP)
            centre = np.array(
                [*spot[:2], half[2] if rng.random() < 0.7 else rng.uniform(half[2], room_m[2] - half[2])]
            )
            if ((np.abs((eyes - centre) @ R) - half).max(axis=1) > MARGIN_M).all():
                clouds.append(cloud.moved(R, centre))
                boxes.append((centre, R, half))

        distance_m = rng.uniform(1.3, 2.5)
        for T in T_world_camera[:2] if self._twins else []:
            ahead = T[:3, 3] + distance_m * rng.uniform(0.85, 1.2) * T[:3, 2]
            yaw_rad = np.arctan2(T[1, 2], T[0, 2]) + rng.normal(0.0, 0.2)
            stand(self._models[0], np.clip(ahead, 0.0, room_m), yaw_rad)
        for _ in range(rng.integers(*self._settings.boxes, endpoint=True)):
            model = self._box_model(
                self.repetition, 0.2, rng.uniform(0.4, 3.0) * self._texture_per_m2, symmetric=False
            )
            if rng.random() < self._same_furniture:
                model = self._models[rng.integers(len(self._models))]
            stand(
                model,
                rng.uniform(0.0, 1.0, 3) * room_m,
                rng.choice([0.0, 0.5 * np.pi, rng.uniform(-np.pi, np.pi)]),
            )
        centres, turns, halves = zip(*boxes, strict=True) if boxes else ((), (), ())
        standing = _Boxes(
            np.array(centres).reshape(-1, 3),
            np.array(turns).reshape(-1, 3, 3),
            np.array(halves).reshape(-1, 3),
        )
        return _Place(_Cloud.join(clouds), standing, first_id)

    def _shell(self, room_m: Array) -> list[_Cloud]:
        """Walls, floor and ceiling, some of them bare."""
        rng, half = self._rng, 0.5 * room_m
        clouds = []
        for axis, sign in itertools.product(range(3), (-1.0, 1.0)):
            density = 0.1 * rng.random() if rng.random() < 0.25 else rng.uniform(0.3, 1.5)
            if axis == 2:
                density *= 0.4 if sign < 0 else 0.1
            clouds.append(
                self._face(
                    half, axis, sign, density * self._texture_per_m2, self.repetition, outward=-1.0
                ).moved(np.eye(3), half)
            )
        return clouds

    def _box_model(
        self, repetition: float, least_m: float, per_m2: float, *, symmetric: bool
    ) -> tuple[Array, _Cloud]:
        """Half sizes, (3,), and points on all faces but the lowest; if symmetric, the same from behind."""
        half = 0.5 * np.exp(self._rng.uniform(np.log(least_m), np.log(MOST_BOX_M), 3))
        sides, top = [(0, 1.0), (1, 1.0), (0, -1.0), (1, -1.0)], (2, 1.0)
        faces = [
            self._face(half, axis, sign, per_m2, repetition, outward=1.0)
            for axis, sign in [*(sides[:2] if symmetric else sides), top]
        ]
        if symmetric:
            faces += [face.moved(np.diag([-1.0, -1.0, 1.0]), np.zeros(3)) for face in faces[:2]]
        return half, _Cloud.join(faces)

    def _face(
        self, half: Array, axis: int, sign: float, per_m2: float, repetition: float, *, outward: float
    ) -> _Cloud:
        """One painted face of a box around the origin."""
        normal = outward * sign * np.eye(3)[axis]
        along = np.eye(3)[1] if axis == 2 else UP
        frame = np.stack([np.cross(along, normal), along, normal], axis=1)
        size = 2.0 * np.abs(half @ frame[:, :2])
        spots, turns_rad, textures = self._paint(size, per_m2, repetition)
        cos, sin, zero = np.cos(turns_rad), np.sin(turns_rad), np.zeros(len(turns_rad))
        turned = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1.0], axis=1).reshape(-1, 3, 3)
        return _Cloud(spots @ frame[:, :2].T + sign * half * np.eye(3)[axis], frame @ turned, textures)

    def _paint(self, size: Array, per_m2: float, repetition: float) -> tuple[Array, Array, NDArray[np.intp]]:
        """Return spots on a face, (N, 2), from its middle, their turns (N,), and their textures (N,)."""
        rng, count = self._rng, per_m2 * float(np.prod(size))
        single = rng.poisson(count * (1.0 - repetition))
        spots, turns, textures = (
            [rng.uniform(-0.5, 0.5, (single, 2)) * size],
            [np.zeros(single)],
            [self._new(single)],
        )
        bricks = rng.random() < 0.2
        outline, ids = self._motifs[rng.integers(len(self._motifs))]
        copies = rng.poisson(count * repetition / (8 if bricks else len(outline)))
        papered = rng.random() < self._papered
        lattice = self._lattice(size, copies)
        lattice = lattice[rng.random(len(lattice)) < rng.choice([1.0, rng.random()])]
        hung = rng.permutation(max(copies, len(self._motifs))) % len(self._motifs)
        for copy in range(len(lattice) if papered else copies):
            if bricks:
                outline, ids = self._bricks[copy % len(self._bricks)]
            elif not papered:
                outline, ids = self._motifs[hung[copy]]
            turn = 0.0 if papered or rng.random() < 0.7 else rng.uniform(0.0, 2.0 * np.pi)
            R = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            middle = lattice[copy] if papered else rng.uniform(-0.5, 0.5, 2) * size
            spots.append(outline @ R.T + middle)
            turns.append(np.full(len(outline), turn))
            textures.append(ids)
        all_spots = np.concatenate(spots)
        inside = (np.abs(all_spots) <= 0.5 * size).all(axis=1)
        return all_spots[inside], np.concatenate(turns)[inside], np.concatenate(textures)[inside]

    def _lattice(self, size: Array, copies: int) -> Array:
        """Return about as many evenly spaced places on a face, (N, 2)."""
        spacing = np.sqrt(np.prod(size) / max(copies, 1))
        steps = [np.arange(-0.5 * length + 0.5 * spacing, 0.5 * length, spacing) for length in size]
        return np.stack(np.meshgrid(*steps), axis=2).reshape(-1, 2)

    def _motif(self) -> tuple[Array, NDArray[np.intp]]:
        size = np.exp(self._rng.uniform(np.log(0.1), np.log(1.0)))
        count = int(20 + 100 * size * self._rng.random())
        return self._rng.uniform(-0.5, 0.5, (count, 2)) * size * self._rng.uniform(0.5, 1.0, 2), self._new(
            count
        )

    def _new(self, count: int) -> NDArray[np.intp]:
        self.textures += count
        return np.arange(self.textures - count, self.textures, dtype=np.intp)


# --- what a view shows


class _Look:
    """How textures look from a direction, and what a detector makes of it.

    The latent vector of a texture is its own plus a random wave over the viewing direction (in the frame of
    the surface) and the logarithm of the distance: a Gaussian process of correlation exp(-d^2 / 2 reach^2).
    A random layer makes it a descriptor.

    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines, 2007, for the waves.
    """

    def __init__(self, rng: np.random.Generator, settings: PointSceneConfig, textures: int) -> None:
        self._rng = rng
        self._settings = settings
        self.reach_deg = float(rng.uniform(*settings.reach_deg))
        self._own = np.sqrt(1.0 - CHANGING) * rng.standard_normal((textures, LATENT_SIZE))
        self._phases = rng.uniform(0.0, 2.0 * np.pi, (textures, LATENT_SIZE))
        self._waves = rng.standard_normal((4, LATENT_SIZE)) / np.radians(self.reach_deg)
        self._layer = rng.standard_normal((LATENT_SIZE, DESCRIPTOR_SIZE))
        self._strength = rng.standard_normal(textures)
        self._dropout = rng.uniform(*settings.dropout)
        self._noise_px = rng.uniform(*settings.noise_px)
        self._stray = rng.uniform(*settings.stray)
        self._noise = rng.uniform(0.05, 0.2)

    def see(self, camera: Camera, T_world_camera: Array, place: _Place) -> tuple[Features, NDArray[np.intp]]:
        """Return the features of a view, and the point that each is, -1 for clutter."""
        rng, cloud = self._rng, place.cloud
        index = self._visible(camera, T_world_camera, place)
        index = index[rng.random(len(index)) > self._dropout]
        strength = self._strength[cloud.textures[index]] + rng.normal(0.0, 0.3, len(index))
        index = index[np.argsort(-strength, kind="stable")[: self._settings.max_points]]
        noise_px = self._noise_px * np.where(rng.random(len(index)) < self._stray, 10.0, 1.0)
        points_px = camera.project(rigid.transform(rigid.inverse(T_world_camera), cloud.points[index]))
        points_px += noise_px[:, None] * rng.standard_normal((len(index), 2))
        inside = ((points_px > 0.0) & (points_px < (camera.width, camera.height))).all(axis=1)
        index, points_px = index[inside], points_px[inside]

        clutter = int(rng.integers(*self._settings.clutter, endpoint=True))
        points_px = np.vstack(
            [points_px, rng.uniform(0.0, 1.0, (clutter, 2)) * (camera.width, camera.height)]
        )
        latent = np.vstack(
            [self._latent(cloud, index, T_world_camera[:3, 3]), rng.standard_normal((clutter, LATENT_SIZE))]
        )
        found = Features(
            points_px=points_px,
            points=camera.normalize(points_px),
            descriptors=self._descriptors(latent),
            owner=np.arange(len(points_px), dtype=np.intp),
            plain_points=len(points_px),
            plain_descriptors=len(points_px),
        )
        return found, np.concatenate([index + place.first_id, np.full(clutter, -1, np.intp)])

    def _visible(self, camera: Camera, T_world_camera: Array, place: _Place) -> NDArray[np.intp]:
        cloud, eye = place.cloud, T_world_camera[:3, 3]
        with np.errstate(invalid="ignore"):
            points_px = camera.project(rigid.transform(rigid.inverse(T_world_camera), cloud.points))
            shown = ((points_px > 0.0) & (points_px < (camera.width, camera.height))).all(axis=1)
        way = eye - cloud.points
        shown &= (way * cloud.frames[:, :, 2]).sum(axis=1) > FACING_COS * np.linalg.norm(way, axis=1)
        index = np.nonzero(shown)[0]
        return index[~place.boxes.hide(eye, cloud.points[index])]

    def _latent(self, cloud: _Cloud, index: NDArray[np.intp], eye: Array) -> Array:
        way = eye - cloud.points[index]
        distance = np.linalg.norm(way, axis=1, keepdims=True)
        direction = np.einsum("nji,nj->ni", cloud.frames[index], way / distance)
        textures = cloud.textures[index]
        seen_from = np.hstack([direction, 0.5 * np.log(distance)])
        return np.asarray(
            self._own[textures]
            + np.sqrt(2.0 * CHANGING) * np.cos(seen_from @ self._waves + self._phases[textures])
        )

    def _descriptors(self, latent: Array) -> NDArray[np.float32]:
        latent = latent + self._noise * self._rng.standard_normal(latent.shape)
        raw = np.maximum(latent @ self._layer - 0.5, 0.0) + 1e-3
        return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)
