"""check_file finds cuts; scan_split and BadFileLog report and limit bad files."""

from __future__ import annotations

import contextlib
import csv
import threading

import numpy as np
import pytest
import soundfile

from rfkeras.data.bad_files import BadFile, BadFileLog
from rfkeras.data.dataset import Split
from rfkeras.data.integrity import check_file
from rfkeras.data.scan import scan_split
from rfkeras.errors import AudioError, ConfigError, DatasetError
from tests.data.conftest import music

FORMATS = {
    "pcm16.wav": ("WAV", "PCM_16", 44100),
    "float.wav": ("WAV", "FLOAT", 44100),
    "extensible.wav": ("WAVEX", "PCM_24", 44100),
    "rf64.wav": ("RF64", "PCM_16", 44100),
    "pcm16.flac": ("FLAC", "PCM_16", 44100),
    "vorbis.ogg": ("OGG", "VORBIS", 44100),
    "opus.opus": ("OGG", "OPUS", 48000),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", 44100),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, (container, subtype, rate) in FORMATS.items():
        soundfile.write(folder / name, music(2.0, rate), rate, subtype, None, container)
    return folder


def cuts(size: int) -> list[int]:
    """Bytes to keep: in the header, throughout the audio, and just before the end."""
    shares = [int(size * share) for share in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)]
    return [0, 1, 10, 44, 60, 200, *shares, size - 1000, size - 100, size - 4, size - 1]


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_passes(files, name):
    info = check_file(files / name, expected_seconds=2.0)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_anywhere_is_found_without_knowing_the_length(files, tmp_path, name):
    data = (files / name).read_bytes()
    for keep in cuts(len(data)):
        path = tmp_path / name
        path.write_bytes(data[:keep])
        with pytest.raises(AudioError) as caught:
            check_file(path)
        assert caught.value.path == str(path)
        if keep >= len(data) * 0.75:
            assert "truncated" in caught.value.reason, (keep, caught.value.reason)


def without_xing(data: bytes) -> bytes:
    return data.replace(b"Xing", bytes(4), 1).replace(b"Info", bytes(4), 1)


def test_mp3_without_a_frame_count_tells_a_cut_inside_a_frame_only(files, tmp_path):
    data = without_xing((files / "layer3.mp3").read_bytes())
    path = tmp_path / "plain.mp3"
    path.write_bytes(data)
    assert check_file(path).duration_seconds > 2
    path.write_bytes(data[:-1])
    with pytest.raises(AudioError, match="ends inside an MPEG frame"):
        check_file(path)
    between_frames = data.rfind(b"\xff\xfb")
    path.write_bytes(data[:between_frames])
    check_file(path)  # a whole file, one frame shorter: nothing in it says otherwise
    path.write_bytes(data[: data.find(b"\xff\xfb", len(data) // 2)])
    with pytest.raises(AudioError, match=r"long, expected 2 s"):
        check_file(path, expected_seconds=2.0)


def test_a_wav_written_to_a_pipe_declares_no_size_and_passes(files, tmp_path):
    data = bytearray((files / "pcm16.wav").read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = b"\xff" * 4
    data[4:8] = b"\xff" * 4
    (tmp_path / "piped.wav").write_bytes(data)
    assert check_file(tmp_path / "piped.wav").frames == 88200


@pytest.mark.parametrize("name", FORMATS)
def test_tags_or_garbage_after_the_audio_are_no_cut(files, tmp_path, name):
    path = tmp_path / name
    path.write_bytes((files / name).read_bytes() + b"TAG" + bytes(125))
    assert check_file(path).frames == check_file(files / name).frames


def test_an_id3_tag_before_the_audio_is_skipped(files, tmp_path):
    path = tmp_path / "tagged.mp3"
    tag = b"ID3\x04\0\0" + bytes([0, 0, 0x10, 0]) + b"\xff\xfb" + bytes(2046)
    path.write_bytes(tag + (files / "layer3.mp3").read_bytes())
    assert check_file(path).duration_seconds == pytest.approx(2.0, abs=0.001)


def test_a_file_shorter_than_the_data_set_promises_is_truncated(files):
    check_file(files / "pcm16.wav", expected_seconds=2.05)
    with pytest.raises(AudioError, match=r"truncated: 2\.00 s long, expected 3 s"):
        check_file(files / "pcm16.wav", expected_seconds=3.0)
    check_file(files / "pcm16.wav", expected_seconds=3.0, tolerance_seconds=1.5)


def test_the_real_openmic_clip_is_whole_and_every_cut_of_it_is_found(shared_folder, tmp_path):
    clip = shared_folder / "datasets" / "openmic" / "000046_3840.ogg"
    info = check_file(clip, expected_seconds=10.0)
    assert (info.sample_rate_hz, info.channels, info.frames) == (44100, 2, 441000)
    data = clip.read_bytes()
    for keep in cuts(len(data)):
        (tmp_path / "cut.ogg").write_bytes(data[:keep])
        with pytest.raises(AudioError):
            check_file(tmp_path / "cut.ogg", expected_seconds=None)


def test_mutated_files_raise_audio_errors_or_read(files, tmp_path):
    rng = np.random.default_rng(0)
    for name in FORMATS:
        data = (files / name).read_bytes()
        for _ in range(15):
            mutated = np.frombuffer(data, np.uint8).copy()
            mutated[rng.integers(0, min(len(data), 400), 8)] = rng.integers(0, 256, 8)
            (tmp_path / name).write_bytes(mutated.tobytes())
            with contextlib.suppress(AudioError):  # anything else fails the test
                check_file(tmp_path / name, expected_seconds=2.0)


@pytest.fixture
def mixed(tmp_path):
    """Ten files: 0 to 6 good (three at 44.1 kHz), 7 empty, 8 cut, 9 missing."""
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


def test_a_long_scan_shows_a_bar_on_standard_error(mixed, capsys):
    result = scan_split(mixed.select([0] * 250), progress=True)
    assert len(result.good_rows) == 250
    captured = capsys.readouterr()
    assert captured.out == ""


def test_bad_files_are_written_and_the_limit_stops_with_names(mixed, tmp_path):
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


def test_log_is_thread_safe(tmp_path):
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
def test_limit_must_be_a_share(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        BadFileLog(None, total_files=1, max_bad_share=share)
