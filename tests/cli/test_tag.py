"""`rfkeras tag`: what it prints, writes, skips and rejects."""

import csv
import io
import json

import mir_eval
import numpy as np
import pytest

from rfkeras.cli import main
from rfkeras.inference import StreamTagger
from tests.helpers.audio_commands import (
    LABELS,
    SECONDS,
    THRESHOLDS,
    expected,
    make_model,
    make_songs,
)

# jams validates with a call that jsonschema will drop.
JAMS_VALIDATION = pytest.mark.filterwarnings("ignore:Passing a schema:DeprecationWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return the folder of songs, the model, its file and its outputs for each song."""
    root = tmp_path_factory.mktemp("tag")
    songs = make_songs(root / "songs")
    model = make_model(root / "tiny.keras")
    return songs, model, root / "tiny.keras", {n: expected(model, songs / n) for n in SECONDS}


@pytest.fixture(scope="module")
def tagger(place):
    return StreamTagger(place[1])


@pytest.fixture
def tag(place, tagger, capsys, monkeypatch):
    """Run the command; return exit status, standard output and standard error."""
    # Loading and tracing the model take most of the time; the tests of `rfkeras embed` do it.
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", lambda options: tagger)

    def command(*arguments):
        status = main.run(["tag", "--model", str(place[2]), *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF")
    return path


def names(songs):
    """Return the paths of the songs in the order in which a folder is read."""
    order = sorted(SECONDS, key=lambda name: (songs / name).parts)
    return [str(songs / name) for name in order]


def check_record(record, place):
    songs, _, _, outputs = place
    name = str(record["path"]).removeprefix(f"{songs}/")
    clip = outputs[name][0]
    assert record["seconds"] == pytest.approx(SECONDS[name], abs=1e-3)
    np.testing.assert_allclose([record["scores"][n] for n in LABELS], clip, atol=2e-6)
    applied = {n for n, s, t in zip(LABELS, clip, THRESHOLDS, strict=True) if s >= t}
    assert set(record["tags"]) == applied
    return name


def test_json_is_one_document_with_the_scores_of_the_model(tag, place):
    status, out, err = tag(place[0], "--format", "json", "--frames", "--quiet")
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert content["labels"] == list(LABELS)
    assert content["thresholds"] == dict(zip(LABELS, THRESHOLDS, strict=True))
    assert content["task"] == "multi_label"
    assert content["sample_rate_hz"] == 22050
    assert [record["path"] for record in content["files"]] == names(place[0])
    stride = content["frame_stride_s"]
    for record in content["files"]:
        name = check_record(record, place)
        frames = place[3][name][1]
        given = np.array([record["frames"]["scores"][n] for n in LABELS]).T
        np.testing.assert_allclose(given, frames, atol=6e-5)
        centres = np.array(record["frames"]["centre_s"])
        np.testing.assert_allclose(np.diff(centres), stride, atol=2e-4)
        for tag_name, threshold in zip(LABELS, THRESHOLDS, strict=True):
            active = frames[:, LABELS.index(tag_name)] >= threshold
            spans = record["spans"].get(tag_name, [])
            inside = [any(a <= c <= b for a, b in spans) for c in centres]
            within = centres < record["seconds"]
            np.testing.assert_array_equal(np.array(inside)[within], active[within])


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_model_the_best_weights_are_used_and_named(
    quiet, place, tagger, capsys, monkeypatch
):
    from zoo.pretrained import best_weights

    opened = []
    monkeypatch.setattr(
        "rfkeras.cli.tag.open_tagger", lambda options: opened.append(options.model) or tagger
    )
    words = ["tag", str(place[0]), "--format", "jsonl", *(["--quiet"] if quiet else [])]
    assert main.run(words) == 0
    captured = capsys.readouterr()
    best = best_weights()
    assert opened == [str(best)]
    records = [json.loads(line) for line in captured.out.splitlines()]
    assert {record["model"] for record in records} == {str(best)}
    lines = [line for line in captured.err.splitlines() if str(best) in line]
    said = f"Model {best} (20 tags). {best.limits} Others: rfkeras models"
    assert lines == ([] if quiet else [said])


def test_a_named_model_is_not_explained(tag, place):
    _, _, err = tag(place[0], "--format", "jsonl")
    assert "Others: rfkeras models" not in err


def test_lines_name_the_model_and_the_reason_for_broken_files(tag, place, broken):
    status, out, err = tag(broken, place[0], "--format", "jsonl")
    assert status == 1
    first, *rest = [json.loads(line) for line in out.splitlines()]
    assert first["path"] == str(broken)
    assert first["model"] == str(place[2])
    assert "undecodable" in first["error"]
    assert f"{broken}: undecodable" in err
    assert "3 files tagged, 1 could not be used." in err
    assert sorted(check_record(record, place) for record in rest) == sorted(SECONDS)


def test_csv_has_one_row_per_file_or_per_frame(tag, place, broken):
    status, out, _ = tag(place[0], broken, "--format", "csv")
    assert status == 1
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["path"] for row in rows] == [*names(place[0]), str(broken)]
    assert rows[-1]["error"].startswith("undecodable")
    assert {rows[-1][name] for name in ("tags", "thresholds", *LABELS)} == {""}
    for row in rows[:-1]:
        outputs = place[3][row["path"].removeprefix(f"{place[0]}/")][0]
        np.testing.assert_allclose([float(row[n]) for n in LABELS], outputs, atol=2e-6)
        check_tags_of_row(row)
    _, out, _ = tag(place[0] / "low.wav", "--format", "csv", "--frames")
    rows = list(csv.DictReader(io.StringIO(out)))
    given = [[float(row[n]) for n in LABELS] for row in rows]
    np.testing.assert_allclose(given, place[3]["low.wav"][1], atol=2e-6)
    assert float(rows[0]["start_s"]) == 0
    for row in rows:
        check_tags_of_row(row)


def check_tags_of_row(row):
    """Check that the tags that apply and their thresholds are in two columns, best first."""
    limits = dict(zip(LABELS, THRESHOLDS, strict=True))
    scores = {name: float(row[name]) for name in LABELS if float(row[name]) >= limits[name]}
    best = sorted(scores, key=lambda name: -scores[name])
    assert row["tags"] == "; ".join(best)
    assert row["thresholds"] == "; ".join(f"{limits[name]:g}" for name in best)


def test_the_table_marks_tags_that_apply_and_shows_when(tag, place):
    path = place[0] / "low.wav"
    outputs = place[3]["low.wav"][0]
    status, out, _ = tag(path, "--threshold", "0", "--frames", "--top", "2")
    heading, _, _, *rows = [line for line in out.splitlines() if line.strip()]
    assert (status, heading) == (0, f"{path}  0:01")
    assert len(rows) == 2
    assert all(row.startswith("*") and row.rstrip().endswith("0:00-0:01") for row in rows)
    best = LABELS[int(outputs.argmax())]
    _, out, _ = tag(path, "--threshold", "1", "--top", "1")
    row = out.splitlines()[3]
    marked = "*" if outputs.max() >= 1 else ""  # a score can be 1 in float32
    assert row.split(f"{outputs.max():.3f}")[0].split() == [*marked, *best.split()]


def interrupt(monkeypatch, at):
    """Press Ctrl-C at the nth file; return the list of requested files."""
    real, requested = StreamTagger.run_file, []

    def run_file(self, path, **settings):
        requested.append(str(path))
        if len(requested) == at:
            raise KeyboardInterrupt
        return real(self, path, **settings)

    monkeypatch.setattr(StreamTagger, "run_file", run_file)
    return requested


def test_an_interrupted_job_resumes_without_duplicates(
    tag, place, tmp_path, broken, monkeypatch
):
    output = tmp_path / "deep" / "tags.jsonl"
    requested = interrupt(monkeypatch, at=2)
    status, out, err = tag(broken, place[0], "--output", output)
    assert (status, out) == (130, "")
    assert "2 files not read. Done so far: 1 file tagged, 1 could not be used." in err
    with output.open("ab") as file:  # as after kill -9
        file.write(b'{"path": "/x/y.wav", "mo')
    status, _, err = tag(broken, place[0], "--output", output)
    assert status == 1
    assert "already contains results. Use --skip-existing to continue" in err
    status, _, err = tag(broken, place[0], "--output", output, "--skip-existing")
    assert status == 1
    assert "2 files tagged, 1 done before, 1 could not be used." in err
    records = [json.loads(line) for line in output.read_text().splitlines()]
    done = [record["path"] for record in records if "error" not in record]
    assert sorted(done) == sorted(names(place[0]))
    assert [r["path"] for r in records if "error" in r] == [str(broken)]
    assert requested.count(done[0]) == 1
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", None)  # the model is not needed
    status, _, err = tag(place[0], "--output", output, "--skip-existing")
    assert status == 0
    assert "0 files tagged, 3 done before." in err
    monkeypatch.chdir(place[0])  # the same files under other names
    status, _, err = tag("low.wav", "b/../c", "b", "--output", output, "--skip-existing")
    assert (status, "0 files tagged, 3 done before." in err) == (0, True)
    assert str(broken) in output.read_text()  # not requested, so its error stays
    again = ("--output", output, "--skip-existing")
    for other in (("--frames",), ("--threshold", "0.3")):
        status, _, err = tag(place[0], *again, *other)
        assert (status, "or another setting of --frames" in err) == (1, True)
    copy = tmp_path / "copy.keras"
    copy.write_bytes(place[2].read_bytes())
    status, _, err = tag(place[0], *again, "--model", copy)
    assert (status, "was written with the model" in err) == (1, True)


@JAMS_VALIDATION
def test_a_jams_file_per_song_is_valid_and_resumed(tag, place, broken, tmp_path):
    jams = pytest.importorskip("jams")
    arguments = (place[0], broken, "--output-dir", tmp_path / "out", "--format", "jams")
    stale = next(iter((tmp_path / "out" / broken.name).parents)) / f"{broken.name}.jams"
    stale.parent.mkdir()
    stale.write_text("tags of an earlier job")
    status, out, err = tag(*arguments)
    assert (status, out) == (1, "")
    assert "3 files tagged, 1 could not be used" in err
    paths = sorted((tmp_path / "out").rglob("*.jams"))
    assert [str(p.relative_to(tmp_path / "out")) for p in paths] == [
        f"{name.removeprefix(str(place[0]) + '/')}.jams" for name in sorted(names(place[0]))
    ]
    for path in paths:
        document = jams.load(str(path), validate=True, strict=True)
        name = check_record(dict(document.sandbox.rfkeras), place)
        assert document.file_metadata.duration == pytest.approx(SECONDS[name], abs=1e-3)
        frames = place[3][name][1]
        (annotation,) = document.annotations
        values = {observation.value for observation in annotation.data}
        over = (frames >= THRESHOLDS).any(axis=0)
        assert values == {n for n, applies in zip(LABELS, over, strict=True) if applies}
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert "0 files tagged, 3 done before" in tag(*arguments, "--skip-existing")[2]
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_segments_are_those_of_the_json(tag, place, tmp_path):
    folder = tmp_path / "out"
    assert tag(place[0], "--output-dir", folder, "--format", "segments")[0] == 0
    records = json.loads(tag(place[0], "--format", "json", "--frames")[1])["files"]
    assert any(record["spans"] for record in records)
    for record in records:
        name = str(record["path"]).removeprefix(f"{place[0]}/")
        path = folder / f"{name}.segments.txt"
        intervals, labels = mir_eval.io.load_labeled_intervals(str(path), delimiter="\t")
        found = {
            label: [
                [a, b] for (a, b), each in zip(intervals, labels, strict=True) if each == label
            ]
            for label in labels
        }
        assert found.keys() == record["spans"].keys()
        for label, parts in record["spans"].items():
            np.testing.assert_allclose(found[label], parts, atol=1e-4)


def test_tsv_has_a_row_of_scores_per_file(tag, place, broken):
    status, out, _ = tag(place[0], broken, "--format", "tsv")
    assert status == 1
    head, *rows = csv.reader(io.StringIO(out), "excel-tab")
    assert head == ["path", *LABELS]
    assert [row[0] for row in rows] == [*names(place[0]), str(broken)]
    for path, *scores in rows[:-1]:
        clip = place[3][path.removeprefix(f"{place[0]}/")][0]
        np.testing.assert_allclose(np.array(scores, float), clip, atol=2e-6)
    assert rows[-1][1:] == [""] * len(LABELS)


def test_sidecars_and_pictures_keep_the_folder_tree(tag, place, tmp_path):
    sides, plots = tmp_path / "sides", tmp_path / "plots"
    arguments = (place[0], "--output-dir", sides, "--plot", plots)
    status, out, _ = tag(*arguments)
    assert (status, out) == (0, "")
    for name in SECONDS:
        content = json.loads((sides / f"{name}.tags.json").read_text())
        assert check_record(content, place) == name
        assert content["labels"] == list(LABELS)
        assert "frames" not in content
        assert (plots / f"{name}.png").stat().st_size > 10_000
    changed = sides / "low.wav.tags.json"
    changed.unlink()
    status, _, err = tag(*arguments[:3], "--skip-existing")
    assert (status, "1 file tagged, 2 done before." in err) == (0, True)
    check_record(json.loads(changed.read_text()), place)
    content = {**json.loads(changed.read_text()), "absolute_path": "elsewhere/low.wav"}
    changed.write_text(json.dumps(content))
    status, _, err = tag(*arguments[:3], "--skip-existing")
    assert status == 1
    assert "contains the tags of 'elsewhere/low.wav'" in err


def index_rows(folder):
    """Return the songs in the index of --html by name."""
    text = (folder / "index.html").read_text("utf-8")
    data = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    return {song["name"]: song for song in data["songs"]}


def test_pages_have_the_scores_and_are_resumed(tag, place, broken, tmp_path):
    arguments = (place[0], broken, "--html", tmp_path / "out", "--copy-audio")
    status, out, err = tag(*arguments)
    assert (status, out) == (1, "")
    assert f"3 files tagged, 1 could not be used. Pages: {tmp_path}/out/index.html" in err
    rows = index_rows(tmp_path / "out")
    assert set(rows) == {*SECONDS, "broken.wav"}
    assert "Format not recognised" in rows["broken.wav"]["error"]
    for name, seconds in SECONDS.items():
        scores = place[3][name][0]
        np.testing.assert_allclose(rows[name]["scores"], scores, atol=1e-4)
        applies = [tag for tag, limit in enumerate(THRESHOLDS) if scores[tag] >= limit]
        assert rows[name]["applies"] == applies
        assert rows[name]["seconds"] == pytest.approx(seconds)
        assert (tmp_path / f"out/songs/{name}.html").stat().st_size > 5_000
        assert (tmp_path / f"out/audio/{name}").read_bytes() == (place[0] / name).read_bytes()
    (tmp_path / "out/songs/low.wav.html").unlink()
    status, _, err = tag(*arguments, "--skip-existing")
    assert (status, "1 file tagged, 2 done before, 1 could not be used" in err) == (1, True)
    assert (tmp_path / "out/songs/low.wav.html").exists()
    assert index_rows(tmp_path / "out") == rows
    status, _, err = tag(*arguments, "--skip-existing", "--threshold", "0.9")
    assert (status, "another --threshold" in err) == (1, True)


def test_pages_beside_another_output(tag, place, tmp_path):
    output = tmp_path / "tags.jsonl"
    status, _, err = tag(place[0], "--html", tmp_path / "out", "--output", output)
    assert (status, f"Tags: {output}; Pages: {tmp_path}/out/index.html" in err) == (0, True)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == len(index_rows(tmp_path / "out")) == 3
    assert not any("frames" in record for record in records)


def test_an_interrupted_document_is_complete(tag, place, tmp_path, monkeypatch):
    output = tmp_path / "tags.json"
    interrupt(monkeypatch, at=3)
    assert tag(place[0], "--output", output)[0] == 130
    assert len(json.loads(output.read_text())["files"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "Found no audio in empty"),
        (
            ["a.wav", "--skip-existing"],
            "--skip-existing needs --output FILE.jsonl, --output-dir DIR or --html DIR.",
        ),
        (["a.wav", "--output", "a.xml"], "--output must end in the suffix of its format"),
        (["a.wav", "--output", "a.csv", "--format", "json"], "with --format json"),
        (["a.wav", "--output", "empty"], "--output must be a file"),
        (["a.wav", "--output-dir", "x", "--format", "csv"], "--output-dir writes files in"),
        (["a.wav", "--format", "jams"], "add --output-dir DIR."),
        (["a.wav", "--format", "tsv", "--frames"], "Use --format csv for --frames."),
        (
            ["a.wav", "--output-dir", "x", "--format", "segments", "--skip-existing"],
            "Use --format jams or json.",
        ),
        (["a.wav", "b.wav", "--plot", "p.png"], "is one picture, but there are 2 audio files"),
        (["a.wav", "d/a.wav", "--output-dir", "x"], "would both be written to"),
        (["a.wav", "--copy-audio"], "--copy-audio needs --html DIR."),
        (
            ["a.wav", "--html", "x", "--output", "a.jsonl", "--skip-existing"],
            "works with --html or with another output, not with both",
        ),
        (["a.wav", "--top", "0"], "--top must be at least 1"),
    ],
)
def test_arguments_rejected_before_a_model_is_loaded(
    tag, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("rfkeras.cli.tag.open_tagger", None)
    status, out, err = tag(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("rfkeras tag: error: ")
    assert message in err


def test_threshold_out_of_range(tag, place):
    status, _, err = tag(place[0], "--threshold", "2")
    assert status == 1
    assert "between 0 and 1. Received: 2" in err
