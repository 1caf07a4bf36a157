"""Pretrained weights: find them by name, check them, load them into models."""

import ast
import dataclasses
import fnmatch
import hashlib
import http.server
import json
import threading
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import rfkeras
import zoo
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.frontend import create_frontend
from tests.conftest import FIXTURES
from tests.helpers.processes import ROOT
from zoo import pretrained
from zoo.transfer import Transferred, transfer

TAGS = ("low", "mid", "high")
OPTIONS = {"width": 4, "rho": 1, "blocks": [1, 1, 1], "allow_rf_change": True}


def randomise(model, seed=0):
    """Set all weights to different values above zero."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))


def build(**options):
    return zoo.create_model(
        "resnet_rf_tiny",
        **{**OPTIONS, "blocks": (1, 1, 1), **options},
    )


def state(model):
    """Return the weights by layer."""
    return {layer.name: [weight.numpy() for weight in layer.weights] for layer in model.layers}


def assert_equal(one, other, leave_out=()):
    for name in set(one) - set(leave_out):
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a model that looks trained, and its file."""
    model = build(
        label_names=TAGS, frontend=create_frontend("perceptual_mel_22k", fixed_floor=True)
    )
    randomise(model)
    model.head.thresholds = (0.1, 0.2, 0.3)
    path = tmp_path_factory.mktemp("weights") / "w.keras"
    model.save(path)
    return SimpleNamespace(model=model, path=path)


@pytest.fixture
def entry(trained, tmp_path, monkeypatch):
    """Return the index entry of the model, in an index that lists nothing else."""
    content = trained.path.read_bytes()
    (tmp_path / "w.keras").write_bytes(content)
    made = pretrained.PretrainedWeights(
        model="resnet_rf_tiny",
        name="tones",
        file="w.keras",
        sha256=hashlib.sha256(content).hexdigest(),
        options={
            **OPTIONS,
            "initialization": "he",
            "frontend": {"preset": "perceptual_mel_22k", "fixed_floor": True},
        },
        labels=TAGS,
        task="multi_label",
    )
    pretrained.write_index((made,), tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    return made


def test_pretrained_weights_determine_the_network_and_its_tags(entry, trained):
    assert zoo.list_weights("resnet*") == ["resnet_rf_tiny:tones"]
    assert zoo.list_weights("vgg*") == []
    model = zoo.create_model("resnet_rf_tiny", weights="tones")
    assert_equal(state(trained.model), state(model))
    assert model.head.label_names == TAGS
    assert model.head.thresholds == (0.1, 0.2, 0.3)
    assert model.get_layer("frontend").fixed_floor
    x = np.random.default_rng(0).normal(0, 0.1, (1, 22050)).astype("float32")
    np.testing.assert_array_equal(model(x), trained.model(x))
    for name in ("resnet_rf_tiny", "resnet_rf_tiny:tones", trained.path):
        np.testing.assert_array_equal(rfkeras.load_model(name)(x), model(x))


@pytest.mark.parametrize(
    "classes",
    [
        {"num_classes": 2},
        {"label_names": ("low", "high", "mid")},
        {"task": "single_label"},
        {"num_classes": 4, "task": "single_label", "head": "attention"},
    ],
)
def test_other_classes_get_a_new_head_and_the_pretrained_backbone(
    classes, entry, trained, capsys
):
    if "task" in classes:
        model = zoo.create_model("resnet_rf_tiny", weights="tones", **classes)
    else:
        model = build(weights=trained.path, **classes)
    heads = ("classifier_conv", "classifier_bn", "logits")
    assert_equal(state(trained.model), state(model), leave_out=heads)
    np.testing.assert_array_equal(model.get_layer("classifier_bn").gamma, 1.0)
    assert model.head.thresholds is None
    assert model.head.task == classes.get("task", "multi_label")
    assert "classifier_conv, classifier_bn" in capsys.readouterr().err


def test_the_classifier_is_copied_between_models_without_a_pooling_head():
    source, model = (
        keras.Sequential(
            [keras.Input((8, 4, 2)), keras.layers.Conv2D(3, 1, name="classifier_conv")]
        )
        for _ in range(2)
    )
    randomise(source)
    assert transfer(source, model) == Transferred((), has_head=True, has_frontend=False)
    assert_equal(state(source), state(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8}, "have width=4"),
        ({"rho": 3}, "have rho=1"),
        ({"frontend": "perceptual_mel_22k"}, "fixed_floor=True, the model's fixed_floor=False"),
        ({"damping": 0.1}, "the model's a DampedConv2D"),
        ({"input_channels": 2}, "weights do not fit"),
        ({"widht": 4}, "Did you mean 'width'"),
    ],
)
def test_options_that_contradict_pretrained_weights(options, message, entry):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("resnet_rf_tiny", weights="tones", **options)


def test_the_error_for_another_network_shows_the_difference(trained):
    for options in ({"width": 8}, {"shake": True}, {"frequency_aware": True}):
        with pytest.raises(CheckpointError, match=r"weights do not fit.*the model's"):
            build(label_names=TAGS, weights=trained.path, **options)


def test_errors_for_unknown_names_suggest_known_ones(entry, tmp_path):
    with pytest.raises(
        CheckpointError,
        match=r"no pretrained weights .* Pretrained weights: resnet_rf_tiny:tones",
    ):
        zoo.create_model("resnet_rf_tiny", weights="bells")
    for name in ("resnet_rf", "resnet-rf-tiny"):
        message = rf"'{name}' is not a run folder, .*Did you mean resnet_rf_tiny\?"
        with pytest.raises(ConfigError, match=message):
            rfkeras.load_model(name)
    with pytest.raises(ConfigError, match=r"'xyz' is not .* Models: resnet_rf_tiny\."):
        rfkeras.load_model("xyz")
    with pytest.raises(ConfigError, match="Did you mean 'tones'"):
        rfkeras.load_model("resnet_rf_tiny:tone")
    second = dataclasses.replace(entry, name="bells")
    pretrained.write_index((entry, second), tmp_path)
    with pytest.raises(ConfigError, match="several weights"):
        rfkeras.load_model("resnet_rf_tiny")
    pretrained.write_index((entry, dataclasses.replace(second, default=True)), tmp_path)
    assert pretrained.find_weights("resnet_rf_tiny").name == "bells"


def test_a_damaged_file_or_index_is_rejected(entry, tmp_path):
    (tmp_path / "w.keras").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="is damaged or is not the expected file"):
        entry.path()
    (tmp_path / "w.keras").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        entry.path()
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "weights": [{"model": 1}]}'):
        (tmp_path / pretrained.INDEX).write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            zoo.list_weights()


@pytest.fixture
def server(tmp_path):
    """Run a web server; return its URL, its files by path and the requested paths."""
    files, requested = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requested.append(self.path)
            content, length = files.get(self.path, (None, 0))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{running.server_address[1]}"
        yield SimpleNamespace(url=url, files=files, requested=requested)
        running.shutdown()
        thread.join()


def test_weights_with_a_url_are_downloaded_once_and_checked(
    entry, server, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(cache))
    content = (tmp_path / "w.keras").read_bytes()
    (tmp_path / "w.keras").unlink()
    remote = dataclasses.replace(entry, url=f"{server.url}/w.keras")

    for wrong in ((b"x" + content[1:], len(content)), (content[:-9], len(content))):
        server.files["/w.keras"] = wrong
        with pytest.raises(CheckpointError, match=f"{server.url}/w.keras"):
            remote.path()
        assert not [path for path in cache.rglob("*") if path.is_file()]

    server.files["/w.keras"] = (content, len(content))
    path = remote.path()
    assert path.read_bytes() == content
    requests = len(server.requested)
    server.files.clear()
    assert remote.path() == path
    assert len(server.requested) == requests  # the cached file is used

    path.write_bytes(b"damaged")
    with pytest.raises(
        CheckpointError, match=r"cannot be downloaded: Not Found.*copy the file to"
    ):
        remote.path()
    with pytest.raises(CheckpointError, match="only downloaded over https://"):
        dataclasses.replace(entry, url="file:///etc/hosts").path()


def test_the_package_contains_the_files_of_its_index():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    text = setup[setup.index('"zoo": [') + len('"zoo": ') :]
    globs = ast.literal_eval(text[: text.index("]") + 1])
    folder = ROOT / "zoo/weights"
    for path in folder.iterdir():
        assert any(fnmatch.fnmatch(f"weights/{path.name}", glob) for glob in globs), path
    for entry in pretrained.read_index(folder):
        card = (folder / entry.card).read_text(encoding="utf-8")
        if entry.url is None:
            content = (folder / entry.file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry.sha256
        assert entry.model in zoo.list_models()
        for metrics in entry.metrics.values():
            assert f"{metrics['average_precision']:.3f}" in card
        assert json.dumps(str(ROOT))[1:-1] not in card


def test_one_entry_is_recommended_and_one_of_each_model_the_default():
    entries = pretrained.read_index()
    assert [entry for entry in entries if entry.recommended] == [pretrained.best_weights()]
    for model in {entry.model for entry in entries}:
        own = [entry for entry in entries if entry.model == model]
        assert sum(entry.default for entry in own) == 1, model
    for entry in entries:
        assert entry.limits, entry
        assert "\n" not in entry.limits


@pytest.mark.parametrize("recommended", [0, 2])
def test_the_best_weights_are_one_entry(recommended, entry, tmp_path):
    entries = [
        dataclasses.replace(entry, name=f"w{i}", recommended=i < recommended) for i in range(2)
    ]
    pretrained.write_index(tuple(entries), tmp_path)
    with pytest.raises(CheckpointError, match=f"recommends {recommended} weights"):
        pretrained.best_weights()


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(CheckpointError, match="There is no model"):
        rfkeras.load_model(tmp_path / "absent.keras")
    path = tmp_path / "model.keras"
    zoo.create_model("resnet_rf", 2, width=2).save(path)
    whole = path.read_bytes()
    for content in (b"", b"noise", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            rfkeras.load_model(path)
        with pytest.raises(CheckpointError):
            zoo.create_model("resnet_rf", 2, width=2, weights=path)


def test_a_misspelt_model_gets_the_nearest_name(tmp_path, monkeypatch):
    (tmp_path / "best.keras").touch()
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / "config.json").touch()
    with pytest.raises(CheckpointError, match=r"no model .*Did you mean 'best\.keras'\?"):
        rfkeras.load_model(tmp_path / "bset.keras")
    with pytest.raises(ConfigError, match=r"Did you mean .*run1\?"):
        rfkeras.load_model(tmp_path / "rnu1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"Did you mean best\.keras\?"):
        rfkeras.load_model("best.kears")


def test_a_file_with_unknown_layers_is_rejected(tmp_path):
    path = tmp_path / "model.keras"
    zoo.create_model("resnet_rf", 2, width=2).save(path)
    changed = tmp_path / "changed.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"ResidualBlock", b"ResidualBrick"))
    with pytest.raises(CheckpointError, match="ResidualBrick"):
        rfkeras.load_model(changed)


def test_an_unrelated_folder_does_not_hide_pretrained_weights(tmp_path, monkeypatch):
    (tmp_path / "resnet_rf_tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert rfkeras.load_model("resnet_rf_tiny").head.label_names[0] == "accordion"


def test_a_folder_without_a_model_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run folder, a \.keras file or a model"):
        rfkeras.load_model(tmp_path)


def test_a_run_folder_is_loaded_and_used_as_initial_weights(trained, tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(CheckpointError, match=r"There is no model .*rfkeras train --resume"):
        rfkeras.load_model(tmp_path)
    (tmp_path / "model.keras").write_bytes(trained.path.read_bytes())
    assert_equal(state(trained.model), state(rfkeras.load_model(str(tmp_path))))
    assert_equal(state(trained.model), state(build(weights=tmp_path)))


def test_weights_may_be_named_with_their_model(entry, trained):
    for name in ("resnet_rf_tiny:tones", "resnet_rf_tiny"):
        model = zoo.create_model("resnet_rf", weights=name)
        assert_equal(state(trained.model), state(model))
    with pytest.raises(ConfigError, match="do not fit model 'crnn'"):
        zoo.create_model("crnn", weights="resnet_rf_tiny:tones")


def test_the_index_keeps_its_format(entry, tmp_path):
    tested = dataclasses.replace(entry, metrics={"test split": {"f1": 0.5}})
    pretrained.write_index((tested,), tmp_path)
    rows = json.loads((tmp_path / pretrained.INDEX).read_text())["weights"]
    assert rows[0]["figures"] == {"test split": {"f1": 0.5}}
    assert pretrained.read_index(tmp_path)[0].metrics == tested.metrics


@keras.saving.register_keras_serializable(package="tests_of_pretrained")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


@keras.saving.register_keras_serializable(package="tests_of_pretrained")
def halved(inputs):
    return inputs / 2


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: keras.layers.Dense(2, activation="relu"), []),
        (lambda: keras.layers.Dense(2, activation=keras.activations.gelu), []),
        (lambda: keras.layers.Dense(2, activation=halved), ["tests_of_pretrained>halved"]),
        (lambda: Doubled(), ["tests_of_pretrained>Doubled"]),
        (lambda: keras.Sequential([Doubled()]), ["tests_of_pretrained>Doubled"]),
        (lambda: keras.layers.Lambda(lambda x: x), ["__lambda__"]),
    ],
)
def test_classes_of_the_user_are_found(tmp_path, layer, expected):
    source = keras.Input((3,))
    path = tmp_path / "model.keras"
    keras.Model(source, keras.ops.abs(layer()(source))).save(path)
    assert pretrained.users_classes(path) == expected


def test_zoo_models_have_no_classes_of_the_user(tmp_path):
    for entry in pretrained.read_index():
        assert pretrained.users_classes(pretrained.FOLDER / entry.file) == []
    assert pretrained.users_classes(FIXTURES / "v0_1_0/shake_aware_damped.keras") == []
    path = tmp_path / "model.keras"
    path.write_bytes(b"no archive")
    assert pretrained.users_classes(path) == []
