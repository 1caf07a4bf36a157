"""Write the engine files of the pretrained weights in the package.

`python -m tools.package_engines`

An engine file lets `rfkeras tag` start without TensorFlow. It is compared with the model, and
the index gets its checksum. An existing file that gives the results of the model is kept; to
write it again, remove it. Run the command after publishing weights.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import CheckpointError, RFKerasError
from rfkeras.export.onnx import write_engine
from rfkeras.inference import ChunkTagger, OnnxTagger, StreamTagger
from zoo.pretrained import FOLDER, PretrainedWeights, read_index, sha256_of, write_index

TOLERANCE = 1e-5  # of every score, and relative to the largest value of an embedding


def trial_audio(rate_hz: int, channels: int, seconds: float = 41.0) -> NDArray[np.float32]:
    """Return noise of changing colour and level, with a pause: (samples, channels)."""
    rng = np.random.default_rng(0)
    samples = round(seconds * rate_hz)
    noise = rng.normal(size=(samples, channels))
    smooth = np.cumsum(noise, axis=0) * 0.01
    smooth -= smooth.mean(axis=0)
    time = np.linspace(0, 1, samples)[:, None]
    audio = (time * noise * 0.1 + (1 - time) * smooth * 0.1) * np.abs(np.sin(20 * time))
    audio[samples // 3 : samples // 2] = 0
    return np.clip(audio, -1, 1).astype(np.float32)


def largest_difference(one: ChunkTagger, other: ChunkTagger) -> float:
    """Return the largest difference between the results of two taggers of one model.

    Scores of the clip and of its frames are compared as they are, embeddings relative to their
    largest value.
    """
    audio = trial_audio(one.sample_rate_hz, one.channels)
    audio = audio[:, 0] if one.channels == 1 else audio
    results = [tagger.run([audio], frames=True, embeddings=True) for tagger in (one, other)]
    differences = []
    for name in ("scores", "frame_scores", "embedding", "frame_embeddings"):
        mine, its = (getattr(result, name) for result in results)
        if mine.shape != its.shape:
            raise CheckpointError(f"{name} has shape {mine.shape} instead of {its.shape}.")
        size = np.abs(its).max() if "embedding" in name else 1.0
        differences.append(float(np.abs(mine - its).max() / size))
    return max(differences)


def add_engine(entry: PretrainedWeights, folder: Path) -> PretrainedWeights:
    """Write and check the engine file of pretrained weights; return their new entry.

    Raises:
        CheckpointError: Its results differ from the model's.
    """
    from zoo.pretrained import load_model

    source = folder / entry.file
    path = source.with_suffix(".onnx")
    model = load_model(source)
    if not path.is_file():
        write_engine(model, path)
    difference = largest_difference(OnnxTagger(path), StreamTagger(model))
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"{path} differs from the model by {difference:.1e}. Remove it and try again."
        )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, largest difference {difference:.1e}")
    return replace(entry, engine_sha256=sha256_of(path))


def main(folder: Path = FOLDER) -> int:
    """Write all engine files of the package; 1 if one differs."""
    try:
        entries = [
            add_engine(entry, folder)
            if entry.url is None
            else replace(entry, engine_sha256=None)
            for entry in read_index(folder)
        ]
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    write_index(tuple(entries), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
