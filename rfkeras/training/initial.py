"""What a model is given before its first step."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from rfkeras.config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.files import write_text
from rfkeras.initial_weights import file_of
from rfkeras.training.build import build_tagger
from rfkeras.training.inputs import Inputs
from rfkeras.training.progress import say
from rfkeras.training.run_folder import RunFolder
from rfkeras.transfer import Transferred, load_initial
from zoo.download import sha256_of


def prepare(
    tagger: keras.Model, config: TrainConfig, inputs: Inputs, folder: RunFolder
) -> None:
    """Load the weights to start from, and set what the training data tells.

    The mean and deviation of the mel bands are those of the weights, whose trunk expects
    them; the training data tells them where the weights have none. So with prior_bias:
    a classifier that was loaded keeps its own.

    Raises:
        ConfigError: prior_bias for a model whose classifier has no such bias.
    """
    classifier = [layer for layer in tagger.layers if layer.name == "classifier_bn"]
    if config.prior_bias and not classifier:
        raise ConfigError(
            f"prior_bias needs a model whose classifier ends in batch normalisation; "
            f"{config.model!r} does not: leave prior_bias off."
        )
    start = None
    if config.init_weights is not None:
        start = load_initial_weights(tagger, config, inputs, folder)
    if start is None or not start.has_frontend:
        say("Computing mean and deviation of every mel band over the training clips")
        waveforms = (batch[0] for batch in inputs.training(0, inputs.steps_per_epoch))
        tagger.get_layer("frontend").adapt(waveforms)
    if config.prior_bias and (start is None or not start.has_head):
        split = inputs.dataset.split("train")
        bias = first_logits(split.labels, split.mask, inputs.dataset.task)
        classifier[0].beta.assign(bias)


def first_logits(labels: NDArray[Any], mask: NDArray[Any], task: str) -> NDArray[np.float32]:
    """Logits of a model that knows the tags' frequencies alone.

    Multi-label: the log-odds of each tag among its known labels; single-label: the log of
    each class's share. Smoothed by half a clip.
    """
    positives = (labels * mask).sum(axis=0) + 0.5
    if task == "single_label":
        return np.asarray(np.log(positives / positives.sum()), np.float32)
    negatives = ((1 - labels) * mask).sum(axis=0) + 0.5
    return np.asarray(np.log(positives / negatives), np.float32)


def load_initial_weights(
    tagger: keras.Model, config: TrainConfig, inputs: Inputs, folder: RunFolder
) -> Transferred:
    """Give a model the weights that the configuration names, and write down which they are.

    Args:
        tagger: The model of the run, changed in place.
        config: With init_weights.
        inputs: The data, whose classes may be others than those of the weights.
        folder: The run's folder.

    Raises:
        ConfigError: There are no such weights.
        CheckpointError: They cannot be read, or are of another network.
    """
    weights = str(config.init_weights)
    path = file_of(weights, config.model)
    found = load_initial(tagger, path, lambda classes: build_tagger(config, inputs, classes))
    record = {
        "weights": weights,
        "file": str(path),
        "sha256": sha256_of(path),
        "fresh_layers": list(found.fresh),
        "mel_statistics": "of the weights" if found.has_frontend else "of the training data",
    }
    write_text(folder.initial_weights, json.dumps(record, indent=2) + "\n")
    classes = "the classifier too" if found.has_head else "a new classifier for other classes"
    say(f"Starting from {weights}, {classes}")
    if found.fresh:
        say(f"Untrained at first: {', '.join(found.fresh)}")
    return found
