"""Shards at s3:// and http:// URLs, through fsspec and through tensorflow-io.

Child processes read them from local servers. fsspec and tensorflow-io are taken away in turn.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys

import numpy as np
import pytest
import soundfile

from rfkeras.audio.io import AudioFormat
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split
from rfkeras.datasets.pack import pack
from rfkeras.datasets.packed import load_packed
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.utils import remote
from tests.datasets.conftest import music
from tests.helpers.processes import start
from tests.helpers.remote import KEYS, Bucket

AUDIO = AudioFormat(8000)
OPTIONS = {
    "excerpt_seconds": 0.2,
    "batch_size": 4,
    "seed": 3,
    "steps_per_epoch": 3,
    "total_steps": 6,
}

CHILD = """
import atexit, hashlib, sys
from rfkeras.audio.io import AudioFormat
from rfkeras.datasets.base import BadFileLog
from rfkeras.datasets.pipeline import training_batches
from rfkeras.datasets.packed import load_packed, verify_packed

path, decoder, ending = sys.argv[1:]
dataset = load_packed(path)
verify_packed(dataset)
log = BadFileLog(None, total_files=1)
batches = training_batches(
    dataset.splits["train"], AudioFormat(8000), bad_files=log, decoder=decoder, **{options}
)
digest = hashlib.sha256()
for waveforms, labels, _ in batches.as_numpy_iterator():
    digest.update(waveforms.tobytes() + labels.tobytes())
atexit.register(print, "atexit ran")
print(digest.hexdigest())  # to a pipe: stays in the buffer until the interpreter ends
if ending == "exit":
    sys.exit(7)
if ending == "raise":
    raise ValueError("on purpose")
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a data set of 12 tones."""
    folder = tmp_path_factory.mktemp("tones")
    paths = []
    for row in range(12):
        paths.append(folder / f"{row}.wav")
        soundfile.write(paths[-1], music(0.5, 8000, 1, seed=row), 8000)
    labels = np.eye(12, 4, dtype=np.float32)
    keys = tuple(path.name for path in paths)
    return AudioDataset(
        "tones", tuple("abcd"), {"train": Split(keys, tuple(paths), labels, labels)}
    )


@pytest.fixture(scope="module")
def packed(dataset, tmp_path_factory):
    """Return the local folder of a packed data set."""
    out = tmp_path_factory.mktemp("remote") / "packed"
    pack(dataset, AUDIO, out, shard_mb=0.03, progress=False)
    return out


@pytest.fixture(scope="module")
def server(s3_url, packed):
    """Return the URL of an S3 server that has the shards in the bucket `shards`."""
    bucket = Bucket(s3_url, "shards")
    bucket.put_folder(packed, "tones")
    bucket.close()
    return s3_url


def local_digest(folder) -> str:
    batches = training_batches(
        load_packed(str(folder)).splits["train"],
        AUDIO,
        bad_files=BadFileLog(None, total_files=1),
        **OPTIONS,
    )
    digest = hashlib.sha256()
    for waveforms, labels, _ in batches.as_numpy_iterator():
        digest.update(waveforms.tobytes() + labels.tobytes())
    return digest.hexdigest()


def start_child(server: str, path: str, decoder: str, ending: str, without: str = ""):
    """Start a process that reads the shards from the server.

    Args:
        without: A module that cannot be imported.
    """
    code = CHILD.replace("{options}", repr(OPTIONS))
    code = f"import sys; sys.modules[{without!r}] = None\n{code}" if without else code
    return start("-c", code, path, decoder, ending, **KEYS, S3_ENDPOINT=server)


def need(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize(
    ("path", "decoder", "ending", "status", "without"),
    [
        ("s3://shards/tones", "soundfile", "return", 0, "tensorflow_io"),
        ("s3://shards/tones", "soundfile", "raise", 1, "fsspec"),
        ("s3://shards/tones", "tfio", "exit", 7, ""),
        ("s3://shards/tones", "tfio", "exit", 7, "fsspec"),
        ("http", "soundfile", "exit", 7, "tensorflow_io"),
        ("http", "tfio", "exit", 7, "fsspec"),
    ],
)
def test_remote_shards_equal_local_ones_and_the_exit_status_is_correct(
    server, packed, path, decoder, ending, status, without
):
    if without != "fsspec":
        need("fsspec", "s3fs", "aiohttp")
    if without != "tensorflow_io":
        need("tensorflow_io")
    url = path if path != "http" else f"{server}/shards/tones"
    child = start_child(server, url, decoder, ending, without)
    out, errors = child.communicate(timeout=120)
    assert child.returncode == status, errors
    assert out.split("\n")[:2] == [local_digest(packed), "atexit ran"]
    assert "pure virtual" not in errors
    assert ("ValueError: on purpose" in errors) == (ending == "raise")


@pytest.mark.parametrize("without", ["fsspec", "tensorflow_io"])
def test_a_missing_remote_data_set_is_a_clear_error(server, packed, without):
    need(*{"fsspec", "s3fs", "tensorflow_io"} - {without})
    child = start_child(server, "s3://shards/absent", "soundfile", "return", without)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "DatasetError: s3://shards/absent/index.json cannot be read" in errors


def test_with_neither_package_the_error_names_the_line_that_brings_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    with pytest.raises(ConfigError, match=r"pip install 'rfkeras\[remote\]'"):
        load_packed("s3://shards/tones")


@pytest.fixture
def url(http, packed):
    """Return the URL of the shards at an HTTP server with faults."""
    for path in packed.iterdir():
        (http.folder / path.name).write_bytes(path.read_bytes())
    return http.url


def read(url, **options):
    log = BadFileLog(None, total_files=1)
    split = load_packed(url).splits["train"]
    batches = training_batches(split, AUDIO, bad_files=log, **{**OPTIONS, **options})
    try:
        return [batch[0].tobytes() for batch in batches.as_numpy_iterator()]
    finally:
        log.raise_if_stopped()


def test_a_resumed_run_reads_the_same_batches_over_broken_connections(
    http, url, packed, monkeypatch
):
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01,) * 4)
    whole = read(str(packed))
    http.break_after = [5000] * 5
    assert read(url) == whole
    assert not http.break_after
    assert read(url, start_step=4) == whole[4:]


def test_each_shard_is_fetched_once_for_all_epochs_and_the_evaluation(http, url, packed):
    read(url, total_steps=15)
    split = load_packed(url).splits["train"]
    options = {"window_seconds": 0.2, "batch_size": 4}
    log = BadFileLog(None, total_files=1)
    batches, _ = evaluation_batches(split, AUDIO, bad_files=log, **options)
    found = list(batches.as_numpy_iterator())
    local = load_packed(str(packed)).splits["train"]
    expected, _ = evaluation_batches(local, AUDIO, bad_files=log, **options)
    np.testing.assert_array_equal(found, list(expected.as_numpy_iterator()))
    gets = [path for method, path, _ in http.requests if method == "GET"]
    assert sorted(gets) == sorted({f"/{path.name}" for path in packed.iterdir()} & set(gets))
    assert len(gets) == len(split.shards) + 1  # and the index


def test_shards_are_read_with_hardly_any_room_for_copies(http, url, packed, monkeypatch):
    monkeypatch.setenv(remote.CACHE_VARIABLE, "0")
    assert read(url, total_steps=15) == read(str(packed), total_steps=15)


def test_a_shard_that_cannot_be_fetched_ends_the_run_with_its_url(http, url, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01,))
    log = BadFileLog(None, total_files=1)
    split = load_packed(url).splits["train"]
    (http.folder / "train-00001.tfrecord").unlink()
    batches = training_batches(split, AUDIO, bad_files=log, **OPTIONS)
    with pytest.raises(Exception, match="train-00001"):
        list(batches.as_numpy_iterator())
    with pytest.raises(DatasetError, match=r"train-00001\.tfrecord cannot be read: not found"):
        log.raise_if_stopped()


def test_a_shard_of_another_size_is_named(http, url):
    with (http.folder / "train-00000.tfrecord").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DatasetError, match=r"http.*train-00000\.tfrecord has \d+ bytes"):
        load_packed(url)


def test_packing_to_s3_writes_what_packing_to_a_folder_writes(bucket, dataset, packed):
    bucket.put("set/train-00077.tfrecord", b"of an earlier packing that did not finish")
    index = pack(dataset, AUDIO, f"{bucket.url}/set", shard_mb=0.03, progress=False)
    assert str(index) == f"{bucket.url}/set/index.json"
    local = {path.name for path in packed.iterdir()} - {".lock"}
    assert {key.removeprefix("set/") for key in bucket.names("set/")} == local
    for name in local:
        assert bucket.get(f"set/{name}") == (packed / name).read_bytes()
    assert read(f"{bucket.url}/set") == read(str(packed))
    with pytest.raises(ConfigError, match="already has a packed data set"):
        pack(dataset, AUDIO, f"{bucket.url}/set", progress=False)
    with pytest.raises(ConfigError, match="can only be read"):
        pack(dataset, AUDIO, "http://127.0.0.1:1/set", progress=False)


def test_packing_that_fails_publishes_no_index(bucket, dataset, monkeypatch):
    def fail(*_):
        raise OSError(103, "on purpose")

    monkeypatch.setattr(remote.RemotePath, "upload", fail)
    with pytest.raises(OSError, match="on purpose"):
        pack(dataset, AUDIO, f"{bucket.url}/set", shard_mb=0.03, progress=False)
    assert bucket.names() == []
