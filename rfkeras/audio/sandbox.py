"""Decoding in processes of their own, so that a decoder that dies ends no run.

libsndfile and what it is made of are native code that reads files of unknown origin. Here a
crash, an endless loop or a run-away allocation in it is one more reason why one file cannot
be used: an AudioError that names the file.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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
    Source,
    Waveform,
    source_name,
)
from rfkeras.errors import AudioError, ConfigError

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


PROGRAM = "rfkeras.audio.sandbox_worker"
_START_SECONDS = 60.0
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """What decoding one file may take.

    Attributes:
        seconds: For one answer: to open, check or read, besides a fifth of the length of
            the audio that is read.
        memory_mb: Address space of the decoding process, in MiB, besides its libraries.
            An hour of stereo at 44.1 kHz, read at once, needs about 2500.
    """

    seconds: float = 60.0
    memory_mb: int = 4096


class DecoderDied(Exception):
    """The process is gone; the text says how."""


class Child:
    """One decoding process and the socket to it.

    Args:
        limits: What one file may take.
        program: Module that the process runs.

    Attributes:
        answered: Questions so far.

    Raises:
        ConfigError: It does not start.
    """

    def __init__(self, limits: Limits, program: str) -> None:
        self._limits = limits
        own, its = socket.socketpair()
        paths = [path or str(Path.cwd()) for path in sys.path]
        environment = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program, str(its.fileno()), str(limits.memory_mb)],
                env={**os.environ, **environment},
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for this process alone
            )
        self._socket = own
        self.answered = 0
        try:
            self._receive(_START_SECONDS, None)
        except (DecoderDied, TimeoutError) as error:
            self.end()
            raise ConfigError(
                f"The decoding process does not start ({error or 'no answer'}). What it "
                'printed stands above. decoder="soundfile" decodes without one.'
            ) from error
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self,
        question: Fields,
        seconds: float,
        content: bytes = b"",
        into: Waveform | None = None,
    ) -> Fields:
        """Its answer, and in `into` the samples that come with it.

        After anything but an answer, which may say that there is an error, it is ended.

        Raises:
            TimeoutError: No answer in that time.
            DecoderDied: It ended instead.
        """
        try:
            self._socket.settimeout(seconds)
            try:
                send(self._socket, {**question, "seconds": seconds}, content)
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
        """End it, whatever it is doing."""
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
                raise DecoderDied(f"it sent {content_bytes} bytes, {len(samples)} were due")
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
        if status >= 0:
            return DecoderDied(f"exit status {status}")
        return DecoderDied(signal.Signals(-status).name)


# Long reads get this share of their audio's length on top: the slowest decoder here (Vorbis)
# takes a hundredth of it.
_SECONDS_A_SECOND = 0.2


class Decoders:
    """Decoding processes, started as they are needed and kept for the next file.

    Any thread may use it. Each open file has a process to itself.

    Args:
        limits: What one file may take.
        program: Module that a process runs.
    """

    def __init__(self, limits: Limits | None = None, program: str = PROGRAM) -> None:
        self.limits = limits or Limits()
        self._program = program
        self._idle: list[Child] = []
        self._most_idle = os.cpu_count() or 1
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
    ) -> AudioInfo:
        """`rfkeras.audio.io.check_file`, in another process."""
        session = _Session(self, str(path))
        try:
            answer = session.ask(
                {
                    "ask": "check",
                    "path": str(path),
                    "expected_seconds": expected_seconds,
                    "tolerance_seconds": tolerance_seconds,
                }
            )
        finally:
            session.close()
        return AudioInfo(**answer["info"])

    @property
    def waiting(self) -> list[int]:
        """Process ids of those that wait for a file."""
        with self._lock:
            return [child.pid for child in self._idle]

    def close(self) -> None:
        """End the processes that wait for a file."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def take(self) -> Child:
        """A process that waits, or a new one."""
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child
                child.end()
        return self.start()

    def start(self) -> Child:
        """A new process."""
        return Child(self.limits, self._program)

    def give_back(self, child: Child) -> None:
        """Keep a process for the next file, unless enough are waiting."""
        with self._lock:
            if len(self._idle) < self._most_idle:
                self._idle.append(child)
                return
        child.end()


class _Session:
    """What is asked about one file; every way to fail becomes an AudioError.

    A process that dies after it has answered for other files is not blamed on this one at
    once, for they may have broken it: a new process is asked the same, once.

    Args:
        decoders: Where processes are from.
        name: What errors call the file.
        opening: What a process is asked first, if anything.
        content: Goes with it, where the file is no path.
    """

    def __init__(
        self,
        decoders: Decoders,
        name: str,
        opening: Fields | None = None,
        content: bytes = b"",
    ) -> None:
        self._decoders = decoders
        self._name = name
        self._opening = opening
        self._content = content
        self._child: Child | None = None
        self._others_before = False  # the process has answered for other files

    def ask(
        self,
        question: Fields | None = None,
        into: Waveform | None = None,
        extra_seconds: float = 0.0,
    ) -> Fields:
        """The answer to a question; to the opening when None.

        Raises:
            AudioError: The file cannot be used.
        """
        limits = self._decoders.limits
        seconds = limits.seconds + extra_seconds
        try:
            try:
                answer = self._attempt(self._decoders.take, question, into, seconds)
            except DecoderDied:
                if not self._others_before:
                    raise
                answer = self._attempt(self._decoders.start, question, into, seconds)
        except DecoderDied as error:
            raise AudioError(self._name, f"the decoder died: {error}") from error
        except TimeoutError as error:
            reason = f"the decoder gave no answer within {seconds:g} s"
            raise AudioError(self._name, reason) from error
        if "memory" in answer:
            raise too_large(self._name, limits)
        if "error" in answer:
            raise AudioError(self._name, answer["error"])
        return answer

    def close(self) -> None:
        """Give the process back, if it lives."""
        child, self._child = self._child, None
        if child is None:
            return
        try:
            child.ask({"ask": "close"}, self._decoders.limits.seconds)
        except (DecoderDied, TimeoutError):
            return  # all that was asked is answered, and the next file gets another process
        self._decoders.give_back(child)

    def _attempt(
        self,
        new: Callable[[], Child],
        question: Fields | None,
        into: Waveform | None,
        seconds: float,
    ) -> Fields:
        child, self._child = self._child, None  # kept if it survives
        answer: Fields = {}
        if child is None:
            child = new()
            self._others_before = child.answered > 0
            if self._opening is not None:
                answer = child.ask(self._opening, seconds, self._content)
        if question is not None and not answer.keys() & {"error", "memory"}:
            answer = child.ask(question, seconds, into=into)
        self._child = child
        return answer


class IsolatedAudioFile:
    """`rfkeras.audio.io.AudioFile`, open in another process.

    Args:
        decoders: Where the process is from.
        source: A path, or the bytes of a file.
        audio: The format wanted.
        name: What errors call it; the path when left out.

    Raises:
        AudioError: As for AudioFile; or the decoder died, took too long or too much memory.
        ConfigError: No decoding process can be started.
    """

    def __init__(
        self, decoders: Decoders, source: Source, audio: AudioFormat, name: str | None = None
    ) -> None:
        self.name = source_name(source) if name is None else name
        self.audio = audio
        self._limits = decoders.limits
        is_content = isinstance(source, bytes)
        opening = {
            "ask": "open",
            "path": None if is_content else str(source),
            "name": self.name,
            "rate_hz": audio.sample_rate_hz,
            "channels": audio.channels,
        }
        content = source if isinstance(source, bytes) else b""
        self._session = _Session(decoders, self.name, opening, content)
        try:
            answer = self._session.ask()
        except BaseException:
            self._session.close()
            raise
        self.info = AudioInfo(**answer["info"])
        self.length = int(answer["length"])

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
        """Samples [start, start + count) at the model's rate, as AudioFile reads them."""
        stop = self.length if count is None else start + count
        inside = 0 <= start <= stop <= self.length  # otherwise the process refuses
        shape = self.audio.shape(stop - start if inside else 0)
        if 4 * math.prod(shape) > self._limits.memory_mb << 20:
            raise too_large(self.name, self._limits)
        samples = np.empty(shape, np.float32)
        self._session.ask(
            {"ask": "read", "start": start, "count": count},
            into=samples,
            extra_seconds=_SECONDS_A_SECOND * len(samples) / self.audio.sample_rate_hz,
        )
        return samples


def too_large(name: str, limits: Limits) -> AudioError:
    """The error of a file that takes more memory than it may."""
    return AudioError(name, f"decoding it takes more than {limits.memory_mb} MB of memory")


@cache
def decoders() -> Decoders:
    """The decoding processes that all of this process shares, with the usual limits."""
    shared = Decoders()
    atexit.register(shared.close)
    return shared


# A forked process must not talk to the processes of the one it was forked from.
os.register_at_fork(after_in_child=decoders.cache_clear)
