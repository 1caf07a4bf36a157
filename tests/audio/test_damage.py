"""The length of audio is what decodes: joined, cut, damaged and streamed files."""

import io
import struct
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile

from rfkeras.audio.declared_size import pcm_size
from rfkeras.audio.decode import check_audio
from rfkeras.audio.io import AudioFile, AudioFormat, check_file, probe
from rfkeras.audio.layout import layout_of
from rfkeras.audio.mpeg import mpeg_frame
from rfkeras.audio.packets import Demuxer, mp3_frames
from rfkeras.audio.sample_counter import SampleCounter
from rfkeras.errors import AudioError
from tests.datasets.conftest import music
from tests.helpers.encoders import ffmpeg_encoded

RATE_HZ = 44100
ID3V1 = b"TAG" + bytes(125)
# encoder, container, suffix, sample format, rate
ENCODERS = {
    "mp3": ("libmp3lame", "mp3", "s16p", RATE_HZ),
    "vorbis": ("", "OGG", "VORBIS", RATE_HZ),
    "opus": ("libopus", "ogg", "s16", 48000),
    "aac": ("aac", "ipod", "fltp", RATE_HZ),
    "alac": ("alac", "ipod", "s16p", RATE_HZ),
    "wma": ("wmav2", "asf", "fltp", RATE_HZ),
    "wavpack": ("wavpack", "wv", "s16p", RATE_HZ),
    "flac": ("flac", "flac", "s16", RATE_HZ),
    "ogg flac": ("flac", "ogg", "s16", RATE_HZ),
    "adts": ("aac", "adts", "fltp", RATE_HZ),
    "mp2": ("mp2", "mp2", "s16", RATE_HZ),
    "mp3 in wav": ("libmp3lame", "wav", "s16p", RATE_HZ),
    "adpcm": ("adpcm_ms", "wav", "s16", RATE_HZ),
    "adpcm in w64": ("adpcm_ms", "w64", "s16", RATE_HZ),
}


def encoded(kind, seconds, *, channels=2, rate_hz=None, xing=True, seed=0):
    """Return the bytes of a file with music, encoded by FFmpeg."""
    codec, container, sample_format, own_rate = ENCODERS[kind]
    rate_hz = rate_hz or own_rate
    signal = music(seconds, rate_hz, channels) + 1e-3 * np.random.default_rng(
        seed
    ).standard_normal((round(seconds * rate_hz), channels))
    if kind == "vorbis":  # PyAV has no good encoder of it
        buffer = io.BytesIO()
        soundfile.write(buffer, signal, rate_hz, sample_format, format=container)
        return buffer.getvalue()
    options = {} if xing or container != "mp3" else {"write_xing": "0", "id3v2_version": "0"}
    return ffmpeg_encoded(signal, rate_hz, codec, container, sample_format, options)


@pytest.fixture(scope="module", params=ENCODERS)
def compressed(request):
    return encoded(request.param, 13.0)


@pytest.fixture(scope="module")
def song():
    """Return three seconds of MP3 without an Info header."""
    return encoded("mp3", 3.0, xing=False)


@pytest.fixture(scope="module")
def song_with_info():
    return encoded("mp3", 3.0)


def seconds(data):
    return probe(data).duration_seconds


def test_excerpts_are_slices_of_the_whole(compressed):
    info = probe(compressed)
    assert info.duration_seconds == pytest.approx(13.0, abs=0.08)
    audio = AudioFormat(info.sample_rate_hz, 2)
    with AudioFile(compressed, audio) as file:
        whole = file.read()
        assert file.notes == ()
    assert np.sqrt((whole**2).mean()) > 0.05
    rng = np.random.default_rng(0)
    with AudioFile(compressed, audio) as reused:
        for _ in range(8):
            first = int(rng.integers(0, len(whole) - 1))
            last = min(len(whole), first + int(rng.integers(1, 3 * RATE_HZ)))
            expected = whole[first:last]
            np.testing.assert_allclose(reused.read(first, last - first), expected, atol=1e-6)
            with AudioFile(compressed, audio) as fresh:
                heard = fresh.read(first, last - first)
            np.testing.assert_allclose(heard, expected, atol=1e-6)


def test_a_file_is_read_like_its_bytes(compressed, tmp_path):
    path = tmp_path / "sound"
    path.write_bytes(compressed)
    info = check_audio(path, strict=True)
    assert check_audio(path, decoder="isolated") == info
    with AudioFile(path, AudioFormat(22050)) as file:
        heard = file.read(50000, 22050)
    with AudioFile(compressed, AudioFormat(22050)) as file:
        np.testing.assert_array_equal(file.read(50000, 22050), heard)


@pytest.mark.parametrize("between", [b"", ID3V1, b"APETAGEX" + bytes(24)])
def test_songs_with_tags_between_are_read_to_the_end(song, between):
    info = probe(between.join([song] * 4))
    assert info.duration_seconds == pytest.approx(4 * seconds(song), abs=0.03)
    assert info.notes == ()


def test_two_songs_with_info_headers_are_read(song_with_info):
    assert seconds(song_with_info) == pytest.approx(3.0, abs=1e-4)
    joined = probe(song_with_info + song_with_info)
    assert joined.duration_seconds == pytest.approx(6.0, abs=0.1)
    assert joined.notes == ()


@pytest.mark.parametrize("xing", [False, True])
@pytest.mark.parametrize("harm", ["none", "tags", "zeros", "noise", "cut", "joined", "mono"])
def test_a_walk_over_frames_finds_what_the_packets_say(harm, xing, tmp_path, monkeypatch):
    song = encoded("mp3", 12.0, xing=xing)
    middle = len(song) // 2
    content = {
        "none": song,
        "tags": song + ID3V1 + song + b"APETAGEX" + bytes(24),
        "zeros": song[:middle] + bytes(500) + song[middle + 500 :],
        "noise": song[:middle] + np.random.default_rng(0).bytes(9000) + song[middle:],
        "cut": song[: middle + 100],
        "joined": song * 3,
        "mono": song + encoded("mp3", 12.0, xing=xing, channels=1),
    }[harm]
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    walked = layout_of(str(path), "")
    monkeypatch.setattr("rfkeras.audio.layout._MIN_RUN", len(content))
    read = layout_of(content, "")
    assert replace(walked, entries=None) == replace(read, entries=None)
    np.testing.assert_array_equal(walked.entries[:, [0, 2, 3]], read.entries[:, [0, 2, 3]])


def mp3_frames_of(song):
    """Split an MP3 file without tags into its frames."""
    frames = []
    while song:
        size = mpeg_frame(song[:4]).size
        frames.append(song[:size])
        song = song[size:]
    return frames


@pytest.mark.parametrize("damaged", [(), (40, 41), (0, 300, 450)])
def test_many_frames_at_a_time_decode_as_one_at_a_time(damaged, tmp_path, monkeypatch):
    frames = mp3_frames_of(encoded("mp3", 12.0, xing=False))
    for number in damaged:  # the header stays, what follows it is impossible
        frames[number] = frames[number][:4] + b"\xff" * 32 + frames[number][36:]
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(frames))
    heard = []
    for find in (mp3_frames, lambda *place: iter(())):
        monkeypatch.setattr("rfkeras.audio.ffmpeg.mp3_frames", find)
        with AudioFile(path, AudioFormat(RATE_HZ, 2)) as file:
            heard.append([file.read(300_000, 200_000), file.read()])
            notes = file.notes
        seconds = 1152 * len(damaged) / RATE_HZ
        places = f"{seconds:.2f} s of audio in {len(damaged)} places"
        assert notes == ((f"damaged: {places} cannot be decoded",) if damaged else ())
    for many, one in zip(*heard, strict=True):
        np.testing.assert_array_equal(many, one)
    np.testing.assert_array_equal(heard[0][0], heard[0][1][300_000:500_000])
    for number in damaged:
        assert not heard[0][1][1152 * number : 1152 * (number + 1)].any()


def test_an_incomplete_frame_is_skipped_unless_it_is_the_last(song):
    first, second = mp3_frames_of(song)[:2]
    with closing(Demuxer(song, "")) as demuxer:
        counter = SampleCounter(demuxer)
    assert counter.samples(av.Packet(first[:200])) == 0
    assert counter.ends_inside_frame
    assert (counter.skipped_bytes, counter.skipped_places) == (0, 0)
    assert counter.samples(av.Packet(second)) == 1152
    assert not counter.ends_inside_frame
    assert (counter.skipped_bytes, counter.skipped_places) == (200, 1)


def test_zeros_between_songs_are_skipped_with_a_note(song):
    info = probe(song + bytes(3000) + song)
    assert info.duration_seconds == pytest.approx(2 * seconds(song), abs=0.06)
    (note,) = info.notes
    assert note.startswith("damaged: 3000 bytes")
    assert note.endswith("in 1 place")


def test_a_zeroed_frame_header_costs_a_few_frames(song_with_info, tmp_path):
    path = tmp_path / "a.mp3"
    at = song_with_info.index(b"\xff\xfb", len(song_with_info) // 2)
    path.write_bytes(song_with_info[:at] + bytes(4) + song_with_info[at + 4 :])
    info = check_file(path)
    assert info.duration_seconds == pytest.approx(3.0, abs=0.1)
    assert any("damaged" in note and "1 place" in note for note in info.notes)
    with AudioFile(path, AudioFormat(RATE_HZ)) as file:
        assert len(file.read()) == info.frames
    with pytest.raises(AudioError, match="damaged"):
        check_file(path, strict=True)
    with pytest.raises(AudioError, match="expected 4 s"):
        check_file(path, expected_seconds=4.0)


def test_a_change_of_channels_is_mixed_and_of_rate_refused(song):
    mono = encoded("mp3", 3.0, channels=1, xing=False)
    assert seconds(song + mono) == pytest.approx(6.1, abs=0.1)
    with AudioFile(song + mono, AudioFormat(RATE_HZ)) as file:
        assert np.abs(file.read()[-RATE_HZ:]).max() > 0.05
    with pytest.raises(AudioError, match="changes from 44100 to 48000 Hz"):
        probe(song + encoded("mp3", 3.0, rate_hz=48000, xing=False))


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_chained_ogg_is_read_to_its_end(kind):
    first, second = encoded(kind, 3.0), encoded(kind, 2.0, channels=1, seed=1)
    info = probe(first + second)
    assert info.frames == probe(first).frames + probe(second).frames
    assert info.notes == ()
    audio = AudioFormat(info.sample_rate_hz)
    with AudioFile(first + second, audio) as file, AudioFile(second, audio) as alone:
        np.testing.assert_allclose(file.read()[-alone.length :], alone.read(), atol=1e-6)


def test_a_damaged_stream_of_a_chain_is_left_out_with_a_note():
    first = encoded("vorbis", 3.0)
    info = probe(first + encoded("vorbis", 1.0, seed=1).replace(b"vorbis", b"??????"))
    assert info.frames == probe(first).frames
    assert info.notes == ("damaged: 1 of 2 streams cannot be decoded",)


def test_damaged_packets_in_a_row_are_one_place():
    data = encoded("alac", 3.0)
    middle = len(data) // 2
    (note,) = layout_of(data[:middle] + bytes(30_000) + data[middle + 30_000 :], "").notes
    assert note == "damaged: 0.28 s of audio in 1 place cannot be decoded"


def test_ogg_streams_with_other_rates_are_refused():
    with pytest.raises(AudioError, match="sample rate changes"):
        probe(encoded("vorbis", 1.0) + encoded("vorbis", 1.0, rate_hz=48000))


def test_ogg_without_its_last_page_is_read_with_a_note():
    data = encoded("vorbis", 3.0)
    info = probe(data[: data.rindex(b"OggS")])
    assert 1.0 < info.duration_seconds < 3.0
    assert info.notes == ("truncated: the Ogg stream has no end-of-stream page",)


@pytest.mark.parametrize("kind", ["mp2", "mp3", "flac", "vorbis", "opus", "adts"])
def test_excerpts_of_joined_files_are_slices_of_the_whole(kind, tmp_path):
    path = tmp_path / "joined"
    tag = b"ID3\4" + bytes(5) + b"\x1b" + bytes(27)
    path.write_bytes(encoded(kind, 3.0) + tag + encoded(kind, 5.0, seed=1))
    info = check_audio(path, strict=kind != "adts")
    audio = AudioFormat(info.sample_rate_hz)
    with AudioFile(path, audio) as file:
        whole = file.read()
    assert len(whole) == pytest.approx(8.0 * info.sample_rate_hz, abs=6000)
    for first, last in [(0, 2.0), (2.5, 3.5), (3.5, 4.0), (6.0, 7.9)]:
        span = slice(round(first * info.sample_rate_hz), round(last * info.sample_rate_hz))
        with AudioFile(path, audio) as file:
            heard = file.read(span.start, span.stop - span.start)
        np.testing.assert_allclose(heard, whole[span], atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_two_flacs_in_one_file_and_a_damaged_one(share):
    buffer = io.BytesIO()
    signal = music(3.0, RATE_HZ)
    soundfile.write(buffer, signal, RATE_HZ, format="FLAC")
    data = buffer.getvalue()
    assert seconds(data + data) == pytest.approx(6.0)
    at = int(len(data) * share)
    layout = layout_of(data[:at] + bytes(64) + data[at + 64 :], "")
    assert layout.notes == ("damaged: 0.09 s of audio in 1 place cannot be decoded",)
    with AudioFile(data[:at] + bytes(64) + data[at + 64 :], AudioFormat(RATE_HZ, 2)) as file:
        heard = file.read()
        assert any("damaged" in note for note in file.notes)
    assert len(heard) == len(signal)
    off = np.abs(heard - signal).max(axis=1) > 1e-4
    assert 0 < off.mean() < 0.1


PLACEHOLDERS = [0x7FFFF000, 0x7FFFFFFF - 36, 0xFFFFFFFF - 100, 0, 0xFFFFFFFF]


@pytest.mark.parametrize("declared", PLACEHOLDERS)
@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_stream_of_unknown_length_is_read_to_its_end(tmp_path, kind, declared):
    buffer = io.BytesIO()
    signal = music(1.0, RATE_HZ)
    soundfile.write(buffer, signal, RATE_HZ, "PCM_16", format=kind)
    data = bytearray(buffer.getvalue())
    size = pcm_size(bytes(data))
    assert size.declared in (len(signal) * 4, len(signal) * 4 + 8, len(signal) * 4 + 4)
    assert size.declared == size.present - (size.present - size.declared)
    struct.pack_into(size.format, data, size.field, declared)
    path = tmp_path / "piped"
    path.write_bytes(data)
    info = check_file(path, strict=True)
    assert info.frames == pytest.approx(len(signal), abs=8)
    with AudioFile(path, AudioFormat(RATE_HZ, 2)) as file:
        np.testing.assert_allclose(file.read()[: len(signal) - 8], signal[:-8], atol=1e-4)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_cut_file_is_read_with_a_note(kind):
    buffer = io.BytesIO()
    soundfile.write(buffer, music(1.0, RATE_HZ), RATE_HZ, "PCM_16", format=kind)
    info = probe(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    assert info.duration_seconds == pytest.approx(0.5, abs=0.05)
    assert info.notes[0].startswith("truncated: the header declares")


def written(kind, signal):
    buffer = io.BytesIO()
    soundfile.write(buffer, signal, RATE_HZ, "PCM_16", format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64", "wavpack", "aac"])
def test_a_second_file_behind_the_first_is_noted(kind):
    signal = music(1.0, RATE_HZ)
    file = encoded(kind, 1.0) if kind in ENCODERS else written(kind, signal)
    alone = probe(file)
    info = probe(file + file)
    assert alone.notes == ()
    assert info.frames == alone.frames
    assert len(info.notes) == 1
    count, _, sentence = info.notes[0].partition(" ")
    assert len(file) - 16 <= int(count) <= len(file)
    assert sentence == "bytes after the audio's declared end were not read"
    assert probe(file + bytes(5000)).notes == ()
    assert probe(file + b"ID3\4" + bytes(5000)).notes == ()


def test_chunks_behind_the_audio_are_no_damage():
    file = written("WAV", music(1.0, RATE_HZ))
    chunk = b"LIST" + struct.pack("<I", 9001) + b"x" * 9002
    assert probe(file + chunk + chunk).notes == ()
    assert probe(file + chunk + file).notes[0].startswith(f"{len(file)} bytes after")


@pytest.mark.parametrize("kind", ["flac", "ogg flac", "vorbis", "mp3"])
@pytest.mark.parametrize("decoder", ["soundfile", "isolated"])
def test_decoding_all_finds_damage_in_the_middle(kind, decoder, tmp_path):
    data = encoded(kind, 10.0)
    path = tmp_path / "sound"
    path.write_bytes(data)
    assert check_audio(path, decode=True, strict=True, decoder=decoder).notes == ()
    middle = len(data) // 2
    noise = np.random.default_rng(0).bytes(len(data) // 50)
    path.write_bytes(data[:middle] + noise + data[middle + len(noise) :])
    notes = check_audio(path, decode=True, decoder=decoder).notes
    assert any(note.startswith("damaged: ") for note in notes)
    with pytest.raises(AudioError, match="damaged"):
        check_audio(path, decode=True, strict=True, decoder=decoder)


@pytest.mark.parametrize(
    ("codec", "container", "sample_format"),
    [("flac", "ogg", "s16"), ("flac", "ogg", "s32"), ("alac", "ipod", "s32p")],
)
def test_lossless_codecs_give_what_was_written(codec, container, sample_format):
    signal = music(1.0, RATE_HZ)
    data = ffmpeg_encoded(signal, RATE_HZ, codec, container, sample_format)
    with AudioFile(data, AudioFormat(RATE_HZ, 2)) as file:
        np.testing.assert_allclose(file.read(), signal, atol=2**-15)


@pytest.mark.parametrize(
    ("codec", "container", "sample_format", "channels"),
    [("wavpack", "wv", "s16p", 8), ("wavpack", "wv", "s16p", 16), ("aac", "ipod", "fltp", 8)],
)
def test_eight_and_more_channels_are_mixed(codec, container, sample_format, channels):
    signal = music(1.0, RATE_HZ, 1)
    data = ffmpeg_encoded(
        np.repeat(signal, channels, axis=1), RATE_HZ, codec, container, sample_format
    )
    with AudioFile(data, AudioFormat(RATE_HZ)) as file:
        assert file.info.channels == channels
        heard = file.read()
    assert np.corrcoef(heard[4096:40960], signal[4096:40960, 0])[0, 1] > 0.5
    assert heard.std() == pytest.approx(signal.std(), rel=0.3)


def test_padding_that_leaves_nothing_is_ignored(song_with_info):
    at = song_with_info.index(b"Lavf") + 21
    short = song_with_info[: len(song_with_info) // 20]
    frames = short.index(b"Info") + 8
    data = bytearray(short)
    data[frames : frames + 4] = (4).to_bytes(4, "big")
    data[at : at + 3] = b"\xff\xff\xff"
    assert probe(bytes(data)).frames > 0


def ogg_pages(data):
    """Split an Ogg file into its pages."""
    starts = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    return [
        data[first:last] for first, last in zip(starts, [*starts[1:], len(data)], strict=True)
    ]


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_an_ogg_stream_that_starts_late_has_only_what_is_there(kind, tmp_path):
    data = encoded(kind, 12.0)
    pages = ogg_pages(data)
    path = tmp_path / "late.ogg"
    path.write_bytes(b"".join(pages[:2] + pages[6:]))
    info = check_audio(path)
    whole = probe(data)
    assert 1.0 < info.duration_seconds < whole.duration_seconds - 1.0
    audio = AudioFormat(info.sample_rate_hz)
    with AudioFile(path, audio) as file, AudioFile(data, audio) as complete:
        heard = file.read()
        end = complete.read(complete.length - 48000, 48000)
        np.testing.assert_allclose(heard[-48000:], end, atol=1e-3)
        np.testing.assert_allclose(file.read(60000, 30000), heard[60000:90000], atol=1e-6)


def ogg_checksum(page):
    """Return the CRC-32 of an Ogg page whose checksum field is zero."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc.to_bytes(4, "little")


@pytest.mark.parametrize("pre_skip", [0, 312, 3840])
def test_the_pre_skip_of_opus_is_left_out(pre_skip):
    data = encoded("opus", 3.0)
    head, *others = ogg_pages(data)
    at = head.index(b"OpusHead") + 10
    own = int.from_bytes(head[at : at + 2], "little")
    head = head[:22] + bytes(4) + head[26:at] + pre_skip.to_bytes(2, "little") + head[at + 2 :]
    head = head[:22] + ogg_checksum(head) + head[26:]
    info = probe(b"".join([head, *others]))
    assert info.frames == probe(data).frames + own - pre_skip


def test_the_edit_list_of_m4a_leaves_out_the_encoders_delay():
    signal = np.zeros((RATE_HZ, 1), np.float32)
    signal[20000] = 0.9
    data = ffmpeg_encoded(signal, RATE_HZ, "aac", "ipod", "fltp")
    assert b"elst" in data
    with AudioFile(data, AudioFormat(RATE_HZ)) as file:
        assert abs(int(np.abs(file.read()).argmax()) - 20000) <= 2


@pytest.mark.parametrize("container", ["matroska", "mov", "avi"])
def test_the_sound_of_a_video_is_read(container):
    data = io.BytesIO()
    with av.open(data, "w", format=container) as file:
        pictures = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        sound = file.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        samples = np.random.default_rng(0).integers(-9999, 9999, (1, RATE_HZ), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = RATE_HZ
        for _ in range(10):
            file.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(pictures.encode())
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    with AudioFile(data.getvalue(), AudioFormat(RATE_HZ)) as file:
        np.testing.assert_allclose(file.read(), samples[0] / 32768, atol=1e-6)


@pytest.mark.slow
def test_an_hour_of_mp3_takes_no_memory(tmp_path):
    path = tmp_path / "hour.mp3"
    minute = encoded("mp3", 60.0, xing=False)
    path.write_bytes((minute + ID3V1) * 60)
    code = (
        "import re, sys\n"
        "from rfkeras.audio.io import AudioFile, AudioFormat\n"
        # Not ru_maxrss, which starts at the peak of the parent.
        "def peak():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search('VmHWM:[^0-9]*([0-9]+)', status)[1]) / 1024\n"
        "def read(path, at):\n"
        "    with AudioFile(path, AudioFormat(22050)) as file: file.read(at, 55125)\n"
        "read(sys.argv[1], 0)\n"
        "before = peak()\n"
        "for minute in range(60): read(sys.argv[2], minute * 60 * 22050)\n"
        "print(peak() - before)\n"
    )
    short = tmp_path / "minute.mp3"
    short.write_bytes(minute)
    command = [sys.executable, "-c", code, str(short), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 80  # the file has 58 MB, of which pages may stay in memory


def test_gsm_in_wav_is_read():
    buffer = io.BytesIO()
    soundfile.write(buffer, music(2.0, 8000, 1), 8000, "GSM610", format="WAV")
    with AudioFile(buffer.getvalue(), AudioFormat(8000)) as file:
        assert file.info.duration_seconds == pytest.approx(2.0, abs=0.05)
        assert np.abs(file.read()).max() > 0.05
