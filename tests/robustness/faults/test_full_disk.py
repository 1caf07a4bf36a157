"""Full and read-only disks: messages, files that are kept, and how to resume."""

import os
import shutil
import socket
import subprocess
import time

import pytest

from rfkeras.cli import main
from rfkeras.datasets.pack import LOCK
from rfkeras.inference import StreamTagger
from rfkeras.training.run_dir import create_run_folder
from rfkeras.utils.files import sole_writer, write_text
from tests.helpers.audio_commands import make_model, make_songs
from tests.helpers.processes import start
from tests.training.test_resume import FLAGS, steps_done


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or mount("-t", "tmpfs", "-o", "size=6m", "tmpfs", folder).returncode
    ):
        pytest.skip("this test needs permission to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk):
    """Fill the disk; return the file that fills it."""
    path = disk / "full"
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
    return path


@pytest.mark.slow
def test_training_on_a_full_disk_can_be_resumed(disk, tone_folder):
    folder = disk / "run"
    flags = [*FLAGS, "--epochs", "40", "--data-dir", tone_folder, "--run-dir", folder]
    process = start("train.py", *flags)
    while not steps_done(folder):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    filler = fill(disk)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "No space left on device" in err
    assert f"Resume from the last saved step with: rfkeras train --resume {folder}" in err
    assert "Traceback" not in err
    steps = steps_done(folder)
    assert steps > 0
    assert not list(folder.rglob("*.partial*"))
    filler.unlink()
    process = start("train.py", "--resume", folder)
    while steps_done(folder) <= steps:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(2)
    process.communicate(timeout=120)
    assert process.returncode == 130


def test_tagging_on_a_full_disk_keeps_old_files(disk, tmp_path, capsys, monkeypatch):
    tagger = StreamTagger(make_model(tmp_path / "tiny.keras"))
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", lambda options: tagger)
    songs = make_songs(tmp_path / "songs")
    command = ["tag", str(songs), "--model", str(tmp_path / "tiny.keras"), "--output"]
    for name in ("tags.json", "tags.csv"):
        write_text(disk / name, "old")
    filler = fill(disk)
    for name in ("tags.json", "tags.csv", "tags.jsonl"):
        assert main.run([*command, str(disk / name)]) == 1
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert str(disk / name) in err
    assert (disk / "tags.json").read_text() == (disk / "tags.csv").read_text() == "old"
    filler.unlink()
    assert main.run([*command, str(disk / "tags.jsonl"), "--skip-existing"]) == 0
    assert len((disk / "tags.jsonl").read_text().splitlines()) == 3


def test_a_read_only_disk_is_reported(disk, tone_folder, capsys):
    write_text(disk / "tags.json", "old")
    assert mount("-o", "remount,ro", disk).returncode == 0
    with pytest.raises(OSError, match=r"Read-only file system: '.*/tags.json'"):
        write_text(disk / "tags.json", "new")
    assert (disk / "tags.json").read_text() == "old"
    data = ["--dataset", "folder", "--data-dir", str(tone_folder)]
    for command in (
        ["train", *data, "--run-dir", str(disk / "run")],
        ["data", "pack", str(disk / "packed"), *data],
    ):
        assert main.run(command) == 1
        assert "Read-only file system" in capsys.readouterr().err


@pytest.fixture
def run_folder(tmp_path, tone_folder):
    """Create the folder of a run."""
    from rfkeras.config.train_config import TrainConfig

    config = TrainConfig(dataset="folder", data_dir=str(tone_folder))
    return create_run_folder(config, tmp_path / "run")


def test_a_second_process_on_a_run_gets_an_error_that_names_the_first(run_folder, capsys):
    with run_folder.locked():
        assert main.run(["train", "--resume", str(run_folder.root)]) == 1
        err = capsys.readouterr().err
    holder = f"Process {os.getpid()} on {socket.gethostname()}"
    assert f"{holder} (since " in err
    assert f") is writing to {run_folder.root}. Wait for it" in err
    assert run_folder.config.exists()  # the folder of the other process is unchanged
    with run_folder.locked():
        pass  # the lock is free again


def test_a_lock_is_released_when_its_holder_dies(run_folder):
    process = start("-c", HOLD, run_folder.root)
    deadline = time.monotonic() + 60
    while not (run_folder.root / "held").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(Exception, match=f"Process {process.pid} on"), run_folder.locked():
        pass
    process.send_signal(9)
    process.communicate(timeout=60)
    (run_folder.root / ".config.json.999.partial").write_text("{")
    with run_folder.locked():
        assert not list(run_folder.root.glob("*.partial"))


HOLD = """
import sys, time
from pathlib import Path
from rfkeras.training.run_dir import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    Path(sys.argv[1], "held").touch()
    time.sleep(600)
"""


def test_concurrent_packing_or_evaluation_is_rejected(
    run_folder, tmp_path, tone_folder, capsys
):
    data = ["--dataset", "folder", "--data-dir", str(tone_folder)]
    packed = tmp_path / "packed"
    with sole_writer(packed / LOCK, packed):
        assert main.run(["data", "pack", str(packed), *data]) == 1
        assert f"is writing to {packed}" in capsys.readouterr().err
    model = tmp_path / "tiny.keras"
    make_model(model)
    report = tmp_path / "report"
    with sole_writer(tmp_path / ".report.lock", report):
        words = ["evaluate", "--model-path", str(model), *data, "--output", str(report)]
        assert main.run(words) == 1
        assert f"is writing to {report}" in capsys.readouterr().err
    assert not report.exists()
