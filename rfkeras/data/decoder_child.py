"""One decoding process, as the process sees it that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rfkeras.data.audio_format import Waveform
from rfkeras.data.messages import Fields, receive, receive_into, send
from rfkeras.errors import ConfigError

PROGRAM = "rfkeras.data.decoder_process"
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
