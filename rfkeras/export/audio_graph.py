"""Convert encoded audio to the model's waveform inside a TensorFlow graph.

`tf.audio.decode_wav` is TensorFlow's only audio decoder, so it is available on every server. It
reads 16-bit PCM in plain WAV files. Headers are checked first, and other files are rejected
with a message that lists what is accepted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from rfkeras.audio.io import AudioFormat

CUTOFF = 0.96  # centre of the transition band, relative to half of the lower rate
ZERO_CROSSINGS = 80  # of the lower rate, on each side
BETA = 10.06  # of the Kaiser window, for 100 dB
_NODES = 10  # phases that a polynomial passes through
_MATRIX_WEIGHTS = 1 << 22  # 16 MB of float32
RATES_HZ = (8000, 192000)
ACCEPTED = (
    "is not a 16-bit PCM WAV file that this model accepts. Send complete WAV files with a "
    "plain header (RIFF, WAVE, fmt, format 1), 16 bits per sample, any number of channels, "
    f"{RATES_HZ[0]} to {RATES_HZ[1]} Hz; in Python: soundfile.write(file, samples, rate, "
    "format='WAV', subtype='PCM_16')"
)
_HEADER_BYTES = 44


def check_wav(audio: Any) -> Any:
    """Return the tensor unchanged after checking that every WAV header is readable.

    A file shorter than its header declares is rejected. A file that passes may still end
    between the chunks of a long header; `tf.audio.decode_wav` then rejects it.

    Args:
        audio: String tensor (batch,): contents of WAV files.

    Raises:
        InvalidArgumentError: In the graph, with the numbers of the rejected rows.
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
            number(4, tf.int32) >= 0,  # 2 GB or more, or unknown, reads as negative
            number(4, tf.int32) <= length - 8,
        ],
        axis=0,
    )
    rejected = tf.where(~accepted)[:, 0]
    message = tf.strings.join(
        [
            "audio[",
            tf.strings.reduce_join(tf.strings.as_string(rejected), separator=", "),
            f"] {ACCEPTED}.",
        ]
    )
    check = tf.debugging.Assert(tf.reduce_all(accepted), [message])
    with tf.control_dependencies([check]):
        return tf.identity(audio)


def decode_wav(content: Any, audio: AudioFormat) -> Any:
    """Decode one WAV file to the model's waveform, like `rfkeras.audio.io.read_audio`.

    Args:
        content: Scalar string tensor, checked with `check_wav`.
        audio: The requested format.

    Returns:
        float32 (samples,) for mono, (samples, 2) for stereo.
    """
    samples, rate_hz = tf.audio.decode_wav(_check_chunks(content))
    not_empty = tf.debugging.assert_positive(
        tf.shape(samples)[0], message="An audio file contains no samples."
    )
    with tf.control_dependencies([not_empty]):
        mixed = convert_channels(samples, audio.channels)
    resampled = resample(mixed, rate_hz, audio.sample_rate_hz)
    return resampled[:, 0] if audio.channels == 1 else resampled


def _check_chunks(content: Any) -> Any:
    """Return the file unchanged after checking that no chunk declares more than 2 GB.

    `tf.audio.decode_wav` rejects such a file with a message that contains the chunk's name
    unescaped. In a damaged file the name can be arbitrary bytes, which Python cannot decode.

    Raises:
        InvalidArgumentError: In the graph.
    """
    length = tf.strings.length(content)

    def size(at: Any) -> Any:
        place = tf.minimum(at, length - 8) + 4  # the loop's final value is unused
        return tf.io.decode_raw(tf.strings.substr(content, place, 4), tf.int32)[0]

    # Walk as decode_wav does, without the padding byte of chunks with odd length.
    end = tf.while_loop(
        lambda at: tf.logical_and(at <= length - 8, size(at) >= 0),
        lambda at: [at + 8 + tf.minimum(size(at), length - at - 8)],
        [tf.constant(12)],
    )[0]
    check = tf.debugging.Assert(end > length - 8, ["A chunk of a WAV file is too large."])
    with tf.control_dependencies([check]):
        return tf.identity(content)


def convert_channels(samples: Any, channels: int) -> Any:
    """Convert the number of channels in the graph, like `rfkeras.audio.io.to_channels`.

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


def resample(waveform: Any, from_hz: Any, to_hz: int) -> Any:
    """Resample a waveform in the graph.

    Args:
        waveform: float32 tensor (samples, channels).
        from_hz: Its sample rate, an integer scalar tensor of at least 1.
        to_hz: The requested sample rate.

    Returns:
        float32 (samples * to_hz / from_hz, channels), with halves rounded up; the waveform
        itself if the rates are equal.
    """
    from_hz = tf.cast(from_hz, tf.int64)
    divisor = _greatest_common_divisor(from_hz, tf.constant(to_hz, tf.int64))
    up, down = to_hz // divisor, from_hz // divisor
    channels = tf.transpose(waveform)
    plan = _Resampling(
        up, down, (2 * tf.shape(channels, tf.int64)[1] * up + down) // (2 * down)
    )

    def resampled() -> Any:
        return tf.cond(
            plan.matrix_weights(down, up) <= _MATRIX_WEIGHTS,
            lambda: _by_phases(channels, plan),
            lambda: _by_polynomials(channels, plan),
        )

    return tf.transpose(tf.cond(tf.equal(up, down), lambda: channels, resampled))


class _Resampling:
    """The numbers of one resampling, all tensors.

    Attributes:
        up: Number of outputs per `down` inputs, without a common divisor.
        down: See `up`.
        n_out: Total number of outputs.
        slowing: The lower rate relative to the input rate, float32.
        half: Number of inputs that an output reads on each side.
    """

    def __init__(self, up: Any, down: Any, n_out: Any):
        self.up, self.down, self.n_out = up, down, n_out
        self.slowing = tf.minimum(1.0, tf.cast(up, tf.float32) / tf.cast(down, tf.float32))
        self.half = tf.cast(tf.math.ceil(ZERO_CROSSINGS / self.slowing), tf.int64)

    def periods(self, inputs: Any) -> Any:
        """Return the periods per block such that a block reads no further than the next one."""
        return (2 * self.half + inputs - 1) // inputs

    def matrix_weights(self, inputs: Any, outputs: Any) -> Any:
        """Return the size of a block's matrix for a period of this many inputs and outputs."""
        periods = self.periods(inputs)
        return periods * outputs * (periods * inputs + 2 * self.half)


def _by_phases(channels: Any, plan: _Resampling) -> Any:
    """Compute outputs with one matrix column per filter phase: (channels, n_out)."""
    periods = plan.periods(plan.down)
    reached = tf.range(periods * plan.up) * plan.down
    part = tf.cast(reached % plan.up, tf.float32) / tf.cast(plan.up, tf.float32)
    n_blocks = (plan.n_out + periods * plan.up - 1) // (periods * plan.up)
    blocks = _filtered(channels, plan, periods * plan.down, n_blocks, reached // plan.up, part)
    return tf.reshape(blocks, [tf.shape(channels)[0], -1])[:, : plan.n_out]


def _by_polynomials(channels: Any, plan: _Resampling) -> Any:
    """Compute outputs with polynomials through a few phases of each cell: (channels, n_out).

    A cell is one sample of the lower rate long. The filtered signal turns by at most half a
    circle in it, so the polynomial through Chebyshev nodes has an error below 2 (pi / 4)^10 /
    10! = 5e-8.
    """
    cell = tf.maximum(plan.down // plan.up, 1)
    cells = plan.periods(cell)  # per block
    turns = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    reached = tf.constant((1 + np.cos(turns)) / 2, tf.float32) * tf.cast(cell, tf.float32)
    whole = tf.range(cells)[:, None] * cell + tf.cast(tf.floor(reached), tf.int64)
    part = tf.broadcast_to(reached - tf.floor(reached), tf.shape(whole))
    # Use 64-bit integers: the product exceeds the precision of floats.
    at = tf.range(plan.n_out) * plan.down
    index, rest = at // (plan.up * cell), at % (plan.up * cell)
    n_blocks = tf.reduce_max(tf.concat([index, [-1]], 0)) // cells + 1
    blocks = _filtered(
        channels, plan, cells * cell, n_blocks, tf.reshape(whole, [-1]), tf.reshape(part, [-1])
    )
    nodes = tf.reshape(blocks, [tf.shape(channels)[0], -1, _NODES])
    # Lagrange polynomials of these nodes from Chebyshev polynomials, well conditioned.
    orders = np.arange(_NODES)
    coefficients = (
        np.cos(orders[:, None] * turns) * np.where(orders == 0, 1, 2)[:, None] / _NODES
    )
    share = tf.cast(rest, tf.float32) / tf.cast(plan.up * cell, tf.float32)
    angle = tf.acos(2 * share - 1)
    lagrange = tf.matmul(
        tf.cos(angle[:, None] * tf.constant(orders, tf.float32)),
        tf.constant(coefficients, tf.float32),
    )
    return tf.einsum("con,on->co", tf.gather(nodes, index, axis=1), lagrange)


def _filtered(
    channels: Any, plan: _Resampling, block_in: Any, n_blocks: Any, whole: Any, part: Any
) -> Any:
    """Return the filtered input at the same positions of every block of inputs.

    A block reads no further than the following block, so no overlapping copies are needed.

    Args:
        channels: (channels, samples).
        plan: The numbers of the resampling.
        block_in: Inputs per block, at least 2 plan.half.
        n_blocks: Number of blocks.
        whole: Positions in a block (outputs,): the input before each position, int64.
        part: Fractional parts of the positions, in [0, 1), float32.

    Returns:
        (channels, blocks, outputs).
    """
    after = (n_blocks + 1) * block_in - plan.half - tf.shape(channels, tf.int64)[1]
    padded = tf.pad(channels, [[0, 0], [plan.half, after]])
    blocks = tf.reshape(padded, [tf.shape(channels, tf.int64)[0], n_blocks + 1, block_in])
    reads = tf.range(block_in + 2 * plan.half)[:, None] - plan.half
    matrix = _kernel(tf.cast(reads - whole, tf.float32) - part, plan.slowing)
    here = tf.matmul(blocks[:, :-1], matrix[:block_in])
    return here + tf.matmul(blocks[:, 1:, : 2 * plan.half], matrix[block_in:])


def _kernel(offsets: Any, slowing: Any) -> Any:
    """Return the weight of an input sample at this distance in samples, float32."""
    outwards = tf.abs(offsets) * slowing / ZERO_CROSSINGS
    under_root = tf.maximum(0.0, 1.0 - tf.square(outwards))
    height = BETA * tf.sqrt(under_root)
    # Bessel's I0 relative to its value at BETA. The scaled form does not overflow.
    ratio = tf.math.bessel_i0e(height) / tf.math.bessel_i0e(BETA) * tf.exp(height - BETA)
    window = tf.where(outwards < 1.0, ratio, 0.0)
    cutoff = CUTOFF * slowing
    angle = np.pi * cutoff * offsets
    safe = tf.where(tf.equal(angle, 0.0), 1.0, angle)
    sine_cardinal = tf.where(tf.equal(angle, 0.0), 1.0, tf.sin(safe) / safe)
    return cutoff * sine_cardinal * window


def _greatest_common_divisor(a: Any, b: Any) -> Any:
    """Return the greatest common divisor of two integer tensors."""
    return tf.while_loop(lambda a, b: b > 0, lambda a, b: (b, a % b), (a, b))[0]
