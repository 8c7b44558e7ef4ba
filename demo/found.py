# SPDX-License-Identifier: Apache-2.0
"""An answer beside the truth, and how a terminal shows both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from pose_bridge.geometry import distances, uncertainty
from pose_bridge.views import Stage

MAX_ERROR_M, MAX_ERROR_DEG = 0.25, 5.0


@dataclass(frozen=True)
class Found:
    """An answer beside the truth.

    Attributes:
        T_true: T_world_base when the picture that answered was taken, (4, 4).
        T_answer: T_map_base, (4, 4); the map's frame is the world's.
        covariance: Of the answer, (6, 6).
        stamp_ns: Of that picture.
        keyframe_id: The map's keyframe that it was bridged to.
        stage: The rung.
        probability: Of the answer.
        seconds: From asking to knowing.
    """

    T_true: np.ndarray
    T_answer: np.ndarray
    covariance: np.ndarray
    stamp_ns: int
    keyframe_id: str
    stage: Stage
    probability: float
    seconds: float

    @property
    def error(self) -> np.ndarray:
        """(dt, dr), metres and radians, (6,)."""
        return uncertainty.error_vector(self.T_answer, self.T_true)

    @property
    def sigmas(self) -> np.ndarray:
        """Of the same, (6,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def error_m(self) -> float:
        """Distance from the truth."""
        return float(np.linalg.norm(self.error[:3]))

    @property
    def error_deg(self) -> float:
        """Angle from the truth."""
        return distances.rotation_error_deg(self.T_answer[:3, :3], self.T_true[:3, :3])

    @property
    def right(self) -> bool:
        """Whether the robot is where the node says."""
        return self.error_m <= MAX_ERROR_M and self.error_deg <= MAX_ERROR_DEG


def table(found: Found) -> Table:
    """True pose, answered pose, and the error against its covariance."""
    result = Table(title="Where the robot is, in the map's frame", title_justify="left")
    for name in ("", "truth", "answer", "error", "sigma", "error / sigma"):
        result.add_column(name, justify="right" if name else "left")
    true, answered = _numbers(found.T_true), _numbers(found.T_answer)
    names = ("x (m)", "y (m)", "z (m)", "roll (°)", "pitch (°)", "yaw (°)")
    for index, name in enumerate(names):
        unit, digits = (1.0, 3) if index < 3 else (np.degrees(1.0), 2)
        error, sigma = unit * found.error[index], unit * found.sigmas[index]
        cells = [f"{value:.{digits}f}" for value in (true[index], answered[index], error, sigma)]
        result.add_row(name, *cells, f"{error / sigma:+.1f}")
    return result


def verdict(found: Found) -> str:
    """The same in a sentence."""
    return (
        f"off by {found.error_m:.2f} m and {found.error_deg:.1f}°, by the {found.stage.name.lower()} rung "
        f"with probability {found.probability:.2f}, in {found.seconds:.1f} s"
    )


def _numbers(T: np.ndarray) -> list[float]:
    """x, y, z in metres; roll, pitch, yaw in degrees."""
    R = T[:3, :3]
    angles = (
        np.arctan2(R[2, 1], R[2, 2]),
        np.arcsin(np.clip(-R[2, 0], -1.0, 1.0)),
        np.arctan2(R[1, 0], R[0, 0]),
    )
    return [*T[:3, 3].tolist(), *np.degrees(angles).tolist()]
