"""Models on the Hugging Face Hub, from a small Hub on this machine."""

import socket
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import rfkeras
import zoo
from rfkeras.cli import main
from rfkeras.cli.main import build_parser
from rfkeras.cli.rf import open_subject
from rfkeras.errors import CheckpointError, ConfigError
from tests.helpers import hub as hubs
from tests.helpers.audio_commands import make_model
from tests.helpers.processes import run
from zoo.pretrained import existing_model, hub_address, hub_model

TONE = (0.1 * np.sin(0.05 * np.arange(22050)))[None].astype("float32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a model and the bytes of its file."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    return make_model(path), path.read_bytes()


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    with hubs.serving() as served:
        hubs.connect(monkeypatch, served.url, tmp_path / "hub")
        for revision in ("main", "v1.0", "refs%2Fpr%2F1"):
            served.files["me/tiny", revision, "model.keras"] = tiny[1]
        yield served


@pytest.mark.parametrize("source", ["hf://me/tiny", "hf://me/tiny@v1.0", Path("hf://me/tiny")])
def test_a_model_of_the_hub_is_the_model(source, hub, tiny):
    loaded = rfkeras.load_model(source)
    np.testing.assert_allclose(loaded(TONE), tiny[0](TONE), atol=1e-6)
    wanted = "v1.0" if "@" in str(source) else "main"
    asked = {path for path in hub.asked if "resolve" in path}
    assert asked == {f"/me/tiny/resolve/{wanted}/model.keras"}


def test_a_branch_may_have_slashes(hub):
    assert hub_model("hf://me/tiny@refs/pr/1").is_file()


def test_one_process_asks_once_and_works_without_a_connection_later(hub, monkeypatch, tiny):
    path = existing_model("hf://me/tiny")
    asked = len(hub.asked)
    assert existing_model("hf://me/tiny") == path
    assert len(hub.asked) == asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_model.cache_clear()
    assert existing_model("hf://me/tiny").read_bytes() == tiny[1]


def test_weights_of_the_hub_start_a_network(hub, tiny):
    made = zoo.create_model(
        "resnet_rf_tiny",
        weights="hf://me/tiny",
        rho=1,
        width=4,
        label_names=tiny[0].head.label_names,
    )
    np.testing.assert_allclose(made(TONE), tiny[0](TONE), atol=1e-6)


def test_the_receptive_field_of_a_model_of_the_hub(hub, tiny):
    options = build_parser(["rf"]).parse_args(["rf", "--model", "hf://me/tiny"])
    subject = open_subject(options)
    assert str(subject.folder) == "rf-hf-me-tiny"
    assert rfkeras.receptive_field(subject.model) == rfkeras.receptive_field(tiny[0])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("hf://me/none", CheckpointError, "There is no model me/none .*private.*hf auth login"),
        ("hf://me/tiny@v9", CheckpointError, "no revision 'v9'. Use a branch, tag or commit"),
        ("hf://me/empty", CheckpointError, "no file model.keras.*rfkeras push"),
        ("hf://me", ConfigError, "is hf://USER/NAME or hf://USER/NAME@REVISION"),
        ("hf://me/tiny/model.keras", ConfigError, "Received: 'hf://me/tiny/model.keras'"),
    ],
)
def test_what_is_missing_is_named(source, error, message, hub):
    hub.files["me/empty", "main", "weights.h5"] = b""
    with pytest.raises(error, match=message):
        rfkeras.load_model(source)


# huggingface_hub tries for 20 seconds to reach a Hub that does not answer.
@pytest.mark.parametrize("offline", [pytest.param(False, marks=pytest.mark.slow), True])
def test_without_a_connection_the_error_says_how_to_go_on(
    offline, tmp_path, monkeypatch, capsys
):
    soundfile.write(tmp_path / "tone.wav", TONE[0], 22050)
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        hubs.connect(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        assert main.run(["tag", "--model", "hf://me/tiny", str(tmp_path / "tone.wav")]) == 1
    error = capsys.readouterr().err
    assert "hf://me/tiny cannot be downloaded, and it is not in the cache" in error
    assert "Traceback" not in error


def test_damaged_and_unsafe_files_are_rejected(hub, tiny, tmp_path):
    damaged = bytearray(tiny[1])
    damaged[len(damaged) // 2] ^= 255
    hub.files["me/damaged", "main", "model.keras"] = bytes(damaged)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        rfkeras.load_model("hf://me/damaged")
    unsafe = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    unsafe.save(tmp_path / "unsafe.keras")
    hub.files["me/unsafe", "main", "model.keras"] = (tmp_path / "unsafe.keras").read_bytes()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        rfkeras.load_model("hf://me/unsafe")


def test_addresses():
    assert hub_address("hf://me/tiny") == ("me/tiny", None)
    assert hub_address("hf://me.too/t-1_2@refs/pr/1") == ("me.too/t-1_2", "refs/pr/1")


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(hub, tiny, tmp_path):
    soundfile.write(tmp_path / "tone.wav", TONE[0], 22050, subtype="FLOAT")
    status, out, err = run(
        *(
            "-m",
            "rfkeras.cli",
            "tag",
            "tone.wav",
            "--model",
            "hf://me/tiny",
            "--format",
            "tsv",
            "--quiet",
        ),
        *("--engine", "tensorflow"),
        cwd=tmp_path,
        HF_HOME=str(tmp_path / "home"),
    )
    assert status == 0, err
    head, row = out.splitlines()
    scores = np.array(tiny[0].scores(TONE))[0]
    np.testing.assert_allclose(np.array(row.split("\t")[1:], float), scores, atol=2e-5)
    assert list((tmp_path / "home").rglob("model.keras"))
