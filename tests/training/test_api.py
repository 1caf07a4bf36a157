"""`rfkeras.train` and `rfkeras.evaluate` with objects, and parts registered by name."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import rfkeras
from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.cli import main
from rfkeras.datasets import from_tf_data, load_dataset
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.frontend import create_frontend, find_frontend
from rfkeras.layers import ClipLogits
from rfkeras.training import run as runs
from rfkeras.utils import user_code
from tests.helpers.whole_runs import FLAGS, eager_model, weights

SMALL = {name: FLAGS[name] for name in FLAGS if name not in ("dataset", "export")}
OF_DATA = ("epochs", "batch_size", "excerpt_seconds", "window_seconds", "devices")


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(runs, "build_training_model", eager_model)


@pytest.fixture(scope="module")
def tones(tone_folder):
    return load_dataset("folder", data_dir=tone_folder, test_share=0.2)


def log_of(run):
    with run.folder.log.open(newline="") as file:
        return list(csv.DictReader(file))


def small_model(name="given", label_names=None, bias=0.0):
    waveform = keras.Input((None,))
    x = create_frontend("mel_32k", fixed_floor=True)(waveform)
    x = keras.layers.Conv2D(4, 5, strides=4, activation="relu")(x)
    x = keras.layers.Conv2D(3, 1, bias_initializer=keras.initializers.Constant(bias))(x)
    return rfkeras.Tagger(waveform, ClipLogits(label_names=label_names)(x), name=name)


def test_parts_given_as_objects_take_part_in_the_run(tones, tmp_path):
    seen = {"metric": 0, "noise": 0, "epochs": []}

    def constant(labels, logits):
        return 2.5 + 0.0 * logits * labels

    def share_of_high_scores(scores, labels, mask):
        seen["metric"] += 1
        assert scores.shape == labels.shape == mask.shape == (9, 3)
        return 0.25 * seen["metric"]

    class Noise(keras.layers.Layer):
        def call(self, spectrograms, training=None):
            seen["noise"] += 1
            assert training
            assert len(spectrograms.shape) == 4
            return spectrograms

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen["epochs"].append(logs["val_rising"])
            assert self.model.tagger.name == "resnet_rf_tiny"
            self.model.stop_training = epoch == 1

    run = rfkeras.train(
        "resnet_rf_tiny",
        tones,
        loss=constant,
        optimizer=keras.optimizers.SGD(0.125, momentum=0.5),
        metrics={"rising": share_of_high_scores},
        augmentation=[Noise()],
        callbacks=[Stop()],
        monitor="val_rising",
        run_dir=tmp_path / "run",
        export=False,
        **{**SMALL, "epochs": 4},
    )
    log = log_of(run)
    assert [float(row["loss"]) for row in log] == [2.5, 2.5]  # two epochs of four
    assert {float(row["learning_rate"]) for row in log} == {0.125}
    rising = [float(row["val_rising"]) for row in log]
    assert rising == seen["epochs"]
    assert rising[1] == rising[0] + 0.25
    assert seen["noise"] == 2 * (len(tones.split("train")) // 2 // 8)
    assert json.loads(run.folder.final_weights.read_text())["candidates"]["best"]["epoch"] == 2
    config = json.loads(run.folder.config.read_text())
    assert config["loss"] == "constant"
    assert config["optimizer"] == "SGD"
    assert config["metrics"] == ["rising"]
    assert config["dataset"] == "my_folder"
    scored = rfkeras.evaluate(run, split="test", bootstrap_samples=0)
    expected = run.report.mean_average_precision
    assert scored.report.mean_average_precision == pytest.approx(expected, abs=1e-6)


def test_a_model_is_copied_with_its_weights(tones, tmp_path):
    model = small_model(bias=1.5)
    find_frontend(model).mean_db.assign(np.full(128, -40.0))
    before = weights(model)
    run = rfkeras.train(
        model,
        tones,
        optimizer=keras.optimizers.SGD(0.0),
        run_dir=tmp_path / "run",
        final_weights="last",
        export=False,
        **{name: SMALL[name] for name in OF_DATA},
    )
    for mine, its in zip(before, weights(run.model), strict=True):
        np.testing.assert_array_equal(mine, its)
    np.testing.assert_array_equal(find_frontend(run.model).mean_db.numpy(), -40.0)
    assert run.model is not model
    assert run.model.head.label_names == ("high", "low", "mid")  # of the data
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype("float32")
    np.testing.assert_allclose(run.model.scores(audio), model.scores(audio), atol=1e-6)


def test_a_finished_run_is_not_trained_again(tones, tmp_path):
    def train():
        return rfkeras.train(
            "resnet_rf_tiny",
            tones,
            run_dir=tmp_path / "run",
            resume=True,
            export=False,
            **SMALL,
        )

    first, again = train(), train()
    assert log_of(first) == log_of(again)
    assert again.report.mean_average_precision == first.report.mean_average_precision


def test_wrong_objects_are_errors(tones, tmp_path):
    options = {name: SMALL[name] for name in OF_DATA}
    for model, message in (
        (small_model(label_names=("low", "mid", "high")), "high, low, mid"),
        (keras.Sequential([keras.Input((5, 5, 1)), keras.layers.Flatten()]), "no rfkeras"),
        (3, "keras.Model or a function"),
    ):
        with pytest.raises(ConfigError, match=message):
            rfkeras.train(model, tones, run_dir=tmp_path / "a", export=False, **options)
    with pytest.raises(ConfigError, match="AudioDataset"):
        rfkeras.train("resnet_rf_tiny", [1, 2], run_dir=tmp_path / "b")
    with pytest.raises(ConfigError, match=r"'epoch'.*epochs"):
        rfkeras.train("resnet_rf_tiny", tones, run_dir=tmp_path / "b", epoch=3)
    with pytest.raises(ConfigError, match="adam or adamw"):
        rfkeras.train(
            "resnet_rf_tiny", tones, optimizer="sgd", precision="mixed_float16", **SMALL
        )
    with pytest.raises(ConfigError, match="needs a data set"):
        rfkeras.evaluate(small_model())
    assert not list(tmp_path.iterdir())  # folders of runs that did not start are removed


PARTS = """
import keras
import numpy as np
import rfkeras
from rfkeras.datasets import load_dataset
from rfkeras.frontend import create_frontend

@rfkeras.register_loss("sevens")
def sevens(labels, logits):
    return 7.0 + 0.0 * logits

@rfkeras.register_dataset("tones")
def tones(data_dir, seed=0):
    return load_dataset("folder", data_dir=data_dir, test_share=0.2)

@rfkeras.register_optimizer("still")
def still(schedule):
    return keras.optimizers.SGD(0.0)

@rfkeras.register_metric("ones")
def ones(scores, labels, mask):
    return 1.0

@rfkeras.register_model("own_net")
def own_net(num_classes, *, label_names=None, task="multi_label", width=4):
    waveform = keras.Input((None,))
    x = create_frontend("mel_32k", fixed_floor=True)(waveform)
    x = keras.layers.Conv2D(width, 5, strides=4, activation="relu")(x)
    x = keras.layers.Conv2D(num_classes, 1)(x)
    head = rfkeras.layers.ClipLogits(label_names=label_names, task=task)
    return rfkeras.Tagger(waveform, head(x), name="own_net")
"""


@pytest.fixture
def no_parts(monkeypatch):
    """Forget the parts that the test registers."""
    import zoo.registry
    from rfkeras.datasets import load

    monkeypatch.setattr(user_code, "_modules", {})
    monkeypatch.setenv(user_code.VARIABLE, "[]")
    registries = [user_code.LOSSES, user_code.OPTIMIZERS, user_code.METRICS]
    for registry in (*registries, load.DATASETS, zoo.registry.MODELS):
        for name in ("_users", "_origins"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_parts_of_an_imported_file_are_named_on_the_command_line(
    tone_folder, tmp_path, capsys, no_parts
):
    (tmp_path / "own_parts_of_api.py").write_text(PARTS)
    options = ["--model", "own_net", "--dataset", "tones", "--data-dir", str(tone_folder)]
    options += ["--loss", "sevens", "--optimizer", "still", "--metrics", "ones", "--width", "6"]
    options += ["--run-dir", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "8"]
    options += ["--excerpt-seconds", "0.5", "--window-seconds", "1", "--no-export"]
    assert main.run(["train", *options]) == 1
    assert "--import FILE.py" in capsys.readouterr().err
    imported = ["--import", str(tmp_path / "own_parts_of_api.py")]
    assert main.run(["train", *options, *imported]) == 0
    with (tmp_path / "run/log.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (float(row["loss"]), float(row["val_ones"])) == (7.0, 1.0)
    model = rfkeras.load_model(tmp_path / "run")
    assert model.layers[2].filters == 6
    assert model.head.label_names == ("high", "low", "mid")
    assert main.run(["evaluate", "--run", str(tmp_path / "run"), *imported]) == 0


def test_a_run_on_tf_data_sets(tones, tmp_path):
    def clips(split):
        audio = AudioFormat(32000)
        rows = zip(tones.split(split).paths, tones.split(split).labels, strict=True)
        waves, labels = zip(*((read_audio(p, audio), y) for p, y in rows), strict=True)
        spec = (tf.TensorSpec((None,)), tf.TensorSpec((3,)))
        return tf.data.Dataset.from_generator(
            lambda: zip(waves, labels, strict=True), output_signature=spec
        )

    with pytest.raises(ConfigError, match="from_tf_data"):
        rfkeras.train("resnet_rf_tiny", clips("train"))
    dataset = from_tf_data(
        {name: clips(name) for name in tones.splits},
        tones.label_names,
        tmp_path / "shards",
        sample_rate_hz=32000,
        name="pipeline",
    )
    given = {name: SMALL[name] for name in OF_DATA} | {"export": False}
    run = rfkeras.train(small_model(), dataset, run_dir=tmp_path / "run", **given)
    assert run.report.summary["counts"]["clips"] == len(tones.split("test"))
    assert json.loads(run.folder.config.read_text())["dataset"] == "pipeline"
    again = rfkeras.evaluate(run, dataset)
    assert again.report.mean_average_precision == run.report.mean_average_precision


def test_callbacks_must_be_a_list(tones):
    with pytest.raises(ConfigError, match="callbacks must be a list of Keras callbacks"):
        rfkeras.train("resnet_rf_tiny", tones, callbacks=keras.callbacks.Callback())


def test_a_file_that_a_data_set_does_not_find_is_an_error_with_the_folder(no_parts):
    @rfkeras.register_dataset("absent")
    def absent(data_dir):
        return (data_dir / "events.csv").read_text()

    with pytest.raises(
        DatasetError, match=r"'absent' found no file .*events.csv\. --data-dir is ab"
    ):
        load_dataset("absent", data_dir="abc")
