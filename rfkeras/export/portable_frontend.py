"""The front-end in operations that every converter has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from rfkeras.export.power_spectrum import PowerSpectrum
from rfkeras.frontend.layer import Frontend

DB_OF_E = 10.0 / math.log(10.0)


class PortableFrontend:
    """What a `Frontend` computes, as a function for graphs that will be converted.

    `Frontend` itself computes with kapre's complex numbers, which neither TFLite's own
    operations nor ONNX take at any length.

    Args:
        frontend: A built one; its statistics are copied.
    """

    def __init__(self, frontend: Frontend):
        self.frontend = frontend
        self._spectrum = PowerSpectrum(frontend.n_fft, frontend.window_samples)
        bins = self._spectrum.bins
        filters = np.asarray(frontend.mel.filterbank, np.float64)
        weights = np.zeros((len(bins), frontend.n_mels))
        _, first = np.unique(bins, return_index=True)  # a bin that comes twice counts once
        weights[first] = filters[bins[first]]
        mean_db, std_db = (np.float64(v.numpy()) for v in (frontend.mean_db, frontend.std_db))
        if frontend.order == "db_then_mel":
            # Weighting, filters and standardisation are all linear in dB.
            offset = frontend._a_weights_db @ filters if frontend.a_weighting else 0.0
            weights, mean_db = weights / std_db, mean_db - offset
        self._weights = weights.astype(np.float32)
        self._scale = (1.0 / std_db).astype(np.float32)
        self._shift = (-mean_db / std_db).astype(np.float32)

    def __call__(self, waveform: Any) -> Any:
        """The standardised spectrogram.

        Args:
            waveform: (batch, samples) or (batch, samples, channels), float32.

        Returns:
            (batch, time, mel, channels), float32.
        """
        channels = 1 if waveform.shape.rank == 2 else waveform.shape[2]
        if waveform.shape.rank == 3:
            waveform = tf.transpose(waveform, (0, 2, 1))
        shape = tf.shape(waveform)
        batch, samples = shape[0], shape[-1]
        rows = tf.reshape(waveform, tf.stack([batch * channels, samples]))
        power = self._spectrum(self._frames(rows, samples))
        # All channels of a clip in one row: the floor is under the loudest of them.
        power = tf.reshape(power, tf.stack([batch, -1, len(self._spectrum.bins)]))
        if self.frontend.order == "db_then_mel":
            mel = tf.matmul(self._to_db(power), self._weights) + self._shift
        else:
            mel = self._to_db(tf.matmul(power, self._weights)) * self._scale + self._shift
        if channels == 1:
            return tf.expand_dims(mel, -1)
        mel = tf.reshape(mel, tf.stack([batch, channels, -1, self.frontend.n_mels]))
        return tf.transpose(mel, (0, 2, 3, 1))

    def _frames(self, rows: Any, samples: Any) -> Any:
        """Windows of (rows, samples) around every hop, (rows, time, window_samples)."""
        window, hop = self.frontend.window_samples, self.frontend.hop_samples
        short_by = tf.maximum(0, self.frontend.min_samples - samples)
        rows = tf.pad(rows, [[0, 0], [0, short_by]])
        half = window // 2
        rows = tf.pad(rows, [[0, 0], [half, half]], mode="REFLECT")
        # Blocks are gathered and not samples, as long as hop and window allow.
        block = math.gcd(window, hop)
        n_rows, padded = tf.shape(rows)[0], tf.shape(rows)[1]
        count = (padded - window) // hop + 1
        used = (count - 1) * hop + window
        blocks = tf.reshape(rows[:, :used], tf.stack([n_rows, used // block, block]))
        starts = tf.expand_dims(tf.range(count) * (hop // block), 1)
        indices = starts + np.arange(window // block, dtype=np.int32)
        frames = tf.gather(blocks, indices, axis=1)
        return tf.reshape(frames, tf.stack([n_rows, count, window]))

    def _to_db(self, power: Any) -> Any:
        decibel = self.frontend.decibel
        db = tf.math.log(tf.maximum(power, decibel.amin)) * DB_OF_E
        if self.frontend.fixed_floor:
            return db
        loudest = tf.reduce_max(db, axis=(1, 2), keepdims=True)
        return tf.maximum(db, loudest - self.frontend.dynamic_range_db)
