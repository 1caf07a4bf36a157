"""Encoded audio to the model's waveform, inside of a TensorFlow graph.

`tf.audio.decode_wav` is the one audio decoder that TensorFlow itself has, and so that every
server has. It reads 16-bit PCM in a plain WAV file; what it cannot read is refused here, by
the header, with a message that says what can be sent.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from rfkeras.data.audio_format import AudioFormat
from rfkeras.export.resampling import resample

RATES_HZ = (8000, 192000)
ACCEPTED = (
    "is no 16-bit PCM WAV file that this model accepts. Send whole WAV files with a plain "
    "header (RIFF, WAVE, fmt, format 1), 16 bits a sample, any number of channels, "
    f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz; in Python: soundfile.write(file, samples, rate, "
    "format='WAV', subtype='PCM_16')"
)
_HEADER_BYTES = 44


def check_wav(audio: Any) -> Any:
    """The same tensor, once every header in it has been found to be readable.

    A file shorter than its header declares is refused. A file that passes may still break
    off between the chunks of a long header; `tf.audio.decode_wav` refuses it then.

    Args:
        audio: String tensor (batch,): contents of WAV files.

    Raises:
        InvalidArgumentError: In the graph, with the numbers of the rows that are refused.
    """
    padded = tf.strings.join([audio, tf.constant(b"\0" * _HEADER_BYTES)])

    def number(start: int, kind: Any) -> Any:
        return tf.io.decode_raw(tf.strings.substr(padded, start, kind.size), kind)[:, 0]

    rate = number(24, tf.int32)
    length = tf.strings.length(audio)
    accepted = tf.reduce_all(
        [
            tf.equal(tf.strings.substr(padded, 0, 4), b"RIFF"),
            tf.equal(tf.strings.substr(padded, 8, 8), b"WAVEfmt "),
            number(20, tf.uint16) == 1,
            number(22, tf.uint16) > 0,
            number(34, tf.uint16) == 16,
            rate >= RATES_HZ[0],
            rate <= RATES_HZ[1],
            number(4, tf.int32) >= 0,  # as a negative number, a length of 2 GB or unknown
            number(4, tf.int32) <= length - 8,
        ],
        axis=0,
    )
    refused = tf.where(~accepted)[:, 0]
    message = tf.strings.join(
        [
            "audio[",
            tf.strings.reduce_join(tf.strings.as_string(refused), separator=", "),
            f"] {ACCEPTED}.",
        ]
    )
    check = tf.debugging.Assert(tf.reduce_all(accepted), [message])
    with tf.control_dependencies([check]):
        return tf.identity(audio)


def decode_wav(content: Any, audio: AudioFormat) -> Any:
    """One WAV file as the model's waveform, by the rules of `rfkeras.data.read_audio`.

    Args:
        content: Scalar string tensor, checked by `check_wav`.
        audio: The format wanted.

    Returns:
        float32 (samples,) for mono, (samples, 2) for stereo.
    """
    samples, rate_hz = tf.audio.decode_wav(_check_chunks(content))
    not_empty = tf.debugging.assert_positive(
        tf.shape(samples)[0], message="An audio file holds no samples."
    )
    with tf.control_dependencies([not_empty]):
        mixed = mix(samples, audio.channels)
    resampled = resample(mixed, rate_hz, audio.sample_rate_hz)
    return resampled[:, 0] if audio.channels == 1 else resampled


def _check_chunks(content: Any) -> Any:
    """The same file, once no chunk in it declares more than 2 GB.

    `tf.audio.decode_wav` refuses such a file with a message that holds the chunk's name as it
    is. In what a damaged file has there, Python then fails to decode the message.

    Raises:
        InvalidArgumentError: In the graph.
    """
    length = tf.strings.length(content)

    def size(at: Any) -> Any:
        place = tf.minimum(at, length - 8) + 4  # the last, where the loop ends, is not used
        return tf.io.decode_raw(tf.strings.substr(content, place, 4), tf.int32)[0]

    # As decode_wav walks: without the byte that fills up chunks of odd length.
    end = tf.while_loop(
        lambda at: tf.logical_and(at <= length - 8, size(at) >= 0),
        lambda at: [at + 8 + tf.minimum(size(at), length - at - 8)],
        [tf.constant(12)],
    )[0]
    check = tf.debugging.Assert(end > length - 8, ["A chunk of a WAV file is too large."])
    with tf.control_dependencies([check]):
        return tf.identity(content)


def mix(samples: Any, channels: int) -> Any:
    """`rfkeras.data.audio_format.to_channels` in the graph.

    Args:
        samples: float32 (frames, any number of channels).
        channels: 1 or 2.

    Returns:
        float32 (frames, channels).
    """
    mono = tf.reduce_mean(samples, axis=1, keepdims=True)
    if channels == 1:
        return mono
    twice = tf.repeat(mono, channels, axis=1)
    mixed = tf.cond(tf.equal(tf.shape(samples)[1], channels), lambda: samples, lambda: twice)
    return tf.ensure_shape(mixed, (None, channels))
