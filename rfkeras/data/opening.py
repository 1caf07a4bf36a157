"""Opening audio files with libsndfile, and what it raises turned into AudioError."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rfkeras.data.containers import file_size
from rfkeras.data.mp3 import (
    Mp3Layout,
    mp3_declared_frames,
    mp3_file_layout,
    mp3_layout,
    mp3_with_frame_count,
)
from rfkeras.errors import AudioError

if TYPE_CHECKING:
    import soundfile

Source = str | Path | bytes
_NO_SUCH_FILE = "File does not exist or is not a regular file"


def source_name(source: Source) -> str:
    """How messages call this source."""
    return "<bytes>" if isinstance(source, bytes) else str(source)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what libsndfile and soundfile raise on broken input into AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        said = error.error_string
        if _NO_SUCH_FILE in said:  # libsndfile's words for MP3 without a frame; it is there
            said = "nothing in it can be decoded"
        raise AudioError(name, f"undecodable: {said}") from error
    except MemoryError as error:
        raise AudioError(name, f"not enough memory to decode it: {error}") from error
    except OSError as error:
        raise AudioError(name, f"unreadable: {error.strerror or error}") from error
    except (RuntimeError, ValueError) as error:
        raise AudioError(name, f"undecodable: {error}") from error


def open_sound_file(source: Source, name: str) -> soundfile.SoundFile:
    """Open an audio file for reading.

    Args:
        source: A path, or the bytes of a file.
        name: What errors call it.

    Raises:
        AudioError: It is missing, empty or undecodable.
    """
    import soundfile

    with reading(name):
        if (len(source) if isinstance(source, bytes) else _size(Path(source), name)) == 0:
            raise AudioError(name, "empty file (0 bytes)")
        file = soundfile.SoundFile(
            # As bytes, for soundfile cannot encode the str of a name that is no UTF-8.
            io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source)
        )
        return _to_its_end(file, source) if file.format == "MP3" else file


def _size(path: Path, name: str) -> int:
    """Bytes of a file that can be read.

    Raises:
        AudioError: It is missing, or no file: a pipe would be waited for.
        OSError: It may not be read. libsndfile would not say why.
    """
    if not path.is_file():
        raise AudioError(name, "not a file" if path.exists() else "missing file or broken link")
    with path.open("rb") as stream:
        return file_size(stream)


def _to_its_end(file: soundfile.SoundFile, source: Source) -> soundfile.SoundFile:
    """The same MP3 file, opened so that libsndfile reads all of it."""
    layout = undeclared_layout(source)
    if layout is None or layout.samples <= file.frames:
        return file
    file.close()
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return type(file)(io.BytesIO(mp3_with_frame_count(data, layout)))


def undeclared_layout(source: Source) -> Mp3Layout | None:
    """Layout of an MP3 file whose header declares no length, for libsndfile guesses it."""
    if isinstance(source, bytes):
        declared = mp3_declared_frames(io.BytesIO(source))
        return mp3_layout(source) if declared is None else None
    with Path(source).open("rb") as stream:
        declared = mp3_declared_frames(stream)
    return mp3_file_layout(Path(source)) if declared is None else None
