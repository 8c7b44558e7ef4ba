# SPDX-License-Identifier: Apache-2.0
"""Answers in words: what the terminal and the figure say."""

from __future__ import annotations

import numpy as np

from pose_bridge.geometry import rotations
from pose_bridge.geometry.arrays import Array
from pose_bridge.views import Answer, Reason, Require, Status, Translation

_DIRECTIONS = (("to the right", "to the left"), ("below", "above"), ("in front", "behind"))
_TURNS = (("up", "down"), ("to the right", "to the left"), ("clockwise", "counter-clockwise"))
_MENTIONED = 0.35  # components of a unit vector that are smaller are not worth a word
_STANDING_STILL_DEG = 0.05

_WHY = {
    Reason.NONE: "no reason was given",
    Reason.NO_OVERLAP: "nothing that is seen from both sides was found",
    Reason.WEAK_BRIDGE: "too little is seen from both sides",
    Reason.AMBIGUOUS: "the two sides fit together in more than one way",
    Reason.INCONSISTENT: "the photographs contradict each other",
    Reason.ODOMETRY_CONFLICT: "the photographs contradict the given poses",
    Reason.GRAVITY_CONFLICT: "the cameras would not agree on where down is",
    Reason.LOW_PARALLAX: "the camera hardly moved, so that no direction can be told",
    Reason.NO_SCALE: "distances are not known in metres",
    Reason.SCALE_CONFLICT: "what tells the scale contradicts itself",
    Reason.LOW_PROBABILITY: "the best answer is not sure enough",
    Reason.BUDGET: "the time ran out",
    Reason.POOR_VIEWS: "a photograph shows too little",
}
_HELP = {
    Reason.NO_OVERLAP: "photographs of the way between, with --reference-context and --target-context, each "
    "overlapping the next",
    Reason.WEAK_BRIDGE: "more photographs between the two, with --reference-context and --target-context",
    Reason.AMBIGUOUS: "photographs between the two that show something that occurs only once",
    Reason.INCONSISTENT: "check that the calibration belongs to these photographs and that nothing moved",
    Reason.ODOMETRY_CONFLICT: "check that the poses of --poses are metric and belong to these photographs",
    Reason.GRAVITY_CONFLICT: "check the poses of --poses; more photographs between the two",
    Reason.LOW_PARALLAX: "step sideways between photographs, or ask for --require rotation",
    Reason.NO_SCALE: "metric poses of one side, with --poses, or ask for --require direction",
    Reason.SCALE_CONFLICT: "check that the poses of --poses are in metres",
    Reason.LOW_PROBABILITY: "more photographs between the two; or lower --min-probability, at your own risk",
    Reason.BUDGET: "a larger --budget, or fewer photographs",
    Reason.POOR_VIEWS: "larger, sharper or brighter photographs with more texture",
}


def headline(answer: Answer, require: Require) -> str:
    """Say in one or two sentences what is known, or why nothing is."""
    if not has_pose(answer):
        return f"No pose: {_WHY[answer.reason]}."
    text = f"The target camera is {turn(answer)}, and {place(answer)}."
    if answer.status is Status.HYPOTHESIS:
        text = f"A hypothesis only, not a pose to use: {text}"
    elif not answer.meets(require):
        missing = "metres" if require is Require.METRIC else "the direction"
        text += f" You asked for {missing}, which cannot be told: {_WHY[answer.reason]}."
    return text


def advice(answer: Answer, require: Require) -> str:
    """Say what would help; empty where nothing is amiss."""
    return "" if answer.meets(require) else _HELP.get(answer.reason, "")


def has_pose(answer: Answer) -> bool:
    """Whether an answer's numbers can be read."""
    return answer.status in (Status.ACCEPTED, Status.HYPOTHESIS)


def turn(answer: Answer) -> str:
    """Say how the target camera is turned, with one standard deviation."""
    angle_deg = rotation_deg(answer)
    if angle_deg < _STANDING_STILL_DEG:
        return f"not turned (± {small(np.degrees(answer.rotation_sigma_rad))}°)"
    turned = ", ".join(_named(rotation_axis(answer), _TURNS))
    return f"turned {angle_deg:.1f}° ± {small(np.degrees(answer.rotation_sigma_rad))}° ({turned})"


def place(answer: Answer) -> str:
    """Say where the target camera stands, as far as it is known."""
    if answer.translation is Translation.UNDEFINED:
        return "where it stands is not known"
    *others, last = _named(answer.direction, _DIRECTIONS)
    where = f"{', '.join(others)} and {last}" if others else last
    if answer.translation is Translation.METRIC:
        return f"stands {distance_m(answer):.2f} m ± {distance_sigma_m(answer):.2f} m away, {where}"
    sigma_deg = np.degrees(answer.direction_sigma_rad)
    return f"stands {where} (the direction ± {small(sigma_deg)}°; how far is not known)"


def small(sigma: float) -> str:
    """A standard deviation with one significant digit at least, so that it never reads as none."""
    return f"{sigma:.1f}" if sigma >= 0.095 else f"{max(sigma, 0.01):.2f}"


def rotation_deg(answer: Answer) -> float:
    """Angle of the rotation."""
    return float(np.degrees(rotations.rotation_angle_rad(answer.rotation)))


def rotation_axis(answer: Answer) -> Array:
    """Unit axis of the rotation in the reference camera's axes, (3,); zero where nothing is turned."""
    rotvec_rad = rotations.so3_log(answer.rotation)
    return np.asarray(rotvec_rad / max(float(np.linalg.norm(rotvec_rad)), 1e-12))


def distance_m(answer: Answer) -> float:
    """Distance between the two cameras."""
    return float(np.linalg.norm(answer.T_reference_target[:3, 3]))


def distance_sigma_m(answer: Answer) -> float:
    """Standard deviation of the distance."""
    return float(np.sqrt(answer.direction @ answer.covariance[:3, :3] @ answer.direction))


def _named(vector: Array, names: tuple[tuple[str, str], ...]) -> list[str]:
    """Name the parts of a unit vector that matter, the largest first."""
    order = [int(i) for i in np.argsort(-np.abs(vector)) if abs(vector[i]) >= _MENTIONED]
    return [names[i][0 if vector[i] > 0 else 1] for i in order]
