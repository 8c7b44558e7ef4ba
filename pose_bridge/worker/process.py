# SPDX-License-Identifier: Apache-2.0
"""The worker's process as its parent sees it: started, written to, read from, killed."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pose_bridge.config import WorkerConfig
from pose_bridge.errors import WorkerDiedError, WorkerStalledError
from pose_bridge.worker import protocol
from pose_bridge.worker.protocol import Message, ProtocolError

log = logging.getLogger(__name__)

_MAIN = Path(__file__).with_name("__main__.py")
_LAST_LINES, _LAST_WIDTH = 12, 120  # that an error's text quotes
_LONGEST_LINE = 2000
_EXIT_S = 1.0  # between closing the connection and being gone


class WorkerProcess:
    """One worker, from its start to its end; what it prints is logged, and its last lines are kept.

    Raises:
        WorkerDiedError: The interpreter cannot be started.
    """

    def __init__(self, settings: WorkerConfig) -> None:
        executable = settings.python_executable or sys.executable
        self._connection, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [executable, str(_MAIN), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    env=environment(os.environ, settings),
                )
            except OSError as error:
                self._connection.close()
                raise WorkerDiedError(
                    f"the worker's interpreter {executable!r} cannot be started: {error.strerror}; "
                    "set worker.python_executable"
                ) from error
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._outbox: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=f"worker {self.pid} {name}", daemon=True)
            for name, work in (("output", self._listen), ("writer", self._write))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Hand over a message, which is written while the caller goes on.

        Raises:
            BadInputError: It is too large.
        """
        self._outbox.put(protocol.encode(message, protocol.MAX_QUESTION))

    def receive(self, timeout_s: float) -> Message:
        """Wait for the worker's next message.

        Raises:
            WorkerDiedError: The worker is gone, or wrote rubbish.
            WorkerStalledError: It was silent for too long.
        """
        try:
            return protocol.receive(self._connection, protocol.MAX_ANSWER, timeout_s)
        except (EOFError, ConnectionError) as error:
            raise WorkerDiedError(f"the worker died ({self._end()})") from error
        except TimeoutError as error:
            raise WorkerStalledError(f"the worker was killed: no sign of life for {timeout_s:g} s") from error
        except ProtocolError as error:
            raise WorkerDiedError(
                f"the worker was killed: it does not keep to the protocol ({error})"
            ) from error

    def kill(self) -> None:
        """End the process and what it started, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> str:
        """Kill the process, give back everything that it held, and return how it ended and its last words."""
        if self._connection.fileno() >= 0:
            self.kill()
            self._process.wait()
            self._outbox.put(None)
            self._connection.shutdown(socket.SHUT_RDWR)  # the writer may wait for it to read
            for thread in self._threads:
                thread.join(_EXIT_S)
            self._connection.close()
        code = self._process.returncode
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        said = " | ".join(self._last_lines)
        if "ModuleNotFoundError" in said:
            said += "; install it there, or set worker.python_executable to a Python that has it"
        return ": ".join([how, *([said] if said else [])])

    def _end(self) -> str:
        """Close what closed its connection, and give it time to leave by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)
        return self.close()

    def _write(self) -> None:
        while (buffers := self._outbox.get()) is not None:
            try:
                protocol.write(self._connection, buffers)
            except OSError as error:  # whoever reads hears of it, too
                log.debug("worker %d no longer reads: %s", self.pid, error)
                return

    def _listen(self) -> None:
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        with stream:
            while line := stream.readline(_LONGEST_LINE):
                text = line.decode(errors="replace").rstrip()
                if text and not text[0].isspace():  # which leaves out the frames of a stack
                    self._last_lines.append(textwrap.shorten(text, _LAST_WIDTH, placeholder=" ..."))
                log.log(_level(text), "worker %d: %s", self.pid, text)


def environment(parent: Mapping[str, str], settings: WorkerConfig) -> dict[str, str]:
    """Return the worker's environment: its threads, and nothing that is meant for another interpreter."""
    found = dict(parent)
    if settings.python_executable not in ("", sys.executable):
        for name in ("PYTHONPATH", "PYTHONHOME", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"):
            found.pop(name, None)
        libraries = _foreign_libraries(found)
        found.pop("LD_LIBRARY_PATH", None)
        if libraries:
            found["LD_LIBRARY_PATH"] = libraries
    threads = str(thread_count(settings))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHON_CPU_COUNT")
    return found | dict.fromkeys(names, threads) | {"PYTHONUNBUFFERED": "1"}


def thread_count(settings: WorkerConfig) -> int:
    """Return how many threads the worker may use."""
    return settings.threads or max(1, len(os.sched_getaffinity(0)) - 1)


def _foreign_libraries(parent: Mapping[str, str]) -> str:
    """LD_LIBRARY_PATH without what belongs to ROS or to this interpreter; CUDA's libraries stay."""
    prefixes = parent.get("AMENT_PREFIX_PATH", "").split(":")
    if sys.prefix != sys.base_prefix:
        prefixes.append(sys.prefix)
    own = [Path(prefix) for prefix in prefixes if prefix]
    entries = [entry for entry in parent.get("LD_LIBRARY_PATH", "").split(":") if entry]
    return ":".join(e for e in entries if not any(p == Path(e) or p in Path(e).parents for p in own))


def _level(line: str) -> int:
    """The level at which the worker logged a line; libraries print when something is wrong."""
    level = logging.getLevelName(line.split(" ", 1)[0])
    return level if isinstance(level, int) else logging.WARNING
