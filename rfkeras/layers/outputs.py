"""What the outputs of a model are: logits, or scores that are already probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.layers.head import ClipLogits
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.utils.model_graph import Place, inlined, layer_graph, sublayers

LOGITS, PROBABILITIES = "logits", "probabilities"

_ROUNDING = 1e-4
_MOST_TENSORS = 100

# Activation functions whose values are probabilities, and those whose values are logits.
_PROBABILITIES = {
    "sigmoid": MULTI_LABEL,
    "hard_sigmoid": MULTI_LABEL,
    "softmax": SINGLE_LABEL,
    "sparsemax": SINGLE_LABEL,
}
_LOGITS = {"linear": MULTI_LABEL, "log_softmax": SINGLE_LABEL}
# Layers and operations that return some of their values, or means or maxima of them. A mean of
# probabilities is a probability, and a mean of logits is a logit.
_KEEPING = frozenset(
    """
    ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise Identity
    SpatialDropout1D SpatialDropout2D SpatialDropout3D Cropping1D Cropping2D Flatten Permute
    RepeatVector Reshape Average AveragePooling1D AveragePooling2D Concatenate
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D Maximum MaxPooling1D MaxPooling2D Minimum
    AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveMaxPooling1D AdaptiveMaxPooling2D
    Amax Amin AveragePool BroadcastTo Cast Copy ExpandDims GetItem Max MaxPool Mean Median Min
    Moveaxis Repeat SaturateCast Split Squeeze Stack StopGradient Swapaxes Tile Transpose
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Outputs:
    """What the outputs of a model are.

    Attributes:
        kind: "logits", or "probabilities" if the model ends in a sigmoid or softmax.
        task: "multi_label" for logits of a sigmoid or its values, "single_label" for those of a
            softmax over all classes.
        head: The `ClipLogits` layer that pools the outputs; None if there is none.
        assumed: A sentence about what is assumed, because the last layers do not show it; None
            if it is known.
    """

    kind: str
    task: str
    head: ClipLogits | None = None
    assumed: str | None = None

    @property
    def from_logits(self) -> bool:
        """Whether a loss must treat the outputs as logits."""
        return self.kind == LOGITS

    def scores(self, values: Any) -> Any:
        """Convert outputs (..., classes) to scores in [0, 1], float32."""
        values = ops.cast(values, "float32")
        if self.kind == PROBABILITIES:
            return values
        return ops.sigmoid(values) if self.task == MULTI_LABEL else ops.softmax(values)

    def logits(self, values: Any) -> Any:
        """Convert outputs (..., classes) to logits, float32.

        Probabilities become log odds, or logarithms for a softmax. Those closer to 0 or 1 than
        float32 can tell apart become the largest logits that it can, about 16 in size.
        """
        values = ops.cast(values, "float32")
        if self.kind == LOGITS:
            return values
        epsilon = 6e-8  # the distance of 1 to the next smaller float32
        values = ops.clip(values, epsilon, 1.0 - epsilon)
        if self.task == SINGLE_LABEL:
            return ops.log(values)
        return ops.log(values) - ops.log1p(-values)


def tensor_outputs(tensor: Any) -> Outputs:
    """Return what the values of a symbolic tensor of a functional model are.

    See `model_outputs`.
    """
    return _Trace().checked(Place(tensor))


def model_outputs(model: Any) -> Outputs:
    """Return whether a model's outputs are logits or probabilities, and for which task.

    The last layers decide it. A sigmoid or softmax, as an activation, a layer or an operation,
    makes probabilities; so does a limit to values between 0 and 1. Layers that only change the
    type, shape or number of values, and means or maxima, do not change what they are. A
    `ClipLogits` layer pools logits and states the task; if its input already passed through a
    sigmoid or softmax, it pools probabilities. Any other last layer without an activation, such
    as `Dense`, computes logits. Where the last layers compute something else, such as a
    weighted mean of sigmoids, they are applied to random values: outputs that always are
    between 0 and 1 are probabilities.

    If a model has several outputs, this is about the first.

    Args:
        model: Any Keras model.

    Returns:
        The outputs. If the last layers do not show what they are, such as for a layer of your
        own, logits are assumed and `assumed` says so.

    Example:
        >>> x = keras.Input((64,))
        >>> model = keras.Model(x, keras.layers.Dense(3, activation="sigmoid")(x))
        >>> model_outputs(model).kind
        'probabilities'
    """
    graph = layer_graph(model)
    if graph is None:
        return _assumed_logits(model, "has no graph of layers")
    try:
        graph = inlined(model)
    except ConfigError:  # names that nested models share
        return _Trace().of(Place(graph.outputs[0]))
    return tensor_outputs(graph.outputs[0])


class _Trace:
    """One walk from a model's output back to where it is known what the values are."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Outputs] = {}
        self._computes = False  # layers without weights compute new values from their inputs

    def checked(self, place: Place) -> Outputs:
        """Return what the values at a place of a model without nested models are.

        What the layers do not show is found by applying them to random values.
        """
        found = self.of(place)
        softmax = found.kind == PROBABILITIES and found.task == SINGLE_LABEL
        if found.assumed is None and not self._computes and not softmax:
            return found
        values = _random_outputs(place.tensor)
        if values is None or values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
            return found
        # The largest of several softmaxes are still compared with one another.
        exclusive = bool((values.sum(axis=-1) > 1 - _ROUNDING).all())
        if softmax:
            return found if exclusive else replace(found, task=MULTI_LABEL)
        exclusive = exclusive and bool((values.sum(axis=-1) < 1 + _ROUNDING).all())
        return replace(
            found,
            kind=PROBABILITIES,
            task=SINGLE_LABEL if exclusive and values.shape[-1] > 1 else MULTI_LABEL,
            assumed=None,
        )

    def of(self, place: Place) -> Outputs:
        """Return what the values at a place are."""
        if place.key not in self._known:
            self._known[place.key] = self._of_place(place)
        return self._known[place.key]

    def _of_place(self, place: Place) -> Outputs:
        layer, reads = place.producer()
        if isinstance(layer, layers.TimeDistributed):
            layer = layer.layer
        name = type(layer).__name__
        if isinstance(layer, ClipLogits):
            before = _Trace().checked(reads[0])
            if before.kind == PROBABILITIES and before.assumed is None:
                return replace(before, head=layer)
            return Outputs(LOGITS, layer.task, layer)
        if not _from_keras(layer):
            return self._of_custom(layer)
        if name == "Clip" or (name == "ReLU" and layer.max_value is not None):
            return self._limited(layer, reads)
        if isinstance(layer, layers.Softmax) or name == "Softmax":
            return self._across(layer, place, SINGLE_LABEL, PROBABILITIES, reads)
        if name == "LogSoftmax":
            return self._across(layer, place, SINGLE_LABEL, LOGITS, reads)
        if name in ("Sigmoid", "HardSigmoid"):
            return replace(
                self.of(reads[0]), kind=PROBABILITIES, task=MULTI_LABEL, assumed=None
            )
        if name in _KEEPING and reads:
            return self._agreed(layer, [self.of(read) for read in reads])
        if hasattr(layer, "activation"):
            return self._activated(layer, reads)
        return self._changed(layer, reads)

    def _activated(self, layer: Any, reads: Sequence[Place]) -> Outputs:
        """Return the outputs of a layer with an activation, such as `Dense` or `Activation`."""
        function = layer.activation
        if isinstance(function, keras.Layer):
            name = type(function).__name__.lower()
            known = name in ("softmax", "sigmoid")
        else:
            name = "linear" if function is None else getattr(function, "__name__", "")
            known = function is None or getattr(keras.activations, name, None) is function
        only_activation = isinstance(layer, layers.Activation) and bool(reads)
        before = self.of(reads[0]) if only_activation else Outputs(LOGITS, MULTI_LABEL)
        if known and name == "linear" and only_activation:
            # After a layer that shows nothing, it states that these are logits.
            return before if before.assumed is None else Outputs(LOGITS, before.task)
        if known and name in _PROBABILITIES:
            return Outputs(PROBABILITIES, _PROBABILITIES[name], before.head)
        if known and name in _LOGITS:
            return Outputs(LOGITS, _LOGITS[name], before.head)
        name = name or type(function).__name__
        why = f"ends in layer {layer.name!r} with the activation {name!r}"
        return Outputs(LOGITS, MULTI_LABEL, None, _assumption(why))

    def _across(
        self, layer: Any, place: Place, task: str, kind: str, reads: Sequence[Place]
    ) -> Outputs:
        """Return the outputs of a softmax, if it compares the classes."""
        rank = len(place.tensor.shape)
        axis = layer.axis
        if axis in (-1, rank - 1) or axis in ([-1], (-1,)):
            return replace(self.of(reads[0]), kind=kind, task=task, assumed=None)
        why = f"ends in the softmax {layer.name!r} over axis {axis}, not over the classes"
        return Outputs(LOGITS, MULTI_LABEL, None, _assumption(why))

    def _limited(self, layer: Any, reads: Sequence[Place]) -> Outputs:
        """Return the outputs of a layer that limits its values."""
        before = self.of(reads[0]) if reads else Outputs(LOGITS, MULTI_LABEL)
        if type(layer).__name__ == "ReLU":
            low, high = 0.0, layer.max_value
        else:
            low, high = layer.x_min, layer.x_max
        numbers = isinstance(low, int | float) and isinstance(high, int | float)
        if numbers and low >= 0 and high <= 1:
            return replace(before, kind=PROBABILITIES, assumed=None)
        if before.kind == LOGITS:
            return before
        return self._changed(layer, reads)

    def _agreed(self, layer: Any, parts: Sequence[Outputs]) -> Outputs:
        """Return the outputs of a layer that passes on inputs of one kind."""
        first = parts[0]
        if any((part.kind, part.task) != (first.kind, first.task) for part in parts):
            why = f"ends in layer {layer.name!r}, which mixes logits and probabilities"
            return Outputs(LOGITS, MULTI_LABEL, None, _assumption(why))
        if len(parts) > 1:
            grouped = type(layer).__name__ in ("Concatenate", "Stack")
            # Several softmaxes: classes of different groups do not exclude each other.
            task = MULTI_LABEL if grouped and first.task == SINGLE_LABEL else first.task
            assumed = next((part.assumed for part in parts if part.assumed), None)
            if grouped and first.task == SINGLE_LABEL and first.kind == LOGITS:
                why = f"ends in layer {layer.name!r}, which joins logits of several softmaxes"
                assumed = _assumption(why)
            return Outputs(first.kind, task, None, assumed)
        return first

    def _changed(self, layer: Any, reads: Sequence[Place]) -> Outputs:
        """Return the outputs of a layer that computes new values from its inputs."""
        self._computes = self._computes or not getattr(layer, "weights", ())
        parts = [self.of(read) for read in reads]
        if any(part.kind == PROBABILITIES for part in parts):
            kind = type(layer).__name__
            why = f"changes probabilities in its last layer {layer.name!r} ({kind})"
            return Outputs(LOGITS, MULTI_LABEL, None, _assumption(why))
        tasks = {part.task for part in parts if part.head is not None}
        task = tasks.pop() if len(tasks) == 1 else MULTI_LABEL
        return Outputs(LOGITS, task, None, next((p.assumed for p in parts if p.assumed), None))

    def _of_custom(self, layer: Any) -> Outputs:
        """Return what is assumed of a layer that is not one of Keras'."""
        name = getattr(getattr(layer, "activation", None), "__name__", "")
        why = f"ends in layer {layer.name!r} of class {type(layer).__name__}"
        if name in _PROBABILITIES:
            why += f" with the activation {name!r}"
            return Outputs(
                PROBABILITIES,
                _PROBABILITIES[name],
                None,
                _assumption(why, PROBABILITIES),
            )
        return _assumed_logits(layer, why)


def _random_outputs(tensor: Any) -> NDArray[np.float64] | None:
    """Return a tensor's values for random values of the layers with weights before it.

    Args:
        tensor: A symbolic tensor of a model without nested models.

    Returns:
        (samples, classes); None if the tensor comes directly from a layer with weights, if it
        cannot be computed like this, or if the values are not finite or all equal.
    """
    starts: dict[int, Any] = {}
    waiting, seen = [tensor], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        layer, node_index, _ = each._keras_history
        node = layer._inbound_nodes[node_index]
        if node.is_input or (_from_keras(layer) and getattr(layer, "weights", ())):
            starts[id(each)] = each
        else:
            waiting += node.input_tensors
    own_activation = getattr(tensor._keras_history[0], "activation", None)
    if len(seen) > _MOST_TENSORS or (id(tensor) in starts and own_activation is None):
        return None
    rng = np.random.default_rng(0)
    try:
        if id(tensor) in starts:
            outputs = _random_values(tensor, rng)
        else:
            tail = keras.Model(list(starts.values()), tensor)
            outputs = tail(
                [_random_values(each, rng) for each in starts.values()], training=False
            )
        values = np.asarray(ops.convert_to_numpy(outputs), np.float64)
    except Exception:  # noqa: BLE001  the layers may be anything
        return None
    values = values.reshape(-1, values.shape[-1])
    return values if np.isfinite(values).all() and np.ptp(values) > _ROUNDING else None


def _random_values(tensor: Any, rng: np.random.Generator) -> Any:
    """Return values of the size that layers with weights compute, small and large."""
    shape = [16, *(size or 8 for size in tensor.shape[1:])]
    sizes = rng.choice([0.1, 1.0, 5.0], [16, *[1] * (len(shape) - 1)])
    values = ops.convert_to_tensor(sizes * rng.normal(size=shape), tensor.dtype)
    activation = getattr(tensor._keras_history[0], "activation", None)
    return values if activation is None else activation(values)


def _assumed_logits(layer: Any, why: str) -> Outputs:
    """Return what is assumed of a layer or model whose code cannot be looked into."""
    heads = sublayers(layer, ClipLogits) if isinstance(layer, keras.layers.Layer) else []
    task = heads[0].task if len(heads) == 1 else MULTI_LABEL
    return Outputs(LOGITS, task, heads[0] if len(heads) == 1 else None, _assumption(why))


def _from_keras(layer: Any) -> bool:
    kind = type(layer)
    return kind.__module__.startswith(("keras.", "rfkeras.")) and kind.__name__ != "Lambda"


def _assumption(why: str, kind: str = LOGITS) -> str:
    fix = "If they are probabilities, end the model with keras.ops.clip(outputs, 0, 1)."
    if kind == PROBABILITIES:
        fix = "If they are logits, end the model with keras.layers.Activation('linear')."
    return f"The model {why}, so its outputs are taken to be {kind}. {fix}"
