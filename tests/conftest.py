"""What all tests share."""

import os
from pathlib import Path

import pytest

# TensorFlow's native start-up notes are not about what is tested.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def shared_folder():
    """Folder with real metadata of the data sets, where a machine has it."""
    folder = Path(os.environ.get("RFKERAS_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real metadata here: {folder} is missing (set RFKERAS_SHARED)")
    return folder
