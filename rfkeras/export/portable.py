"""A model's inference in operations that converters support, and the card of its file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.export.saved_model import (
    audio_fields,
    check_exportable,
    checked_labels,
    frame_times_or_none,
    least_samples,
    padded,
)
from rfkeras.folding import fold_if_possible, in_float32
from rfkeras.frontend import find_frontend
from rfkeras.frontend.kapre_layers import floored_log
from rfkeras.frontend.layer import DB_OF_E, Frontend
from rfkeras.inference import engines as engine
from rfkeras.layers import model_outputs
from rfkeras.layers.outputs import Outputs
from rfkeras.utils.model_graph import inlined, layer_tensor, only_input, only_output
from zoo.tagger import (
    Reader,
    classifier_input,
    model_head,
    network_from,
    tag_thresholds,
    top_head,
)

OUTPUTS = ("scores", "frame_scores", "embedding")

# Part of the names of all operations between spectrogram and logits, from `zoo.tagger.Reader`.
NETWORK_SCOPE = "reader"
Arrays = dict[str, NDArray[np.float32]]


class PortableModel:
    """Maps waveforms or spectrograms to scores, in float32 and without state.

    The network is folded (`rfkeras.fold`). Converters fold batch normalisation as well, but not
    the branches of a block, and they are faster on the smaller graph.

    Without assertions, which the converted formats do not have: a clip with NaN or infinite
    values has NaN in all its outputs (and the other clips of a batch their own outputs), and an
    empty batch has empty outputs.

    Args:
        model: Functional, with one input and one output. Layers with reduced precision compute
            in float32 here.
        labels: Tag of each output; defaults to the names in the model.
        frontend: Take waveforms if the model does. False: take the standardised spectrogram
            that the model's front-end computes.

    Attributes:
        input_name: "waveform" or "spectrogram".
        input_shape: (batch, samples), (batch, samples, channels), or (batch, time, mel,
            channels); None for free sizes.
        outputs: Names of the outputs: `OUTPUTS`, or only "scores" if the model does not end in
            a `ClipLogits` layer.
        serve: Function from the input to a dict of outputs: scores (batch, classes),
            frame_scores (batch, time', classes), embedding (batch, features).
        head: The model's head.
        card: Everything else that a user of the file needs, JSON-serialisable.

    Raises:
        ConfigError: The front-end of the model is not its first layer, the numbers of labels
            and outputs differ, or the model cannot be exported (see `check_exportable`).
    """

    def __init__(
        self, model: keras.Model, labels: Sequence[str] | None = None, frontend: bool = True
    ):
        check_exportable(model)
        keras_model = inlined(in_float32(model))
        layer = find_frontend(keras_model)
        source = only_input(keras_model)
        if layer is not None:
            if layer_tensor(keras_model, layer, "input") is not source:
                raise ConfigError(
                    f"Model {model.name!r} has layers between its input and its front-end, so "
                    "it can only be exported as SavedModel. For TFLite and ONNX, the front-end "
                    "must be the first layer."
                )
            if not frontend:
                source = layer_tensor(keras_model, layer, "output")
        self.input_name = source.name if layer is None or frontend else "spectrogram"
        self.input_shape = tuple(source.shape)
        self.outputs: tuple[str, ...] = OUTPUTS
        try:
            top_head(keras_model), classifier_input(keras_model)
        except ConfigError:
            self.outputs = OUTPUTS[:1]
        self._values = model_outputs(keras_model)
        self._reader = self._reading(keras_model, source)
        self._least = least_samples(keras_model) if frontend else 0
        self._frontend = (
            PortableFrontend(layer, self._least) if layer is not None and frontend else None
        )
        self._folded = folded = fold_if_possible(keras_model)
        twin = find_frontend(folded)
        start = None if twin is None else layer_tensor(folded, twin, "output")
        self._network = self._reading(folded, start)
        self.head = model_head(keras_model)
        self.card = _card(model, self, labels)
        spec = tf.TensorSpec(self.input_shape, tf.float32, name=self.input_name)
        self.serve = tf.function(self._serve, input_signature=[spec])
        self._expected = tf.function(self._expect, input_signature=[spec])

    def _reading(self, model: keras.Model, source: Any) -> Any:
        """Return the function from `source`, or the model's input, to its outputs."""
        if len(self.outputs) > 1:
            return Reader(model, source)
        source = only_input(model) if source is None else source
        # The name tells converters which operations are the network's.
        network = network_from(source, only_output(model), NETWORK_SCOPE)
        return lambda batch: network(batch, training=False)

    def _serve(self, batch: Any) -> dict[str, Any]:
        rows = tf.shape(batch)[0]
        # 0 for finite clips, else NaN. Layers such as ReLU can turn NaN into ordinary values.
        poison = tf.reduce_mean(batch - batch, axis=list(range(1, batch.shape.rank)))
        # TFLite ends the process at a convolution of no rows.
        more = tf.concat([[tf.maximum(0, 1 - rows)], tf.shape(batch)[1:]], 0)
        # Unlike padding, this keeps the known sizes, which TFLite's convolutions need.
        batch = tf.concat([batch, tf.zeros(more)], 0)
        if self._frontend is not None:
            with tf.name_scope("frontend"):
                batch = self._frontend(batch)
        outputs = {}
        for name, value in self._named(self._network(batch)).items():
            own = tf.reshape(poison, [-1] + [1] * (value.shape.rank - 1))
            outputs[name] = tf.identity(value[:rows] + own, name)
        return outputs

    @property
    def frame_outputs(self) -> Outputs:
        """Return the kind and task of the logits of `frames_function`."""
        outputs: Outputs = self._reader.outputs
        return outputs

    def frames_function(self) -> Any:
        """Return the function from spectrograms to the frames of `OnnxTagger`.

        For a model with a `ClipLogits` layer at its end that is read without its front-end.
        """
        spec = tf.TensorSpec((1, *self.input_shape[1:]), tf.float32, name=self.input_name)

        def run(spectrogram: Any) -> dict[str, Any]:
            reading = self._network(spectrogram)
            values = {
                engine.LOGITS: reading.frame_logits,
                engine.SCORES: self.frame_outputs.scores(reading.frame_logits),
                engine.WEIGHTS: reading.log_weights,
                engine.EMBEDDINGS: reading.frame_embeddings,
            }
            return {n: tf.identity(v, n) for n, v in values.items() if v is not None}

        return tf.function(run, input_signature=[spec], autograph=False)

    def _expect(self, batch: Any) -> dict[str, Any]:
        return self._named(self._reader(padded(batch, self._least)))

    def _named(self, reading: Any) -> dict[str, Any]:
        """Return the outputs by name."""
        if len(self.outputs) == 1:
            return {"scores": self._values.scores(reading)}
        scores = self._reader.outputs.scores
        values = (
            scores(reading.logits),
            scores(reading.frame_logits),
            reading.embedding,
        )
        return dict(zip(OUTPUTS, values, strict=True))

    def expect(self, batch: NDArray[np.float32]) -> Arrays:
        """Return the outputs of the Keras model itself for a batch, computed on the CPU."""
        with tf.device("/cpu:0"):
            outputs = self._expected(tf.constant(batch))
        return {name: value.numpy() for name, value in outputs.items()}

    def module(self) -> Any:
        """Return the function and its variables as a module for `tf.saved_model.save`."""
        module = tf.Module(name="rfkeras")
        module.kept = [variable.value for variable in self._folded.variables]
        module.serve = self.serve
        return module


def _card(
    model: keras.Model, portable: PortableModel, labels: Sequence[str] | None
) -> dict[str, Any]:
    """Return what a user of the file needs besides the graph."""
    card: dict[str, Any] = {
        "name": model.name,
        "input": portable.input_name,
        "outputs": list(portable.outputs),
        "labels": list(checked_labels(model, labels or None)),
        "task": portable.head.task,
        "thresholds": tag_thresholds(model),
    }
    card |= audio_fields(model)
    if find_frontend(model) is not None:
        times = frame_times_or_none(model)
        if times is not None:
            card |= {
                "frame_stride_ms": times.stride_ms,
                "first_frame_ms": times.first_ms,
                "receptive_field_ms": times.window_ms,
            }
    return card


class PortableFrontend:
    """Computes what a `Frontend` does, in a graph that can be converted.

    `Frontend` itself uses kapre's complex numbers, which TFLite's built-in operations and ONNX
    do not support for arbitrary lengths.

    Args:
        frontend: A built front-end; its statistics are copied.
        least: Pad audio shorter than this, if the front-end does not.
    """

    def __init__(self, frontend: Frontend, least: int = 0):
        self.frontend = frontend
        self._least = max(least, frontend.min_samples)
        self._spectrum = PowerSpectrum(frontend.n_fft, frontend.window_samples)
        mean_db, std_db = (
            v.numpy().astype(np.float64)[:, None] for v in (frontend.mean_db, frontend.std_db)
        )
        scale, shift = DB_OF_E / std_db, -mean_db / std_db
        filters = np.asarray(frontend.mel.filterbank, np.float64).T
        if frontend.order == "db_then_mel":
            # Weighting, filters and standardisation are all linear in dB.
            filters = filters * scale
            scale, shift = np.ones_like(scale), shift + frontend.offset_db[:, None] / std_db
        self._filters = [
            (low, high, filters[a:b, low:high].astype(np.float32))
            for a, b, low, high in frontend.mel.groups
        ]
        self._scale, self._shift = scale.astype(np.float32), shift.astype(np.float32)

    def __call__(self, waveform: Any) -> Any:
        """Return the standardised spectrogram.

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
        # The floor is relative to the loudest point of all channels of a clip.
        power = tf.reshape(power, tf.stack([batch, channels, self._spectrum.n_bins, -1]))
        if self.frontend.order == "db_then_mel":
            mel = self._filtered(self._log(power)) + self._shift
        else:
            mel = self._log(self._filtered(power)) * self._scale + self._shift
        mel = tf.transpose(mel, (0, 1, 3, 2))
        if channels == 1:  # then this is no transpose
            return tf.reshape(mel, tf.stack([batch, -1, self.frontend.n_mels, 1]))
        return tf.transpose(mel, (0, 2, 3, 1))

    def _frames(self, rows: Any, samples: Any) -> Any:
        """Return the windows of (rows, samples) at every hop, (rows, window_samples, time)."""
        window, hop = self.frontend.window_samples, self.frontend.hop_samples
        short_by = tf.maximum(0, self._least - samples)
        rows = tf.pad(rows, [[0, 0], [0, short_by]])
        half = window // 2
        rows = tf.pad(rows, [[0, 0], [half, half]], mode="REFLECT")
        # Each frame is some pieces of a hop, and the next frame begins one piece later.
        length, count = tf.shape(rows)[1], (tf.shape(rows)[1] - window) // hop + 1
        n_of_frame = -(-window // hop)
        n_pieces = count + n_of_frame - 1
        rows = tf.pad(rows, [[0, 0], [0, tf.maximum(0, n_pieces * hop - length)]])
        rows = rows[:, : n_pieces * hop]
        pieces = tf.reshape(rows, tf.stack([tf.shape(rows)[0], n_pieces, hop]))
        pieces = tf.transpose(pieces, (0, 2, 1))
        shifted = [pieces[:, : window - i * hop, i : i + count] for i in range(n_of_frame)]
        return tf.concat(shifted, axis=1)

    def _log(self, power: Any) -> Any:
        return floored_log(power, self.frontend.amin, self.frontend.range_db)

    def _filtered(self, values: Any) -> Any:
        """Apply the filters to (batch, channels, bins, time), a group of bands at a time."""
        bands = [tf.matmul(part, values[:, :, a:b]) for a, b, part in self._filters]
        return tf.concat(bands, axis=2)


class PowerSpectrum:
    """Squared magnitudes of the Fourier transform of Hann-windowed frames.

    The transform is three products with small real matrices, because the converted formats have
    either no Fourier transform or a slower one. With n_fft = a b and r(t) = exp(-2 pi i t),

        y[k1, j2] = sum over j1 of r(j1 k1 / a) x[j1 b + j2],
        X[k1 + a k2] = sum over j2 of r(j2 (k1 + a k2) / n_fft) y[k1, j2],

    and the second sum is split in the same way. Frames are real, so y[a - k1] is the conjugate
    of y[k1], and k1 up to a // 2 is enough. Three short sums round less than two long ones, as
    little as a fast Fourier transform. Time is the last axis, so that no product needs its
    input transposed.

    Args:
        n_fft: Points of the transform; frames are zero-padded to it.
        window_samples: Samples of a frame.

    Attributes:
        n_bins: Frequency bins, n_fft // 2 + 1.
    """

    def __init__(self, n_fft: int, window_samples: int):
        self.n_bins = n_fft // 2 + 1
        done, *factors = _factors(n_fft)
        stride = n_fft // done
        used = -(-window_samples // stride)  # the samples behind these are zeros
        self._window = tf.signal.hann_window(window_samples).numpy()[:, None]
        self._zeros = used * stride - window_samples
        bins = np.arange(done // 2 + 1)
        cos, sin = _rotation(np.outer(bins, np.arange(used)), done)
        # For each bin so far, a matrix to (bin, real or imaginary part). The later ones are
        # from (real or imaginary part, sample).
        self._matrices = [np.stack([cos, sin], 1).reshape(1, -1, used).astype(np.float32)]
        for factor in factors:
            new = bins[:, None] + done * np.arange(factor)
            done *= factor
            cos, sin = _rotation(new[:, :, None] * np.arange(factor), done)
            parts = np.stack(
                [np.concatenate([cos, -sin], 2), np.concatenate([sin, cos], 2)], axis=2
            )
            shape = (len(bins), 2 * factor, 2 * factor)
            self._matrices.append(parts.reshape(shape).astype(np.float32))
            bins = new.ravel()
        # |X[n_fft - k]| = |X[k]|, and some bins are there twice.
        _, order = np.unique(np.minimum(bins, n_fft - bins), return_index=True)
        self._order = order.astype(np.int32)
        self._n_computed = len(bins)

    def __call__(self, frames: Any) -> Any:
        """Return the power of each bin.

        Args:
            frames: (rows, window_samples, time), float32.

        Returns:
            (rows, n_bins, time), float32.
        """
        rows, time = tf.shape(frames)[0], tf.shape(frames)[2]
        x = tf.pad(frames * self._window, [[0, 0], [0, self._zeros], [0, 0]])
        for matrices in self._matrices:
            n_matrices, _, n_inputs = matrices.shape
            x = tf.matmul(matrices, tf.reshape(x, tf.stack([rows, n_matrices, n_inputs, -1])))
        x = tf.reshape(tf.square(x), tf.stack([rows * self._n_computed, 2, time]))
        power = tf.reshape(tf.reduce_sum(x, 1), tf.stack([rows, self._n_computed, time]))
        return tf.gather(power, self._order, axis=1)


def _factors(n: int) -> list[int]:
    """Return up to three factors of n; the first is about sqrt(n / 2), the others equal."""
    first = next(d for d in range(1, n + 1) if n % d == 0 and 2 * d * d >= n)
    rest = n // first
    second = next(d for d in range(1, rest + 1) if rest % d == 0 and d * d >= rest)
    return [first, *(factor for factor in (second, rest // second) if factor > 1)]


def _rotation(turns: Any, n: int) -> tuple[Any, Any]:
    """Return cosine and sine of -2 pi turns / n, float64, from exact multiples."""
    angle = -2.0 * math.pi * (turns % n) / n
    return np.cos(angle), np.sin(angle)
