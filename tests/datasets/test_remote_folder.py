"""Your own data at URLs: class folders and tables on S3 and at an HTTP server."""

import numpy as np
import pytest
import soundfile

from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.datasets.base import BadFileLog
from rfkeras.datasets.checks import check_dataset, check_present, equal_files
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.pipeline import training_batches
from rfkeras.errors import DatasetError
from rfkeras.utils import remote
from tests.datasets.conftest import music

AUDIO = AudioFormat(8000)
CLASSES = ("rock & roll", "müsli #1")


@pytest.fixture
def local(tmp_path):
    """Return a folder with ten sounds in each of two class folders, and a table of them."""
    root = tmp_path / "served" / "my set"
    rows = ["path,labels"]
    for number, name in enumerate(CLASSES):
        for row in range(10):
            path = root / name / f"söng {row}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, music(0.3, 8000, 1, seed=100 * number + row), 8000)
            rows.append(f"{name}/{path.name},{name}")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.wav").write_bytes(b"")
    (root / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture(params=["s3", "http"])
def url(request, local):
    """Return the URL of the same folder."""
    if request.param == "http":
        return f"{request.getfixturevalue('http').url}/my%20set"
    bucket = request.getfixturevalue("bucket")
    bucket.put_folder(local, "my set")
    return f"{bucket.url}/my set"


@pytest.fixture
def http(tmp_path):
    """Return an HTTP server of the folder `served`."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    from tests.helpers.remote import HttpServer

    (tmp_path / "served").mkdir(exist_ok=True)
    server = HttpServer(tmp_path / "served")
    yield server
    server.close()


def batches(split, **options):
    log = BadFileLog(None, total_files=len(split))
    counts = {"batch_size": 4, "seed": 3, "steps_per_epoch": 3, "total_steps": 6}
    data = training_batches(
        split, AUDIO, excerpt_seconds=0.2, bad_files=log, **{**counts, **options}
    )
    return [
        np.concatenate([each.ravel() for each in batch]) for batch in data.as_numpy_iterator()
    ]


@pytest.mark.parametrize("table", [False, True])
def test_a_remote_set_gives_the_splits_and_batches_of_the_local_one(local, url, table):
    ending = "/clips.csv" if table else ""
    there = load_dataset("folder", data_dir=url + ending)
    here = load_dataset("folder", data_dir=f"{local}{ending}")
    assert there.label_names == here.label_names == tuple(sorted(CLASSES))
    for name, split in here.splits.items():
        assert there.splits[name].keys == split.keys
        np.testing.assert_array_equal(there.splits[name].labels, split.labels)
    check_present(there, max_bad_share=0)
    assert equal_files(there).pairs == {}
    train = there.splits["train"]
    np.testing.assert_array_equal(batches(train), batches(here.splits["train"]))
    np.testing.assert_array_equal(batches(train, start_step=4), batches(train)[4:])
    isolated = batches(train, decoder="isolated", total_steps=1)
    np.testing.assert_array_equal(isolated, batches(train)[:1])
    if not table:
        assert "1 hidden file or folder" in there.notes[0]


def test_a_whole_remote_set_is_checked(url, local):
    (local / "clips.csv").unlink()
    check = check_dataset(load_dataset("folder", data_dir=url))
    assert check.ok
    assert [split.clips for split in check.splits.values()] == [14, 3, 3]


def test_missing_remote_files_are_counted_before_any_is_read(http, local):
    with (local / "clips.csv").open("a") as table:
        table.write("absent.wav,rock & roll\n")
    dataset = load_dataset("folder", data_dir=f"{http.url}/my%20set/clips.csv")
    http.requests.clear()
    with pytest.raises(DatasetError, match=r"1 of the 21 .* missing: http.*absent\.wav"):
        check_present(dataset, max_bad_share=0)
    assert len(http.requests) <= 22  # the missing one is asked for by HEAD and GET


def test_looking_up_the_files_of_a_bucket_takes_a_request_per_folder(
    local, bucket, monkeypatch
):
    s3fs = pytest.importorskip("s3fs")
    bucket.put_folder(local, "set")
    dataset = load_dataset("folder", data_dir=f"{bucket.url}/set/clips.csv")
    calls = []
    original = s3fs.S3FileSystem._call_s3

    async def counted(self, method, *arguments, **options):
        calls.append(method)
        return await original(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    monkeypatch.setattr("rfkeras.datasets.checks._LISTED_FROM", 10)
    check_present(dataset, max_bad_share=0)
    assert "head_object" not in calls


def test_a_broken_remote_file_is_reported_by_its_url(http, local, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES_S", ())
    victim = local / CLASSES[0] / "söng 3.wav"
    victim.write_bytes(b"RIFF")
    dataset = load_dataset("folder", data_dir=f"{http.url}/my%20set")
    [bad] = check_dataset(dataset).bad
    assert bad.path == f"{http.url}/my%20set/rock%20%26%20roll/s%C3%B6ng%203.wav"
    assert "rfkeras-" not in bad.reason  # the name of the local copy


def test_urls_in_a_table_need_the_permission_for_absolute_paths(http, local, tmp_path):
    sound = f"{http.url}/my%20set/rock%20%26%20roll/"
    rows = "".join(f"{sound}s%C3%B6ng%20{row}.wav,{'ab'[row % 2]}\n" for row in range(10))
    table = tmp_path / "urls.csv"
    table.write_text(f"path,labels\n{rows}")
    with pytest.raises(DatasetError, match="is outside .*--allow-absolute"):
        load_dataset("folder", data_dir=table)
    train = load_dataset("folder", data_dir=table, allow_absolute=True).splits["train"]
    with remote.local_copy(train.paths[0]) as copy:
        assert len(read_audio(copy, AUDIO)) == 2400


def test_absent_and_empty_remote_folders_are_clear_errors(bucket, http, tmp_path):
    with pytest.raises(DatasetError, match=r"s3://.*/absent does not exist"):
        load_dataset("folder", data_dir=f"{bucket.url}/absent")
    (tmp_path / "served" / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"http://.*/empty has no sub-folders"):
        load_dataset("folder", data_dir=f"{http.url}/empty")
