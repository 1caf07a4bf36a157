"""The arithmetic of chunks, on random numbers, without a model."""

from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import zoo
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.inference import FrameTimes, StreamTagger, frame_times
from rfkeras.inference.frames import overlapping, side_by_side
from rfkeras.rf import AxisField
from tests.helpers.taggers import CLASSES, RATE_HZ, own_tagger, small_frontend, zoo_tagger

SETTINGS = {"deadline": None, "derandomize": True, "max_examples": 200}
fields = st.builds(AxisField, st.integers(1, 300), st.integers(1, 48), st.integers(-150, 5))
scales = st.builds(
    SpectrogramScale, st.just(8000), st.integers(2, 900), st.integers(1, 400), st.just(8)
)


@settings(**SETTINGS)
@given(
    fields,
    scales,
    st.floats(1e-3, 60),
    st.integers(1, 40000),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_every_frame_is_decided_once_and_by_audio_alone(
    field, scale, seconds, min_samples, margins
):
    plan = overlapping(field, scale, seconds, min_samples, margins)
    hop, before = scale.hop_samples, scale.window_samples // 2
    pixels = 1 + plan.samples // hop

    def sound(frame):
        """Whether a frame's window keeps off the chunk's start, and its end."""
        first, stop = field.window(frame)
        last_sample = (stop - 1) * hop - before + scale.window_samples
        return (
            first * hop >= before and first >= margins[0],
            last_sample <= plan.samples and stop <= pixels - margins[1],
        )

    # All windows do both, and of the next frames to either side none does.
    assert sound(plan.skip)[0]
    assert sound(plan.stop - 1)[1]
    assert not sound(plan.stop)[1]
    assert plan.skip == 0 or not sound(plan.skip - 1)[0]
    # The frames that a chunk leaves to the next one are the next one's first.
    assert plan.step_samples == (plan.stop - plan.skip) * field.jump * hop
    # Frames of a stride lie where they lie in the whole, and about so much is new.
    assert (plan.samples + 1) % (field.jump * hop) == 0
    assert plan.step_samples > seconds * 8000 - field.jump * hop
    # The last chunk is never one that the model would pad.
    assert plan.reserve_samples - plan.step_samples >= min_samples
    assert plan.reserve_samples >= plan.samples


@settings(**SETTINGS)
@given(
    st.fractions(Fraction(1, 4), 96, max_denominator=4),
    st.integers(-200, 50),
    scales,
    st.floats(1e-3, 10),
)
def test_chunks_side_by_side_make_one_grid(jump, more, scale, seconds):
    hop = scale.hop_samples

    def count(samples):
        return max(0, int((samples // hop + 1 + more) / jump))

    plan = side_by_side(count, jump, scale, seconds, min_samples=1)
    assert plan.skip == 0
    assert plan.step_samples == plan.stop * jump * hop
    assert count(plan.samples) >= plan.stop
    assert plan.samples + 1 == plan.step_samples or count(plan.samples - hop) < plan.stop
    assert plan.reserve_samples >= 2 * plan.step_samples
    assert abs(plan.step_samples - seconds * 8000) <= jump.numerator * hop
    whole = side_by_side(lambda samples: 1, Fraction(0), scale, 2.0, min_samples=1)
    assert (whole.samples, whole.step_samples, whole.stop) == (16000, 16000, 1)


def adding(x):
    """Convolutions of ones, so that whatever a frame hears raises it."""
    ones = {"kernel_initializer": "ones", "use_bias": False}
    x = layers.Conv2D(1, (5, 1), strides=(2, 1), **ones)(layers.ZeroPadding2D((2, 0))(x))
    x = layers.Conv2D(1, (3, 1), padding="same", **ones)(x)
    return layers.AveragePooling2D((2, 1))(x)


@pytest.fixture(scope="module")
def adder():
    model = own_tagger(adding)
    model.layers[-2].set_weights([np.ones((1, 1, 1, CLASSES)), np.zeros(CLASSES)])
    return StreamTagger(model, 2.0)


def test_a_click_moves_the_frames_whose_windows_hold_it(adder):
    times = adder.frames
    silence = np.zeros(6 * RATE_HZ, np.float32)
    quiet = np.concatenate([piece.frame_logits for piece in adder.stream([silence])])[:, 0]
    centres = times.centres_ms(len(quiet))
    analysis_ms = SpectrogramScale(RATE_HZ, 256, 64, 24).window_ms
    for sample in np.random.default_rng(0).integers(0, len(silence), 20):
        click = silence.copy()
        click[sample] = 1.0
        loud = np.concatenate([piece.frame_logits for piece in adder.stream([click])])[:, 0]
        away = np.abs(centres - 1000 * sample / RATE_HZ)
        moved = loud - quiet
        assert (moved[away > times.window_ms / 2] == 0).all()
        # The analysis window fades to nothing at its own ends.
        assert (moved[away < (times.window_ms - analysis_ms / 2) / 2] > 0).all()
        assert away[np.argmax(moved)] <= times.stride_ms / 2 + 1000 * 64 / RATE_HZ


def test_times_in_numbers(adder):
    # 4 spectrogram frames of 16 ms apart; each sees 5, then 2 more to either side, then 2 more
    # to one: 11 of them, 10 steps and a window of 64 ms. The first begins 4 before frame 0.
    assert adder.frames == FrameTimes(64.0, 16.0, 224.0)
    np.testing.assert_array_equal(adder.frames.centres_ms(3), [16, 80, 144])
    np.testing.assert_array_equal(adder.frames.starts_ms(3), [0, 48, 112])
    np.testing.assert_array_equal(adder.frames.ends_ms(3), [48, 112, 176])


def test_times_of_other_models():
    resnet = frame_times(zoo_tagger("resnet_rf_tiny", rho=22, width=4))
    assert resnet == FrameTimes(16 * 16.0, 8 * 16.0, 614 * 16.0 + 64)
    crnn = frame_times(zoo_tagger("crnn_tiny", width=4))
    assert crnn == FrameTimes(96 * 16.0, 47.5 * 16.0, None)
    assert frame_times(zoo_tagger("crnn_tiny", width=4, summary="last")) is None
    no_units = zoo.create_model("resnet_rf_tiny", num_classes=2, width=4, frontend=None)
    assert frame_times(no_units) is None
    finer = own_tagger(lambda x: keras.layers.UpSampling2D((2, 1))(x), small_frontend())
    assert frame_times(finer) == FrameTimes(8.0, 0.0, 64.0)
