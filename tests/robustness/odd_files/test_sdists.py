"""Audio test files of other libraries, from their source archives."""

import hashlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from rfkeras.audio.sandbox import DecoderPool, Limits
from tests.robustness.odd_files.mutate import FATAL, FINITE, read
from tests.robustness.odd_files.tagging import small_tagger, tag_files

ARCHIVES = {
    "mutagen-1.48.1": "8f95637ab9f6f305cec6bd1294e197debe207998e3e068596563c74f86b0a173",
    "mediafile-0.12.0": "d75d805a06ed56150dbcea76505e700f9809abd9e98f98117ae46f5df2ccf1d7",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Download the archives and verify their checksums; skip without a network."""
    folder = tmp_path_factory.mktemp("archives")
    for archive, digest in ARCHIVES.items():
        name, _, version = archive.partition("-")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(folder), f"{name}=={version}"]
        try:
            got = subprocess.run(command, capture_output=True, text=True, timeout=240)
            reason = got.stderr[-200:]
        except subprocess.TimeoutExpired as error:
            reason = str(error)
        path = folder / f"{archive}.tar.gz"
        if not path.exists():
            pytest.skip(f"{archive} cannot be downloaded: {reason}")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        with tarfile.open(path) as tar:
            tar.extractall(folder / name, filter="data")
    return folder


def test_files_of_other_libraries_are_read_or_rejected(folder):
    paths = sorted(path for path in folder.rglob("test*/**/*") if path.is_file())
    pool = DecoderPool(Limits(seconds=10.0))
    outcomes = {path: read(pool, path) for path in paths}
    pool.close()
    assert not {path: text for path, text in outcomes.items() if text.startswith(FATAL)}
    count = sum(text == FINITE for text in outcomes.values())
    print(f"{len(paths)} files, {count} read, {len(paths) - count} rejected")
    assert 40 < count < len(paths) - 40


def test_files_of_other_libraries_get_scores_or_an_error(folder):
    paths = sorted(path for path in folder.rglob("test*/**/*") if path.is_file())
    outcomes = []
    summary = tag_files(small_tagger("soundfile"), paths, outcomes.append)
    assert summary.done + summary.failed == len(paths) == len(outcomes)
    for outcome in outcomes:
        assert outcome.error or np.isfinite(outcome.result.scores).all()
