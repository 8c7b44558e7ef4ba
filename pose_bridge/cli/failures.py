# SPDX-License-Identifier: Apache-2.0
"""How a command fails: one line, one exit code."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from pose_bridge.errors import CancelledError, ErrorCode, PoseBridgeError


class ExitCode(IntEnum):
    """What the process says when it ends."""

    OK = 0
    NO_POSE = 1
    ERROR = 2
    CANCELLED = 130  # 128 + SIGINT, as shells have it


@contextmanager
def reported(*, as_json: bool = False, verbose: bool = False) -> Iterator[None]:
    """Turn what goes wrong inside into a message and an exit code.

    Args:
        as_json: Also print one JSON object on stdout.
        verbose: Print the traceback, too.
    """
    try:
        yield
    except (typer.Exit, BrokenPipeError):
        raise
    except (CancelledError, KeyboardInterrupt) as error:
        _leave(error, "cancelled", ErrorCode.CANCELED, ExitCode.CANCELLED, as_json, verbose)
    except PoseBridgeError as error:
        _leave(error, str(error), error.code, ExitCode.ERROR, as_json, verbose)
    except Exception as error:
        what = f"unexpected {type(error).__name__}: {error}"
        hint = "" if verbose else "; run with --verbose and report it"
        _leave(error, what + hint, ErrorCode.UNKNOWN, ExitCode.ERROR, as_json, verbose)


def _leave(
    error: BaseException, text: str, code: ErrorCode, exit_code: ExitCode, as_json: bool, verbose: bool
) -> None:
    text = " ".join(text.split())
    if verbose:
        traceback.print_exception(error)
    typer.echo(f"error: {text}", err=True)
    if as_json:
        typer.echo(json.dumps({"status": "ERROR", "error_code": int(code), "error": text}))
    raise typer.Exit(exit_code) from error
