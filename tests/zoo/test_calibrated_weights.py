"""What calibrated weights promise: no tag without an instrument, equal tags at any level.

Weights that do not claim to be calibrated are skipped.
"""

import numpy as np
import pytest

from rfkeras.synthesis.compose import compose
from rfkeras.synthesis.render import SAMPLE_RATE_HZ, default_sound_font, load_sound_font, render
from tests.helpers.sounds_without_instruments import HAS_SPEECH, RATE_HZ, SOUNDS, speech
from zoo.pretrained import load_model, read_index

CALIBRATED = [str(entry) for entry in read_index() if entry.calibrated]
LEVELS_DB = (-10, -20, -30)
DOUBTFUL = 0.1  # a score this close to its threshold may change sides
SONGS = (900_003, 900_011, 900_024)

calibrated = pytest.mark.parametrize(
    "tagger",
    CALIBRATED or [pytest.param(None, marks=pytest.mark.skip("no calibrated weights"))],
    indirect=True,
)


@pytest.fixture(scope="module")
def tagger(request):
    return load_model(request.param)


def margins(model, samples):
    """Return score minus threshold of each tag, of a waveform at 22,050 Hz."""
    import soxr

    from rfkeras.frontend import find_frontend

    rate = find_frontend(model).sample_rate_hz
    wave = soxr.resample(samples, RATE_HZ, rate) if rate != RATE_HZ else samples
    scores = np.asarray(model.scores(wave[None]))[0]
    return scores - np.array(model.head.thresholds)


def tags(model, samples):
    """Return the tags of a waveform at 22,050 Hz."""
    reached = np.flatnonzero(margins(model, samples) >= 0)
    return [model.head.label_names[tag] for tag in reached]


@calibrated
@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_without_instruments_raise_no_tag(tagger, sound):
    assert tags(tagger, SOUNDS[sound]()) == []


@calibrated
@pytest.mark.skipif(not HAS_SPEECH, reason="espeak-ng is not installed")
@pytest.mark.parametrize("number", [0, 1])
def test_speech_raises_no_tag(tagger, number, tmp_path):
    assert tags(tagger, speech(tmp_path, number)) == []


@pytest.fixture(scope="module")
def songs():
    """Return rendered clips with a peak of 1."""
    import soxr

    font = load_sound_font(default_sound_font())
    clips = [render(compose(0, index), font) for index in SONGS]
    waves = [soxr.resample(clip, SAMPLE_RATE_HZ, RATE_HZ) for clip in clips]
    return [(wave / np.abs(wave).max()).astype("float32") for wave in waves]


@calibrated
def test_the_level_does_not_change_the_tags(tagger, songs):
    for song in songs:
        loud = margins(tagger, song)
        clear = np.abs(loud) > DOUBTFUL
        assert (loud[clear] > 0).any()
        for level in LEVELS_DB:
            soft = margins(tagger, song * np.float32(10 ** (level / 20)))
            changed = np.flatnonzero(clear & ((soft >= 0) != (loud >= 0)))
            names = [tagger.head.label_names[tag] for tag in changed]
            assert names == [], f"{level} dB: {loud[changed]} became {soft[changed]}"
