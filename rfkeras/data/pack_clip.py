"""One clip as it is stored in packed shards."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfkeras.data.audio_format import AudioFormat, Waveform
from rfkeras.data.dataset import Split
from rfkeras.data.decoding import open_audio
from rfkeras.data.scan import check_clip
from rfkeras.errors import AudioError

_FULL_SCALE = 32768


@dataclass(frozen=True)
class StoredClip:
    """A clip ready to be written.

    Attributes:
        row: Its row in the split that it is from.
        wav: 16-bit PCM WAV file.
        length: Samples.
        clipped: Whether a sample was above full scale.
    """

    row: int
    wav: bytes
    length: int
    clipped: bool


def store_clip(
    split: Split,
    row: int,
    audio: AudioFormat,
    clip_seconds: float | None = None,
    decoder: str = "soundfile",
) -> StoredClip:
    """Check, decode and resample one clip of a split, and read back what is stored.

    Args:
        split: The clips.
        row: Which of them.
        audio: Format to store.
        clip_seconds: Length of every file by the data set's definition.
        decoder: One of `rfkeras.data.decoding.FILE_DECODERS`.

    Raises:
        AudioError: The file cannot be used.
    """
    path = split.paths[row]
    check_clip(split, row, clip_seconds, decoder=decoder)
    with open_audio(path, audio, decoder=decoder) as file:
        waveform = file.read()
    wav, clipped = to_wav(waveform, audio)
    with open_audio(wav, audio, str(path)) as file:
        stored = file.read()
    limit = np.clip(waveform, -1, 1 - 1 / _FULL_SCALE)
    if stored.shape != waveform.shape or np.abs(stored - limit).max() > 0.5 / _FULL_SCALE:
        raise AudioError(str(path), "what was packed differs from what was read")
    return StoredClip(row, wav, len(waveform), clipped)


def to_wav(waveform: Waveform, audio: AudioFormat) -> tuple[bytes, bool]:
    """16-bit PCM WAV bytes of a waveform, and whether a sample had to be clipped."""
    import soundfile

    scaled = np.rint(waveform * np.float32(_FULL_SCALE))
    integers = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, integers, audio.sample_rate_hz, format="WAV", subtype="PCM_16")
    # Rounding +1.0 to the largest step is no clipping that anyone could hear or measure.
    return buffer.getvalue(), bool((np.abs(scaled) > _FULL_SCALE).any())


def example_of(split: Split, clip: StoredClip) -> bytes:
    """The record of a clip: a serialised tf.train.Example, see `rfkeras.data.records`."""
    import tensorflow as tf

    def floats(values: Any) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    def raw(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "key": raw(split.keys[clip.row].encode("utf-8", "surrogateescape")),
        "wav": raw(clip.wav),
        "labels": floats(split.labels[clip.row]),
        "mask": floats(split.mask[clip.row]),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString()
    return serialized
