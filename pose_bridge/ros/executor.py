# SPDX-License-Identifier: Apache-2.0
"""Runs the node's callbacks: what a robot sends all the time in one thread, what may take long in others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.context import Context
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.service import Service
from rclpy.task import Task

NOTHING_TO_DO = TimeoutException, ShutdownException, ExternalShutdownException, ConditionReachedException


class NodeExecutor(SingleThreadedExecutor):
    """Services run in threads of their own, everything else where the executor waits.

    A transition, or a map that is saved, holds up no picture and no goal. Those in turn do not pay for
    threads: rclpy's MultiThreadedExecutor makes its list of what to wait for anew for each callback that
    begins and for each that ends, which costs a camera and odometry twice as much time.

    Args:
        threads: For services.
        context: Of its nodes; None for the default one.
    """

    def __init__(self, threads: int, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._turn = threading.RLock()  # held while a callback runs, or is waited for
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="service")

    def spin(self) -> None:
        """Run callbacks until it is shut down; newer rclpys' own does not call `spin_once`.

        Raises:
            Exception: What a callback raises.
        """
        while self.context.ok() and not self._is_shutdown:
            with self._turn:
                self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run the next callback, or have a thread run it.

        Raises:
            Exception: What the callback raises, or did in a thread.
        """
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except NOTHING_TO_DO:
            return
        if isinstance(entity, Service):
            self._threads.submit(self._serve, handler)
            return
        handler()
        if (error := handler.exception()) is not None:
            raise error

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop, and wait for callbacks however long they take; returns as rclpy's executors do.

        Those mean to wait too, but destroy what a callback needs to end while it still runs.
        """
        with self._shutdown_lock:
            self._is_shutdown = True
            if self._guard:
                self._guard.trigger()
        self._threads.shutdown()
        with self._turn:
            return bool(super().shutdown(timeout_sec))

    def _serve(self, handler: Task[Any]) -> None:
        handler()
        if handler.exception() is not None:
            self.create_task(handler.result)  # raises it where the executor waits, and wakes that up
