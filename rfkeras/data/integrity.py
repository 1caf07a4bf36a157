"""Is this audio file whole? Answered from its container, without decoding all of it.

What is found: missing, empty and unreadable files, files without a sample, and cuts:

- WAV and RF64: at any byte (declared data size), unless the writer streamed and declared
  no size.
- Ogg Vorbis and Opus: at any byte (the end-of-stream page is missing).
- FLAC: at any byte (its last block is decoded); one that declares no length is refused.
- MP3 with a Xing, Info or VBRI header: at any byte of the audio (frame count).
- MP3 without one: only a cut inside a frame; a cut between two frames leaves a whole,
  shorter file. The length that the data set promises finds those.
"""

from __future__ import annotations

from pathlib import Path

from rfkeras.data.audio import ANY_FORMAT, AudioFile, AudioFormat, AudioInfo
from rfkeras.data.containers import ogg_cut, riff_cut
from rfkeras.data.mp3 import mp3_ends_as_declared, mp3_file_layout
from rfkeras.errors import AudioError

TOLERANCE_SECONDS = 0.1  # encoders pad and trim by up to a few codec frames of 20-26 ms


def check_file(
    path: str | Path,
    expected_seconds: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> AudioInfo:
    """Check that an audio file is there, whole and readable.

    Args:
        path: The file.
        expected_seconds: Length by the data set's definition, None where lengths vary.
        tolerance_seconds: How much shorter than expected a file may be.

    Returns:
        What the file holds.

    Raises:
        AudioError: It cannot be used; the reason says why.
    """
    name = str(path)
    with AudioFile(path, ANY_FORMAT, name) as file:
        info = file.info
    reason = _cut(Path(path), info)
    if reason is not None:
        raise AudioError(name, f"truncated: {reason}")
    if (
        expected_seconds is not None
        and info.duration_seconds < expected_seconds - tolerance_seconds
    ):
        raise AudioError(
            name,
            f"truncated: {info.duration_seconds:.2f} s long, expected {expected_seconds:g} s",
        )
    return info


def _cut(path: Path, info: AudioInfo) -> str | None:
    kind = info.container.split("/")[0]
    if kind == "MP3":
        with path.open("rb") as stream:
            if mp3_ends_as_declared(stream):
                return None
        layout = mp3_file_layout(path)
        return None if layout is None else layout.cut
    if kind == "FLAC":
        return _flac_cut(path, info)
    with path.open("rb") as stream:
        if kind in ("WAV", "WAVEX", "RF64"):
            return riff_cut(stream)
        if kind == "OGG":
            return ogg_cut(stream)
    return None


def _flac_cut(path: Path, info: AudioInfo) -> str | None:
    """Decode the last block: in a cut file it is not there."""
    with AudioFile(path, AudioFormat(info.sample_rate_hz)) as file:
        try:
            file.read(info.frames - 1, 1)
        except AudioError as error:
            return f"the last of {info.frames} frames is not there ({error.reason})"
    return None
