"""`rfkeras export`, run as a user does."""

import argparse
import json
import re
import shutil
import sys

import keras
import pytest
import soundfile

from rfkeras import synthesis
from rfkeras.cli import export
from rfkeras.cli.main import run as command
from rfkeras.export import ExportError, verify
from rfkeras.export.single_file import PRECISIONS
from rfkeras.export.tflite import TFLiteRunner, read_card
from rfkeras.layers.head import ClipLogits
from tests.helpers.processes import ROOT
from tests.helpers.serving import run_in_this_process
from tests.helpers.small_models import LABELS, music, small
from tests.helpers.taggers import small_frontend
from zoo.pretrained import best_weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    small().save(path)
    return path


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def test_the_best_weights_are_exported(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(export, "_limit_threads", lambda: None)  # see below
    model, path = str(best_weights()), tmp_path / "m.onnx"
    assert command(["export", model, "--to", "onnx", "--output", str(path)]) == 0
    assert path.is_file()
    assert "of a clip's score (1e-05 allowed)" in capfd.readouterr().out


def test_int8_calibrated_with_music(tmp_path, capfd, monkeypatch):
    # Other tests have already started TensorFlow, which then rejects a number of threads.
    monkeypatch.setattr(export, "_limit_threads", lambda: None)
    path = tmp_path / "m.tflite"
    # Pretrained weights and the music they know; for other activations 8 bits are too few.
    audio = synthesis.generate(tmp_path, size=16, progress=False) / "audio"
    model = "resnet_rf_tiny:gm_instruments"
    arguments = ["export", model, "--to", "tflite", "--output", str(path)]
    arguments += ["--precision", "int8", "--calibrate", str(audio), "--time"]
    assert command(arguments) == 0
    out, err = capfd.readouterr()
    # TensorFlow Lite of TensorFlow 2.20 writes this line itself.
    assert err in ("", "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
    assert len(out.splitlines()) == 7, out
    assert re.search(r"size +\d\.\d\d MB, int8", out)
    compared = (
        f"11 batches made from half of 16 excerpts from {audio} (the other half calibrated)"
    )
    assert f"compared on         {compared}" in out
    assert re.search(r"largest difference +\d\.\de-0\d of a clip's score", out)
    assert re.search(r"time for 10 s +\d+\.\d ms, \d+\.\d\d times Keras' \d", out)
    labels = read_card(path)["labels"]
    assert labels[:2] == ["accordion", "banjo"]
    scores = TFLiteRunner(path.read_bytes())(music(30000)[None])["scores"]
    assert scores.shape == (1, len(labels))
    assert command(arguments) == 1
    assert "exists. Use another --output, or --overwrite." in capfd.readouterr().err


def test_a_note_names_audio_that_cannot_be_used(tmp_path, capfd):
    soundfile.write(tmp_path / "good.wav", music(8000), 8000)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    options = argparse.Namespace(calibrate=[tmp_path], time=False, precision="float32")
    assert len(export._excerpts(options, small()).waveforms) == 1
    note = capfd.readouterr().err
    assert note.startswith("Note: 2 audio files could not be used: ")
    assert f"{tmp_path / 'gone.wav'}: broken link" in note
    assert f"{tmp_path / 'bad.wav'}: undecodable" in note


def test_a_saved_model_that_differs_is_removed(saved, tmp_path, capfd, monkeypatch):
    path = tmp_path / "served" / "1"
    arguments = ["export", str(saved), "--to", "savedmodel", "--output", str(path)]
    monkeypatch.setattr(sys.modules[verify.__module__], "_run_clean", run_in_this_process)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    assert command(arguments) == 0
    printed = capfd.readouterr()
    assert "6 synthetic excerpts" in printed.out
    assert "no warm-up requests" in printed.err
    assert "pip install 'rfkeras[serving]'" in printed.err
    shutil.rmtree(path)

    def differs(*_):
        raise ExportError("It differs.")

    monkeypatch.setattr("rfkeras.export.verify", differs)
    assert command(arguments) == 1
    assert "It differs." in capfd.readouterr().err
    assert not path.exists()


def test_onnx_without_front_end_on_synthetic_audio(saved, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    arguments = ["export", str(saved), "--to", "onnx", "--output", str(path)]
    assert command([*arguments, "--without-frontend", "--precision", "float16"]) == 0
    out = capfd.readouterr().out
    assert "6 synthetic excerpts" in out
    assert path.stat().st_size > 10000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--to tflite --precision int8", "--precision int8 needs audio for calibration"),
        ("--to savedmodel --precision float16", "--precision needs --to tflite or --to onnx"),
        ("--to onnx --calibrate /nowhere.wav", "/nowhere.wav: "),
        ("--to savedmodel --overwrite", "--overwrite needs --to tflite, --to onnx or --to web"),
        ("--to web --precision float16", "--precision needs --to tflite or --to onnx"),
        ("--to web --calibrate a.wav", "--calibrate needs --to tflite, --to onnx or"),
    ],
)
def test_rejected_arguments(saved, tmp_path, capfd, arguments, reason):
    line = ["export", str(saved), "--output", str(tmp_path / "x"), *arguments.split()]
    assert command(line) == 1
    assert reason in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_the_packaged_weights(tmp_path, capfd):
    arguments = ["export", "--model", "resnet_rf_tiny", "--to", "web", "--output"]
    arguments.append(str(tmp_path / "out"))
    assert command(arguments) == 0
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    printed = capfd.readouterr().out
    assert printed == f"Page: {tmp_path / 'out' / 'index.html'} ({size / 1e6:.1f} MB)\n"
    assert command(arguments) == 1
    assert "is not empty. Use another --output, or --overwrite." in capfd.readouterr().err
    assert command([*arguments, "--overwrite"]) == 0


@pytest.mark.slow
def test_a_page_of_an_own_model(saved, tmp_path, capfd):
    path = tmp_path / "out"
    assert command(["export", str(saved), "--to", "web", "--output", str(path)]) == 0
    assert "Converting" in capfd.readouterr().err
    text = (path / "assets/model.js").read_text("utf-8")
    model = json.loads(text.removeprefix("const rfkerasModel = ").removesuffix(";\n"))
    assert model["labels"] == list(LABELS)
    assert model["about"] == f"4 tags, {saved.parent.name}/model.keras"


@pytest.mark.slow
def test_a_model_without_an_engine_file_has_no_page(tmp_path, capfd):
    waveform = keras.Input((None,))
    louder = keras.layers.Rescaling(2.0)(waveform)
    x = keras.layers.Conv2D(3, 3)(small_frontend()(louder))
    keras.Model(waveform, ClipLogits()(x)).save(tmp_path / "model.keras")
    arguments = ["export", "--model", str(tmp_path / "model.keras"), "--to", "web"]
    assert command([*arguments, "--output", str(tmp_path / "out")]) == 1
    error = capfd.readouterr().err
    assert "layers are before its front-end" in error
    assert error.endswith("So it cannot be exported as a page.\n")
    assert not (tmp_path / "out").exists()


def test_the_precisions_match_the_library():
    assert export.PRECISIONS == PRECISIONS


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymusic").mkdir()
    for i in range(4):
        soundfile.write(tmp_path / f"mymusic/{i}.wav", music(44100, seed=i), 22050)
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    exec(compile(code, "export.md", "exec"), {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "22050 {'flute': 0.5, 'voice': 0.5}"
    assert second == "22050 ['flute', 'voice'] (1, 2)"
    assert third == "int8 2 batches compared"
