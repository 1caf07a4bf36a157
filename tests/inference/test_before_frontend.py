"""Layers before the front-end: they count in fields, frame times and exactness."""

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from keras import layers, ops

import rfkeras
from rfkeras.errors import AudioError, ConfigError
from rfkeras.frontend import create_frontend, find_frontend
from rfkeras.inference import StreamTagger
from rfkeras.inference.frames import FrameGrid
from rfkeras.layers import ClipLogits

RATE_HZ = 32000
HOP = 320


def one_channel(*parts):
    """Return the layers between two that add and remove a channel."""
    return [lambda x: ops.expand_dims(x, -1), *parts, lambda x: ops.squeeze(x, -1)]


def random_conv(filters=1, kernel=9, **options):
    return layers.Conv1D(
        filters,
        kernel,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=3),
        **options,
    )


def peak_level(x):
    return x / (ops.max(ops.abs(x), axis=1, keepdims=True) + 1e-6)


def rms_level(x):
    return 0.1 * x * ops.rsqrt(ops.mean(ops.square(x), axis=1, keepdims=True) + 1e-9)


def standardised(x):
    deviation = ops.std(x, axis=1, keepdims=True)
    return 0.1 * (x - ops.mean(x, axis=1, keepdims=True)) / (deviation + 1e-5)


def without_dc(x):
    return x - ops.mean(x, axis=1, keepdims=True)


# Layers before the front-end, and whether chunks can equal the whole.
BEFORE = {
    "nothing": ([], True),
    "gain": ([layers.Rescaling(0.5)], True),
    "soft clipping": ([ops.tanh], True),
    "peak level": ([peak_level], False),
    "RMS level": ([rms_level], False),
    "DC removal": ([without_dc], False),
    "standardised": ([standardised], False),
    "Lambda": (
        [layers.Lambda(lambda x: x / (1e-6 + ops.max(x)), output_shape=lambda s: s)],
        False,
    ),
    "layer normalization": (
        [layers.LayerNormalization(axis=1, center=False, scale=False)],
        False,
    ),
    "unit normalization": ([layers.UnitNormalization(axis=1)], False),
    "batch normalization": (one_channel(layers.BatchNormalization()), True),
    "crop": (one_channel(layers.Cropping1D((4000, 0))), True),
    "crop of both ends": (one_channel(layers.Cropping1D((777, 1234))), True),
    "slice": ([lambda x: x[:, 1600:]], True),
    "padding": (one_channel(layers.ZeroPadding1D((500, 700))), True),
    "long padding": (one_channel(layers.ZeroPadding1D(5000)), True),
    "convolution": (one_channel(random_conv(kernel=33)), True),
    "same convolution": (one_channel(random_conv(kernel=65, padding="same")), True),
    "causal dilated convolution": (
        one_channel(random_conv(dilation_rate=16, padding="causal")),
        True,
    ),
    "stride": (one_channel(random_conv(strides=2)), True),
    "average pooling": (one_channel(layers.AveragePooling1D(3)), True),
    "same stride": (one_channel(random_conv(strides=2, padding="same")), False),
    "pad, convolve, crop": (
        one_channel(
            layers.ZeroPadding1D(3000),
            random_conv(kernel=501),
            layers.Cropping1D((2900, 2900)),
        ),
        True,
    ),
    "up-sampling": (one_channel(layers.UpSampling1D(2)), False),
    "cumulative sum": ([lambda x: 0.01 * ops.cumsum(x, axis=1)], False),
    "reversed": ([lambda x: ops.flip(x, axis=1)], False),
    "crop, then peak level": ([*one_channel(layers.Cropping1D((4000, 0))), peak_level], False),
    "peak level, then crop": ([peak_level, *one_channel(layers.Cropping1D((4000, 0)))], False),
    "nested": ([keras.Sequential([keras.Input((None,)), layers.Rescaling(0.5)])], True),
}


def tagger(before, body=(), channels=1, **frontend):
    shape = (None,) if channels == 1 else (None, channels)
    x = inputs = keras.Input(shape)
    for layer in before:
        x = layer(x)
    options = {"fixed_floor": True, **frontend}
    x = create_frontend("mel_32k", n_mels=16, **options)(x)
    seeded = keras.initializers.RandomNormal(stddev=0.2, seed=5)
    for layer in body or [layers.Conv2D(4, 3, activation="relu", kernel_initializer=seeded)]:
        x = layer(x)
    x = layers.Conv2D(2, 1, kernel_initializer=seeded)(x)
    return rfkeras.Tagger(inputs, ClipLogits()(x))


def audio(seconds=4.3, seed=0):
    rng = np.random.default_rng(seed)
    samples = int(seconds * RATE_HZ)
    level = np.repeat(rng.uniform(0.01, 0.3, samples // 4000 + 1), 4000)[:samples]
    return (level * rng.normal(0, 1, samples) + 0.05).astype("float32")


@pytest.mark.parametrize("name", BEFORE)
def test_chunks_called_exact_equal_the_whole(name):
    before, exact = BEFORE[name]
    model = tagger(before)
    samples = audio()
    stream = StreamTagger(model, chunk_seconds=0.7)
    assert stream.exact == exact, stream.reason_not_exact
    result = stream.run([samples], frames=True)
    whole = model.scores(samples[None], per="frame").numpy()[0]
    if exact:
        assert len(result.frame_scores) == len(whole)
        np.testing.assert_allclose(result.frame_scores, whole, atol=1e-5)
        logits = model(samples[None]).numpy()[0]
        np.testing.assert_allclose(result.logits, logits, atol=1e-4)
    else:
        assert "front-end" in stream.reason_not_exact


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("peak level", "max"),
        ("RMS level", "mean"),
        ("DC removal", "mean"),
        ("Lambda", "lambda"),
    ],
)
def test_the_layer_that_reads_the_whole_audio_is_named(name, layer):
    model = tagger(BEFORE[name][0])
    reason = StreamTagger(model, chunk_seconds=0.7).reason_not_exact
    assert layer in reason
    if layer != "lambda":
        field = rfkeras.receptive_field(model)
        assert field.time is None
        assert field.time_ms is None
        assert any(layer in note for note in field.notes)


def test_peak_level_in_chunks_really_differs():
    model = tagger(BEFORE["peak level"][0])
    samples = audio()
    chunked = StreamTagger(model, chunk_seconds=0.7).run([samples]).logits
    assert np.abs(chunked - model(samples[None]).numpy()[0]).max() > 0.01


CLICK = 50_000  # sample of the only sound


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("nothing", 1),
        ("crop", 1),
        ("slice", 1),
        ("long padding", 1),
        ("peak level", 1),
        ("crop, then peak level", 1),
        ("peak level, then crop", 1),
        ("average pooling", 3),
    ],
)
def test_frame_times_are_where_the_sound_is(name, rate):
    model = tagger(BEFORE[name][0], body=[layers.Conv2D(4, (5, 1), kernel_initializer="ones")])
    samples = np.zeros(4 * RATE_HZ, np.float32)
    samples[CLICK : CLICK + rate] = 0.9
    stream = StreamTagger(model, chunk_seconds=60)
    frames = model.read(samples[None]).frame_logits.numpy()[0]
    difference = np.abs(frames - frames[-1]).max(axis=1)
    changed = difference > 1e-3 * difference.max()
    centres_ms = stream.frames.centres_ms(len(frames))
    found_ms = centres_ms[changed].mean()
    assert found_ms == pytest.approx(1000 * CLICK / RATE_HZ, abs=rate * 1000 * HOP / RATE_HZ)
    if stream.frames.window_ms is not None:
        # The frames that change are those whose window contains the sound.
        half = stream.frames.window_ms / 2
        distance = np.abs(centres_ms - 1000 * CLICK / RATE_HZ)
        assert (distance[changed] <= half + 1).all()
        assert not changed[distance > half + 1].any()


def test_the_field_counts_samples_read_before_the_front_end():
    plain = rfkeras.receptive_field(tagger([]))
    for name, samples in (
        ("convolution", 32),
        ("crop", 0),
        ("causal dilated convolution", 128),
    ):
        field = rfkeras.receptive_field(tagger(BEFORE[name][0]))
        assert field.time == plain.time
        assert field.time_ms == pytest.approx(plain.time_ms + 1000 * samples / RATE_HZ)
    assert rfkeras.receptive_field(tagger(BEFORE["crop"][0])).waveform.start == 4000
    assert rfkeras.receptive_field(tagger(BEFORE["stride"][0])).waveform.jump == 2


def test_stereo_mixed_before_the_front_end():
    model = tagger([lambda x: ops.mean(x, axis=-1)], channels=2)
    stereo = np.stack([audio(), audio(seed=1)], axis=-1)
    stream = StreamTagger(model, chunk_seconds=0.7)
    assert stream.exact, stream.reason_not_exact
    whole = model(stereo[None]).numpy()[0]
    np.testing.assert_allclose(stream.run([stereo]).logits, whole, atol=1e-4)


def test_short_audio_is_padded_to_the_shortest_input():
    model = tagger([], body=[layers.Conv2D(4, 9), layers.MaxPooling2D(2)])
    stream = StreamTagger(model, chunk_seconds=0.7)
    assert stream.shortest_samples == 9 * HOP
    short = audio(0.02)
    padded = np.pad(short, (0, 9 * HOP - len(short)))
    result = stream.run([short], frames=True)
    assert result.seconds == pytest.approx(0.02)
    np.testing.assert_allclose(result.logits, model(padded[None]).numpy()[0], atol=1e-5)
    np.testing.assert_allclose(model.scores(short[None])[0], result.scores, atol=1e-5)
    for seconds in (0.7, 0.71, 1.37, 1.4, 2.1):  # rests of all lengths
        samples = audio(seconds)
        whole = model(samples[None]).numpy()[0]
        np.testing.assert_allclose(stream.run([samples]).logits, whole, atol=1e-4)


def test_the_eager_model_never_scores_audio_that_is_not_finite():
    model = tagger([])
    samples = audio(0.5)
    samples[777] = np.nan
    with pytest.raises(ConfigError, match="NaN or infinite values, in clip 0"):
        model.scores(samples[None])
    with pytest.raises(ConfigError, match=r"NaN or infinite samples, first at 0\.024 s"):
        StreamTagger(model, chunk_seconds=0.7).run([samples])


def test_errors_of_tensorflow_are_the_audios(monkeypatch, tmp_path):
    stream = StreamTagger(tagger([]), chunk_seconds=0.7)

    def fails(samples):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(stream, "_read", fails)
    with pytest.raises(AudioError, match=r"OOM when allocating.*smaller"):
        stream.run([audio(0.1)])
    path = tmp_path / "short.wav"
    soundfile.write(path, audio(0.1), RATE_HZ)
    with pytest.raises(AudioError, match=r"short.wav: model .* cannot compute"):
        stream.run_file(path)


@pytest.mark.parametrize("shape", [(44100,), (None, 7, 2, 1)])
def test_inputs_that_are_no_audio_of_any_length_are_refused(shape):
    inputs = keras.Input(shape)
    x = ops.reshape(inputs, (-1, 44100)) if len(shape) > 1 else inputs
    x = create_frontend("mel_32k", fixed_floor=True)(x)
    model = keras.Model(inputs, ClipLogits()(layers.Conv2D(2, 1)(x)))
    with pytest.raises(ConfigError, match=r"samples only|needs waveforms"):
        StreamTagger(model)


def test_models_with_several_inputs_or_outputs_are_refused_in_a_sentence():
    inputs, other = keras.Input((None,)), keras.Input((None,))
    map_ = layers.Conv2D(2, 1)(create_frontend("mel_32k", fixed_floor=True)(inputs))
    clip, frames = ClipLogits()(map_), ClipLogits(frames=True)(map_)
    with pytest.raises(ConfigError, match="must have one output"):
        StreamTagger(keras.Model(inputs, {"clip": clip, "frames": frames}))
    gain = ops.mean(other, axis=1, keepdims=True)
    with pytest.raises(ConfigError, match="must have one input"):
        StreamTagger(keras.Model([inputs, other], clip + gain))


def test_a_nested_front_end_and_head_are_tagged_like_the_model_itself():
    model = tagger(BEFORE["crop"][0])
    inputs = keras.Input((None,))
    outer = keras.Model(inputs, keras.Sequential([keras.Input((None,)), model])(inputs))
    samples = audio()
    one, other = (StreamTagger(m, chunk_seconds=0.7) for m in (model, outer))
    assert other.exact
    assert one.frames == other.frames
    assert one.plan == other.plan
    expected, found = (stream.run([samples], frames=True) for stream in (one, other))
    np.testing.assert_allclose(found.frame_scores, expected.frame_scores, atol=1e-6)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)


@pytest.mark.parametrize("place", ["map", "clip"])
@pytest.mark.parametrize("function", [ops.sigmoid, ops.softmax])
def test_a_sigmoid_is_not_applied_twice(place, function):
    inputs = keras.Input((None,))
    x = layers.Conv2D(3, 3)(create_frontend("mel_32k", fixed_floor=True)(inputs))
    head = ClipLogits()
    x = head(function(x)) if place == "map" else function(head(x))
    model = keras.Model(inputs, x)
    samples = audio(2.0)
    own = model(samples[None]).numpy()[0]
    stream = StreamTagger(model, chunk_seconds=0.7)
    result = stream.run([samples])
    np.testing.assert_allclose(result.scores, own, atol=1e-4)
    assert (stream.thresholds is None) == (function is ops.softmax)
    tagged = rfkeras.Tagger(model.inputs, model.outputs).scores(samples[None])[0]
    np.testing.assert_allclose(tagged, own, atol=1e-4)


def test_a_layer_behind_the_head_that_changes_its_logits_is_refused():
    inputs = keras.Input((None,))
    x = layers.Conv2D(3, 3)(create_frontend("mel_32k", fixed_floor=True)(inputs))
    model = keras.Model(inputs, layers.Rescaling(0.5, name="temperature")(ClipLogits()(x)))
    with pytest.raises(ConfigError, match="'temperature'.*ClipLogits layer the last one"):
        StreamTagger(model)


def test_frames_next_to_cropped_samples_are_not_used():
    model = tagger(BEFORE["crop of both ends"][0])
    reads = FrameGrid(model, find_frontend(model)).reads
    assert (reads.left, reads.right) == (777, 1234)
