"""Script: decode audio for another process, which goes on when this one dies.

`python -m rfkeras.audio.sandbox_worker SOCKET MEMORY_MB`, started by
`rfkeras.audio.sandbox`. It answers one question after the other, about one open file at a
time, and ends when the other side closes the socket. It imports no TensorFlow.
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

import numpy as np
import soundfile  # noqa: F401
import soxr  # noqa: F401

from rfkeras.audio.io import AudioFile, AudioFormat, Source, check_file
from rfkeras.audio.sandbox import Fields, receive, receive_into, send
from rfkeras.errors import AudioError

_OWN_MB = 512  # address space that the libraries take before any audio
# The other process kills this one after the time it allows. Where that has died itself, the
# alarm does, for inside of a decoder that never returns nothing else is looked at.
_GRACE_SECONDS = 5.0


class Answers:
    """Answers about the file that is open.

    Args:
        connection: Where questions come from.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file: AudioFile | None = None

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while (message := receive(self._connection)) is not None:
            question, content_bytes = message
            signal.setitimer(signal.ITIMER_REAL, question["seconds"] + _GRACE_SECONDS)
            content: bytes | memoryview = b""
            try:
                fields, content = self._answer(question, content_bytes)
            except AudioError as error:
                fields = {"error": error.reason}
            except MemoryError:
                gc.collect()
                fields = {"memory": True}
            send(self._connection, fields, content)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _answer(self, question: Fields, content_bytes: int) -> tuple[Fields, memoryview]:
        nothing = memoryview(b"")
        match question["ask"]:
            case "open":
                self._close()
                audio = AudioFormat(question["rate_hz"], question["channels"])
                source = question["path"] or self._content(content_bytes)
                self._file = AudioFile(source, audio, question["name"])
                return {"info": asdict(self._file.info), "length": self._file.length}, nothing
            case "read":
                assert self._file is not None
                samples = self._file.read(question["start"], question["count"])
                return {}, np.ascontiguousarray(samples).reshape(-1).view(np.uint8).data
            case "check":
                info = check_file(
                    question["path"],
                    question["expected_seconds"],
                    question["tolerance_seconds"],
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


def main() -> None:
    """Serve the socket that the arguments name."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    limit = (int(sys.argv[2]) + _OWN_MB) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _silence_libraries()
    send(connection, {"ready": True})
    Answers(connection).serve()


def _silence_libraries() -> None:
    """Leave standard error to Python: mpg123 notes there every frame that it mends."""
    own = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    sys.stderr = os.fdopen(own, "w")


if __name__ == "__main__":
    main()
