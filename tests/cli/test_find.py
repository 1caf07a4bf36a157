"""`rfkeras find`: what it selects, prints and rejects."""

import csv
import json
import os
import subprocess
import sys
import time

import pytest

from rfkeras.audio.find import read_path_list
from rfkeras.cli import main
from rfkeras.utils.text import printable
from tests.helpers.processes import run as run_python

SONGS = {
    "a/one.ogg": {"violin": 0.8, "drums": 0.1, "hip-hop": 0.3},
    "a/two.ogg": {"violin": 0.6, "drums": 0.9, "hip-hop": 0.1},
    "b/three.ogg": {"violin": 0.9, "drums": 0.2, "hip-hop": 0.7},
    "b/four.ogg": {"violin": 0.2, "drums": 0.3, "hip-hop": 0.7},
}
THRESHOLDS = {"violin": 0.7, "drums": 0.5, "hip-hop": 0.3}


def record(path, scores, **more):
    tags = [name for name, score in scores.items() if score >= THRESHOLDS[name]]
    return {"path": path, "seconds": 61.7, "tags": tags, "scores": scores, **more}


def lines(records):
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "tags.jsonl"
    records = [record(name, scores) for name, scores in SONGS.items()]
    broken = {"path": "broken.wav", "error": "unreadable"}
    path.write_text(lines([records[0], broken, *records[1:]]), encoding="utf-8")
    return path


@pytest.fixture
def find(capsys):
    def command(*arguments):
        status = main.run(["find", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def test_it_prints_the_paths_and_counts_the_rest(find, journal):
    status, out, err = find(journal, "violin > 0.5 and not drums")
    assert (status, out) == (0, "a/one.ogg\nb/three.ogg\n")
    assert err == "2 of 4 files found. Left out: 1 file that could not be tagged.\n"
    assert find(journal, "violin > 0.95", "--quiet") == (0, "", "")
    # A tag by itself follows the thresholds of the record.
    assert find(journal, "violin and 'hip-hop'", "--quiet")[1] == "a/one.ogg\nb/three.ogg\n"


def test_the_best_come_first(find, journal):
    by_violin = ["b/three.ogg", "a/one.ogg", "a/two.ogg", "b/four.ogg"]
    words = (journal, "violin >= 0", "--sort", "violin", "--quiet")
    assert find(*words)[1].splitlines() == by_violin
    assert find(*words, "--top", 2)[1].splitlines() == by_violin[:2]
    assert find(*words, "--top", 2, "-0")[1] == "b/three.ogg\0a/one.ogg\0"
    # Files with equal scores keep their order, and the sort may use another tag.
    tied = find(journal, "violin", "--sort", "hip-hop", "--quiet")[1].splitlines()
    assert tied == ["b/three.ogg", "a/one.ogg"]


def test_documents_and_sidecars_and_standard_input(find, journal, tmp_path, monkeypatch):
    records = [record(name, scores) for name, scores in SONGS.items()]
    document = tmp_path / "tags.json"
    document.write_text(json.dumps({"model": "m", "files": records}))
    for number, each in enumerate(records):
        path = tmp_path / f"out/{number}/{number}.ogg.tags.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(each, indent=1))
    expected = find(journal, "drums or violin > 0.85")[1]
    assert expected == "a/two.ogg\nb/three.ogg\n"
    assert find(document, "drums or violin > 0.85")[1] == expected
    assert find(tmp_path / "out", "drums or violin > 0.85")[1] == expected
    with journal.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert find("-", "drums or violin > 0.85")[1] == expected


def test_csv_of_whole_files(find, journal, tmp_path):
    path = tmp_path / "tags.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "seconds", "error", "tags", "thresholds", *THRESHOLDS])
        for each in map(json.loads, journal.read_text().splitlines()):
            scores, tags = each.get("scores"), each.get("tags", ())
            cells = ["; ".join(tags), "x", *(scores or dict.fromkeys(THRESHOLDS)).values()]
            table.writerow([each["path"], each.get("seconds"), each.get("error"), *cells])
    for text in ("violin and not 'hip-hop'", "drums < 0.25", "'hip-hop' or drums"):
        assert find(path, text, "--sort", "violin") == find(journal, text, "--sort", "violin")
    path.write_text("path,start_s,centre_s,error,tags,thresholds,violin\n")
    assert "tags.csv, line 1, was not written" in find(path, "violin")[2]
    path.write_text("path,seconds,error,tags,thresholds,violin\na,1,,violin,0.5,x\n")
    assert "tags.csv, line 2, was not written" in find(path, "violin")[2]
    path.write_text("path,seconds,error,tags,thresholds,violin\na,1,," + "x" * 200_000)
    assert "was not written by `rfkeras tag`" in find(path, "violin")[2]


def test_records_of_two_models_are_merged(find, journal, tmp_path):
    moods = tmp_path / "moods.jsonl"
    texts = [
        {"path": "a/one.ogg", "seconds": 1.0, "tags": ["calm"], "scores": {"calm": 0.9}},
        {"path": "a/two.ogg", "seconds": 1.0, "tags": [], "scores": {"calm": 0.4}},
    ]
    moods.write_text(lines(texts))
    status, out, err = find(journal, moods, "violin > 0.5 and calm")
    assert (status, out) == (0, "a/one.ogg\n")
    assert "1 of 2 files found. Left out: 2 files without a score of every tag named." in err
    # The negation of an unknown score is not a find.
    assert find(journal, moods, "not calm", "--quiet")[1] == "a/two.ogg\n"


def test_a_file_that_was_retried_counts_once(find, journal):
    with journal.open("a") as file:
        file.write(lines([record("broken.wav", {"violin": 1.0, "drums": 0.0, "hip-hop": 0.0})]))
        file.write(lines([record("a/one.ogg", {"violin": 0.0, "drums": 0.0, "hip-hop": 0.0})]))
    status, out, err = find(journal, "violin")
    assert (out, err) == ("b/three.ogg\nbroken.wav\n", "2 of 5 files found.\n")


def test_an_incomplete_last_line_is_ignored(find, journal):
    with journal.open("a") as file:
        file.write('{"path": "z.ogg", "sco')
    assert find(journal, "violin", "--quiet") == (0, "a/one.ogg\nb/three.ogg\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["violin", "--top", "0"], "--top must be at least 1. Received: 0."),
        (["violin", "--sort", "violn"], "--sort: Unknown tag 'violn'. Did you mean 'violin'?"),
        (["violin and drumms"], "Unknown tag 'drumms'. Did you mean 'drums'? Tags: drums,"),
        (["violin", "--m3u8", "list.m3u"], "--m3u8 must end in .m3u8. Received: list.m3u."),
        (["violin >> 0.5"], "Expected a number after \">\", received '>'."),
    ],
)
def test_wrong_words_are_rejected(find, journal, words, message):
    status, out, err = find(journal, *words)
    assert (status, out) == (1, "")
    assert f"rfkeras find: error: {message}" in err


@pytest.mark.parametrize(
    "text",
    ["path,violin\na,1\n", "{}\n{}\n", "[1]\n", '{"path": "a", "tags": [], "scores": 3}\n', ""],
)
def test_a_file_of_another_kind_is_rejected(find, tmp_path, text):
    path = tmp_path / "tags.jsonl"
    path.write_text(text)
    status, out, err = find(path, "violin")
    assert (status, out) == (1, "")
    assert (f"{path}, line 1, was not written" if text else "no record of a tagged file") in err
    path.rename(tmp_path / "tags.json")
    status, out, err = find(tmp_path / "tags.json", "violin")
    assert (status, out) == (1, "")
    assert "tags.json was not written by `rfkeras tag`" in err


def test_missing_outputs_are_named(find, tmp_path, journal):
    assert f"{journal} is a file, but the last word must be" in find("violin", journal)[2]
    assert "nowhere.jsonl does not exist" in find("nowhere.jsonl", "violin")[2]
    assert "has no *.tags.json" in find(tmp_path, "violin")[2]


NAMES = ("one.ogg", "#two.ogg", " three.ogg", "sub/f\u00fcr & 100%41.ogg", "line\nbreak.ogg")


def test_a_playlist_leads_to_the_files(find, tmp_path, monkeypatch):
    music = tmp_path / "music"
    for name in NAMES:
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        (music / name).touch()
    (tmp_path / "link").symlink_to(music / "sub")
    monkeypatch.chdir(music)
    paths = [*NAMES, str(music / "one.ogg"), "../link/../one.ogg", "s3://bucket/x.ogg"]
    tags = music / "tags.jsonl"
    tags.write_text(lines(record(path, {"violin": 0.9}) for path in paths))
    playlist = tmp_path / "lists/new/violin.m3u8"
    status, out, err = find(tags, "violin", "--m3u8", playlist)
    assert (status, out, err) == (0, "", "8 of 8 files found.\n")
    text = playlist.read_text(encoding="utf-8")
    assert text.startswith("#EXTM3U\n#EXTINF:62,one\n../../music/one.ogg\n#EXTINF:62,#two\n")
    monkeypatch.chdir("/")
    read, notes = read_path_list(playlist, playlist.read_bytes())
    wanted = [music / name for name in NAMES]
    wanted += [music / "one.ogg", music / "one.ogg"]
    assert [os.path.realpath(path) for path in read] == [str(path) for path in wanted]
    assert len(notes) == 1
    assert "s3://bucket/x.ogg" in notes[0]


def test_a_playlist_next_to_a_name_with_a_hash(find, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "#1.ogg").touch()
    (tmp_path / "tags.jsonl").write_text(lines([record("#1.ogg", {"violin": 0.9})]))
    assert find("tags.jsonl", "violin", "--m3u8", "v.m3u8")[0] == 0
    assert (tmp_path / "v.m3u8").read_text().splitlines()[-1] == "./#1.ogg"


def test_files_tagged_from_another_folder_are_in_the_playlist(find, tmp_path, monkeypatch):
    (tmp_path / "one.ogg").touch()
    monkeypatch.chdir("/")
    tags = tmp_path / "tags.jsonl"
    absolute = str(tmp_path / "one.ogg")
    tags.write_text(lines([record("one.ogg", {"violin": 0.9}, absolute_path=absolute)]))
    assert find(tags, "violin", "--quiet")[1] == "one.ogg\n"
    assert find(tags, "violin", "--m3u8", tmp_path / "v.m3u8")[0] == 0
    assert (tmp_path / "v.m3u8").read_text().splitlines()[-1] == absolute


def test_names_that_are_not_utf8(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9 1.ogg")
    (tmp_path / name).touch()
    (tmp_path / "tags.jsonl").write_text(lines([record(printable(name), {"violin": 0.9})]))
    assert main.run(["find", "tags.jsonl", "violin", "-0", "--quiet"]) == 0
    assert capfdbinary.readouterr().out == b"caf\xe9 1.ogg\0"
    assert main.run(["find", "tags.jsonl", "violin", "--m3u8", "v.m3u8"]) == 0
    playlist = tmp_path / "v.m3u8"
    assert read_path_list(playlist, playlist.read_bytes())[0] == [str(tmp_path / name)]


def test_it_is_fast_and_imports_neither_numpy_nor_tensorflow(journal):
    code = (
        "import sys; from rfkeras.cli import main; status = main.run(sys.argv[1:]); "
        "print({'numpy', 'keras', 'tensorflow'} & set(sys.modules)); sys.exit(status)"
    )
    start = time.monotonic()
    status, out, err = run_python("-c", code, "find", journal, "violin", fork=False)
    assert (status, out) == (0, "a/one.ogg\nb/three.ogg\nset()\n"), err
    assert time.monotonic() - start < 5  # 0.2 s, on a busy machine more


def test_its_output_ends_names_for_xargs(journal):
    script = f'"$0" -m rfkeras.cli find {journal} violin -0 --quiet | xargs -0 -n 1 echo'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a/one.ogg\nb/three.ogg\n"
