"""A model's inference in operations that converters take, and what its file must tell."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.export.card import audio_fields
from rfkeras.export.portable_frontend import PortableFrontend
from rfkeras.folding import fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.precision import in_float32
from rfkeras.tagger import Reader
from rfkeras.tagging import frame_times
from rfkeras.tasks import HALF, MULTI_LABEL

OUTPUTS = ("scores", "frame_scores", "embedding")
# In the names of what lies between spectrogram and logits: `rfkeras.tagger.Reader`'s model.
TRUNK_SCOPE = "reader"

Arrays = dict[str, NDArray[np.float32]]


class PortableModel:
    """Waveforms, or spectrograms, to scores, in float32 and without state.

    The network is folded (`rfkeras.fold`). Converters fold batch normalisation too, but not
    the branches of a block; and of the smaller graph they are done sooner.

    Args:
        model: Functional, with a `ClipLogits` layer of its own at its end. Layers of a
            reduced precision compute in float32 here.
        labels: Tag of each output; by default those kept in the model.
        frontend: Take waveforms, if the model does. Without, take the standardised
            spectrogram that the model's front-end computes.

    Attributes:
        input_name: "waveform", or "spectrogram".
        input_shape: (batch, samples), (batch, samples, channels), or
            (batch, time, mel, channels); None where free.
        serve: Function from the input to a dict of `OUTPUTS`: scores (batch, classes),
            frame_scores (batch, time', classes), embedding (batch, features).
        card: What a reader of the file needs besides the numbers, as JSON has it.

    Raises:
        ConfigError: The frames of the model cannot be told, its front-end is not its first
            layer, or labels and outputs differ in number.
    """

    def __init__(
        self, model: keras.Model, labels: Sequence[str] | None = None, frontend: bool = True
    ):
        keras_model = in_float32(model)
        layer = find_frontend(keras_model)
        source = keras_model.inputs[0]
        if layer is not None:
            if layer.input is not source:
                raise ConfigError(
                    f"Model {model.name!r}: layers stand between its input and its "
                    "front-end, which cannot be converted. Give it one whose first layer is "
                    "the front-end, or use SavedModel."
                )
            if not frontend:
                source = layer.output
        self.input_name = source.name if layer is None or frontend else "spectrogram"
        self.input_shape = tuple(source.shape)
        self._reader = Reader(keras_model, source)
        self._frontend = PortableFrontend(layer) if layer is not None and frontend else None
        self._folded = folded = fold_if_possible(keras_model)
        twin = find_frontend(folded)
        self._trunk = Reader(folded, None if twin is None else twin.output)
        self.head = self._reader.head
        self.card = _card(model, self, labels)
        spec = tf.TensorSpec(self.input_shape, tf.float32, name=self.input_name)
        self.serve = tf.function(self._serve, input_signature=[spec])
        self._expected = tf.function(self._expect, input_signature=[spec])

    def _serve(self, batch: Any) -> dict[str, Any]:
        if self._frontend is not None:
            with tf.name_scope("frontend"):
                batch = self._frontend(batch)
        return self._outputs(self._trunk(batch))

    def _expect(self, batch: Any) -> dict[str, Any]:
        return self._outputs(self._reader(batch))

    def _outputs(self, reading: Any) -> dict[str, Any]:
        values = (
            self.head.scores(reading.logits),
            self.head.scores(reading.frame_logits),
            reading.embedding,
        )
        return {
            name: tf.identity(value, name) for name, value in zip(OUTPUTS, values, strict=True)
        }

    def expect(self, batch: NDArray[np.float32]) -> Arrays:
        """What the Keras model itself computes of a batch, on the CPU."""
        with tf.device("/cpu:0"):
            outputs = self._expected(tf.constant(batch))
        return {name: value.numpy() for name, value in outputs.items()}

    def module(self) -> Any:
        """The function and its variables, for `tf.saved_model.save`."""
        module = tf.Module(name="rfkeras")
        module.kept = [variable.value for variable in self._folded.variables]
        module.serve = self.serve
        return module


def _card(
    model: keras.Model, portable: PortableModel, labels: Sequence[str] | None
) -> dict[str, Any]:
    head = portable.head
    n_classes = head.input.shape[-1]
    names = tuple(labels or head.label_names or [f"class_{i}" for i in range(n_classes)])
    if len(names) != n_classes:
        raise ConfigError(f"The model has {n_classes} outputs but {len(names)} labels.")
    thresholds = list(head.thresholds or [HALF] * n_classes)
    card: dict[str, Any] = {
        "name": model.name,
        "input": portable.input_name,
        "outputs": list(OUTPUTS),
        "labels": list(names),
        "task": head.task,
        "thresholds": thresholds if head.task == MULTI_LABEL else None,
    }
    card |= audio_fields(model)
    if find_frontend(model) is not None:
        times = None
        with contextlib.suppress(ConfigError):  # a layer of which it is unknown what it reads
            times = frame_times(model)
        if times is not None:
            card |= {
                "frame_stride_ms": times.stride_ms,
                "first_frame_ms": times.first_ms,
                "receptive_field_ms": times.window_ms,
            }
    return card
