# SPDX-License-Identifier: Apache-2.0
"""View, Question, Answer: what travels through the house."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pose_bridge.errors import BadCameraError, BadImageError, BadInputError, NoEstimateError
from pose_bridge.geometry import rigid, uncertainty
from pose_bridge.geometry.cameras import Camera


class Status(IntEnum):
    """What an answer is worth."""

    NO_ESTIMATE = 0
    REJECTED = 1
    HYPOTHESIS = 2
    ACCEPTED = 3


class Reason(IntEnum):
    """Why an answer was not accepted."""

    NONE = 0
    NO_OVERLAP = 1
    WEAK_BRIDGE = 2
    AMBIGUOUS = 3
    INCONSISTENT = 4
    ODOMETRY_CONFLICT = 5
    GRAVITY_CONFLICT = 6
    LOW_PARALLAX = 7
    NO_SCALE = 8
    SCALE_CONFLICT = 9
    LOW_PROBABILITY = 10
    BUDGET = 11
    POOR_VIEWS = 12


class Translation(IntEnum):
    """How much of the translation is known."""

    UNDEFINED = 0
    DIRECTION = 1
    METRIC = 2


class Require(IntEnum):
    """How much the caller wants to know; the ladder climbs on until it does."""

    ROTATION = 0
    DIRECTION = 1
    METRIC = 2


class ScaleSource(IntEnum):
    """Where metres come from."""

    NONE = 0
    ODOMETRY = 1
    DEPTH = 2
    MODEL = 3
    MAP = 4


class Stage(IntEnum):
    """The rung that answered."""

    NONE = 0
    DIRECT = 1
    REGISTER = 2
    CONTEXT = 3
    GENERATED = 4
    HYBRID = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a picture comes from that no camera took.

    Attributes:
        model: That made it: its name and a hash of its weights.
        prompt: That it was told.
        seed: Of its noise.
        reversed: It was made from the target to the reference, and turned round.
        frame: Its number in the video, the reference being 0.
    """

    model: str
    prompt: str
    seed: int
    reversed: bool
    frame: int


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One camera view and what is known about it.

    Attributes:
        id: Name of the view, unique within a question.
        image: uint8 RGB, (H, W, 3).
        camera: Intrinsics of exactly this image.
        mask: bool (H, W), True where the picture may be used; None for everywhere.
        stamp_ns: Time of capture.
        T_side_camera: Camera pose by odometry, metric, comparable only among views of one side of a question;
            None where unknown.
        depth_m: float32 (H, W), registered to the image; NaN or 0 where unknown.
        generated: Where the picture comes from if no camera took it; None for a real one.

    Raises:
        BadImageError, BadCameraError, BadInputError: Something does not fit; the message names the view.
    """

    id: str
    image: NDArray[np.uint8]
    camera: Camera
    mask: NDArray[np.bool_] | None = None
    stamp_ns: int = 0
    T_side_camera: NDArray[np.float64] | None = None
    depth_m: NDArray[np.float32] | None = None
    generated: Origin | None = None

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise BadImageError(
                f"view {self.id}: not uint8 RGB (H, W, 3) but {self.image.dtype} {self.image.shape}"
            )
        height, width = self.image.shape[:2]
        if height == 0 or width == 0:
            raise BadImageError(f"view {self.id}: the image is empty ({width}x{height})")
        if (width, height) != (self.camera.width, self.camera.height):
            raise BadCameraError(
                f"view {self.id}: the image is {width}x{height}, "
                f"its camera {self.camera.width}x{self.camera.height}; "
                "give the calibration of this image size (Camera.resize scales one)"
            )
        if self.mask is not None and self.mask.dtype != np.bool_:
            raise BadInputError(
                f"view {self.id}: mask must be bool, True where usable, got {self.mask.dtype}"
            )
        for name, array in (("mask", self.mask), ("depth_m", self.depth_m)):
            if array is not None and array.shape != (height, width):
                raise BadInputError(f"view {self.id}: {name} must be {(height, width)}, got {array.shape}")
        if self.T_side_camera is not None:
            rigid.rigid(self.T_side_camera)

    @cached_property
    def fingerprint(self) -> str:
        """What the picture, its mask and its camera are, as a short hash: the key of every cache."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.image.shape, self.camera)).encode())
        digest.update(np.ascontiguousarray(self.image).data)
        if self.mask is not None:
            digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """A guess of the answer: it checks, and never makes an answer accepted by itself.

    Attributes:
        T_reference_target: (4, 4), metres.
        covariance: Of (dt, dr), docs/method.md has the model, (6, 6).
    """

    T_reference_target: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def __post_init__(self) -> None:
        rigid.rigid(self.T_reference_target)
        uncertainty.checked(self.covariance)


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Where is the target camera, seen from the reference camera?

    Attributes:
        reference_context: Real views around the reference; their poses are compared only within this side.
        target_context: Real views around the target, likewise.
        prior: A guess that the answer is checked against.
        upright: The frames of both sides' poses have z up, as a map and a robot's odometry do.
        common_ground: Heights in the two sides' frames are above the same ground.
        mapped: The reference side's poses are a map's: as sure far apart as near each other.
        require: The ladder climbs until this much is known.
        enough_rotation_sigma_deg: And the rotation this surely; None takes the setting
            `bridge.enough_rotation_sigma_deg`.
        min_stage: Lowest rung to use.
        max_stage: Highest rung to use.
        allow_hypothesis: Also answer with what generated views alone suggest.
        budget_s: Seconds from the start; None takes the setting `bridge.budget_s`.
        min_probability: None takes the setting `verification.min_probability`.
        min_extent_m: None takes the setting `verification.min_extent_m`; 0 for who asks more than one thing.
        seed: The same question with the same completed rungs gives the same answer.
    """

    reference: View
    target: View
    reference_context: tuple[View, ...] = ()
    target_context: tuple[View, ...] = ()
    prior: Prior | None = None
    upright: bool = False
    common_ground: bool = False
    mapped: bool = False
    require: Require = Require.DIRECTION
    enough_rotation_sigma_deg: float | None = None
    min_stage: Stage = Stage.DIRECT
    max_stage: Stage = Stage.HYBRID
    allow_hypothesis: bool = False
    budget_s: float | None = None
    min_probability: float | None = None
    min_extent_m: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget_s is not None and not self.budget_s > 0:
            raise BadInputError(f"budget_s must be > 0, got {self.budget_s}")
        if self.min_probability is not None and not 0 < self.min_probability <= 1:
            raise BadInputError(f"min_probability must lie in (0, 1], got {self.min_probability}")
        if self.min_extent_m is not None and not self.min_extent_m >= 0:
            raise BadInputError(f"min_extent_m must be >= 0, got {self.min_extent_m}")
        if not 0 <= self.seed < 2**64:
            raise BadInputError(f"seed must fit 64 bits without sign, got {self.seed}")
        named: dict[str, str] = {}
        for view in (self.reference, self.target, *self.reference_context, *self.target_context):
            if named.setdefault(view.id, view.fingerprint) != view.fingerprint:
                raise BadInputError(
                    f"two different views are called {view.id!r}; give each a name of its own"
                )
        if self.reference.id == self.target.id:
            raise BadInputError(
                f"reference and target are both called {self.target.id!r}; views need names of their own"
            )

    @property
    def sides(self) -> tuple[tuple[View, ...], tuple[View, ...]]:
        """All views of the reference side, and of the target side; the ends come first."""
        return (self.reference, *self.reference_context), (self.target, *self.target_context)

    def between(self, reference_id: str, target_id: str) -> Question:
        """Return the question about two other views of the same sides; the ends so far become context.

        Raises:
            BadInputError: A view is not on its side.
        """
        (reference, *around_reference), (target, *around_target) = (
            sorted(views, key=lambda view: view.id != end)
            for views, end in zip(self.sides, (reference_id, target_id), strict=True)
        )
        for first, end in ((reference, reference_id), (target, target_id)):
            if first.id != end:
                raise BadInputError(f"view {end} is not on that side of the question")
        return replace(
            self,
            reference=reference,
            target=target,
            reference_context=tuple(around_reference),
            target_context=tuple(around_target),
            prior=None,
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What ties the two sides together: the evidence an answer was judged on, and what a figure shows.

    Attributes:
        tracks: Real-image tracks across the weakest cut between the reference side and the target side.
        features: Named numbers that the probability model read.
        reference_view_id: View of the reference side that sees most of the linking tracks.
        target_view_id: The same on the target side.
        reference_points_px: Linking tracks in the former, (N, 2).
        target_points_px: The same tracks in the latter, (N, 2).
        points: Where the linking tracks are, in the reference camera's axes and in the unit of the answer's
            cameras, (N, 3).
    """

    tracks: int
    features: dict[str, float]
    reference_view_id: str
    target_view_id: str
    reference_points_px: NDArray[np.float64]
    target_points_px: NDArray[np.float64]
    points: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the bridge says; numbers can be read only if they are meant to be used.

    Made by `Answer.rejected` or by bridge.py for an accepted estimate. `T_reference_target`, `direction`,
    ... raise NoEstimateError when the answer does not hold them: failure is never a pose.

    Attributes:
        probability: That the answer is correct in the sense of docs/method.md; NaN when nothing was judged.
        evidence: Of the estimate that was judged, also when it was rejected.
        cameras: T_reference_camera of the views that took part, by id, in the answer's unit of length; empty
            unless accepted.
        covariances: Of (dt, dr) of the target, and of the view of its side that is tied best, by id, (6, 6);
            empty without metres.
        agreeing: Guesses from different real views that came to this, if that is what makes it an answer.
        elapsed_s: Processing time.
    """

    status: Status
    reason: Reason = Reason.NONE
    reason_text: str = ""
    stage: Stage = Stage.NONE
    probability: float = float("nan")
    translation: Translation = Translation.UNDEFINED
    scale_source: ScaleSource = ScaleSource.NONE
    scale_sigma: float = float("nan")
    estimator: str = ""
    generator: str = ""
    real_frames: int = 0
    generated_frames: int = 0
    agreeing: int = 0
    evidence: Evidence | None = None
    cameras: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    covariances: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    elapsed_s: float = float("nan")
    _T_reference_target: NDArray[np.float64] | None = None
    _covariance: NDArray[np.float64] | None = None
    _direction_sigma_rad: float = float("nan")

    def __post_init__(self) -> None:
        usable = self.status in (Status.ACCEPTED, Status.HYPOTHESIS)
        if usable != (self._T_reference_target is not None) or usable != (self._covariance is not None):
            raise BadInputError(
                f"an answer has numbers exactly if it may be used; status is {self.status.name}"
            )
        if not usable and self.reason is Reason.NONE:
            raise BadInputError("an answer that is not accepted needs a reason")

    @classmethod
    def rejected(cls, reason: Reason, text: str, **known: object) -> Answer:
        """An answer without numbers, and why."""
        return cls(status=Status.REJECTED, reason=reason, reason_text=text, **known)  # type: ignore[arg-type]

    @property
    def accepted(self) -> bool:
        """Whether the numbers may be used as a pose."""
        return self.status is Status.ACCEPTED

    def meets(self, require: Require) -> bool:
        """Whether the numbers may be used as a pose and hold what was asked for."""
        return self.accepted and int(self.translation) >= int(require)

    def about(self, view_id: str) -> Answer:
        """Return a metric answer about another view that took part, in place of the target.

        Args:
            view_id: One of `covariances`.

        Raises:
            NoEstimateError: There are no metres.
        """
        self._numbers(Translation.METRIC)
        T, covariance = self.cameras[view_id], self.covariances[view_id]
        return replace(
            self,
            _T_reference_target=T,
            _covariance=covariance,
            _direction_sigma_rad=uncertainty.direction_sigma_rad(T, covariance),
        )

    @property
    def rotation(self) -> NDArray[np.float64]:
        """R_reference_target, (3, 3)."""
        return self._numbers()[0][:3, :3]

    @property
    def rotation_covariance_rad2(self) -> NDArray[np.float64]:
        """Covariance of dr in R_true = Exp(dr) R, axes of the reference camera, (3, 3)."""
        return self._numbers()[1][3:, 3:]

    @property
    def rotation_sigma_rad(self) -> float:
        """Largest standard deviation of `rotation`."""
        return uncertainty.largest_sigma(self.rotation_covariance_rad2)

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector from the reference camera to the target camera, in the former's axes, (3,)."""
        T_reference_target, _ = self._numbers(Translation.DIRECTION)
        return T_reference_target[:3, 3] / np.linalg.norm(T_reference_target[:3, 3])

    @property
    def direction_sigma_rad(self) -> float:
        """Largest standard deviation of `direction`."""
        self._numbers(Translation.DIRECTION)
        return self._direction_sigma_rad

    @property
    def T_reference_target(self) -> NDArray[np.float64]:
        """Metric pose of the target camera seen from the reference camera, (4, 4)."""
        return self._numbers(Translation.METRIC)[0]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Of (dt, dr), interfaces.md rule 5, metres and radians, scale included, (6, 6)."""
        return self._numbers(Translation.METRIC)[1]

    def _numbers(
        self, translation: Translation = Translation.UNDEFINED
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._T_reference_target is None or self._covariance is None:
            raise NoEstimateError(f"no pose: {self.status.name}, {self.reason.name}: {self.reason_text}")
        if self.translation < translation:
            raise NoEstimateError(f"translation is {self.translation.name}, {translation.name} was asked for")
        return self._T_reference_target, self._covariance
