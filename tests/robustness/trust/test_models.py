"""Files of models and data cannot make Python run code."""

import io
import json
import os
import pickle
import zipfile

import keras
import numpy as np
import pytest

from rfkeras.config.recipes import read_recipe
from rfkeras.errors import CheckpointError, DatasetError, RFKerasError
from rfkeras.interop.torch import read_state
from rfkeras.training.run_dir import load_snapshot
from tests.robustness.fuzz.readers import READERS
from zoo.pretrained import load_model


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path):
    """Return a folder that exists only if an attack ran; check that it does not."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_the_attack_works_with_plain_pickle(tmp_path):
    pickle.loads(pickle.dumps(Attack(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    "name",
    ["OpenMIC: .npz", "scores to evaluate: .npy", "report's scores: .npz", "checkpoint: .npz"],
)
def test_arrays_of_data_sets_and_checkpoints_are_not_unpickled(name, tmp_path, canary):
    reader = READERS[name]
    (root := tmp_path / "files").mkdir()
    (path,) = (
        p
        for p in reader.make(root)
        if p.name != "names.txt" and "truth" not in p.name and "mask" not in p.name
    )
    evil = io.BytesIO()
    np.save(evil, np.array([Attack(canary)], object), allow_pickle=True)
    if path.suffix == ".npy":
        path.write_bytes(evil.getvalue())
        with pytest.raises(DatasetError, match=path.name):
            reader.read(root)
        return
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    for member in members:
        with zipfile.ZipFile(path, "w") as archive:
            for other, content in members.items():
                archive.writestr(other, evil.getvalue() if other == member else content)
        with pytest.raises((DatasetError, CheckpointError), match=path.name):
            reader.read(root)


def test_pytorch_files_are_not_unpickled(tmp_path, canary):
    torch = pytest.importorskip("torch")
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Attack(canary)}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth cannot be read"):
        read_state(path)


def test_snapshots_are_read_without_pickle(tmp_path, canary):
    path = tmp_path / "last.npz"
    path.write_bytes(pickle.dumps(Attack(canary)))
    with pytest.raises(CheckpointError, match=r"last\.npz cannot be read"):
        load_snapshot(path, [])


def test_recipes_cannot_create_objects(tmp_path, canary):
    path = tmp_path / "evil.yaml"
    path.write_text(f"rho: !!python/object/apply:os.mkdir ['{canary}']\n")
    with pytest.raises(RFKerasError, match=r"evil\.yaml cannot be read"):
        read_recipe(str(path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs)).save(path)
    return path


def rewritten(saved, path, change):
    """Copy the model with a changed configuration of its dense layer."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    (layer,) = (one for one in config["config"]["layers"] if one["class_name"] == "Dense")
    change(layer)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def as_lambda(canary):
    layer = keras.layers.Lambda(lambda x, place=str(canary): (os.mkdir(place), x)[1])  # noqa: PTH102
    config = keras.saving.serialize_keras_object(layer)

    def change(entry):
        entry.update({k: config[k] for k in ("class_name", "module")})
        entry["config"] = config["config"] | {"name": "dense"}

    return change


def as_importable(module, name):
    def change(entry):
        entry.update(module=module, class_name=name, registered_name=None)

    return change


def as_activation(module, name):
    def change(entry):
        entry["config"]["activation"] = {
            "module": module,
            "class_name": "function",
            "config": name,
            "registered_name": name,
        }

    return change


ATTACKS = {
    "lambda": as_lambda,
    "class of the standard library": lambda _: as_importable("subprocess", "Popen"),
    "class of the tests": lambda _: as_importable(
        "tests.robustness.trust.test_models", "Attack"
    ),
    "function of the standard library": lambda _: as_activation("os", "mkdir"),
    "function of Keras that loads": lambda _: as_activation("keras.models", "load_model"),
    "function of Keras that downloads": lambda _: as_activation("keras.utils", "get_file"),
    "SavedModel": lambda _: as_importable("keras.layers", "TFSMLayer"),
}


@pytest.mark.parametrize("unsafe", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_models_cannot_run_functions(saved, tmp_path, canary, attack, unsafe):
    path = rewritten(saved, tmp_path / "evil.keras", ATTACKS[attack](canary))
    if unsafe:  # an application may have enabled this for its own files
        keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(CheckpointError, match=r"evil\.keras cannot be loaded"):
            load_model(path)(np.zeros((1, 4), np.float32))
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


def test_registered_layers_can_be_loaded(tmp_path):
    @keras.saving.register_keras_serializable("trust")
    class Mine(keras.layers.Dense):
        pass

    inputs = keras.Input((4,))
    keras.Model(inputs, Mine(2, name="mine")(inputs)).save(tmp_path / "mine.keras")
    assert type(load_model(tmp_path / "mine.keras").get_layer("mine")) is Mine


def test_a_damaged_member_is_detected_before_hdf5_reads_it(saved, tmp_path):
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        at = archive.getinfo("model.weights.h5").header_offset
    content[at + 3000] ^= 1
    path = tmp_path / "damaged.keras"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"'model\.weights\.h5' in the archive is"):
        load_model(path)
