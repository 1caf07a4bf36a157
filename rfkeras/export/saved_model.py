"""SavedModels for TensorFlow Serving: waveform in, scores of the tags out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.layers import ClipLogits, find_head
from rfkeras.tasks import HALF, MULTI_LABEL

LABELS_FILE = "labels.txt"
CARD_FILE = "model.json"


def saved_model(
    model: keras.Model, path: str | Path, labels: Sequence[str] | None = None
) -> Path:
    """Write a model's inference graph as a SavedModel.

    The graph holds stock TensorFlow operations only, the model's variables, and neither
    optimiser nor Python. Its signature `serving_default` takes `waveform`, float32
    (batch, samples) for mono and (batch, samples, 2) for stereo, batch and length free,
    at the rate that `assets/model.json` names; audio too short for the network is padded
    with zeros. A model without a front-end takes `spectrogram` instead. It returns
    `scores`, float32 (batch, classes), the probability of each tag of
    `assets/labels.txt`: the sigmoid of its logit, or the softmax of all where the model's
    head says that one class excludes the others. `assets/model.json` says which ("task")
    and from which score each tag applies ("thresholds", null where the highest score
    decides). An empty batch is an InvalidArgument error.

    Args:
        model: A model of the zoo, or one with the same input and a `ClipLogits` output. A
            model without such a head is taken as multi-label.
        path: Folder to make; TensorFlow Serving wants its name to be a version number.
        labels: Tag of each output; by default those kept in the model.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder exists, or labels and outputs differ in number.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} exists; choose another folder or remove it first.")
    names = tuple(labels) if labels is not None else label_names(model)
    n_classes = model.output_shape[-1]
    if len(names) != n_classes:
        raise ConfigError(f"The model has {n_classes} outputs but {len(names)} labels.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as scratch:
        assets = _write_assets(Path(scratch), model, names)
        module = _Inference(model, assets)
        aside = Path(scratch) / "saved_model"
        tf.saved_model.save(module, str(aside), signatures=module.serve)
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


def _write_assets(folder: Path, model: keras.Model, names: Sequence[str]) -> list[Path]:
    frontend = find_frontend(model)
    head = model_head(model)
    thresholds = list(head.thresholds or [HALF] * len(names))
    card: dict[str, Any] = {
        "name": model.name,
        "input": model.inputs[0].name,
        "task": head.task,
        "thresholds": thresholds if head.task == MULTI_LABEL else None,
    }
    if frontend is not None:
        shape = model.inputs[0].shape
        card |= {
            "sample_rate_hz": frontend.sample_rate_hz,
            "channels": 1 if len(shape) == 2 else shape[-1],
            "min_samples": frontend.min_samples,
            "frontend": frontend.get_config(),
        }
    labels_path, card_path = folder / LABELS_FILE, folder / CARD_FILE
    labels_path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    card_path.write_text(json.dumps(card, indent=2, default=str) + "\n", encoding="utf-8")
    return [labels_path, card_path]


class _Inference(tf.Module):
    """What is saved: the variables, the assets, and one function.

    The Keras model itself is no attribute, or its layers and its optimiser would be
    tracked and saved too.
    """

    def __init__(self, model: keras.Model, assets: Sequence[Path]):
        super().__init__(name="rfkeras")
        # TensorFlow tracks what its graph reads; these lists keep it reachable.
        self.model_variables = [variable.value for variable in model.variables]
        self.assets = [tf.saved_model.Asset(str(path)) for path in assets]
        source, head = model.inputs[0], model_head(model)

        def serve(batch: Any) -> dict[str, Any]:
            not_empty = tf.debugging.assert_positive(
                tf.shape(batch)[0], message=f"Empty batch: {source.name} has no rows."
            )
            with tf.control_dependencies([not_empty]):
                logits = model(tf.identity(batch), training=False)
            return {"scores": head.scores(logits)}

        spec = tf.TensorSpec(source.shape, tf.float32, name=source.name)
        self.serve = tf.function(serve, input_signature=[spec])
