"""read_audio: every format, against soundfile and soxr themselves."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
import soxr

from rfkeras.audio.io import AudioFile, AudioFormat, check_file, probe, read_audio, to_channels
from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.datasets.base import BadFile, BadFileLog, Split
from rfkeras.datasets.checks import scan_split
from rfkeras.errors import AudioError, ConfigError, DatasetError
from rfkeras.training.data import open_dataset, open_inputs
from tests.datasets.conftest import music
from tests.helpers.layouts import (
    RATE_HZ,
    TRACKS,
    write_dcase,
    write_gtzan,
    write_jamendo,
    write_jamendo_audio,
    write_magnatagatune,
)

# name, container, subtype, rate, largest difference from what was written
FORMATS = [
    ("pcm16.wav", "WAV", "PCM_16", 44100, 2**-15),
    ("pcm24.wav", "WAV", "PCM_24", 44100, 2**-23),
    ("pcm32.wav", "WAV", "PCM_32", 44100, 2**-23),
    ("float.wav", "WAV", "FLOAT", 44100, 0),
    ("extensible.wav", "WAVEX", "PCM_24", 44100, 2**-23),
    ("rf64.wav", "RF64", "PCM_16", 44100, 2**-15),
    ("pcm16.flac", "FLAC", "PCM_16", 44100, 2**-15),
    ("pcm24.flac", "FLAC", "PCM_24", 44100, 2**-23),
    ("vorbis.ogg", "OGG", "VORBIS", 44100, 0.2),
    ("opus.opus", "OGG", "OPUS", 48000, 0.2),
    ("layer3.mp3", "MP3", "MPEG_LAYER_III", 44100, 0.2),
]


@pytest.fixture(scope="module", params=FORMATS, ids=[entry[0] for entry in FORMATS])
def written(request, tmp_path_factory):
    name, container, subtype, rate, tolerance = request.param
    path = tmp_path_factory.mktemp("formats") / name
    signal = music(1.5, rate)
    soundfile.write(path, signal, rate, format=container, subtype=subtype)
    return path, signal, rate, tolerance


def test_probe_says_what_was_written(written):
    path, signal, rate, _ = written
    info = probe(path)
    assert (info.sample_rate_hz, info.channels, info.frames) == (rate, 2, len(signal))
    assert info.duration_seconds == pytest.approx(1.5)


def test_every_format_reads_as_written_and_as_soundfile_reads_it(written):
    path, signal, rate, tolerance = written
    stereo = read_audio(path, AudioFormat(rate, 2))
    assert stereo.dtype == np.float32
    assert stereo.shape == signal.shape
    np.testing.assert_array_equal(stereo, soundfile.read(path, dtype="float32")[0])
    assert np.abs(stereo - signal).max() <= tolerance
    if tolerance >= 0.1:  # lossy: alike, not equal
        assert np.corrcoef(stereo.ravel(), signal.ravel())[0, 1] > 0.98


def test_bytes_read_like_the_file(written):
    path, _, rate, _ = written
    audio = AudioFormat(rate, 1)
    np.testing.assert_array_equal(read_audio(path.read_bytes(), audio), read_audio(path, audio))


def test_resampled_equals_soxr_on_the_mono_mix(written):
    path, _, rate, _ = written
    mono = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    expected = soxr.resample(mono, rate, 22050)
    np.testing.assert_allclose(read_audio(path, AudioFormat(22050)), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [22050, 32000, 44100, 48000])
def test_an_excerpt_is_a_slice_of_the_whole_with_an_exact_sample_count(written, rate):
    path, _, _, _ = written
    audio = AudioFormat(rate)
    whole = read_audio(path, audio)
    for start, duration in [(0.0, 0.5), (0.1234, 0.333), (0.7, 0.25), (0.9, 0.6)]:
        excerpt = read_audio(path, audio, start, duration)
        first = round(start * rate)
        assert excerpt.shape == (round(duration * rate),)
        np.testing.assert_allclose(excerpt, whole[first : first + len(excerpt)], atol=1e-6)


def test_resampling_keeps_a_tone_and_its_place(tmp_path):
    path = tmp_path / "tone.wav"
    time = np.arange(44100) / 44100
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 9000 * time), 44100, subtype="FLOAT")
    heard = read_audio(path, AudioFormat(22050))
    expected = 0.5 * np.sin(2 * np.pi * 9000 * np.arange(22050) / 22050)
    # No delay and no loss at 0.82 of Nyquist; the edges ring because the tone starts there.
    assert np.abs(heard - expected)[300:-300].max() < 1e-4


def test_resampling_removes_what_would_alias(tmp_path):
    path = tmp_path / "high.wav"
    time = np.arange(44100) / 44100
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 12500 * time), 44100, subtype="FLOAT")
    heard = read_audio(path, AudioFormat(22050))[300:-300]
    assert 20 * np.log10(np.abs(heard).max() / 0.5) < -90


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 1001, 11040])  # at 48000: 5071.5 of 22050
@pytest.mark.parametrize(
    "rates", [(44100, 22050), (8000, 22050), (48000, 32000), (48000, 22050)]
)
def test_length_after_resampling_is_rounded(tmp_path, frames, rates):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(frames, 0.1), rates[0])
    expected = int(np.floor(frames * rates[1] / rates[0] + 0.5))
    if expected:
        assert read_audio(path, AudioFormat(rates[1])).shape == (expected,)
    else:
        with pytest.raises(AudioError, match="no audio samples"):
            read_audio(path, AudioFormat(rates[1]))


def test_channels_mono_is_the_mean_and_mono_to_stereo_duplicates(tmp_path):
    stereo = music(0.2, 8000, 2)
    soundfile.write(tmp_path / "2.wav", stereo, 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "1.wav", stereo[:, 0], 8000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(tmp_path / "2.wav", AudioFormat(8000)), stereo.mean(axis=1), atol=1e-7
    )
    doubled = read_audio(tmp_path / "1.wav", AudioFormat(8000, 2))
    np.testing.assert_array_equal(doubled, np.stack([stereo[:, 0]] * 2, axis=1))


def test_more_than_two_channels_are_averaged(tmp_path):
    surround = music(0.2, 8000, 6)
    soundfile.write(tmp_path / "6.wav", surround, 8000, format="WAVEX", subtype="FLOAT")
    mean = surround.mean(axis=1)
    np.testing.assert_allclose(
        read_audio(tmp_path / "6.wav", AudioFormat(8000)), mean, atol=1e-7
    )
    np.testing.assert_allclose(
        read_audio(tmp_path / "6.wav", AudioFormat(8000, 2)),
        np.stack([mean, mean], axis=1),
        atol=1e-7,
    )


def test_an_mp3_without_a_xing_header_has_its_true_length(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, music(2.0, 44100), 44100, format="MP3")
    data = path.read_bytes()
    plain = tmp_path / "plain.mp3"
    plain.write_bytes(data.replace(b"Xing", b"\0" * 4, 1).replace(b"Info", b"\0" * 4, 1))
    assert soundfile.info(plain).frames != len(soundfile.read(plain)[0])  # it guesses
    assert probe(plain).frames == len(soundfile.read(plain)[0])
    assert len(read_audio(plain, AudioFormat(44100))) == probe(plain).frames


def test_a_flac_that_does_not_say_its_length_is_refused(tmp_path):
    path = tmp_path / "piped.flac"
    soundfile.write(path, music(0.5, 44100), 44100, format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO's total samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="declares no length"):
        probe(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(tmp_path, value):
    path = tmp_path / "nan.wav"
    signal = np.zeros(1000, np.float32)
    signal[500] = value
    soundfile.write(path, signal, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite") as caught:
        read_audio(path, AudioFormat(8000))
    assert caught.value.path == str(path)


def test_unusable_files_say_why(tmp_path):
    audio = AudioFormat(8000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("not audio at all, but long enough to be looked at")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    for name, reason in [
        ("missing.wav", "missing file"),
        ("empty.wav", "empty file"),
        ("text.mp3", "undecodable"),
        ("none.wav", "no audio samples"),
    ]:
        with pytest.raises(AudioError, match=reason):
            read_audio(tmp_path / name, audio)
    with pytest.raises(AudioError, match="not a file"):
        read_audio(tmp_path, audio)


def test_the_real_clip_without_samples_is_refused(shared_folder):
    with pytest.raises(AudioError, match="no audio samples"):
        probe(shared_folder / "datasets" / "openmic" / "empty.wav")


def test_a_span_past_the_end_is_an_error_not_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    with (
        AudioFile(tmp_path / "a.wav", AudioFormat(8000)) as file,
        pytest.raises(AudioError, match="has 8000 samples, asked for 4000 to 12000"),
    ):
        file.read(4000, 8000)


def test_a_header_with_an_absurd_frame_count_is_an_audio_error(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, music(1.0, 44100), 44100, format="MP3")
    data = bytearray(path.read_bytes())
    at = data.index(b"Xing") if b"Xing" in data else data.index(b"Info")
    data[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(AudioError):
        read_audio(path, AudioFormat(22050))


@pytest.mark.parametrize("channels", [0, 3])
def test_format_refuses_other_channel_counts(channels):
    with pytest.raises(ConfigError, match="1 or 2 channels"):
        AudioFormat(22050, channels)


def test_importing_the_data_room_does_not_import_tensorflow():
    code = (
        "import sys, rfkeras.datasets.pipeline, rfkeras.datasets.pack, rfkeras.datasets.load\n"
        "heavy = {'tensorflow', 'soundfile', 'tensorflow_io', 'soxr'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


CHECKED_FORMATS = {
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
    for name, (container, subtype, rate) in CHECKED_FORMATS.items():
        soundfile.write(folder / name, music(2.0, rate), rate, subtype, None, container)
    return folder


def cuts(size: int) -> list[int]:
    """Bytes to keep: in the header, throughout the audio, and just before the end."""
    shares = [int(size * share) for share in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)]
    return [0, 1, 10, 44, 60, 200, *shares, size - 1000, size - 100, size - 4, size - 1]


@pytest.mark.parametrize("name", CHECKED_FORMATS)
def test_a_whole_file_passes(files, name):
    info = check_file(files / name, expected_seconds=2.0)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("name", CHECKED_FORMATS)
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


@pytest.mark.parametrize("name", CHECKED_FORMATS)
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
    for name in CHECKED_FORMATS:
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


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_mono_is_the_mean(channels):
    rng = np.random.default_rng(0)
    samples = rng.normal(scale=10.0 ** rng.integers(-30, 30, (1000, 1)), size=(1000, channels))
    samples = samples.astype(np.float32)
    mono = to_channels(samples, 1)
    assert mono.dtype == np.float32
    np.testing.assert_array_equal(mono, samples.mean(axis=1, dtype=np.float32))


def configure(dataset, folder, **options):
    flags = {"dataset": dataset, "data_dir": str(folder), "batch_size": 2}
    short = {"excerpt_seconds": 0.2, "window_seconds": 0.2}
    return resolve(TrainConfig, {**flags, **short, **options})


def test_options_of_the_configuration_reach_the_source(tmp_path):
    write_jamendo(tmp_path / "j", "data/splits/split-3/autotagging_genre")
    options = {"subset": "genre", "fold": 3, "audio_dir": str(tmp_path / "disk")}
    dataset = open_dataset(configure("mtg_jamendo", tmp_path / "j", **options))
    assert dataset.info == options
    write_dcase(tmp_path / "d", "2018-1a", locations=11)
    share = {"validation_share": 0.5}
    dataset = open_dataset(configure("dcase", tmp_path / "d", subset="2018-1a", **share))
    assert len(dataset.splits["validation"]) == len(dataset.splits["train"])
    write_magnatagatune(tmp_path / "m")
    assert len(open_dataset(configure("magnatagatune", tmp_path / "m")).label_names) == 50
    write_gtzan(tmp_path / "g")
    config = configure("gtzan", tmp_path, audio_dir=str(tmp_path / "g"))
    assert open_dataset(config).task == "single_label"
    with pytest.raises(ConfigError, match="'folder' takes no fold"):
        open_dataset(configure("folder", tmp_path, fold=1))


def test_tracks_are_trained_in_excerpts_and_scored_in_windows(tmp_path, capsys):
    write_jamendo(tmp_path)
    write_jamendo_audio(tmp_path / "audio", suffix=".low.mp3")
    inputs = open_inputs(configure("mtg_jamendo", tmp_path), AudioFormat(RATE_HZ), None)
    notes = capsys.readouterr().err
    assert "Note on mtg_jamendo: train: 3 clips, published are 9,949\n" in notes
    assert inputs.bad_files.files == []
    batches = list(inputs.training(0, 3))
    assert [tuple(batch[0].shape) for batch in batches] == [(2, RATE_HZ // 5)] * 3
    test = inputs.dataset.splits["test"]
    windows, plan = inputs.evaluation("test")
    assert list(plan.rows) == [0, 0, 0, 1, 1]  # 0.6 s and 0.3 s in windows of 0.2 s
    scores = np.concatenate([np.abs(batch).max(axis=1) for batch in windows])[:, None]
    loudness = plan.average(scores)
    assert loudness.shape == (len(test), 1)
    np.testing.assert_allclose(loudness, 0.3, atol=0.05)


def test_missing_tracks_stop_a_run_before_anything_is_read(tmp_path):
    write_jamendo(tmp_path)
    tracks = {**TRACKS, "test": {}}
    write_jamendo_audio(tmp_path / "audio", tracks)
    for path in (tmp_path / "audio").rglob("*.mp3"):
        path.write_bytes(b"")  # looked for, not opened
    with pytest.raises(
        DatasetError, match=r"2 of the 6 audio files .* are missing.*github\.com"
    ):
        open_inputs(configure("mtg_jamendo", tmp_path), AudioFormat(RATE_HZ), None)
    write_jamendo_audio(tmp_path / "audio", tracks)
    config = configure("mtg_jamendo", tmp_path, max_bad_share=0.34)
    with pytest.raises(DatasetError, match=r"Split 'test' of 'mtg_jamendo' has no usable clip"):
        open_inputs(config, AudioFormat(RATE_HZ), None)
    inputs = open_inputs(config, AudioFormat(RATE_HZ), None, ("train", "validation"))
    assert inputs.bad_files.files == []


def test_a_scene_that_is_cut_short_is_left_out(tmp_path):
    folder = write_dcase(tmp_path, locations=3, takes=1, audio=True)
    broken = folder / "audio" / "indoor-vienna-6-0-a.wav"
    broken.write_bytes(broken.read_bytes()[:5000])
    config = configure("dcase", tmp_path, max_bad_share=0.2)
    inputs = open_inputs(config, AudioFormat(1000), None)
    assert [file.path for file in inputs.bad_files.files] == [str(broken)]
    assert len(inputs.dataset.splits["test"]) == 2
    assert inputs.dataset.task == "single_label"
