"""Random changes of training examples, as layers: they do nothing outside of training.

All of them draw for each sample on its own, from a seed generator whose state is part of
the layer's variables, in float32 whatever the inputs are; and differently on every replica
of a distributed step. Outputs have the dtypes of the inputs under every dtype policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.layers.replicated import ReplicaSeedGenerator


def unchanged(layer: Any, inputs: Any, call: Any) -> Any:
    """As `trace_receptive_field` of a layer whose `call` does nothing at inference.

    Each class names it beside its own `call`: for a subclass with another one it does not
    count. See `rfkeras.rf.register_rule`.
    """
    return inputs


class Augmentation(keras.layers.Layer):
    """What layers of random changes share: the seed, and outputs like the inputs."""

    def __init__(self, seed: int | None = None, **kwargs: Any):
        # Labels and shares must not be rounded to the compute dtype of a mixed policy.
        super().__init__(**{"autocast": False, **kwargs})
        self.seed = seed
        self.seed_generator = ReplicaSeedGenerator(seed)

    def uniform(self, shape: Sequence[Any]) -> Any:
        """Numbers in [0, 1), float32."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def build(self, input_shape: Any) -> None:
        """Nothing to make: there are no weights besides the seed."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(package="rfkeras")
class RandomTimeRoll(Augmentation):
    """Rolls each spectrogram circularly along time, by any number of frames alike.

    Args:
        seed: Of the draws; None takes one from Python's generator.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        As the input.
    """

    trace_receptive_field = unchanged

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        batch, time, frequency, channels = ops.shape(inputs)
        shift = _whole(self.uniform((batch, 1)), time)
        frames = ops.arange(time, dtype="int32")[None, :]
        source = ops.mod(frames - shift, time)
        rows = ops.arange(batch, dtype="int32")[:, None] * time + source
        # One gather of whole frames: no copy of the indices for every band.
        flat = ops.reshape(inputs, (batch * time, frequency * channels))
        rolled = ops.take(flat, ops.reshape(rows, (-1,)), axis=0)
        return ops.reshape(rolled, (batch, time, frequency, channels))


@keras.saving.register_keras_serializable(package="rfkeras")
class SpecAugment(Augmentation):
    """Sets random stripes of each spectrogram to zero, across time and across frequency.

    Zero is the mean of every band of a standardised spectrogram. A stripe's width is drawn
    from 0 to the maximum (both included; at most the map's), then its place, so that it
    lies inside the map. All channels have the same stripes.

    kapre has a layer of this name, per sample like this one. It takes one channel only,
    fails on maps shorter than the widest stripe, never draws an empty one, loops over the
    samples, and draws from TensorFlow's global generator, whose state no checkpoint holds.

    Args:
        time_masks: Stripes across time.
        time_mask_frames: Their largest width in frames.
        frequency_masks: Stripes across frequency.
        frequency_mask_bands: Their largest width in bands.
        seed: Of the draws; None takes one from Python's generator.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        As the input.

    Raises:
        ConfigError: A negative number, or not a whole one.

    Reference:
        Park et al., "SpecAugment", arXiv 1904.08779 (its two kinds of masks, no warping).
    """

    def __init__(
        self,
        time_masks: int = 2,
        time_mask_frames: int = 40,
        frequency_masks: int = 2,
        frequency_mask_bands: int = 24,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, **kwargs)
        self.time_masks = time_masks
        self.time_mask_frames = time_mask_frames
        self.frequency_masks = frequency_masks
        self.frequency_mask_bands = frequency_mask_bands
        for name, value in self._sizes().items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(
                    f"SpecAugment: {name} must be a whole number of at least 0. "
                    f"Received: {value!r}."
                )

    def _sizes(self) -> dict[str, int]:
        names = (
            "time_masks",
            "time_mask_frames",
            "frequency_masks",
            "frequency_mask_bands",
        )
        return {name: getattr(self, name) for name in names}

    trace_receptive_field = unchanged

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        batch, time, frequency, _ = ops.shape(inputs)
        keep = self._kept(batch, time, self.time_masks, self.time_mask_frames)
        keep_bands = self._kept(
            batch, frequency, self.frequency_masks, self.frequency_mask_bands
        )
        keep = ops.logical_and(keep[:, :, None, None], keep_bands[:, None, :, None])
        return ops.where(keep, inputs, ops.zeros_like(inputs))

    def _kept(self, batch: Any, size: Any, count: int, largest: int) -> Any:
        """(batch, size): whether a position lies under none of `count` stripes."""
        limit = ops.minimum(largest, size)
        width = _whole(self.uniform((batch, count, 1)), limit + 1)
        start = _whole(self.uniform((batch, count, 1)), size - width + 1)
        position = ops.arange(size, dtype="int32")[None, None, :]
        covered = ops.logical_and(position >= start, position < start + width)
        return ops.logical_not(ops.any(covered, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._sizes()}


@keras.saving.register_keras_serializable(package="rfkeras")
class RandomGain(Augmentation):
    """Makes each waveform louder or softer, by decibels drawn uniformly.

    It belongs before the front-end: a gain of the waveform moves what stands above an
    absolute floor (`fixed_floor`), while on a spectrogram in dB it is an offset and no more.
    Samples may leave [-1, 1]; they are not clipped.

    Args:
        gain_db: Largest gain either way in dB.
        seed: Of the draws; None takes one from Python's generator.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        (batch, samples) or (batch, samples, channels).

    Output shape:
        As the input.

    Raises:
        ConfigError: gain_db is negative or no finite number.
    """

    def __init__(self, gain_db: float = 6.0, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        if not 0.0 <= gain_db < float("inf"):
            raise ConfigError(
                f"RandomGain: gain_db must be a number of at least 0. Received: {gain_db!r}."
            )
        self.gain_db = gain_db

    trace_receptive_field = unchanged

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        shape = (ops.shape(inputs)[0], *(1 for _ in inputs.shape[1:]))
        gain_db = self.gain_db * (2.0 * self.uniform(shape) - 1.0)
        return inputs * ops.cast(ops.power(10.0, gain_db / 20.0), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain_db": self.gain_db}


def _whole(uniform: Any, count: Any) -> Any:
    """Whole numbers from 0 to count - 1 out of numbers in [0, 1)."""
    count = ops.cast(count, "int32")
    number = ops.cast(ops.floor(uniform * ops.cast(count, "float32")), "int32")
    return ops.minimum(number, count - 1)  # a product just under count may round to it


TINY = 1e-30


@keras.saving.register_keras_serializable(package="rfkeras")
class Mixup(Augmentation):
    """Blends each sample with another of the batch, and their labels with the same share.

    The sample's own share is max(s, 1 - s), s ~ Beta(alpha, alpha), drawn for each sample;
    its partner is the sample at its place in a random permutation of the batch (of the
    replica), perhaps itself.

    Labels that are not known stay out of it. With m the weight of a label (0: unknown),
    y the label and s the own share:

        mixed weight = s * m1 + (1 - s) * m2
        mixed label = (s * m1 * y1 + (1 - s) * m2 * y2) / mixed weight, 0 where that is 0

    so that weight * cross-entropy(label) = s * m1 * CE(y1) + (1 - s) * m2 * CE(y2): each
    known label counts with its clip's share, and the unknown ones add nothing to the
    gradient, as without mixup. Where both are known this is the usual mixup; where both
    are unknown the weight is 0; where only one is known the label keeps its value and the
    weight is its clip's share. That a tag absent from one clip might be in the other, where
    it is unknown, is thereby not denied with full weight, and not guessed at either.
    Class weights may stand in the weights: they then follow their labels.

    Args:
        alpha: Of the Beta distribution, above 0; the paper's is 0.3.
        seed: Of the draws; None takes one from Python's generator.
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        A list of three: (batch, ...) any samples; labels (batch, classes); weights
        (batch, classes).

    Output shape:
        As the input.

    Raises:
        ConfigError: alpha is not above 0.

    Example:
        >>> spectrogram, labels, mask = Mixup(0.3)([spectrogram, labels, mask], training=True)

    Reference:
        Zhang et al., "mixup: Beyond empirical risk minimization", arXiv 1710.09412.
    """

    def __init__(self, alpha: float = 0.3, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        if not 0.0 < alpha < float("inf"):
            raise ConfigError(f"Mixup: alpha must be a number above 0. Received: {alpha!r}.")
        self.alpha = alpha

    trace_receptive_field = unchanged

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> list[Any]:
        samples, labels, weights = inputs
        if not training:
            return [samples, labels, weights]
        batch = ops.shape(samples)[0]
        partner = ops.argsort(self.uniform((batch,)))
        share = self._shares(batch)[:, None]
        own = share * ops.cast(weights, "float32")
        other = (1.0 - share) * ops.cast(ops.take(weights, partner, axis=0), "float32")
        own_label = ops.cast(labels, "float32")
        other_label = ops.take(own_label, partner, axis=0)
        weight = own + other
        label = (own * own_label + other * other_label) / ops.maximum(weight, TINY)
        return [
            self._mix(samples, ops.take(samples, partner, axis=0), share),
            ops.cast(label, labels.dtype),
            ops.cast(weight, weights.dtype),
        ]

    def _mix(self, samples: Any, others: Any, share: Any) -> Any:
        shape = (-1, *(1 for _ in samples.shape[1:]))
        share = ops.cast(ops.reshape(share, shape), samples.dtype)
        return samples * share + others * (1.0 - share)

    def _shares(self, batch: Any) -> Any:
        """(batch,) draws of max(s, 1 - s), s ~ Beta(alpha, alpha).

        By Student's t with 2 * alpha degrees of freedom in polar form (Bailey, "Polar
        generation of random variates with the t-distribution", 1994; Devroye, "Random
        variate generation in one line of code", 1996). `keras.random.beta` divides gamma
        draws that may both be 0, and XLA cannot compile it on TensorFlow.
        """
        rest = ops.power(self.uniform((batch,)), 1.0 / self.alpha)
        angle = 6.283185307179586 * self.uniform((batch,))
        spread = (1.0 - rest) * ops.square(ops.cos(angle))
        return 0.5 + 0.5 * ops.sqrt(spread / ops.maximum(rest + spread, TINY))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}
