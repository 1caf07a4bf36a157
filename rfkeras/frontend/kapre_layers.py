"""What the front-end computes with on TensorFlow: kapre's layers, made faster.

Importing this module imports TensorFlow and kapre.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import kapre
import keras
import numpy as np
import tensorflow as tf

from rfkeras.frontend.numpy_mel import N_GROUPS, group_bands


def spectrogram(frontend: Any, waveform: Any, scale: Any, shift: Any) -> Any:
    """Compute log power in mel bands, see `rfkeras.frontend.layer.keras_spectrogram`."""

    def log(values: Any) -> Any:
        return floored_log(values, frontend.amin, frontend.range_db)

    x = tf.convert_to_tensor(waveform, tf.float32)
    shape = frontend.compute_output_shape(x.shape)
    x = x[:, None, :] if x.shape.rank == 2 else tf.transpose(x, (0, 2, 1))
    short_by = tf.maximum(0, frontend.min_samples - tf.shape(x)[-1])
    x = tf.pad(x, [[0, 0], [0, 0], [0, short_by]])
    parts = frontend.mel.scaled(scale) if frontend.order == "db_then_mel" else None

    def bands(clips: Any) -> Any:
        spectra = power(frontend.stft(clips))  # (batch, channel, time, bin)
        if parts is None:
            return log(frontend.mel(spectra)) * scale + shift
        return frontend.mel.apply(log(spectra), parts) + shift

    if tf.executing_eagerly() or tf.config.list_physical_devices("GPU"):
        mel = bands(x)
    else:
        # Clip by clip: the spectrum of one clip fits in the processor's caches, that of a
        # batch does not. A GPU is faster on the whole batch, and eager map_fn is slow.
        mel = tf.map_fn(
            lambda index: bands(x[index][None])[0],
            tf.range(tf.shape(x)[0]),
            fn_output_signature=tf.TensorSpec([shape[3], shape[1], frontend.n_mels]),
        )
    mel = tf.transpose(mel, (0, 2, 3, 1))
    mel.set_shape(shape)  # map_fn loses a known length
    return mel


def band_sums(frontend: Any) -> Callable[[Any, bool], tuple[Any, Any, Any, Any]]:
    """Return a compiled `Frontend._band_sums`, with sums in float64."""

    def sums(batch: Any, are_features: bool) -> tuple[Any, Any, Any, Any]:
        mel = tf.cast(batch if are_features else frontend.mel_db(batch), tf.float64)
        return (
            tf.size(mel) // frontend.n_mels,
            tf.reduce_sum(mel, (0, 1, 3)),
            tf.reduce_sum(tf.square(mel), (0, 1, 3)),
            tf.reduce_all(tf.math.is_finite(tf.cast(batch, tf.float32))),
        )

    compiled: Callable[[Any, bool], tuple[Any, Any, Any, Any]] = tf.function(
        sums, reduce_retracing=True
    )
    return compiled


def tensor(variable: Any) -> Any:
    """Return the value of a variable as a tensor."""
    return tf.convert_to_tensor(variable)


def without_autograph(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that AutoGraph does not convert."""
    unconverted: Callable[..., Any] = tf.autograph.experimental.do_not_convert(method)
    return unconverted


def source_of_cast(waveform: Any) -> str | None:
    """Return the integer type that a tensor of a graph was cast from; None if it was not."""
    if not tf.is_tensor(waveform) or hasattr(waveform, "numpy"):
        return None
    operation = waveform.op
    while operation.type in ("Identity", "Cast") and operation.inputs:
        source = operation.inputs[0]
        if source.dtype.is_integer or source.dtype == tf.bool:
            name: str = source.dtype.name
            return name
        operation = source.op
    return None


@keras.saving.register_keras_serializable(package="rfkeras")
class CentredSTFT(kapre.STFT):
    """`kapre.STFT` with centred frames: waveforms are reflected at both ends.

    Args:
        n_fft: Length of the transform.
        win_length: Length of the window in samples; zeros fill it up to n_fft at its end.
        hop_length: Samples between frames.
        **kwargs: `window_name` of `kapre.STFT`, and arguments of `keras.layers.Layer`.

    Input shape:
        (batch, channel, samples) with more than win_length // 2 samples.

    Output shape:
        (batch, channel, 1 + samples // hop_length, n_fft // 2 + 1), complex64.
    """

    def __init__(self, n_fft: int, win_length: int, hop_length: int, **kwargs: Any):
        # channels_first: the transform runs over the last axis, so nothing is transposed.
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
        # Make each frame n_fft long: the zeros at the end of the window mask the rest. Pad
        # to whole blocks, so that `frames` does not have to slice, which would copy.
        zeros = self.n_fft - self.win_length
        zeros += -(shape[2] + 2 * half + zeros) % math.gcd(self.n_fft, self.hop_length)
        rows = reflected(tf.reshape(x, (-1, shape[2])), half, zeros)
        count = 1 + shape[2] // self.hop_length
        framed = frames(rows, self.n_fft, self.hop_length, count)
        spectra = tf.signal.rfft(framed * self._window)
        return tf.reshape(spectra, [shape[0], shape[1], count, self.n_fft // 2 + 1])


def reflected(rows: Any, width: int, zeros: Any) -> Any:
    """Extend rows by reflecting them at both ends, then append zeros.

    Gives the same result as `tf.pad(..., mode="REFLECT")`, which works sample by sample and
    takes several times as long.

    Args:
        rows: (rows, samples), with more samples than `width`.
        width: Samples to add at each end.
        zeros: Zeros to append.

    Returns:
        (rows, samples + 2 width + zeros).
    """
    n_rows, samples = tf.shape(rows)[0], tf.shape(rows)[1]
    front = tf.reverse(rows[:, 1 : width + 1], [1])
    behind = tf.reverse(rows[:, samples - width - 1 : samples - 1], [1])
    return tf.concat([front, rows, behind, tf.zeros([n_rows, zeros])], axis=1)


def frames(rows: Any, length: int, hop: int, count: Any) -> Any:
    """Cut rows into overlapping frames.

    Args:
        rows: (rows, samples), at least (count - 1) hop + length samples; further samples
            are ignored.
        length: Samples per frame.
        hop: Samples between the starts of frames.
        count: Number of frames.

    Returns:
        (rows, count, length).
    """
    # Gather blocks, not samples: the largest that divide both hop and length.
    block = math.gcd(length, hop)
    n_rows, n_blocks = tf.shape(rows)[0], tf.shape(rows)[1] // block
    blocks = tf.reshape(rows[:, : n_blocks * block], tf.stack([n_rows, n_blocks, block]))
    starts = tf.expand_dims(tf.range(count) * (hop // block), 1)
    indices = starts + np.arange(length // block, dtype=np.int32)
    return tf.reshape(tf.gather(blocks, indices, axis=1), tf.stack([n_rows, count, length]))


def power(spectra: Any) -> Any:
    """Return the squared magnitudes of complex numbers, float32."""
    # One pass: for complex numbers this is the difference times its conjugate.
    return tf.math.real(tf.math.squared_difference(spectra, tf.zeros([], spectra.dtype)))


def floored_log(values: Any, amin: float, range_db: float | None) -> Any:
    """Return natural logarithms of power with a floor.

    Args:
        values: Power of clips, (batch, ...).
        amin: Smaller values are raised to this.
        range_db: Values more than this many dB below the largest of their clip are raised
            to that level; None for no such limit.

    Returns:
        Logarithms; multiply by `DB_OF_E` for dB.
    """
    floor = amin
    if range_db is not None:
        # 0 (no limit) if float32 cannot represent the ratio.
        ratio = np.float32(10.0 ** (-range_db / 10.0))
        loudest = tf.reduce_max(values, axis=list(range(1, values.shape.rank)), keepdims=True)
        floor = tf.maximum(amin, loudest * ratio)
    return tf.math.log(tf.maximum(values, floor))


@keras.saving.register_keras_serializable(package="rfkeras")
class GroupedFilterbank(kapre.ApplyFilterbank):
    """`kapre.ApplyFilterbank` that multiplies groups of bands separately.

    A mel filter covers few bins, and neighbouring filters cover nearly the same bins, so a
    group of neighbouring bands needs only a range of bins. With 256 bands and 1,025 bins,
    four groups take a fifth of the multiplications of the full matrix.

    Args:
        filterbank_kwargs: Arguments of `kapre.ApplyFilterbank` with type "mel".
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        filterbank: The full matrix, (bins, bands).
        groups: (first band, end band, first bin, end bin) of each group; ends are
            exclusive.

    Input shape:
        (batch, channel, time, bin)

    Output shape:
        (batch, channel, time, band)
    """

    def __init__(self, filterbank_kwargs: dict[str, Any], **kwargs: Any):
        kwargs = {**kwargs, "type": "mel", "data_format": "channels_first"}
        super().__init__(filterbank_kwargs=filterbank_kwargs, **kwargs)
        filters = np.asarray(self.filterbank)
        self.groups = group_bands(filters, N_GROUPS)
        self._parts = [filters[low:high, a:b] for a, b, low, high in self.groups]

    def call(self, x: Any) -> Any:
        return self.apply(x, self._parts)

    def scaled(self, factors: Any) -> list[Any]:
        """Return parts for `apply` with bands multiplied by these factors, (bands,)."""
        return [
            part * factors[a:b]
            for (a, b, _, _), part in zip(self.groups, self._parts, strict=True)
        ]

    def apply(self, x: Any, parts: list[Any]) -> Any:
        """Multiply x by the layer's own parts, or by parts from `scaled`."""
        shape = tf.shape(x)
        rows = tf.reshape(x, (-1, x.shape[-1]))
        bands = [
            tf.matmul(rows[:, low:high], part)
            for (_, _, low, high), part in zip(self.groups, parts, strict=True)
        ]
        n_bands = self.filterbank.shape[1]
        return tf.reshape(tf.concat(bands, axis=1), [shape[0], shape[1], shape[2], n_bands])
