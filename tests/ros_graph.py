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
LARGEST_DOMAIN = 100  # beyond, ports are those that Linux gives to anybody

_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_domains_each = LARGEST_DOMAIN // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_domains = itertools.count(os.getpid())


def free_domain() -> int:
    """A domain of DDS in which nobody else talks, neither here nor where other tests run beside these."""
    return 1 + _process * _domains_each + next(_domains) % _domains_each


class Graph:
    """Makes nodes and lets them talk."""

    def __init__(self, domain_id: int) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._domain_id = domain_id
        self._contexts: list[Any] = []
        self._nodes: list[Any] = []
        self._context = self._new_context()
        self._executor = SingleThreadedExecutor(context=self._context)

    def node(self, name: str, **more: Any) -> Any:
        from rclpy.node import Node

        node = Node(name, context=self._context, **more)
        self._executor.add_node(node)
        self._nodes.append(node)
        return node

    def stranger(self, name: str, **more: Any) -> Any:
        """A node as if in another process; it hears nothing."""
        from rclpy.node import Node

        node = Node(name, context=self._new_context(), **more)
        self._nodes.append(node)
        return node

    def until(self, true: Callable[[], Any], meanwhile: Callable[[], Any] = lambda: None) -> bool:
        """Let the nodes talk until something is true; False if it takes too long."""
        end_s = time.monotonic() + PATIENCE_S
        while not true() and time.monotonic() < end_s:
            meanwhile()
            self._executor.spin_once(timeout_sec=0.02)
        return bool(true())

    def close(self) -> None:
        for node in self._nodes:
            node.destroy_node()
        for context in self._contexts:
            context.shutdown()

    def _new_context(self) -> Any:
        import rclpy

        context = rclpy.Context()
        rclpy.init(context=context, domain_id=self._domain_id)
        self._contexts.append(context)
        return context


@contextmanager
def graph() -> Iterator[Graph]:
    made = Graph(free_domain())
    try:
        yield made
    finally:
        made.close()
