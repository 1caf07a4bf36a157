"""Layers that act only in training: augmentation and dropout.

Augmentation layers draw random numbers for each sample, always in float32, and differently on
each replica of a distributed step. The state of the seed
generator is one of the layer's variables. Outputs have the dtypes of the inputs under every
dtype policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.layers.composite import check_map
from rfkeras.utils.keras_workarounds import ReplicaSeedGenerator

TINY = 1e-30  # avoids a division by 0


def unchanged(layer: Any, inputs: Any, call: Any) -> Any:
    """Return the inputs: `trace_receptive_field` for layers that do nothing at inference.

    Each class assigns it next to its own `call`, because it is not inherited by subclasses
    that override `call`. See `rfkeras.rf.register_rule`.
    """
    return inputs


class Augmentation(keras.layers.Layer):
    """Base class of the augmentation layers: holds the seed, keeps shapes and dtypes."""

    def __init__(self, seed: int | None = None, **kwargs: Any):
        # A mixed policy must not round labels and shares to its compute dtype.
        super().__init__(**{"autocast": False, **kwargs})
        self.seed = seed
        self.seed_generator = ReplicaSeedGenerator(seed)

    def uniform(self, shape: Sequence[Any]) -> Any:
        """Draw float32 numbers in [0, 1)."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def build(self, input_shape: Any) -> None:
        """Create nothing: the only state is the seed."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def _whole(uniform: Any, count: Any) -> Any:
    """Map numbers in [0, 1) to integers from 0 to count - 1."""
    count = ops.cast(count, "int32")
    number = ops.cast(ops.floor(uniform * ops.cast(count, "float32")), "int32")
    return ops.minimum(number, count - 1)  # a product just under count can round up to it


@keras.saving.register_keras_serializable(package="rfkeras")
class RandomTimeRoll(Augmentation):
    """Rolls each spectrogram circularly along time, by a uniformly drawn number of frames.

    Args:
        seed: Seed of the draws; None takes one from Python's generator.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        Same as the input.

    Example:
        >>> x = np.zeros((8, 50, 20, 1), "float32")
        >>> RandomTimeRoll(seed=1)(x, training=True).shape
        TensorShape([8, 50, 20, 1])
    """

    trace_receptive_field = unchanged

    def build(self, input_shape: Any) -> None:
        check_map(self, input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        batch, time, frequency, channels = ops.shape(inputs)
        shift = _whole(self.uniform((batch, 1)), time)
        frames = ops.arange(time, dtype="int32")[None, :]
        source = ops.mod(frames - shift, time)
        rows = ops.arange(batch, dtype="int32")[:, None] * time + source
        # Gather whole frames, so that the indices are not copied for every band.
        flat = ops.reshape(inputs, (batch * time, frequency * channels))
        rolled = ops.take(flat, ops.reshape(rows, (-1,)), axis=0)
        return ops.reshape(rolled, (batch, time, frequency, channels))


@keras.saving.register_keras_serializable(package="rfkeras")
class SpecAugment(Augmentation):
    """Sets random stripes of each spectrogram to zero, along time and along frequency.

    Zero is the mean of every band of a standardised spectrogram. The width of a stripe is
    drawn from 0 to the maximum (inclusive, and at most the size of the map), then its place
    inside the map. All channels have the same stripes.

    kapre has a layer of the same name that also works per sample. It accepts only one
    channel, fails on maps shorter than the widest stripe, never draws an empty stripe,
    loops over the samples, and draws from TensorFlow's global generator, whose state is not
    saved in checkpoints.

    Args:
        time_masks: Number of stripes along time.
        time_mask_frames: Maximum width of these stripes in frames.
        frequency_masks: Number of stripes along frequency.
        frequency_mask_bands: Maximum width of these stripes in bands.
        seed: Seed of the draws; None takes one from Python's generator.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels).

    Output shape:
        Same as the input.

    Raises:
        ConfigError: A number is negative or not an integer.

    Example:
        >>> x = np.ones((8, 50, 20, 1), "float32")
        >>> SpecAugment(time_mask_frames=5, seed=1)(x, training=True).shape
        TensorShape([8, 50, 20, 1])

    Reference:
        Park et al., "SpecAugment", arXiv 1904.08779 (both kinds of masks, without warping).
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

    def build(self, input_shape: Any) -> None:
        check_map(self, input_shape)

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
        """Return (batch, size) booleans: True outside all of `count` random stripes."""
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
    """Makes each waveform louder or softer by a uniformly drawn number of decibels.

    Use it before the front-end. With an absolute floor (`fixed_floor`), the gain of the
    waveform changes which values are above the floor, while adding decibels to the finished
    spectrogram would only shift them. Samples can leave [-1, 1]; they are not clipped.

    Args:
        gain_db: Maximum gain in either direction, in dB.
        seed: Seed of the draws; None takes one from Python's generator.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, samples) or (batch, samples, channels).

    Output shape:
        Same as the input.

    Raises:
        ConfigError: gain_db is negative or not finite.

    Example:
        >>> RandomGain(6.0, seed=1)(np.zeros((8, 22050), "float32"), training=True).shape
        TensorShape([8, 22050])
    """

    def __init__(self, gain_db: float = 6.0, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        if not isinstance(gain_db, int | float) or not 0.0 <= gain_db < float("inf"):
            raise ConfigError(
                f"RandomGain: gain_db must be a number of at least 0. Received: {gain_db!r}."
            )
        self.gain_db = gain_db

    trace_receptive_field = unchanged

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        _check_float("RandomGain", "waveforms", inputs)
        shape = (ops.shape(inputs)[0], *(1 for _ in inputs.shape[1:]))
        gain_db = self.gain_db * (2.0 * self.uniform(shape) - 1.0)
        return inputs * ops.cast(ops.power(10.0, gain_db / 20.0), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain_db": self.gain_db}


@keras.saving.register_keras_serializable(package="rfkeras")
class Mixup(Augmentation):
    """Blends each sample with another of the batch, and their labels in the same proportion.

    The sample's own share is max(s, 1 - s) with s ~ Beta(alpha, alpha), drawn per sample.
    Its partner is the sample at its place in a random permutation of the batch (of the
    replica), which can be the sample itself.

    Unknown labels are handled exactly. With m the weight of a label (0: unknown), y the
    label and s the sample's own share:

        mixed weight = s * m1 + (1 - s) * m2
        mixed label = (s * m1 * y1 + (1 - s) * m2 * y2) / mixed weight, 0 where that is 0

    so that weight * cross-entropy(label) = s * m1 * CE(y1) + (1 - s) * m2 * CE(y2). Each
    known label counts with the share of its clip, and unknown labels add nothing to the
    gradient, as without mixup. If both labels are known, this is the usual mixup. If both
    are unknown, the weight is 0. If only one is known, the label keeps its value and its
    weight is the share of its clip. So a tag that is absent from one clip and unknown in
    the other counts as absent only with the share of the first. Weights may include class
    weights, which then follow their labels.

    Args:
        alpha: Parameter of the Beta distribution, above 0; 0.3 in the paper.
        seed: Seed of the draws; None takes one from Python's generator.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of three tensors of floats: samples (batch, ...), labels (batch, classes) and
        weights (batch, classes). Labels may also have the shape (batch,), one number per
        clip, or more dimensions. Weights have the shape of the labels, or (batch,).

    Output shape:
        Same as the input.

    Raises:
        ConfigError: alpha is not above 0, or the input is not of this kind. Class numbers
            are an example: they cannot be blended, so encode them as one-hot vectors.

    Example:
        >>> x, labels = np.zeros((8, 50, 20, 1), "float32"), np.zeros((8, 3), "float32")
        >>> x, labels, mask = Mixup(0.3)([x, labels, np.ones_like(labels)], training=True)

    Reference:
        Zhang et al., "mixup: Beyond empirical risk minimization", arXiv 1710.09412.
    """

    def __init__(self, alpha: float = 0.3, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        if not isinstance(alpha, int | float) or not 0.0 < alpha < float("inf"):
            raise ConfigError(f"Mixup: alpha must be a number above 0. Received: {alpha!r}.")
        self.alpha = alpha

    trace_receptive_field = unchanged

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> list[Any]:
        samples, labels, weights = _three(inputs)
        if not training:
            return [samples, labels, weights]
        batch = ops.shape(samples)[0]
        partner = ops.argsort(self.uniform((batch,)))
        share = self._shares(batch)
        share_of_weight = _along(share, weights)
        own = share_of_weight * ops.cast(weights, "float32")
        other = (1.0 - share_of_weight) * ops.cast(
            ops.take(weights, partner, axis=0), "float32"
        )
        weight = own + other
        own_label = ops.cast(labels, "float32")
        other_label = ops.take(own_label, partner, axis=0)
        if len(weights.shape) == 1:  # one weight per clip
            own, other = _along(own, labels), _along(other, labels)
        label = (own * own_label + other * other_label) / ops.maximum(own + other, TINY)
        share_of_sample = ops.cast(_along(share, samples), samples.dtype)
        others = ops.take(samples, partner, axis=0)
        return [
            samples * share_of_sample + others * (1.0 - share_of_sample),
            ops.cast(label, labels.dtype),
            ops.cast(weight, weights.dtype),
        ]

    def _shares(self, batch: Any) -> Any:
        """Draw max(s, 1 - s) with s ~ Beta(alpha, alpha) for each sample, (batch,).

        Uses Student's t with 2 * alpha degrees of freedom in polar form (Bailey, "Polar
        generation of random variates with the t-distribution", 1994; Devroye, "Random
        variate generation in one line of code", 1996). `keras.random.beta` divides gamma
        draws that can both be 0, and XLA cannot compile it on TensorFlow.
        """
        rest = ops.power(self.uniform((batch,)), 1.0 / self.alpha)
        angle = 6.283185307179586 * self.uniform((batch,))
        spread = (1.0 - rest) * ops.square(ops.cos(angle))
        return 0.5 + 0.5 * ops.sqrt(spread / ops.maximum(rest + spread, TINY))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}


def _along(values: Any, like: Any) -> Any:
    """Reshape (batch,) to (batch, 1, ...) with as many dimensions as another tensor."""
    return ops.reshape(values, (-1, *(1 for _ in like.shape[1:])))


def _three(inputs: Any) -> tuple[Any, Any, Any]:
    """Return samples, labels and weights, and reject what `Mixup` cannot blend."""
    if not isinstance(inputs, list | tuple) or len(inputs) != 3:
        count = len(inputs) if isinstance(inputs, list | tuple) else 1
        raise ConfigError(
            "Mixup needs a list of three tensors: samples, labels and weights. "
            f"Received: {count}."
        )
    samples, labels, weights = inputs
    for name, values in zip(("samples", "labels", "weights"), inputs, strict=True):
        if len(values.shape) < 1:
            raise ConfigError(f"Mixup: {name} must have a batch axis. Received: shape ().")
        if name != "weights":
            _check_float("Mixup", name, values)
    one_per_clip = len(weights.shape) == 1
    sizes = [tuple(values.shape[1:]) for values in (labels, weights)]
    known = all(size is not None for shape in sizes for size in shape)
    if not one_per_clip and (
        len(weights.shape) != len(labels.shape) or (known and sizes[0] != sizes[1])
    ):
        raise ConfigError(
            "Mixup: weights must have the shape of the labels, or (batch,). Received: labels "
            f"{tuple(labels.shape)}, weights {tuple(weights.shape)}."
        )
    return samples, labels, weights


def _check_float(layer: str, name: str, values: Any) -> None:
    dtype = keras.backend.standardize_dtype(values.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise ConfigError(
            f"{layer}: {name} must be floating-point numbers, because they are multiplied by "
            f"fractions. Received: {dtype}."
        )


@keras.saving.register_keras_serializable(package="rfkeras")
class ReplicaDropout(keras.layers.Layer):
    """Dropout that drops different values on each replica.

    In training, sets a random share of the values to 0 and scales the others up. Under a
    `tf.distribute` strategy, `keras.layers.Dropout` drops the same positions on every
    replica; this layer drops different ones.

    Args:
        rate: Share to drop, at least 0 and below 1. The other values are divided by
            1 - rate.
        seed: Seed of the draws. Layers with equal seeds draw the same numbers, so leave it
            None in a network; `keras.utils.set_random_seed` makes results repeatable.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        Any.

    Output shape:
        Same as the input.

    Raises:
        ConfigError: rate is out of range.

    Example:
        >>> ReplicaDropout(0.5)(np.ones((8, 20), "float32"), training=True).shape
        TensorShape([8, 20])
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not 0.0 <= rate < 1.0:
            raise ConfigError(
                "dropout must be at least 0 and below 1: the share of values dropped in "
                f"training; 0 for none. Received: {rate!r}."
            )
        self.rate = rate
        self.seed = seed
        self.seed_generator = ReplicaSeedGenerator(seed)
        self.supports_masking = True

    trace_receptive_field = unchanged

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or self.rate == 0:
            return inputs
        return keras.random.dropout(inputs, self.rate, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
