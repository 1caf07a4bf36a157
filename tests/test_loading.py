"""Loading models from files that are not what they should be."""

import zipfile

import pytest

import rfkeras
import zoo
from rfkeras.errors import CheckpointError


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(CheckpointError, match="no model"):
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


def test_a_file_that_names_unknown_layers(tmp_path):
    path = tmp_path / "model.keras"
    zoo.create_model("resnet_rf", 2, width=2).save(path)
    changed = tmp_path / "changed.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"ResidualBlock", b"ResidualBrick"))
    with pytest.raises(CheckpointError, match="ResidualBrick"):
        rfkeras.load_model(changed)


def test_an_unrelated_folder_does_not_hide_ready_weights(tmp_path, monkeypatch):
    (tmp_path / "resnet_rf_tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert rfkeras.open_model("resnet_rf_tiny").head.label_names[0] == "accordion"


def test_a_folder_is_no_model_and_the_message_names_the_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"is a folder\. A model is one \.keras file"):
        rfkeras.load_model(tmp_path)
