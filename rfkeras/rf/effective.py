"""The effective receptive field: where in its window a trained model actually looks.

The exact receptive field is the set of pixels that can affect one position of a map. The
gradient of that position with respect to the spectrogram shows how much each pixel affects
it: the squared gradient, averaged over positions and inputs, is the energy of the pixel. The
effective field, where most of the energy is, is smaller than the exact one (Luo et al.,
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

_GRADIENTS_AT_ONCE = 32  # limits memory: 32 maps of 256 x 431 float64 are 28 MB
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

    The gradient is that of single positions of a map at inference: batch normalisation uses
    its moving statistics, and there is no dropout. The energy of each position (squared
    gradient, summed over the spectrogram's channels) is aligned with that of the others by
    their exact windows, and summed over positions and inputs.

    To measure all channels of the map together, one gradient is enough: the gradient of
    their sum with random signs, drawn per clip, has the sum of their energies as its
    expectation.

    Each batch of clips needs one forward pass, and one backward pass per tag and per group
    of positions whose windows do not overlap. On 2 cores, a backward pass takes about 0.1 s
    per 10-second clip in the network with width 128 and rho 7. There, 16 positions form
    about 9 groups, so 4 clips take about 6 s, or 20 times that for 20 single tags. Memory
    is that of a forward pass over `clips_at_once` clips with all activations, about 0.3 GB
    per clip.

    Args:
        model: Trained Keras model on the TensorFlow backend. It takes waveforms and has a
            front-end, or takes spectrograms (batch, time, mel, channels).
        inputs: Inputs of the model, (clips, ...): waveforms (clips, samples) in [-1, 1] at
            the front-end's sample rate, or spectrograms. All have the same length.
        layer: Name of the layer whose output is the map, (batch, time', mel', channels).
            None: the map that the model averages over all positions, with one channel per
            tag.
        tags: Channels of the map to measure separately: names or numbers of tags, or "all".
            `energy` is then their sum. None: all channels together.
        positions: Approximate number of positions, spread evenly over those whose exact
            window is inside the spectrogram (on an axis without any, all are in the
            middle); or the positions themselves, (time, frequency) on the map.
        spectrogram_layer: Name of the layer whose output is the spectrogram. None: the
            front-end, or the model's input if it has none.
        clips_at_once: Number of clips per pass.
        seed: Seed of the random signs.
        progress: Function called after each piece of work with (pieces done, all pieces).

    Returns:
        The field. Its `outside_share` is 0 if the gradient is inside the exact field.

    Raises:
        ConfigError: An argument does not fit the model; the inputs are too short or not
            finite; or the gradient is 0 everywhere, as in an untrained network with the
            published initialisation.

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
    total = EnergySum(axes, chosen, len(rows))
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
                total.add(energy, group, row)
            if progress is not None:
                progress(number * len(pieces) + place + 1, len(batches) * len(pieces))
    return total.field(measured, split, sum(len(batch) for batch in batches))


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
    """Return the names of the channels to measure separately; None: all together.

    Raises:
        ConfigError: A tag is unknown or given twice, or there is none.
    """
    if tags is None:
        return None
    shown = [str(channel) for channel in range(channels)] if names is None else list(names)
    if isinstance(tags, str):
        if tags != "all":
            raise ConfigError(
                f'tags must be "all" or a list of names or numbers. Received: {tags!r}.'
            )
        return dict(enumerate(shown))
    chosen: dict[int, str] = {}
    for tag in tags:
        if isinstance(tag, str) and tag not in shown:
            raise ConfigError(unknown_name("tag", tag, shown))
        channel = shown.index(tag) if isinstance(tag, str) else tag
        if channel in chosen or channel not in range(channels):
            raise ConfigError(
                f"Each tag must be given once, by name or a number from 0 to {channels - 1}. "
                f"Received: {tags!r}."
            )
        chosen[int(channel)] = shown[int(channel)]
    if not chosen:
        raise ConfigError('tags must contain at least one tag, or be "all" or None.')
    return chosen


@dataclass(frozen=True)
class Split:
    """A model divided at its spectrogram and its map.

    Attributes:
        model: The whole model.
        front: From the model's input to the spectrogram; None if the input is one.
        body: From the spectrogram, (batch, time, mel, channels) or (batch, time, mel), to
            the map, (batch, time', mel', channels) or (batch, time', channels).
        label_names: Tags of the map's channels; None if unknown.
        scale: Units of the spectrogram; None if unknown.
    """

    model: Any
    front: Any | None
    body: Any
    label_names: tuple[str, ...] | None
    scale: SpectrogramScale | None

    def batches(self, inputs: Any, size: int) -> list[NDArray[np.float32]]:
        """Divide the inputs into batches of at most this size.

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
                f"inputs must be one array of numbers, (clips, ...), with clips of equal "
                f"length. Received: {error}."
            ) from error
        fits = array.ndim == len(wanted) and all(
            want in (None, have) for want, have in zip(wanted[1:], array.shape[1:], strict=True)
        )
        if not fits or 0 in array.shape:
            shown = ", ".join("any" if size is None else str(size) for size in wanted[1:])
            raise ConfigError(
                f"inputs must be an array (clips, {shown}) for model {self.model.name!r}. "
                f"Received: shape {array.shape}."
            )
        if not np.isfinite(array).all():
            raise ConfigError("inputs must be finite. Received: an array with NaN or infinity.")
        return [array[at : at + size] for at in range(0, len(array), size)]

    def spectrogram(self, batch: Any) -> Any:
        """Convert a batch of inputs to spectrograms, float32."""
        if self.front is None:
            return batch
        from keras import ops

        return ops.cast(self.front(batch, training=False), "float32")

    def geometry(self, shape: Sequence[int]) -> tuple[tuple[AxisMap, AxisMap], int]:
        """Return the map over a spectrogram with this shape, (batch, frames, bands, ...).

        Returns:
            The time and frequency axes of the map, and its number of channels.

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
        """Return one axis of the map.

        Args:
            field: Exact receptive field of the axis.
            known: Number of positions of the field.
            length: Number of positions of the map.
            pixels: Number of pixels of the spectrogram.
            pooled: True if the model pools over all positions.

        Raises:
            ConfigError: The map's axes are in a different order.
        """
        if pooled and length == 1 and known not in (None, 1):
            field = None  # the single position sees everything that was pooled into it
        elif known not in (None, length):
            raise ConfigError(
                f"The map of model {self.model.name!r} must be (batch, time, frequency, "
                f"channels). Received: a map with {length} positions on an axis with {known} "
                "windows."
            )
        return AxisMap(field, length, pixels)


def split_model(model: Any, layer: str | None, spectrogram_layer: str | None) -> Split:
    """Divide a model at its spectrogram and its map.

    Args:
        model: Functional or Sequential model with one input.
        layer: Layer whose output is the map; None: the map that is averaged over all
            positions, or the model's output if that is a map.
        spectrogram_layer: Layer whose output is the spectrogram; None: the front-end, or
            the model's input.

    Raises:
        ConfigError: The model cannot be divided there, or has several inputs.
    """
    import keras

    from rfkeras.rf.trace import graph_of
    from rfkeras.utils.model_graph import inlined, layer_tensor, part_of_model

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
    named = {name for name in (layer, spectrogram_layer) if name is not None}
    if not named or not named <= {operation.name for operation in graph.operations}:
        graph = inlined(model)  # the front-end, head or layer may be in a nested model
    start = spectrogram_layer or _frontend(graph)
    spectrogram = graph.inputs[0] if start is None else layer_tensor(graph, start, "output")
    names: tuple[str, ...] | None = None
    if layer is None:
        output, names = _averaged_map(graph)
    else:
        output = layer_tensor(graph, layer, "output")
    for tensor, option, what in (
        (spectrogram, "spectrogram_layer", "spectrogram (batch, time, mel, channels)"),
        (output, "layer", "map (batch, time, frequency, channels)"),
    ):
        if len(tensor.shape) not in (3, 4):
            raise ConfigError(
                f"Model {model.name!r} must have a {what}. Name the layer that computes it "
                f"by `{option}`. Received: shape {tuple(tensor.shape)}."
            )
    try:
        body = part_of_model(spectrogram, output)
        front = None if start is None else keras.Model(graph.inputs[0], spectrogram)
    except ValueError as error:
        raise ConfigError(
            f"In model {model.name!r} the map does not depend on the spectrogram only: {error}"
        ) from error
    scale = None if start is None else _scale(graph, start)
    return Split(model, front, body, names, scale)


def _frontend(graph: Any) -> str | None:
    """Return the name of the model's front-end; None if it has none."""
    if len(graph.inputs[0].shape) == 4:  # a spectrogram: kapre need not be loaded
        return None
    from rfkeras.frontend import find_frontend

    frontend = find_frontend(graph)
    return None if frontend is None else str(frontend.name)


def _averaged_map(graph: Any) -> tuple[Any, tuple[str, ...] | None]:
    """Return the map that the model averages over positions, and its channel names."""
    from rfkeras.layers.head import find_head
    from rfkeras.rf.trace import receptive_field
    from rfkeras.utils.model_graph import layer_tensor

    head = find_head(graph)
    if head is not None:
        return layer_tensor(graph, head, "input"), head.label_names
    pooled_by = receptive_field(graph).pooled_by
    if pooled_by is None:
        return graph.outputs[0], None
    return layer_tensor(graph, pooled_by, "input"), None


def _scale(model: Any, spectrogram_layer: str) -> SpectrogramScale | None:
    """Return the units of a layer's output, if its pixels are those of a spectrogram."""
    from rfkeras.rf.trace import receptive_field

    field = receptive_field(model, layer=spectrogram_layer)
    # Layers before the front-end can make the time unlimited.
    pixels = field.time in (AxisField(), None) and field.frequency == AxisField()
    return field.scale if pixels else None


def gradient_energies(body: Any, shape: Sequence[int]) -> Any:
    """Return a function that computes the energies of gradients.

    The function takes spectrograms (clips, frames, bands, ...), a mask of positions for each
    gradient (gradients, time', mel'), and weights of the channels for each gradient
    (gradients, clips, channels). It returns (gradients, frames, bands) float64, summed over
    clips.
    """
    import tensorflow as tf

    # A graph computes the forward pass once for all gradients, and skips the gradients of
    # kernels, which eager TensorFlow would also compute.
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
    # A concrete function, because TensorFlow warns about retracing for every new model.
    graph = tf.function(energies, input_signature=signature).get_concrete_function()
    return lambda *arrays: graph(*(tf.convert_to_tensor(a, tf.float32) for a in arrays)).numpy()


class EnergySum:
    """Sums the energies of all positions, aligned by their exact windows."""

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
        """Add a gradient's energy (frames, bands) for positions with disjoint windows."""
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
        """Return the effective field: the sums as shares.

        Raises:
            ConfigError: A gradient is 0 everywhere, or not finite.
        """
        sums = self.boxes.sum(axis=(1, 2))
        if not np.isfinite(sums).all():
            raise ConfigError(
                f"The gradient of model {split.model.name!r} is not finite: its weights "
                "contain NaN or infinity, or values overflow."
            )
        names = [] if tags is None else list(tags.values())
        if not sums.any():
            raise ConfigError(
                f"The gradient of model {split.model.name!r} is 0 everywhere: the output at "
                "these positions does not depend on the input. This is so for untrained "
                'models with initialization="published", whose classifier starts at zero. '
                'Load trained weights, or build the model with initialization="he".'
            )
        if not sums.all():
            silent = [name for name, value in zip(names, sums, strict=True) if value == 0]
            raise ConfigError(
                f"In model {split.model.name!r} these tags have gradient 0 everywhere: "
                f"{', '.join(silent)}. Leave them out of `tags`."
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
