"""`rfkeras tag --write-tags`: a dry run first, then the field, and a job that resumes."""

import json

import mutagen
import pytest
import soundfile

from rfkeras.audio.file_tags import FIELD, sound_digest
from rfkeras.cli import main
from rfkeras.inference import StreamTagger
from tests.helpers.audio_commands import make_model, make_songs
from tests.test_extras import block


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the file of the model and its tagger."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    return path, StreamTagger(make_model(path))


@pytest.fixture
def songs(tmp_path):
    return make_songs(tmp_path / "songs")


@pytest.fixture
def tag(model, songs, capsys, monkeypatch):
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", lambda options: model[1])

    def command(*arguments):
        words = ["tag", "--model", model[0], songs, "--threshold", "0", *arguments]
        status = main.run([*map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def contents(folder):
    return {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.*") if p.is_file()
    }


def fields(records):
    """Return the field in each file, as another program reads it."""
    found = {}
    for record in records:
        tags = mutagen.File(record["path"]).tags or {}
        values = [tags[key] for key in tags.keys() if FIELD in key.upper()]  # noqa: SIM118
        texts = [getattr(value, "text", value)[0] for value in values]
        found[record["path"]] = texts[0] if texts else None
    return found


def records_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_without_yes_it_only_shows_what_it_would_write(tag, songs):
    before = contents(songs)
    status, out, err = tag("--write-tags", "--format", "jsonl")
    assert status == 0
    assert contents(songs) == before
    records = records_of(out)
    for record in records:
        value = "; ".join(record["tags"])
        assert len(record["tags"]) == 3
        assert f"{record['path']}: {FIELD} would change from no tags to {value}" in err
    assert "Nothing was written; add --yes to write them." in err


def test_it_writes_the_tags_that_apply(tag, songs):
    digests = {path: sound_digest(path) for path in contents(songs) if path.suffix != ".txt"}
    status, out, err = tag("--write-tags", "--yes", "--format", "jsonl")
    records = records_of(out)
    assert (status, fields(records)) == (0, {r["path"]: "; ".join(r["tags"]) for r in records})
    assert all(len(record["tags"]) == 3 for record in records)
    assert "Tags written into 3 files.\n" in err
    assert {path: sound_digest(path) for path in digests} == digests
    # The same command changes nothing, and another threshold changes the field.
    before = contents(songs)
    status, out, err = tag("--write-tags", "--yes", "--format", "jsonl")
    assert "Tags written into 0 files, 3 unchanged." in err
    assert contents(songs) == before
    words = ("--write-tags", "--yes", "--format", "jsonl", "--threshold", "0.5")
    records = records_of(tag(*words)[1])
    wanted = {record["path"]: "; ".join(record["tags"]) or None for record in records}
    assert fields(records) == wanted


def test_a_file_that_cannot_be_written_is_an_error_of_that_file(tag, songs):
    path = songs / "low.wav"
    path.chmod(0o444)
    samples, rate = soundfile.read(songs / "low.wav")
    soundfile.write(songs / "x.au", samples, rate)
    status, out, err = tag("--write-tags", "--yes", "--format", "jsonl")
    assert status == 1
    errors = {record["path"]: record.get("error") for record in records_of(out)}
    assert errors[str(path)] == "its tags cannot be written: the file is read-only"
    assert [value for name, value in errors.items() if name != str(path)] == [None] * 3
    message = "no tags are written, because its format cannot carry tags"
    assert f"Note: {songs / 'x.au'}: {message}" in err
    assert "1 cannot carry tags." in err


def test_a_job_that_wrote_tags_is_resumed(tag, tmp_path):
    words = ("--write-tags", "--yes", "--output", tmp_path / "tags.jsonl", "--skip-existing")
    assert tag(*words)[0] == 0
    status, out, err = tag(*words)
    assert "0 files tagged, 3 done before." in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--yes"], "--yes needs --write-tags."),
        (["--write-tags", "--output-dir", "x", "--beam"], "--write-tags cannot be combined"),
    ],
)
def test_wrong_words_are_rejected(tag, words, message):
    status, out, err = tag(*words)
    assert (status, out) == (1, "")
    assert message in err


def test_pages_know_the_files_with_their_tags(tag, songs, tmp_path):
    arguments = ("--write-tags", "--yes", "--html", tmp_path / "out", "--copy-audio")
    assert tag(*arguments)[0] == 0
    written = contents(songs)
    status, _, err = tag(*arguments, "--skip-existing")
    assert (status, "0 files tagged, 3 done before" in err) == (0, True)
    for path, content in written.items():
        if path.suffix != ".txt":
            copy = tmp_path / "out/audio" / path.relative_to(songs)
            assert copy.read_bytes() == content[0]


def test_without_mutagen_no_model_is_loaded(tag, monkeypatch):
    block(monkeypatch, "mutagen")
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", None)
    assert "pip install 'rfkeras[tags]'" in tag("--write-tags")[2]
