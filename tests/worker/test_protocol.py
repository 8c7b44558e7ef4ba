# SPDX-License-Identifier: Apache-2.0
import enum
import os
import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from worker.same import assert_same

from pose_bridge import errors, views
from pose_bridge.errors import BadInputError, NoEstimateError
from pose_bridge.geometry.cameras import Camera
from pose_bridge.worker import protocol
from pose_bridge.worker.protocol import Message, ProtocolError

DTYPES = st.sampled_from(["<f8", ">f8", "<f4", "|u1", "|b1", "<i8", "<u2", "<f2"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=5))
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | ARRAYS
    | st.sampled_from([views.Stage.CONTEXT, views.Reason.BUDGET, views.Require.METRIC])
)
BODIES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def through(message: Message, limit: int = 2**20) -> Message:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=protocol.write, args=[ours, protocol.encode(message, limit)])
        writer.start()
        received = protocol.receive(theirs, limit, 5.0)
        writer.join()
    return received


def raw(data: bytes, timeout_s: float = 5.0) -> Message:
    """What is understood of bytes that end there."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(data)
        return protocol.receive(theirs, 2**20, timeout_s)


@given(BODIES, st.text(), st.integers(0, 2**64))
def test_what_is_sent_arrives(body: object, kind: str, number: int) -> None:
    received = through(Message(kind, number, body))
    assert (received.kind, received.number) == (kind, number)
    assert_same(received.body, body)


@given(ARRAYS)
def test_arrays_arrive_as_values_whatever_their_layout(array: np.ndarray) -> None:
    for layout in (array.T, array[..., ::-1] if array.ndim else array):
        assert_same(
            through(Message("x", body=layout)).body, np.ascontiguousarray(layout).reshape(layout.shape)
        )


def test_every_class_and_enum_of_views_travels() -> None:
    camera = Camera.from_opencv(np.eye(3) + np.diag([99, 99, 0]), [0.1, 0, 0, 0], width=9, height=7)
    assert_same(through(Message("x", body=camera)).body, camera)
    for kind in vars(views).values():
        if isinstance(kind, enum.EnumMeta) and kind is not enum.IntEnum:
            assert_same(through(Message("x", body=list(kind))).body, list(kind))


@pytest.mark.parametrize("value", [np.float64(1 / 3), np.int32(5), np.bool_(True)], ids=repr)
def test_numpy_scalars_become_plain(value: np.generic) -> None:
    assert_same(through(Message("x", body=value)).body, value.item())


@pytest.mark.parametrize(
    "body",
    [np.array([None]), np.array(["text"]), np.array([1j]), np.zeros(2**20 + 1, np.uint8), "x" * (2**22 + 1)],
    ids=["objects", "text", "complex", "too many bytes", "too many words"],
)
def test_what_must_not_travel_is_refused(body: object) -> None:
    with pytest.raises(BadInputError):
        protocol.encode(Message("x", body=body), 2**20)


@given(st.binary(max_size=200))
def test_noise_is_no_message(noise: bytes) -> None:
    with pytest.raises((ProtocolError, EOFError)):
        raw(noise)


@given(st.data())
def test_a_spoilt_message_is_refused_or_harmless(data: st.DataObject) -> None:
    """One byte changed: an error that the client expects, or still a message."""
    body = {"a": np.arange(3.0), "b": views.Stage.DIRECT, "c": ["x", None]}
    frame = bytearray(b"".join(map(bytes, protocol.encode(Message("answer", 5, body), 2**20))))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(raw(bytes(frame)), Message)
    except (ProtocolError, EOFError):
        return


@pytest.mark.parametrize(
    "layout",
    [
        '[["|O",[1]]]',
        '[["<f8",[2]]]',
        '[["<f8",[-1]],["<f8",[2]]]',
        '[["<f8",[1.0]]]',
        '[["<f8",[true]]]',
        '[["<f8",1]]',
        '[["<f8",[1,1,1,1,1,1,1,1,1]]]',
        '[["<f8",[4611686018427387904,0]],["<f8",[1]]]',
        '[["f8,O",[1]]]',
        '[["<u16",[1]]]',
        '[[["<f8"],[1]]]',
        '[["<f8"]]',
        "7",
        "null",
    ],
)
def test_a_header_that_lies_about_its_arrays_is_refused(layout: str) -> None:
    header = f'["x",0,null,{layout}]'.encode()
    with pytest.raises(ProtocolError):
        raw(protocol._PREFIX.pack(b"PBrg", len(header), 8) + header + bytes(8))


@pytest.mark.parametrize(
    "header",
    [
        "{nan]",
        "[" * 100_000,
        "7",
        '["answer",1,null]',
        "[1,1,null,[]]",
        '["answer","1",null,[]]',
        '["answer",1,{"array":7},[]]',
        '["answer",1,{"array":"0"},[]]',
        '["answer",1,{"tuple":7},[]]',
        '["answer",1,{"dict":7},[]]',
        '["answer",1,{"Popen":{"args":"true"}},[]]',
        '["answer",1,{"Status":99},[]]',
        '["answer",1,{"Status":3,"Reason":0},[]]',
        '["answer",1,{},[]]',
        '["answer",1,{"Answer":{}},[]]',
        '["answer",1,{"Answer":{"status":{"Status":3}}},[]]',
        '["answer",1,{"Answer":{"status":{"Status":1},"reason":{"Reason":1},"system":"true"}},[]]',
    ],
    ids=lambda header: header[:60],
)
def test_a_header_that_says_nothing_known_is_refused(header: str) -> None:
    with pytest.raises(ProtocolError):
        raw(protocol._PREFIX.pack(b"PBrg", len(header), 0) + header.encode())


def test_only_what_is_announced_is_allocated() -> None:
    for header, arrays in ((2**32 - 1, 0), (10, 2**63)):
        with pytest.raises(ProtocolError):
            raw(protocol._PREFIX.pack(b"PBrg", header, arrays))


def test_silence_is_told_from_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(TimeoutError):
            protocol.receive(theirs, 0, 0.05)
        os.write(ours.fileno(), b"PBrg")
        with pytest.raises(TimeoutError):
            protocol.receive(theirs, 0, 0.05)
    with pytest.raises(EOFError):
        raw(b"")
    with pytest.raises(EOFError):
        raw(b"PBrg")


@pytest.mark.parametrize("kind", sorted(protocol._ERRORS))
def test_errors_come_back_as_they_were(kind: str) -> None:
    error = getattr(errors, kind)("what, value, what to do")
    again, details = protocol.error_of(through(Message("x", body=protocol.error_body(error, "why"))).body)
    assert type(again) is type(error)
    assert (str(again), again.code, details) == (str(error), error.code, "why")


def test_an_error_of_a_class_of_its_own_comes_back_as_its_base() -> None:
    class SpecialError(NoEstimateError):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    again, _ = protocol.error_of(protocol.error_body(SpecialError(1, 2)))
    assert type(again) is NoEstimateError
    assert str(again) == "1 and 2"


@pytest.mark.parametrize(
    "body", [None, [], ["OSError", "", ""], ["__name__", "", ""], ["BusyError", 1, ""], "x"]
)
def test_what_is_no_error_is_refused(body: object) -> None:
    with pytest.raises((ProtocolError, ValueError)):
        protocol.error_of(body)
