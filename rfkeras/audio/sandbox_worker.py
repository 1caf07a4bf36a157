"""Script: decode audio for another process, which survives if this one crashes.

Usage: `python -m rfkeras.audio.sandbox_worker CONNECTION MEMORY_MB`, started by
`rfkeras.audio.sandbox`. CONNECTION is the number of an open socket, or "port:N" for a port of
the loopback interface; then a key comes through standard input, and is sent back first. It
answers one request at a time, has at most one file open, and ends when the other side closes
the socket. It imports no TensorFlow.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

import av  # noqa: F401
import numpy as np
import soundfile  # noqa: F401
import soxr  # noqa: F401

from rfkeras.audio.io import AudioFile, AudioFormat, check_file
from rfkeras.audio.sandbox import (
    KEY_BYTES,
    LOOPBACK,
    PORT,
    Fields,
    receive,
    receive_into,
    send,
)
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError

_LIBRARIES_MB = 512  # address space that the libraries take before any audio
# The parent kills this process when its time is up. If the parent itself is dead, a native
# thread ends this process: inside a decoder that never returns, nothing else could.
_GRACE_SECONDS = 5.0


def main() -> None:
    """Serve the socket given in the arguments."""
    connection = _connect(sys.argv[1])
    limited = _limit_memory((int(sys.argv[2]) + _LIBRARIES_MB) << 20)
    _silence_libraries()
    send(connection, {"ready": True, "memory_limited": limited})
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        RequestHandler(connection, nowhere).serve()


def _connect(address: str) -> socket.socket:
    """Return the socket to the parent; see the usage above."""
    if not address.startswith(PORT):
        return socket.socket(fileno=int(address))
    connection = socket.create_connection((LOOPBACK, int(address.removeprefix(PORT))))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(sys.stdin.buffer.read(KEY_BYTES))
    return connection


def _limit_memory(limit_bytes: int) -> bool:
    """Limit the address space of this process; return whether the system can.

    Windows has no such limit, and macOS does not accept this one.
    """
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    except (ImportError, AttributeError, ValueError, OSError):
        return False
    return True


class RequestHandler:
    """Answers the requests that come through a socket.

    Args:
        connection: The socket.
        nowhere: File for the stack of a decoder that never returns.
    """

    def __init__(self, connection: socket.socket, nowhere: IO[str]) -> None:
        self._connection = connection
        self._nowhere = nowhere
        self._file: AudioFile | None = None

    def serve(self) -> None:
        """Answer requests until the other side closes the socket."""
        while (message := receive(self._connection)) is not None:
            request, content_bytes = message
            seconds = request["seconds"] + _GRACE_SECONDS
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._nowhere)
            content: bytes | memoryview = b""
            try:
                fields, content = self._answer(request, content_bytes)
            except AudioError as error:
                fields = {"error": error.reason}
            except MemoryError:
                gc.collect()
                fields = {"memory": True}
            send(self._connection, fields, content)
            faulthandler.cancel_dump_traceback_later()

    def _answer(self, request: Fields, content_bytes: int) -> tuple[Fields, memoryview]:
        nothing = memoryview(b"")
        match request["ask"]:
            case "open":
                self._close()
                audio = AudioFormat(request["rate_hz"], request["channels"])
                source = request["path"] or self._content(content_bytes)
                self._file = AudioFile(source, audio, request["name"])
                return {"info": asdict(self._file.info), "length": self._file.length}, nothing
            case "read":
                assert self._file is not None
                samples = self._file.read(request["start"], request["count"])
                fields = {"notes": self._file.notes}
                return fields, np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data
            case "check":
                info = check_file(
                    request["path"],
                    request["expected_seconds"],
                    request["tolerance_seconds"],
                    strict=request["strict"],
                    decode=request["decode"],
                )
                return {"info": asdict(info)}, nothing
            case _:
                self._close()
                return {}, nothing

    def _content(self, content_bytes: int) -> Source:
        content = bytearray(content_bytes)
        receive_into(self._connection, memoryview(content))
        return bytes(content)

    def _close(self) -> None:
        if self._file is not None:
            self._file.__exit__(None, None, None)
            self._file = None


def _silence_libraries() -> None:
    """Reserve standard error for Python: mpg123 prints a line for each frame it repairs."""
    own = os.dup(2)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = os.fdopen(own, "w", encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    main()
