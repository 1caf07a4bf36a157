"""The WAV files inside packed shards, checked and decoded in the TensorFlow graph.

tensorflow-io's decoder is native code that a wrong size in a header makes crash, and the
process with it. So it is shown nothing but what `rfkeras.data.pack_clip.to_wav` writes: the
plain 44 bytes of header, with the numbers that follow from the format and the length, and
samples.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rfkeras.data.audio_format import AudioFormat

if TYPE_CHECKING:
    import tensorflow as tf

_HEADER_BYTES = 44
_SAMPLE_BYTES = 2


def is_packed_wav(wav: tf.Tensor, audio: AudioFormat) -> tf.Tensor:
    """Whether these bytes are what `to_wav` makes of one sample or more.

    Args:
        wav: Scalar string tensor.
        audio: Format of the shards.

    Returns:
        Scalar bool.
    """
    import tensorflow as tf

    frame_bytes = _SAMPLE_BYTES * audio.channels
    rate_hz = audio.sample_rate_hz
    middle = b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, 1, audio.channels, rate_hz, rate_hz * frame_bytes, frame_bytes, 16
    )
    length = tf.strings.length(wav)
    sound_bytes = length - _HEADER_BYTES
    # What is too short to hold a header is compared all the same.
    padded = tf.strings.join([wav, tf.constant(b"\0" * _HEADER_BYTES)])

    def size(start: int) -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(padded, start, 4), tf.int32)[0]

    return tf.reduce_all(
        [
            sound_bytes > 0,
            sound_bytes % frame_bytes == 0,
            tf.equal(tf.strings.substr(padded, 0, 4), b"RIFF"),
            tf.equal(size(4), length - 8),
            tf.equal(tf.strings.substr(padded, 8, len(middle)), middle),
            tf.equal(tf.strings.substr(padded, 36, 4), b"data"),
            tf.equal(size(40), sound_bytes),
        ]
    )


def decode_packed_wav(wav: tf.Tensor, audio: AudioFormat) -> tf.Tensor:
    """Bytes that `is_packed_wav` to float32 (samples,) or (samples, 2), scaled as soundfile."""
    import tensorflow as tf
    import tensorflow_io as tfio

    integers = tfio.audio.decode_wav(wav, dtype=tf.int16)
    samples = tf.cast(tf.ensure_shape(integers, [None, audio.channels]), tf.float32) / 32768.0
    return samples[:, 0] if audio.channels == 1 else samples
