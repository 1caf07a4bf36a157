"""Files written by version 0.1.0 can be opened and give the same results as there.

They are in tests/fixtures/v0_1_0; its README.md shows how they were made. The tests use only
the public API and the command line. Numbers may differ slightly on another processor.
"""

import csv
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import rfkeras
from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.frontend import find_frontend
from tests.helpers.processes import ROOT, run

FILES = ROOT / "tests" / "fixtures" / "v0_1_0"
LABELS = ("high", "low", "noise")
SERVED = """
import sys, numpy as np, tensorflow as tf
wave = tf.constant(np.load("waveform.npy"))
arrays = {}
for name, function in tf.saved_model.load("1").signatures.items():
    if name != "audio_bytes":
        for key, value in function(waveform=wave).items():
            arrays[f"{name}/{key}"] = value.numpy()
np.savez("served.npz", **arrays)
"""


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "expected.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture
def files(tmp_path):
    """Copy the files, so that a test may change them, and name the copied clips in the runs."""
    root = Path(shutil.copytree(FILES, tmp_path / "files"))
    for run_folder in ("finished", "killed"):
        path = root / run_folder / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"data_dir": str(root / "clips")}))
    return root


def python(*arguments, cwd, fork=True):
    """Run Python with the code under test; return its standard output."""
    status, out, err = run(*arguments, cwd=cwd, fork=fork, PYTHONPATH=str(ROOT))
    assert status == 0, err
    return out


def below(arrays, prefix):
    """Return the arrays with this prefix, by name without the prefix."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def waveform(expected):
    return (expected["waveform_int16"] / 32768).astype(np.float32)


def assert_scores_of_whole_clips(path, then, model_path, data, tolerance=1e-5):
    """Compare the scores.npz of an evaluation with the one that version 0.1.0 wrote.

    Version 0.1.0 averaged the scores of windows of 0.4 s; today a score is that of the whole
    clip. The model must still give both.
    """
    tagger = rfkeras.load_model(model_path)
    audio = AudioFormat(find_frontend(tagger).sample_rate_hz)
    window = audio.samples(0.4)

    def scores(waveforms):
        return np.asarray(tagger.scores(np.stack(waveforms)))

    with np.load(path) as found:
        for name in ("keys", "labels", "mask"):
            assert found[name].tolist() == then[name].tolist()
        clips = [read_audio(data / key, audio) for key in found["keys"]]
        whole = np.concatenate([scores([clip]) for clip in clips])
        np.testing.assert_allclose(found["scores"], whole, rtol=tolerance, atol=tolerance)
    averages = np.stack([scores([c[:window], c[-window:]]).mean(axis=0) for c in clips])
    np.testing.assert_allclose(then["scores"], averages, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("finished", "finished/model.keras"),
        ("shake_aware_damped", "shake_aware_damped.keras"),
    ],
)
def test_a_model_gives_the_same_logits(name, path, expected):
    model = rfkeras.load_model(FILES / path)
    logits = np.asarray(model(waveform(expected), training=False))
    np.testing.assert_allclose(logits, expected[f"logits/{name}"], rtol=1e-5, atol=1e-5)
    again = np.asarray(rfkeras.fold(model)(waveform(expected), training=False))
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-4)


def test_a_finished_run_loads_as_a_tagger(expected):
    tagger = rfkeras.load_model(FILES / "finished/model.keras")
    assert tagger.head.label_names == LABELS
    wanted = below(expected, "served/")
    for per, method, name in (
        ("clip", tagger.scores, "serving_default/scores"),
        ("frame", tagger.scores, "frames/frame_scores"),
        ("clip", tagger.embed, "embed/embedding"),
    ):
        values = np.asarray(method(waveform(expected), per=per))
        # The SavedModel is folded, which rounds differently.
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_evaluating_a_finished_run_gives_the_same_scores(files):
    arguments = ("--run", "finished", "--output", "again")
    python(ROOT / "evaluate.py", *arguments, cwd=files, fork=False)
    with np.load(files / "finished/report/scores.npz") as then:
        arrays = {name: then[name] for name in ("keys", "labels", "mask", "scores")}
    assert_scores_of_whole_clips(
        files / "again/scores.npz", arrays, files / "finished/model.keras", files / "clips"
    )


@pytest.mark.slow
def test_a_killed_run_can_be_resumed(files, expected):
    assert not (files / "killed/model.keras").exists()
    python(ROOT / "train.py", "--resume", "killed", cwd=files)
    with (files / "killed/log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    variables = rfkeras.load_model(files / "killed/model.keras").variables
    wanted = below(expected, "resumed/")
    assert len(variables) == len(wanted)
    for variable, (name, value) in zip(variables, wanted.items(), strict=True):
        # Other kernels change the weights by 1e-6; repeating one step changes them by 7e-2.
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-4, err_msg=name)
    arrays = below(expected, "resumed_scores/")
    assert_scores_of_whole_clips(
        *(files / "killed/report/scores.npz", arrays, files / "killed/model.keras"),
        *(files / "clips", 1e-4),
    )


@pytest.mark.slow
def test_shards_pass_the_check(files):
    arguments = "data check --dataset packed --data-dir packed --json found.json".split()
    out = python("-m", "rfkeras.cli", *arguments, cwd=files)
    assert json.loads((files / "found.json").read_text()), out


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_scores_from_shards_are_the_same(split, files, expected):
    python(
        *(ROOT / "evaluate.py", "--model-path", "finished/model.keras", "--split", split),
        *("--dataset", "packed", "--data-dir", "packed", "--output", "report"),
        *("--window-seconds", "0.4", "--bootstrap", "0"),
        cwd=files,
    )
    then = below(expected, f"packed/{split}/")
    model = files / "finished/model.keras"
    assert_scores_of_whole_clips(files / "report/scores.npz", then, model, files, 1e-4)


@pytest.mark.slow
def test_a_saved_model_runs_without_this_library(tmp_path, expected):
    with tarfile.open(FILES / "saved_model.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    np.save(tmp_path / "waveform.npy", waveform(expected))
    command = [sys.executable, "-I", "-c", SERVED]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=540)
    wanted = below(expected, "served/")
    with np.load(tmp_path / "served.npz") as served:
        assert set(served.files) == set(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(served[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
