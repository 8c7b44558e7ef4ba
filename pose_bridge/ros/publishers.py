# SPDX-License-Identifier: Apache-2.0
"""Who publishes what we listen to, and why nothing arrives."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

_COMPRESSED = "/compressed"
_UNKNOWN_NODE = "_NODE_NAME_UNKNOWN_"  # rmw_dds_common, while a publisher is discovered before its node


@dataclass(frozen=True)
class Wanted:
    """What one of our subscriptions listens to.

    Attributes:
        topic: With namespace, remapped.
        kind: Type of its messages, such as sensor_msgs/msg/Image.
        qos: Of the subscription.
    """

    topic: str
    kind: str
    qos: QoSProfile

    @classmethod
    def by(cls, subscription: Subscription) -> Wanted:
        """What a subscription listens to."""
        message = subscription.msg_type
        kind = f"{message.__module__.split('.')[0]}/msg/{message.__name__}"
        return cls(subscription.topic_name, kind, subscription.qos_profile)


@dataclass(frozen=True)
class Publishers:
    """Who publishes on a topic.

    Attributes:
        wanted: What we listen to.
        fitting: Nodes that we can hear.
        misfits: Nodes that we cannot, each with the policy that keeps us apart.
        other_kinds: Types that others publish on the topic.
        other_transport: The topic of pictures that are compressed where ours are not, or the other way round;
            empty if nobody publishes there.
    """

    wanted: Wanted
    fitting: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()
    other_kinds: tuple[str, ...] = ()
    other_transport: str = ""

    def why_silent(self) -> str:
        """Say why nothing arrives, and what to do."""
        topic = self.wanted.topic
        if self.fitting:
            return f"{_list(self.fitting)} on {topic}, and nothing arrives"
        if self.misfits:
            return f"the QoS of who publishes on {topic} does not fit ours: {'; '.join(self.misfits)}"
        if self.other_kinds:
            return f"{topic} is {_list(self.other_kinds)}, not {self.wanted.kind}; remap to another topic"
        if self.other_transport:
            transport = "compressed" if self.other_transport.endswith(_COMPRESSED) else "raw"
            return (
                f"nothing publishes on {topic}, but on {self.other_transport}: "
                f"set image.transport to {transport}"
            )
        return f"nothing publishes on {topic}; is the driver running, and the topic remapped to its name?"


def look_up(node: Node, wanted: Wanted) -> Publishers:
    """Return who publishes what we listen to, as far as it was discovered."""
    fitting, misfits, other_kinds = [], [], []
    for publisher in node.get_publishers_info_by_topic(wanted.topic):
        name = _name(publisher)
        if publisher.topic_type != wanted.kind:
            other_kinds.append(publisher.topic_type)
        elif reason := misfit(publisher.qos_profile, wanted.qos):
            misfits.append(f"{name}: {reason}")
        else:
            fitting.append(f"{name} publishes")
    other = _other_transport(wanted)
    published = bool(other) and node.count_publishers(other) > 0
    return Publishers(
        wanted, tuple(fitting), tuple(misfits), tuple(sorted(set(other_kinds))), other if published else ""
    )


def misfit(offered: QoSProfile, asked: QoSProfile) -> str:
    """Return which policies of a publisher do not fit a subscription; empty if they fit."""
    found = []
    if (
        asked.reliability == ReliabilityPolicy.RELIABLE
        and offered.reliability == ReliabilityPolicy.BEST_EFFORT
    ):
        found.append("reliability is best effort there, and reliable is asked for here")
    if (
        asked.durability == DurabilityPolicy.TRANSIENT_LOCAL
        and offered.durability == DurabilityPolicy.VOLATILE
    ):
        found.append("durability is volatile there, and transient local is asked for here")
    fits, reason = qos_check_compatible(offered, asked)
    if not found and fits == QoSCompatibility.ERROR:
        found.append(reason)
    return ", ".join(found)


def _name(publisher: TopicEndpointInfo) -> str:
    if publisher.node_name == _UNKNOWN_NODE:
        return "a node without a name yet"
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"


def _other_transport(wanted: Wanted) -> str:
    if wanted.kind == "sensor_msgs/msg/Image":
        return wanted.topic + _COMPRESSED
    if wanted.kind == "sensor_msgs/msg/CompressedImage" and wanted.topic.endswith(_COMPRESSED):
        return wanted.topic[: -len(_COMPRESSED)]
    return ""


def _list(names: tuple[str, ...]) -> str:
    return " and ".join(names)
