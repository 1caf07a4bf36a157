"""Messages between two processes over a socket: a few fields, and bytes behind them.

A message is the lengths of both parts, the fields as JSON, then the bytes. Nothing in it is
ever run or unpickled: the other process may have been taken over by what it decodes.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

_LENGTHS = struct.Struct("<IQ")
_MAX_FIELDS_BYTES = 1 << 20

Fields = dict[str, Any]


def send(connection: socket.socket, fields: Fields, content: bytes | memoryview = b"") -> None:
    """Send one message.

    Args:
        connection: A stream socket; its time limit applies to the whole message.
        fields: What JSON can hold. Paths may hold bytes that are no UTF-8.
        content: What follows them, of items of one byte.

    Raises:
        OSError: The other side is gone, or takes too long.
    """
    text = json.dumps(fields).encode()
    connection.sendall(_LENGTHS.pack(len(text), len(content)) + text)
    connection.sendall(content)


def receive(
    connection: socket.socket, deadline: float | None = None
) -> tuple[Fields, int] | None:
    """The fields of the next message, and how many bytes are to follow.

    Args:
        connection: A stream socket.
        deadline: `time.monotonic()` up to which to wait; for ever when None.

    Returns:
        None where the other side has closed the connection.

    Raises:
        TimeoutError: The deadline has passed.
        OSError: The other side is gone.
        ValueError: What came is no message.
    """
    lengths = bytearray(_LENGTHS.size)
    if not receive_into(connection, memoryview(lengths), deadline):
        return None
    text_bytes, content_bytes = _LENGTHS.unpack(lengths)
    if text_bytes > _MAX_FIELDS_BYTES:
        raise ValueError(f"a message with {text_bytes} bytes of fields")
    text = bytearray(text_bytes)
    if not receive_into(connection, memoryview(text), deadline):
        return None
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("a message without fields")
    return fields, content_bytes


def receive_into(
    connection: socket.socket, view: memoryview, deadline: float | None = None
) -> bool:
    """Fill a buffer of bytes; False where the other side closes the connection before.

    Raises:
        TimeoutError: The deadline has passed.
        OSError: The other side is gone.
    """
    while view:
        if deadline is not None:
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
        count = connection.recv_into(view)
        if count == 0:
            return False
        view = view[count:]
    return True
