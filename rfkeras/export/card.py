"""What a SavedModel says about itself: the files in its assets folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from rfkeras.export.signatures import Signatures
from rfkeras.files import write_text
from rfkeras.frontend import find_frontend
from rfkeras.layers import ClipLogits
from rfkeras.tasks import HALF, MULTI_LABEL

LABELS_FILE = "labels.txt"
CARD_FILE = "model.json"
TEXT_FILE = "model_card.md"


def write_assets(
    folder: Path, names: Sequence[str], card: Mapping[str, Any], text: str | None
) -> list[Path]:
    """Write the assets.

    Args:
        folder: Where.
        names: Tag of each output.
        card: What `describe` returns.
        text: A model card in Markdown, or None.

    Returns:
        The files.
    """
    contents = {
        LABELS_FILE: "".join(f"{name}\n" for name in names),
        CARD_FILE: json.dumps(card, indent=2, default=str) + "\n",
    }
    if text is not None:
        contents[TEXT_FILE] = text if text.endswith("\n") else text + "\n"
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def audio_fields(model: keras.Model) -> dict[str, Any]:
    """What a card tells of the audio that a model takes; nothing without a front-end."""
    frontend = find_frontend(model)
    if frontend is None:
        return {}
    shape = model.inputs[0].shape
    return {
        "sample_rate_hz": frontend.sample_rate_hz,
        "channels": 1 if len(shape) == 2 else shape[-1],
        "min_samples": frontend.min_samples,
        "frontend": frontend.get_config(),
    }


def describe(
    model: keras.Model, head: ClipLogits, n_classes: int, signatures: Signatures
) -> dict[str, Any]:
    """The model's card: what it takes, what it returns and how to read that.

    Args:
        model: The model.
        head: What makes scores of its logits.
        n_classes: Its outputs.
        signatures: Its signatures.
    """
    thresholds = list(head.thresholds or [HALF] * n_classes)
    card: dict[str, Any] = {
        "name": model.name,
        "input": model.inputs[0].name,
        "task": head.task,
        "thresholds": thresholds if head.task == MULTI_LABEL else None,
    }
    card |= audio_fields(model)
    times = signatures.frame_times
    card |= {
        "embedding_size": signatures.embedding_size,
        "frame_stride_ms": None if times is None else times.stride_ms,
        "first_frame_ms": None if times is None else times.first_ms,
        "receptive_field_ms": None if times is None else times.window_ms,
        "signatures": {
            name: _signature(function) for name, function in signatures.functions.items()
        },
        "signatures_missing": signatures.missing,
    }
    return card


def _signature(function: Any) -> dict[str, Any]:
    (inputs,) = function.structured_input_signature[0]
    return {
        "inputs": {inputs.name: _tensor(inputs)},
        "outputs": {name: _tensor(spec) for name, spec in function.structured_outputs.items()},
    }


def _tensor(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
