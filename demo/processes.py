# SPDX-License-Identifier: Apache-2.0
"""The processes of the demo: started together, watched, and gone when the demo is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

STOP_S = 5.0
LAST_LINES = 8
PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Process:
    """A node in a process of its own, whose output goes to a file.

    Args:
        module: Of pose_bridge.ros.
        parameters: By name.
        log: File.
    """

    def __init__(self, module: str, parameters: dict[str, object], log: Path) -> None:
        self.name, self._log = module, log
        pairs = (f"{name}:={_yaml(value)}" for name, value in parameters.items())
        arguments = [argument for pair in pairs for argument in ("-p", pair)]
        self._file: IO[bytes] = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"pose_bridge.ros.{module}", "--ros-args", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which then tells the others
            preexec_fn=_die_with_parent,
        )

    def check(self) -> None:
        """Raise DemoError if it is no longer there."""
        code = self._process.poll()
        if code is not None:
            lines = self._log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            said = "\n  ".join(lines) or "(nothing)"
            raise DemoError(f"{self.name} ended with exit code {code}. Its last words:\n  {said}")

    def stop(self) -> None:
        """End it and whatever it started."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
                break
        self._file.close()


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _die_with_parent() -> None:
    """Even if the demo is killed without a chance to clean up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
