"""Decode audio in separate processes, so that a crashing decoder does not end the program.

libsndfile and its codecs are native code. A file of unknown origin can make them crash, hang
or allocate without limit. Here each of these becomes an AudioError that names the file.

This file is the parent's side. The processes run `rfkeras.audio.sandbox_worker`.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from rfkeras.audio.io import (
    TOLERANCE_SECONDS,
    AudioFormat,
    AudioInfo,
    Waveform,
    source_name,
)
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError, ConfigError
from rfkeras.utils.processes import DETACHED, describe_status

WORKER_MODULE = "rfkeras.audio.sandbox_worker"
# Where processes are forked, they can inherit a socket. Elsewhere, as on Windows, they connect
# to a port of the loopback interface.
HANDS_OVER_SOCKETS = hasattr(os, "fork")
LOOPBACK, PORT, KEY_BYTES = "127.0.0.1", "port:", 32
_START_SECONDS = 60.0
_ACCEPT_SECONDS = 0.1
_KEY_SECONDS = 1.0
_END_SECONDS = 5.0
# Long reads get extra time, as a share of the audio's length. The slowest decoder (Vorbis)
# needs 0.01.
_EXTRA_SECONDS_PER_SECOND = 0.2


@dataclass(frozen=True)
class Limits:
    """Limits on decoding one file.

    Attributes:
        seconds: Time for one request (open, check or read). Reads get a fifth of the length
            of their audio on top.
        memory_mb: Address space of the decoding process in MiB, without its libraries. An
            hour of stereo at 44.1 kHz, read in one request, needs about 2500. macOS and
            Windows do not limit it.
    """

    seconds: float = 60.0
    memory_mb: int = 4096


class DecoderPool:
    """Decoding processes, started on demand and reused for the next file.

    The pool is thread-safe. Every open file has its own process.

    Args:
        limits: Limits on decoding one file.
        worker_module: Module that the processes run.
    """

    def __init__(
        self, limits: Limits | None = None, worker_module: str = WORKER_MODULE
    ) -> None:
        self.limits = limits or Limits()
        self._worker_module = worker_module
        self._idle: list[DecoderProcess] = []
        self._max_idle = os.cpu_count() or 1
        self._lock = threading.Lock()

    def open(
        self, source: Source, audio: AudioFormat, name: str | None = None
    ) -> IsolatedAudioFile:
        """Open a file; see `IsolatedAudioFile`."""
        return IsolatedAudioFile(self, source, audio, name)

    def check(
        self,
        path: str | Path,
        expected_seconds: float | None = None,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        *,
        strict: bool = False,
        decode: bool = False,
    ) -> AudioInfo:
        """Run `rfkeras.audio.io.check_file` in a decoding process."""
        session = _Session(self, str(path))
        try:
            answer = session.ask(
                {
                    "ask": "check",
                    "path": str(path),
                    "expected_seconds": expected_seconds,
                    "tolerance_seconds": tolerance_seconds,
                    "strict": strict,
                    "decode": decode,
                }
            )
        finally:
            session.close()
        return _audio_info(answer)

    @property
    def idle_pids(self) -> list[int]:
        """Process ids of the idle processes."""
        with self._lock:
            return [process.pid for process in self._idle]

    def close(self) -> None:
        """End the idle processes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def acquire(self) -> DecoderProcess:
        """Return an idle process, or start one."""
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    return process
                process.end()
        return self.start()

    def start(self) -> DecoderProcess:
        """Start a process."""
        return DecoderProcess(self.limits, self._worker_module)

    def release(self, process: DecoderProcess) -> None:
        """Keep a process for the next file, or end it if enough are idle."""
        with self._lock:
            if len(self._idle) < self._max_idle:
                self._idle.append(process)
                return
        process.end()


@cache
def shared_pool() -> DecoderPool:
    """Return the pool that this whole program shares, with the default limits."""
    pool = DecoderPool()
    atexit.register(pool.close)
    return pool


if hasattr(os, "register_at_fork"):  # not on Windows
    # A forked process must not use the sockets of the process it was forked from.
    os.register_at_fork(after_in_child=shared_pool.cache_clear)


class IsolatedAudioFile:
    """An audio file that is open in a decoding process.

    It behaves like `rfkeras.audio.io.AudioFile`.

    Args:
        pool: Pool that provides the process.
        source: A path, or the content of a file as bytes.
        audio: Format of the samples.
        name: Name of the file in errors; None uses the path.

    Raises:
        AudioError: As for AudioFile, and also if the decoder crashed or exceeded a limit.
        ConfigError: The decoding process cannot be started.
    """

    def __init__(
        self, pool: DecoderPool, source: Source, audio: AudioFormat, name: str | None = None
    ) -> None:
        self.name = source_name(source) if name is None else name
        self.audio = audio
        self._limits = pool.limits
        is_content = isinstance(source, bytes)
        opening = {
            "ask": "open",
            "path": None if is_content else str(source),
            "name": self.name,
            "rate_hz": audio.sample_rate_hz,
            "channels": audio.channels,
        }
        content = source if isinstance(source, bytes) else b""
        self._session = _Session(pool, self.name, opening, content)
        try:
            answer = self._session.ask()
        except BaseException:
            self._session.close()
            raise
        self.info = _audio_info(answer)
        self.length = int(answer["length"])
        self._notes = self.info.notes

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about damage found so far; see `AudioFile.notes`."""
        return self._notes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    def read(self, start: int = 0, count: int | None = None) -> Waveform:
        """Read samples [start, start + count) at the model's rate; see `AudioFile.read`."""
        stop = self.length if count is None else start + count
        inside = 0 <= start <= stop <= self.length  # otherwise the process reports the error
        shape = self.audio.shape(stop - start if inside else 0)
        if 4 * math.prod(shape) > self._limits.memory_mb << 20:
            raise _out_of_memory(self.name, self._limits)
        samples = np.empty(shape, np.float32)
        answer = self._session.ask(
            {"ask": "read", "start": start, "count": count},
            into=samples,
            extra_seconds=_EXTRA_SECONDS_PER_SECOND * len(samples) / self.audio.sample_rate_hz,
        )
        self._notes = tuple(answer["notes"])
        return samples


class _Session:
    """The requests about one file. Every failure becomes an AudioError.

    If a process crashes after it has served other files, one of those may have corrupted its
    memory. The request is then repeated once in a new process before this file is blamed.

    Args:
        pool: Pool that provides the processes.
        name: Name of the file in errors.
        opening: First request to each process, if any.
        content: Data sent with the opening request, if the file is not a path.
    """

    def __init__(
        self,
        pool: DecoderPool,
        name: str,
        opening: Fields | None = None,
        content: bytes = b"",
    ) -> None:
        self._pool = pool
        self._name = name
        self._opening = opening
        self._content = content
        self._process: DecoderProcess | None = None
        self._served_others = False

    def ask(
        self,
        request: Fields | None = None,
        into: Waveform | None = None,
        extra_seconds: float = 0.0,
    ) -> Fields:
        """Return the answer to a request; None stands for the opening request."""
        limits = self._pool.limits
        seconds = limits.seconds + extra_seconds
        try:
            try:
                answer = self._attempt(self._pool.acquire, request, into, seconds)
            except DecoderDied:
                if not self._served_others:
                    raise
                answer = self._attempt(self._pool.start, request, into, seconds)
        except DecoderDied as error:
            raise AudioError(self._name, f"the decoder crashed: {error}") from error
        except TimeoutError as error:
            reason = f"the decoder did not answer within {seconds:g} s"
            raise AudioError(self._name, reason) from error
        if "memory" in answer:
            raise _out_of_memory(self._name, limits)
        if "error" in answer:
            raise AudioError(self._name, answer["error"])
        return answer

    def close(self) -> None:
        """Return the process to the pool if it is alive."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.ask({"ask": "close"}, self._pool.limits.seconds)
        except (DecoderDied, TimeoutError):
            return  # nothing is lost: all requests were answered
        self._pool.release(process)

    def _attempt(
        self,
        new_process: Callable[[], DecoderProcess],
        request: Fields | None,
        into: Waveform | None,
        seconds: float,
    ) -> Fields:
        process, self._process = self._process, None  # set again if the process survives
        answer: Fields = {}
        if process is None:
            process = new_process()
            self._served_others = process.answered > 0
            if self._opening is not None:
                answer = process.ask(self._opening, seconds, self._content)
        if request is not None and not answer.keys() & {"error", "memory"}:
            answer = process.ask(request, seconds, into=into)
        self._process = process
        return answer


class DecoderDied(Exception):
    """The decoding process ended. The text is its signal or exit status."""


class DecoderProcess:
    """One decoding process and the socket to it.

    Args:
        limits: Limits on decoding one file.
        worker_module: Module that the process runs.

    Attributes:
        answered: Number of requests answered so far.

    Raises:
        ConfigError: The process does not start.
    """

    def __init__(self, limits: Limits, worker_module: str) -> None:
        self._limits = limits
        start = _with_socket if HANDS_OVER_SOCKETS else _with_port
        self._process, self._socket = start(worker_module, limits.memory_mb)
        self.answered = 0
        try:
            ready = self._receive(_START_SECONDS, None)
        except (DecoderDied, TimeoutError) as error:
            self.end()
            raise ConfigError(
                f"The decoding process does not start ({error or 'no answer'}). Its output is "
                'printed above. decoder="soundfile" (--decoder soundfile) needs no such '
                "process."
            ) from error
        except BaseException:
            self.end()
            raise
        if not ready["memory_limited"]:
            _note_missing_limit()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self,
        request: Fields,
        seconds: float,
        content: bytes = b"",
        into: Waveform | None = None,
    ) -> Fields:
        """Send a request and return the answer.

        If anything but an answer comes back, the process is ended. An answer can report an
        error.

        Args:
            request: The request.
            seconds: Time limit.
            content: Data to send with the request.
            into: Array to fill with the samples of the answer.

        Raises:
            TimeoutError: There was no answer in time.
            DecoderDied: The process ended.
        """
        try:
            self._socket.settimeout(seconds)
            try:
                send(self._socket, {**request, "seconds": seconds}, content)
            except TimeoutError:
                raise
            except OSError:
                raise self._death() from None
            answer = self._receive(seconds, into)
        except BaseException:
            self.end()
            raise
        self.answered += 1
        return answer

    def end(self) -> None:
        """Kill the process."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, seconds: float, into: Waveform | None) -> Fields:
        deadline = time.monotonic() + seconds
        try:
            message = receive(self._socket, deadline)
            if message is None:
                raise self._death()
            answer, content_bytes = message
            samples = memoryview(b"")
            if into is not None and content_bytes:
                samples = into.reshape(-1).view(np.uint8).data
            if content_bytes != len(samples):
                raise DecoderDied(f"it sent {content_bytes} bytes instead of {len(samples)}")
            if not receive_into(self._socket, samples, deadline):
                raise self._death()
        except TimeoutError:
            raise
        except OSError:
            raise self._death() from None
        except ValueError as error:
            raise DecoderDied(f"it sent {error}") from error
        return answer

    def _death(self) -> DecoderDied:
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return DecoderDied("it closed its connection")
        return DecoderDied(describe_status(status))


def _with_socket(module: str, memory_mb: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that inherits one end of a pair of sockets; return it and the other."""
    own, its = socket.socketpair()
    with its:
        process = _start(module, str(its.fileno()), memory_mb, pass_fds=(its.fileno(),))
    return process, own


def _with_port(module: str, memory_mb: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that connects to a loopback port; return it and the connection.

    Other programs can also connect to the port. The process therefore proves with a key that
    it is the one. If it ends before, the returned socket is closed at the other side.
    """
    key = secrets.token_bytes(KEY_BYTES)
    deadline = time.monotonic() + _START_SECONDS
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        process = _start(module, f"{PORT}{port}", memory_mb, stdin=subprocess.PIPE)
        assert process.stdin is not None
        with suppress(OSError), process.stdin:  # the process may have ended
            process.stdin.write(key)
        server.settimeout(_ACCEPT_SECONDS)
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                own, _ = server.accept()
                received = bytearray(KEY_BYTES)
                in_time = time.monotonic() + _KEY_SECONDS
                receive_into(own, memoryview(received), in_time)
                if secrets.compare_digest(received, key):
                    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return process, own
                own.close()
    own, its = socket.socketpair()
    its.close()
    return process, own


def _start(
    module: str, connection: str, memory_mb: int, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a decoding process."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", module, connection, str(memory_mb)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        **{"stdin": subprocess.DEVNULL, **DETACHED, **options},
    )
    return process


@cache
def _note_missing_limit() -> None:
    print(
        "Note: this system does not limit the memory of the processes that decode audio. A "
        "damaged file can use all of it.",
        file=sys.stderr,
    )


def _audio_info(answer: Fields) -> AudioInfo:
    """Return the properties in an answer; JSON knows no tuples."""
    return AudioInfo(**{**answer["info"], "notes": tuple(answer["info"]["notes"])})


def _out_of_memory(name: str, limits: Limits) -> AudioError:
    return AudioError(name, f"decoding it takes more than {limits.memory_mb} MB of memory")


# Messages between the processes

Fields = dict[str, Any]
_LENGTHS = struct.Struct("<IQ")
_MAX_FIELDS_BYTES = 1 << 20


def send(connection: socket.socket, fields: Fields, content: bytes | memoryview = b"") -> None:
    """Send one message.

    Args:
        connection: A stream socket; its timeout applies to the whole message.
        fields: JSON-compatible values. Paths may have bytes that are not valid UTF-8.
        content: Binary data sent after the fields, in one-byte items.

    Raises:
        OSError: The other side is gone or takes too long.
    """
    text = json.dumps(fields).encode()
    connection.sendall(_LENGTHS.pack(len(text), len(content)) + text)
    connection.sendall(content)


def receive(
    connection: socket.socket, deadline: float | None = None
) -> tuple[Fields, int] | None:
    """Receive the fields of the next message and the number of content bytes to follow.

    Args:
        connection: A stream socket.
        deadline: `time.monotonic()` at which to give up; None waits forever.

    Returns:
        (fields, content bytes), or None if the other side has closed the connection.

    Raises:
        TimeoutError: The deadline has passed.
        OSError: The other side is gone.
        ValueError: The data is not a message.
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
    """Fill a buffer with received bytes.

    Args:
        connection: A stream socket.
        view: Buffer to fill completely.
        deadline: `time.monotonic()` at which to give up; None waits forever.

    Returns:
        False if the other side closed the connection first.

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
