"""What calibrated weights promise: no tag without an instrument, similar tags at any level.

Weights that do not claim to be calibrated are skipped.
"""

import numpy as np
import pytest

from rfkeras.synthesis.compose import compose
from rfkeras.synthesis.render import SAMPLE_RATE_HZ, default_sound_font, load_sound_font, render
from tests.helpers.sounds_without_instruments import HAS_SPEECH, RATE_HZ, SOUNDS, speech
from zoo.pretrained import load_model, read_index

CALIBRATED = [str(entry) for entry in read_index() if entry.calibrated]
# Level in dB, and the share of decisions that may differ from those at full level: the floor is
# fixed, so a soft clip loses what is far below its peak. docs/weights.md counts 40 clips.
CHANGED = {-10: 0.03, -20: 0.045, -30: 0.06}
SONGS = range(900_000, 900_010)

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
def test_the_level_changes_few_tags(tagger, songs):
    loud = np.array([margins(tagger, song) >= 0 for song in songs])
    assert loud.any(axis=1).all()
    for level, share in CHANGED.items():
        gain = np.float32(10 ** (level / 20))
        soft = np.array([margins(tagger, song * gain) >= 0 for song in songs])
        assert np.mean(soft != loud) <= share, f"{level} dB"
