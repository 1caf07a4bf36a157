"""The library without what only POSIX systems have, and with processes that are not forked."""

import ast
import json
import os
import subprocess
import sys

import pytest

from tests.helpers.processes import ROOT
from tests.test_architecture import module_files

BLOCKER = ROOT / "tests" / "helpers" / "other_system"
POSIX_MODULES = {
    "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty",
}  # fmt: skip
POSIX_NAMES = {
    "os.fork", "os.forkpty", "os.geteuid", "os.getuid", "os.killpg", "os.mkfifo",
    "os.O_DIRECTORY", "os.register_at_fork", "os.sched_getaffinity", "os.setsid",
    "os.statvfs", "os.uname", "select.epoll", "select.poll", "signal.alarm",
    "signal.pthread_kill", "signal.setitimer", "signal.SIGALRM", "signal.SIGHUP",
    "signal.SIGKILL", "socket.AF_UNIX",
}  # fmt: skip


def unguarded(text):
    """Return the POSIX modules and names in a source that nothing asks for first.

    Imports are allowed within `try`, and names in a function or `if` that calls `hasattr`.
    """
    tree = ast.parse(text)
    guarded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            guarded |= {id(n) for part in node.body for n in ast.walk(part)}
        if isinstance(node, ast.FunctionDef | ast.If) and "hasattr(" in ast.unparse(node):
            guarded |= {id(n) for n in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        posix = POSIX_MODULES | POSIX_NAMES
        found += [name for name in names if name in posix and id(node) not in guarded]
    return found


def test_unguarded_names_are_found():
    assert unguarded("import os, fcntl\ndef f():\n    os.fork()\n") == ["fcntl", "os.fork"]
    assert unguarded("from signal import SIGKILL\n") == ["signal.SIGKILL"]
    assert unguarded("import os\nif hasattr(os, 'fork'):\n    os.fork()\n") == []
    assert unguarded("try:\n    import pwd\nexcept ImportError:\n    pwd = None\n") == []


def test_no_module_needs_what_only_posix_systems_have():
    scripts = {name: ROOT / f"{name}.py" for name in ("train", "evaluate", "tune")}
    found = {
        name: unguarded(path.read_text(encoding="utf-8"))
        for name, path in {**module_files(), **scripts}.items()
    }
    assert len(found) > 150
    assert {name: names for name, names in found.items() if names} == {}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a small model for the tones."""
    import keras

    from tests.helpers.taggers import randomized, small_frontend
    from zoo import create_model

    keras.utils.set_random_seed(0)
    made = create_model(
        "resnet_rf",
        label_names=("high", "low", "mid"),
        task="single_label",
        frontend=small_frontend(),
        initialization="he",
        width=4,
        rho=2,
    )
    path = tmp_path_factory.mktemp("model") / "small.keras"
    randomized(made).save(path)
    return path


def run_commands(model, audio, output, **environment):
    words = ["-m", "tests.helpers.other_system.commands", model, audio, output]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def runs(model, tone_folder, tmp_path_factory):
    """Return the outputs of the commands on this system, and on one without POSIX parts."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for name, paths in {"here": [ROOT], "elsewhere": [BLOCKER, ROOT]}.items():
        output = folder / name
        output.mkdir()
        path = os.pathsep.join(map(str, paths))
        found[name] = (output, *run_commands(model, tone_folder, output, PYTHONPATH=path))
    return found


@pytest.mark.slow
def test_the_other_system_lacks_what_it_should(runs):
    here, elsewhere = runs["here"][1], runs["elsewhere"][1]
    assert (here["fcntl"], here["hands_over_sockets"]) == (None, True)
    assert "on this system" in elsewhere["fcntl"]
    assert not elsewhere["hands_over_sockets"]
    assert elsewhere["start_method"] == "spawn"
    for result in (here, elsewhere):
        assert "(since 20" in result["holder"]
    note = "Note: this system does not limit the memory"
    assert note not in runs["here"][2]
    assert runs["elsewhere"][2].count(note) == 1


@pytest.mark.slow
def test_every_module_can_be_imported(runs):
    here, elsewhere = runs["here"][1], runs["elsewhere"][1]
    assert elsewhere["modules"] == here["modules"] > 150
    assert elsewhere["failed"] == here["failed"]  # packages that are not installed


@pytest.mark.slow
def test_commands_give_the_same_values(runs):
    (here, first, _), (elsewhere, second, _) = runs["here"], runs["elsewhere"]
    assert first["statuses"] == second["statuses"] == {"tag": 0, "evaluate": 0, "rf": 0}
    scores = [
        [
            (record["path"], record["scores"])
            for record in map(json.loads, (folder / "tags.jsonl").read_text().splitlines())
        ]
        for folder in (here, elsewhere)
    ]
    assert len(scores[0]) == 72
    assert scores[0] == scores[1]
    assert (here / "rf.txt").read_text() == (elsewhere / "rf.txt").read_text() != ""
    reports = [json.loads((f / "report/report.json").read_text()) for f in (here, elsewhere)]
    assert reports[0]["summary"]["macro"]["average_precision"] > 0
    assert reports[0] == reports[1]
