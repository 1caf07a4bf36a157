"""Open the tagger of a model: on ONNX Runtime if there is an engine file, or on TensorFlow.

Engine files of pretrained weights are in the package. Those of other models are written once,
on request, into the user's cache, under the checksum of the model.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.inference.onnx_tagger import FORMAT, OnnxTagger
from rfkeras.inference.stream import ChunkTagger
from rfkeras.utils.progress import print_status
from zoo.pretrained import cached, existing_model, load_model, packaged_engine, sha256_of

AUTO, ONNX, TENSORFLOW = "auto", "onnx", "tensorflow"
ENGINES = (AUTO, ONNX, TENSORFLOW)
_PACKAGES = ("tensorflow", "tf2onnx", "onnx")
_NOT_CONVERTIBLE = 3  # exit status of rfkeras.export.engine
_FOLDER = "engines"  # in the user's cache


def open_tagger(
    source: str | Path,
    chunk_seconds: float = 30.0,
    decoder: str = "soundfile",
    engine: str = AUTO,
) -> ChunkTagger:
    """Load a model and return its tagger.

    Args:
        source: As for `zoo.load_model`.
        chunk_seconds: See `ChunkTagger`.
        decoder: See `ChunkTagger`.
        engine: "onnx": ONNX Runtime, which starts at once; a model without an engine file is
            converted first, once. "tensorflow": the model itself. "auto": ONNX Runtime for
            models that have an engine file, TensorFlow for others.

    Raises:
        ConfigError: The engine is unknown; the model cannot be converted, or packages that the
            conversion needs are missing; or an argument is wrong (see `ChunkTagger`).
        CheckpointError: The model or its engine file is missing or damaged.
    """
    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    path = None if engine == TENSORFLOW else engine_file(source, convert=engine == ONNX)
    if path is not None:
        return OnnxTagger(path, chunk_seconds, decoder)
    # Imports TensorFlow.
    from rfkeras.inference.keras_tagger import StreamTagger

    return StreamTagger(load_model(source), chunk_seconds, decoder)


def engine_file(source: str | Path, *, convert: bool = False) -> Path | None:
    """Return the engine file of a model.

    Args:
        source: As for `zoo.load_model`.
        convert: Write the file if there is none.

    Returns:
        The file; None if there is none.

    Raises:
        ConfigError: The model cannot be converted, or packages for that are missing.
        CheckpointError: The model is missing or damaged.
    """
    model = existing_model(source)
    packaged = packaged_engine(model)
    if packaged is not None:
        return packaged
    path = cached(_FOLDER, f"{sha256_of(model)[:16]}-{FORMAT}.onnx")
    if path.is_file():
        return path
    if not convert:
        return None
    _convert(model, path)
    return path


def _convert(model: Path, path: Path) -> None:
    """Write the engine file of a model in a process of its own.

    Raises:
        ConfigError: See `engine_file`.
        CheckpointError: The model is damaged.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Converting a model for --engine onnx needs {', '.join(missing)}: pip install "
            "'rfkeras[onnx]'. Or use --engine tensorflow."
        )
    print_status(f"Converting {model} for ONNX Runtime, once: about 15 s")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "rfkeras.export.engine", str(model), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        if done.returncode == _NOT_CONVERTIBLE:
            raise ConfigError(f"{reason} Use --engine tensorflow.")
        raise CheckpointError(f"{model} could not be converted for ONNX Runtime: {reason}")
