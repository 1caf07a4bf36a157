"""`rfkeras tag` and `rfkeras embed` with inputs and outputs at URLs."""

import json

import numpy as np
import pytest
import soundfile
from keras import layers

from rfkeras.cli import main
from rfkeras.inference import StreamTagger, batch
from rfkeras.utils import remote
from tests.helpers.taggers import RATE_HZ, custom_tagger, music

NAMES = ("a b.wav", "deep/söng.wav", "z.wav")


@pytest.fixture(scope="module")
def tagger():
    return StreamTagger(custom_tagger(layers.Conv2D(2, (9, 3), strides=(16, 2))), 2.0)


@pytest.fixture
def tag(tagger, tmp_path, capsys, monkeypatch):
    """Run the command; return exit status, standard output and standard error."""
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", lambda options: tagger)
    monkeypatch.setattr("rfkeras.cli.embed.open_tagger", lambda options: tagger)
    (tmp_path / "m.keras").write_bytes(b"only its digest is used")

    def command(*arguments, name="tag"):
        status = main.run([name, "--model", str(tmp_path / "m.keras"), *map(str, arguments)])
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def songs(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, music(RATE_HZ + number), RATE_HZ)
    (tmp_path / "album" / "cover.jpg").write_bytes(b"picture")
    return tmp_path / "album"


@pytest.fixture
def album(bucket, songs):
    """Return the URL of the songs in a bucket."""
    bucket.put_folder(songs, "album")
    return f"{bucket.url}/album"


def records(content):
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("decoder", ["soundfile", "isolated"])
def test_a_bucket_is_tagged_into_a_bucket(tag, songs, album, bucket, tmp_path, decoder):
    output = f"{bucket.url}/out/tags.jsonl"
    status, out, err = tag(album, "--output", output, "--decoder", decoder)
    assert (status, out) == (0, ""), err
    assert f"3 files tagged. Tags: {output}" in err
    assert "left out 1 file without an audio suffix: 1 .jpg" in err
    found = records(bucket.get("out/tags.jsonl"))
    assert [record["path"] for record in found] == [f"{album}/{name}" for name in NAMES]
    tag(songs, "--output", tmp_path / "local.jsonl")
    for there, here in zip(
        found, records((tmp_path / "local.jsonl").read_bytes()), strict=True
    ):
        assert there["scores"] == here["scores"]
        assert there["source_bytes"] == here["source_bytes"]
        assert there["absolute_path"] == there["path"]


def test_a_remote_journal_is_continued(tag, songs, album, bucket, monkeypatch):
    output = f"{bucket.url}/tags.jsonl"
    bucket.put("album/deep/söng.wav", b"RIFF")
    status, _, err = tag(album, "--output", output)
    assert status == 1
    assert f"{album}/deep/söng.wav: " in err
    assert "rfkeras-" not in err  # the name of the local copy
    status, _, err = tag(album, "--output", output)
    assert status == 1
    assert "already contains results. Use --skip-existing" in err
    before = bucket.get("tags.jsonl")
    bucket.put("album/deep/söng.wav", (songs / NAMES[1]).read_bytes())
    monkeypatch.setattr(remote, "_copies", remote._Copies())  # as in a new process
    status, _, err = tag(album, "--output", output, "--skip-existing")
    assert status == 0
    assert "1 file tagged, 2 done before" in err
    after = records(bucket.get("tags.jsonl"))
    assert sorted(record["path"] for record in after) == [f"{album}/{name}" for name in NAMES]
    assert [record for record in records(before) if "error" not in record] == after[:2]


def test_an_interrupted_job_uploads_its_finished_lines(tag, album, bucket, tagger, monkeypatch):
    output = f"{bucket.url}/tags.jsonl"
    original, calls = StreamTagger.run_file, []

    def run_file(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            assert len(records(bucket.get("tags.jsonl"))) == 2  # uploaded from time to time
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(StreamTagger, "run_file", run_file)
    monkeypatch.setattr(batch, "_UPLOAD_SECONDS", 0.0)
    # Uploads that take as long as here are followed at once by the next.
    monkeypatch.setattr(batch.Journal, "_upload", uploading_always(batch.Journal._upload))
    status, _, err = tag(album, "--output", output)
    assert status == 130, err
    assert len(records(bucket.get("tags.jsonl"))) == 2


def uploading_always(upload):
    def changed(journal):
        upload(journal)
        journal._uploaded = (*journal._uploaded[:2], 0.0)

    return changed


def test_results_that_cannot_be_uploaded_are_kept(tag, album, bucket, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(103, "the connection failed", f"{bucket.url}/tags.jsonl")

    monkeypatch.setattr(remote.RemotePath, "upload", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, _, err = tag(album, "--output", f"{bucket.url}/tags.jsonl")
    assert status == 1
    assert "tags.jsonl cannot be written: the connection failed" in err
    [kept] = tmp_path.glob("*.jsonl")
    assert str(kept) in err
    assert len(records(kept.read_bytes())) == 3
    assert "tags.jsonl" not in bucket.names()


def test_other_outputs_are_uploaded_when_complete(tag, songs, album, bucket):
    for name in ("tags.csv", "tags.json", "tags.txt"):
        status, _, err = tag(album, "--output", f"{bucket.url}/{name}")
        assert status == 0, err
    assert bucket.get("tags.csv").count(b"s3://") == 3
    assert len(json.loads(bucket.get("tags.json"))["files"]) == 3
    status, _, err = tag(
        album, "--output-dir", f"{bucket.url}/side", "--plot", f"{bucket.url}/p"
    )
    assert status == 0, err
    assert bucket.names("side/") == [f"side/{name}.tags.json" for name in NAMES]
    assert bucket.get("p/z.wav.png").startswith(b"\x89PNG")
    status, _, err = tag(album, "--output-dir", f"{bucket.url}/side", "--skip-existing")
    assert (status, "3 done before" in err) == (0, True)
    status, _, err = tag(album, "--output", f"{bucket.url}/x.npy", name="embed")
    assert status == 0, err
    assert len(bucket.get("x.files.csv").splitlines()) == 4


def test_lists_name_urls_and_can_be_at_urls(tag, songs, album, bucket, http, tmp_path):
    (http.folder / "web song.wav").write_bytes((songs / "z.wav").read_bytes())
    lines = [f"{http.url}/web song.wav", f"{album}/{NAMES[1]}", str(songs / "z.wav")]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    bucket.put("album/list.m3u8", f"#EXTM3U\n{NAMES[0]}\n".encode())
    lists = ("--files-from", tmp_path / "list.txt", "--files-from", f"{album}/list.m3u8")
    status, out, err = tag(*lists, "--format", "jsonl")
    assert status == 0, err
    found = records(out)
    assert [record["path"] for record in found] == [*lines, f"{album}/{NAMES[0]}"]
    assert found[0]["scores"] == found[2]["scores"]


def test_bad_remote_files_are_reported_and_the_others_tagged(tag, songs, http, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01,) * 3)
    (http.folder / "good.wav").write_bytes((songs / "z.wav").read_bytes())
    (http.folder / "cut.wav").write_bytes((songs / "z.wav").read_bytes())
    http.break_after = [100] * 99
    urls = [f"{http.url}/{name}.wav" for name in ("cut", "absent", "good")]
    status, out, err = tag(urls[0], urls[1], "--format", "jsonl")
    assert status == 1
    cut, absent = records(out)
    assert "the connection failed after 4 attempts" in cut["error"]
    assert absent["error"] == "unreadable: not found"
    http.break_after = [100, 200]
    status, out, _ = tag(*urls, "--format", "jsonl")
    assert status == 1
    assert ["error" in record for record in records(out)] == [False, True, False]


def test_the_copies_of_a_long_job_stay_within_the_limit(tag, songs, http, monkeypatch):
    size = (songs / "z.wav").stat().st_size
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(2.5 * size / 1e9))
    monkeypatch.setattr(remote, "_copies", remote._Copies())
    for number in range(8):
        (http.folder / f"{number}.wav").write_bytes((songs / "z.wav").read_bytes())
    largest = []
    original = StreamTagger.run_file

    def run_file(self, *arguments, **options):
        copies = remote._copies._copies.values()
        largest.append(sum(copy.path.stat().st_size for copy in copies))
        return original(self, *arguments, **options)

    monkeypatch.setattr(StreamTagger, "run_file", run_file)
    status, _, err = tag(http.url, "--format", "jsonl")
    assert status == 0, err
    assert len(largest) == 8
    assert 2 * size <= max(largest) <= 2.5 * size + 100


def test_an_address_that_can_only_be_read_is_refused_at_once(tag, songs):
    for flag in ("--output=http://a/x.jsonl", "--output-dir=http://a/x"):
        status, _, err = tag(songs, flag)
        assert status == 1
        assert "http:// and https:// can only be read" in err


def test_a_bucket_without_audio_is_an_error(tag, bucket):
    bucket.put("notes/readme.txt", b"text")
    status, _, err = tag(f"{bucket.url}/notes")
    assert status == 1
    assert f"Found no audio in {bucket.url}/notes" in err
    status, _, err = tag(f"{bucket.url}/absent")
    assert status == 1
    assert f"{bucket.url}/absent: unreadable: not found" in err


def test_embeddings_of_remote_sounds_equal_local_ones(tag, songs, album, tmp_path):
    tag(album, "--output", tmp_path / "there.npy", name="embed")
    tag(songs, "--output", tmp_path / "here.npy", name="embed")
    np.testing.assert_array_equal(
        np.load(tmp_path / "there.npy"), np.load(tmp_path / "here.npy")
    )
