"""The score of a clip, as it is deployed: what `rfkeras tag` gives for the whole file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.excerpts import WHOLE, WorkerPart, part_of
from rfkeras.datasets.packed import PackedSplit
from rfkeras.datasets.packed_pipeline import whole_clips
from rfkeras.errors import AudioError, ConfigError
from rfkeras.evaluation.metrics import probabilities
from rfkeras.inference.keras_tagger import StreamTagger
from rfkeras.inference.stream import BLOCK_SECONDS, file_blocks
from rfkeras.layers import model_outputs
from rfkeras.training.data import Inputs
from rfkeras.utils.model_graph import layer_graph

# Files whose scores are computed at the same time. Each needs the memory of one chunk.
_MOST_FILES = 4


def model_task(model: Any) -> str:
    """Return the task of the model's outputs."""
    return model_outputs(model).task


class ClipScorer:
    """Scores the clips of a split as `rfkeras tag` scores their files.

    A clip's score is the sigmoid (or softmax) of the logits that the model's head pools over
    the whole clip. Clips of the commonest length are computed in batches, unless they are too
    long for a single pass. All others are computed one by one: in chunks, with constant memory,
    if the model has frames (see `rfkeras.inference.StreamTagger`), otherwise in a single pass.

    A model that takes audio of one length only has no score for a longer file. For such models
    the score is the mean over consecutive windows.

    Args:
        model: Keras model from waveform to logits or scores.
        inputs: The data.
        split: Name of the split.
        part: The part of the clips that this worker scores; it has clips.
        live: Follow later changes of the model's weights, as during training. Otherwise whole
            clips are computed with a folded copy.

    Raises:
        DatasetError: Too many files cannot be read.
    """

    def __init__(
        self,
        model: Any,
        inputs: Inputs,
        split: str,
        part: WorkerPart = WHOLE,
        live: bool = False,
    ):
        self.model = model
        self.inputs = inputs
        self._window_samples = inputs.audio.samples(inputs.config.window_seconds)
        self._outputs = model_outputs(model)
        graph = layer_graph(model)
        shape = None if graph is None else graph.inputs[0].shape
        self._any_length = shape is not None and shape[1] is None
        self._per_clip = len(model.output_shape) == 2
        self._tagger: StreamTagger | None = None
        self._single_pass: Any = None
        if self._any_length:
            try:
                self._tagger = StreamTagger(model, fold=not live)
            except ConfigError:  # no frames
                spec = tf.TensorSpec((1, *graph.inputs[0].shape[1:]), tf.float32)
                self._single_pass = tf.function(
                    lambda batch: self._outputs.scores(model(batch, training=False)),
                    input_signature=[spec],
                    autograph=False,
                )
        self._clips = part_of(inputs.dataset.split(split), part)
        self._batches, self._plan = inputs.evaluation_batches(split, part, self._one_pass())

    def _one_pass(self) -> range | None:
        """Return the lengths in samples of clips that may be computed in batches.

        None: the model only takes windows.
        """
        if not self._any_length:
            return None
        if not self._per_clip:
            return range(0)
        if self._tagger is not None:
            return range(self._tagger.shortest_samples, self._tagger.plan.reserve_samples + 1)
        return range(1, self._window_samples + 1)

    def scores(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Score the clips.

        Returns:
            Rows of the clips that could be read, among those of this worker, and their scores
            (clips, classes).

        Raises:
            DatasetError: Too many files cannot be read.
        """
        plan = self._plan
        with self.inputs.reporting_bad_files():
            if plan.windows:
                windows = predict_windows(self.model, self._batches)
            else:
                windows = np.zeros((0, self.model.output_shape[-1]))
            scores = plan.average(windows, self._whole())
        return plan.kept_rows, scores

    def _whole(self) -> dict[int, NDArray[np.float64]]:
        """Return the scores of the clips without windows by row; record unusable ones."""
        clips, plan, inputs = self._clips, self._plan, self.inputs
        if isinstance(clips, PackedSplit):
            read = whole_clips(
                clips,
                plan.whole,
                inputs.audio,
                decoder=inputs.config.decoder,
                bad_files=inputs.bad_files,
            )
            return {row: self._score([waveform]) for row, waveform in read}

        def score(row: int) -> NDArray[np.float64] | None:
            try:
                return self._score(blocks_of(clips.paths[row], inputs))
            except AudioError as error:
                plan.failed.add(row)
                inputs.bad_files.record(error, "evaluation")
                return None

        rows = [int(row) for row in plan.whole if row not in plan.failed]
        # The first call traces the graph, which threads cannot do at the same time.
        found = {row: score(row) for row in rows[:1]}
        with ThreadPoolExecutor(min(_MOST_FILES, os.cpu_count() or 1)) as pool:
            found |= dict(zip(rows[1:], pool.map(score, rows[1:]), strict=True))
        return {row: value for row, value in found.items() if value is not None}

    def _score(self, blocks: Iterable[Waveform]) -> NDArray[np.float64]:
        if self._tagger is not None:
            return self._tagger.run(blocks).scores.astype(np.float64)
        waveform = np.concatenate(list(blocks))
        scores: NDArray[np.float64] = self._single_pass(waveform[None]).numpy()[0]
        return scores.astype(np.float64)


def blocks_of(path: Any, inputs: Inputs) -> Iterable[Waveform]:
    """Return the waveform of a file in blocks, from the cache if it is there."""
    audio: AudioFormat = inputs.audio
    cached = None if inputs.cache is None else inputs.cache.get((path, audio))
    if cached is not None:
        return [cached]
    return file_blocks(path, audio, audio.samples(BLOCK_SECONDS), inputs.config.decoder)


def predict_windows(model: Any, batches: Any) -> NDArray[np.float64]:
    """Return the scores of windows.

    Args:
        model: Keras model from waveform to logits or scores.
        batches: tf.data set of windows, in full batches.

    Returns:
        (windows, classes), with those that fill up the last batch.
    """
    values = model.predict(batches, verbose=0)
    outputs = model_outputs(model)
    if not outputs.from_logits:
        return np.asarray(values, np.float64)
    return np.asarray(probabilities(values, outputs.task), np.float64)
