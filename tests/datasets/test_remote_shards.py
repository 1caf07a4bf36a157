"""Shards at s3:// and http:// URLs, read in child processes from a local server."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from rfkeras.audio.io import AudioFormat
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split
from rfkeras.datasets.pack import pack
from rfkeras.datasets.packed import is_remote, load_packed
from rfkeras.datasets.pipeline import training_batches
from tests.datasets.conftest import music
from tests.helpers.processes import start

pytest.importorskip("tensorflow_io")
pytest.importorskip("moto")
pytest.importorskip("flask_cors")

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
def server():
    """Return the base URL of an S3 server (moto) in a separate process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(ConnectionError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            assert process.poll() is None, "the S3 server ended"
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def packed(server, tmp_path_factory):
    """Return the local folder of a packed data set that is also in the server's bucket."""
    folder = tmp_path_factory.mktemp("remote")
    paths = []
    for row in range(12):
        paths.append(folder / f"{row}.wav")
        soundfile.write(paths[-1], music(0.5, 8000, 1, seed=row), 8000)
    labels = np.eye(12, 4, dtype=np.float32)
    keys = tuple(path.name for path in paths)
    dataset = AudioDataset(
        "tones", tuple("abcd"), {"train": Split(keys, tuple(paths), labels, labels)}
    )
    out = folder / "packed"
    pack(dataset, AUDIO, out, shard_mb=0.03, progress=False)
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=server,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="shards", ACL="public-read")
    for path in out.iterdir():
        client.put_object(
            Bucket="shards",
            Key=f"tones/{path.name}",
            Body=path.read_bytes(),
            ACL="public-read",
        )
    client.close()
    return out


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


def start_child(server: str, path: str, decoder: str, ending: str):
    """Start a process that reads the shards from the server."""
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "S3_ENDPOINT": server,
        "S3_USE_HTTPS": "0",
        "S3_VERIFY_SSL": "0",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    code = CHILD.replace("{options}", repr(OPTIONS))
    return start("-c", code, path, decoder, ending, **environment)


@pytest.mark.parametrize(
    ("path", "decoder", "ending", "status"),
    [
        ("s3://shards/tones", "soundfile", "return", 0),
        ("s3://shards/tones", "tfio", "exit", 7),
        ("s3://shards/tones", "soundfile", "raise", 1),
        ("http", "tfio", "exit", 7),
    ],
)
def test_remote_shards_equal_local_ones_and_the_exit_status_is_correct(
    server, packed, path, decoder, ending, status
):
    url = path if path != "http" else f"{server}/shards/tones"
    child = start_child(server, url, decoder, ending)
    out, errors = child.communicate(timeout=120)
    assert child.returncode == status, errors
    assert out.split("\n")[:2] == [local_digest(packed), "atexit ran"]
    assert "pure virtual" not in errors
    assert ("ValueError: on purpose" in errors) == (ending == "raise")


def test_a_missing_remote_data_set_is_a_clear_error(server, packed):
    child = start_child(server, "s3://shards/absent", "soundfile", "return")
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "DatasetError: s3://shards/absent/index.json cannot be read" in errors
    assert "credentials" in errors


def test_urls_are_recognised():
    for path in ("s3://a/b", "az://a/b", "hdfs://a/b", "http://a/b", "https://a/b"):
        assert is_remote(path)
    for path in ("/a/b", "a/b", "s3/a", "./http:/a"):
        assert not is_remote(path)
