"""Magnitude pruning: set the smallest kernel weights to zero, more in every epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.training.optimizer import is_kernel
from rfkeras.training.step import TrainingModel
from rfkeras.utils.files import write_text


def ramp(kind: str, epoch: int, length: int) -> float:
    """Return how much of the final share is pruned in an epoch, counted from 0.

    "linear": epoch / length. "exponential": exp(-(1 - epoch / length)^3). Both end at 1.
    """
    done = min(epoch / length, 1.0)
    return done if kind == "linear" else math.exp(-((1.0 - done) ** 3))


def final_share(config: TrainConfig, variables: list[Any]) -> float:
    """Return the share of the kernel weights that is zero at the end.

    Args:
        config: Has prune_share, or prune_to_parameters: the number of non-zero parameters
            over all trainable variables.
        variables: The trainable variables of the model.

    Raises:
        ConfigError: The model cannot be pruned to this number of parameters.
    """
    if config.prune_to_parameters is None:
        return float(config.prune_share or 0.0)
    total = sum(_size(v) for v in variables)
    kernels = sum(_size(v) for v in variables if is_kernel(v))
    target, least = config.prune_to_parameters, total - kernels + 1
    if not least <= target <= total:
        raise ConfigError(
            f"prune_to_parameters must be from {least:,} (only kernels are pruned) to the "
            f"{total:,} parameters of the model. Received: {target:,}."
        )
    return (total - target) / kernels


class Pruner:
    """Prunes a model between the epochs of its training.

    After each epoch the masks are computed again from the current magnitudes. Pruned weights
    stay zero: masked weights do not train, and zero is the smallest magnitude. Nothing is
    pruned in the first epoch, because kernels may start as zeros.

    Args:
        model: Model with `prune=True`.
        config: Has share, scope, ramp and epochs.
    """

    def __init__(self, model: TrainingModel, config: TrainConfig):
        self.model = model
        self.config = config
        self.share = final_share(config, model.tagger.trainable_variables)

    def prune_for(self, epoch: int) -> None:
        """Set the masks for an epoch, counted from 0, and apply them to the weights."""
        share = self.share * ramp(self.config.prune_ramp, epoch, self.config.prune_until_epoch)
        kernels = [kernel.numpy() for kernel, _ in self.model.masks]
        masks = magnitude_masks(kernels, share, self.config.prune_scope)
        for (_, variable), mask in zip(self.model.masks, masks, strict=True):
            variable.assign(mask)
        self.model.apply_masks()


def magnitude_masks(
    kernels: list[NDArray[Any]], share: float, scope: str
) -> list[NDArray[np.float32]]:
    """Return masks that are 0 for the smallest magnitudes and 1 for the others.

    Args:
        kernels: The weights.
        share: Share to mask.
        scope: "global": this share of all weights together, rounded to whole weights.
            "layer": this share of each kernel, rounded up, so that in total at least this
            share is masked.
    """
    if scope == "layer":
        # The margin keeps results such as 0.55 * 100 = 55.00000000000001 at 55.
        counts = [math.ceil(share * kernel.size - 1e-6) for kernel in kernels]
        return [
            _smallest_masked(kernel, count)
            for kernel, count in zip(kernels, counts, strict=True)
        ]
    flat = np.concatenate([kernel.ravel() for kernel in kernels])
    ends = np.cumsum([kernel.size for kernel in kernels])[:-1]
    parts = np.split(_smallest_masked(flat, round(share * flat.size)), ends)
    return [part.reshape(kernel.shape) for part, kernel in zip(parts, kernels, strict=True)]


def _smallest_masked(values: NDArray[Any], count: int) -> NDArray[np.float32]:
    mask = np.ones(values.size, np.float32)
    if count:
        order = np.argpartition(np.abs(values).ravel(), count - 1)
        mask[order[:count]] = 0.0
    return mask.reshape(values.shape)


def write_counts(model: keras.Model, path: Path) -> int:
    """Write the number of non-zero weights of each kernel as JSON.

    Returns:
        Number of remaining parameters: the non-zero kernel weights, and all other trainable
        parameters.
    """
    kernels, others = {}, 0
    for variable in model.trainable_variables:
        if is_kernel(variable):
            nonzero = int(np.count_nonzero(variable.numpy()))
            kernels[variable.path] = {"weights": _size(variable), "nonzero": nonzero}
        else:
            others += _size(variable)
    left = others + sum(counts["nonzero"] for counts in kernels.values())
    total = others + sum(counts["weights"] for counts in kernels.values())
    counts = {"parameters": total, "nonzero": left, "kernels": kernels}
    write_text(path, json.dumps(counts, indent=2) + "\n")
    return left


def empty_kernels(model: keras.Model) -> list[str]:
    """Return the paths of the kernels in which all weights are zero."""
    kernels = (v for v in model.trainable_variables if is_kernel(v))
    return [v.path for v in kernels if not np.any(v.numpy())]


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))
