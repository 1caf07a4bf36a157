"""Settings and fixtures shared by all tests."""

import gc
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

# Hide the log messages of TensorFlow's start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Several workers run tests at the same time, so more than one thread each would only wait.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# Converting each test's model for ONNX Runtime would take 10 s; tests of it remove this.
os.environ["RFKERAS_CONVERT"] = "no"
os.environ.pop("COLUMNS", None)  # the width of tables

if find_spec("hypothesis"):  # the tests in browsers and on other backends do without
    from hypothesis import settings

    settings.register_profile("tests", deadline=None)  # a busy machine may take long
    settings.load_profile("tests")

# Building and tracing networks creates many objects that stay, so fewer collections are faster.
gc.set_threshold(50_000, 10, 10)

FIXTURES = Path(__file__).parent / "fixtures"


# The slowest modules, slowest first.
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
    """Run slow modules first, so that no worker has to finish one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (ranks.get(item.path, len(LONGEST)), item.path not in slow))


@pytest.fixture(scope="module", autouse=True)
def parts_of_one_module():
    """Forget the losses, models and other parts that the tests of a module registered.

    Otherwise a name would be known or unknown depending on which modules ran before.
    """
    import zoo
    from rfkeras.datasets.load import DATASETS
    from rfkeras.frontend.presets import PRESETS
    from rfkeras.utils import user_code
    from zoo.registry import MODELS

    zoo.list_models()  # registers the library's own
    kinds = (user_code.LOSSES, user_code.OPTIMIZERS, user_code.AUGMENTATIONS)
    registries = (*kinds, user_code.METRICS, DATASETS, PRESETS, MODELS)
    before = [(dict(parts._users), dict(parts._origins)) for parts in registries]
    yield
    for parts, (users, origins) in zip(registries, before, strict=True):
        parts._users, parts._origins = users, origins


@pytest.fixture(scope="session")
def shared_folder():
    """Return the folder with real metadata of the data sets, or skip if there is none."""
    folder = Path(os.environ.get("RFKERAS_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"this test needs real metadata in {folder} (or set RFKERAS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory):
    """Create a data set of one-second tones (low, mid, high) with one subfolder per class."""
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


@pytest.fixture(scope="session")
def clean_process():
    """Return a replacement of `subprocess.run`: verified exports share one clean process."""
    from tests.helpers.clean_process import CleanProcess

    process = CleanProcess()
    yield process
    process.stop()


@pytest.fixture
def one_clean_process(clean_process, monkeypatch):
    """Verify all exports in one clean process, because TensorFlow starts slowly."""
    monkeypatch.setattr(subprocess, "run", clean_process)


@pytest.fixture
def averaging_pools(monkeypatch):
    """Build networks with mean pooling, whose gradients show the whole window."""
    import keras

    from tests.helpers.receptive_field import MeanPooling

    monkeypatch.setattr(keras.layers, "MaxPooling2D", MeanPooling)


@pytest.fixture
def http(tmp_path):
    """Return an HTTP server of an empty folder."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    from tests.helpers.remote import HttpServer

    folder = tmp_path / "served"
    folder.mkdir()
    server = HttpServer(folder)
    server.folder = folder
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_url():
    """Return the URL of an S3 server (moto) in a separate process."""
    for name in ("moto", "flask_cors", "boto3"):
        pytest.importorskip(name)
    from tests.helpers.remote import s3_server

    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3_url, monkeypatch):
    """Return a new S3 bucket that this process can reach through fsspec."""
    pytest.importorskip("s3fs")
    from tests.helpers.remote import KEYS, Bucket

    for name, value in {**KEYS, "S3_ENDPOINT": s3_url}.items():
        monkeypatch.setenv(name, value)
    new = Bucket(s3_url, f"bucket-{os.urandom(4).hex()}")
    yield new
    new.close()
