"""Scanning audio files, logging bad ones, finding missing ones."""

from __future__ import annotations

import csv
import threading

import numpy as np
import pytest
import soundfile

from rfkeras.datasets.base import AudioDataset, BadFile, BadFileLog, Published, Split
from rfkeras.datasets.checks import (
    check_present,
    differences,
    missing_files,
    overlaps,
    scan_split,
)
from rfkeras.errors import AudioError, ConfigError, DatasetError
from tests.datasets.conftest import music, split_of
from tests.helpers.layouts import write_tone


@pytest.fixture
def mixed(tmp_path):
    """Return ten files: 0 to 6 good (three at 44.1 kHz), 7 empty, 8 truncated, 9 missing."""
    paths = [tmp_path / f"{row}.wav" for row in range(10)]
    for row, path in enumerate(paths[:9]):
        soundfile.write(path, music(0.2, 8000, 1), 44100 if row < 3 else 22050)
    paths[7].write_bytes(b"")
    paths[8].write_bytes(paths[8].read_bytes()[:-10])
    labels = np.zeros((10, 2), np.float32)
    return Split(tuple(map(str, range(10))), tuple(paths), labels, labels)


def test_scan_returns_good_rows_bad_files_and_resampling(mixed):
    result = scan_split(mixed, workers=2, progress=True)
    np.testing.assert_array_equal(result.good_rows, range(7))
    assert [file.path for file in result.bad] == [str(path) for path in mixed.paths[7:]]
    assert [file.reason.split(":")[0].split(" (")[0] for file in result.bad] == [
        "empty file",
        "truncated",
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
