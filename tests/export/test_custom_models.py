"""Exports of users' own models: their scores, wrong input, and models without an export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.export import onnx, saved_model, tflite, verify
from rfkeras.export.onnx import OnnxRunner
from rfkeras.export.tflite import TFLiteRunner
from rfkeras.layers import ClipLogits
from tests.helpers.taggers import music, randomized, small_frontend

FORMATS = {"tflite": (tflite, TFLiteRunner), "onnx": (onnx, OnnxRunner)}
ENDINGS = ("sigmoid", "softmax", "linear", "head", "head_sigmoid")


def custom(ending, padding="same"):
    """Return a small model with this ending; valid padding needs several frames."""
    keras.utils.set_random_seed(1)
    waveform = keras.Input((None,), name="waveform")
    x = keras.layers.Conv2D(4, 5, padding=padding, activation="relu")(
        small_frontend()(waveform)
    )
    if ending.startswith("head"):
        x = ClipLogits()(keras.layers.Conv2D(3, 1)(x))
        outputs = keras.layers.Activation("sigmoid")(x) if ending != "head" else x
    else:
        x = keras.layers.GlobalAveragePooling2D()(x)
        outputs = keras.layers.Dense(3, activation=ending)(x)
    return randomized(keras.Model(waveform, outputs, name=f"ends_in_{ending}"))


def clips():
    """Return three clips: with a NaN, with an infinite sample, and finite."""
    batch = np.stack([music(3000, seed=seed) for seed in (1, 2, 2)])
    batch[0, 7], batch[1, 2999] = np.nan, np.inf
    return batch


def own_scores(model, ending, batch):
    values = np.array(model(batch))
    return 1 / (1 + np.exp(-values)) if ending in ("linear", "head") else values


@pytest.fixture(scope="module", params=ENDINGS)
def exported(request, tmp_path_factory):
    """Return an ending, the model, and its files by format."""
    folder, model = tmp_path_factory.mktemp(request.param), custom(request.param)
    files = {"savedmodel": saved_model(model, folder / "1", warmup=False)}
    for name, (convert, _) in FORMATS.items():
        files[name] = convert(model, folder / f"model.{name}").path
    return request.param, model, files


def test_all_formats_give_the_models_own_scores(exported):
    ending, model, files = exported
    batch = np.stack([music(3000, seed=seed) for seed in (4, 5)])
    expected = own_scores(model, ending, batch)
    loaded = tf.saved_model.load(str(files["savedmodel"])).signatures
    served = loaded["serving_default"](waveform=tf.constant(batch))["scores"]
    np.testing.assert_allclose(served, expected, atol=1e-5)
    for name, (_, runner) in FORMATS.items():
        run = runner(files[name].read_bytes())
        np.testing.assert_allclose(run(batch)["scores"], expected, atol=1e-5)
    if ending == "head_sigmoid":
        frames = loaded["frames"](waveform=tf.constant(batch))["frame_scores"]
        logits = np.log(frames) - np.log1p(-frames)
        clip = 1 / (1 + np.exp(-logits.mean(axis=1)))
        np.testing.assert_allclose(clip, expected, atol=1e-4)


def test_nan_and_infinite_samples_are_errors_or_nan(exported):
    _, _, files = exported
    batch = clips()
    loaded = tf.saved_model.load(str(files["savedmodel"])).signatures
    for name in set(loaded) - {"audio_bytes"}:
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"NaN or infinite values in waveform\[0, 1\]"
        ):
            loaded[name](waveform=tf.constant(batch))
        assert loaded[name](waveform=tf.constant(batch[2:]))
    for name, (_, runner) in FORMATS.items():
        run = runner(files[name].read_bytes())
        outputs, alone = run(batch), run(batch[2:])
        for key, values in outputs.items():
            assert np.isnan(values[:2]).all(), (name, key)
            np.testing.assert_allclose(values[2], alone[key][0], atol=1e-5)


def test_samples_that_are_no_audio_are_errors_of_the_saved_model(exported):
    _, _, files = exported
    loaded = tf.saved_model.load(str(files["savedmodel"])).signatures
    batch = clips()[[2, 2, 2]]
    batch[1, 5], batch[2, 0] = 1e38, -1e30
    for name in set(loaded) - {"audio_bytes"}:
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"too large to be audio in waveform\[1, 2\]"
        ):
            loaded[name](waveform=tf.constant(batch))
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="waveform contains no samples"
        ):
            loaded[name](waveform=tf.zeros((2, 0)))


def test_an_empty_batch_gives_an_error_and_short_audio_does_not(exported):
    ending, model, files = exported
    loaded = tf.saved_model.load(str(files["savedmodel"])).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Empty batch"):
        loaded(waveform=tf.zeros((0, 3000)))
    short = music(20, seed=8)[None]
    expected = own_scores(model, ending, short)
    np.testing.assert_allclose(loaded(waveform=short)["scores"], expected, atol=1e-5)
    for name, (_, runner) in FORMATS.items():
        run = runner(files[name].read_bytes())
        np.testing.assert_allclose(run(short)["scores"], expected, atol=1e-5)
        with pytest.raises(ConfigError, match="Empty batch"):
            run(np.zeros((0, 3000), np.float32))
    # The file itself, without the check of the runner: no rows in, no rows out.
    interpreter = tf.lite.Interpreter(model_content=files["tflite"].read_bytes())
    runner = interpreter.get_signature_runner()
    assert runner(waveform=np.zeros((0, 3000), np.float32))["scores"].shape == (0, 3)


def test_models_with_valid_convolutions_pad_short_audio(tmp_path):
    model = custom("head", padding="valid")
    path = saved_model(model, tmp_path / "1", warmup=False)
    short = music(20, seed=8)[None]
    served = tf.saved_model.load(str(path)).signatures["serving_default"](waveform=short)
    for name, (convert, runner) in FORMATS.items():
        run = runner(convert(model, tmp_path / name).path.read_bytes())
        np.testing.assert_allclose(run(short)["scores"], served["scores"], atol=1e-5)
    assert np.isfinite(served["scores"]).all()


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def odd_models():
    """Return models that have no export, and words of the message."""
    wave, other = keras.Input((None,), name="wave"), keras.Input((3,), name="other")
    maps = keras.layers.Conv2D(3, 1)(small_frontend()(wave))
    clip = keras.layers.GlobalAveragePooling2D()(maps)
    whole = keras.Input((None,), dtype="int32", name="whole")
    scalar = keras.Input((), name="scalar")
    subclassed = Subclassed(name="own")
    subclassed(np.zeros((1, 4)))
    return {
        "two inputs": (keras.Model([wave, other], clip + other), "one input"),
        "two outputs": (keras.Model(wave, {"a": clip, "b": clip * 2}), "one output"),
        "map output": (keras.Model(wave, maps), "output of shape"),
        "integers": (
            keras.Model(whole, small_frontend()(keras.ops.cast(whole, "float32"))),
            "int32 input 'whole'",
        ),
        "scalar": (
            keras.Model(scalar, keras.layers.Dense(3)(keras.ops.expand_dims(scalar, -1))),
            "input of shape",
        ),
        "subclassed": (subclassed, "no graph of layers"),
    }


def test_a_network_that_also_reads_the_waveform(tmp_path):
    wave = keras.Input((None,), name="waveform")
    maps = keras.layers.Conv2D(3, 1)(small_frontend()(wave))
    level = keras.ops.max(keras.ops.abs(wave), axis=1, keepdims=True)
    model = keras.Model(wave, keras.layers.GlobalAveragePooling2D()(maps) + level)
    batch = np.stack([music(3000, seed=seed) for seed in (4, 5)])
    expected = 1 / (1 + np.exp(-np.array(model(batch))))
    path = saved_model(model, tmp_path / "1", warmup=False)
    served = tf.saved_model.load(str(path)).signatures["serving_default"](waveform=batch)
    np.testing.assert_allclose(served["scores"], expected, atol=1e-5)
    for name, (convert, _) in FORMATS.items():
        with pytest.raises(ConfigError, match="reads more than the output of the layer"):
            convert(model, tmp_path / f"model.{name}")


@pytest.mark.parametrize("target", ["savedmodel", *FORMATS])
def test_models_without_an_export_are_named_in_one_sentence(target, tmp_path):
    export = saved_model if target == "savedmodel" else FORMATS[target][0]
    for name, (model, message) in odd_models().items():
        with pytest.raises(RFKerasError, match=message) as caught:
            export(model, tmp_path / f"{target}-{name}")
        assert repr(model.name) in str(caught.value)
        assert not list(tmp_path.iterdir()), name


def test_an_export_of_a_plain_model_is_verified(tmp_path):
    model = custom("softmax")
    path = saved_model(model, tmp_path / "1")
    batches = [music(3000, seed=1)[None], music(20, seed=2)[None]]
    assert verify(path, model, batches) <= 1e-5


def test_a_classifier_directly_after_the_front_end(tmp_path):
    model = keras.Sequential(
        [keras.Input((None,)), small_frontend(), keras.layers.Conv2D(3, 3), ClipLogits()]
    )
    batch = clips()[2:]
    expected = 1 / (1 + np.exp(-np.array(model(batch))))
    for name, (convert, runner) in FORMATS.items():
        path = convert(model, tmp_path / f"model.{name}").path
        run = runner(path.read_bytes())
        np.testing.assert_allclose(run(batch)["scores"], expected, atol=1e-5)
