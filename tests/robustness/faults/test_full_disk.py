"""A disk without room, or that takes no writes: what is said, what is kept, how to go on."""

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
    """A disk of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or mount("-t", "tmpfs", "-o", "size=6m", "tmpfs", folder).returncode
    ):
        pytest.skip("a disk for the test cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk):
    """Take all room that is left; the file that holds it."""
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
def test_training_on_a_full_disk_goes_on_after_the_last_step_saved(disk, tone_folder):
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
    assert f"Go on from the last step saved by: train.py --resume {folder}" in err
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


def test_no_room_for_tags_is_said_and_what_was_there_stays(disk, tmp_path, capsys, monkeypatch):
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
        assert f"No space left on device: '{disk / name}'" in err
    assert (disk / "tags.json").read_text() == (disk / "tags.csv").read_text() == "old"
    filler.unlink()
    assert main.run([*command, str(disk / "tags.jsonl"), "--skip-existing"]) == 0
    assert len((disk / "tags.jsonl").read_text().splitlines()) == 3


def test_a_disk_that_takes_no_writes(disk, tone_folder, capsys):
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
def begun(tmp_path, tone_folder):
    """The folder of a run that has begun, and its flags."""
    from rfkeras.config.train_config import TrainConfig

    config = TrainConfig(dataset="folder", data_dir=str(tone_folder))
    return create_run_folder(config, tmp_path / "run")


def test_the_second_process_on_a_run_is_told_of_the_first(begun, capsys):
    with begun.locked():
        assert main.run(["train", "--resume", str(begun.root)]) == 1
        err = capsys.readouterr().err
    holder = f"Process {os.getpid()} on {socket.gethostname()}"
    assert f"{holder} is writing to {begun.root}. Wait for it" in err
    assert begun.config.exists()  # it is the other's folder
    with begun.locked():
        pass  # free again


def test_a_lock_dies_with_its_holder(begun):
    process = start("-c", HOLD, begun.root)
    deadline = time.monotonic() + 60
    while not (begun.root / "held").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(Exception, match=f"Process {process.pid} on"), begun.locked():
        pass
    process.send_signal(9)
    process.communicate(timeout=60)
    (begun.root / ".config.json.999.partial").write_text("{")
    with begun.locked():
        assert not list(begun.root.glob("*.partial"))


HOLD = """
import sys, time
from pathlib import Path
from rfkeras.training.run_dir import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    Path(sys.argv[1], "held").touch()
    time.sleep(600)
"""


def test_two_packings_and_two_evaluations_do_not_mix(begun, tmp_path, tone_folder, capsys):
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
