"""Encoded audio to the model's waveform, inside of a TensorFlow graph.

`tf.audio.decode_wav` is the one audio decoder that TensorFlow itself has, and so that every
server has. It reads 16-bit PCM in a plain WAV file; what it cannot read is refused here, by
the header, with a message that says what can be sent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from rfkeras.audio.io import AudioFormat

CUTOFF = 0.96  # of the slower rate's half: the middle of the transition
ZERO_CROSSINGS = 80  # of the slower rate, on each side
BETA = 10.06  # of the Kaiser window, for 100 dB
_NODES = 10  # phases that a polynomial runs through
_MATRIX_WEIGHTS = 1 << 22  # 16 MB of float32


def resample(waveform: Any, from_hz: Any, to_hz: int) -> Any:
    """Resample in the graph.

    Args:
        waveform: float32 tensor (samples, channels).
        from_hz: Its rate, a whole scalar tensor of at least 1.
        to_hz: The rate wanted.

    Returns:
        float32 (samples * to_hz / from_hz, channels), halves rounded up; the waveform itself
        where both rates are one.
    """
    from_hz = tf.cast(from_hz, tf.int64)
    divisor = _greatest_common_divisor(from_hz, tf.constant(to_hz, tf.int64))
    up, down = to_hz // divisor, from_hz // divisor
    channels = tf.transpose(waveform)
    plan = _Plan(up, down, (2 * tf.shape(channels, tf.int64)[1] * up + down) // (2 * down))

    def resampled() -> Any:
        return tf.cond(
            plan.matrix_weights(down, up) <= _MATRIX_WEIGHTS,
            lambda: _by_phases(channels, plan),
            lambda: _by_polynomials(channels, plan),
        )

    return tf.transpose(tf.cond(tf.equal(up, down), lambda: channels, resampled))


class _Plan:
    """The numbers of one resampling, all tensors.

    Attributes:
        up: Outputs in the time of `down` inputs, both without a common divisor.
        down: See `up`.
        n_out: Outputs in all.
        slowing: The slower rate as a share of the input's, float32.
        half: Inputs that an output reads to each side.
    """

    def __init__(self, up: Any, down: Any, n_out: Any):
        self.up, self.down, self.n_out = up, down, n_out
        self.slowing = tf.minimum(1.0, tf.cast(up, tf.float32) / tf.cast(down, tf.float32))
        self.half = tf.cast(tf.math.ceil(ZERO_CROSSINGS / self.slowing), tf.int64)

    def periods(self, inputs: Any) -> Any:
        """Periods of so many inputs to a block, so that it reads no farther than the next."""
        return (2 * self.half + inputs - 1) // inputs

    def matrix_weights(self, inputs: Any, outputs: Any) -> Any:
        """Size of the matrix of a block, where a period has so many inputs and outputs."""
        periods = self.periods(inputs)
        return periods * outputs * (periods * inputs + 2 * self.half)


def _greatest_common_divisor(a: Any, b: Any) -> Any:
    return tf.while_loop(lambda a, b: b > 0, lambda a, b: (b, a % b), (a, b))[0]


def _kernel(offsets: Any, slowing: Any) -> Any:
    """Weight of an input sample so many samples away, float32."""
    outwards = tf.abs(offsets) * slowing / ZERO_CROSSINGS
    under_root = tf.maximum(0.0, 1.0 - tf.square(outwards))
    height = BETA * tf.sqrt(under_root)
    # Bessel's I0 over its value at BETA, by its scaled form, which does not overflow.
    ratio = tf.math.bessel_i0e(height) / tf.math.bessel_i0e(BETA) * tf.exp(height - BETA)
    window = tf.where(outwards < 1.0, ratio, 0.0)
    cutoff = CUTOFF * slowing
    angle = np.pi * cutoff * offsets
    safe = tf.where(tf.equal(angle, 0.0), 1.0, angle)
    sine_cardinal = tf.where(tf.equal(angle, 0.0), 1.0, tf.sin(safe) / safe)
    return cutoff * sine_cardinal * window


def _by_phases(channels: Any, plan: _Plan) -> Any:
    """Outputs by the filter's phases, each a column of a matrix: (channels, n_out)."""
    periods = plan.periods(plan.down)
    reached = tf.range(periods * plan.up) * plan.down
    part = tf.cast(reached % plan.up, tf.float32) / tf.cast(plan.up, tf.float32)
    n_blocks = (plan.n_out + periods * plan.up - 1) // (periods * plan.up)
    blocks = _filtered(channels, plan, periods * plan.down, n_blocks, reached // plan.up, part)
    return tf.reshape(blocks, [tf.shape(channels)[0], -1])[:, : plan.n_out]


def _by_polynomials(channels: Any, plan: _Plan) -> Any:
    """Outputs by polynomials through a few phases of each cell: (channels, n_out).

    A cell is as long as the slower rate's samples lie apart, and what was filtered turns by
    half a circle in it at most: the polynomial through Chebyshev's nodes then errs by less
    than 2 (pi / 4)^10 / 10! = 5e-8.
    """
    cell = tf.maximum(plan.down // plan.up, 1)
    cells = plan.periods(cell)  # of a block
    turns = (np.arange(_NODES) + 0.5) * np.pi / _NODES
    reached = tf.constant((1 + np.cos(turns)) / 2, tf.float32) * tf.cast(cell, tf.float32)
    whole = tf.range(cells)[:, None] * cell + tf.cast(tf.floor(reached), tf.int64)
    part = tf.broadcast_to(reached - tf.floor(reached), tf.shape(whole))
    # In 64-bit integers, for the product outgrows the precision of any float.
    at = tf.range(plan.n_out) * plan.down
    index, rest = at // (plan.up * cell), at % (plan.up * cell)
    n_blocks = tf.reduce_max(tf.concat([index, [-1]], 0)) // cells + 1
    blocks = _filtered(
        channels, plan, cells * cell, n_blocks, tf.reshape(whole, [-1]), tf.reshape(part, [-1])
    )
    nodes = tf.reshape(blocks, [tf.shape(channels)[0], -1, _NODES])
    # Lagrange's polynomials of these nodes, by Chebyshev's: exact, and well conditioned.
    orders = np.arange(_NODES)
    mix = np.cos(orders[:, None] * turns) * np.where(orders == 0, 1, 2)[:, None] / _NODES
    share = tf.cast(rest, tf.float32) / tf.cast(plan.up * cell, tf.float32)
    angle = tf.acos(2 * share - 1)
    lagrange = tf.matmul(
        tf.cos(angle[:, None] * tf.constant(orders, tf.float32)), tf.constant(mix, tf.float32)
    )
    return tf.einsum("con,on->co", tf.gather(nodes, index, axis=1), lagrange)


def _filtered(
    channels: Any, plan: _Plan, block_in: Any, n_blocks: Any, whole: Any, part: Any
) -> Any:
    """The filtered input at the same places of every block of inputs.

    A block's reads reach into the block after it and no farther, so that blocks need no
    copies that overlap.

    Args:
        channels: (channels, samples).
        plan: The resampling's numbers.
        block_in: Inputs of a block, at least 2 plan.half.
        n_blocks: Blocks.
        whole: Places in a block (outputs,): the input before each, int64.
        part: What they lie beyond it, in [0, 1), float32.

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
    """One WAV file as the model's waveform, by the rules of `rfkeras.datasets.read_audio`.

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
    """`rfkeras.audio.io.to_channels` in the graph.

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
