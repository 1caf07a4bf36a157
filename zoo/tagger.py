"""The models of the zoo: taggers, with what they compute on the way to a clip's tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.layers.head import ClipLogits, find_head


@dataclass(frozen=True)
class Reading:
    """What a tagger computes of a batch.

    Attributes:
        logits: Of the clips, (batch, classes).
        frame_logits: Of the frames, (batch, time, classes).
        log_weights: Logarithm of each frame's weight in the clip's logits, up to a
            constant, (batch, time, classes); None where all weigh alike.
        embedding: Mean of `frame_embeddings` over time, (batch, features).
        frame_embeddings: Features that the classifier reads, averaged over frequency,
            (batch, time, features).
    """

    logits: Any
    frame_logits: Any
    log_weights: Any
    embedding: Any
    frame_embeddings: Any


@keras.saving.register_keras_serializable(package="rfkeras")
class Tagger(keras.Model):
    """A functional Keras model from waveforms, or spectrograms, to logits of tags.

    What `zoo.create_model` returns. Any other functional model with one input and a
    `ClipLogits` layer at its end becomes one by `Tagger(model.inputs, model.outputs)`.
    """

    _reader: Reader | None = None

    @property
    def head(self) -> ClipLogits:
        """The layer that pools the map of logits.

        Raises:
            ConfigError: The model ends in no `ClipLogits` layer of its own.
        """
        return top_head(self)

    def read(self, inputs: Any) -> Reading:
        """Logits and features of clips and of their frames, all in one pass.

        Args:
            inputs: As the model's own: (batch, samples), (batch, samples, channels), or
                spectrograms (batch, time, mel, channels).
        """
        if self._reader is None:
            self._reader = Reader(self)
        return self._reader(inputs)

    def embed(self, inputs: Any, per: str = "clip") -> Any:
        """Features of the trunk, for other systems to build on.

        Args:
            inputs: As the model's own.
            per: "clip" for (batch, features), "frame" for (batch, time, features).

        Raises:
            ConfigError: per is something else.
        """
        _check_per(per)
        reading = self.read(inputs)
        return reading.embedding if per == "clip" else reading.frame_embeddings

    def scores(self, inputs: Any, per: str = "clip") -> Any:
        """Scores of the tags in [0, 1]: of clips, or of every frame.

        Args:
            inputs: As the model's own.
            per: "clip" for (batch, classes), "frame" for (batch, time, classes).

        Raises:
            ConfigError: per is something else.
        """
        _check_per(per)
        reading = self.read(inputs)
        return self.head.scores(reading.logits if per == "clip" else reading.frame_logits)


class Reader:
    """A function from a model's input to a `Reading`, for inference.

    Args:
        model: Functional, with a `ClipLogits` layer of its own at its end.
        source: Tensor of the model to begin at, such as its front-end's output; None: its
            input.

    Raises:
        ConfigError: There is no such layer, or before it no layer whose input could be
            called features.
    """

    def __init__(self, model: keras.Model, source: Any = None):
        self.head = top_head(model)
        logit_map = self.head.input
        features = classifier_input(model)
        source = model.inputs[0] if source is None else source
        self._trunk = keras.Model(source, [logit_map, features], name="reader")
        self.n_features = features.shape[-1]

    def __call__(self, inputs: Any) -> Reading:
        logit_map, features = self._trunk(inputs, training=False)
        frame_logits, log_weights = self.head.frame_logits(logit_map)
        frame_embeddings = ops.mean(ops.cast(features, "float32"), axis=2)
        return Reading(
            self.head.clip_logits(frame_logits, log_weights),
            frame_logits,
            log_weights,
            ops.mean(frame_embeddings, axis=1),
            frame_embeddings,
        )


def top_head(model: keras.Model) -> ClipLogits:
    """The model's own `ClipLogits` layer.

    Raises:
        ConfigError: It has none, or only inside of a model within it.
    """
    for layer in reversed(model.layers):
        if isinstance(layer, ClipLogits):
            return layer
    raise ConfigError(
        f"Model {model.name!r} has no ClipLogits layer of its own, so its frames cannot be "
        "told. End it in rfkeras.layers.ClipLogits."
    )


def classifier_input(model: keras.Model) -> Any:
    """The tensor (batch, time, frequency, features) that the classifier reads.

    The classifier is the last convolution or dense layer before the head.

    Raises:
        ConfigError: No such layer on a straight way before the head.
    """
    tensor = top_head(model).input
    while True:
        layer = tensor._keras_history.operation
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            return layer.input
        inputs = getattr(layer, "input", None)
        if inputs is None or isinstance(inputs, (list, tuple)) or not layer._inbound_nodes:
            break
        if isinstance(layer, keras.layers.InputLayer):
            break
        tensor = inputs
    raise ConfigError(
        f"Model {model.name!r}: before its head there must be a Conv2D or Dense layer that "
        "computes the logits; its input is the embedding."
    )


def _check_per(per: str) -> None:
    if per not in ("clip", "frame"):
        raise ConfigError(f"per must be 'clip' or 'frame'. Received: {per!r}.")


def label_names(model: keras.Model) -> tuple[str, ...]:
    """Tags kept in the model; "class_0", "class_1", ... where it has none."""
    head = find_head(model)
    if head is not None and head.label_names is not None:
        return head.label_names
    return tuple(f"class_{i}" for i in range(model.output_shape[-1]))


def model_head(model: keras.Model) -> ClipLogits:
    """What reads the model's logits: its own head, or a multi-label one if it has none."""
    return find_head(model) or ClipLogits()
