"""Models from their files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError


def load_model(path: str | Path) -> Any:
    """Load a model that `train.py` or `model.save` wrote, ready to be called.

    Args:
        path: A .keras file.

    Returns:
        The Keras model, not compiled: waveforms (or spectrograms) in, logits out.

    Raises:
        CheckpointError: The file is missing, damaged, or names layers that are not known.
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
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error
