"""Notes about sounds with an odd level."""

import numpy as np
import pytest
import soundfile
from keras import layers

from rfkeras.inference import StreamTagger
from rfkeras.inference.levels import LevelMeter, cancelling_channels
from tests.helpers.taggers import RATE_HZ, custom_tagger

RNG = np.random.default_rng(0)
TIME = np.arange(3 * RATE_HZ) / RATE_HZ
SOUND = (0.1 * RNG.standard_normal(TIME.size)).astype(np.float32)
SINE = np.sin(2 * np.pi * 440 * TIME).astype(np.float32)


def notes(samples, pieces=3):
    meter = LevelMeter(np.array_split(np.asarray(samples, np.float32), pieces))
    assert sum(len(block) for block in meter) == meter.samples == len(samples)
    return meter.notes(RATE_HZ)


@pytest.mark.parametrize(
    "samples",
    [
        SOUND,
        SINE,  # at full scale
        1.4 * SINE[:, None] * [[1, -1]],  # a decoder overshoots
        0.02 * SOUND,  # -54 dB
        np.concatenate([np.zeros(20 * RATE_HZ), SOUND]),
        SOUND + 0.004,
        np.clip(3 * SOUND, -1, 1),
        np.array([0.5]),
        np.zeros(0),
    ],
)
def test_ordinary_sounds_have_no_notes(samples):
    assert notes(samples) == ()


@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (32768 * SOUND, "16-bit integers; divide the samples by 32,768"),
        (32767 * SINE, "16-bit integers"),
        (2.0**23 * 0.9 * SINE, "24-bit integers; divide the samples by 8,388,608"),
        (2.0**31 * 0.5 * SINE, "32-bit integers"),
        (2.0 * SINE, "far too loud: peak 2, where full scale is 1; scale the samples"),
        (SOUND / 32768, "almost silent: RMS -110 dB"),
        (np.zeros(9), "silent: all samples are 0"),
        (np.clip(30 * SOUND, -1, 1), "clipped: 7"),
        (np.sign(SINE), "clipped: 100%"),
        (SOUND + 0.1, "constant offset: the mean of the samples is +0.1"),
        (0.05 * SOUND - 0.02, "constant offset: the mean of the samples is -0.020"),
    ],
)
def test_odd_sounds_have_one_note(samples, note):
    (found,) = notes(samples)
    assert note in found
    assert notes(samples, pieces=50) == (found,)


@pytest.fixture(scope="module")
def tagger():
    return StreamTagger(custom_tagger(layers.Conv2D(2, (9, 3), strides=(16, 2))), 2.0)


@pytest.mark.parametrize(
    ("left", "right", "note"),
    [
        (SOUND, -SOUND, "the mix to mono is silent"),
        (SOUND + 0.01 * SINE, -SOUND, "dB quieter than the channels"),
        (SOUND, SOUND, None),
        (SOUND, 0 * SOUND, None),
        (SOUND, SOUND[::-1], None),
        (SOUND, None, None),
    ],
)
def test_channels_that_cancel_are_noted(tagger, tmp_path, left, right, note):
    samples = left if right is None else np.stack([left, right], axis=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    found = [text for text in tagger.run_file(path).notes if "cancel" in text]
    assert len(found) == (note is not None)
    if note is not None:
        assert note in found[0]
        assert tagger.run_file(path.read_bytes()).notes[-1] == found[0]


def test_a_file_of_other_shape_has_no_channels_to_compare(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([SOUND] * 4, axis=1), RATE_HZ)
    assert cancelling_channels(path, RATE_HZ, "soundfile", 3.0) is None
    assert cancelling_channels(tmp_path / "none.wav", RATE_HZ, "soundfile", 3.0) is None
