"""Gradients of single positions, and their energies laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.effective.field import EffectiveField, FloatArray
from rfkeras.receptive_field.effective.split import Split
from rfkeras.receptive_field.effective.windows import AxisMap, Positions


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
