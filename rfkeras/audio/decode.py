"""Open an audio file with the decoder that the user chose.

- "soundfile" decodes in this process.
- "isolated" decodes in a separate process that may crash; see `rfkeras.audio.sandbox`.
- "tfio" decodes packed shards inside the TensorFlow graph. Files opened here during such a
  run are decoded as with "soundfile".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rfkeras.audio.io import (
    TOLERANCE_SECONDS,
    AudioFile,
    AudioFormat,
    AudioInfo,
    Waveform,
    check_file,
)
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError, ConfigError, unknown_name
from rfkeras.utils.remote import RemotePath, local_copy

FILE_DECODERS = ("soundfile", "isolated")
DECODERS = (*FILE_DECODERS, "tfio")


class OpenAudio(Protocol):
    """An open audio file with the interface of `rfkeras.audio.io.AudioFile`."""

    name: str
    audio: AudioFormat
    info: AudioInfo
    length: int

    @property
    def notes(self) -> tuple[str, ...]: ...

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
) -> AbstractContextManager[OpenAudio]:
    """Open an audio file for reading.

    Args:
        source: A path, which may be a `RemotePath`, or the content of a file as bytes.
        audio: Format of the samples.
        name: Name of the file in errors; None uses the path.
        decoder: One of `DECODERS`.

    Returns:
        The open file; use it as a context manager.

    Raises:
        AudioError: The file cannot be used.
        ConfigError: The decoder is unknown.
    """
    isolated = _is_isolated(decoder)
    if isinstance(source, RemotePath):
        return _open_remote(source, audio, name or str(source), decoder)
    if isolated:
        from rfkeras.audio.sandbox import shared_pool

        return shared_pool().open(source, audio, name)
    return AudioFile(source, audio, name)


@contextmanager
def _open_remote(
    path: RemotePath, audio: AudioFormat, name: str, decoder: str
) -> Iterator[OpenAudio]:
    """Open the local copy of a remote file, which stays until it is closed."""
    with _fetched(path) as copy, open_audio(copy, audio, name, decoder=decoder) as file:
        yield file


@contextmanager
def _fetched(path: RemotePath) -> Iterator[Path]:
    """Provide the local copy of a remote file.

    Raises:
        AudioError: It cannot be fetched.
    """
    with ExitStack() as stack:
        try:
            copy = stack.enter_context(local_copy(path))
        except OSError as error:
            raise AudioError(str(path), f"unreadable: {error.strerror or error}") from error
        yield copy


def check_audio(
    path: str | Path,
    expected_seconds: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    *,
    decoder: str = "soundfile",
    strict: bool = False,
    decode: bool = False,
) -> AudioInfo:
    """Check that an audio file exists and can be read, and note what is damaged.

    Args:
        path: The file.
        expected_seconds: Length that the file should have; None accepts any length.
        tolerance_seconds: How much shorter than expected the file may be.
        decoder: One of `DECODERS`.
        strict: Whether damage that can be read around (`AudioInfo.notes`) is an error.
        decode: Whether to decode all of it, which also finds damage in the middle. Without
            it, only the ends are decoded.

    Returns:
        Properties of the file, with notes about its damage.

    Raises:
        AudioError: The file cannot be used.
        ConfigError: The decoder is unknown.
    """
    isolated = _is_isolated(decoder)
    if isinstance(path, RemotePath):
        with _fetched(path) as copy:
            try:
                return check_audio(
                    copy,
                    expected_seconds,
                    tolerance_seconds,
                    decoder=decoder,
                    strict=strict,
                    decode=decode,
                )
            except AudioError as error:
                raise AudioError(str(path), error.reason) from error
    if isolated:
        from rfkeras.audio.sandbox import shared_pool

        return shared_pool().check(
            path, expected_seconds, tolerance_seconds, strict=strict, decode=decode
        )
    return check_file(path, expected_seconds, tolerance_seconds, strict=strict, decode=decode)


def _is_isolated(decoder: str) -> bool:
    """Return whether the decoder runs in a separate process, after checking its name."""
    if decoder not in DECODERS:
        raise ConfigError(unknown_name("decoder", decoder, DECODERS))
    return decoder == "isolated"
