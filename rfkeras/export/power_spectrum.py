"""Power spectra of frames in real matrix products, which every converter has.

A Fourier transform of n = N1 N2 points is two of N1 and N2 points with a rotation between
them (Cooley and Tukey, "An Algorithm for the Machine Calculation of Complex Fourier
Series", 1965). Sample N2 a + b and bin k + N1 m:

    X[k + N1 m] = sum_b W_n^(b k) (sum_a x[N2 a + b] W_N1^(a k)) W_N2^(b m).

The samples are real, so k from 0 to N1 // 2 is enough: other bins are conjugates of these.
A single convolution with all sines and cosines computes the same, but holds 17 MB of them at
2048 points and multiplies 15 times as often.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf


class PowerSpectrum:
    """Squared magnitudes of the Fourier transform of Hann-windowed frames.

    Args:
        n_fft: Points of the transform; frames are filled with zeros up to it.
        window_samples: Samples of a frame.

    Attributes:
        bins: Bin from 0 to n_fft // 2 that each output is of, (outputs,). The order is that
            of the transform, and two residues appear twice.
    """

    def __init__(self, n_fft: int, window_samples: int):
        self.n_fft, self.window_samples = n_fft, window_samples
        self.n1 = next(d for d in range(1, n_fft + 1) if n_fft % d == 0 and d * d >= n_fft)
        self.n2 = n_fft // self.n1
        self.n_residues = self.n1 // 2 + 1
        residue, turn = np.arange(self.n_residues), np.arange(self.n2)
        bins = (residue[:, None] + self.n1 * turn).ravel()
        self.bins = np.minimum(bins, n_fft - bins)  # |X[n - k]| = |X[k]|
        self._window = tf.signal.hann_window(window_samples).numpy()
        self._inner = _rotations(np.outer(np.arange(self.n1), residue), self.n1)
        self._between = _rotations(np.outer(turn, residue), n_fft)
        cos, sin = _rotations(np.outer(turn, turn), self.n2)
        # (real, imaginary) to (real, imaginary) as one real matrix.
        self._outer = np.block([[cos, sin], [-sin, cos]])

    def __call__(self, frames: Any) -> Any:
        """Power of each bin.

        Args:
            frames: (rows, time, window_samples), float32.

        Returns:
            (rows, time, len(bins)), float32.
        """
        rows, time = tf.shape(frames)[0], tf.shape(frames)[1]
        x = tf.pad(
            frames * self._window, [[0, 0], [0, 0], [0, self.n_fft - self.window_samples]]
        )
        x = tf.reshape(x, (-1, self.n1, self.n2))
        x = tf.transpose(x, (0, 2, 1))
        real, imaginary = (tf.matmul(x, matrix) for matrix in self._inner)
        cos, sin = self._between
        turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
        x = tf.concat([tf.transpose(part, (0, 2, 1)) for part in turned], axis=-1)
        x = tf.square(tf.matmul(x, self._outer))
        power = x[..., : self.n2] + x[..., self.n2 :]
        return tf.reshape(power, tf.stack([rows, time, len(self.bins)]))


def _rotations(turns: Any, n: int) -> Any:
    """Cosine and sine of -2 pi turns / n, (2, ...) float32; exact multiples before rounding."""
    angle = -2.0 * math.pi * (turns % n) / n
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
