"""Decoding in separate processes: same samples as in this one, and an error for each crash."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from rfkeras.audio import sandbox, sandbox_worker
from rfkeras.audio.decode import DECODERS, check_audio, open_audio
from rfkeras.audio.io import AudioFormat, check_file, read_audio
from rfkeras.audio.sandbox import DecoderPool, Limits
from rfkeras.errors import AudioError, ConfigError
from tests.datasets.conftest import music
from tests.helpers.processes import ROOT

AUDIO = AudioFormat(22050)
STEREO = AudioFormat(16000, 2)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Return a folder of files that differ only in name and container."""
    folder = tmp_path_factory.mktemp("songs")
    names = (
        "good.flac",
        "segfault.wav",
        "endless.wav",
        "greedy.wav",
        "unexpected.wav",
        "short.wav",
    )
    for name in names:
        soundfile.write(folder / name, music(0.4, 44100), 44100)
    return folder


@pytest.fixture(scope="module")
def faulty_pool():
    pool = DecoderPool(Limits(seconds=1.0), "tests.helpers.faulty_decoder")
    yield pool
    pool.close()


@pytest.fixture
def port(monkeypatch):
    """Let new processes connect to a loopback port, as on Windows."""
    monkeypatch.setattr(sandbox, "HANDS_OVER_SOCKETS", False)


def test_processes_that_connect_to_a_port_behave_in_the_same_way(songs, port):
    pool = DecoderPool(Limits(seconds=1.0), "tests.helpers.faulty_decoder")
    for name, reason in (("segfault.wav", "crashed: SIGSEGV"), ("endless.wav", "within 1")):
        with pool.open(songs / name, AUDIO) as file, pytest.raises(AudioError, match=reason):
            file.read()
    path = songs / "good.flac"
    for source in (path, path.read_bytes()):
        with pool.open(source, STEREO, "a song") as file:
            np.testing.assert_array_equal(file.read(), read_audio(path, STEREO))
    pool.close()
    with pytest.raises(ConfigError, match="does not start \\(exit status 1\\)"):
        DecoderPool(worker_module="rfkeras.no_such_module").open(b"", AUDIO, "x")


def test_a_stranger_at_the_port_is_turned_away(songs, port, monkeypatch):
    turned_away, create = [], socket.create_server

    def create_server(address):
        server = create(address)
        stranger = socket.create_connection(server.getsockname())  # before the process
        stranger.sendall(b"?" * sandbox.KEY_BYTES)
        turned_away.append(stranger)
        return server

    monkeypatch.setattr(socket, "create_server", create_server)
    pool = DecoderPool()
    with pool.open(songs / "good.flac", AUDIO) as file:
        np.testing.assert_array_equal(file.read(), read_audio(songs / "good.flac", AUDIO))
    pool.close()
    (stranger,) = turned_away
    with stranger:
        assert stranger.recv(1) == b""


@pytest.mark.parametrize("audio", [AUDIO, STEREO])
def test_samples_equal_those_decoded_in_this_process(songs, audio):
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


def test_errors_equal_those_of_this_process(songs, tmp_path):
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
        ("segfault.wav", "the decoder crashed: SIGSEGV"),
        ("endless.wav", r"did not answer within 1\.\d* s"),
        ("greedy.wav", "takes more than 4096 MB of memory"),
        ("unexpected.wav", "the decoder crashed: exit status 1"),
        ("short.wav", r"the decoder crashed: it sent 35276 bytes instead of 35280"),
    ],
)
def test_a_crash_is_reported_and_the_next_file_is_read(songs, faulty_pool, name, reason, capfd):
    begin = time.monotonic()
    file = faulty_pool.open(songs / name, AUDIO)
    with file, pytest.raises(AudioError, match=reason) as caught:
        file.read()
    assert str(songs / name) in str(caught.value)
    assert time.monotonic() - begin < 20
    with faulty_pool.open(songs / "good.flac", AUDIO) as file:
        np.testing.assert_array_equal(file.read(), read_audio(songs / "good.flac", AUDIO))
    assert capfd.readouterr().out == ""


def test_processes_are_reused_and_closed(songs, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)  # at most so many are kept
    pool = DecoderPool()
    for _ in range(5):
        with pool.open(songs / "good.flac", AUDIO) as file:
            file.read()
        (pid,) = pool.idle_pids
    with pool.open(songs / "good.flac", AUDIO) as file:
        assert pool.idle_pids == []
        other = pool.open(songs / "good.flac", AUDIO)
        np.testing.assert_array_equal(other.read(), file.read())
        other.__exit__(None, None, None)
    assert pid in pool.idle_pids
    assert len(pool.idle_pids) == 2
    pids = pool.idle_pids
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_processes_end_with_their_parent(songs):
    code = (
        "import os, signal\n"
        "from rfkeras.audio.io import AudioFormat\n"
        "from rfkeras.audio.sandbox import shared_pool\n"
        "pool = shared_pool()\n"
        f"with pool.open({str(songs / 'good.flac')!r}, AudioFormat(22050)) as file:\n"
        "    file.read()\n"
        "print(*pool.idle_pids, flush=True)\n"
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


@pytest.mark.slow
def test_a_decoder_that_never_returns_ends_some_time_after_its_parent(songs):
    code = (
        "import os, threading\n"
        "from rfkeras.audio import sandbox\n"
        "from rfkeras.audio.io import AudioFormat\n"
        "from rfkeras.audio.sandbox import DecoderPool, Limits\n"
        'pool = DecoderPool(Limits(seconds=1.0), "tests.helpers.faulty_decoder")\n'
        f"file = pool.open({str(songs / 'endless.wav')!r}, AudioFormat(22050))\n"
        "print(file._session._process.pid, flush=True)\n"
        "sent, real = threading.Event(), sandbox.send\n"
        "sandbox.send = lambda *request: (real(*request), sent.set())\n"
        "threading.Thread(target=file.read).start()\n"
        "assert sent.wait(30)\n"
        "os._exit(0)\n"
    )
    # The process shares standard error, so a pipe there would not end before it.
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )
    running = Path(f"/proc/{int(ended.stdout)}/cmdline")
    assert running.read_bytes()
    deadline = time.monotonic() + 20  # the limit of 1 s, the grace of 5 s, and a busy machine
    while running.exists() and running.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_timer_runs_during_a_request_only(monkeypatch):
    calls = []
    timer = SimpleNamespace(
        dump_traceback_later=lambda seconds, exit, file: calls.append((seconds, exit)),
        cancel_dump_traceback_later=lambda: calls.append("cancelled"),
    )
    monkeypatch.setattr(sandbox_worker, "faulthandler", timer)
    own, its = socket.socketpair()
    with own, its:
        sandbox.send(own, {"ask": "close", "seconds": 2.0})
        own.shutdown(socket.SHUT_WR)
        sandbox_worker.RequestHandler(its, sys.stderr).serve()
        assert sandbox.receive(own) == ({}, 0)
    assert calls == [(7.0, True), "cancelled"]


def test_a_process_that_does_not_start_is_explained():
    with pytest.raises(ConfigError, match='decoder="soundfile" .* needs no such process'):
        DecoderPool(worker_module="rfkeras.no_such_module").open(b"", AUDIO, "x")


def test_decoding_processes_load_no_tensorflow(songs):
    pool = DecoderPool()
    with pool.open(songs / "good.flac", AUDIO):
        pass
    (pid,) = pool.idle_pids
    assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
    pool.close()
