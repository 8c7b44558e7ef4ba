# SPDX-License-Identifier: Apache-2.0
"""What the executor of the node runs where: a node that hears itself, over real DDS."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from installed import require_ros

require_ros()

import rclpy  # noqa: E402
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from ros_graph import PATIENCE_S, free_domain  # noqa: E402
from ros_node import until  # noqa: E402
from std_msgs.msg import Empty  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from pose_bridge.ros.executor import NodeExecutor  # noqa: E402


class Slow(Node):
    """Serves when it is told to, and hears its own messages."""

    def __init__(self, context: Context) -> None:
        super().__init__("slow", context=context)
        self.let_go, self.heard, self.serving = threading.Event(), threading.Event(), threading.Event()
        self.create_service(Trigger, "wait", self._wait, callback_group=MutuallyExclusiveCallbackGroup())
        self.create_subscription(Empty, "word", lambda message: self.heard.set(), 10)
        self.word = self.create_publisher(Empty, "word", 10)
        self.client = self.create_client(Trigger, "wait", callback_group=ReentrantCallbackGroup())

    def _wait(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.serving.set()
        if not self.let_go.wait(PATIENCE_S):
            raise RuntimeError("nobody let go")
        response.message = threading.current_thread().name
        return response


@pytest.fixture
def slow() -> Iterator[tuple[Slow, NodeExecutor, "Future[None]"]]:
    context = Context()
    rclpy.init(context=context, domain_id=free_domain())
    node, executor = Slow(context), NodeExecutor(1, context=context)
    executor.add_node(node)
    with ThreadPoolExecutor(1) as pool:
        spinning = pool.submit(executor.spin)
        assert node.client.wait_for_service(PATIENCE_S)
        yield node, executor, spinning
        node.let_go.set()
        executor.shutdown()
    node.destroy_node()
    context.shutdown()


def test_a_service_that_takes_long_holds_up_no_message(slow: tuple[Slow, NodeExecutor, object]) -> None:
    node, *_ = slow
    answer = node.client.call_async(Trigger.Request())
    assert node.serving.wait(PATIENCE_S)
    assert until(lambda: node.word.publish(Empty()) or node.heard.is_set())
    assert not answer.done()
    node.let_go.set()
    assert until(answer.done)
    assert answer.result().message.startswith("service")


def test_what_a_callback_raises_is_heard_of(slow: tuple[Slow, NodeExecutor, "Future[None]"]) -> None:
    node, executor, spinning = slow
    node.create_timer(0.01, lambda: 1 / 0)
    executor.wake()
    with pytest.raises(ZeroDivisionError):
        spinning.result(PATIENCE_S)


def test_what_a_service_raises_is_heard_of(
    slow: tuple[Slow, NodeExecutor, "Future[None]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _, spinning = slow
    node.let_go.set()
    monkeypatch.setattr(node, "serving", None)  # so that the callback fails
    node.client.call_async(Trigger.Request())
    with pytest.raises(AttributeError):
        spinning.result(PATIENCE_S)


def test_it_spins_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer rclpys' own `spin` does not come by `spin_once`."""
    context = Context()
    rclpy.init(context=context, domain_id=free_domain())
    executor, turns = NodeExecutor(1, context=context), []

    def turn() -> None:
        turns.append(1)
        if len(turns) == 3:
            executor.shutdown()

    monkeypatch.setattr(rclpy.executors.Executor, "spin", None)
    monkeypatch.setattr(executor, "spin_once", turn)
    executor.spin()
    assert len(turns) == 3
    context.shutdown()


def test_it_does_not_end_while_a_service_runs(slow: tuple[Slow, NodeExecutor, "Future[None]"]) -> None:
    node, executor, spinning = slow
    node.client.call_async(Trigger.Request())
    assert node.serving.wait(PATIENCE_S)
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(executor.shutdown)
        assert spinning.result(PATIENCE_S) is None
        assert not ending.done()
        node.let_go.set()
        assert ending.result(PATIENCE_S)


def test_nor_while_a_callback_runs(slow: tuple[Slow, NodeExecutor, "Future[None]"]) -> None:
    """What rclpy needs to end the callback is still there then."""
    node, executor, spinning = slow
    node.create_timer(0.01, lambda: node._wait(Trigger.Request(), Trigger.Response()))
    executor.wake()
    assert node.serving.wait(PATIENCE_S)
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(executor.shutdown)
        with pytest.raises(TimeoutError):
            ending.result(0.5)
        assert not spinning.done()
        node.let_go.set()
        assert ending.result(PATIENCE_S)
        assert spinning.result(PATIENCE_S) is None
