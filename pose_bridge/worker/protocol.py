# SPDX-License-Identifier: Apache-2.0
"""What client and server say to each other: a JSON header and the raw bytes of arrays; nothing is unpickled.

A frame is `MAGIC`, the lengths of header and arrays, the header, the arrays one after the other. The header
names the kind of message, the errand it belongs to, and each array's type and shape.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pose_bridge import errors, views
from pose_bridge.errors import BadInputError, PoseBridgeError

VERSION = 1
MAX_HEADER = 4 * 2**20
MAX_QUESTION = 2**31
MAX_ANSWER = 64 * 2**20

_MAGIC = b"PBrg"
_PREFIX = struct.Struct("!4sIQ")
_MAX_DIMENSIONS = 8
_NUMBERS = re.compile(r"[<>|][biuf](1|2|4|8|16)")  # numpy's names of bool, int, unsigned, float
_RECORDS: dict[str, Any] = {
    name: kind for name, kind in vars(views).items() if dataclasses.is_dataclass(kind)
}
_ENUMS: dict[str, Any] = {
    name: kind
    for name, kind in vars(views).items()
    if isinstance(kind, enum.EnumMeta) and kind is not enum.IntEnum
}
_ERRORS: dict[str, type[PoseBridgeError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, PoseBridgeError)
}


class ProtocolError(Exception):
    """The other side wrote what no library of this version writes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Message:
    """One message.

    Attributes:
        kind: What it is, such as "question" or "answer".
        number: The errand that it belongs to; 0 for none.
        body: Whatever `pack` can put into JSON.
    """

    kind: str
    number: int = 0
    body: Any = None


def encode(message: Message, max_arrays: int) -> list[Any]:
    """Return the buffers that `write` takes; the arrays are not copied if they lie in one piece.

    Raises:
        BadInputError: Too large, or arrays of something else than numbers.
    """
    arrays: list[NDArray[Any]] = []
    body = pack(message.body, arrays)
    layout = [[array.dtype.str, list(array.shape)] for array in arrays]
    header = json.dumps([message.kind, message.number, body, layout], separators=(",", ":")).encode()
    size = sum(array.nbytes for array in arrays)
    if len(header) > MAX_HEADER or size > max_arrays:
        raise BadInputError(
            f"a message to or from the worker holds at most {max_arrays / 2**20:.0f} MiB of arrays and "
            f"{MAX_HEADER / 2**20:.0f} MiB of words, got {size / 2**20:.1f} and {len(header) / 2**20:.1f}; "
            "give fewer or smaller images"
        )
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays if array.size]
    return [_PREFIX.pack(_MAGIC, len(header), size) + header, *flat]


def write(connection: socket.socket, buffers: list[Any]) -> None:
    """Write what `encode` made.

    Raises:
        OSError: The other side is gone.
    """
    for buffer in buffers:
        connection.sendall(buffer)


def receive(connection: socket.socket, max_arrays: int, timeout_s: float = math.inf) -> Message:
    """Read one message.

    Args:
        connection: A blocking socket.
        max_arrays: Bytes of arrays that are accepted.
        timeout_s: Longest time to wait for its beginning, and from there for its end.

    Raises:
        EOFError: The other side closed the connection.
        TimeoutError: Too little came in time.
        ProtocolError: What came is no message.
    """
    first = _read(connection, 1, time.monotonic() + timeout_s)
    deadline_s = time.monotonic() + timeout_s
    prefix = first.tobytes() + _read(connection, _PREFIX.size - 1, deadline_s).tobytes()
    magic, header_size, arrays_size = _PREFIX.unpack(prefix)
    if magic != _MAGIC or header_size > MAX_HEADER or arrays_size > max_arrays:
        raise ProtocolError(f"no message starts with {prefix!r}")
    try:
        kind, number, body, layout = json.loads(_read(connection, header_size, deadline_s).tobytes())
        arrays = [_empty(dtype, shape, arrays_size) for dtype, shape in layout]
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a header: {error}") from error
    if sum(array.nbytes for array in arrays) != arrays_size:
        raise ProtocolError("the header names other arrays than follow")
    if not isinstance(kind, str) or not isinstance(number, int):
        raise ProtocolError(f"neither kind nor number of a message: {kind!r}, {number!r}")
    for array in arrays:
        _fill(connection, array.reshape(-1).view(np.uint8), deadline_s)
    return Message(kind, number, _checked(lambda: unpack(body, arrays)))


def pack(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Return `value` as JSON knows it, its arrays moved to `arrays`.

    What JSON does not know becomes a mapping of one entry: its type, and what it is made of.
    """
    if isinstance(value, np.ndarray):
        if not _NUMBERS.fullmatch(value.dtype.str):
            raise BadInputError(f"only arrays of numbers travel to the worker, got {value.dtype}")
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, enum.IntEnum):
        return {type(value).__name__: int(value)}
    if dataclasses.is_dataclass(value):
        fields = {f.name: pack(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {type(value).__name__: fields}
    if isinstance(value, dict):
        return {"dict": {key: pack(entry, arrays) for key, entry in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [pack(entry, arrays) for entry in value]}
    if isinstance(value, list):
        return [pack(entry, arrays) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


def unpack(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Undo `pack`; numpy's scalars come back as Python's.

    Raises:
        LookupError, TypeError, ValueError, BadInputError: Nothing that `pack` returns.
    """
    if isinstance(value, list):
        return [unpack(entry, arrays) for entry in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind in _ENUMS:
        return _ENUMS[kind](content)
    if kind == "tuple":
        return tuple(unpack(entry, arrays) for entry in content)
    entries = {key: unpack(entry, arrays) for key, entry in content.items()}
    return entries if kind == "dict" else _RECORDS[kind](**entries)


def error_body(error: PoseBridgeError, details: str = "") -> list[str]:
    """Return an error as the body of a message: the nearest class that `errors` knows, text, and details."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
    return [name, str(error), details]


def error_of(body: Any) -> tuple[PoseBridgeError, str]:
    """Undo `error_body`.

    Raises:
        ProtocolError: There is no such error.
    """
    name, text, details = (expect(part, str) for part in expect(body, list))
    if name not in _ERRORS:
        raise ProtocolError(f"there is no error {name!r}")
    return _ERRORS[name](text), details


def expect(body: Any, kind: type) -> Any:
    """Return the body if it is what it has to be.

    Raises:
        ProtocolError: It is not.
    """
    if not isinstance(body, kind):
        raise ProtocolError(f"expected {kind.__name__}, got {type(body).__name__}")
    return body


def _checked(build: Callable[[], Any]) -> Any:
    try:
        return build()
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError, BadInputError) as error:
        raise ProtocolError(f"not what its header says: {error}") from error


def _empty(dtype: Any, shape: Any, max_size: int) -> NDArray[Any]:
    """Return an array to be filled, or raise ValueError."""
    if not _NUMBERS.fullmatch(dtype) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"no array of numbers has the type {dtype!r} and {len(shape)} dimensions")
    if any(type(count) is not int or count < 0 for count in shape):
        raise ValueError(f"no array has the shape {shape!r}")
    kind = np.dtype(dtype)
    if kind.itemsize * math.prod(shape) > max_size:
        raise ValueError(f"an array of shape {shape} is larger than all arrays together")
    return np.empty(shape, kind)


def _read(connection: socket.socket, size: int, deadline_s: float) -> NDArray[np.uint8]:
    buffer = np.empty(size, np.uint8)
    _fill(connection, buffer, deadline_s)
    return buffer


def _fill(connection: socket.socket, buffer: NDArray[np.uint8], deadline_s: float) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    at = 0
    while at < len(buffer):
        left_s = deadline_s - time.monotonic()
        if not poll.poll(None if left_s == math.inf else max(0.0, 1e3 * left_s)):
            raise TimeoutError("nothing came in time")
        count = connection.recv_into(buffer[at:].data)
        if count == 0:
            raise EOFError("the connection was closed")
        at += count
