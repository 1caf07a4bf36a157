"""`rfkeras similar`: neighbours by cosine, from every format of `rfkeras embed`."""

import csv
import shutil

import numpy as np
import pytest

from rfkeras.cli import main
from rfkeras.inference.features import read_features
from tests.helpers.audio_commands import SECONDS, expected, make_model, make_songs
from tests.helpers.processes import run as run_python

FILES = ("clip.npy", "clip.parquet", "clip.csv", "frame.npz", "frame.parquet", "frame.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return the songs, the model's file, and the embedding of each song by its path."""
    root = tmp_path_factory.mktemp("similar")
    songs = make_songs(root / "songs")
    model = make_model(root / "tiny.keras")
    for name in FILES:
        words = ["embed", songs, "--model", root / "tiny.keras", "--output", root / name]
        assert main.run([*map(str, words), "--per", name.partition(".")[0], "--quiet"]) == 0
    vectors = {str(songs / name): expected(model, songs / name)[2] for name in SECONDS}
    return songs, root / "tiny.keras", vectors


@pytest.fixture
def similar(capsys):
    def command(*arguments):
        status = main.run(["similar", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def neighbours(vector, vectors):
    """Return the table: (cosine, path), best first."""
    cosines = {
        path: float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))
        for path, other in vectors.items()
    }
    table = sorted(((cosine, path) for path, cosine in cosines.items()), reverse=True)
    assert np.diff([cosine for cosine, _ in table]).max() < -1e-4  # or rounding decides
    return table


def rows(out):
    head, *lines = out.splitlines()
    assert head.split() == ["cosine", "path"]
    return [(float(line[:6]), line[8:]) for line in lines]


def check(out, wanted):
    given = rows(out)
    assert [path for _, path in given] == [path for _, path in wanted]
    cosines = [cosine for cosine, _ in wanted]
    np.testing.assert_allclose([cosine for cosine, _ in given], cosines, atol=1.1e-4)


@pytest.mark.parametrize("name", FILES)
def test_the_neighbours_of_a_file_in_the_features(similar, place, name, monkeypatch):
    monkeypatch.setattr("rfkeras.cli.similar._embed", None)  # no model is needed
    vectors = dict(place[2])
    query = str(place[0] / "low.wav")
    wanted = neighbours(vectors.pop(query), vectors)
    features = place[1].with_name(name)
    status, out, err = similar(query, features)
    assert (status, err) == (0, "")
    check(out, wanted)
    monkeypatch.chdir(place[0])
    best = similar("b/../low.wav", features, "--top", 1)[1]
    assert best.splitlines() == out.splitlines()[:2]


def test_another_file_is_embedded_with_the_same_model(similar, place, tmp_path):
    query = tmp_path / "copy.wav"
    shutil.copy(place[0] / "low.wav", query)
    wanted = neighbours(place[2][str(place[0] / "low.wav")], place[2])
    assert wanted[0][0] == pytest.approx(1)
    for name in ("frame.npz", "clip.parquet"):  # they name the model
        status, out, err = similar(query, place[1].with_name(name))
        assert (status, err) == (0, "")
        check(out, wanted)
    features = place[1].with_name("clip.npy")
    status, out, err = similar(query, features)
    assert (status, out) == (1, "")
    assert "clip.npy does not name its model. Give the --model" in err
    check(similar(query, features, "--model", place[1])[1], wanted)


def test_other_weights_are_refused(similar, place, tmp_path):
    query = tmp_path / "copy.wav"
    shutil.copy(place[0] / "low.wav", query)
    other = tmp_path / "other.keras"
    make_model(other)
    status, out, err = similar(query, place[1].with_name("clip.parquet"), "--model", other)
    assert (status, out) == (1, "")
    assert f"written with other weights than those of '{other}'" in err
    wide = ["--model", "resnet_rf_tiny"]
    status, out, err = similar(query, place[1].with_name("clip.npy"), *wide)
    assert (status, out) == (1, "")
    assert "features per file, but 'resnet_rf_tiny' computes" in err


def test_a_playlist_of_the_neighbours(similar, place, tmp_path):
    query = place[0] / "low.wav"
    out = similar(query, place[1].with_name("clip.parquet"))[1]
    playlist = tmp_path / "alike.m3u8"
    words = (query, place[1].with_name("clip.parquet"), "--m3u8", playlist)
    assert similar(*words) == (0, "", "")
    lines = playlist.read_text(encoding="utf-8").splitlines()
    assert lines[2::2] == [path for _, path in rows(out)]
    assert lines[1] in ('#EXTINF:2,hi, "there"', "#EXTINF:4,Bj\u00f6rk \u2603")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.wav", "clip.npy"], "none.wav is neither an audio file nor a path in"),
        ([".", "clip.npy"], ". is a folder. Name one audio file."),
        (
            ["a.wav", "none.npy"],
            "There is no file none.npy. Write it with `rfkeras embed FOLDER",
        ),
        (["a.wav", "tiny.keras"], "Embeddings must end in .npy, .npz, .parquet, .csv."),
        (["a.wav", "clip.npy", "--top", "0"], "--top must be at least 1."),
        (["a.wav", "torn.npy"], "torn.npy was not written by `rfkeras embed`, or is damaged"),
        (["a.wav", "torn.npz"], "torn.npz was not written by `rfkeras embed`, or is damaged"),
        (["a.wav", "torn.parquet"], "torn.parquet was not written by `rfkeras embed`, or is"),
        (["a.wav", "clip.files.csv"], "clip.files.csv was not written by `rfkeras embed`, or"),
        (["a.wav", "nan.csv"], "nan.csv has NaN or infinite values."),
    ],
)
def test_wrong_words_are_rejected(similar, place, words, message, monkeypatch):
    monkeypatch.chdir(place[1].parent)
    for suffix in ("npy", "npz", "parquet"):
        content = next(place[1].parent.glob(f"[cf]*.{suffix}")).read_bytes()
        place[1].with_name(f"torn.{suffix}").write_bytes(content[: len(content) // 2])
    place[1].with_name("torn.files.csv").write_bytes(
        place[1].with_name("clip.files.csv").read_bytes()
    )
    place[1].with_name("nan.csv").write_text("path,seconds,0\na,1,nan\n")
    status, out, err = similar(*words)
    assert (status, out) == (1, "")
    assert f"rfkeras similar: error: {message}" in err


def test_a_silent_embedding_has_no_direction(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("path,seconds,0,1\na,1,0,0\nb,1,3,4\nc,1,-3,-4\nd,1,4,-3\n")
    features = read_features(path)
    np.testing.assert_allclose(
        features.cosines(np.array([6, 8], "f4")), [0, 1, -1, 0], atol=1e-9
    )
    np.testing.assert_array_equal(features.cosines(np.zeros(2, "f4")), 0)


def test_rows_in_many_batches_are_averaged_by_file(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(7, 3)).astype("f4")
    names = list("aabaacb")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "time_s", 0, 1, 2])
        table.writerows([name, 0.0, *row] for name, row in zip(names, frames, strict=True))
    features = read_features(path)
    assert features.paths == ("a", "b", "c")
    means = [frames[[n == name for n in names]].mean(axis=0) for name in "abc"]
    np.testing.assert_allclose(features.vectors, means, rtol=1e-6)


def test_a_file_in_the_features_needs_no_tensorflow(place):
    code = (
        "import sys; from rfkeras.cli import main; status = main.run(sys.argv[1:]); "
        "print({'keras', 'tensorflow', 'soundfile'} & set(sys.modules)); sys.exit(status)"
    )
    words = ["similar", place[0] / "low.wav", place[1].with_name("clip.npy")]
    status, out, err = run_python("-c", code, *words, fork=False)
    assert (status, out.splitlines()[-1]) == (0, "set()"), err
