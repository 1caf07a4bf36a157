"""Chunk arithmetic on random numbers, and times of frames."""

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
from rfkeras.inference.chunks import overlapping_chunks, separate_chunks
from rfkeras.rf import AxisField
from tests.helpers.taggers import CLASSES, RATE_HZ, custom_tagger, small_frontend, zoo_tagger

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
def test_each_frame_comes_from_one_chunk_and_only_from_audio(
    field, scale, seconds, min_samples, margins
):
    plan = overlapping_chunks(field, scale, seconds, min_samples, margins)
    hop, before = scale.hop_samples, scale.window_samples // 2
    pixels = 1 + plan.samples // hop

    def inside(frame):
        """Return whether a frame's window avoids the chunk's start, and its end."""
        first, stop = field.window(frame)
        last_sample = (stop - 1) * hop - before + scale.window_samples
        return (
            first * hop >= before and first >= margins[0],
            last_sample <= plan.samples and stop <= pixels - margins[1],
        )

    # All windows of the chunk do, and those of the next frames on either side do not.
    assert inside(plan.skip)[0]
    assert inside(plan.stop - 1)[1]
    assert not inside(plan.stop)[1]
    assert plan.skip == 0 or not inside(plan.skip - 1)[0]
    # The next chunk continues where this one stops.
    assert plan.step_samples == (plan.stop - plan.skip) * field.jump * hop
    # Strides fall on the grid of the whole audio, and about the requested amount is new.
    assert (plan.samples + 1) % (field.jump * hop) == 0
    assert plan.step_samples > seconds * 8000 - field.jump * hop
    # The model never pads the last chunk.
    assert plan.reserve_samples - plan.step_samples >= min_samples
    assert plan.reserve_samples >= plan.samples


@settings(**SETTINGS)
@given(
    st.fractions(Fraction(1, 4), 96, max_denominator=4),
    st.integers(-200, 50),
    scales,
    st.floats(1e-3, 10),
)
def test_separate_chunks_form_one_grid(jump, more, scale, seconds):
    hop = scale.hop_samples

    def count(samples):
        return max(0, int((samples // hop + 1 + more) / jump))

    plan = separate_chunks(count, jump, scale, seconds, min_samples=1)
    assert plan.skip == 0
    assert plan.step_samples == plan.stop * jump * hop
    assert count(plan.samples) >= plan.stop
    assert plan.samples + 1 == plan.step_samples or count(plan.samples - hop) < plan.stop
    assert plan.reserve_samples >= 2 * plan.step_samples
    assert abs(plan.step_samples - seconds * 8000) <= jump.numerator * hop
    whole = separate_chunks(lambda samples: 1, Fraction(0), scale, 2.0, min_samples=1)
    assert (whole.samples, whole.step_samples, whole.stop) == (16000, 16000, 1)


def adding(x):
    """Apply convolutions with ones, so that any sound in a window raises the output."""
    ones = {"kernel_initializer": "ones", "use_bias": False}
    x = layers.Conv2D(1, (5, 1), strides=(2, 1), **ones)(layers.ZeroPadding2D((2, 0))(x))
    x = layers.Conv2D(1, (3, 1), padding="same", **ones)(x)
    return layers.AveragePooling2D((2, 1))(x)


@pytest.fixture(scope="module")
def adder():
    model = custom_tagger(adding)
    model.layers[-2].set_weights([np.ones((1, 1, 1, CLASSES)), np.zeros(CLASSES)])
    return StreamTagger(model, 2.0)


def test_a_click_changes_the_frames_whose_windows_contain_it(adder):
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
        # The analysis window is zero at its ends.
        assert (moved[away < (times.window_ms - analysis_ms / 2) / 2] > 0).all()
        assert away[np.argmax(moved)] <= times.stride_ms / 2 + 1000 * 64 / RATE_HZ


def test_frame_times(adder):
    # The stride is 4 spectrogram frames of 16 ms. Each window has 5 frames, 2 more on either
    # side and 2 more on one: 11 frames, which are 10 steps and a window of 64 ms.
    assert adder.frames == FrameTimes(64.0, 16.0, 224.0)
    np.testing.assert_array_equal(adder.frames.centres_ms(3), [16, 80, 144])
    np.testing.assert_array_equal(adder.frames.starts_ms(3), [0, 48, 112])
    np.testing.assert_array_equal(adder.frames.ends_ms(3), [48, 112, 176])


def test_frame_times_of_other_models():
    resnet = frame_times(zoo_tagger("resnet_rf_tiny", rho=22, width=4))
    assert resnet == FrameTimes(16 * 16.0, 8 * 16.0, 614 * 16.0 + 64)
    crnn = frame_times(zoo_tagger("crnn_tiny", width=4))
    assert crnn == FrameTimes(96 * 16.0, 47.5 * 16.0, None)
    coarse = ((4, 2), (4, 3), (8, 4), (8, 1))
    coarse_crnn = frame_times(zoo_tagger("crnn_tiny", width=4, pooling=coarse))
    assert coarse_crnn == FrameTimes(1024 * 16.0, 511.5 * 16.0, None)
    assert frame_times(zoo_tagger("crnn_tiny", width=4, summary="last")) is None
    no_units = zoo.create_model("resnet_rf_tiny", num_classes=2, width=4, frontend=None)
    assert frame_times(no_units) is None
    finer = custom_tagger(lambda x: keras.layers.UpSampling2D((2, 1))(x), small_frontend())
    assert frame_times(finer) == FrameTimes(8.0, 0.0, 64.0)
