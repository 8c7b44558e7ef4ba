# SPDX-License-Identifier: Apache-2.0
"""Every setting's name, unit, default and range, written once.

A field `Config.sfm.max_seconds` is the key in a YAML file and (with ROS) the parameter
of that name. `setting()` attaches the description and the range; the generated YAML, the docs and the checks
all read them here.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pose_bridge.errors import ConfigError


def setting(default: Any, description: str, *, low: float | None = None, high: float | None = None) -> Any:
    """Declare one setting: its default, what it means, and the closed range that it must lie in."""
    return field(default=default, metadata={"description": description, "low": low, "high": high})


class _Checked:
    """Refuses a value of the wrong type or outside its range when a group of settings is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            _check(type(self).__name__, item, hints[item.name], getattr(self, item.name))


def _check(group: str, item: dataclasses.Field[Any], kind: type, value: Any) -> None:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _check(group, item, float, float(value))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{group}.{item.name} must be of type {kind.__name__}, got {value!r}")
    low, high = item.metadata["low"], item.metadata["high"]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{group}.{item.name} must be finite, got {value}")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError(f"{group}.{item.name} must lie in [{low}, {high}], got {value}")
    return None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _frame_name(name: str, value: str) -> None:
    if not value or value != value.strip("/ "):
        raise ConfigError(f"{name} must name a frame without a slash at its ends, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesConfig(_Checked):
    """Local features of a view and their matches."""

    max_features: int = setting(1500, "SIFT keypoints per view, strongest first", low=50, high=20000)
    contrast_threshold: float = setting(
        0.02, "SIFT contrast threshold; lower finds more and weaker points", low=0.0, high=0.2
    )
    tilt_levels: int = setting(
        2,
        "camera tilts (1 / cos) that are simulated for wide-baseline matches: 2, 4, ...; 0 for none",
        low=0,
        high=3,
    )
    tilt_directions: int = setting(
        5, "directions in which a tilt of 2 is simulated; twice as many for each further tilt", low=1, high=18
    )
    tilt_max_features: int = setting(1200, "SIFT keypoints per simulated view", low=50, high=20000)
    tilt_contrast_threshold: float = setting(
        0.02, "SIFT contrast threshold in simulated views", low=0.0, high=0.2
    )
    ratio: float = setting(
        0.8, "a match's distance over that of the best other place; lower is stricter", low=0.3, high=0.99
    )
    cache_views: int = setting(100, "views whose features are kept in memory", low=1, high=100000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsConfig(_Checked):
    """What a picture must be like to be used."""

    max_side_px: int = setting(1024, "longer side to which larger images are reduced", low=64, high=8192)
    min_side_px: int = setting(64, "shorter side below which an image is refused", low=16, high=4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoViewConfig(_Checked):
    """The direct rung: essential matrix from matches."""

    max_error_px: float = setting(1.5, "inlier threshold of the epipolar distance", low=0.1, high=20.0)
    min_inliers: int = setting(20, "fewer inliers are no estimate", low=8, high=10000)
    min_parallax_deg: float = setting(
        1.0, "median parallax below which the translation stays undefined", low=0.05, high=30.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterConfig(_Checked):
    """The register rung: the target resected against points seen from posed reference views."""

    max_error_px: float = setting(3.0, "inlier threshold of the reprojection error", low=0.1, high=20.0)
    min_inliers: int = setting(20, "fewer inliers are no estimate", low=6, high=10000)
    min_triangulation_deg: float = setting(
        1.5, "points under a smaller angle between their rays are not used", low=0.1, high=30.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RigsConfig(_Checked):
    """The context rung where odometry holds each side together: the two sides aligned as rigid rigs."""

    tilt_levels: int = setting(
        1,
        "camera tilts that are simulated, like features.tilt_levels; all pairs are matched so",
        low=0,
        high=3,
    )
    sure: float = setting(
        0.9, "an answer by plain matches that is less probable waits for simulated tilts", low=0.0, high=1.0
    )
    max_error_px: float = setting(3.0, "inlier threshold of the reprojection error", low=0.1, high=20.0)
    min_links: int = setting(
        15, "points of one side that views of the other must see; fewer are no estimate", low=6, high=10000
    )
    min_triangulation_deg: float = setting(
        1.5, "points under a smaller angle between their rays are not used", low=0.1, high=30.0
    )
    odometry_share: float = setting(
        0.03,
        "standard deviation of odometry between two pictures, as a share of way and turn",
        low=0.0001,
        high=1.0,
    )
    odometry_m: float = setting(0.01, "what it errs by besides, however short the way", low=0.0001, high=10.0)
    odometry_deg: float = setting(
        0.7, "what it errs by besides, however small the turn", low=0.001, high=90.0
    )
    map_m: float = setting(0.02, "standard deviation of a keyframe's place in a map", low=0.0001, high=10.0)
    map_deg: float = setting(0.3, "standard deviation of its direction", low=0.001, high=90.0)
    level_m: float = setting(
        0.03, "standard deviation of a camera's height where the floor is level", low=0.0001, high=10.0
    )
    level_deg: float = setting(0.5, "standard deviation of its tilt there", low=0.001, high=90.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextConfig(_Checked):
    """The context rung: which views are used, and how the two sides are searched for links."""

    max_views: int = setting(14, "views of one reconstruction, the two ends included", low=2, high=100)
    wide_pairs: int = setting(
        20,
        "pairs across the gap that are matched with simulated tilts, the most promising first",
        low=0,
        high=10000,
    )
    strong_link: int = setting(
        300,
        "verified matches of one pair that tie the sides well enough to look no further",
        low=8,
        high=10000,
    )
    alternatives: int = setting(
        1, "rival alignments that are looked for once an answer's links are taken away", low=1, high=10
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SfmConfig(_Checked):
    """Structure from motion (pycolmap) with given matches and known intrinsics."""

    min_pair_inliers: int = setting(
        20, "pairs of views with fewer verified matches are not linked", low=8, high=1000
    )
    max_error_px: float = setting(2.5, "inlier threshold of pair verification", low=0.1, high=20.0)
    max_seconds: float = setting(20.0, "time limit of one reconstruction", low=0.1, high=3600.0)
    starts: int = setting(
        2,
        "initial pairs that are tried where the first one fails or could start a reflected scene",
        low=1,
        high=10,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationConfig(_Checked):
    """When an answer is believed."""

    min_probability: float = setting(0.8, "answers below this probability are rejected", low=0.0, high=1.0)
    min_tracks: int = setting(20, "tracks across the weakest cut; fewer are a weak bridge", low=6, high=10000)
    min_extent_m: float = setting(
        1.2,
        "what ties the sides reaches this far, where metres are known: less may be one thing that has a twin",
        low=0.0,
        high=100.0,
    )
    min_flat_extent_m: float = setting(
        2.0,
        "what ties the sides reaches this far if it is flat and metres are known: posters, doors have twins",
        low=0.0,
        high=100.0,
    )
    min_agreement: float = setting(
        0.25, "share of the matches across the gap that must agree with an answer", low=0.0, high=1.0
    )
    max_parallax_deg: float = setting(
        85.0,
        "angle between the sides as the linking points see it; local features do not match beyond",
        low=10.0,
        high=180.0,
    )
    max_rotation_sigma_deg: float = setting(
        2.0, "largest standard deviation of the rotation that is accepted", low=0.01, high=30.0
    )
    max_direction_sigma_deg: float = setting(
        5.0, "largest standard deviation of the direction that is accepted", low=0.01, high=45.0
    )
    max_translation_sigma_m: float = setting(
        0.05, "a place in metres known this well is accepted whatever its direction", low=0.0, high=1.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleConfig(_Checked):
    """Metric scale from odometry and depth."""

    min_baseline_m: float = setting(
        0.10, "a side that moved less says nothing about scale", low=0.001, high=10.0
    )
    max_disagreement_sigma: float = setting(
        3.5, "sources that differ by more standard deviations reject the scale", low=1.0, high=20.0
    )
    odometry_sigma: float = setting(
        0.02, "relative standard deviation of odometry's distances", low=0.0001, high=1.0
    )
    max_scale_sigma: float = setting(
        0.2, "a relative standard deviation of the scale above this is no scale", low=0.001, high=1.0
    )
    depth_sigma: float = setting(
        0.02, "relative standard deviation that all depths of one view have in common", low=0.0001, high=1.0
    )
    guess_sigma: float = setting(
        0.1, "relative standard deviation of distances that a network guesses", low=0.0001, high=1.0
    )
    min_depth_points: int = setting(15, "points with depth that a scale needs", low=3, high=10000)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatesConfig(_Checked):
    """What no answer may contradict."""

    max_side_turn_deg: float = setting(
        5.0, "largest turn of a view against odometry within its side", low=0.1, high=180.0
    )
    max_side_shift_m: float = setting(
        0.25, "largest shift of a view against odometry within its side", low=0.01, high=1000.0
    )
    max_tilt_deg: float = setting(
        4.0,
        "largest angle between the two sides' up, where both are known to stand upright",
        low=0.1,
        high=180.0,
    )
    max_height_m: float = setting(
        0.2, "largest difference in height above a ground that both sides share", low=0.01, high=1000.0
    )
    max_prior_sigma: float = setting(
        4.0, "standard deviations (Mahalanobis) that an answer may be away from a prior", low=0.5, high=1000.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig(_Checked):
    """The ladder."""

    budget_s: float = setting(10.0, "time for one question", low=0.01, high=3600.0)
    enough_rotation_sigma_deg: float = setting(
        0.25,
        "an answer whose rotation is known less surely than this is improved on by the next rung",
        low=0.0,
        high=180.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VggtConfig(_Checked):
    """The network that guesses cameras from pictures, generated ones among them."""

    weights: str = setting(
        "", "folder with its model.safetensors, or shipped:NAME; empty where there is none"
    )
    overlay: str = setting("", "safetensors with parameters that take the place of the network's own")
    gpu: bool = setting(True, "run on a GPU if there is one")
    long_side_px: int = setting(
        518, "longer side of the pictures that it sees, rounded up to whole patches", low=28, high=4096
    )
    max_batch_tokens: int = setting(
        60000,
        "patches of pictures that run together, on a CPU at most 5400; fewer take less memory",
        low=1,
        high=100000000,
    )
    compile: bool = setting(
        False, "compile it: the first question of its kind takes a minute or more, others less"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LtxConfig(_Checked):
    """The video model that fills the gap between two views."""

    weights: str = setting("", "folder in diffusers' layout, or shipped:NAME; empty where there is none")
    gpu: bool = setting(True, "run on a GPU if there is one")
    offload: bool = setting(False, "keep in the main memory what does not run: slower, for small GPUs")
    num_frames: int = setting(25, "of a video, both ends included: 8k + 1", low=9, high=257)
    long_side_px: int = setting(
        512, "longer side of a frame; both are rounded up to what the model packs into one", low=64, high=1280
    )
    schedule: str = setting(
        "1000 993 987 981 975 909 725 422",
        "noise levels of the steps, by a thousand; by default the distilled model's",
    )
    decode_timestep: float = setting(
        0.05, "noise level that the autoencoder takes away by itself", low=0.0, high=1.0
    )
    decode_noise: float = setting(0.025, "noise that is added before that", low=0.0, high=1.0)
    max_end_difference: float = setting(
        0.25,
        "of first and last frame from their views, by the spread of brightness; beyond, a video is dropped",
        low=0.0,
        high=100.0,
    )

    def __post_init__(self) -> None:
        super(LtxConfig, self).__post_init__()
        if self.num_frames % 8 != 1:  # the autoencoder packs time by 8; rounding would shift the frames
            near = 8 * round((self.num_frames - 1) / 8) + 1
            raise ConfigError(f"ltx.num_frames must be 8k + 1, got {self.num_frames}; try {near}")
        try:
            levels = self.timesteps
        except ValueError:
            raise ConfigError(f"ltx.schedule must be numbers, got {self.schedule!r}") from None
        falling = all(a > b for a, b in itertools.pairwise((1000.1, *levels, 0.0)))
        if not levels or not falling:
            raise ConfigError(f"ltx.schedule must fall from at most 1000 towards 0, got {self.schedule!r}")

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The schedule."""
        return tuple(map(float, self.schedule.split()))


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedConfig(_Checked):
    """The generated rung: hypotheses from videos between the two views."""

    videos: int = setting(4, "videos between two views, if time and memory allow", low=1, high=64)
    subsets: int = setting(11, "parts of a video whose poses are compared, at most", low=2, high=200)
    subset_views: int = setting(5, "views in such a part, the two ends among them", low=3, high=50)
    within_deg: float = setting(
        1.0, "no more parts are asked once they would move the answer by no more", low=0.0, high=45.0
    )
    max_spread_deg: float = setting(
        20.0, "parts of a video that differ by more, rotation and direction together, are no hypothesis",
        low=0.1, high=270.0,
    )  # fmt: skip
    max_focal_ratio: float = setting(
        1.5,
        "a network that sees a focal length wrong by a larger factor mistakes the scene",
        low=1.01,
        high=10.0,
    )
    max_side_turn_deg: float = setting(
        15.0, "between views of one side, by odometry and by the network", low=0.1, high=180.0
    )
    context_views: int = setting(
        2,
        "real views around either end that the last look includes: for metres, and to object",
        low=0,
        high=20,
    )
    guesses: int = setting(
        4,
        "guesses from real views that no two of them share, where odometry holds both sides together; 1 asks "
        "about the two views only",
        low=1,
        high=20,
    )
    agreeing: int = setting(
        3, "of them must say the same before it is an answer and no hypothesis", low=2, high=20
    )
    agree_deg: float = setting(
        10.0, "guesses whose turns differ by less agree, if their places do so too, seen from the reference",
        low=0.1, high=90.0,
    )  # fmt: skip
    agree_distance_m: float = setting(
        0.3, "between the places of guesses that agree, however near the reference", low=0.0, high=10.0
    )
    common_mistakes: float = setting(
        0.1,
        "share of agreements that is taken to be wrong, because models err alike wherever they look: what "
        "comes from agreement alone is no more probable than the rest",
        low=0.001,
        high=1.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(_Checked):
    """The process that runs the bridge for a robot."""

    python_executable: str = setting("", "interpreter of the worker; empty for the one that starts it")
    threads: int = setting(0, "threads of the worker; 0 for one less than there are cores", low=0, high=256)
    nice: int = setting(5, "how far the worker steps back behind other processes", low=0, high=19)
    start_timeout_s: float = setting(20.0, "time for the worker to come up", low=1.0, high=600.0)
    load_timeout_s: float = setting(
        900.0, "time for its models to be loaded; then it is killed and restarted", low=1.0, high=86400.0
    )
    heartbeat_s: float = setting(0.5, "time between two signs of life", low=0.05, high=60.0)
    stall_s: float = setting(
        20.0, "without a sign of life for so long, the worker is killed and restarted", low=0.5, high=600.0
    )
    kill_grace_s: float = setting(
        5.0, "time that a cancelled step has to end before the worker is killed", low=0.1, high=600.0
    )
    overdue_s: float = setting(
        30.0,
        "without an answer for so long after its budget ran out, the worker is killed",
        low=1.0,
        high=3600.0,
    )
    restart_delay_s: float = setting(
        0.5, "pause before a restart; doubles with each failure in a row", low=0.0, high=60.0
    )
    max_restart_delay_s: float = setting(30.0, "longest pause before a restart", low=0.0, high=3600.0)
    memory_gib: float = setting(0.0, "memory that the worker may use; 0 for no limit", low=0.0, high=4096.0)
    cache_mib: int = setting(
        256, "memory for pictures that the worker keeps for the next question", low=0, high=65536
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig(_Checked):
    """The camera's topics."""

    transport: str = setting("raw", "raw for sensor_msgs/Image, compressed for sensor_msgs/CompressedImage")
    reliability: str = setting("best_effort", "best_effort takes from any publisher; reliable loses nothing")
    depth: int = setting(10, "pictures that may queue", low=1, high=1000)
    rectified: bool = setting(False, "the pictures are rectified: P of the camera_info is read, not K and D")
    use_depth: bool = setting(False, "wait for a depth image with each picture")
    use_mask: bool = setting(False, "wait for a mask with each picture; the last one is used")
    sync_tolerance_s: float = setting(
        0.02, "depth belongs to a picture if their stamps differ by less", low=0.0, high=1.0
    )
    patience_s: float = setting(
        0.5, "time that a picture waits for odometry and depth of its moment", low=0.0, high=10.0
    )

    def __post_init__(self) -> None:
        super(ImageConfig, self).__post_init__()
        _one_of("image.transport", self.transport, ("raw", "compressed"))
        _one_of("image.reliability", self.reliability, ("best_effort", "reliable"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalsConfig(_Checked):
    """What a node takes on."""

    max_waiting: int = setting(
        4, "goals that may run or wait; the next one is told to come back", low=1, high=100
    )
    max_result_age_s: float = setting(
        120.0, "a pose is not published if all its pictures are older", low=0.1, high=36000.0
    )
    publish_initialpose: bool = setting(
        False, "publish every place that was found on initialpose, not only where the goal asks for it"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesConfig(_Checked):
    """Names of frames on tf."""

    map: str = setting("map", "the map's frame")
    odom: str = setting("odom", "odometry's frame")
    base: str = setting("base_link", "the robot's own frame, the child of odometry")

    def __post_init__(self) -> None:
        super(FramesConfig, self).__post_init__()
        for name in ("map", "odom", "base"):
            _frame_name(f"frames.{name}", getattr(self, name))
        if len({self.map, self.odom, self.base}) < 3:
            raise ConfigError(
                f"frames.map, .odom and .base must differ, got {self.map!r}, {self.odom!r} and {self.base!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TfConfig(_Checked):
    """What is published on tf: nothing, unless asked for."""

    publish_map_odom: bool = setting(
        False,
        "be the one that publishes map -> odom, once the robot was found; its map is then not read from tf",
    )
    publish_pairs: bool = setting(
        False, "publish accepted pairs as frames of their own, fixed at their capture"
    )
    prefix: str = setting("pose_bridge", "of the frames of pairs: PREFIX/ID")
    max_frames: int = setting(200, "frames of pairs; beyond it the oldest go", low=2, high=10000)
    tolerance_s: float = setting(
        0.1, "map -> odom is stamped so much later than now, until the next one comes", low=0.0, high=10.0
    )
    rate_hz: float = setting(20.0, "rate at which map -> odom is published", low=1.0, high=1000.0)
    max_age_s: float = setting(
        0.5, "a map -> odom of others that is older than a picture by more is not used", low=0.0, high=60.0
    )

    def __post_init__(self) -> None:
        super(TfConfig, self).__post_init__()
        _frame_name("tf.prefix", self.prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtrinsicsConfig(_Checked):
    """Where the camera's body (not its optical frame) sits on the robot, where tf does not say."""

    known: bool = setting(False, "the numbers below are true; tf wins where it has the camera's frame")
    x_m: float = setting(0.0, "camera ahead of the base", low=-100.0, high=100.0)
    y_m: float = setting(0.0, "camera to the left of the base", low=-100.0, high=100.0)
    z_m: float = setting(0.0, "camera above the base", low=-100.0, high=100.0)
    roll_rad: float = setting(0.0, "turn about the base's x axis, the first of three", low=-6.3, high=6.3)
    pitch_rad: float = setting(0.0, "then about the base's y axis; down is positive", low=-6.3, high=6.3)
    yaw_rad: float = setting(0.0, "then about the base's z axis; left is positive", low=-6.3, high=6.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticsConfig(_Checked):
    """When a node reports that something is wrong."""

    window_s: float = setting(5.0, "rates are counted over so long", low=1.0, high=60.0)
    silence_s: float = setting(2.0, "a topic that is silent for longer is reported", low=0.1, high=3600.0)
    min_image_hz: float = setting(2.0, "pictures that come more rarely are reported", low=0.0, high=1000.0)
    max_offset_s: float = setting(
        0.5, "pictures stamped farther from odometry or from now are reported", low=0.01, high=60.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OdometryConfig(_Checked):
    """What the robot's odometry may report, and for how long it is remembered."""

    history_s: float = setting(60.0, "reports older than this are forgotten", low=1.0, high=3600.0)
    max_gap_s: float = setting(
        0.5, "between two reports farther apart in time, the pose is unknown", low=0.01, high=60.0
    )
    max_speed_m_s: float = setting(3.0, "a report that is farther away is a break", low=0.01, high=100.0)
    max_turn_deg_s: float = setting(360.0, "a report that is turned more is a break", low=1.0, high=10000.0)
    slack_m: float = setting(0.1, "distance that is no break, however short the time", low=0.0, high=10.0)
    slack_deg: float = setting(5.0, "turn that is no break, however short the time", low=0.0, high=180.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyframesConfig(_Checked):
    """Which pictures of the robot are kept."""

    max_count: int = setting(400, "keyframes in memory; beyond it the most redundant go", low=2, high=100000)
    min_distance_m: float = setting(
        0.25, "a picture this far from the last keyframe is a new one", low=0.01, high=100.0
    )
    min_turn_deg: float = setting(
        15.0, "a picture turned by this much against the last keyframe is a new one", low=0.5, high=180.0
    )
    min_sharpness: float = setting(
        0.3, "sharpness below this share of the recent pictures' median is blur", low=0.0, high=1.0
    )
    max_clipped: float = setting(
        0.6, "share of black or white pixels above which a picture is badly exposed", low=0.0, high=1.0
    )
    neighbours: int = setting(4, "keyframes around a named one that join it as context", low=0, high=20)
    stamp_tolerance_s: float = setting(
        0.05, "a keyframe named by its time may be off by this much", low=0.0, high=10.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MapConfig(_Checked):
    """Maps on disk."""

    directory: str = setting("~/.ros/pose_bridge", "folder that maps are saved in and loaded from")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocalizeConfig(_Checked):
    """Finding the robot in its map."""

    budget_s: float = setting(60.0, "time for one search", low=0.1, high=3600.0)
    attempt_budget_s: float = setting(45.0, "time for one bridge between map and robot", low=0.1, high=3600.0)
    places: int = setting(40, "map keyframes that an attempt uses at most", low=1, high=1000)
    views: int = setting(
        24,
        "pictures of the robot, spread over all that it saw, that an attempt uses at most",
        low=1,
        high=100,
    )
    min_links: int = setting(
        8,
        "tracks within half a metre that are a thing by which the robot is tied to the map",
        low=1,
        high=1000,
    )
    max_sigma_m: float = setting(
        0.4, "attempts whose place is known less surely do not count", low=0.001, high=100.0
    )
    common_ground: bool = setting(
        True, "the robot drives on one level floor: map and odometry have it at z = 0"
    )
    prior_reach_m: float = setting(
        8.0,
        "with a prior, map keyframes farther from it than this and 3 sigma are not tried",
        low=0.0,
        high=1000.0,
    )
    min_agreeing: int = setting(
        2,
        "things, apart from each other, that must tie the robot to the map before it counts",
        low=1,
        high=10,
    )
    apart_m: float = setting(
        2.5,
        "between two things that count as two; nearer, they may be one that stands elsewhere too",
        low=0.0,
        high=100.0,
    )
    agree_distance_m: float = setting(
        0.3,
        "attempts this near to each other agree, if their uncertainty does not say more",
        low=0.0,
        high=10.0,
    )
    agree_angle_deg: float = setting(
        5.0,
        "attempts turned by less than this agree, if their uncertainty does not say more",
        low=0.0,
        high=90.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoConfig(_Checked):
    """Bridging in the background."""

    enabled: bool = setting(False, "bridge pairs of keyframes that nothing links yet, when there is time")
    max_distance_m: float = setting(
        6.0, "by odometry, keyframes farther apart are not paired", low=0.1, high=1000.0
    )
    min_angle_deg: float = setting(
        30.0, "keyframes that look in directions less apart are not paired", low=0.0, high=180.0
    )
    max_waiting: int = setting(100, "pairs that wait at most", low=1, high=100000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings, of the bridge and of the robot around it."""

    views: ViewsConfig = field(default_factory=ViewsConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    two_view: TwoViewConfig = field(default_factory=TwoViewConfig)
    register: RegisterConfig = field(default_factory=RegisterConfig)
    rigs: RigsConfig = field(default_factory=RigsConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    sfm: SfmConfig = field(default_factory=SfmConfig)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    vggt: VggtConfig = field(default_factory=VggtConfig)
    ltx: LtxConfig = field(default_factory=LtxConfig)
    generated: GeneratedConfig = field(default_factory=GeneratedConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    goals: GoalsConfig = field(default_factory=GoalsConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    tf: TfConfig = field(default_factory=TfConfig)
    extrinsics: ExtrinsicsConfig = field(default_factory=ExtrinsicsConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    odometry: OdometryConfig = field(default_factory=OdometryConfig)
    keyframes: KeyframesConfig = field(default_factory=KeyframesConfig)
    map: MapConfig = field(default_factory=MapConfig)
    relocalize: RelocalizeConfig = field(default_factory=RelocalizeConfig)
    auto: AutoConfig = field(default_factory=AutoConfig)

    def __post_init__(self) -> None:
        if self.generated.subset_views > self.ltx.num_frames:
            raise ConfigError(
                f"generated.subset_views is {self.generated.subset_views}, and ltx.num_frames only "
                f"{self.ltx.num_frames}: a part of a video cannot have more"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from nested mappings; what is not named keeps its default.

        Raises:
            ConfigError: An unknown group or key, a wrong type, or a value outside its range.
        """
        groups = {item.name: typing.get_type_hints(cls)[item.name] for item in dataclasses.fields(cls)}
        _refuse_unknown("group", values, groups)
        made = {}
        for name, entries in values.items():
            if not isinstance(entries, Mapping):
                raise ConfigError(f"{name} must be a group of settings, got {entries!r}")
            _refuse_unknown(
                f"setting in {name}", entries, {f.name: f for f in dataclasses.fields(groups[name])}
            )
            made[name] = groups[name](**entries)
        return cls(**made)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return nested plain values, as `from_dict` takes them."""
        return dataclasses.asdict(self)


def _refuse_unknown(what: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            f"unknown {what}: {', '.join(map(str, unknown))}; known are {', '.join(sorted(known))}"
        )


def to_yaml(
    config: Config,
    title: str = "Written by `pose_bridge config`: every setting with its default.",
    only: Mapping[str, Collection[str]] | None = None,
) -> str:
    """Return the configuration as YAML with each setting's description and range as a comment.

    Args:
        config: Settings.
        title: First line.
        only: Settings to write, by group; None for all.
    """
    lines = [f"# {title}"]
    for group in dataclasses.fields(config):
        if only is not None and group.name not in only:
            continue
        settings = getattr(config, group.name)
        lines += ["", f"# {(type(settings).__doc__ or '').strip()}", f"{group.name}:"]
        for item in dataclasses.fields(settings):
            if only is not None and item.name not in only[group.name]:
                continue
            low, high = item.metadata["low"], item.metadata["high"]
            span = f" [{low} to {high}]" if low is not None else ""
            value = getattr(settings, item.name)
            text = json.dumps(value)
            lines += [f"  # {item.metadata['description']}{span}", f"  {item.name}: {text}"]
    return "\n".join(lines) + "\n"
