"""Write engine files: ONNX graphs that `rfkeras.inference.OnnxTagger` runs in chunks.

`python -m rfkeras.export.engine MODEL ENGINE.onnx` converts a model in a process of its own,
which pays for TensorFlow. It exits with 3, and the reason on standard error, if the model
cannot be converted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.export.onnx import convert, need_packages
from rfkeras.export.portable import PortableModel
from rfkeras.export.saved_model import ExportError
from rfkeras.folding import in_float32
from rfkeras.frontend import find_frontend
from rfkeras.frontend.numpy_mel import numpy_mel
from rfkeras.inference import engines as engine
from rfkeras.inference.frames import FrameGrid
from rfkeras.inference.keras_tagger import StreamTagger
from rfkeras.utils.files import atomic_write
from rfkeras.utils.model_graph import inlined
from zoo.pretrained import load_model

NOT_CONVERTIBLE = 3


def write_engine(model: keras.Model, path: str | Path) -> None:
    """Write the engine file of a model.

    Args:
        model: Model that `StreamTagger` accepts.
        path: File to write.

    Raises:
        ConfigError: A package of the extra 'onnx' is missing; the model is not accepted by
            `StreamTagger`; its front-end is not its first layer; or its chunks cannot overlap
            so that every frame has its whole window.
        ExportError: The conversion fails.
    """
    need_packages()
    tagger = StreamTagger(model)
    graph = inlined(in_float32(model))
    frontend = find_frontend(graph)
    assert frontend is not None  # StreamTagger has checked it
    grid = FrameGrid(graph, frontend)
    if grid.overlap is None or not grid.starts_with_frontend:
        raise ConfigError(
            f"Model {model.name!r} cannot be converted to an engine file: its chunks depend on "
            "the length of the audio, or layers are before its front-end."
        )
    portable = PortableModel(model, frontend=False)
    proto = convert(portable.frames_function(), portable.card["name"])
    outputs = portable.frame_outputs
    record: dict[str, Any] = {
        "format": engine.FORMAT,
        "name": model.name,
        "labels": list(tagger.label_names),
        "thresholds": None if tagger.thresholds is None else tagger.thresholds.tolist(),
        "task": outputs.task,
        "outputs": outputs.kind,
        "pooling": tagger.pooling,
        "sample_rate_hz": tagger.sample_rate_hz,
        "channels": tagger.channels,
        "frames": asdict(tagger.frames),
        "reason_not_exact": tagger.reason_not_exact,
        "shortest_samples": tagger.shortest_samples,
        "overlap": grid.overlap.as_json(),
        "spectrogram": numpy_mel(frontend).as_json(),
        "mean_db": frontend.mean_db.numpy().tolist(),
        "std_db": frontend.std_db.numpy().tolist(),
    }
    import onnx.helper

    onnx.helper.set_model_props(proto, {engine.RECORD: json.dumps(record)})
    content = proto.SerializeToString()
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def main(argv: Sequence[str]) -> int:
    """Convert a model; return the exit status."""
    source, path = argv
    tf.get_logger().setLevel("ERROR")
    try:
        write_engine(load_model(source), path)
    except (ConfigError, ExportError) as error:
        print(error, file=sys.stderr)
        return NOT_CONVERTIBLE
    except RFKerasError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
