"""Script: decode audio for another process, which survives if this one crashes.

Usage: `python -m rfkeras.audio.sandbox_worker SOCKET MEMORY_MB`, started by
`rfkeras.audio.sandbox`. It answers one request at a time, has at most one file open, and
ends when the other side closes the socket. It imports no TensorFlow.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import av  # noqa: F401
import numpy as np
import soundfile  # noqa: F401
import soxr  # noqa: F401

from rfkeras.audio.io import AudioFile, AudioFormat, check_file
from rfkeras.audio.sandbox import Fields, receive, receive_into, send
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError

_LIBRARIES_MB = 512  # address space that the libraries take before any audio
# The parent kills this process when its time is up. If the parent itself is dead, the alarm
# ends this process: inside a decoder that never returns, nothing else could.
_GRACE_SECONDS = 5.0


def main() -> None:
    """Serve the socket given in the arguments."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    limit = (int(sys.argv[2]) + _LIBRARIES_MB) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _silence_libraries()
    send(connection, {"ready": True})
    RequestHandler(connection).serve()


class RequestHandler:
    """Answers the requests that come through a socket.

    Args:
        connection: The socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file: AudioFile | None = None

    def serve(self) -> None:
        """Answer requests until the other side closes the socket."""
        while (message := receive(self._connection)) is not None:
            request, content_bytes = message
            signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _GRACE_SECONDS)
            content: bytes | memoryview = b""
            try:
                fields, content = self._answer(request, content_bytes)
            except AudioError as error:
                fields = {"error": error.reason}
            except MemoryError:
                gc.collect()
                fields = {"memory": True}
            send(self._connection, fields, content)
            signal.setitimer(signal.ITIMER_REAL, 0)

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
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = os.fdopen(own, "w")


if __name__ == "__main__":
    main()
