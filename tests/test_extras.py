"""Features whose extra is not installed name the extra and the command that installs it."""

import logging
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

import rfkeras
from rfkeras.audio.file_tags import require_mutagen
from rfkeras.beam import require_beam
from rfkeras.datasets.mir import import_package
from rfkeras.datasets.packed import load_tensorflow_io
from rfkeras.errors import CheckpointError, ConfigError, DatasetError
from rfkeras.export.onnx import PACKAGES
from rfkeras.export.saved_model import write_warmup
from rfkeras.inference.features import check_features_path
from rfkeras.interop.torch import read_state
from rfkeras.training.distributed import make_strategy
from rfkeras.utils.remote import RemotePath, file_system

ROOT = Path(__file__).parents[1]
# See the Makefile.
EXTRAS_IN_LOWEST = (
    "tfio",
    "onnx",
    "parquet",
    "beam",
    "serving",
    "remote",
    "tags",
    "datasets",
    "hub",
)


def block(monkeypatch, *packages):
    """Make packages impossible to import."""
    for package in packages:
        loaded = [name for name in sys.modules if name.startswith(f"{package}.")]
        for name in (package, *loaded):
            monkeypatch.setitem(sys.modules, name, None)


def open_url(url):
    """Open a URL as if no file system were loaded yet."""
    registry = getattr(sys.modules.get("fsspec.registry"), "_registry", {})
    with mock.patch.dict(registry, clear=True):
        file_system(RemotePath(url))


def decode_tfio():
    load_tensorflow_io.cache_clear()
    load_tensorflow_io(s3=False)


def export_onnx(folder):
    rfkeras.export.onnx(None, folder / "model.onnx")


def write_parquet(folder):
    check_features_path(folder / "embeddings.parquet", "clip")


def read_pth(folder):
    path = folder / "network.pth"
    path.write_bytes(b"")
    read_state(path)


def write_requests(folder):
    """Raise what is logged: a SavedModel is complete without the requests."""
    records = []
    log = logging.getLogger("rfkeras.export.saved_model")
    with mock.patch.object(log, "info", side_effect=records.append):
        write_warmup(folder, {"sample_rate_hz": 22050})
    raise ConfigError(records[0])


# Extra, packages that are not installed, feature, error, what its message also says.
CASES = [
    ("tfio", ["tensorflow_io"], lambda _: decode_tfio(), DatasetError, "decoder='tfio' needs"),
    (
        "hub",
        ["huggingface_hub"],
        lambda _: rfkeras.load_model("hf://me/tiny"),
        ConfigError,
        "hf://me/tiny needs",
    ),
    ("torch", ["torch"], read_pth, CheckpointError, "Alternatively, save"),
    ("serving", ["tensorflow_serving"], write_requests, ConfigError, "no warm-up requests"),
    ("parquet", ["pyarrow"], write_parquet, ConfigError, "Or name a .npy, .npz or .csv file"),
    ("tags", ["mutagen"], lambda _: require_mutagen(), ConfigError, "Writing tags into audio"),
    ("beam", ["apache_beam"], lambda _: require_beam(), ConfigError, "needs Apache Beam"),
    ("datasets", ["mirdata"], lambda _: import_package("mirdata"), ConfigError, "of mirdata"),
    (
        "datasets",
        ["soundata"],
        lambda _: import_package("soundata"),
        ConfigError,
        "of soundata",
    ),
    ("gpu", [], lambda _: make_strategy("gpu:99"), ConfigError, "Use --devices cpu"),
    *(("onnx", [name], export_onnx, ConfigError, f"package {name},") for name in PACKAGES),
    *(
        ("remote", [name], lambda _, url=url: open_url(url), ConfigError, f"{url} needs")
        for name, url in [
            ("fsspec", "s3://bucket/a.wav"),
            ("s3fs", "s3://bucket/a.wav"),
            ("gcsfs", "gs://bucket/a.wav"),
            ("adlfs", "az://box/a.wav"),
            ("aiohttp", "https://localhost/a.wav"),
        ]
    ),
]


@pytest.mark.parametrize(("extra", "packages", "feature", "error", "also"), CASES)
def test_a_missing_extra_is_named(extra, packages, feature, error, also, tmp_path, monkeypatch):
    block(monkeypatch, *packages)
    with pytest.raises(error) as raised:
        feature(tmp_path)
    assert f"pip install 'rfkeras[{extra}]'" in str(raised.value)
    assert also in str(raised.value)


def requirements():
    """Return what setup.py requires, and its extras without those for developers."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    extras = setup.call_args.kwargs["extras_require"]
    own = {name: extras[name] for name in extras if name not in ("dev", "docs")}
    return setup.call_args.kwargs["install_requires"], own


def test_every_extra_is_tried():
    assert {case[0] for case in CASES} == set(requirements()[1])


def test_the_lowest_set_has_the_lower_bounds():
    lines = (ROOT / "requirements/lowest.lock").read_text().splitlines()
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", line)[0] for line in lines if "==" in line)
    needed, extras = requirements()
    for text in (*needed, *(text for name in EXTRAS_IN_LOWEST for text in extras[name])):
        name, bound = re.match(r"([\w-]+)[=>]=([\w.]+)", text).groups()
        found = locked[name.lower().replace("_", "-")]
        assert f"{found}.".startswith(f"{bound}."), text
