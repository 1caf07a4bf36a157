"""SavedModels for TensorFlow Serving: audio in; scores, frames and embeddings out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.export.card import describe, write_assets
from rfkeras.export.serving import write_warmup
from rfkeras.export.signatures import Signatures
from rfkeras.files import ASIDE, naming
from rfkeras.layers import ClipLogits, find_head


def saved_model(
    model: keras.Model,
    path: str | Path,
    labels: Sequence[str] | None = None,
    *,
    card: str | None = None,
    warmup: bool = True,
) -> Path:
    """Write a model's inference graph as a SavedModel.

    The graph holds stock TensorFlow operations only, and neither optimiser nor Python. A model
    of float32 is folded (`rfkeras.fold`), and its weights are constants of the graph, on which
    TensorFlow prepares them for the processor once; one of a reduced precision, and one of
    over 32 MiB, keeps its weights as variables. The signatures:

    - `serving_default`: `waveform`, float32 (batch, samples) for mono and
      (batch, samples, 2) for stereo, batch and length free, at the rate that
      `assets/model.json` names; audio too short for the network is padded with zeros. A
      model without a front-end takes `spectrogram` instead. It returns `scores`, float32
      (batch, classes), the probability of each tag of `assets/labels.txt`: the sigmoid of
      its logit, or the softmax of all where the model's head says that one class excludes
      the others. A model whose head is "frames" returns (batch, frames, classes).
    - `frames`: the same input to `frame_scores`, (batch, frames, classes), and
      `frame_times_s`, (batch, frames), the centre of each frame's window in seconds, the
      same in every row; of a model with a front-end.
    - `embed`: the same input to `embedding`, (batch, features), and `frame_embeddings`,
      (batch, frames, features).
    - `audio_bytes`: `audio`, string (batch,), 16-bit PCM WAV files of any rate from 8 to
      192 kHz, length and number of channels, each for itself; they are mixed and resampled
      in the graph. It returns `scores`, (batch, classes).

    An empty batch, and audio that cannot be read, is an InvalidArgument error. A model
    without a front-end has no `audio_bytes`, one without a `ClipLogits` layer of its own
    only `serving_default`; "signatures_missing" in `assets/model.json` says why. The same
    file says how scores are to be read ("task"), from which score each tag applies
    ("thresholds", null where the highest score decides), and when frames are.

    Args:
        model: A model of the zoo, or one with the same input and a `ClipLogits` output. A
            model without such a head is taken as multi-label.
        path: Folder to make; TensorFlow Serving wants its name to be a version number.
        labels: Tag of each output; by default those kept in the model.
        card: Text about the model in Markdown, to lie beside it as
            `assets/model_card.md`.
        warmup: Put requests beside the model that TensorFlow Serving runs as it starts;
            see `rfkeras.export.serving`.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder exists, or labels and outputs differ in number.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(
            f"{path} exists, and an export overwrites nothing. Remove it first, or choose "
            "another folder: TensorFlow Serving takes the highest number, as in "
            f"{path.parent / '2'}."
        )
    names = tuple(labels) if labels is not None else label_names(model)
    n_classes = model.output_shape[-1]
    if len(names) != n_classes:
        raise ConfigError(f"The model has {n_classes} outputs but {len(names)} labels.")
    path.parent.mkdir(parents=True, exist_ok=True)
    head = model_head(model)
    signatures = Signatures(model, head)
    described = describe(model, head, n_classes, signatures)
    with (
        naming(path),
        tempfile.TemporaryDirectory(ASIDE, ".export-", path.parent) as scratch,
    ):
        assets = write_assets(Path(scratch), names, described, card)
        module = _Inference(signatures.variables, assets)
        aside = Path(scratch) / "saved_model"
        tf.saved_model.save(module, str(aside), signatures=signatures.functions)
        if warmup:
            write_warmup(aside, described)
        aside.replace(path)  # the same folder's neighbour, so nobody sees half of it
    return path


def label_names(model: keras.Model) -> tuple[str, ...]:
    """Tags kept in the model; "class_0", "class_1", ... where it has none."""
    head = find_head(model)
    if head is not None and head.label_names is not None:
        return head.label_names
    return tuple(f"class_{i}" for i in range(model.output_shape[-1]))


def model_head(model: keras.Model) -> ClipLogits:
    """What reads the model's logits: its own head, or a multi-label one if it has none."""
    return find_head(model) or ClipLogits()


class _Inference(tf.Module):
    """What is saved beside the signatures: the variables and the assets.

    The Keras model itself is no attribute, or its layers and its optimiser would be
    tracked and saved too.
    """

    def __init__(self, variables: Sequence[keras.Variable], assets: Sequence[Path]):
        super().__init__(name="rfkeras")
        # TensorFlow tracks what the graphs read; this list keeps it reachable.
        self.model_variables: list[Any] = [variable.value for variable in variables]
        self.assets = [tf.saved_model.Asset(str(path)) for path in assets]
