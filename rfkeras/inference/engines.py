"""Engine files: a model on ONNX Runtime, without TensorFlow and Keras.

An engine file is an ONNX graph from spectrograms to the frame outputs of a model. Its metadata
contains the parameters of the front-end and of the chunks. NumPy computes the front-end,
because its Fourier transform is many times faster than that of ONNX Runtime.

The package contains the engine files of the pretrained weights. Those of other models are
written to the user's cache on first use, under the checksum of the model
(`rfkeras.export.onnx`). The checksum does not cover the code of the user's own classes, so
models that contain such classes are converted only on request, and then each time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.frontend.numpy_mel import MelSpectrogram
from rfkeras.inference.chunks import FrameTimes, Overlap
from rfkeras.inference.stream import Array, ChunkOutputs, ChunkTagger, ComputationError
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.files import exclusive, write_text
from rfkeras.utils.processes import onnx_session, usable_cores
from rfkeras.utils.progress import print_status
from zoo.pretrained import (
    cached,
    existing_model,
    load_model,
    packaged_engine,
    sha256_of,
    users_classes,
)

AUTO, ONNX, TENSORFLOW = "auto", "onnx", "tensorflow"
ENGINES = (AUTO, ONNX, TENSORFLOW)
_PACKAGES = ("tensorflow", "tf2onnx", "onnx")
_NOT_CONVERTIBLE = 3  # exit status of rfkeras.export.onnx
_FOLDER = "engines"  # in the user's cache
CONVERT_VARIABLE = "RFKERAS_CONVERT"  # "no": models are converted only on request
FORMAT = 1
RECORD = "rfkeras_engine"
LOGITS, SCORES, WEIGHTS, EMBEDDINGS = (
    "frame_logits",
    "frame_scores",
    "log_weights",
    "frame_embeddings",
)
_SMALLEST = 6e-8  # the distance of 1 to the next smaller float32


class OnnxTagger(ChunkTagger):
    """Runs an engine file on audio of any length, in chunks.

    Args:
        path: The engine file.
        chunk_seconds: Approximate amount of new audio in the chunks that are computed at the
            same time.
        decoder: See `ChunkTagger`.
        threads: Threads of the network; None for one per core. Audio of several chunks is
            computed by two workers with half of the threads each.

    Attributes:
        record: The metadata of the file, see `rfkeras.export.onnx.write_engine`.

    Raises:
        CheckpointError: The file is not an engine file, is damaged, or has the format of
            another version of rfkeras.
        ConfigError: ONNX Runtime is not installed; see also `ChunkTagger`.
    """

    def __init__(
        self,
        path: str | Path,
        chunk_seconds: float = 30.0,
        decoder: str = "soundfile",
        *,
        threads: int | None = None,
    ) -> None:
        super().__init__(chunk_seconds, decoder)
        self._path = path
        self._threads = threads or usable_cores()
        self._opening = Lock()
        try:
            self._session = self._open_session(self._threads)
            record = json.loads(self._session.get_modelmeta().custom_metadata_map[RECORD])
            if record["format"] != FORMAT:
                raise ValueError(
                    f"it has format {record['format']}, and this version reads {FORMAT}"
                )
            self._read_record(record)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"The default engine needs the package {error.name}: pip install {error.name}. "
                "With TensorFlow installed, engine='tensorflow' works without it."
            ) from error
        except Exception as error:
            # ONNX Runtime raises its own classes for damaged files.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{path} cannot be used as an engine file: {reason}. Delete it; rfkeras writes "
                "it again when it is needed."
            ) from error
        if self.exact:  # otherwise shorter chunks would change the results
            self.workers = min(2, self._threads)  # one prepares audio while one computes
        self.plan = self._overlap.plan(chunk_seconds / self.workers)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _open_session(self, threads: int) -> Any:
        return onnx_session(str(self._path), threads)

    @cached_property
    def _shared_session(self) -> Any:
        return self._open_session(self._threads // self.workers)

    def _read_record(self, record: dict[str, Any]) -> None:
        self.record = record
        self.name = record["name"]
        self.label_names = tuple(record["labels"])
        thresholds = record["thresholds"]
        self.thresholds = None if thresholds is None else np.array(thresholds)
        self.audio_format = AudioFormat(record["sample_rate_hz"], record["channels"])
        self.frames = FrameTimes(**record["frames"])
        self.reason_not_exact = record["reason_not_exact"]
        self.exact = self.reason_not_exact is None
        self.shortest_samples = record["shortest_samples"]
        self.pooling = record["pooling"]
        self._overlap = Overlap.from_json(record["overlap"])
        self._task, self._are_logits = record["task"], record["outputs"] == "logits"
        self.scale = self._overlap.scale
        self._mel = MelSpectrogram.from_json(record["spectrogram"])
        self.spectrogram_least_samples = self._mel.min_samples
        self._mean_db = np.array(record["mean_db"], np.float32)
        self._std_db = np.array(record["std_db"], np.float32)

    def compute(self, waveform: Array, *, shared: bool = False) -> ChunkOutputs:
        """Compute the frames of a waveform; see `ChunkTagger.compute`."""
        try:
            with self._opening:
                session = self._shared_session if shared else self._session
            levels = self._mel.mel_db(waveform[0])
            levels -= self._mean_db[:, None]
            levels /= self._std_db[:, None]
            rows = session.run(self._outputs, {self._input: levels[None]})
        except Exception as error:  # ONNX Runtime raises its own classes
            memory = isinstance(error, MemoryError) or "allocate" in str(error)
            raise ComputationError(error, needs_memory=memory) from error
        values = dict(zip(self._outputs, rows, strict=True))
        return ChunkOutputs(
            values[LOGITS], values[SCORES], values.get(WEIGHTS), values[EMBEDDINGS]
        )

    def mel_db(self, waveform: Waveform) -> Array:
        """Return the spectrogram before standardisation; see `ChunkTagger.mel_db`."""
        levels: Array = self._mel.mel_db(waveform).mean(axis=-1)
        return levels

    def logits_and_scores(self, pooled: Array) -> tuple[Array, Array]:
        """Convert pooled outputs; see `ChunkTagger.logits_and_scores`.

        The same as `rfkeras.layers.outputs.Outputs`, which needs Keras.
        """
        if self._are_logits:
            if self._task == MULTI_LABEL:
                return pooled, 0.5 * (1.0 + np.tanh(0.5 * pooled))
            powers = np.exp(pooled - pooled.max())
            return pooled, powers / powers.sum()
        shares = np.clip(pooled, _SMALLEST, 1.0 - _SMALLEST)
        logits = np.log(shares)
        return (logits - np.log1p(-shares) if self._task == MULTI_LABEL else logits), pooled


def open_tagger(
    source: str | Path,
    chunk_seconds: float = 30.0,
    decoder: str = "soundfile",
    engine: str = AUTO,
    on_status: Callable[[str], None] = print_status,
) -> ChunkTagger:
    """Load a model and return its tagger.

    Args:
        source: As for `zoo.load_model`.
        chunk_seconds: See `ChunkTagger`.
        decoder: See `ChunkTagger`.
        engine: "onnx": ONNX Runtime, which starts quickly; models other than the packaged ones
            are converted on first use. "tensorflow": the Keras model. "auto": ONNX Runtime if
            possible, otherwise TensorFlow (see `engine_file`).
        on_status: Called with a line of text before work that takes several seconds.

    Raises:
        ConfigError: The engine is unknown, an argument is wrong (see `ChunkTagger`), or the
            engine is "onnx" and the model cannot be converted.
        CheckpointError: The model or its engine file is missing or damaged.
    """
    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    path = None if engine == TENSORFLOW else engine_file(source, engine, on_status)
    if path is not None:
        return OnnxTagger(path, chunk_seconds, decoder)
    model = existing_model(source)  # reports a missing model before TensorFlow's start
    if "tensorflow" not in sys.modules:
        advice = ""
        if engine == AUTO and _missing_packages() and not users_classes(model):
            advice = "; after pip install 'rfkeras[onnx]', only the first time"
        on_status(f"Loading {source} with TensorFlow, which takes a few seconds{advice}")
    # Imports TensorFlow.
    from rfkeras.inference.keras_tagger import StreamTagger

    return StreamTagger(load_model(source), chunk_seconds, decoder)


def engine_file(
    source: str | Path,
    engine: str = AUTO,
    on_status: Callable[[str], None] = print_status,
    *,
    instead: str = "--engine tensorflow runs the model itself.",
) -> Path | None:
    """Return the engine file of a model, and write it first if there is none.

    Args:
        source: As for `zoo.load_model`.
        engine: "onnx" or "auto".
        on_status: See `open_tagger`.
        instead: Advice that ends the errors for "onnx".

    Returns:
        The file. With "auto", None if the model contains the user's own classes or cannot be
        converted, if packages are missing, or if the model has not been converted before and
        RFKERAS_CONVERT=no is set in the environment.

    Raises:
        ConfigError: The engine is "onnx", and the model cannot be converted, or packages for
            that are missing.
        CheckpointError: The model is missing or damaged.
    """
    model = existing_model(source)
    packaged = packaged_engine(model)
    if packaged is not None:
        return packaged
    path = cached(_FOLDER, f"{sha256_of(model)[:16]}-{FORMAT}.onnx")
    refused = path.with_suffix(".txt")
    has_users_classes = bool(users_classes(model))
    if path.is_file() and not has_users_classes:
        return path
    if engine == ONNX:
        try:
            _convert(model, path, on_status, again=has_users_classes)
        except ConfigError as error:
            raise ConfigError(f"{error} {instead}") from error
        return path
    unasked = os.environ.get(CONVERT_VARIABLE, "").lower() != "no" and not _missing_packages()
    if has_users_classes or refused.is_file() or not unasked:
        return None
    try:
        _convert(model, path, on_status)
    except (ConfigError, CheckpointError, OSError) as error:
        on_status(f"Note: {source} runs on TensorFlow. {error}")
        if isinstance(error, ConfigError):  # another attempt would fail as well
            write_text(refused, f"{error}\n")
        return None
    return path


def _missing_packages() -> list[str]:
    return [name for name in _PACKAGES if find_spec(name) is None]


def _convert(
    model: Path, path: Path, on_status: Callable[[str], None], *, again: bool = False
) -> None:
    """Write the engine file of a model in a separate process.

    Args:
        model: The .keras file.
        path: File to write.
        on_status: See `open_tagger`.
        again: Write it even if the file exists.

    Raises:
        ConfigError: The model cannot be converted, or packages for that are missing.
        CheckpointError: The model is damaged.
        OSError: The file cannot be written.
    """
    missing = _missing_packages()
    if missing:
        raise ConfigError(
            f"Converting a model for ONNX Runtime needs {', '.join(missing)}: pip install "
            "'rfkeras[onnx]'."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    on_status(f"Converting {model} for ONNX Runtime, once; this takes about 10 s")
    with exclusive(path.with_suffix(".lock"), on_wait=lambda _: None):
        if path.is_file() and not again:
            return
        done = subprocess.run(
            [sys.executable, "-m", "rfkeras.export.onnx", str(model), str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        if done.returncode == _NOT_CONVERTIBLE:
            raise ConfigError(reason)
        raise CheckpointError(f"{model} could not be converted for ONNX Runtime: {reason}")
