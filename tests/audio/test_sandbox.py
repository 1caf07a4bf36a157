"""Decoding in processes that may die: the same samples, and an error for every death."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.audio.decode import DECODERS, check_audio, open_audio
from rfkeras.audio.io import AudioFormat, check_file, read_audio
from rfkeras.audio.sandbox import Decoders, Limits
from rfkeras.errors import AudioError, ConfigError
from tests.datasets.conftest import music
from tests.helpers.processes import ROOT

AUDIO = AudioFormat(22050)
STEREO = AudioFormat(16000, 2)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Files that differ in nothing but name and container."""
    folder = tmp_path_factory.mktemp("songs")
    names = ("good.flac", "segfault.wav", "endless.wav", "greedy.wav", "unheard of.wav")
    for name in names:
        soundfile.write(folder / name, music(0.4, 44100), 44100)
    return folder


@pytest.fixture(scope="module")
def faulty():
    decoders = Decoders(Limits(seconds=1.0), "tests.helpers.faulty_decoder")
    yield decoders
    decoders.close()


@pytest.mark.parametrize("audio", [AUDIO, STEREO])
def test_samples_are_those_of_this_process(songs, audio):
    path = songs / "good.flac"
    expected = read_audio(path, audio)
    for source in (path, path.read_bytes()):
        with open_audio(source, audio, decoder="isolated") as file:
            np.testing.assert_array_equal(file.read(), expected)
            np.testing.assert_allclose(file.read(500, 1000), expected[500:1500], atol=1e-6)
            assert file.length == len(expected)
            assert file.info.sample_rate_hz == 44100
    assert check_audio(path, 0.4, decoder="isolated") == check_file(path, 0.4)


def error_of(path, decoder):
    with pytest.raises(AudioError) as caught, open_audio(path, AUDIO, decoder=decoder) as file:
        file.read()
    return str(caught.value)


def test_errors_are_those_of_this_process(songs, tmp_path):
    broken = tmp_path / "broken.flac"
    broken.write_bytes((songs / "good.flac").read_bytes()[:3000])
    for path in (broken, tmp_path / "missing.wav", tmp_path):
        texts = []
        for decoder in ("soundfile", "isolated"):
            texts.append(error_of(path, decoder))
        assert texts[0] == texts[1]
    with open_audio(songs / "good.flac", AUDIO, decoder="isolated") as file:
        with pytest.raises(AudioError, match="asked for 8000 to 9000"):
            file.read(8000, 1000)
        assert len(file.read()) == file.length  # it still answers
    with pytest.raises(ConfigError, match=", ".join(sorted(DECODERS))):
        open_audio(songs / "good.flac", AUDIO, decoder="ffmpeg")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("segfault.wav", "the decoder died: SIGSEGV"),
        ("endless.wav", r"gave no answer within 1\.\d* s"),
        ("greedy.wav", "takes more than 4096 MB of memory"),
        ("unheard of.wav", "the decoder died: exit status 1"),
    ],
)
def test_a_file_that_ends_its_decoder_is_an_error_and_the_next_is_read(
    songs, faulty, name, reason, capfd
):
    begin = time.monotonic()
    file = faulty.open(songs / name, AUDIO)
    with file, pytest.raises(AudioError, match=reason) as caught:
        file.read()
    assert str(songs / name) in str(caught.value)
    assert time.monotonic() - begin < 20
    with faulty.open(songs / "good.flac", AUDIO) as file:
        np.testing.assert_array_equal(file.read(), read_audio(songs / "good.flac", AUDIO))
    assert capfd.readouterr().out == ""


def test_processes_are_kept_for_the_next_file_and_closed(songs):
    decoders = Decoders()
    for _ in range(5):
        with decoders.open(songs / "good.flac", AUDIO) as file:
            file.read()
        (pid,) = decoders.waiting
    with decoders.open(songs / "good.flac", AUDIO) as file:
        assert decoders.waiting == []
        other = decoders.open(songs / "good.flac", AUDIO)
        np.testing.assert_array_equal(other.read(), file.read())
        other.__exit__(None, None, None)
    assert pid in decoders.waiting
    assert len(decoders.waiting) == 2
    pids = decoders.waiting
    decoders.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_processes_end_with_the_one_that_started_them(songs):
    code = (
        "import os, signal\n"
        "from rfkeras.audio.io import AudioFormat\n"
        "from rfkeras.audio.sandbox import decoders\n"
        f"with decoders().open({str(songs / 'good.flac')!r}, AudioFormat(22050)) as file:\n"
        "    file.read()\n"
        "print(*decoders().waiting, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    (pid,) = ended.stdout.split()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_that_does_not_start_is_explained():
    with pytest.raises(ConfigError, match='decoder="soundfile" decodes without one'):
        Decoders(program="rfkeras.no_such_module").open(b"", AUDIO, "x")


def test_decoding_processes_load_no_tensorflow(songs):
    decoders = Decoders()
    with decoders.open(songs / "good.flac", AUDIO):
        pass
    (pid,) = decoders.waiting
    assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
    decoders.close()
