"""Mixup for partially labelled tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.layers.augmentation import Augmentation, unchanged

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
