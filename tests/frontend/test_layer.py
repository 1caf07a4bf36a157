"""The front-end: agreement with librosa, lengths, the floor, adaptation."""

import keras
import librosa
import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.frontend import PRESETS, Frontend, build_input, create_frontend
from tests.helpers.spectrograms import librosa_mel, music

# Largest allowed difference from librosa in dB. librosa's FFT computes in double precision,
# TensorFlow's in single precision, so quiet bins of a loud frame differ most.
PARITY_DB = 1e-3


@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_librosa(name):
    layer = create_frontend(name)
    waveform = music(layer.sample_rate_hz)
    ours = layer.mel_db(waveform[None]).numpy()[0, :, :, 0]
    np.testing.assert_allclose(ours, librosa_mel(waveform, layer), atol=PARITY_DB)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_librosa_on_a_real_recording(name, shared_folder):
    waveform, rate = soundfile.read(shared_folder / "datasets/openmic/000046_3840.ogg")
    layer = create_frontend(name)
    waveform = waveform.reshape(len(waveform), -1).mean(axis=1)
    waveform = soxr.resample(waveform, rate, layer.sample_rate_hz).astype(np.float32)
    ours = layer.mel_db(waveform[None]).numpy()[0, :, :, 0]
    np.testing.assert_allclose(ours, librosa_mel(waveform, layer), atol=PARITY_DB)


def test_ten_seconds_give_431_frames_of_256_bands():
    layer = create_frontend("perceptual_mel_22k")
    assert layer(np.zeros((1, 220500), "float32")).shape == (1, 431, 256, 1)
    assert layer.compute_output_shape((None, 220500)) == (None, 431, 256, 1)
    assert layer.hop_ms == pytest.approx(23.22, abs=0.01)


def test_floor_is_80_db_below_the_clip_maximum_and_clips_are_independent():
    layer = create_frontend("mel_32k")
    quiet, loud = music(32000, 2.0) * 1e-2, music(32000, 2.0)
    both = layer.mel_db(np.stack([quiet, loud])).numpy()
    np.testing.assert_allclose(both[1].max() - both[1].min(), 80.0, atol=1e-3)
    np.testing.assert_array_equal(layer.mel_db(quiet[None]).numpy()[0], both[0])


@pytest.mark.parametrize("name", PRESETS)
def test_fixed_floor_makes_frames_independent_of_the_rest(name):
    layer = create_frontend(name, fixed_floor=True)
    waveform = music(layer.sample_rate_hz, 4.0)
    waveform[: waveform.size // 2] *= 0.01
    frames = 40
    piece = waveform[: frames * layer.hop_samples]
    whole = layer.mel_db(waveform[None]).numpy()[0, : frames - 4, :, 0]
    part = layer.mel_db(piece[None]).numpy()[0, : frames - 4, :, 0]
    np.testing.assert_allclose(part, whole, atol=1e-4)
    clip_floor = create_frontend(name)
    whole = clip_floor.mel_db(waveform[None]).numpy()[0, : frames - 4, :, 0]
    part = clip_floor.mel_db(piece[None]).numpy()[0, : frames - 4, :, 0]
    assert np.abs(part - whole).max() > 0.1  # with the floor of each clip they are not


def test_fixed_floor_is_80_db_below_a_full_scale_sine():
    layer = create_frontend("perceptual_mel_22k", fixed_floor=True, a_weighting=False)
    t = np.arange(44100) / 22050
    sine = np.sin(2 * np.pi * 22050 / 2048 * 100 * t).astype(np.float32)
    power = np.abs(librosa.stft(sine, n_fft=2048, hop_length=512)) ** 2
    silent = layer.mel_db(np.zeros((1, 22050), "float32")).numpy()[0, 0, :, 0]
    bank = librosa.filters.mel(sr=22050, n_fft=2048, n_mels=256)
    floor_db = 10 * np.log10(power[:, 10:-10].max()) - 80.0
    np.testing.assert_allclose(silent, bank.sum(axis=1) * floor_db, atol=0.05)


@pytest.mark.parametrize("samples", [0, 1, 100, 1024, 1025, 2048, 8191, 50000])
def test_any_length(samples):
    layer = create_frontend("perceptual_mel_22k", min_frames=17)
    out = layer(np.full((2, samples), 0.1, "float32"))
    assert out.shape == (2, max(17, 1 + samples // 512), 256, 1)
    assert layer.compute_output_shape((2, samples)) == out.shape
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("name", "min_frames", "shortest"),
    [
        ("perceptual_mel_22k", 1, 1025),  # half a window and one sample, to reflect
        ("mel_32k", 1, 401),
        ("perceptual_mel_22k", 17, 16 * 512),
        ("mel_32k", 17, 16 * 320),
    ],
)
def test_short_audio_equals_audio_padded_with_zeros_to_the_shortest(name, min_frames, shortest):
    layer = create_frontend(name, min_frames=min_frames)
    assert layer.min_samples == shortest
    waveform = music(layer.sample_rate_hz)[: shortest - 1]
    padded = layer.mel_db(np.pad(waveform, (0, 1))[None]).numpy()
    assert padded.shape[1] == max(min_frames, 1 + shortest // layer.hop_samples)
    np.testing.assert_array_equal(layer.mel_db(waveform[None]), padded)
    if shortest >= layer.n_fft:  # librosa warns about less
        expected = librosa_mel(np.pad(waveform, (0, 1)), layer)
        np.testing.assert_allclose(padded[0, :, :, 0], expected, atol=PARITY_DB)


def test_stereo_channels_stay_separate():
    layer = create_frontend("mel_32k", fixed_floor=True)
    left, right = music(32000, 2.0), music(32000, 2.0)[::-1].copy()
    both = layer.mel_db(np.stack([left, right], axis=-1)[None]).numpy()
    for channel, waveform in enumerate((left, right)):
        alone = layer.mel_db(waveform[None]).numpy()[..., 0]
        np.testing.assert_allclose(both[..., channel], alone, atol=1e-4)


def test_adapt_stores_mean_and_deviation_of_every_band():
    layer = create_frontend("mel_32k")
    batches = [music(32000, s)[None].repeat(2, 0) for s in (1.0, 2.0, 1.5)]
    layer.adapt(batches)
    values = np.concatenate([layer.mel_db(b).numpy().reshape(-1, 128) for b in batches])
    np.testing.assert_allclose(layer.mean_db.numpy(), values.mean(0), atol=1e-3)
    np.testing.assert_allclose(layer.std_db.numpy(), values.std(0), rtol=1e-3)
    out = np.concatenate([layer(b).numpy().reshape(-1, 128) for b in batches])
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-3)


def test_adapt_needs_data():
    with pytest.raises(ConfigError, match="at least one batch"):
        create_frontend("mel_32k").adapt([])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_float32_under_every_policy(policy):
    waveform = music(22050, 1.0)[None]
    expected = create_frontend("perceptual_mel_22k")(waveform).numpy()
    keras.config.set_dtype_policy(policy)
    try:
        out = create_frontend("perceptual_mel_22k", dtype=policy)(waveform)
    finally:
        keras.config.set_dtype_policy("float32")
    assert out.dtype == tf.float32
    np.testing.assert_array_equal(out.numpy(), expected)


def test_model_file_contains_the_parameters(tmp_path):
    layer = create_frontend("mel_32k", fixed_floor=True, dynamic_range_db=70.0, min_frames=9)
    layer.adapt([music(32000, 1.0)[None]])
    inputs = keras.Input((None,))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "m.keras")
    model = keras.models.load_model(tmp_path / "m.keras")
    assert model.layers[-1].get_config() == layer.get_config()
    x = music(32000, 1.0)[None]
    np.testing.assert_array_equal(model(x), layer(x))


def test_contains_kapre_layers():
    import kapre

    layer = create_frontend("perceptual_mel_22k")
    kinds = (kapre.STFT, kapre.ApplyFilterbank)
    parts = (layer.stft, layer.mel)
    assert all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_mels": 0}, "n_mels"),
        ({"hop_samples": 0.5}, "hop_samples"),
        ({"window_samples": 4096}, "must be at most n_fft"),
        ({"order": "both"}, "order"),
        ({"order": "mel_then_db"}, "a_weighting"),
        ({"dynamic_range_db": 0}, "dynamic_range_db"),
    ],
)
def test_wrong_parameters(options, message):
    with pytest.raises(ConfigError, match=message):
        Frontend(**{"sample_rate_hz": 22050, **options})


def test_wrong_names():
    with pytest.raises(ConfigError, match="Did you mean 'mel_32k'"):
        create_frontend("mel_32")
    with pytest.raises(ConfigError, match="Did you mean .n_mels"):
        create_frontend("mel_32k", n_mel=64)


def test_wrong_shape():
    with pytest.raises(ConfigError, match="waveforms"):
        create_frontend("mel_32k")(np.zeros((1, 2, 3, 4), "float32"))


def bursts(sample_rate_hz, highest_hz=None):
    """Return noise that comes and goes; optionally without anything above a frequency."""
    rng = np.random.default_rng(0)
    level = 10 ** rng.uniform(-3, -1, 40).repeat(4096)
    waveform = level * rng.normal(size=level.size)
    if highest_hz is not None:
        spectrum = np.fft.rfft(waveform)
        spectrum[np.fft.rfftfreq(waveform.size, 1 / sample_rate_hz) > highest_hz] = 0
        waveform = np.fft.irfft(spectrum, waveform.size)
    return waveform.astype("float32")


@pytest.mark.parametrize("fixed_floor", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_deviations_have_a_lower_limit(name, fixed_floor, capsys):
    layer = create_frontend(name, fixed_floor=fixed_floor)
    layer.adapt([bursts(layer.sample_rate_hz, highest_hz=4000)[None]])
    note = capsys.readouterr().err
    rng = np.random.default_rng(0)
    loud = rng.uniform(-1, 1, 3 * layer.sample_rate_hz).astype("float32")
    for waveform in (music(layer.sample_rate_hz), loud, np.zeros_like(loud)):
        values = layer(waveform[None]).numpy()
        # A band spans 80 dB with a fixed floor, and its limit is 2 dB.
        assert np.abs(values).max() < (40.5 if fixed_floor else 80.0)
    if fixed_floor:
        assert np.abs(layer(loud[None])).max() > 5  # the bands are not simply ignored
        assert note.startswith("Note: ")
        assert note.count("\n") == 1
        assert f"of {layer.n_mels} hardly varied" in note
        assert "deviation below 2 dB" in note
        assert f"to {layer.sample_rate_hz // 2} Hz)" in note
        assert 3500 < float(note.split("(")[-1].split(" to ")[0]) < 4500


@pytest.mark.parametrize("name", PRESETS)
def test_bands_that_vary_keep_their_deviation_without_a_note(name, capsys):
    layer = create_frontend(name)
    waveform = bursts(layer.sample_rate_hz)
    layer.adapt([waveform[None]])
    assert not capsys.readouterr().err
    values = layer.mel_db(waveform[None]).numpy().reshape(-1, layer.n_mels)
    np.testing.assert_allclose(layer.std_db.numpy(), values.std(0), rtol=1e-3)


def test_silence_alone_gives_finite_inputs(capsys):
    layer = create_frontend("mel_32k", fixed_floor=True)
    layer.adapt([np.zeros((2, 32000), "float32")])
    assert "128 mel bands of 128 hardly varied" in capsys.readouterr().err
    assert np.abs(layer(music(32000, 1.0)[None])).max() <= 40.01


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", PRESETS)
def test_adapting_to_numbers_that_are_not_finite_is_an_error(name, value):
    layer = create_frontend(name)
    layer.build((None, None))
    before = layer.mean_db.numpy()
    good, bad = music(layer.sample_rate_hz, 1.0)[None], music(layer.sample_rate_hz, 1.0)[None]
    bad[0, 5000] = value
    with pytest.raises(ConfigError, match="batch 2 contains NaN or infinity"):
        layer.adapt([good, bad])
    np.testing.assert_array_equal(layer.mean_db.numpy(), before)


@pytest.mark.parametrize("eager", [True, False])
def test_nan_in_the_waveform_stays_nan(eager):
    layer = create_frontend("mel_32k")
    x = np.stack([music(32000, 1.0)] * 2)
    x[0, 16000] = np.nan
    out = (layer if eager else tf.function(layer))(x).numpy()
    assert np.isnan(out[0]).any()
    assert np.isfinite(out[1]).all()


INTEGERS = ("int16", "int32", "uint8", "int8", "int64", "bool")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_waveforms_are_refused(dtype):
    layer = create_frontend("mel_32k")
    x = np.arange(40_000).reshape(1, -1).astype(dtype)
    for call in (
        layer,
        tf.function(layer),
        lambda x: layer(tf.constant(x)),
        lambda x: layer(keras.Input((None,), dtype=x.dtype.name)),
        lambda x: layer.adapt([x]),
    ):
        # AutoGraph can replace the type of an error, and keeps its message.
        with pytest.raises(Exception, match=rf"floating-point .*Received: {dtype}"):
            call(x)


def test_the_message_names_the_scale():
    layer = create_frontend("mel_32k")
    for dtype, scale in (
        ("int16", "divide by 32768"),
        ("int32", "divide by 2147483648"),
        ("uint8", "subtract 128 and divide by 128"),
    ):
        with pytest.raises(ConfigError, match=scale):
            layer(np.ones((1, 9000), dtype))


def test_integers_that_a_model_converts_are_refused_too():
    layer = create_frontend("mel_32k")
    inputs = keras.Input((None,))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(layer(inputs)))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x = rng.integers(-3000, 3000, (2, 20_000)).astype("int16")
    targets = np.zeros((2, 1), "float32")
    data = tf.data.Dataset.from_tensors((x, targets))
    for call in (
        model,
        model.predict,
        model.predict_on_batch,
        tf.function(model),
        lambda x: model.fit(x, targets, verbose=0),
        lambda x: model.evaluate(data, verbose=0),
    ):
        with pytest.raises(Exception, match=r"floating-point numbers in \[-1, 1\]"):
            call(x)


def test_float64_works_in_every_way():
    layer = create_frontend("mel_32k")
    inputs = keras.Input((None,))
    model = keras.Model(inputs, layer(inputs))
    x = music(32000, 1.0)[None]
    expected = layer(x).numpy()
    for call in (layer, model, tf.function(layer), tf.function(model)):
        np.testing.assert_allclose(call(x.astype("float64")), expected, atol=1e-4)
    np.testing.assert_allclose(
        model.predict(x.astype("float64"), verbose=0), expected, atol=1e-4
    )


@pytest.mark.parametrize("min_frames", [1, 2, 4, 5, 30])
@pytest.mark.parametrize("name", PRESETS)
def test_short_audio_is_padded_with_zeros_to_the_minimum(name, min_frames):
    layer = create_frontend(name, min_frames=min_frames)
    needed = max((min_frames - 1) * layer.hop_samples, layer.window_samples // 2 + 1)
    assert layer.min_samples == needed
    whole = np.zeros(needed, np.float32)
    rng = np.random.default_rng(0)
    for samples in (0, 1, layer.window_samples // 2, needed - 1, needed):
        short = rng.normal(0, 0.1, samples).astype("float32")
        padded = whole.copy()
        padded[:samples] = short
        out = layer.mel_db(short[None]).numpy()
        assert out.shape[1] == 1 + needed // layer.hop_samples >= min_frames
        np.testing.assert_allclose(out, layer.mel_db(padded[None]), atol=1e-4)


def test_the_network_sets_the_shortest_input_of_a_given_front_end():
    for own, needed in ((3, 9), (9, 3)):
        layer = create_frontend("mel_32k", min_frames=own)
        build_input(layer, 1, needed)
        assert layer.min_frames == 9


def test_integers_that_a_graph_scales_are_accepted():
    layer = create_frontend("mel_32k")
    samples = np.random.default_rng(0).integers(-3000, 3000, (1, 20_000)).astype("int16")
    scaled = tf.function(lambda x: layer(tf.cast(x, tf.float32) / 32768.0))(samples)
    np.testing.assert_allclose(scaled, layer(samples.astype("float32") / 32768.0), atol=1e-4)
