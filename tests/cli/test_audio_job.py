"""The files that `rfkeras tag` and `rfkeras embed` are given, and notes on what is left out."""

import argparse
import io
from pathlib import Path

import pytest

from rfkeras.cli.audio_job import named_files
from rfkeras.errors import ConfigError


@pytest.fixture
def songs(tmp_path, monkeypatch):
    """Return a folder with two songs and other files, which is the current folder."""
    for name in ("a.m4a", "line\u2028end.wav", ".Trash-1000/b.wav", "c.mid", "cover.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(*audio, lists=(), quiet=False):
    """Return the names of the files that the flags name."""
    options = argparse.Namespace(
        audio=list(audio), files_from=[Path(path) for path in lists], quiet=quiet
    )
    return [str(file.path) for file in named_files(options)]


def test_what_a_folder_has_besides_is_noted_once_a_kind(songs, capsys):
    assert files(".") == ["a.m4a", "line\u2028end.wav"]
    assert capsys.readouterr().err.splitlines() == [
        "Note: left out 1 file in an audio format that cannot be decoded: c.mid",
        "Note: left out 1 hidden file or folder: .Trash-1000",
        "Note: left out 1 file without an audio suffix: 1 .jpg",
    ]
    assert len(files(".", quiet=True)) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_in_any_encoding(songs, encoding):
    text = "a.m4a\r\nline\u2028end.wav\r\n"
    (songs / "list.txt").write_bytes(text.encode(encoding))
    assert files(lists=["list.txt"]) == ["a.m4a", "line\u2028end.wav"]


def test_paths_from_standard_input(songs, monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO(b"./a.m4a\0./line\xe2\x80\xa8end.wav\0"))
    monkeypatch.setattr("sys.stdin", piped)
    assert files("cover.jpg", lists=["-"]) == ["cover.jpg", "a.m4a", "line\u2028end.wav"]


def test_a_playlist_in_another_folder(songs, monkeypatch, capsys):
    (songs / "list.m3u8").write_text("#EXTM3U\n# a\na.m4a\nhttp://radio.example/live\n")
    (songs / "lists").mkdir()
    monkeypatch.chdir(songs / "lists")
    assert files(lists=["../list.m3u8"]) == ["../a.m4a"]
    assert "Note: left out 1 address in a playlist: http://radio" in capsys.readouterr().err


def test_nothing_is_named(songs):
    (songs / "list.txt").write_text("\n\n")
    with pytest.raises(ConfigError, match="Name audio files or folders"):
        files(lists=["list.txt"])


def test_a_list_that_cannot_be_read(songs):
    with pytest.raises(
        ConfigError, match="^--files-from cannot be read: No such file .*'no.txt'"
    ):
        files(lists=["no.txt"])
