"""Models from their files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.reading import check_archive, malformed

MODEL_FILE = "model.keras"  # of a finished run, in its folder


def load_model(path: str | Path) -> Any:
    """Load a model that `train.py` or `model.save` wrote, ready to be called.

    Args:
        path: A .keras file.

    Returns:
        The Keras model, not compiled: waveforms (or spectrograms) in, logits out.

    Raises:
        CheckpointError: The file is missing, damaged, or names layers that are not known:
            those of Keras, of rfkeras, and what was registered by
            `keras.saving.register_keras_serializable` are. It cannot make Python run
            functions, also where Keras was told to allow that.
    """
    import keras

    # Importing registers the layers that the file names.
    import rfkeras.frontend.layer
    import rfkeras.layers
    import rfkeras.tagger  # noqa: F401

    path = Path(path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder. A model is one .keras file: that of a finished run is "
            "model.keras in its folder."
        )
    if not path.is_file():
        raise CheckpointError(
            f"There is no model {path}. A run writes it at its end: go on with an unfinished "
            "one by train.py --resume."
        )
    try:
        with malformed():
            _check_file(path)
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error


def _check_file(path: Path) -> None:
    """Refuse a damaged file before HDF5, which is native code, reads what is in it.

    Raises:
        ValueError: A member's checksum is wrong, or it would grow to far more than it is.
    """
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged!r} in it is damaged")


def open_model(source: str | Path) -> Any:
    """Load a model by whatever names it.

    Args:
        source: The folder of a finished run, a .keras file, or a model of the zoo with
            ready weights: "MODEL" or "MODEL:WEIGHTS" (`zoo.list_weights()`).

    Returns:
        As `load_model`.

    Raises:
        CheckpointError: The file or run cannot be loaded.
        ConfigError: There is neither such a file nor such a model with ready weights.

    Example:
        >>> model = open_model("resnet_rf_tiny:gm_instruments")
    """
    return load_model(model_file(source))


def model_file(source: str | Path) -> Path:
    """The .keras file that `open_model` loads; it may be missing.

    Raises:
        ConfigError: There is neither such a file nor such a model with ready weights.
    """
    from zoo.pretrained import find_weights

    path = Path(source)
    if (path / "config.json").is_file() or (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if path.suffix == ".keras" or path.is_file():
        return path
    try:
        # A folder that holds no model may happen to be called like one of the zoo.
        return find_weights(str(source)).path()
    except ConfigError as error:
        raise ConfigError(
            f"There is no run folder and no .keras file {path}. {error}"
        ) from error
