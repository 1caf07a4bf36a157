"""Magnitude pruning: the smallest weights of the kernels become zero, more each epoch."""

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
    """Part of the final pruned share that holds in an epoch, counted from 0.

    "linear": epoch / length. "exponential": exp(-(1 - epoch / length)^3). Both end at 1.
    """
    done = min(epoch / length, 1.0)
    return done if kind == "linear" else math.exp(-((1.0 - done) ** 3))


def final_share(config: TrainConfig, variables: list[Any]) -> float:
    """Share of the weights in kernels that ends as zero.

    Args:
        config: With prune_share, or prune_to_parameters: a number of parameters that are
            left, of all trainable variables together.
        variables: The trainable variables of the model.

    Raises:
        ConfigError: So many parameters cannot be left.
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
    """Prunes a model that is trained, epoch by epoch.

    Masks are made anew after each epoch from the magnitudes of that moment. What is zero
    stays zero, for masked weights do not train, and zero is the smallest magnitude. In
    the first epoch nothing is pruned: kernels that start as zeros have no magnitudes yet.

    Args:
        model: Made with `prune=True`.
        config: Share, scope, ramp and epochs.
    """

    def __init__(self, model: TrainingModel, config: TrainConfig):
        self.model = model
        self.config = config
        self.share = final_share(config, model.tagger.trainable_variables)

    def prune_for(self, epoch: int) -> None:
        """Set masks and weights as they must be in an epoch, counted from 0."""
        share = self.share * ramp(self.config.prune_ramp, epoch, self.config.prune_until_epoch)
        kernels = [kernel.numpy() for kernel, _ in self.model.masks]
        masks = magnitude_masks(kernels, share, self.config.prune_scope)
        for (_, variable), mask in zip(self.model.masks, masks, strict=True):
            variable.assign(mask)
        self.model.apply_masks()


def magnitude_masks(
    kernels: list[NDArray[Any]], share: float, scope: str
) -> list[NDArray[np.float32]]:
    """Masks, 0 for the smallest magnitudes and 1 for the others.

    Args:
        kernels: The weights.
        share: Share to mask.
        scope: "global": that share of all weights together, rounded to whole weights;
            "layer": of each kernel, rounded up, so that all together lose the share at
            least.
    """
    if scope == "layer":
        # The margin keeps 0.55 * 100 = 55.00000000000001 and its like at 55.
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
    """Write how many weights of each kernel are not zero, as JSON.

    Returns:
        Parameters that are left: the weights of kernels that are not zero, and all of the
        other trainable variables.
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
    """Paths of the kernels in which pruning left nothing."""
    kernels = (v for v in model.trainable_variables if is_kernel(v))
    return [v.path for v in kernels if not np.any(v.numpy())]


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))
