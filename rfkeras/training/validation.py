"""The figures of an epoch, by one worker or by several together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.data.bad_files import BadFile
from rfkeras.data.parts import rows_of
from rfkeras.training.build import build_tagger, dtype_policy
from rfkeras.training.inputs import Inputs
from rfkeras.training.scoring import predict_scores, validation_figures
from rfkeras.training.snapshot import copy_values, state_variables
from rfkeras.training.workers import Workers

SPLIT = "validation"


class Validation:
    """Scores the validation split with the weights that a tagger has at the moment.

    Each of several workers scores some of the clips, by itself; the chief puts the scores
    together and tells the others the figures, so that all stop training at the same epoch.

    Args:
        tagger: The tagger that is trained.
        inputs: The data.
        workers: Who trains.

    Raises:
        DatasetError: Too many files cannot be read.
    """

    def __init__(self, tagger: keras.Model, inputs: Inputs, workers: Workers):
        self.inputs = inputs
        self.workers = workers
        split = inputs.dataset.split(SPLIT)
        # The parts are of workers, not of their replicas.
        self._rows = rows_of(split, workers.part)
        self._data = inputs.evaluation(SPLIT, workers.part) if len(self._rows) else None
        self._trained = self._local = tagger
        if workers.count > 1:
            # A model of the strategy would wait for the other workers at each batch.
            with dtype_policy(inputs.config.precision):
                self._local = build_tagger(inputs.config, inputs)
            self._local.jit_compile = False

    def __call__(self) -> dict[str, float]:
        """The figures, by their names in log.csv.

        Raises:
            DatasetError: Too many files cannot be read.
            WorkerLost: Another worker is gone.
        """
        if self._local is not self._trained:
            copy_values(state_variables(self._trained), state_variables(self._local))
        own = self._scores()
        width = 1 + len(self.inputs.dataset.label_names)
        parts = self.workers.exchange(own.tobytes())
        rows, scores = _split_rows(np.concatenate([_table(part, width) for part in parts]))
        self._gather_bad_files()
        labels, mask = self.inputs.truth(SPLIT, rows)
        task = self.inputs.dataset.task
        figures: dict[str, float] = self.workers.agree(
            lambda: validation_figures(scores, labels, mask, task)
        )
        return figures

    def _scores(self) -> NDArray[np.float64]:
        """(clips, 1 + classes): row in the split, and the scores, of the worker's clips."""
        if self._data is None:
            return np.zeros((0, 1 + len(self.inputs.dataset.label_names)))
        batches, plan = self._data
        try:
            scores = predict_scores(self._local, batches, plan)
        except tf.errors.OpError:
            self.inputs.bad_files.raise_if_stopped()  # tf.data hides the cause
            raise
        rows = self._rows[plan.kept_rows]
        return np.column_stack([rows.astype(np.float64), scores])

    def _gather_bad_files(self) -> None:
        """Files that any worker could not read, into the list of the chief."""
        if self.workers.count == 1:
            return
        log = self.inputs.bad_files
        for files in self.workers.collect([asdict(file) for file in log.files]):
            log.record_all(BadFile(**file) for file in files)


def _table(message: bytes, width: int) -> NDArray[np.float64]:
    return np.frombuffer(message, np.float64).reshape(-1, width)


def _split_rows(table: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return table[:, 0].astype(np.int64), table[:, 1:]
