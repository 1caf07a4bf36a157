"""Read WAV, FLAC, AIFF and their kin with libsndfile, where it is exact."""

from __future__ import annotations

import io
import os
import struct
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.declared_size import pcm_note, pcm_size
from rfkeras.audio.ffmpeg import FFmpegFile
from rfkeras.audio.source import (
    Source,
    mapped,
    open_bytes,
    part_of,
    read_bytes,
    remembered,
    size_of,
)
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    import soundfile

# How the files begin that libsndfile reads best.
_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"dns.", b"caff", b"fLaC")
# Codecs in which it reads and seeks exactly.
_CODECS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# It reports 2^63 - 1 frames for a FLAC file that was written to a pipe.
_MAX_FRAMES = 1 << 40
_FLAC_START = b"fLaC\0\0\0\x22"  # magic, and the header of STREAMINFO


def is_for_libsndfile(head: bytes) -> bool:
    """Return whether libsndfile should be tried first on a file that begins with `head`."""
    return head.startswith(_MAGICS)


class LibsndfileFile:
    """An audio file that libsndfile decodes.

    Args:
        source: A path, or the content of a file as bytes.
        name: Name of the file in errors.

    Attributes:
        sample_rate_hz: Samples per second.
        channels: Number of channels.
        frames: Samples per channel.
        container: Format and encoding.

    Raises:
        AudioError: libsndfile would not read all of this file, or not exactly.
    """

    def __init__(self, source: Source, name: str) -> None:
        import soundfile

        self._source = source
        self._name = name
        self._rescue: FFmpegFile | None = None
        size = pcm_size(source)
        file_or_path = _file_or_path(source)
        self._stream: BinaryIO | None = None
        if size is not None and size.is_unknown and size.present > 0:
            bytes_left = min(size.present, (1 << 8 * struct.calcsize(size.format)) - 1)
            patch = (size.field, struct.pack(size.format, bytes_left))
            self._stream = open_bytes(part_of(source, 0, size_of(source), (patch,)))
            file_or_path = self._stream
        elif (
            size is not None
            and not size.is_unknown
            and size.present > size.declared
            and read_bytes(source, 0, 4) == b"riff"
        ):
            # libsndfile would read what follows the audio of a W64 file as audio.
            end = size_of(source) - size.present + size.declared
            self._stream = open_bytes(part_of(source, 0, end))
            file_or_path = self._stream
        self._file: soundfile.SoundFile = soundfile.SoundFile(file_or_path)
        try:
            file = self._file
            if not 0 < file.frames <= _MAX_FRAMES:
                raise AudioError(name, "no audio samples")
            if not file.subtype.startswith(_CODECS):
                raise AudioError(name, f"undecodable: {file.subtype} in {file.format}")
            if file.format == "FLAC" and not _has_last_frame(source):
                raise AudioError(name, "undecodable: its last FLAC frame is missing")
        except BaseException:
            self.close()
            raise
        self.sample_rate_hz = int(file.samplerate)
        self.channels = int(file.channels)
        self.frames = int(file.frames)
        self.container = f"{file.format}/{file.subtype}"
        note = pcm_note(source, size)
        self._notes = () if note is None else (note,)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about damage found so far."""
        return self._notes if self._rescue is None else self._rescue.notes

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Read frames [first, last): float32 of shape (frames, channels)."""
        if self._rescue is None:
            samples = self._read(first, last)
            if samples is not None:
                return samples
            self._rescue = FFmpegFile(self._source, self._name)
        end = min(last, self._rescue.frames)
        samples = np.zeros((last - first, self.channels), np.float32)
        if first < end:
            samples[: end - first] = self._rescue.read(first, end)
        return samples

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._stream is not None:
            self._stream.close()
        if self._rescue is not None:
            self._rescue.close()

    def _read(self, first: int, last: int) -> NDArray[np.float32] | None:
        """Read with libsndfile; None if the FLAC stream is damaged here."""
        import soundfile

        try:
            if first or self._file.tell():
                self._file.seek(first)
            samples: NDArray[np.float32]
            samples = self._file.read(last - first, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            if self._file.format != "FLAC":
                raise
            return None
        if len(samples) < last - first:
            if self._file.format == "FLAC":
                return None
            missing = f"frame {first + len(samples)} of {self.frames} is missing"
            raise AudioError(self._name, f"truncated: {missing}")
        return samples


@remembered
def flac_links(source: Source) -> tuple[int, ...]:
    """Return where the streams of a file with FLAC streams one after the other begin.

    Args:
        source: A path, or the content of a file as bytes.
    """
    links = []
    with mapped(source) as content:
        position = content.find(_FLAC_START)
        while position >= 0:
            links.append(position)
            position = content.find(_FLAC_START, position + 1)
    return tuple(links)


@remembered
def _has_last_frame(source: Source) -> bool:
    """Return whether a FLAC file has its last frame."""
    import soundfile

    with soundfile.SoundFile(_file_or_path(source)) as flac:
        try:
            flac.seek(flac.frames - 1)
            return len(flac.read(1)) == 1
        except soundfile.LibsndfileError:
            return False


def _file_or_path(source: Source) -> bytes | BinaryIO:
    """Return what soundfile opens; it cannot encode a str that is not valid UTF-8."""
    return io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source)
