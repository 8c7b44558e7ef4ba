# SPDX-License-Identifier: Apache-2.0
"""Nodes that talk over real DDS, each test in a domain of its own."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 15.0
_count = itertools.count(os.getpid() * 7)


class Graph:
    """Makes nodes and lets them talk."""

    def __init__(self, context: Any, executor: Any) -> None:
        self._context = context
        self._executor = executor
        self.nodes: list[Any] = []

    def node(self, name: str, **more: Any) -> Any:
        from rclpy.node import Node

        node = Node(name, context=self._context, **more)
        self._executor.add_node(node)
        self.nodes.append(node)
        return node

    def until(self, true: Callable[[], Any], meanwhile: Callable[[], Any] = lambda: None) -> bool:
        """Let the nodes talk until something is true; False if it takes too long."""
        end_s = time.monotonic() + PATIENCE_S
        while not true() and time.monotonic() < end_s:
            meanwhile()
            self._executor.spin_once(timeout_sec=0.02)
        return bool(true())


@contextmanager
def graph() -> Iterator[Graph]:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1 + next(_count) % 100)
    made = Graph(context, SingleThreadedExecutor(context=context))
    try:
        yield made
    finally:
        for node in made.nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)
