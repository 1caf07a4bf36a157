"""`rfkeras tag --beam`: the records of `rfkeras tag`, nothing lost, and restarts."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from rfkeras.cli import main
from rfkeras.inference import StreamTagger
from rfkeras.utils.files import sole_writer
from tests.helpers.audio_commands import SECONDS, make_model, make_songs
from tests.helpers.processes import run, start

pytest.importorskip("apache_beam")
COUNTS = ("found", "done_before", "tagged", "dead")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return (songs, one of them broken; the model's file)."""
    root = tmp_path_factory.mktemp("bulk")
    songs = make_songs(root / "songs")
    (songs / "broken.wav").write_bytes(b"RIFF")
    make_model(root / "tiny.keras")
    return songs, root / "tiny.keras"


@pytest.fixture
def tag(place, capsys, monkeypatch):
    """Return a function that runs the command: (exit status, standard error)."""

    def command(*arguments):
        status = main.run(["tag", "--model", str(place[1]), *map(str, arguments)])
        return status, capsys.readouterr().err

    return command


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def records(folder, kind="tags"):
    """Return the records of all shards of a kind, by path; none may appear twice."""
    lines = [line for path in folder.glob(f"{kind}-*.jsonl") for line in lines_of(path)]
    found = {record["path"]: record for record in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


def counts(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["found"] == summary["done_before"] + summary["tagged"] + summary["dead"]
    return [summary[name] for name in COUNTS]


def test_records_match_the_command_without_beam(tag, place, tmp_path):
    songs, bulk, plain = place[0], tmp_path / "bulk", tmp_path / "plain.jsonl"
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"{songs / 'low.wav'}\n\n{songs / 'missing.wav'}\n"
    )  # low.wav is listed twice
    words = [songs, "--files-from", listed, "--frames", "--decoder", "soundfile"]
    status, err = tag(*words, "--output-dir", bulk, "--shard-files", 2, "--beam")
    assert status == 1
    assert "3 files tagged" in err
    assert "2 could not be used" in err
    assert tag(*words, "--output", plain, "--quiet")[0] == 1
    expected = {r["path"]: r for r in map(json.loads, lines_of(plain))}
    assert records(bulk) | records(bulk, "dead") == expected
    assert set(records(bulk, "dead")) == {str(songs / n) for n in ("broken.wav", "missing.wav")}
    assert counts(bulk) == [5, 0, 3, 2]
    hours = json.loads((bulk / "summary.json").read_text())["hours"]
    assert hours == pytest.approx(sum(SECONDS.values()) / 3600, abs=1e-4)

    status, err = tag(*words, "--output-dir", bulk, "--beam")
    assert status == 1
    assert "--skip-existing" in err
    status, err = tag(
        *words, "--threshold", 0.1, "--output-dir", bulk, "--skip-existing", "--beam"
    )
    assert status == 1
    assert "another --threshold" in err
    shutil.copyfile(songs / "low.wav", songs / "missing.wav")
    try:
        status, err = tag(*words, "--output-dir", bulk, "--skip-existing", "--quiet", "--beam")
    finally:
        (songs / "missing.wav").unlink()
    assert (status, err) == (1, "")
    assert counts(bulk) == [5, 3, 1, 1]
    assert set(records(bulk, "dead")) == {str(songs / "broken.wav")}
    assert len(records(bulk)) == 4

    (tmp_path / "other.wav").write_bytes(b"RIFF")
    other = [tmp_path / "other.wav", "--frames", "--output-dir", bulk, "--decoder", "soundfile"]
    assert tag(*other, "--skip-existing", "--beam")[0] == 1
    # Dead letters that were not tried again are kept.
    assert set(records(bulk, "dead")) == {
        str(songs / "broken.wav"),
        str(tmp_path / "other.wav"),
    }
    with sole_writer(bulk / ".lock", bulk):
        assert f"is writing to {bulk}" in tag(*other, "--skip-existing", "--beam")[1]


def test_finds_patterns_and_addresses(place, tmp_path):
    from rfkeras.beam.runner import find_files

    songs = place[0]
    assert {f.name for f in find_files(f"{songs}/*/*")} == {
        str(songs / n) for n in SECONDS if "/" in n
    }
    assert [f.error for f in find_files(f"{songs}/*.mp3")] == ["no file matches"]
    assert [(f.name, f.key) for f in find_files("gs://bucket/a b.flac")] == [
        ("gs://bucket/a b.flac",) * 2
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam"], "--output-dir"),
        (["--output", "x.jsonl", "--beam"], "--output cannot be combined with --beam"),
        (["--output-dir", "OUT", "--beam", "FlinkRunner"], "belong to Beam"),
        (["--output-dir", "OUT", "--beam", "--top", "3"], "no option --top"),
        (["--output-dir", "OUT", "--shard-files", "0", "--beam"], "--shard-files"),
        (["--files-from", "no-list", "--output-dir", "OUT", "--beam"], "no-list"),
        (["nowhere://x.wav", "--output-dir", "OUT", "--beam"], "apache-beam[gcp]"),
    ],
)
def test_unsupported_options_are_rejected(tag, place, tmp_path, flags, message):
    flags = [str(tmp_path / "out") if flag == "OUT" else flag for flag in flags]
    status, err = tag(place[0], *flags)
    assert status == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def worker_of(pid):
    """Return a worker process of a process's pipeline, or None if there is none yet."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            commands[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(status[1])
    for worker, command in commands.items():
        if b"-m\0apache_beam.runners.worker.sdk_worker_main" in command:
            above = worker
            while above in parents and above != pid:
                above = parents[above]
            if above == pid:
                return worker
    return None


def test_any_error_is_a_dead_letter_and_a_replaced_sound_is_tagged_again(
    place, tag, tmp_path, monkeypatch
):
    songs = tmp_path / "songs"
    songs.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        shutil.copyfile(place[0] / "low.wav", songs / name)
    real = StreamTagger.run_file

    def run_file(self, path, **settings):
        if path.name == "b.wav":
            raise tf.errors.InvalidArgumentError(None, None, "negative size")
        return real(self, path, **settings)

    bulk = tmp_path / "bulk"
    flags = [songs, "--output-dir", bulk, "--decoder", "soundfile"]
    with monkeypatch.context() as patch:
        patch.setattr(StreamTagger, "run_file", run_file)
        status, err = tag(*flags, "--max-bad-share", "0.3", "--beam")
    assert status == 1
    assert "1 of 3 files could not be used, more than --max-bad-share 0.3 allows" in err
    (letter,) = records(bulk, "dead").values()
    assert letter["error"] == "InvalidArgumentError: negative size"
    assert len(records(bulk)) == 2

    soundfile.write(songs / "c.wav", np.zeros(2 * 22050, "float32"), 22050)
    status, err = tag(*flags, "--skip-existing", "--beam")
    assert status == 0
    assert "2 files tagged" in err
    assert "1 with notes, 1 of them again, because they changed, 1 done before" in err
    assert counts(bulk) == [3, 1, 2, 0]
    assert not records(bulk, "dead")
    found = records(bulk)
    assert len(found) == 3
    changed = found[str(songs / "c.wav")]
    assert (changed["seconds"], changed["notes"]) == (2.0, ["silent: all samples are 0"])


@pytest.mark.slow
def test_a_killed_worker_loses_no_finished_shard(place, tmp_path):
    songs = shutil.copytree(place[0], tmp_path / "songs")
    # Enough for the worker's end to come before that of the work, also on a busy machine.
    more = 60
    for number in range(more):
        shutil.copyfile(songs / "low.wav", songs / f"more{number}.wav")
    out = tmp_path / "out"
    flags = ["-m", "rfkeras.cli", "tag", songs, "--model", place[1], "--output-dir", out]
    local = ["--beam", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    process = start(*flags, "--shard-files", "1", *local)
    while not list(out.glob("tags-*.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    while (worker := worker_of(process.pid)) is None:
        assert process.poll() is None, process.communicate()[1]
    os.kill(worker, signal.SIGKILL)
    err = process.communicate(timeout=400)[1]
    assert process.returncode == 1
    assert "The pipeline failed" in err
    assert f"Finished shards are kept in {out}. Resume with --skip-existing." in err
    kept = records(out)
    assert 0 < len(kept) < more + 3
    status, _, err = run(*flags, "--skip-existing", "--beam")
    assert status == 1, err  # because of the broken file
    assert counts(out) == [more + 4, len(kept), more + 3 - len(kept), 1]
    assert kept.items() <= records(out).items()
    assert len(records(out)) == more + 3
