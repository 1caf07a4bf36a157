"""`rfkeras tune`, run as a user does."""

import csv
import json
import re
import shlex
import signal
import time

import pytest
import yaml

from rfkeras.cli.main import build_parser
from rfkeras.cli.main import run as command
from rfkeras.config.resolve import complete, merge_options, option_sources
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError
from rfkeras.experiments.search import SearchFolder, check_space, open_folder, read_search
from rfkeras.experiments.search_space import parse_space, read_space, split_flags
from rfkeras.training.run_dir import RunFolder, read_record
from rfkeras.utils.files import try_exclusive
from tests.helpers.processes import ROOT, run, start
from tests.helpers.search import small_search

QUICK = (
    "--dataset folder --width 2 --epochs 1 --batch-size 2 --excerpt-seconds 0.5 "
    "--window-seconds 1 --devices cpu --checkpoint-steps 1 --method random --trials 2 "
    "--blocks 1,1,1 --allow-rf-change"
).split()
SPACE = ("--search", "rho_time=0:2", "learning_rate=1e-3:1e-2:log", "shake=true,false")


def steps_done(folder):
    try:
        return read_record(folder.last)["steps_done"]
    except CheckpointError:
        return 0


@pytest.mark.slow
def test_a_killed_search_resumes(tone_folder, tmp_path):
    root = tmp_path / "search"
    arguments = ("tune.py", *QUICK, *SPACE, "--data-dir", tone_folder, "--search-dir", root)
    first, second = (RunFolder(root / "trials" / name) for name in ("0", "1"))
    process = start(*arguments)
    while steps_done(second) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    assert len(re.findall(r"\n\[1/2\] trial 0: val_mAP (?:0\.\d|1\.0)", out)) == 1
    deadline = time.monotonic() + 30
    while not is_free(second):  # the trial's process ends with the search
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert 3 <= steps_done(second) < 26
    untouched = {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}

    status, out, err = run(*arguments)
    assert status == 0, err
    assert untouched == {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    assert "resumed" in json.loads(second.environment.read_text())
    assert "resumed" not in json.loads(first.environment.read_text())
    with (root / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["status"]) for row in rows] == [("0", "done"), ("1", "done")]
    for row, folder in zip(rows, (first, second), strict=True):
        choice = json.loads(folder.final_weights.read_text())["candidates"]["best"]
        assert float(row["val_mAP"]) == pytest.approx(choice["val_mAP"], abs=1e-6)
        config = folder.read_config()
        assert config.rho == (7 if row["rho_time"] == "7" else (int(row["rho_time"]), 7))
        assert config.learning_rate == float(row["learning_rate"])
        assert config.shake is (row["shake"] == "true")
        assert not folder.report.exists()  # the test split was not used
        assert not folder.model.exists()

    best = max(rows, key=lambda row: float(row["val_mAP"]))
    recipe = root / "best.yaml"
    assert set(yaml.safe_load(recipe.read_text())) <= set(TrainConfig.__dataclass_fields__)
    config = complete(merge_options({}, option_sources({}, str(recipe))))
    assert config == RunFolder(root / "trials" / best["trial"]).read_config()
    assert f"rfkeras train --recipe {recipe}" in out
    assert {"scores.png", "values.png"} <= {path.name for path in root.iterdir()}


def is_free(folder):
    with try_exclusive(folder.root / ".lock") as holder:
        return holder is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search", "rho=0:30"], "from 0 to 22"),
        (["--search", "shkae=true,false"], "Did you mean 'shake'"),
        (["--search", "rho"], "NAME=SPEC"),
        (["--search", "rho=0:3", "--rho", "3"], "search it or give it as a flag"),
        (
            ["--search", "rho_time=0:3", "rho_frequency=1,2", "--rho", "3"],
            "search it or give it",
        ),
        (["--search", "rho=0:3", "--space", "x.yaml"], "Use either --search or --space"),
        (["--space", "absent.yaml"], "absent.yaml"),
        (["--model", "vgg_rf", "--search", "shake=true,false"], "option of vgg_rf 'shake'"),
        (["--trials", "9"], "Hyperband's number of trials follows"),
        (
            ["--method", "random", "--factor", "2"],
            "--factor cannot be combined with --method random",
        ),
        (["--method", "random", "--trials", "0"], "trials must be a whole number"),
        (["--worker-timeout", "1"], "--worker-timeout must be a number of at least 5"),
        (["--search", "hold_epochs=1,2"], "Hyperband cannot search hold_epochs"),
        (["--epochs", "1", "--prune-share", "0.5"], "Pruning must end before"),
        (["--resume", "absent"], "holds no search"),
        (["--resume", "absent", "--epochs", "3"], "Leave out: --epochs"),
        (["--resume", "absent", "--method", "random"], "Leave out: --method"),
        (["--recipe", "no_such"], "Unknown recipe 'no_such'"),
    ],
)
def test_errors_are_one_line_with_status_1(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(["tune", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("rfkeras tune: error: ")
    assert message in err
    assert not list(tmp_path.iterdir())  # nothing was started


def test_a_resumed_hyperband_search_rejects_a_number_of_trials(tmp_path, capsys):
    search = small_search("hyperband")
    open_folder(search, SearchFolder(tmp_path))
    assert command(["tune", "--resume", str(tmp_path), "--trials", "30"]) == 1
    assert "--trials cannot be combined with --method hyperband" in capsys.readouterr().err
    assert read_search(SearchFolder(tmp_path)) == search


def test_coordinator_and_workers_need_a_common_folder(monkeypatch, capsys):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert command(["tune"]) == 1
    assert "Missing: KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT" in capsys.readouterr().err
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8123")
    assert command(["tune"]) == 1
    assert "need the same --search-dir" in capsys.readouterr().err


def test_every_flag_is_documented():
    parser = build_parser()
    commands = next(a for a in parser._actions if hasattr(a, "choices") and a.choices)
    for action in commands.choices["tune"]._actions:
        assert action.help, action.option_strings


def test_the_examples_of_the_page_are_valid(tmp_path):
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    parser = build_parser()
    for block in re.findall(r"```sh\n(.*?)```", page, flags=re.S):
        for name, arguments in re.findall(r"(\w+)\.py ([^\"\n]*)", block):
            parser.parse_args([name, *shlex.split(arguments)])
    specs = [
        spec.strip("'")
        for cells in re.findall(r"^\| (`\S+=.*?`) \|", page, flags=re.M)
        for spec in re.findall("`(.*?)`", cells)
    ]
    assert len(specs) == 10
    for spec in specs:
        flags = [spec] + (["optimizer=adam,adamw"] if " when " in spec else [])
        assert parse_space(split_flags(flags)).parameters
    path = tmp_path / "space.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", page, flags=re.S)[1])
    base = TrainConfig(epochs=9)
    check_space(read_space(path), base, shortest=1)
