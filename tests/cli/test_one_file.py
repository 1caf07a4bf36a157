"""One file's trouble is the outcome of that file, and the others are tagged."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from keras import layers

from rfkeras.cli import main
from rfkeras.inference import StreamTagger, batch
from rfkeras.inference import plot as plots
from tests.helpers.taggers import RATE_HZ, custom_tagger, music

JAPANESE = "\u97f3" * 77 + ".wav"  # 235 bytes, a legal name
LONGEST = "\u697d" * 83 + "ab.wav"  # 255 bytes
TROUBLES = {
    "InvalidArgumentError: computed output size": tf.errors.InvalidArgumentError(
        None, None, "computed output size would be negative\nat node 7"
    ),
    "ResourceExhaustedError": tf.errors.ResourceExhaustedError(None, None, "OOM"),
    "not enough memory": MemoryError(),
    "TypeError: bad": TypeError("bad"),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    "File name too long": OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)),
    "Input/output error": OSError(errno.EIO, os.strerror(errno.EIO)),
    "RecursionError": RecursionError("deep"),
}


@pytest.fixture(scope="module")
def tagger():
    return StreamTagger(custom_tagger(layers.Conv2D(2, (9, 3), strides=(16, 2))), 2.0)


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
        soundfile.write(folder / name, music(RATE_HZ + number), RATE_HZ)
    return folder


@pytest.fixture
def tag(tagger, tmp_path, capsys, monkeypatch):
    """Run the command; return exit status, standard output and standard error."""
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", lambda options: tagger)
    monkeypatch.setattr("rfkeras.cli.embed.open_tagger", lambda options: tagger)
    (tmp_path / "m.keras").write_bytes(b"only its digest is used")

    def command(*arguments, name="tag"):
        status = main.run([name, "--model", str(tmp_path / "m.keras"), *map(str, arguments)])
        return status, *capsys.readouterr()

    return command


def failing(monkeypatch, error, name="b.wav"):
    """Let one file fail while it is computed."""
    real = StreamTagger.run_file

    def run_file(self, path, **settings):
        if Path(path).name == name:
            raise error
        return real(self, path, **settings)

    monkeypatch.setattr(StreamTagger, "run_file", run_file)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("reason", TROUBLES)
def test_any_error_while_computing_is_recorded_and_the_others_are_tagged(
    tag, songs, tmp_path, monkeypatch, reason
):
    failing(monkeypatch, TROUBLES[reason])
    status, out, err = tag(songs, "--output", tmp_path / "tags.jsonl")
    assert (status, out) == (1, "")
    assert "2 files tagged, 1 could not be used." in err
    first, bad, last = lines(tmp_path / "tags.jsonl")
    assert "error" not in first | last
    assert reason in bad["error"]
    assert "\n" not in bad["error"]
    assert f"b.wav: {bad['error']}" in err


@pytest.mark.parametrize("ending", ["json", "csv", "dir", "npy"])
def test_every_output_survives_an_error_of_one_file(tag, songs, tmp_path, monkeypatch, ending):
    failing(monkeypatch, tf.errors.InternalError(None, None, "odd"))
    where = ("--output-dir", tmp_path / "d") if ending == "dir" else None
    where = where or ("--output", tmp_path / f"x.{ending}")
    status, _, err = tag(songs, *where, name="embed" if ending == "npy" else "tag")
    assert status == 1
    assert "InternalError: odd" in err
    if ending == "dir":
        contents = [json.loads(p.read_text()) for p in sorted((tmp_path / "d").iterdir())]
    elif ending == "json":
        contents = json.loads((tmp_path / "x.json").read_text())["files"]
    else:
        assert len((tmp_path / f"x.{ending}").read_bytes()) > 100
        return
    assert ["error" in content for content in contents] == [False, True, False]


def test_scores_over_time_that_are_not_finite_are_an_error(tag, songs, tmp_path, monkeypatch):
    real = StreamTagger.run_file

    def run_file(self, path, **settings):
        result = real(self, path, **settings)
        if Path(path).name == "b.wav":
            result.frame_scores[0] = np.nan
        return result

    monkeypatch.setattr(StreamTagger, "run_file", run_file)
    status, _, _ = tag(songs, "--frames", "--output", tmp_path / "t.jsonl")
    assert status == 1
    assert "NaN" in lines(tmp_path / "t.jsonl")[1]["error"]


def test_every_file_failing_the_same_way_is_an_error(tag, songs, monkeypatch):
    monkeypatch.setattr(StreamTagger, "run_file", lambda *a, **k: len(7))
    status, _, err = tag(songs)
    assert (status, err.count("TypeError: object of type 'int'")) == (1, 3)


@pytest.mark.parametrize("name", [JAPANESE, LONGEST])
def test_names_too_long_for_their_outputs_are_shortened(tag, songs, tmp_path, name):
    (songs / "a.wav").rename(songs / name)
    (songs / "b.wav").rename(songs / name.replace(".wav", ".WAV"))
    places = ("--output-dir", tmp_path / "sides", "--plot", tmp_path / "plots")
    status, _, err = tag(songs, *places)
    assert (status, err.count("\n")) == (0, 1), err
    for folder, ending in (("sides", ".tags.json"), ("plots", ".png")):
        made = [path.name for path in (tmp_path / folder).iterdir()]
        assert len(made) == 3
        assert all(made_name.endswith(ending) for made_name in made)
        assert max(len(os.fsencode(made_name)) for made_name in made) <= 255
    status, _, err = tag(songs, *places, "--skip-existing")
    assert (status, "0 files tagged, 3 done before." in err) == (0, True)


def test_a_long_name_of_the_output_itself(tag, songs, tmp_path):
    for ending in ("jsonl", "json", "csv"):
        output = tmp_path / f"{'x' * (254 - len(ending))}.{ending}"
        assert tag(songs, "--output", output)[0] == 0
        assert output.stat().st_size > 100


def test_an_error_while_drawing_is_the_outcome_of_the_file(tag, songs, tmp_path, monkeypatch):
    real = plots.plot_tags

    def plot(path, *arguments):
        if path.name == "b.wav.png":
            raise ValueError("no such colour")
        real(path, *arguments)

    monkeypatch.setattr(plots, "plot_tags", plot)
    output = tmp_path / "t.jsonl"
    status, _, err = tag(songs, "--output", output, "--plot", tmp_path / "p")
    assert (status, "b.wav: ValueError: no such colour" in err) == (1, True)
    assert [record.get("error") for record in lines(output)] == [
        None,
        "ValueError: no such colour",
        None,
    ]
    assert len(list((tmp_path / "p").iterdir())) == 2


def test_a_sidecar_that_cannot_be_written_is_the_outcome_of_the_file(tag, songs, tmp_path):
    sides = tmp_path / "sides"
    (sides / "b.wav.tags.json").mkdir(parents=True)  # in the way
    for more in ((), ("--skip-existing",)):
        status, _, err = tag(songs, "--output-dir", sides, *more)
        assert status == 1
        assert "b.wav: cannot be written: " in err
        assert len([path for path in sides.iterdir() if path.is_file()]) == 2
    assert "0 files tagged, 2 done before, 1 could not be used." in err


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/x")


def test_a_full_disk_ends_the_job_only_if_the_error_cannot_be_written(
    tag, songs, tmp_path, monkeypatch
):
    real, has_room = batch.write_bytes, True

    def write(path, content):
        if Path(path).name.startswith("b.") and not (has_room and b'"error"' in content):
            raise FULL
        real(path, content)

    monkeypatch.setattr(batch, "write_bytes", write)
    arguments = (songs, "--output-dir", tmp_path / "d")
    status, _, err = tag(*arguments, "--frames")
    assert status == 1
    assert "b.wav: cannot be written: No space left on device" in err
    has_room = False
    status, _, err = tag(*arguments, "--frames")
    assert status == 1
    assert "error: [Errno 28] No space left on device" in err
    assert "All files before this one are recorded; resume with --skip-existing." in err


def test_a_full_disk_leaves_a_journal_of_whole_lines(tag, songs, tmp_path, monkeypatch):
    journal, real, calls = tmp_path / "t.jsonl", os.fsync, []

    def fsync(number):
        if os.path.samestat(os.fstat(number), journal.stat()):
            calls.append(number)
            if len(calls) == 2:
                raise FULL
        real(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        status, _, err = tag(songs, "--output", journal)
    assert status == 1
    assert (
        f"{journal} cannot be written: No space left on device. All files before this one are"
        in err
    )
    assert [Path(record["path"]).name for record in lines(journal)] == ["a.wav"]
    status, _, err = tag(songs, "--output", journal, "--skip-existing")
    assert (status, "2 files tagged, 1 done before." in err) == (0, True)
    assert len(lines(journal)) == 3


def test_too_many_bad_files_stop_the_job_and_keep_what_is_done(tag, songs, tmp_path):
    (songs / "b.wav").write_bytes(b"RIFF")
    output = tmp_path / "t.json"
    status, _, err = tag(songs, "--output", output, "--max-bad-share", "0.3")
    assert status == 1
    assert "1 of 3 files could not be used, more than --max-bad-share 0.3 allows." in err
    assert "Done so far: 1 file tagged, 1 could not be used." in err
    assert len(json.loads(output.read_text())["files"]) == 2
    status, _, err = tag(songs, "--output", output, "--max-bad-share", "0.34")
    assert (status, "2 files tagged, 1 could not be used." in err) == (1, True)
    assert tag(songs, "--max-bad-share", "2")[0] == 1


@pytest.mark.parametrize("kind", ["journal", "sidecars"])
def test_a_replaced_sound_is_tagged_again(tag, songs, tmp_path, kind):
    def where(name):
        return tmp_path / "d" / f"{name}.tags.json"

    output = {"journal": ("--output", tmp_path / "t.jsonl")}.get(
        kind, ("--output-dir", tmp_path / "d")
    )

    def record(name):
        if kind == "sidecars":
            return json.loads(where(name).read_text())
        (found,) = [r for r in lines(tmp_path / "t.jsonl") if r["path"].endswith(name)]
        return found

    assert tag(songs, *output)[0] == 0
    status = (songs / "b.wav").stat()
    assert record("b.wav")["source_bytes"] == status.st_size
    assert record("b.wav")["source_modified_ns"] == status.st_mtime_ns
    status, _, err = tag(songs, *output, "--skip-existing")
    assert "0 files tagged, 3 done before." in err
    soundfile.write(songs / "b.wav", music(2 * RATE_HZ), RATE_HZ)  # another size
    before = (songs / "c.wav").stat()  # the same size and another time
    os.utime(songs / "c.wav", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    status, _, err = tag(songs, *output, "--skip-existing")
    assert (status, "2 files tagged, 1 done before." in err) == (0, True)
    assert "Note: 2 files changed after tagging, and will be tagged again." in err
    assert record("b.wav")["seconds"] == 2.0
    # Tags of a sound that is missing now, as on a disk that is not mounted, are kept.
    (songs / "a.wav").rename(tmp_path / "a.wav")
    named = [songs / name for name in ("a.wav", "b.wav", "c.wav")]
    status, _, err = tag(*named, *output, "--skip-existing")
    assert (status, "0 files tagged, 3 done before." in err) == (0, True)
    assert record("a.wav")["seconds"] == 1.0


@pytest.mark.parametrize("kind", ["journal", "sidecars"])
def test_records_of_0_1_0_count_as_done_with_a_note(tag, songs, tmp_path, kind):
    output = ("--output", tmp_path / "t.jsonl")
    if kind == "sidecars":
        output = ("--output-dir", tmp_path / "d")
    tag(songs, *output)
    for path in [tmp_path / "t.jsonl"] if kind == "journal" else (tmp_path / "d").iterdir():
        records = lines(path) if kind == "journal" else [json.loads(path.read_text())]
        for record in records:
            del record["source_bytes"], record["source_modified_ns"]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    soundfile.write(songs / "b.wav", music(2 * RATE_HZ), RATE_HZ)
    status, _, err = tag(songs, *output, "--skip-existing")
    assert (status, "0 files tagged, 3 done before." in err) == (0, True)
    assert err.count("Note: 3 files have records of version 0.1.0") == 1
    assert "Note" not in tag(songs, *output, "--skip-existing", "--quiet")[2]


def test_notes_are_printed_counted_and_recorded(tag, songs, tmp_path):
    odd = 32768 * music(RATE_HZ)
    soundfile.write(songs / "b.wav", odd, RATE_HZ, subtype="FLOAT")
    output = tmp_path / "t.jsonl"
    status, out, err = tag(songs, "--output", output)
    assert (status, out) == (0, "")
    _, record, _ = lines(output)
    (note,) = record["notes"]
    assert "16-bit integers; divide the samples by 32,768" in note
    assert f"Note: {songs / 'b.wav'}: {note}" in err
    assert "3 files tagged, 1 with notes." in err
    assert all("notes" not in record for record in lines(output)[::2])
    assert tag(songs, "--quiet", "--format", "csv")[2] == ""
