# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, one exception per remedy, each with the error code that actions and `--json` report."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """Why a question was not answered; one number has one meaning everywhere."""

    NONE = 0
    UNKNOWN = 10000
    CANCELED = 10003
    BAD_REQUEST = 10010
    BAD_IMAGE = 10011
    BAD_CAMERA = 10012
    STORAGE_FAILED = 10024


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


class StorageError(PoseBridgeError):
    """Free the disk or choose a folder that can be written."""

    code = ErrorCode.STORAGE_FAILED
