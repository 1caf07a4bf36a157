"""Tag damaged files with a small model."""

import contextlib
import io
from collections import Counter

import keras
import numpy as np

from rfkeras.audio.find import find_audio
from rfkeras.inference import StreamTagger
from rfkeras.inference.batch import Display, run_batch
from tests.helpers.taggers import zoo_tagger

CHUNK_SECONDS = 2.0


def small_tagger(decoder):
    keras.utils.set_random_seed(0)
    model = zoo_tagger("resnet_rf_tiny", width=4, rho=1)
    return StreamTagger(model, CHUNK_SECONDS, decoder)


def tag_files(tagger, paths, write):
    """Tag files; return the summary of the batch."""
    silent = contextlib.redirect_stderr(io.StringIO())
    with silent, Display(len(paths), quiet=True) as display:
        files = find_audio(paths)
        return run_batch(tagger, files, write, display)


class EveryNth:
    """Tags every n-th file.

    Attributes:
        counts: Number of files per outcome: "scores" or "error".
    """

    def __init__(self, n):
        self.counts = Counter()
        self._n, self._seen = n, 0
        self._tagger = small_tagger("isolated")

    def __call__(self, path):
        self._seen += 1
        if self._seen % self._n == 0:
            tag_files(self._tagger, [path], self._write)

    def _write(self, outcome):
        if outcome.error is None:
            assert np.isfinite(outcome.result.scores).all()
        self.counts["scores" if outcome.error is None else "error"] += 1
