"""Engine files on ONNX Runtime against the models that they were made of."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import pytest

import zoo.pretrained as pretrained
from rfkeras.errors import AudioError, CheckpointError, ConfigError
from rfkeras.export.onnx import main as convert
from rfkeras.export.onnx import write_engine
from rfkeras.inference import OnnxTagger, StreamTagger, engines, open_tagger
from rfkeras.inference.engines import RECORD, engine_file
from rfkeras.layers import ClipLogits
from tests.helpers.processes import ROOT, run
from tests.helpers.taggers import RATE_HZ, music, small_frontend, zoo_tagger
from tools.package_engines import TOLERANCE, largest_difference

MODELS = {
    "plain": lambda: zoo_tagger("resnet_rf_tiny", width=4),
    "shake, one label": lambda: zoo_tagger(
        "resnet_rf_shake_tiny", width=4, task="single_label"
    ),
    "attention": lambda: zoo_tagger("resnet_rf_tiny", width=4, head="attention"),
    "log_mean_exp": lambda: zoo_tagger("resnet_rf_tiny", width=4, head="log_mean_exp"),
    "stereo": lambda: zoo_tagger("resnet_rf_tiny", width=4, input_channels=2, head="max"),
    "moving floor": lambda: zoo_tagger(
        "vgg_rf",
        width=4,
        frontend=small_frontend(fixed_floor=False, order="mel_then_db", a_weighting=False),
    ),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function from the name of a model to its engine file and the model."""
    folder, done = tmp_path_factory.mktemp("engines"), {}

    def of(name):
        if name not in done:
            model, path = MODELS[name](), folder / f"{len(done)}.onnx"
            write_engine(model, path)
            done[name] = path, model
        return done[name]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_model(written, name):
    path, model = written(name)
    workers = 2 if name != "moving floor" else 1  # its results depend on the chunks
    engine = OnnxTagger(path, 2.0 * workers, threads=2)
    tagger = StreamTagger(model, 2.0)
    assert engine.workers == workers
    assert (engine.plan, engine.frames) == (tagger.plan, tagger.frames)
    assert (engine.exact, engine.reason_not_exact) == (tagger.exact, tagger.reason_not_exact)
    assert engine.label_names == tuple(tagger.label_names)
    assert engine.audio_format == tagger.audio_format
    if tagger.thresholds is None:
        assert engine.thresholds is None
    else:
        np.testing.assert_array_equal(engine.thresholds, tagger.thresholds)
    for samples in (1, RATE_HZ, 11 * RATE_HZ + 77):
        audio = music(samples, tagger.channels)
        mine, its = (t.run([audio], frames=True, embeddings=True) for t in (engine, tagger))
        np.testing.assert_allclose(mine.scores, its.scores, atol=1e-5)
        np.testing.assert_allclose(mine.logits, its.logits, atol=2e-4)
        np.testing.assert_allclose(mine.frame_scores, its.frame_scores, atol=1e-5)
        for one, other in (
            (mine.embedding, its.embedding),
            (mine.frame_embeddings, its.frame_embeddings),
        ):
            np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
        np.testing.assert_allclose(engine.mel_db(audio), tagger.mel_db(audio), atol=2e-3)
    long = 14 * RATE_HZ
    assert long > 2 * engine.plan.samples  # several chunks were joined


@pytest.mark.slow
def test_chunks_do_not_change_results(written):
    path, _ = written("plain")
    audio = music(20 * RATE_HZ)
    long = OnnxTagger(path, 60.0).run([audio], frames=True)
    for threads in (1, 2, 5):
        short = OnnxTagger(path, 0.5, threads=threads).run([audio], frames=True)
        np.testing.assert_allclose(short.frame_scores, long.frame_scores, atol=1e-6)
        np.testing.assert_allclose(short.scores, long.scores, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("entry", pretrained.read_index(), ids=str)
def test_packaged_engines_are_those_of_the_weights(entry):
    assert entry.engine_sha256, "run python -m tools.package_engines"
    engine = open_tagger(str(entry))
    assert isinstance(engine, OnnxTagger)
    tagger = open_tagger(str(entry), engine="tensorflow")
    assert isinstance(tagger, StreamTagger)
    assert largest_difference(engine, tagger) <= TOLERANCE


def test_an_engine_needs_no_framework(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from rfkeras.inference import open_tagger\n"
        "tagger = open_tagger('resnet_rf_tiny')\n"
        "scores = tagger.run([np.zeros(22050, np.float32)]).scores\n"
        "assert scores.shape == (20,) and scores.max() < 0.5, scores\n"
        "heavy = {'tensorflow', 'keras', 'kapre', 'jax', 'torch', 'sklearn', 'librosa'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_damaged_packaged_engines_are_refused(tmp_path, monkeypatch):
    (entry,) = [e for e in pretrained.read_index() if str(e) == "resnet_rf_tiny:instruments"]
    for suffix in (".keras", ".onnx"):
        name = entry.file.replace(".keras", suffix)
        (tmp_path / name).write_bytes((pretrained.FOLDER / name).read_bytes())
    pretrained.write_index((entry,), tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert engine_file("resnet_rf_tiny") == tmp_path / entry.file.replace(".keras", ".onnx")
    with (tmp_path / entry.file.replace(".keras", ".onnx")).open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match="SHA-256"):
        engine_file("resnet_rf_tiny")
    pretrained.write_index((replace(entry, engine_sha256=None),), tmp_path)
    assert engine_file("resnet_rf_tiny") is None  # RFKERAS_CONVERT=no


@pytest.mark.slow
def test_other_models_are_converted_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path / "cache"))
    model = zoo_tagger("resnet_rf_tiny", width=4)
    path = tmp_path / "model.keras"
    model.save(path)
    assert isinstance(open_tagger(path), StreamTagger)  # RFKERAS_CONVERT=no
    monkeypatch.delenv("RFKERAS_CONVERT")
    assert isinstance(open_tagger(path, engine="tensorflow"), StreamTagger)
    assert not (tmp_path / "cache").exists()
    engine = open_tagger(path)
    assert isinstance(engine, OnnxTagger)
    assert "once" in capsys.readouterr().err
    assert isinstance(open_tagger(path), OnnxTagger)
    assert capsys.readouterr().err == ""
    (found,) = (tmp_path / "cache" / "engines").glob("*.onnx")
    assert found == engine_file(path)
    audio = music(RATE_HZ)
    expected = StreamTagger(model).run([audio]).scores
    np.testing.assert_allclose(engine.run([audio]).scores, expected, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests_of_engines")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_engines_of_models_with_users_classes_are_not_taken_from_the_cache(
    tmp_path, monkeypatch
):
    # The class may have changed since, which the checksum of the model does not show.
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("RFKERAS_CONVERT")
    source = keras.Input((None,))
    converted = []

    def convert(model, path, on_status, again=False):
        converted.append(again)
        path.parent.mkdir(exist_ok=True)
        path.touch()

    monkeypatch.setattr(engines, "_convert", convert)
    for name, layer in (("theirs", keras.layers.ReLU()), ("mine", Doubled())):
        keras.Model(source, layer(source)).save(tmp_path / f"{name}.keras")
    theirs, mine = tmp_path / "theirs.keras", tmp_path / "mine.keras"
    assert engine_file(theirs) == engine_file(theirs, "onnx")
    assert converted == [False]
    assert engine_file(mine) is None
    assert engine_file(mine, "onnx") == engine_file(mine, "onnx")
    assert converted == [False, True, True]
    assert engine_file(mine) is None


@pytest.mark.slow
def test_models_that_cannot_be_converted_say_why(tmp_path, monkeypatch, capsys):
    waveform = keras.Input((None,))
    louder = keras.layers.Rescaling(2.0)(waveform)
    x = keras.layers.Conv2D(3, 3)(small_frontend()(louder))
    model = keras.Model(waveform, ClipLogits()(x))
    path = tmp_path / "model.keras"
    model.save(path)
    assert convert([str(path), str(tmp_path / "engine.onnx")]) == 3
    assert "cannot be converted to an engine file" in capsys.readouterr().err
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("RFKERAS_CONVERT")
    with pytest.raises(ConfigError, match="--engine tensorflow runs the model itself"):
        open_tagger(path, engine="onnx")
    lines = []
    assert isinstance(open_tagger(path, on_status=lines.append), StreamTagger)
    assert len(lines) == 2
    assert "runs on TensorFlow. Model 'functional" in lines[1]
    # The attempt is not repeated, except on request.
    assert isinstance(open_tagger(path, on_status=lines.append), StreamTagger)
    assert len(lines) == 2
    with pytest.raises(ConfigError, match="--engine tensorflow runs the model itself"):
        open_tagger(path, engine="onnx")


def test_without_the_packages_of_the_conversion_models_run_on_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("RFKERAS_CONVERT")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    source = keras.Input((None,))
    path = tmp_path / "model.keras"
    keras.Model(source, keras.layers.ReLU()(source)).save(path)
    assert engine_file(path) is None
    with pytest.raises(ConfigError, match=r"tf2onnx.*rfkeras\[onnx\]"):
        engine_file(path, "onnx")


def test_the_packages_of_the_conversion_are_named_before_tensorflow_starts(
    tmp_path, monkeypatch
):
    path, said = tmp_path / "my.keras", []
    zoo_tagger("resnet_rf_tiny", width=4).save(path)
    monkeypatch.setattr(engines, "sys", SimpleNamespace(modules={}))
    for missing, advice in ((["tf2onnx"], "pip install 'rfkeras[onnx]'"), ([], "few seconds")):
        monkeypatch.setattr(engines, "_missing_packages", lambda names=missing: names)
        open_tagger(path, on_status=said.append)
        assert f"Loading {path} with TensorFlow" in said[-1]
        assert advice in said[-1]
    assert "pip" not in said[-1]


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("RFKERAS_CONVERT")
    source = keras.Input((None,))
    path = tmp_path / "model.keras"
    keras.Model(source, keras.layers.ReLU()(source)).save(path)
    lines = []
    assert engine_file(path, on_status=lines.append) is None
    assert "runs on TensorFlow" in lines[-1]
    assert str(tmp_path / "cache") in lines[-1]


# In Python of its own: the variables count when ONNX Runtime is imported.
OPENED = """
import os
for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"):
    os.environ.pop(name, None)
from rfkeras.inference.engines import OnnxTagger, engine_file
print(OnnxTagger(engine_file("resnet_rf_tiny")).label_names[0])
"""


def test_onnx_runtime_reports_to_nobody(tmp_path):
    status, out, err = run("-c", OPENED, cwd=ROOT, fork=False, TMPDIR=str(tmp_path))
    assert (status, out) == (0, "accordion\n"), err
    assert list(tmp_path.iterdir()) == []  # the record of a session to report is a file .ses


def test_a_missing_runtime_is_named_instead_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="needs the package onnxruntime: pip install"):
        OnnxTagger(tmp_path / "engine.onnx")


def test_wrong_files_and_names_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"engine.*onnx"):
        open_tagger("resnet_rf_tiny", engine="onxx")
    path = tmp_path / "engine.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="cannot be used as an engine file"):
        OnnxTagger(path)
    proto = onnx.load(engine_file("resnet_rf_tiny"))
    record = json.loads(proto.metadata_props[0].value)
    proto.metadata_props[0].value = json.dumps({**record, "format": 99})
    assert proto.metadata_props[0].key == RECORD
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match="has format 99"):
        OnnxTagger(path)
    with pytest.raises(ConfigError, match="chunk_seconds"):
        open_tagger("resnet_rf_tiny", chunk_seconds=0)


def test_what_cannot_be_computed_names_the_place(monkeypatch):
    tagger = OnnxTagger(engine_file("resnet_rf_tiny"), chunk_seconds=5.0, threads=2)
    mel_db = tagger._mel.mel_db

    def fails(waveform):
        if waveform.max() > 0:
            raise MemoryError("no room")
        return mel_db(waveform)

    monkeypatch.setattr(tagger, "_mel", SimpleNamespace(mel_db=fails))
    with pytest.raises(AudioError, match=r"0\.000 s.*no room.*smaller value"):
        tagger.run([np.ones(22050, np.float32)])
    # In a chunk after others, by one of two workers.
    audio = np.zeros(30 * 22050, np.float32)
    audio[20 * 22050] = 1.0
    plan = tagger.plan
    number = -(-(20 * 22050 + 1 - plan.samples) // plan.step_samples)  # the first with it
    place = number * plan.step_samples
    with pytest.raises(AudioError, match=rf"{place / 22050:.3f} s.*no room") as raised:
        tagger.run([audio])
    assert "smaller value" in str(raised.value)
