"""From waveforms to power spectra: kapre's transform, with less copying.

`kapre.STFT` and `kapre.Magnitude` compute the same. They fill every frame up to the
transform's length after the window and take magnitudes with `hypot`, which together took
longer than the Fourier transform itself.
"""

from __future__ import annotations

import math
from typing import Any

import kapre
import keras
import numpy as np
import tensorflow as tf

DB_OF_E = 10.0 / math.log(10.0)  # dB of a factor e in power


@keras.saving.register_keras_serializable(package="rfkeras")
class CentredSTFT(kapre.STFT):
    """`kapre.STFT` of waveforms reflected at both ends, so that frames are centred.

    Args:
        n_fft: Points of the transform.
        win_length: Samples of the window; zeros fill up to n_fft behind it.
        hop_length: Samples between frames.
        window_name: As for `kapre.STFT`.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, channel, samples), more than win_length // 2 samples.

    Output shape:
        (batch, channel, 1 + samples // hop_length, n_fft // 2 + 1), complex64.
    """

    def __init__(self, n_fft: int, win_length: int, hop_length: int, **kwargs: Any):
        # channels_first: the transform runs over the last axis, and nothing is transposed.
        formats = {
            "input_data_format": "channels_first",
            "output_data_format": "channels_first",
        }
        super().__init__(n_fft, win_length, hop_length, **{**kwargs, **formats})
        self._window = np.zeros(n_fft, np.float32)
        self._window[:win_length] = self.window_fn(win_length)

    def call(self, x: Any) -> Any:
        shape = tf.shape(x)
        half = self.win_length // 2
        # Frames reach to the transform's end at once: the window's zeros end them. To whole
        # blocks, so that `frames` need not cut, which would copy.
        zeros = self.n_fft - self.win_length
        zeros += -(shape[2] + 2 * half + zeros) % math.gcd(self.n_fft, self.hop_length)
        rows = reflected(tf.reshape(x, (-1, shape[2])), half, zeros)
        count = 1 + shape[2] // self.hop_length
        framed = frames(rows, self.n_fft, self.hop_length, count)
        spectra = tf.signal.rfft(framed * self._window)
        return tf.reshape(spectra, [shape[0], shape[1], count, self.n_fft // 2 + 1])


def reflected(rows: Any, width: int, zeros: Any) -> Any:
    """Rows with that many samples mirrored in front of their first and behind their last.

    Args:
        rows: (rows, samples), more samples than `width`.
        width: Samples to add at each end.
        zeros: Zeros to add behind them all.

    Returns:
        (rows, samples + 2 width + zeros): what `tf.pad(..., mode="REFLECT")` makes sample
        by sample, which takes several times as long.
    """
    n_rows, samples = tf.shape(rows)[0], tf.shape(rows)[1]
    front = tf.reverse(rows[:, 1 : width + 1], [1])
    behind = tf.reverse(rows[:, samples - width - 1 : samples - 1], [1])
    return tf.concat([front, rows, behind, tf.zeros([n_rows, zeros])], axis=1)


def frames(rows: Any, length: int, hop: int, count: Any) -> Any:
    """Overlapping frames of rows.

    Args:
        rows: (rows, samples), at least (count - 1) hop + length samples; those behind are
            left out.
        length: Samples of a frame.
        hop: Samples between starts of frames.
        count: Frames.

    Returns:
        (rows, count, length).
    """
    # Blocks are gathered and not samples, as long as hop and length allow.
    block = math.gcd(length, hop)
    n_rows, n_blocks = tf.shape(rows)[0], tf.shape(rows)[1] // block
    blocks = tf.reshape(rows[:, : n_blocks * block], tf.stack([n_rows, n_blocks, block]))
    starts = tf.expand_dims(tf.range(count) * (hop // block), 1)
    indices = starts + np.arange(length // block, dtype=np.int32)
    return tf.reshape(tf.gather(blocks, indices, axis=1), tf.stack([n_rows, count, length]))


def power(spectra: Any) -> Any:
    """Squared magnitudes of complex numbers, float32."""
    # In one pass: for complex numbers this is the difference times its conjugate.
    return tf.math.real(tf.math.squared_difference(spectra, tf.zeros([], spectra.dtype)))


def floored_log(values: Any, amin: float, range_db: float | None) -> Any:
    """Natural logarithms of power, limited below.

    Args:
        values: Power of clips, (batch, ...).
        amin: Smaller values are taken for this.
        range_db: Values further than this under the largest of their clip are raised to
            there, in dB; None for no such limit.

    Returns:
        Logarithms, times `DB_OF_E` dB.
    """
    floor = amin
    if range_db is not None:
        # 0 where a float32 cannot hold the ratio, which then limits nothing.
        ratio = np.float32(10.0 ** (-range_db / 10.0))
        loudest = tf.reduce_max(values, axis=list(range(1, values.shape.rank)), keepdims=True)
        floor = tf.maximum(amin, loudest * ratio)
    return tf.math.log(tf.maximum(values, floor))
