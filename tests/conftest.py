"""What all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

# TensorFlow's native start-up notes are not about what is tested.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Several workers test at once: threads beyond one each would wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

FIXTURES = Path(__file__).parent / "fixtures"


# The modules that take longest, longest first.
LONGEST = (
    "benchmarks/test_short_form.py",
    "zoo/test_every_model.py",
    "zoo/test_recipes.py",
    "training/test_resume.py",
    "cli/test_train.py",
    "rf/test_exact_random_networks.py",
    "training/test_replicas.py",
    "cli/test_sweep.py",
    "cli/test_tune.py",
)


def pytest_collection_modifyitems(items):
    """Long modules first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path, len(LONGEST)), item.path not in slow))


@pytest.fixture(scope="session")
def shared_folder():
    """Folder with real metadata of the data sets, where a machine has it."""
    folder = Path(os.environ.get("RFKERAS_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real metadata here: {folder} is missing (set RFKERAS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory):
    """A data set of one-second tones, low, middle and high: one sub-folder a class."""
    root = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    t = np.arange(22050) / 22050
    for name, low_hz, high_hz in (("low", 100, 300), ("mid", 600, 1200), ("high", 2e3, 4e3)):
        (root / name).mkdir()
        for i in range(24):
            tone = 0.2 * np.sin(2 * np.pi * rng.uniform(low_hz, high_hz) * t)
            tone += 0.02 * rng.normal(size=t.size)
            soundfile.write(root / name / f"{i:02d}.wav", tone.astype("float32"), 22050)
    return root


@pytest.fixture
def averaging_pools(monkeypatch):
    """Networks built with mean pooling, whose gradients show the whole window."""
    import keras

    from tests.helpers.receptive_field import MeanPooling

    monkeypatch.setattr(keras.layers, "MaxPooling2D", MeanPooling)
