# SPDX-License-Identifier: Apache-2.0
"""The worker's side: reads questions, runs the bridge, writes answers; leaves when the parent is gone."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import resource
import socket
import threading
import traceback
from typing import TYPE_CHECKING

import cv2

from pose_bridge import memory
from pose_bridge.config import Config, WorkerConfig
from pose_bridge.control import Control
from pose_bridge.errors import OutOfMemoryError, PoseBridgeError
from pose_bridge.views import View
from pose_bridge.worker import protocol, questions
from pose_bridge.worker.process import thread_count
from pose_bridge.worker.protocol import Message, ProtocolError

if TYPE_CHECKING:
    from pose_bridge.bridge import Bridge

log = logging.getLogger(__name__)

_CANNOT_GO_ON = 3  # exit code


def main(file_descriptor: int) -> None:
    """Serve the connection that the parent left open at this number; never returns."""
    connection = socket.socket(fileno=file_descriptor)
    connection.set_inheritable(False)  # or the parent would not notice the end while a child of ours lives
    Server(connection).run()


class Server:
    """Answers one question at a time; two more threads listen and give signs of life."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self._questions: queue.SimpleQueue[tuple[Message, threading.Event]] = queue.SimpleQueue()

    def run(self) -> None:
        """Shake hands, then answer until the parent is gone."""
        hello = protocol.receive(self._connection, protocol.MAX_QUESTION)
        if hello.kind != "hello" or hello.body["version"] != protocol.VERSION:
            raise ProtocolError(f"this worker speaks version {protocol.VERSION}, its parent another one")
        config = Config.from_dict(hello.body["config"])
        settle(config.worker, hello.body["log_level"])
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        from pose_bridge.bridge import Bridge  # now that the parent's end is noticed: it takes a while

        faulthandler.enable()  # in place of what libraries do when they crash
        bridge, pictures = Bridge(config), questions.Recent[View](config.worker.cache_mib * 2**20)
        self._send(Message("ready", body=protocol.VERSION))
        threading.Thread(target=self._load, args=[bridge], name="models", daemon=True).start()
        threading.Thread(
            target=self._beat, args=[config.worker.heartbeat_s], name="heartbeat", daemon=True
        ).start()
        while True:
            self._answer(bridge, pictures, *self._questions.get())

    def _answer(
        self, bridge: Bridge, pictures: questions.Recent[View], message: Message, cancelled: threading.Event
    ) -> None:
        number = message.number
        control = Control(
            cancelled,
            lambda what: self._send(Message("step", number, what)),
            lambda best: self._send(Message("better", number, best)),
        )
        try:
            question = questions.from_body(message.body, pictures)
            self._send(Message("answer", number, bridge.answer(question, control)))
        except questions.MissingPicturesError:
            self._send(Message("missing", number))
        except Exception as error:
            self._send(Message("error", number, error_body(error)))

    def _listen(self) -> None:
        """Take what the parent writes; leave at once when it is gone, whatever is being computed."""
        number, cancelled = 0, threading.Event()
        try:
            while True:
                message = protocol.receive(self._connection, protocol.MAX_QUESTION)
                if message.kind == "question":
                    number, cancelled = message.number, threading.Event()
                    self._questions.put((message, cancelled))
                elif message.kind == "cancel" and message.number == number:
                    cancelled.set()
        except (EOFError, ConnectionError):
            os._exit(0)
        except MemoryError as error:  # the rest of the message was not read
            self._send(Message("error", number, error_body(error)))
        except BaseException:
            traceback.print_exc()
        os._exit(_CANNOT_GO_ON)

    def _load(self, bridge: Bridge) -> None:
        """Load the models before anybody needs them; who does meanwhile waits in the bridge."""
        if not bridge.needs_models:
            return
        self._send(Message("models", body=["LOADING", ""]))
        try:
            bridge.load()
            self._send(Message("models", body=["LOADED", ""]))
        except Exception as error:
            _, text, details = error_body(error)
            log.error("the models cannot be loaded: %s %s", text, details)
            self._send(Message("models", body=["FAILED", text]))

    def _beat(self, every_s: float) -> None:
        pause = threading.Event()
        while not pause.wait(every_s):
            self._send(Message("alive"))

    def _send(self, message: Message) -> None:
        buffers = protocol.encode(message, protocol.MAX_ANSWER)
        with self._writing:
            try:
                protocol.write(self._connection, buffers)
            except OSError:  # nobody reads
                os._exit(0)


def settle(settings: WorkerConfig, log_level: int) -> None:
    """Take as much of the machine as the settings say."""
    logging.basicConfig(level=log_level, format="%(levelname)s %(name)s: %(message)s")
    os.nice(settings.nice)
    cv2.setNumThreads(thread_count(settings))
    if settings.memory_gib > 0:
        # Not the address space: thread stacks and GPU drivers reserve much that they never use, and OpenCV's
        # threads crash where it runs out.
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = int(settings.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def error_body(error: Exception) -> list[str]:
    """Return the error as the library's callers know it; with its traceback, if they do not know it."""
    if isinstance(error, PoseBridgeError):
        return protocol.error_body(error)
    words = f"{type(error).__name__}: {error}".strip().rstrip(":")
    if memory.ran_out(error):
        return protocol.error_body(
            OutOfMemoryError(f"{words}; give the worker more memory, or ask with fewer or smaller images")
        )
    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return protocol.error_body(PoseBridgeError(f"unexpected {words}; the log has the traceback"), details)
