"""Script: the work of a process until its first result.

`python -m benchmarks.startup_sides FUNCTION [ARGUMENT ...]` calls one of the functions below.
It is a separate file because its imports are part of what is measured.
"""

from __future__ import annotations

import os
import sys


def create_model() -> None:
    """Build the default network."""
    import zoo

    zoo.create_model("resnet_rf", 20)


def first_batch(folder: str, width: str, seconds: str) -> None:
    """Train for one step on a folder of audio, from Python."""
    import zoo
    from rfkeras import datasets
    from rfkeras.audio import AudioFormat
    from rfkeras.training.losses import MaskedBinaryCrossentropy
    from rfkeras.training.optimizer import Adam
    from rfkeras.training.step import TrainingModel

    split = datasets.load_dataset("folder", data_dir=folder, test_share=0.2).splits["train"]
    batches = datasets.training_batches(
        split,
        AudioFormat(22050),
        excerpt_seconds=float(seconds),
        batch_size=4,
        seed=0,
        steps_per_epoch=1,
        total_steps=1,
        bad_files=datasets.BadFileLog(None, total_files=len(split)),
    )
    tagger = zoo.create_model("resnet_rf", split.labels.shape[1], width=int(width))
    model, optimizer = TrainingModel(tagger), Adam(1e-4)
    model.compile(optimizer, MaskedBinaryCrossentropy(), jit_compile=False)
    # Like `rfkeras train`: creating variables inside the step would trace it twice.
    optimizer.build(tagger.trainable_variables)
    model.fit(batches, verbose=0)


def first_scores(path: str) -> None:
    """Score a file with pretrained weights, from Python."""
    import rfkeras
    from rfkeras.inference import StreamTagger

    StreamTagger(rfkeras.load_model("resnet_rf_tiny")).run_file(path)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    globals()[sys.argv[1]](*sys.argv[2:])
