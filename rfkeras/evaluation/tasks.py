"""Of either task: from logits to scores, and from scores to decisions and a loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import ConfigError
from rfkeras.evaluation.inputs import BoolArray, FloatArray, check_scored, check_scores
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL, check_task

# Probabilities are kept this far from 0 and 1 inside a logarithm, as Keras does.
_NEAREST = 1e-7


def probabilities(logits: ArrayLike, task: str) -> FloatArray:
    """Scores in [0, 1] of logits, in float64, so that large logits do not tie.

    The same function as `ClipLogits.scores`, which computes in float32.

    Args:
        logits: (clips, classes).
        task: "multi_label" or "single_label".

    Raises:
        ConfigError: Unknown task.
    """
    values = np.asarray(logits, np.float64)
    if check_task(task) == MULTI_LABEL:
        return np.asarray(np.exp(-np.logaddexp(0.0, -values)))  # 1 / (1 + e^-x), no overflow
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def check_single_label(labels: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.int64]:
    """Class number of each clip, (clips,), of labels with exactly one class a clip.

    Args:
        labels: (clips, classes) of 0 and 1, one 1 in each row.
        mask: (clips, classes) of 1; None means the same.

    Raises:
        ConfigError: A clip has no class, several, or an unknown one.
    """
    checked = check_scored(np.zeros(np.shape(labels)), labels, mask)
    if not checked.mask.all():
        clip = int(np.argmin(checked.mask.all(axis=1)))
        raise ConfigError(
            "A single-label task needs every label known: the mask must be 1 everywhere. "
            f"Received 0 in the mask of {int((~checked.mask).any(axis=1).sum())} clips, the "
            f"first clip {clip}. Leave those clips out, or use task 'multi_label'."
        )
    counts = checked.labels.sum(axis=1)
    if (counts != 1).any():
        clip = int(np.argmax(counts != 1))
        raise ConfigError(
            "A single-label task needs exactly one class a clip. Received "
            f"{int((counts != 1).sum())} clips with another number, the first clip {clip} "
            f"with {int(counts[clip])}. Tags that may occur together are task 'multi_label'."
        )
    return np.asarray(checked.labels.argmax(axis=1), np.int64)


def decide_class(scores: ArrayLike) -> BoolArray:
    """Decisions (clips, classes) with one True in each row: the highest score.

    Among equal scores the class with the lowest number wins, as in `numpy.argmax`.

    Args:
        scores: (clips, classes) finite numbers.

    Raises:
        ConfigError: A shape or value is not allowed.
    """
    values = check_scores(scores)
    decided: BoolArray = np.zeros(values.shape, np.bool_)
    decided[np.arange(len(values)), values.argmax(axis=1)] = True
    return decided


def log_loss(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike, task: str) -> float:
    """The training loss of probabilities.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; single-label: all 1.
        task: "multi_label": binary cross-entropy, the sum over the known labels divided by
            the number of all. "single_label": mean over the clips of the negative logarithm
            of the right class's score.

    Raises:
        ConfigError: Unknown task.
    """
    values = np.clip(np.asarray(scores, np.float64), _NEAREST, 1 - _NEAREST)
    truth = np.asarray(labels)
    if check_task(task) == SINGLE_LABEL:
        return float(np.mean(-np.log(values[truth == 1])))
    losses = -truth * np.log(values) - (1 - truth) * np.log(1 - values)
    return float(np.mean(losses * np.asarray(mask)))
