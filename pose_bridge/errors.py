# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, one exception per remedy, each with the error code that actions and `--json` report."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class ErrorCode(IntEnum):
    """Why a question was not answered; one number has one meaning everywhere."""

    NONE = 0
    UNKNOWN = 10000
    NOT_ACTIVE = 10001
    BUSY = 10002
    CANCELED = 10003
    DEACTIVATED = 10004
    BAD_REQUEST = 10010
    BAD_IMAGE = 10011
    BAD_CAMERA = 10012
    UNKNOWN_KEYFRAME = 10013
    MODEL_MISSING = 10020
    OUT_OF_MEMORY = 10021
    WORKER_DIED = 10022
    WORKER_STALLED = 10023
    STORAGE_FAILED = 10024
    NO_MAP = 10030
    NO_VIEWS = 10031
    NO_EXTRINSICS = 10032
    NOT_LOCALIZED = 10033
    AMBIGUOUS = 10034
    NEED_MOTION = 10035
    STALE = 10036


class PoseBridgeError(Exception):
    """Root of every error that the library raises on purpose."""

    code = ErrorCode.UNKNOWN


class ConfigError(PoseBridgeError):
    """Fix the settings."""

    code = ErrorCode.BAD_REQUEST


class BadInputError(PoseBridgeError):
    """Fix the request: a shape, a range, or a combination that cannot be meant."""

    code = ErrorCode.BAD_REQUEST


class BadImageError(BadInputError):
    """Give another image: this one is missing, unreadable, or of a kind that is not understood."""

    code = ErrorCode.BAD_IMAGE


class BadCameraError(BadInputError):
    """Fix the calibration: it is impossible, or belongs to images of another size."""

    code = ErrorCode.BAD_CAMERA


class NoEstimateError(PoseBridgeError):
    """Accept "unknown", or bring more evidence: an estimator found nothing that it could stand by."""


class CancelledError(PoseBridgeError):
    """Nothing to fix: the caller asked to stop."""

    code = ErrorCode.CANCELED


class BudgetSpentError(PoseBridgeError):
    """Give more time: a step was stopped because the time budget ran out."""


class UnknownKeyframeError(BadInputError):
    """Name a keyframe that is in the buffer: this one never was, or has been dropped."""

    code = ErrorCode.UNKNOWN_KEYFRAME


class NotActiveError(PoseBridgeError):
    """Activate the node first."""

    code = ErrorCode.NOT_ACTIVE


class BusyError(PoseBridgeError):
    """Ask again later: as many goals as may wait are waiting."""

    code = ErrorCode.BUSY


class DeactivatedError(PoseBridgeError):
    """Activate the node and ask again: it was deactivated while the goal ran."""

    code = ErrorCode.DEACTIVATED


class ModelError(PoseBridgeError):
    """Fetch the weights: they are not there, not whole, or of another model."""

    code = ErrorCode.MODEL_MISSING


class OutOfMemoryError(PoseBridgeError):
    """Give the worker more memory, or ask for less: smaller images, fewer views."""

    code = ErrorCode.OUT_OF_MEMORY


class WorkerDiedError(PoseBridgeError):
    """Ask again: the process that answers died and is being restarted; its log says why."""

    code = ErrorCode.WORKER_DIED


class WorkerStalledError(PoseBridgeError):
    """Ask again: the process that answers gave no sign of life and was killed."""

    code = ErrorCode.WORKER_STALLED


class NoMapError(PoseBridgeError):
    """Map first: there is no keyframe with a pose in the map."""

    code = ErrorCode.NO_MAP


class NoViewsError(PoseBridgeError):
    """Let the robot see something: no usable picture came since its odometry last broke."""

    code = ErrorCode.NO_VIEWS


class NoExtrinsicsError(PoseBridgeError):
    """Say where the camera sits on the robot: publish it on tf or set it as a parameter."""

    code = ErrorCode.NO_EXTRINSICS


class NotLocalizedError(PoseBridgeError):
    """Let the robot see more of what was mapped, or map more.

    Args:
        text: Why.
        hypotheses: Where the robot may be (`relocalization.Hypothesis`), best first.
    """

    code = ErrorCode.NOT_LOCALIZED

    def __init__(self, text: str, hypotheses: Sequence[Any] = ()) -> None:
        super().__init__(text)
        self.hypotheses = tuple(hypotheses)


class AmbiguousError(NotLocalizedError):
    """Let the robot see something that tells the places apart."""

    code = ErrorCode.AMBIGUOUS


class NeedMotionError(NotLocalizedError):
    """Let the robot turn or move: one look is not enough to be sure."""

    code = ErrorCode.NEED_MOTION


class StaleError(PoseBridgeError):
    """Ask again: the robot's odometry broke, or too much time passed, before the answer came."""

    code = ErrorCode.STALE


class StorageError(PoseBridgeError):
    """Free the disk or choose a folder that can be written."""

    code = ErrorCode.STORAGE_FAILED
