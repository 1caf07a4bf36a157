"""Models compared on the same clips by a paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfkeras.errors import ConfigError
from rfkeras.evaluation.bootstrap import bootstrap_replicates, percentiles
from rfkeras.evaluation.inputs import FloatArray
from rfkeras.evaluation.metrics import average_precision, mean_of_defined
from rfkeras.evaluation.scores import ClipScores

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    Attributes:
        value: The figure.
        low: Lower bound.
        high: Upper bound.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MeanAveragePrecision:
    """Macro mAP of a group of models that differ in their seeds alone, and its resamples.

    Attributes:
        values: (models,) of each.
        replicates: (samples,) mean over the models on each resample of the clips.
    """

    values: FloatArray
    replicates: FloatArray

    @property
    def mean(self) -> float:
        """Mean over the models."""
        return float(self.values.mean())

    @property
    def interval(self) -> Interval:
        """The mean with its interval, reflected as `bootstrap_intervals` does it."""
        return _reflected(self.mean, self.replicates)

    def minus(self, other: MeanAveragePrecision) -> Interval:
        """This mean less the other one, the resamples paired.

        Both must have been made from the same clips with the same seed.

        Raises:
            ConfigError: They have different numbers of resamples.
        """
        if len(self.replicates) != len(other.replicates):
            raise ConfigError(
                "Only figures with as many resamples can be paired. Received: "
                f"{len(self.replicates)} and {len(other.replicates)}."
            )
        return _reflected(self.mean - other.mean, self.replicates - other.replicates)


def mean_average_precision(
    models: Sequence[ClipScores], samples: int = 1000, seed: int = 0
) -> MeanAveragePrecision:
    """Macro mAP of models on the same clips, the clips resampled for all of them alike.

    The interval says how far the figure hangs on which clips were in the test set; it takes
    the models as they are. How far it hangs on the seed is told by the spread of `values`.

    Args:
        models: The scores of each.
        samples: Number of resamples.
        seed: Of the draws: groups with the same clips and seed have the same resamples.

    Raises:
        ConfigError: No model, or the models were scored on different clips.
    """
    if not models or not all(model.has_clips_of(models[0]) for model in models):
        raise ConfigError(
            "Models can be compared on the same clips only, in the same order and with the "
            "same labels: score them all on the same split of the same data."
        )
    values, replicates = [], []
    for model in models:
        values.append(average_precision(model.scores, model.labels, model.mask).macro)
        precision, _ = bootstrap_replicates(
            model.scores, model.labels, model.mask, samples=samples, seed=seed
        )
        replicates.append([mean_of_defined(row) for row in precision])
    return MeanAveragePrecision(np.array(values), np.mean(replicates, axis=0))


def _reflected(value: float, replicates: FloatArray) -> Interval:
    high, low = 2 * value - percentiles(replicates, CONFIDENCE)
    return Interval(value, float(low), float(high))
