"""The effective receptive field: where in its window a trained model really looks.

The exact receptive field tells which pixels can reach one position of a map. How much each
of them does is told by the gradient of that position with respect to the spectrogram: its
square, averaged over positions and inputs, is the energy that the pixel contributes. The
effective field, where most of the energy lies, is smaller than the exact one (Luo et al.,
"Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
arXiv 1701.04128).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField
from rfkeras.rf.effective_result import EffectiveField, FloatArray
from rfkeras.rf.positions import (
    AxisMap,
    Pair,
    Positions,
    check_positions,
    choose_positions,
    disjoint_groups,
    group_masks,
)


@dataclass(frozen=True)
class Split:
    """The two parts of a model.

    Attributes:
        model: The whole.
        front: From the model's input to the spectrogram; None where the input is one.
        body: From the spectrogram, (batch, time, mel, channels) or (batch, time, mel), to
            the map, (batch, time', mel', channels) or (batch, time', channels).
        label_names: Tags of the map's channels; None where they are not known.
        scale: The spectrogram's units; None where they are not known.
    """

    model: Any
    front: Any | None
    body: Any
    label_names: tuple[str, ...] | None
    scale: SpectrogramScale | None

    def batches(self, inputs: Any, size: int) -> list[NDArray[np.float32]]:
        """The inputs cut into batches of at most that size.

        Raises:
            ConfigError: They do not fit the model, are empty or not finite, or size < 1.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(
                f"clips_at_once must be a whole number of at least 1. Received: {size!r}."
            )
        wanted = tuple(self.model.inputs[0].shape)
        try:
            array = np.asarray(inputs, np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"inputs must be one array of numbers, (clips, ...), all clips of one "
                f"length. Received: {error}."
            ) from error
        fits = array.ndim == len(wanted) and all(
            want in (None, have) for want, have in zip(wanted[1:], array.shape[1:], strict=True)
        )
        if not fits or 0 in array.shape:
            shown = ", ".join("any" if size is None else str(size) for size in wanted[1:])
            raise ConfigError(
                f"inputs must be an array (clips, {shown}), as model {self.model.name!r} "
                f"takes them. Received: shape {array.shape}."
            )
        if not np.isfinite(array).all():
            raise ConfigError("inputs must be finite. Received: an array with NaN or infinity.")
        return [array[at : at + size] for at in range(0, len(array), size)]

    def spectrogram(self, batch: Any) -> Any:
        """A batch of inputs as spectrograms, float32."""
        if self.front is None:
            return batch
        from keras import ops

        return ops.cast(self.front(batch, training=False), "float32")

    def geometry(self, shape: Sequence[int]) -> tuple[tuple[AxisMap, AxisMap], int]:
        """The map over a spectrogram (batch, frames, bands, ...) of that shape.

        Returns:
            Its time and frequency axes, and its number of channels.

        Raises:
            ConfigError: The spectrogram is too small for the model.
        """
        from rfkeras.rf.trace import receptive_field

        too_small = (
            f"{shape[1]} frames and {shape[2]} bands leave no position on the map: model "
            f"{self.model.name!r} needs longer inputs."
        )
        try:
            output = self.body.compute_output_shape((1, *shape[1:]))
        except (ValueError, ZeroDivisionError) as error:
            raise ConfigError(f"{too_small} ({error})") from error
        lengths = (output[1], output[2] if len(output) == 4 else 1)
        if min(lengths) < 1:
            raise ConfigError(too_small)
        exact = receptive_field(self.body, input_shape=tuple(shape[1:]))
        time, frequency = (
            self._axis(*parts, pooled=exact.pooled_by is not None)
            for parts in zip(
                (exact.time, exact.frequency), exact.positions, lengths, shape[1:3], strict=True
            )
        )
        return (time, frequency), output[-1]

    def _axis(
        self,
        field: AxisField | None,
        known: int | None,
        length: int,
        pixels: int,
        pooled: bool,
    ) -> AxisMap:
        """One axis of the map, which has `length` positions; `known` are those of the field.

        Raises:
            ConfigError: The map's axes are in another order.
        """
        if pooled and length == 1 and known not in (None, 1):
            field = None  # the one position sees what was pooled into it: everything
        elif known not in (None, length):
            raise ConfigError(
                f"The map of model {self.model.name!r} must be (batch, time, frequency, "
                f"channels). Received a map with {length} positions where {known} of them "
                "see windows of their own."
            )
        return AxisMap(field, length, pixels)


def split_model(model: Any, layer: str | None, spectrogram_layer: str | None) -> Split:
    """Cut a model.

    Args:
        model: Functional or Sequential, with one input.
        layer: Whose output is the map; None: the one that is averaged over all positions,
            or the model's output where that is a map.
        spectrogram_layer: Whose output is the spectrogram; None: the front-end, or the
            model's input.

    Raises:
        ConfigError: The model cannot be cut there, or has more inputs than one.
    """
    import keras

    from rfkeras.rf.trace import graph_of

    if keras.config.backend() != "tensorflow":
        raise ConfigError(
            "The effective receptive field is measured on Keras' TensorFlow backend. "
            f"Received: the backend {keras.config.backend()!r}."
        )
    graph = graph_of(model)
    if len(graph.inputs) != 1:
        raise ConfigError(
            "The effective receptive field is measured for models with one input. "
            f"Received: model {model.name!r} with {len(graph.inputs)} inputs."
        )
    start = spectrogram_layer or _frontend(model)
    spectrogram = graph.inputs[0] if start is None else _tensor(graph, start, "output")
    names: tuple[str, ...] | None = None
    if layer is None:
        output, names = _averaged_map(model, graph)
    else:
        output = _tensor(graph, layer, "output")
    for tensor, option, what in (
        (spectrogram, "spectrogram_layer", "spectrogram (batch, time, mel, channels)"),
        (output, "layer", "map (batch, time, frequency, channels)"),
    ):
        if len(tensor.shape) not in (3, 4):
            raise ConfigError(
                f"Model {model.name!r} must have a {what}: by `{option}` name the layer "
                f"whose output is one. Received: one of shape {tuple(tensor.shape)}."
            )
    try:
        body = keras.Model(spectrogram, output)
        front = None if start is None else keras.Model(graph.inputs[0], spectrogram)
    except ValueError as error:
        raise ConfigError(
            f"In model {model.name!r} the map does not follow from the spectrogram alone: "
            f"{error}"
        ) from error
    scale = None if start is None else _scale(model, start)
    return Split(model, front, body, names, scale)


def _frontend(model: Any) -> str | None:
    """Name of the model's front-end; None where it has none.

    Raises:
        ConfigError: It is hidden in a model within.
    """
    import keras

    if len(model.inputs[0].shape) == 4:  # a spectrogram: kapre need not be loaded
        return None
    from rfkeras.frontend import find_frontend

    frontend = find_frontend(model)
    if frontend is not None:
        return str(frontend.name)
    for layer in model.layers:
        if isinstance(layer, keras.Model) and find_frontend(layer) is not None:
            raise ConfigError(
                f"The front-end of model {model.name!r} is inside of its layer "
                f"{layer.name!r}. Measure that model: model.get_layer({layer.name!r})."
            )
    return None


def _averaged_map(model: Any, graph: Any) -> tuple[Any, tuple[str, ...] | None]:
    """The map that the model averages over its positions, and the names of its channels."""
    from rfkeras.layers.head import ClipLogits, find_head
    from rfkeras.rf.trace import receptive_field

    for layer in model.layers:
        if isinstance(layer, ClipLogits):
            return _tensor(graph, layer.name, "input"), layer.label_names
    if find_head(model) is not None:
        raise ConfigError(
            f"The map that model {model.name!r} averages is inside of a model within it. "
            "Measure that model, or name a layer of this one by `layer`."
        )
    pooled_by = receptive_field(model).pooled_by
    if pooled_by is None:
        return graph.outputs[0], None
    return _tensor(graph, pooled_by, "input"), None


def _tensor(graph: Any, name: str, side: str) -> Any:
    """The input or output of a layer, or another operation, that is applied once.

    Layers may belong to several models, so that `layer.input` may be another model's.
    """
    applied: dict[str, list[Any]] = {}
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            applied.setdefault(node.operation.name, []).append(node)
    if name not in applied:
        raise ConfigError(unknown_name(f"layer of model {graph.name!r}", name, applied))
    tensors = [
        tensor
        for node in applied[name]
        for tensor in (node.input_tensors if side == "input" else node.outputs)
    ]
    if len(tensors) != 1:
        raise ConfigError(
            f"Layer {name!r} of model {graph.name!r} has {len(tensors)} {side}s: choose a "
            "layer with one."
        )
    return tensors[0]


def _scale(model: Any, spectrogram_layer: str) -> SpectrogramScale | None:
    """The units of that layer's output, where its pixels are those of a spectrogram."""
    from rfkeras.rf.trace import receptive_field

    field = receptive_field(model, layer=spectrogram_layer)
    pixels = field.time == field.frequency == AxisField()
    return field.scale if pixels else None


def gradient_energies(body: Any, shape: Sequence[int]) -> Any:
    """A function from spectrograms and seeds to the energies of gradients.

    It takes spectrograms (clips, frames, bands, ...), and for each gradient a mask of
    positions (gradients, time', mel') and a weight of every channel (gradients, clips,
    channels). It returns (gradients, frames, bands) float64, summed over clips.
    """
    import tensorflow as tf

    # One graph: the forward pass is computed once for all gradients, and no gradient of a
    # kernel at all, which eager TensorFlow would compute along with that of its input.
    def energies(spectrogram: Any, masks: Any, weights: Any) -> Any:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(spectrogram)
            output = tf.cast(body(spectrogram, training=False), tf.float32)
            if output.shape.rank == 3:
                output = output[:, :, None]

        def energy(seed: Any) -> Any:
            mask, weight = seed
            gradient = tape.gradient(
                output,
                spectrogram,
                output_gradients=mask[None, :, :, None] * weight[:, None, None, :],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            squares = tf.square(tf.cast(gradient, tf.float64))
            return tf.reduce_sum(squares, axis=(0, 3) if squares.shape.rank == 4 else 0)

        return tf.map_fn(
            energy, (masks, weights), fn_output_signature=tf.float64, parallel_iterations=1
        )

    seeds = tf.TensorSpec([None, None, None])
    signature = [tf.TensorSpec([None, *shape[1:]]), seeds, seeds]
    # Concrete, because TensorFlow warns of a function that is new with every model.
    graph = tf.function(energies, input_signature=signature).get_concrete_function()
    return lambda *arrays: graph(*(tf.convert_to_tensor(a, tf.float32) for a in arrays)).numpy()


class LaidOver:
    """The energies of all positions, laid over each other by their exact windows."""

    def __init__(self, axes: tuple[AxisMap, AxisMap], positions: Positions, rows: int):
        self.axes = axes
        self.positions = positions
        seen = [
            axis.seen([position[number] for position in positions])
            for number, axis in enumerate(axes)
        ]
        self.offset = seen[0][0], seen[1][0]
        self.boxes = np.zeros((rows, *(stop - first for first, stop in seen)))
        self.inside = self.outside = 0.0

    def add(self, energy: FloatArray, group: Positions, row: int) -> None:
        """Add a gradient's energy (frames, bands) for positions with windows apart."""
        rest = energy.copy()
        for position in group:
            from_map, to_box = [], []
            for axis, index, offset in zip(self.axes, position, self.offset, strict=True):
                first, stop = axis.window(index)
                low, high = max(first, 0), min(stop, axis.pixels)
                from_map.append(slice(low, high))
                to_box.append(slice(low - first - offset, high - first - offset))
            part = energy[tuple(from_map)]
            self.boxes[row][tuple(to_box)] += part
            self.inside += float(part.sum())
            rest[tuple(from_map)] = 0.0
        self.outside += float(rest.sum())

    def field(self, tags: dict[int, str] | None, split: Split, clips: int) -> EffectiveField:
        """The sums as shares.

        Raises:
            ConfigError: A gradient is 0 everywhere, or not finite.
        """
        sums = self.boxes.sum(axis=(1, 2))
        if not np.isfinite(sums).all():
            raise ConfigError(
                f"The gradient of model {split.model.name!r} is not finite: its weights hold "
                "NaN or infinity, or its numbers overflow."
            )
        names = [] if tags is None else list(tags.values())
        if not sums.any():
            raise ConfigError(
                f"The gradient of model {split.model.name!r} is 0 everywhere: what it answers "
                "at these positions does not depend on its input. With "
                'initialization="published" that is so before any training, because its '
                "classifier starts at zero. Load trained weights, or build it with "
                'initialization="he".'
            )
        if not sums.all():
            silent = [name for name, value in zip(names, sums, strict=True) if value == 0]
            raise ConfigError(
                f"Of model {split.model.name!r} these tags have gradient 0 everywhere, so "
                f"there is nothing to measure: {', '.join(silent)}. Leave them out of `tags`."
            )
        total = self.boxes.sum(axis=0)
        return EffectiveField(
            energy=total / total.sum(),
            tags={name: box / box.sum() for name, box in zip(names, self.boxes, strict=False)},
            axes=self.axes,
            offset=self.offset,
            positions=self.positions,
            clips=clips,
            clipped=sum(
                not all(axis.fits(index) for axis, index in zip(self.axes, pair, strict=True))
                for pair in self.positions
            ),
            outside_share=self.outside / (self.inside + self.outside),
            scale=split.scale,
        )


_GRADIENTS_AT_ONCE = 32  # bounds the maps held: 32 of 256 x 431 float64 are 28 MB

Progress = Callable[[int, int], None]


def effective_receptive_field(
    model: Any,
    inputs: Any,
    *,
    layer: str | None = None,
    tags: str | Sequence[str | int] | None = None,
    positions: int | Sequence[Pair] = 16,
    spectrogram_layer: str | None = None,
    clips_at_once: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> EffectiveField:
    """Measure where a trained model looks, by the gradient at its spectrogram.

    The gradient is that of single positions of a map, at inference: batch normalisation
    has its moving statistics, and nothing is dropped or drawn. The energy of each position
    (squared gradient, summed over the spectrogram's channels) is laid over that of the
    others so that their exact windows match, and summed over positions and inputs.

    All channels of the map together need no gradient of each: that of their sum with
    random signs, drawn for each clip, has in expectation the sum of their energies.

    Cost: for each batch of clips a forward pass, and a backward pass for every tag and every
    group of positions whose windows do not overlap. On 2 cores a backward pass takes about
    0.1 s a clip in the network of width 128 and rho 7 with 10-second clips. There 16
    positions are about 9 groups: 4 clips take some 6 s, or each of 20 tags by itself
    20 times that. Memory is that of a forward pass over `clips_at_once` clips with its
    activations kept, 0.3 GB a clip there.

    Args:
        model: A Keras model on the TensorFlow backend, trained: one with a front-end that
            takes waveforms, or one that takes spectrograms (batch, time, mel, channels).
        inputs: What the model takes, (clips, ...): waveforms (clips, samples) in [-1, 1] at
            the front-end's rate, or spectrograms. All have one length.
        layer: Name of the layer whose output is the map, (batch, time', mel', channels);
            None: the one that the model averages over all positions, with a channel for
            each tag.
        tags: Channels of the map to measure each by itself: names of the model's tags, or
            numbers, or "all"; `energy` is then their sum. None: all channels together.
        positions: About how many, spread evenly over the positions whose exact window lies
            inside the spectrogram (on an axis where none does, all are at its middle); or
            the positions themselves, (time, frequency) on the map.
        spectrogram_layer: Name of the layer whose output is the spectrogram; None: the
            front-end, or the model's input where it has none.
        clips_at_once: Clips in one pass.
        seed: Of the random signs.
        progress: Called after each piece of work with (pieces done, pieces in all).

    Returns:
        The field. `outside_share` tells whether the gradient stayed inside the exact field.

    Raises:
        ConfigError: An argument does not fit the model; the inputs are too short for it,
            or not finite; or the gradient is 0 everywhere, as it is for a network with the
            published initialisation before any training.

    Example:
        >>> field = effective_receptive_field(model, waveforms)
        >>> frames, bands = field.window(0.95)
    """
    split = split_model(model, layer, spectrogram_layer)
    batches = split.batches(inputs, clips_at_once)
    shape = split.spectrogram(batches[0][:1]).shape
    axes, channels = split.geometry(shape)
    chosen = _positions(axes, positions)
    measured = _tags(tags, channels, split.label_names)
    rows = [0] if measured is None else list(measured)  # channel of each field
    work = [(group, row) for group in disjoint_groups(axes, chosen) for row in range(len(rows))]
    pieces = [
        work[at : at + _GRADIENTS_AT_ONCE] for at in range(0, len(work), _GRADIENTS_AT_ONCE)
    ]
    energies_of = gradient_energies(split.body, shape)
    laid = LaidOver(axes, chosen, len(rows))
    random = np.random.default_rng(seed)
    for number, batch in enumerate(batches):
        spectrogram = split.spectrogram(batch)
        for place, piece in enumerate(pieces):
            weights = np.zeros((len(piece), len(batch), channels), np.float32)
            for weight, (_, row) in zip(weights, piece, strict=True):
                if measured is None:
                    weight[:] = random.choice((-1.0, 1.0), weight.shape)
                else:
                    weight[:, rows[row]] = 1.0
            masks = group_masks(axes, [group for group, _ in piece])
            energies = energies_of(spectrogram, masks, weights)
            for energy, (group, row) in zip(energies, piece, strict=True):
                laid.add(energy, group, row)
            if progress is not None:
                progress(number * len(pieces) + place + 1, len(batches) * len(pieces))
    return laid.field(measured, split, sum(len(batch) for batch in batches))


def _positions(axes: tuple[AxisMap, AxisMap], positions: int | Sequence[Pair]) -> Positions:
    if isinstance(positions, Sequence | np.ndarray) and not isinstance(positions, str):
        return check_positions(axes, positions)
    whole = isinstance(positions, int | np.integer) and not isinstance(positions, bool)
    if not whole or positions < 1:
        raise ConfigError(
            "positions must be a number of at least 1, or pairs (time, frequency). "
            f"Received: {positions!r}."
        )
    return choose_positions(axes, int(positions))


def _tags(
    tags: str | Sequence[str | int] | None, channels: int, names: tuple[str, ...] | None
) -> dict[int, str] | None:
    """Name of each channel that is measured by itself; None: all together.

    Raises:
        ConfigError: A tag is unknown, or named twice, or there is none.
    """
    if tags is None:
        return None
    shown = [str(channel) for channel in range(channels)] if names is None else list(names)
    if isinstance(tags, str):
        if tags != "all":
            raise ConfigError(
                f'tags must be "all", or a list of names or numbers. Received: {tags!r}.'
            )
        return dict(enumerate(shown))
    chosen: dict[int, str] = {}
    for tag in tags:
        if isinstance(tag, str) and tag not in shown:
            raise ConfigError(unknown_name("tag", tag, shown))
        channel = shown.index(tag) if isinstance(tag, str) else tag
        if channel in chosen or channel not in range(channels):
            raise ConfigError(
                f"Each tag must be named once, a number from 0 to {channels - 1}. "
                f"Received: {tags!r}."
            )
        chosen[int(channel)] = shown[int(channel)]
    if not chosen:
        raise ConfigError('tags must name at least one tag, or be "all" or None.')
    return chosen
