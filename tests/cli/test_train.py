"""The commands train, evaluate and data pack, run as a user does."""

import json
import time
from importlib import metadata, util

import numpy as np
import pytest
import yaml

import zoo
from rfkeras.cli.main import build_parser
from rfkeras.cli.main import run as command
from rfkeras.config.train_config import to_json
from tests.helpers.processes import ROOT, run
from zoo import pretrained

QUICK = (
    "--dataset folder --width 4 --rho 2,1 --blocks 1,0,0 --allow-rf-change --epochs 2 "
    "--batch-size 8 --excerpt-seconds 0.5 "
    "--window-seconds 1 --learning-rate 0.01"
).split()


@pytest.fixture(scope="module")
def finished(tone_folder, tmp_path_factory):
    """Train a run on two devices; return its folder and the outputs of train.py."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    status, out, err = run(
        *("train.py", *QUICK, "--data-dir", tone_folder),
        *("--devices", "cpu:2", "--run-dir", folder),
        fork=False,
    )
    assert status == 0, err
    return folder, out, err


def test_help_is_instant_and_loads_no_framework():
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        status, out, _ = run("-m", "rfkeras.cli", "--help", fork=False)
        seconds.append(time.perf_counter() - started)
    assert status == 0
    assert min(seconds) < 1.0
    for name in ("train", "evaluate", "sweep", "tune", "rf", "data", "models"):
        assert name in out
    code = (
        "import sys, rfkeras, zoo; from rfkeras.cli.main import build_parser; "
        "build_parser(); print(sys.modules)"
    )
    _, modules, _ = run("-c", code, fork=False)
    for heavy in ("tensorflow", "keras", "librosa", "matplotlib", "sklearn"):
        assert f"'{heavy}'" not in modules


def test_import_rfkeras_loads_no_framework():
    code = "import sys, rfkeras, rfkeras.rf; print('tensorflow' in sys.modules)"
    assert run("-c", code, fork=False)[1] == "False\n"


def test_two_devices_train_and_the_table_ends_with_map_and_folder(finished):
    folder, out, err = finished
    environment = json.loads((folder / "environment.json").read_text())
    assert len([d for d in environment["devices"] if "CPU" in d]) == 2
    for tag in ("low", "mid", "high"):
        assert f"\n{tag} " in out
    assert "Test mAP" in out
    assert "chance" in out
    assert out.rstrip().endswith(f"Run folder: {folder}")
    assert "validation mAP" in err


def test_the_run_folder_has_the_documented_files(finished):
    folder = finished[0]
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "environment.json",
        "final_weights.json",
        "training_clips.json",
        "log.csv",
        "tensorboard",
        "checkpoints",
        "model.keras",
        "report",
        "saved_model",
    }
    reports = {path.name for path in (folder / "report").iterdir()}
    assert reports >= {"report.json", "per_tag.csv", "per_tag.png", "precision_recall.png"}
    config = json.loads((folder / "config.json").read_text())
    assert config["rho"] == [2, 1]
    assert config["learning_rate"] == 0.01
    assert config["seed"] == 0
    assert config["blocks"] == [1, 0, 0]
    assert config["clip_norm"] is None  # defaults are written out as well
    assert config["initialization"] == "published"
    assert config["data_dir"].startswith("/")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["tensorflow"] == metadata.version("tensorflow")
    assert (folder / "saved_model/1/assets/labels.txt").read_text() == "high\nlow\nmid\n"


def test_a_model_file_loads_without_an_optimiser(finished):
    model = finished[0] / "model.keras"
    code = (
        f"import rfkeras, numpy; model = rfkeras.load_model({str(model)!r}); "
        "print(model(numpy.zeros((2, 22050), 'float32')).shape, model.compiled)"
    )
    status, out, err = run("-c", code)
    assert status == 0, err
    assert out == "(2, 3) False\n"


def test_other_evaluations_do_not_change_the_report_of_the_run(finished):
    folder = finished[0]
    before = (folder / "report/report.json").read_bytes()
    status, out, err = run("evaluate.py", "--run", folder, "--window-seconds", "0.5")
    assert status == 0, err
    assert f"Report: {folder / 'report-folder-test-window_seconds=0.5'}\n" in out
    assert (folder / "report/report.json").read_bytes() == before


def test_evaluating_a_run_reproduces_its_report(finished, tmp_path):
    folder = finished[0]
    status, out, err = run("evaluate.py", "--run", folder, "--output", tmp_path)
    assert status == 0, err
    once, again = (
        json.loads((path / "report.json").read_text()) for path in (folder / "report", tmp_path)
    )
    assert again["summary"]["macro"] == pytest.approx(once["summary"]["macro"], rel=1e-6)
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_evaluate_a_model_file_on_a_named_split(finished, tone_folder, tmp_path):
    status, out, err = run(
        "evaluate.py",
        *("--model-path", finished[0] / "model.keras", "--dataset", "folder"),
        *("--data-dir", tone_folder, "--split", "validation", "--output", tmp_path),
        *("--window-seconds", "1", "--bootstrap", "10"),
    )
    assert status == 0, err
    assert "Validation mAP" in out
    assert (tmp_path / "per_tag.csv").is_file()


def test_evaluating_arrays_reproduces_the_official_scores(shared_folder, tmp_path):
    data = shared_folder / "datasets" / "mediaeval2019"
    status, out, err = run(
        "evaluate.py",
        *("--predictions", data / "2_faresnet-predictions.npy"),
        *("--groundtruth", data / "groundtruth.npy"),
        *("--decisions", data / "2_faresnet-decisions.npy"),
        *("--output", tmp_path, "--bootstrap", "0"),
    )
    assert status == 0, err
    summary = json.loads((tmp_path / "report.json").read_text())["summary"]
    official = {
        ("macro", "average_precision"): 0.146333,
        ("macro", "roc_auc"): 0.757460,
        ("macro", "f1"): 0.203541,
        ("micro", "average_precision"): 0.168327,
        ("micro", "roc_auc"): 0.802426,
        ("micro", "f1"): 0.185605,
    }
    for (average, name), value in official.items():
        assert summary[average][name] == pytest.approx(value, abs=5e-7)


def test_pack_then_train_and_evaluate_from_the_shards(tone_folder, tmp_path):
    shards = tmp_path / "shards"
    status, out, err = run(
        *("-m", "rfkeras.cli", "data", "pack", shards),
        *("--dataset", "folder", "--data-dir", tone_folder, "--shard-mb", "0.5"),
    )
    assert status == 0, err
    assert out == f"Index: {shards / 'index.json'}\n"
    quick = [flag if flag != "folder" else "packed" for flag in QUICK]
    run_folder = tmp_path / "run"
    decoder = "tfio" if util.find_spec("tensorflow_io") else "isolated"
    status, _, err = run(
        *("train.py", *quick, "--epochs", "1", "--no-export", "--decoder", decoder),
        *("--data-dir", shards, "--run-dir", run_folder),
    )
    assert status == 0, err
    status, _, err = run(
        *("evaluate.py", "--run", run_folder, "--decoder", "soundfile"),
        *("--output", tmp_path / "report"),
    )
    assert status == 0, err
    scores = [
        json.loads((folder / "report.json").read_text())["summary"]["macro"]
        for folder in (run_folder / "report", tmp_path / "report")
    ]
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)


def test_flags_override_the_recipe(tone_folder, tmp_path, monkeypatch):
    recipe = {"dataset": "folder", "width": 4, "rho": [2, 1], "epochs": 7, "batch_size": 8}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"excerpt_seconds": 0.5}))
    trained = []
    monkeypatch.setattr(
        "rfkeras.training.api.train_run", lambda config, *_, **__: trained.append(config)
    )
    arguments = ["--recipe", tmp_path / "r.yaml", "--data-dir", tone_folder, "--epochs", "1"]
    arguments += ["--window-seconds", "1", "--no-export", "--run-dir", tmp_path / "run"]
    assert command(["train", *map(str, arguments)]) == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["epochs"], config["width"], config["batch_size"]) == (1, 4, 8)
    assert json.loads(to_json(trained[0])) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rho", "23"], "from 0 to 22"),
        (["--rho", "x"], "whole number"),
        (["--rho", "10", "--blocks", "4,1,1"], "allow_rf_change"),
        (["--seed", "5000000000"], "from 0 to 2147483647"),
        (["--dataset", "folder", "--data-dir", ".", "--dataset-size", "100"], "gm_instruments"),
        (["--run-dir", "setup.py/run"], "setup.py/run"),
        (["--epochs", "0"], "epochs must be a whole number of at least 1"),
        (["--model", "resnet_fr"], "Did you mean 'resnet_rf'"),
        (["--recipe", "no_such"], "Unknown recipe 'no_such'"),
        (["--frontend", "mel_32"], "Did you mean 'mel_32k'"),
        (["--learning-rate", "nan"], "--learning-rate must be a number"),
        (["--dataset", "openmik"], "Did you mean 'openmic'"),
        (["--dataset", "folder"], "needs --data-dir, a CSV file or a folder"),
        (["--devices", "gpu:9"], "9 GPUs"),
        (["--resume", "absent", "--width", "3"], "absent is not a run folder"),
    ],
)
def test_errors_are_one_line_on_standard_error_with_status_1(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    if not {"--resume", "--run-dir"} & set(arguments):
        arguments = [*arguments, "--run-dir", str(tmp_path / "run")]
    assert command(["train", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("rfkeras train: error: ")
    assert message in err


def test_a_batch_that_devices_cannot_share_is_rejected(tmp_path):
    arguments = ("--batch-size", "5", "--devices", "cpu:2", "--run-dir", tmp_path / "run")
    status, _, err = run("train.py", *arguments)
    assert status == 1
    assert "multiple of the 2 devices" in err


def test_an_unknown_recipe_key_suggests_the_nearest(tmp_path):
    (tmp_path / "r.yaml").write_text("learning_rat: 0.1\n")
    status, _, err = run("train.py", "--recipe", tmp_path / "r.yaml")
    assert status == 1
    assert "Did you mean 'learning_rate'" in err


def test_evaluate_rejects_missing_arguments_and_files(tmp_path):
    model = ("--model-path", tmp_path / "m.keras")
    status, _, err = run("evaluate.py", *model)
    assert (status, "needs --dataset" in err) == (1, True)
    status, _, err = run("evaluate.py", *model, "--dataset", "folder", "--data-dir", tmp_path)
    assert (status, "There is no model" in err) == (1, True)
    np.save(tmp_path / "p.npy", np.zeros((2, 2)))
    status, _, err = run("evaluate.py", "--predictions", tmp_path / "p.npy")
    assert (status, "needs --groundtruth" in err) == (1, True)


def test_models_lists_names_and_receptive_fields_in_80_columns():
    status, out, _ = run("-m", "rfkeras.cli", "models", "resnet_rf*")
    assert status == 0
    for name in zoo.list_models("resnet_rf*"):
        assert name in out
    assert " 135 " in out
    assert max(map(len, out.splitlines())) <= 80
    for entry in pretrained.read_index():
        mark = "**" if entry.recommended else "*" if entry.default else ""
        assert f"{entry.model}:{entry.name}{mark}" in out.splitlines()
    fields = [line.split(maxsplit=3) for line in out.splitlines()]
    assert ["resnet_rf_shake_fa", "135", "128", "shake, frequency_aware"] in fields
    assert run("-m", "rfkeras.cli", "models", "crnn*")[1].count(":") == 0  # has no weights


def test_every_train_flag_is_documented():
    parser = build_parser()
    train = next(a for a in parser._actions if hasattr(a, "choices") and a.choices)
    for action in train.choices["train"]._actions:
        assert action.help, action.option_strings


def test_python_dash_m_and_scripts_are_the_same_program():
    assert (
        run("-m", "rfkeras.cli", "train", "--help")[1].split("options:")[1]
        == (run("train.py", "--help")[1].split("options:")[1])
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "gtzan"], "has no folders blues"),
        (["--dataset", "gtzzan"], "Did you mean 'gtzan'"),
        (["--dataset", "folder", "--devices", "gpu:7"], "needs 7 GPUs"),
        (["--dataset", "openmic", "--subset", "moodtheme"], "subset"),
    ],
)
def test_wrong_data_and_missing_gpus_are_found_before_a_folder_is_created(
    flags, message, tmp_path, monkeypatch, capsys
):
    def create(*_):
        raise AssertionError("the folder is created too early")

    monkeypatch.setattr("rfkeras.training.api.create_run_folder", create)
    arguments = ["train", *flags, "--data-dir", str(tmp_path)]
    assert command([*arguments, "--run-dir", str(tmp_path / "run")]) == 1
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert not (tmp_path / "run").exists()
