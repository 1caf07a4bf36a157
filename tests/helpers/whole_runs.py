"""Whole runs of a tiny network in this process, stepped eagerly: tracing takes longer."""

import json
from unittest import mock

import keras
import numpy as np

from rfkeras.config.resolve import resolve
from rfkeras.training import run
from rfkeras.training.run_dir import RunFolder, create_run_folder

FLAGS = {
    "dataset": "folder",
    "width": 4,
    "rho": 0,
    "blocks": "1,0,0",
    "allow_rf_change": True,
    "epochs": 2,
    "batch_size": 8,
    "train_share": 0.5,
    "excerpt_seconds": 0.5,
    "window_seconds": 1.0,
    "learning_rate": 0.01,
    "devices": "cpu",
    "export": False,
}


class AtEpoch(keras.callbacks.Callback):
    """Calls a function with the model and the epoch, counted from 1, before each epoch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_begin(self, epoch, logs=None):
        self.function(self.model, epoch + 1)


def configuration(data, **options):
    """Return the configuration of a run on a data set, with options besides FLAGS."""
    flags = {**FLAGS, "data_dir": str(data), **options}
    return resolve({name: value for name, value in flags.items() if value is not None})


def eager_model(inputs, strategy):
    """Return the model of a run that takes its steps eagerly."""
    model = BUILD(inputs, strategy)
    model.run_eagerly = True
    return model


BUILD = run.build_training_model


def fit(config, folder, at_epoch=None, resume=False):
    """Fit a run in a folder, which is created if it does not exist."""
    if not resume:
        create_run_folder(config, folder)
    patches = [mock.patch.object(run, "build_training_model", eager_model)]
    if at_epoch is not None:
        patches.append(
            mock.patch.object(run, "TensorBoardLogger", return_value=AtEpoch(at_epoch))
        )
    for patch in patches:
        patch.start()
    try:
        return run.fit(config, RunFolder(folder), resume)
    finally:
        for patch in patches:
            patch.stop()


def snapshot(path):
    """Return the variables of a snapshot by path, in their order."""
    with np.load(path) as file:
        names = [name for name, _ in json.loads(str(file["meta"]))["variables"]]
        return {name: file[f"v{i}"] for i, name in enumerate(names)}


def weights(model):
    """Return the trainable weights of a model."""
    return [variable.numpy() for variable in model.trainable_variables]


def equal(one, other):
    """Return whether two lists of arrays are equal."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
