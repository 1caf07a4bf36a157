"""`rfkeras embed`: every format contains the embeddings of the model."""

import csv

import numpy as np
import pyarrow.parquet
import pytest

from rfkeras.cli import main
from tests.helpers.audio_commands import SECONDS, expected, make_model, make_songs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("embed")
    songs = make_songs(root / "songs")
    (songs / "broken.wav").write_bytes(b"RIFF")
    model = make_model(root / "tiny.keras")
    order = sorted(SECONDS, key=lambda name: (songs / name).parts)
    return (
        songs,
        root / "tiny.keras",
        {str(songs / n): expected(model, songs / n) for n in order},
    )


def embed(place, output, *arguments):
    command = ["embed", str(place[0]), "--model", str(place[1]), "--output", str(output)]
    return main.run([*command, *arguments])


def test_a_file_next_to_the_npy_names_its_rows(place, tmp_path, capsys):
    assert embed(place, tmp_path / "e.npy") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "broken.wav: undecodable" in captured.err
    assert "3 files read, 1 could not be used." in captured.err
    features = np.load(tmp_path / "e.npy")
    assert features.dtype == np.float32
    with (tmp_path / "e.files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(place[2])
    np.testing.assert_allclose(
        features, [outputs[2] for outputs in place[2].values()], rtol=1e-5, atol=1e-4
    )


def test_frames_in_npz(place, tmp_path):
    assert embed(place, tmp_path / "e.npz", "--per", "frame") == 1
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        assert list(archive["paths"]) == list(place[2])
        assert archive["stride_s"] > 0
        for number, path in enumerate(archive["paths"]):
            outputs = place[2][str(path)][3]
            np.testing.assert_allclose(archive[str(number)], outputs, rtol=1e-5, atol=1e-4)


def test_parquet_in_row_groups(place, tmp_path, monkeypatch):
    monkeypatch.setattr("rfkeras.inference.features._ROWS_PER_GROUP", 2)
    for per, when in (("clip", "seconds"), ("frame", "time_s")):
        path = tmp_path / f"{per}.parquet"
        assert embed(place, path, "--per", per) == 1
        assert pyarrow.parquet.ParquetFile(path).num_row_groups >= 2
        table = pyarrow.parquet.read_table(path)
        assert table.column_names == ["path", when, "features"]
        paths = np.array(table["path"].to_pylist())
        features = np.array(table["features"].to_pylist(), "float32")
        for name, outputs in place[2].items():
            wanted = outputs[2][None] if per == "clip" else outputs[3]
            np.testing.assert_allclose(features[paths == name], wanted, rtol=1e-5, atol=1e-4)


def test_csv_has_every_digit(place, tmp_path, capsys):
    assert embed(place, tmp_path / "e.npy", "--quiet") == 1
    assert embed(place, tmp_path / "e.csv", "--quiet") == 1
    words = ["embed", str(place[0]), "--model", str(place[1]), "--format", "csv", "--quiet"]
    capsys.readouterr()
    assert main.run(words) == 1
    assert capsys.readouterr().out == (tmp_path / "e.csv").read_text(encoding="utf-8")
    with (tmp_path / "e.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    vectors = np.load(tmp_path / "e.npy")
    assert head == ["path", "seconds", *map(str, range(vectors.shape[1]))]
    seconds = {str(place[0] / name): length for name, length in SECONDS.items()}
    assert [(row[0], float(row[1])) for row in rows] == [(p, seconds[p]) for p in place[2]]
    np.testing.assert_array_equal(np.array([row[2:] for row in rows], "float32"), vectors)


def test_csv_per_frame_has_the_times_of_the_frames(place, tmp_path):
    assert embed(place, tmp_path / "e.csv", "--per", "frame", "--format", "csv") == 1
    assert embed(place, tmp_path / "e.parquet", "--per", "frame") == 1
    with (tmp_path / "e.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    table = pyarrow.parquet.read_table(tmp_path / "e.parquet")
    assert head[:3] == ["path", "time_s", "0"]
    assert [row[0] for row in rows] == table["path"].to_pylist()
    times = np.array([row[1] for row in rows], float)
    np.testing.assert_allclose(times, table["time_s"].to_pylist(), atol=1e-4)
    vectors = np.array(table["features"].to_pylist(), "float32")
    np.testing.assert_array_equal(np.array([row[2:] for row in rows], "float32"), vectors)


def test_wrong_suffixes_are_rejected(place, tmp_path, capsys):
    assert embed(place, tmp_path / "e.npy", "--per", "frame") == 1
    assert "per frame must end in .npz, .parquet or .csv" in capsys.readouterr().err
    assert embed(place, tmp_path / "e.npy", "--format", "csv") == 1
    assert "--output must end in .csv for --format csv" in capsys.readouterr().err
    for words in ([], ["--format", "npy"]):
        assert main.run(["embed", str(place[0]), "--model", str(place[1]), *words]) == 1
        assert "Name a file with --output, or write CSV to standard" in capsys.readouterr().err
