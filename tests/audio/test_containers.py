"""Length and truncation of MP3 files, and excerpts of long ones."""

import io
import os

import numpy as np
import pytest

from rfkeras.audio import io as audio_io
from rfkeras.audio.containers import (
    RESERVOIR_SAMPLES,
    mp3_declared_frames,
    mp3_ends_as_declared,
    mp3_file_layout,
    mp3_layout,
    mp3_with_frame_count,
)
from rfkeras.audio.io import AudioFile, AudioFormat, check_file, probe
from rfkeras.datasets.excerpts import ClipReader
from tests.helpers.layouts import write_tone

RATE_HZ = 22050
SECONDS = 60.0
DECODER_DELAY = 529  # samples of delay in every layer III decoder; some remove them


@pytest.fixture(scope="module", params=["frame count in the header", "no frame count"])
def track(request, tmp_path_factory):
    """Return a minute of MP3, with and without a Xing header."""
    path = tmp_path_factory.mktemp("track") / "track.mp3"
    write_tone(path, SECONDS, rate_hz=RATE_HZ)
    if request.param == "no frame count":
        data = path.read_bytes()
        path.write_bytes(data.replace(b"Xing", bytes(4), 1).replace(b"Info", bytes(4), 1))
    return path


class Counted(io.BytesIO):
    """Stream that counts the bytes read from it."""

    total = 0

    def read(self, size=-1):
        data = super().read(size)
        self.total += len(data)
        return data


def test_the_frame_count_is_read_from_the_first_frame(track):
    data = track.read_bytes()
    stream = Counted(data)
    declared = mp3_declared_frames(stream)
    assert declared == mp3_layout(data).declared_frames
    assert stream.total <= 2**16 + 20
    cover = b"ID3\x04\0\0" + bytes([0, 16, 0, 0]) + bytes(16 << 14)  # 256 KiB of picture
    stream = Counted(cover + cover + data)
    assert mp3_declared_frames(stream) == declared
    assert stream.total <= 2**16 + 40


def test_a_complete_file_is_recognised_by_its_first_and_last_frame(tmp_path):
    path = tmp_path / "a.mp3"
    write_tone(path, 20.0, rate_hz=RATE_HZ)
    data = path.read_bytes()
    cover = b"ID3\x04\0\0" + bytes([0, 16, 0, 0]) + bytes(16 << 14)
    for before, after in ((b"", b""), (cover, b""), (b"", b"TAG" + bytes(125))):
        stream = Counted(before + data + after)
        assert mp3_ends_as_declared(stream)
        assert stream.total <= 2**16 + 1500


def test_truncation_or_a_wrong_byte_count_is_not_taken_as_complete(tmp_path):
    path = tmp_path / "a.mp3"
    write_tone(path, 2.0, rate_hz=RATE_HZ)
    data = path.read_bytes()
    for keep in (0, 100, len(data) // 2, len(data) - 1):
        assert not mp3_ends_as_declared(io.BytesIO(data[:keep]))
    # Truncated and then tagged: there are enough bytes, but no frame ends there.
    tagged = data[: len(data) // 2] + b"APETAGEX" + bytes(len(data))
    assert not mp3_ends_as_declared(io.BytesIO(tagged))
    at = max(data.find(b"Xing"), data.find(b"Info")) + 12
    for count in (0, 1, 400, len(data) - 7, len(data) + 7, 2**32 - 1):
        counted = data[:at] + count.to_bytes(4, "big") + data[at + 4 :]
        assert not mp3_ends_as_declared(io.BytesIO(counted))
        path.write_bytes(counted)
        assert check_file(path).duration_seconds == pytest.approx(2.0, abs=0.001)


def test_checking_a_complete_track_does_not_scan_it(tmp_path, monkeypatch):
    path = tmp_path / "a.mp3"
    write_tone(path, 2.0, rate_hz=RATE_HZ)
    monkeypatch.setattr(audio_io, "mp3_file_layout", None)
    assert check_file(path).duration_seconds == pytest.approx(2.0, abs=0.001)


@pytest.mark.parametrize("data", [b"", b"ID3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"RIFF" * 99])
def test_other_data_declares_no_frame_count(data):
    assert mp3_declared_frames(io.BytesIO(data)) is None


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
def test_inserting_a_frame_count_changes_no_sample(tmp_path, rate_hz):
    path = tmp_path / "a.mp3"
    write_tone(path, 1.0, rate_hz=rate_hz)
    data = path.read_bytes()
    plain = data.replace(b"Xing", bytes(4), 1).replace(b"Info", bytes(4), 1)
    layout = mp3_layout(plain)
    counted = mp3_with_frame_count(plain, layout)
    assert mp3_layout(counted).declared_frames == layout.frames == mp3_layout(counted).frames
    with AudioFile(plain, AudioFormat(rate_hz)) as file:
        whole = file.read()
    assert 0 <= layout.samples - len(whole) <= DECODER_DELAY
    # The samples include encoder delay and padding; the tone is somewhere in them.
    with AudioFile(data, AudioFormat(rate_hz)) as file:
        tone = file.read()
    places = [whole[lag : lag + len(tone)] for lag in range(len(whole) - len(tone) + 1)]
    assert min(np.abs(place - tone).max() for place in places) < 1e-6


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 16000])
def test_excerpts_equal_the_same_span_of_the_whole_track(track, rate_hz):
    audio = AudioFormat(rate_hz)
    with AudioFile(track, audio) as file:
        whole = file.read()
    reader = ClipReader(audio)
    assert reader.length(track) == len(whole)
    for start in (0, 12345, 31 * rate_hz, len(whole) - rate_hz):
        excerpt = reader.window(track, start, rate_hz)
        np.testing.assert_allclose(excerpt, whole[start : start + rate_hz], atol=1e-6)


def test_reading_an_excerpt_decodes_little_more_than_the_excerpt(track, monkeypatch):
    import soundfile

    frames = []
    read = soundfile.SoundFile.read

    def counting(self, count=-1, *arguments, **options):
        frames.append(count)
        return read(self, count, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    ClipReader(AudioFormat(16000)).excerpt(track, 0.7, 16000)
    assert sum(frames) <= RATE_HZ + RESERVOIR_SAMPLES + 4096  # 3 of 60 seconds


def test_a_track_is_scanned_once_until_it_changes(track, tmp_path, monkeypatch):
    path = tmp_path / "copy.mp3"
    path.write_bytes(track.read_bytes())
    before = mp3_file_layout(path)
    assert mp3_file_layout(path) is before
    data = track.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    os.utime(path, ns=(1, 1))
    assert mp3_file_layout(path).frames < before.frames
    assert probe(track).duration_seconds == pytest.approx(SECONDS, abs=0.2)
