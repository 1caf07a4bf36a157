"""The model class of the zoo, with access to frame scores and embeddings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from rfkeras.audio.io import MAX_SAMPLE
from rfkeras.errors import ConfigError
from rfkeras.layers.head import ClipLogits, find_head
from rfkeras.layers.outputs import Outputs, model_outputs, tensor_outputs
from rfkeras.rf import shortest_input
from rfkeras.tasks import DEFAULT_THRESHOLD, MULTI_LABEL
from rfkeras.utils.model_graph import (
    chain_from_end,
    inlined,
    layer_tensor,
    only_input,
    only_output,
    part_of_model,
)
from rfkeras.utils.text import first_few


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

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_input(inputs)
        if 0 in (getattr(inputs, "shape", None) or ())[:1]:
            # Keras' convolutions say that the input is too small for the kernel.
            raise ConfigError(f"The batch is empty. Received: shape {tuple(inputs.shape)}.")
        return super().__call__(inputs, *args, **kwargs)

    def _check_input(self, inputs: Any) -> None:
        """Reject integer waveforms, which Keras would convert without scaling them."""
        if len(self.layers) < 2 or len(self.inputs[0].shape) > 3:  # takes spectrograms
            return
        # Only here, because it imports TensorFlow: the networks run on other backends too.
        from rfkeras.frontend.layer import Frontend, check_waveform

        if isinstance(self.layers[1], Frontend):
            check_waveform(inputs)

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

        Raises:
            ConfigError: The batch is empty, has another rank than the model's input, or has
                NaN or infinite values; values are not checked inside `tf.function`.
        """
        self._check_input(inputs)
        reader = self.reader
        inputs = self._as_batch(inputs)
        _check_values(inputs)
        return reader(inputs)

    def _as_batch(self, inputs: Any) -> Any:
        """Return inputs, such as lists of numbers, as an array with the rank of the input.

        Raises:
            ConfigError: They have another rank, such as a clip without a batch.
        """
        if not hasattr(inputs, "shape"):
            inputs = np.asarray(inputs, self.inputs[0].dtype)
        wanted = tuple(self.inputs[0].shape)
        if len(inputs.shape) != len(wanted):
            one = len(inputs.shape) == len(wanted) - 1
            hint = " Add the batch to a single clip: clip[None]." if one else ""
            raise ConfigError(
                f"The model needs an input of shape {wanted}, the batch first. Received: shape "
                f"{tuple(inputs.shape)}.{hint}"
            )
        return inputs

    @property
    def reader(self) -> Reader:
        """The function from inputs to a `Reading`; made when it is first needed."""
        if self._reader is None:
            self._reader = Reader(self)
        return self._reader

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
        values = reading.logits if per == "clip" else reading.frame_logits
        return self.reader.outputs.scores(values)


class Reader:
    """A function from a model's input to a `Reading`, for inference.

    The layers of nested models are read like those of the model itself.

    Args:
        model: A functional or Sequential model with a `ClipLogits` layer at its end.
        source: Tensor to start from, such as the output of a model's front-end: a tensor of
            `inlined(model)`. None starts from the model's input.

    Attributes:
        head: The `ClipLogits` layer.
        outputs: What the values that the head pools are, and how they become scores.
        n_features: Length of an embedding.

    Raises:
        ConfigError: The model does not end in a `ClipLogits` layer, or has no classifier
            before it, or has several inputs or outputs.
    """

    def __init__(self, model: keras.Model, source: Any = None):
        graph = inlined(model)
        self.head = top_head(graph)
        self.outputs = pooled_outputs(graph)
        logit_map = layer_tensor(graph, self.head, "input")
        features = classifier_input(graph)
        source = only_input(graph) if source is None else source
        if features is source:  # Keras cannot return an inner tensor that a model starts from
            features = keras.layers.Identity()(features)
        self._backbone = network_from(source, [logit_map, features], "reader")
        self._pads = len(source.shape) < 4  # waveforms: zeros are silence
        self._shortest: int | None = None
        self.n_features = features.shape[-1]

    def __call__(self, inputs: Any) -> Reading:
        logit_map, features = self._backbone(self._long_enough(inputs), training=False)
        frame_logits, log_weights = self.head.frame_logits(logit_map)
        frame_embeddings = ops.mean(ops.cast(features, "float32"), axis=2)
        return Reading(
            self.head.clip_logits(frame_logits, log_weights),
            frame_logits,
            log_weights,
            ops.mean(frame_embeddings, axis=1),
            frame_embeddings,
        )

    def _long_enough(self, inputs: Any) -> Any:
        """Pad waveforms with zeros to the shortest that the model can compute.

        Raises:
            ConfigError: Spectrograms are too short.
        """
        length = inputs.shape[1]
        if length is None:
            return inputs
        if self._shortest is None:
            self._shortest = shortest_input(self._backbone)
        short_by = self._shortest - length
        fixed = self._backbone.inputs[0].shape[1] is not None
        if short_by <= 0 or fixed:
            return inputs
        if not self._pads:
            raise ConfigError(
                f"The model needs spectrograms of at least {self._shortest} frames. "
                f"Received: {length}."
            )
        return ops.pad(inputs, [(0, 0), (0, short_by), *[(0, 0)] * (len(inputs.shape) - 2)])


def network_from(source: Any, outputs: Any, name: str) -> keras.Model:
    """Return the layers from a tensor, such as the spectrogram of a model, to its outputs.

    Raises:
        ConfigError: The outputs also depend on other tensors, such as the waveform.
    """
    try:
        return part_of_model(source, outputs, name)
    except ValueError as error:
        raise ConfigError(
            "The network reads more than the output of the layer "
            f"{source._keras_history.operation.name!r}: {error}. Export it as a SavedModel, or "
            "let it read the spectrogram alone."
        ) from error


# Layers and operations that may follow the head.
_AFTER_HEAD = (
    "Identity",
    "Dropout",
    "Cast",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "StopGradient",
    "SaturateCast",
)


def top_head(model: keras.Model) -> ClipLogits:
    """Return the final `ClipLogits` layer of a model, also of a nested model.

    Only a sigmoid or softmax, and layers that do not change the values, may follow it.

    Raises:
        ConfigError: The model has none at its end, or has several outputs.
    """
    for layer, _ in chain_from_end(model):
        if isinstance(layer, ClipLogits):
            return layer
        function = getattr(layer, "activation", None)
        activation = isinstance(layer, keras.layers.Activation) and function in (
            keras.activations.linear,
            keras.activations.sigmoid,
            keras.activations.softmax,
        )
        if not activation and type(layer).__name__ not in _AFTER_HEAD:
            break
    if find_head(model) is not None:
        raise ConfigError(
            f"Model {model.name!r} has a ClipLogits layer, but layer {layer.name!r} "
            f"({type(layer).__name__}) is computed from it, so the scores of its frames are "
            "unknown. Make the ClipLogits layer the last one."
        )
    raise ConfigError(
        f"Model {model.name!r} does not end in a ClipLogits layer, so its frames are unknown. "
        "Make rfkeras.layers.ClipLogits its last layer."
    )


def pooled_outputs(model: keras.Model) -> Outputs:
    """Return what the values that the final `ClipLogits` layer pools are.

    They are logits, also where the model applies a sigmoid or softmax to the pooled logits; and
    probabilities if these were applied before the head.
    """
    graph = inlined(model)
    head = top_head(graph)
    final = model_outputs(graph)
    kind = tensor_outputs(layer_tensor(graph, head, "output")).kind
    return replace(final, kind=kind, head=head)


def classifier_input(model: keras.Model) -> Any:
    """Return the tensor (batch, time, frequency, features) that the classifier reads.

    The classifier is the last convolution or dense layer before the head.

    Args:
        model: A model without nested models at its end, such as `inlined` returns.

    Raises:
        ConfigError: There is no such layer on a straight path to the head.
    """
    behind = True
    for layer, source in chain_from_end(model):
        behind = behind and not isinstance(layer, ClipLogits)
        if not behind and isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            return source
    raise ConfigError(
        f"Model {model.name!r} needs a Conv2D or Dense layer before its head that computes the "
        "logits. The input of that layer is the embedding."
    )


def _check_values(inputs: Any) -> None:
    """Check that there are clips and that their values are finite, unless code is traced."""
    try:
        values = np.asarray(inputs)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):  # symbolic
        return
    if not values.size:
        raise ConfigError(f"The input must not be empty. Received: shape {values.shape}.")
    if not np.issubdtype(values.dtype, np.floating):
        return
    if np.isfinite(values).all():
        if values.ndim < 4 and max(-values.min(), values.max()) > MAX_SAMPLE:
            raise ConfigError(
                "The input has samples too large to be audio. Waveforms must be in [-1, 1]."
            )
        return
    clips = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    raise ConfigError(
        f"The input has NaN or infinite values, in clip {first_few(clips)} of the batch. "
        "Layers such as ReLU can turn them into ordinary scores."
    )


def _check_per(per: str) -> None:
    if per not in ("clip", "frame"):
        raise ConfigError(f"per must be 'clip' or 'frame'. Received: {per!r}.")


def label_names(model: keras.Model) -> tuple[str, ...]:
    """Return the tags saved in a model; "class_0", "class_1", ... if it has none.

    Raises:
        ConfigError: The model has several outputs, or no graph of layers.
    """
    head = find_head(model)
    if head is not None and head.label_names is not None:
        return head.label_names
    return tuple(f"class_{i}" for i in range(only_output(model).shape[-1]))


def model_head(model: keras.Model) -> ClipLogits:
    """Return the head of a model; one for its kind of outputs if it has none."""
    return find_head(model) or ClipLogits(task=model_outputs(model).task)


def tag_thresholds(model: keras.Model) -> tuple[float, ...] | None:
    """Return the lowest score at which each tag applies.

    Returns:
        The thresholds saved in the model's head, or 0.5 for every tag; None if classes
        exclude each other and the class with the highest score applies.

    Raises:
        ConfigError: The model has several outputs, or no graph of layers.
    """
    if model_outputs(model).task != MULTI_LABEL:
        return None
    head = find_head(model)
    own = None if head is None else head.thresholds
    return own or (DEFAULT_THRESHOLD,) * only_output(model).shape[-1]
