"""Tagging with only the packages of the distribution rfkeras-tag."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
# The program of the command `rfkeras` where nothing but these packages can be imported.
PROGRAM = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {top!r}", name=name)

ALLOWED = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Blocker())
from rfkeras.cli.main import main
sys.exit(main())
"""
# Packages of rfkeras-tag, and what these import themselves.
OF_TAGGING = (
    "numpy",
    "soundfile",
    "av",
    "soxr",
    "onnxruntime",
    "rich",
    "platformdirs",
    "filelock",
)
OF_THOSE = (
    "_soundfile",
    "_soundfile_data",
    "_cffi_backend",
    "cffi",
    "flatbuffers",
    "google",
    "markdown_it",
    "mdurl",
    "packaging",
    "pygments",
    "typing_extensions",
    "_distutils_hack",
)


def rfkeras(*words):
    """Run the command where only the packages of rfkeras-tag can be imported."""
    allowed = ",".join((*OF_TAGGING, *OF_THOSE, "rfkeras", "zoo"))
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, allowed, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RFKERAS_IMPORT": "[]"},
    )


@pytest.fixture
def song(tmp_path):
    time = np.arange(4 * 44100) / 44100
    path = tmp_path / "song.ogg"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), 44100)
    return path


def test_the_distribution_names_these_packages():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    block = text.split("TAGGING = [")[1].split("\n]")[0]
    names = re.findall(r'^    "([a-z]+)', block, re.M)
    assert sorted(names) == sorted(OF_TAGGING)


def test_tags_pages_and_embeddings_need_no_more(song, tmp_path):
    out = tmp_path / "tags.jsonl"
    done = rfkeras("tag", song, "--output", out, "--frames", "--html", tmp_path / "pages")
    assert done.returncode == 0, done.stderr
    (record,) = map(json.loads, out.read_text().splitlines())
    assert len(record["scores"]) == 20
    assert (tmp_path / "pages" / "index.html").is_file()
    again = rfkeras("tag", song, "--output", out, "--frames", "--skip-existing")
    assert again.returncode == 0, again.stderr
    assert "1 done before" in again.stderr
    features = tmp_path / "features.npy"
    done = rfkeras("embed", song, "--output", features)
    assert done.returncode == 0, done.stderr
    done = rfkeras("similar", song, features)
    assert done.returncode == 0, done.stderr
    done = rfkeras("find", out, "piano >= 0")
    assert done.stdout.strip() == str(song)
    assert rfkeras("models").returncode == 0
    page = ("export", "--model", "resnet_rf_tiny", "--to", "web", "--output", tmp_path / "web")
    done = rfkeras(*page)  # a checkout has ONNX Runtime Web, rfkeras-tag has not
    assert done.returncode == 0, done.stderr


def test_what_needs_more_says_so(song, tmp_path):
    for words in (
        ("train",),
        ("tag", song, "--engine", "tensorflow"),
        ("rf", "--model", "vgg_rf"),
    ):
        done = rfkeras(*words)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "which is not installed" in done.stderr
        assert "pip uninstall rfkeras-tag, then pip install . in" in done.stderr
