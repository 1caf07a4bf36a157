"""Scanning audio files, logging bad ones, finding missing ones."""

from __future__ import annotations

import csv
import threading

import numpy as np
import pytest
import soundfile

from rfkeras.datasets.base import AudioDataset, BadFile, BadFileLog, Published, Split
from rfkeras.datasets.checks import (
    check_dataset,
    check_present,
    differences,
    equal_files,
    missing_files,
    notes,
    overlaps,
    scan_split,
)
from rfkeras.errors import AudioError, ConfigError, DatasetError
from tests.datasets.conftest import music, split_of
from tests.helpers.layouts import write_tone


@pytest.fixture
def mixed(tmp_path):
    """Return ten files: 0 to 6 good (three at 44.1 kHz), 7 empty, 8 a header, 9 missing."""
    paths = [tmp_path / f"{row}.wav" for row in range(10)]
    for row, path in enumerate(paths[:9]):
        soundfile.write(path, music(0.2, 8000, 1), 44100 if row < 3 else 22050)
    paths[7].write_bytes(b"")
    paths[8].write_bytes(paths[8].read_bytes()[:44])
    labels = np.zeros((10, 2), np.float32)
    return Split(tuple(map(str, range(10))), tuple(paths), labels, labels)


def test_scan_returns_good_rows_bad_files_and_resampling(mixed):
    result = scan_split(mixed, workers=2, progress=True)
    np.testing.assert_array_equal(result.good_rows, range(7))
    assert [file.path for file in result.bad] == [str(path) for path in mixed.paths[7:]]
    assert [file.reason.split(":")[0].split(" (")[0] for file in result.bad] == [
        "empty file",
        "no audio samples",
        "missing file or broken link",
    ]
    assert result.sample_rates == {44100: 3, 22050: 4}
    assert result.resampling(22050) == ["3 files 44100 Hz -> 22050 Hz"]
    assert result.resampling(32000) == [
        "4 files 22050 Hz -> 32000 Hz",
        "3 files 44100 Hz -> 32000 Hz",
    ]


def test_a_long_scan_prints_nothing_to_standard_output(mixed, capsys):
    result = scan_split(mixed.select([0] * 250), progress=True)
    assert len(result.good_rows) == 250
    captured = capsys.readouterr()
    assert captured.out == ""


def test_bad_files_are_written_and_the_limit_raises_an_error_with_names(mixed, tmp_path):
    report = tmp_path / "run" / "bad_files.csv"
    bad = scan_split(mixed).bad
    BadFileLog(report, total_files=10, max_bad_share=0.3).record_all(bad)
    with report.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [str(path) for path in mixed.paths[7:]]
    assert {row["stage"] for row in rows} == {"scan"}
    log = BadFileLog(report, total_files=10, max_bad_share=0.29)
    with pytest.raises(DatasetError, match=r"3 of 10 .* limit is 29\.00%.*7\.wav: empty") as e:
        log.record_all(bad)
    assert "raise max_bad_share (--max-bad-share) above 0.3000" in str(e.value)
    with pytest.raises(DatasetError, match="3 of 10"):
        log.raise_if_stopped()
    assert not list(report.parent.glob("*.part*"))


def test_one_percent_is_the_default_limit():
    log = BadFileLog(None, total_files=200)
    log.record(AudioError("a", "why"), "scan")
    log.record(AudioError("b", "why"), "scan")
    log.record(AudioError("b", "again"), "training")  # counts once
    with pytest.raises(DatasetError, match="3 of 200"):
        log.record(AudioError("c", "why"), "scan")


def test_the_log_is_thread_safe(tmp_path):
    log = BadFileLog(tmp_path / "bad.csv", total_files=100, max_bad_share=1.0)

    def record(first: int) -> None:
        for number in range(first, first + 20):
            log.record_all([BadFile(f"{number:03d}", "why", "scan")])

    threads = [threading.Thread(target=record, args=(first,)) for first in range(0, 80, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with (tmp_path / "bad.csv").open(newline="") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [
            f"{n:03d}" for n in range(90)
        ]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_the_limit_must_be_a_share(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        BadFileLog(None, total_files=1, max_bad_share=share)


# Differences from what is published


def test_clips_labels_and_overlaps_are_compared():
    splits = {
        "train": split_of(np.eye(2), ("ann", "bob")),
        "validation": split_of(np.eye(2), ("cid", "bob"), prefix="v"),
        "test": split_of([[1, 0]], ("ann",)),  # same key as the first clip of train
    }
    published = Published("https://x", {"train+validation": 4, "test": 2}, 3, group="artist")
    dataset = AudioDataset("x", ("a", "b"), splits, published=published, remarks=("hm",))
    assert overlaps(dataset) == {
        "key": {"train, test": ["clip0"]},
        "artist": {"train, validation": ["bob"], "train, test": ["ann"]},
    }
    assert differences(dataset) == [
        "hm",
        "1 test clip; the published data set has 2",
        "2 labels; the published data set has 3",
        "1 key is in both train and test: clip0",
        "1 artist is in both train and validation: bob",
        "1 artist is in both train and test: ann",
    ]
    own = AudioDataset("x", ("a", "b"), {"train": splits["train"]})
    assert differences(own) == []


# Missing audio


def test_missing_audio_is_one_error_with_three_names(tmp_path):
    split = split_of(np.eye(40), folder=tmp_path)
    for path in split.paths[:30]:
        path.touch()
    assert missing_files(split.paths) == list(split.paths[30:])
    dataset = AudioDataset(
        "set", tuple(map(str, range(40))), {"test": split}, published=Published("https://x")
    )
    check_present(dataset, max_bad_share=0.25)
    with pytest.raises(DatasetError) as caught:
        check_present(dataset, max_bad_share=0.24)
    assert str(caught.value) == (
        f"10 of the 40 audio files of set are missing: {tmp_path}/clip30.wav, "
        f"{tmp_path}/clip31.wav, {tmp_path}/clip32.wav and 7 more. Get them from https://x. "
        "To continue without them, raise max_bad_share (--max-bad-share) above 0.2500."
    )
    check_present(dataset, ("train",), max_bad_share=0.0)  # the test split is not checked


def test_the_error_questions_the_folder_if_all_files_are_missing(tmp_path):
    dataset = AudioDataset("set", ("a", "b"), {"test": split_of(np.eye(2), folder=tmp_path)})
    with pytest.raises(DatasetError, match=r"2 of the 2 .*Is the folder right .*--audio-dir"):
        check_present(dataset, max_bad_share=0.5)


def test_a_file_much_shorter_than_in_the_metadata_is_truncated(tmp_path):
    split = split_of(np.eye(3), folder=tmp_path)
    for path in split.paths:
        write_tone(path, 3.0)
    seconds = np.array([3.0, 4.9, 5.5])
    split = Split(split.keys, split.paths, split.labels, split.mask, seconds=seconds)
    result = scan_split(split, expected_seconds=100.0)
    np.testing.assert_array_equal(result.good_rows, [0, 1])
    assert result.bad[0].reason == "truncated: 3.00 s long, expected 5.5 s"
    assert [info.duration_seconds for info in result.infos] == [3.0, 3.0]


def test_damaged_files_are_used_but_fail_the_check(mixed):
    path = mixed.paths[0]
    path.write_bytes(path.read_bytes()[:-400])
    split = mixed.select([0, 1, 3])
    scan = scan_split(split)
    assert (len(scan.good_rows), len(scan.infos[0].notes)) == (3, 1)
    check = check_dataset(AudioDataset("d", ("a", "b"), {"train": split}), progress=False)
    assert not check.ok
    assert check.bad == []
    assert [file.path for file in check.damaged] == [str(path)]
    assert check.damaged[0].reason == "; ".join(scan.infos[0].notes)


# What looks wrong


def test_tags_without_clips_in_a_split_and_odd_names_are_noted():
    labels = np.eye(4)
    dataset = AudioDataset(
        "d",
        ("Guitar", "guitar", "x;y", "never"),
        {"train": split_of(labels[[0, 1, 2]]), "test": split_of(labels[[0, 0]], prefix="t")},
        notes=("left out 1 file: a.mid",),
    )
    assert notes(dataset) == [
        "left out 1 file: a.mid",
        "tags that differ only in case or spaces: 'Guitar' and 'guitar'",
        "tags that look like a list of several tags: 'x;y'",
        "2 tags without clips in test: guitar, x;y",
    ]
    assert differences(dataset) == []


def test_an_unknown_label_is_no_clip_of_a_tag():
    train = split_of([[1, 1]])
    test = split_of([[1, 0]], mask=[[1, 0]], prefix="t")
    dataset = AudioDataset("d", ("a", "b"), {"train": train, "test": test})
    assert notes(dataset) == ["1 tag without clips in test: b"]


@pytest.fixture
def copies(tmp_path):
    """Return splits with copies: of a train clip in train and test, and of a test clip."""
    start = b"x" * 70_000  # longer than what is read first
    contents = {
        "train": [start + b"1", start + b"2", start + b"1", b"", b"short"],
        "test": [start + b"1", start + b"3", b"", b"short2", start + b"3"],
    }
    splits = {}
    for name, files in contents.items():
        splits[name] = split_of(np.ones((len(files), 1)), folder=tmp_path, prefix=name)
        for path, content in zip(splits[name].paths, files, strict=True):
            path.write_bytes(content)
    return splits


def test_equal_files_are_found_within_and_across_splits(copies):
    dataset = AudioDataset("folder", ("a",), copies)
    found = equal_files(dataset)
    assert found.pairs == {
        "train": [("train0", "train2")],
        "train, test": [("train0", "test0")],
        "test": [("test1", "test4")],
    }
    assert found.notes() == [
        "1 file of train has the same content as another: train0 = train2",
        "1 file of train and test has the same content as another: train0 = test0",
        "1 file of test has the same content as another: test1 = test4",
    ]
    copies["test"].paths[0].unlink()
    assert "train, test" not in equal_files(dataset).pairs


def test_files_of_another_size_or_beginning_are_not_read_as_a_whole(copies, monkeypatch):
    def fail(*_):
        raise AssertionError("the whole file was read")

    for split in copies.values():
        for number, path in enumerate(split.paths):
            path.write_bytes(f"{path.name}".encode() * (1 + number % 2))
    monkeypatch.setattr("hashlib.file_digest", fail)
    assert equal_files(AudioDataset("folder", ("a",), copies)).pairs == {}


def test_equal_files_across_splits_fail_the_check_of_own_data(copies, tmp_path):
    sound = music(0.2, 8000, 1)
    for number, path in enumerate([*copies["train"].paths, *copies["test"].paths]):
        soundfile.write(path, sound * (1 if number in (0, 1, 5) else 1 / (number + 1)), 8000)
    own = check_dataset(AudioDataset("folder", ("a",), copies), progress=False)
    assert not own.ok
    assert own.differences == [
        "1 file of train and test has the same content as another: train0 = test0"
    ]
    assert own.notes == ["1 file of train has the same content as another: train0 = train1"]
    published = AudioDataset("d", ("a",), copies, published=Published("home"))
    known = check_dataset(published, progress=False)
    assert known.ok
    assert len(known.notes) == 2
    assert check_dataset(AudioDataset("folder", ("a",), copies), audio=False).ok
