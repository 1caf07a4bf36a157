"""The model class of the zoo, with access to frame scores and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.layers.head import ClipLogits, find_head
from rfkeras.tasks import DEFAULT_THRESHOLD, MULTI_LABEL


@dataclass(frozen=True)
class Reading:
    """Outputs of a tagger for a batch.

    Attributes:
        logits: Logits of the clips, (batch, classes).
        frame_logits: Logits of the frames, (batch, time, classes).
        log_weights: Logarithm of each frame's weight in the logits of the clip, up to a
            constant, (batch, time, classes); None if all frames have the same weight.
        embedding: Mean of `frame_embeddings` over time, (batch, features).
        frame_embeddings: Input of the classifier, averaged over frequency,
            (batch, time, features).
    """

    logits: Any
    frame_logits: Any
    log_weights: Any
    embedding: Any
    frame_embeddings: Any


@keras.saving.register_keras_serializable(package="rfkeras")
class Tagger(keras.Model):
    """A functional Keras model from waveforms or spectrograms to logits of tags.

    `zoo.create_model` returns one. To turn another functional model with one input and a final
    `ClipLogits` layer into a tagger, call `Tagger(model.inputs, model.outputs)`.
    """

    _reader: Reader | None = None

    @property
    def head(self) -> ClipLogits:
        """The layer that pools the map of logits.

        Raises:
            ConfigError: The model does not end in a `ClipLogits` layer.
        """
        return top_head(self)

    def read(self, inputs: Any) -> Reading:
        """Compute logits and features of clips and of their frames in one pass.

        Args:
            inputs: Inputs of the model: (batch, samples), (batch, samples, channels), or
                spectrograms (batch, time, mel, channels).
        """
        if self._reader is None:
            self._reader = Reader(self)
        return self._reader(inputs)

    def embed(self, inputs: Any, per: str = "clip") -> Any:
        """Compute embeddings, the features that the classifier reads.

        Args:
            inputs: Inputs of the model, as in `read`.
            per: "clip" for (batch, features), "frame" for (batch, time, features).

        Raises:
            ConfigError: per has another value.
        """
        _check_per(per)
        reading = self.read(inputs)
        return reading.embedding if per == "clip" else reading.frame_embeddings

    def scores(self, inputs: Any, per: str = "clip") -> Any:
        """Compute the scores of the tags, in [0, 1], of clips or frames.

        Args:
            inputs: Inputs of the model, as in `read`.
            per: "clip" for (batch, classes), "frame" for (batch, time, classes).

        Raises:
            ConfigError: per has another value.
        """
        _check_per(per)
        reading = self.read(inputs)
        return self.head.scores(reading.logits if per == "clip" else reading.frame_logits)


class Reader:
    """A function from a model's input to a `Reading`, for inference.

    Args:
        model: A functional model that ends in a `ClipLogits` layer.
        source: Tensor of the model to start from, such as the output of its front-end; None
            starts from its input.

    Raises:
        ConfigError: The model does not end in a `ClipLogits` layer, or has no classifier
            before it.
    """

    def __init__(self, model: keras.Model, source: Any = None):
        self.head = top_head(model)
        logit_map = self.head.input
        features = classifier_input(model)
        source = model.inputs[0] if source is None else source
        self._backbone = keras.Model(source, [logit_map, features], name="reader")
        self.n_features = features.shape[-1]

    def __call__(self, inputs: Any) -> Reading:
        logit_map, features = self._backbone(inputs, training=False)
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
    """Return the final `ClipLogits` layer of a model.

    Raises:
        ConfigError: The model has none, or only inside a nested model.
    """
    for layer in reversed(model.layers):
        if isinstance(layer, ClipLogits):
            return layer
    raise ConfigError(
        f"Model {model.name!r} does not end in a ClipLogits layer, so its frames are unknown. "
        "Make rfkeras.layers.ClipLogits its last layer."
    )


def classifier_input(model: keras.Model) -> Any:
    """Return the tensor (batch, time, frequency, features) that the classifier reads.

    The classifier is the last convolution or dense layer before the head.

    Raises:
        ConfigError: There is no such layer on a straight path to the head.
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
        f"Model {model.name!r} needs a Conv2D or Dense layer before its head that computes the "
        "logits. The input of that layer is the embedding."
    )


def _check_per(per: str) -> None:
    if per not in ("clip", "frame"):
        raise ConfigError(f"per must be 'clip' or 'frame'. Received: {per!r}.")


def label_names(model: keras.Model) -> tuple[str, ...]:
    """Return the tags saved in a model; "class_0", "class_1", ... if it has none."""
    head = find_head(model)
    if head is not None and head.label_names is not None:
        return head.label_names
    return tuple(f"class_{i}" for i in range(model.output_shape[-1]))


def model_head(model: keras.Model) -> ClipLogits:
    """Return the head of a model; a multi-label one if it has none."""
    return find_head(model) or ClipLogits()


def tag_thresholds(model: keras.Model) -> tuple[float, ...] | None:
    """Return the lowest score at which each tag applies.

    Returns:
        The thresholds saved in the model's head, or 0.5 for every tag; None if classes
        exclude each other and the class with the highest score applies.
    """
    head = model_head(model)
    if head.task != MULTI_LABEL:
        return None
    return head.thresholds or (DEFAULT_THRESHOLD,) * model.output_shape[-1]
