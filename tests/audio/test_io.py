"""Read and check audio files in every format, compared with soundfile and soxr themselves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile
import soxr

from rfkeras.audio.io import AudioFile, AudioFormat, check_file, probe, read_audio, to_channels
from rfkeras.errors import AudioError, ConfigError
from tests.datasets.conftest import music

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


def test_probe_returns_what_was_written(written):
    path, signal, rate, _ = written
    info = probe(path)
    assert (info.sample_rate_hz, info.channels, info.frames) == (rate, 2, len(signal))
    assert info.duration_seconds == pytest.approx(1.5)


def test_every_format_reads_as_written_and_as_with_soundfile(written):
    path, signal, rate, tolerance = written
    stereo = read_audio(path, AudioFormat(rate, 2))
    assert stereo.dtype == np.float32
    assert stereo.shape == signal.shape
    if tolerance < 0.1:
        np.testing.assert_array_equal(stereo, soundfile.read(path, dtype="float32")[0])
    else:  # FFmpeg decodes; libsndfile's decoders agree
        reference = soundfile.read(path, dtype="float32")[0]
        np.testing.assert_allclose(stereo, reference, atol=2e-4)
    assert np.abs(stereo - signal).max() <= tolerance
    if tolerance >= 0.1:  # lossy: similar, not equal
        assert np.corrcoef(stereo.ravel(), signal.ravel())[0, 1] > 0.98


def test_bytes_read_like_a_file(written):
    path, _, rate, _ = written
    audio = AudioFormat(rate, 1)
    np.testing.assert_array_equal(read_audio(path.read_bytes(), audio), read_audio(path, audio))


def test_resampling_equals_soxr_on_the_mono_mix(written):
    path, _, rate, _ = written
    mono = read_audio(path, AudioFormat(rate, 2)).mean(axis=1)
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


def test_resampling_keeps_a_tone_and_its_position(tmp_path):
    path = tmp_path / "tone.wav"
    time = np.arange(44100) / 44100
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 9000 * time), 44100, subtype="FLOAT")
    heard = read_audio(path, AudioFormat(22050))
    expected = 0.5 * np.sin(2 * np.pi * 9000 * np.arange(22050) / 22050)
    # No delay and no loss at 0.82 of Nyquist. The edges ring where the tone starts and ends.
    assert np.abs(heard - expected)[300:-300].max() < 1e-4


def test_resampling_removes_frequencies_that_would_alias(tmp_path):
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


def test_mono_is_the_mean_and_mono_to_stereo_duplicates(tmp_path):
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
    assert soundfile.info(plain).frames != len(soundfile.read(plain)[0])  # libsndfile guesses
    assert probe(plain).frames == len(soundfile.read(plain)[0])
    assert len(read_audio(plain, AudioFormat(44100))) == probe(plain).frames


def test_a_flac_without_a_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "piped.flac"
    soundfile.write(path, music(0.5, 44100), 44100, format="FLAC")
    written = soundfile.read(path, dtype="float32")[0]
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the 36 bits of STREAMINFO's total samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert probe(path).frames == 22050
    np.testing.assert_array_equal(read_audio(path, AudioFormat(44100, 2)), written)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_rejected(tmp_path, value):
    path = tmp_path / "nan.wav"
    signal = np.zeros(1000, np.float32)
    signal[500] = value
    soundfile.write(path, signal, 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite") as caught:
        read_audio(path, AudioFormat(8000))
    assert caught.value.path == str(path)


def test_unusable_files_are_rejected_with_a_reason(tmp_path):
    audio = AudioFormat(8000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("not audio at all, but long enough to be looked at")
    (tmp_path / "text.wav").write_bytes(b"RIFFnone")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    for name, reason in [
        ("missing.wav", "missing file"),
        ("empty.wav", "empty file"),
        ("text.mp3", "undecodable"),
        ("text.wav", "undecodable: Format not recognised$"),
        ("none.wav", "no audio samples"),
    ]:
        with pytest.raises(AudioError, match=reason):
            read_audio(tmp_path / name, audio)
    with pytest.raises(AudioError, match="not a file"):
        read_audio(tmp_path, audio)


def test_the_real_clip_without_samples_is_rejected(shared_folder):
    with pytest.raises(AudioError, match="no audio samples"):
        probe(shared_folder / "datasets" / "openmic" / "empty.wav")


def test_a_span_past_the_end_is_an_error_not_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    with (
        AudioFile(tmp_path / "a.wav", AudioFormat(8000)) as file,
        pytest.raises(AudioError, match="has 8000 samples, asked for 4000 to 12000"),
    ):
        file.read(4000, 8000)


def test_an_absurd_frame_count_in_the_header_is_a_note(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, music(1.0, 44100), 44100, format="MP3")
    data = bytearray(path.read_bytes())
    at = data.index(b"Xing") if b"Xing" in data else data.index(b"Info")
    data[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert probe(path).duration_seconds == pytest.approx(1.0, abs=0.05)
    assert "declares 4294967295 MPEG frames" in probe(path).notes[0]


@pytest.mark.parametrize("channels", [0, 3])
def test_other_channel_counts_are_rejected(channels):
    with pytest.raises(ConfigError, match="1 or 2 channels"):
        AudioFormat(22050, channels)


def test_importing_the_data_modules_does_not_import_tensorflow():
    code = (
        "import sys, rfkeras.datasets.pipeline, rfkeras.datasets.pack, rfkeras.datasets.load\n"
        "heavy = {'tensorflow', 'soundfile', 'tensorflow_io', 'soxr', 'av'}\n"
        "heavy &= set(sys.modules)\n"
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
    """Return a folder with a complete file in each format."""
    folder = tmp_path_factory.mktemp("whole")
    for name, (container, subtype, rate) in CHECKED_FORMATS.items():
        soundfile.write(folder / name, music(2.0, rate), rate, subtype, None, container)
    return folder


def cuts(size: int) -> list[int]:
    """Return bytes to keep: in the header, throughout the audio, and just before the end."""
    shares = [int(size * share) for share in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)]
    return [0, 1, 10, 44, 60, 200, *shares, size - 1000, size - 100, size - 4, size - 1]


@pytest.mark.parametrize("name", CHECKED_FORMATS)
def test_a_complete_file_passes(files, name):
    info = check_file(files / name, expected_seconds=2.0)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("name", CHECKED_FORMATS)
def test_truncation_is_found_without_knowing_the_length(files, tmp_path, name):
    data = (files / name).read_bytes()
    for keep in cuts(len(data)):
        path = tmp_path / name
        path.write_bytes(data[:keep])
        with pytest.raises(AudioError) as caught:
            check_file(path, strict=True)
        assert caught.value.path == str(path)
        if keep >= len(data) * 0.75:
            assert "truncated" in caught.value.reason, (keep, caught.value.reason)
            info = check_file(path)
            assert any("truncated" in note for note in info.notes)
            assert len(read_audio(path, AudioFormat(info.sample_rate_hz))) == info.frames


def without_xing(data: bytes) -> bytes:
    return data.replace(b"Xing", bytes(4), 1).replace(b"Info", bytes(4), 1)


def test_without_a_frame_count_only_an_incomplete_mp3_frame_is_found(files, tmp_path):
    data = without_xing((files / "layer3.mp3").read_bytes())
    path = tmp_path / "plain.mp3"
    path.write_bytes(data)
    assert check_file(path).duration_seconds > 2
    path.write_bytes(data[:-1])
    assert check_file(path).notes == ("truncated: it ends inside an MPEG frame",)
    between_frames = data.rfind(b"\xff\xfb")
    path.write_bytes(data[:between_frames])
    check_file(path)  # this looks like a complete file that is one frame shorter
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
def test_tags_after_the_audio_are_not_truncation(files, tmp_path, name):
    path = tmp_path / name
    path.write_bytes((files / name).read_bytes() + b"TAG" + bytes(125))
    assert check_file(path).frames == check_file(files / name).frames


def test_an_id3_tag_before_the_audio_is_skipped(files, tmp_path):
    path = tmp_path / "tagged.mp3"
    tag = b"ID3\x04\0\0" + bytes([0, 0, 0x10, 0]) + b"\xff\xfb" + bytes(2046)
    path.write_bytes(tag + (files / "layer3.mp3").read_bytes())
    assert check_file(path).duration_seconds == pytest.approx(2.0, abs=0.001)


def test_a_file_shorter_than_expected_is_truncated(files):
    check_file(files / "pcm16.wav", expected_seconds=2.05)
    with pytest.raises(AudioError, match=r"truncated: 2\.00 s long, expected 3 s"):
        check_file(files / "pcm16.wav", expected_seconds=3.0)
    check_file(files / "pcm16.wav", expected_seconds=3.0, tolerance_seconds=1.5)


def test_the_real_openmic_clip_is_complete_and_truncation_is_found(shared_folder, tmp_path):
    clip = shared_folder / "datasets" / "openmic" / "000046_3840.ogg"
    info = check_file(clip, expected_seconds=10.0)
    assert (info.sample_rate_hz, info.channels, info.frames) == (44100, 2, 441000)
    data = clip.read_bytes()
    for keep in cuts(len(data)):
        (tmp_path / "cut.ogg").write_bytes(data[:keep])
        with pytest.raises(AudioError):
            check_file(tmp_path / "cut.ogg", strict=True)
        with pytest.raises(AudioError):
            check_file(tmp_path / "cut.ogg", expected_seconds=10.1, tolerance_seconds=0.0)


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


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_the_mono_mix_is_bit_identical_to_the_mean(channels):
    rng = np.random.default_rng(0)
    samples = rng.normal(scale=10.0 ** rng.integers(-30, 30, (1000, 1)), size=(1000, channels))
    samples = samples.astype(np.float32)
    mono = to_channels(samples, 1)
    assert mono.dtype == np.float32
    np.testing.assert_array_equal(mono, samples.mean(axis=1, dtype=np.float32))


def test_errors_are_named_while_another_thread_imports_the_decoder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", ModuleType("av"))  # without its classes yet
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match="empty file"):
        check_file(tmp_path / "empty.wav")
