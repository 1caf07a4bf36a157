"""The user's own layers: `--import FILE.py`."""

import json
import sys

import keras
import numpy as np
import pytest

from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.utils import user_code
from rfkeras.utils.user_code import VARIABLE, import_user_code
from tests.helpers.processes import run
from zoo.pretrained import load_model

GAIN = """
import keras
{register}
class {name}(keras.layers.Layer):
    def call(self, x):
        return 3.0 * x
"""
REGISTER = '@keras.saving.register_keras_serializable(package="test_user_code")'


@pytest.fixture(autouse=True)
def nothing_imported(monkeypatch):
    """Start without imports, and forget those of the test."""
    before = set(sys.modules)
    monkeypatch.setattr(user_code, "_modules", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(VARIABLE, "[]")
    objects = dict(keras.saving.get_custom_objects())
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(objects)
    for name in set(sys.modules) - before:
        if name.startswith(("own_", "rfkeras_user_")):
            del sys.modules[name]


def installed(folder, code):
    """Write a package with an entry point, as pip installs it, and return its folder."""
    (folder / "own_package.py").write_text(code)
    info = folder / "own_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[rfkeras]\nmine = own_package\n")
    return folder


def test_an_installed_package_needs_no_import(tmp_path, monkeypatch):
    monkeypatch.setattr(user_code, "_loaded_plugins", set())
    code = (
        "import rfkeras\n@rfkeras.register_loss('plugged')\ndef plugged(labels, logits): ...\n"
    )
    monkeypatch.syspath_prepend(installed(tmp_path, code))
    assert "plugged" in user_code.LOSSES


def test_a_package_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(user_code, "_loaded_plugins", set())
    monkeypatch.syspath_prepend(installed(tmp_path, "raise ValueError('too old')"))
    message = "'mine' of the package own-package cannot be loaded: ValueError: too old"
    with pytest.raises(ConfigError, match=message):
        user_code.load_plugins()


def own_layer(folder, name, register=REGISTER):
    path = folder / f"own_{name.lower()}.py"
    path.write_text(GAIN.format(name=name, register=register))
    return path


def saved_by_another_process(folder, path, name):
    """Save a model that contains the layer; return the file."""
    file = folder / f"{name}.keras"
    module = user_code._run_file(path)
    inputs = keras.Input((4,))
    keras.Model(inputs, getattr(module, name)()(inputs)).save(file)
    keras.saving.get_custom_objects().clear()
    del sys.modules[module.__name__]
    return file


def test_an_imported_file_makes_its_layers_known(tmp_path):
    path = own_layer(tmp_path, "Triple")
    model = saved_by_another_process(tmp_path, path, "Triple")
    with pytest.raises(CheckpointError, match=r"class 'Triple'.*--import FILE\.py"):
        load_model(model)
    assert import_user_code([str(path)]) == [str(path)]
    np.testing.assert_array_equal(load_model(model)(np.ones((1, 4))), np.full((1, 4), 3.0))


def test_child_processes_import_what_their_parent_imported(tmp_path):
    path = own_layer(tmp_path, "Inherited")
    model = saved_by_another_process(tmp_path, path, "Inherited")
    import_user_code([str(path)])
    code = "from zoo.pretrained import load_model; "
    code += f"print(type(load_model({str(model)!r}).layers[1]))"
    _, out, err = run("-c", code, cwd=tmp_path)
    assert "own_inherited.Inherited" in out, err


def test_a_layer_that_is_not_registered_is_named(tmp_path):
    path = own_layer(tmp_path, "Forgotten", register="")
    model = saved_by_another_process(tmp_path, path, "Forgotten")
    import_user_code([str(path)])
    with pytest.raises(CheckpointError, match=r"own_forgotten\.py defines it but does not reg"):
        load_model(model)


def test_a_file_that_registers_something_else_is_named(tmp_path):
    path = own_layer(tmp_path, "Wanted")
    model = saved_by_another_process(tmp_path, path, "Wanted")
    import_user_code([str(own_layer(tmp_path, "Other"))])
    with pytest.raises(CheckpointError, match=r"own_other\.py \(--import\) does not register"):
        load_model(model)


def test_a_file_runs_once_and_may_import_its_neighbours(tmp_path):
    (tmp_path / "own_helper.py").write_text("VALUE = 7\n")
    path = tmp_path / "own_counted.py"
    path.write_text(
        "from own_helper import VALUE\nwith open(__file__ + '.runs', 'a') as f: f.write('x')\n"
    )
    import_user_code([str(path)])
    import_user_code([str(path)])
    import_user_code()
    assert (tmp_path / "own_counted.py.runs").read_text() == "x"
    assert "own_helper" in sys.modules


def test_a_file_never_replaces_a_module_of_the_same_name(tmp_path):
    path = tmp_path / "json.py"
    path.write_text("dumps = None\n")
    import_user_code([str(path)])
    assert sys.modules["json"] is json


def test_a_module_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_module.py").write_text("VALUE = 7\n")
    monkeypatch.chdir(tmp_path)
    import_user_code(["own_module"])
    assert sys.modules["own_module"].VALUE == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = a / 0\n", r"own_bad\.py, line 2: ZeroDivisionError"),
        ("def f(:\n", r"own_bad\.py, line 1: SyntaxError"),
        ("import no_such_module_here\n", r"line 1: ModuleNotFoundError.*no_such_module_here"),
        ("\n\nraise SystemExit(0)\n", r"line 3: SystemExit"),
    ],
)
def test_errors_in_the_file_name_its_line(tmp_path, text, message):
    path = tmp_path / "own_bad.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        import_user_code([str(path)])
    assert "own_bad" not in sys.modules


def test_missing_files_and_modules_get_the_nearest_name(tmp_path, monkeypatch):
    own_layer(tmp_path, "Near")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no such file.*Did you mean 'own_near\.py'"):
        import_user_code(["own_naer.py"])
    with pytest.raises(ConfigError, match=r"no_such_module.*Name a file as FILE\.py"):
        import_user_code(["no_such_module"])
