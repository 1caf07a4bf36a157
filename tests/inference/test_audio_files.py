"""`file_blocks` decodes blocks ahead, in order, and not too many."""

import threading

import numpy as np
import pytest
import soundfile

from rfkeras.audio.io import AudioFile, AudioFormat, read_audio
from rfkeras.errors import AudioError
from rfkeras.inference.stream import BLOCKS_AHEAD, file_blocks

RATE = 8000
AUDIO = AudioFormat(RATE)
BLOCK = 500


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * BLOCK + 7)
    soundfile.write(path, samples, RATE)
    return path


@pytest.mark.parametrize("block", [1, BLOCK, 10 * BLOCK + 7, 20 * BLOCK])
def test_blocks_join_to_the_file(path, block):
    whole = read_audio(path, AUDIO)
    if block == 1:
        whole = whole[:40]
        soundfile.write(path.with_name("short.wav"), whole, RATE, subtype="FLOAT")
        path = path.with_name("short.wav")
    blocks = list(file_blocks(path, AUDIO, block))
    assert [len(each) for each in blocks[:-1]] == [block] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_decodes_only_the_blocks_ahead(path, monkeypatch):
    starts, enough = [], threading.Event()
    read = AudioFile.read

    def counted(self, start, count):
        starts.append(start)
        if len(starts) == BLOCKS_AHEAD + 1:
            enough.set()
        return read(self, start, count)

    monkeypatch.setattr(AudioFile, "read", counted)
    blocks = file_blocks(path, AUDIO, BLOCK)
    next(blocks)
    assert enough.wait(10)
    blocks.close()
    assert starts == [BLOCK * number for number in range(BLOCKS_AHEAD + 1)]


def test_a_truncated_file_yields_its_blocks_before_the_error(path, monkeypatch):
    read = AudioFile.read

    def broken(self, start, count):
        if start >= 2 * BLOCK:
            raise AudioError(self.name, "truncated")
        return read(self, start, count)

    monkeypatch.setattr(AudioFile, "read", broken)
    blocks = file_blocks(path, AUDIO, BLOCK)
    assert len(next(blocks)) == len(next(blocks)) == BLOCK
    with pytest.raises(AudioError, match="truncated"):
        next(blocks)
