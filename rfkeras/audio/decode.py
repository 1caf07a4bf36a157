"""Which decoder opens an audio file: the one place that decides.

"soundfile" decodes in this process. "isolated" does the same in another one, which may die:
see `rfkeras.audio.sandbox`. "tfio" decodes packed shards inside the TensorFlow graph; a
file, where such a run opens one, is decoded as by "soundfile".
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rfkeras.audio.io import (
    TOLERANCE_SECONDS,
    AudioFile,
    AudioFormat,
    AudioInfo,
    Source,
    Waveform,
    check_file,
)
from rfkeras.errors import ConfigError, unknown_name

FILE_DECODERS = ("soundfile", "isolated")
DECODERS = (*FILE_DECODERS, "tfio")


class OpenAudio(Protocol):
    """An open audio file: see `rfkeras.audio.io.AudioFile`."""

    name: str
    audio: AudioFormat
    info: AudioInfo
    length: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def read(self, start: int = 0, count: int | None = None) -> Waveform: ...


def open_audio(
    source: Source, audio: AudioFormat, name: str | None = None, *, decoder: str = "soundfile"
) -> OpenAudio:
    """Open an audio file for reading.

    Args:
        source: A path, or the bytes of a file.
        audio: The format wanted.
        name: What errors call it; the path when left out.
        decoder: One of `DECODERS`.

    Raises:
        AudioError: The file cannot be used.
        ConfigError: There is no such decoder.
    """
    if _isolated(decoder):
        from rfkeras.audio.sandbox import decoders

        return decoders().open(source, audio, name)
    return AudioFile(source, audio, name)


def check_audio(
    path: str | Path,
    expected_seconds: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    *,
    decoder: str = "soundfile",
) -> AudioInfo:
    """`rfkeras.audio.io.check_file` by one of the decoders.

    Raises:
        AudioError: The file cannot be used.
        ConfigError: There is no such decoder.
    """
    if _isolated(decoder):
        from rfkeras.audio.sandbox import decoders

        return decoders().check(path, expected_seconds, tolerance_seconds)
    return check_file(path, expected_seconds, tolerance_seconds)


def _isolated(decoder: str) -> bool:
    if decoder not in DECODERS:
        raise ConfigError(unknown_name("decoder", decoder, DECODERS))
    return decoder == "isolated"
