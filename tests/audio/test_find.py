"""The suffixes, the walk over folders, and lists of paths."""

import os
from pathlib import Path

import pytest

from rfkeras.audio.find import AUDIO_SUFFIXES, find_audio, read_path_list, walk_audio
from rfkeras.errors import ConfigError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def inside(found) -> list[str]:
    return [str(file.inside) for file in found]


# Folders


@pytest.mark.parametrize(
    "suffix",
    ".m4a .mp4 .aac .wma .wv .mka .webm .ac3 .ape .tta .mp2 .m4b .3gp .au .caf .rf64 .w64 "
    ".wave .aifc .oga .opus .mp3 .wav .flac .ogg .aif .aiff .m4r .spx "
    ".mkv .mov .avi .m4v".split(),
)
def test_every_suffix_that_can_be_decoded_is_found(tmp_path, suffix):
    assert suffix in AUDIO_SUFFIXES
    touch(tmp_path, f"a{suffix}", f"b{suffix.upper()}")
    assert inside(find_audio([tmp_path])) == [f"a{suffix}", f"b{suffix.upper()}"]


def test_hidden_entries_and_system_folders_are_left_out_and_counted(tmp_path):
    left_out = [
        ".ipynb_checkpoints/a-checkpoint.wav",
        "x/.Trash-1000/files/a.wav",
        "x/._a.wav",
        ".git/a.wav",
        "__MACOSX/x/a.wav",
        "x/$RECYCLE.BIN/a.wav",
        "System Volume Information/a.wav",
        "x/@eaDir/a.wav",
        "lost+found/a.wav",
    ]
    touch(tmp_path, "x/a.wav", *left_out, ".DS_Store")
    notes = []
    assert inside(find_audio([tmp_path], notes.append)) == ["x/a.wav"]
    hidden, system = notes
    assert hidden.startswith("left out 4 hidden files or folders: ")
    assert system.startswith("left out 5 folders of the operating system: ")
    assert str(tmp_path / "__MACOSX") in system


def test_a_hidden_folder_is_read_when_it_is_named(tmp_path):
    touch(tmp_path, ".music/a.wav")
    assert inside(find_audio([tmp_path / ".music"])) == ["a.wav"]


def test_other_suffixes_are_counted_and_sounds_that_cannot_be_read_named(tmp_path):
    touch(tmp_path, "a.wav", "song.mid", "a.jpg", "b.JPG", "x/notes.txt", "README")
    notes = []
    assert inside(find_audio([tmp_path], notes.append)) == ["a.wav"]
    assert notes == [
        f"left out 1 file in an audio format that cannot be decoded: {tmp_path / 'song.mid'}",
        "left out 4 files without an audio suffix: 2 .jpg, 1 without suffix, 1 .txt",
    ]


def test_links_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path, "music/x/a.wav", "elsewhere/album/b.wav", "elsewhere/c.wav")
    root = tmp_path / "music"
    (root / "x" / "album").symlink_to(tmp_path / "elsewhere" / "album")
    (root / "y").symlink_to(tmp_path / "elsewhere" / "album")
    (root / "c.wav").symlink_to(tmp_path / "elsewhere" / "c.wav")
    (root / "x" / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    walk = walk_audio(root)
    assert inside(walk.files) == ["c.wav", "self", "x/a.wav", "y/b.wav"]
    assert [file.error for file in walk.files] == [None, "broken link", None, None]
    assert set(walk.left_out.repeated) == {root / "x" / "album", root / "x" / "loop"}
    (note,) = walk.left_out.notes()
    assert note.startswith("left out 2 links to folders that have already been read: ")


def test_a_folder_seen_before_does_not_hide_its_neighbours(tmp_path):
    other = tmp_path / "other"
    touch(other, "m/a.wav", "n/b.wav", "o/c.wav")
    root = tmp_path / "music"
    root.mkdir()
    (root / "1").symlink_to(other / "n")
    (root / "2").symlink_to(other)
    walk = walk_audio(root)
    assert inside(walk.files) == ["1/b.wav", "2/m/a.wav", "2/o/c.wav"]
    assert walk.left_out.repeated == [root / "2" / "n"]


def test_a_broken_link_and_a_pipe_are_reported(tmp_path):
    touch(tmp_path, "a.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "album").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    faults = {str(file.inside): file.error for file in find_audio([tmp_path])}
    assert faults.pop("a.wav") is None
    assert faults.pop("pipe.wav") == "not a file"
    assert faults.pop("loop.wav").startswith("unreadable link")
    assert faults == {"album": "broken link", "b.wav": "broken link"}


def test_a_folder_without_audio_says_what_it_has(tmp_path):
    touch(tmp_path, "a.mid", "b.pdf")
    with pytest.raises(ConfigError, match=r"a\.mid\. Left out 1 file without an audio suffix"):
        find_audio([tmp_path])


def test_a_name_that_is_too_long_is_a_file_of_its_own(tmp_path):
    touch(tmp_path, "a.wav")
    found = find_audio([tmp_path, "x" * 5000, "a\0b.wav"])
    assert len(found) == 3


def test_folders_are_searched_once_and_in_order(tmp_path):
    touch(tmp_path, "b/2.WAV", "b/1.mp3", "a.flac", "c/d/e.opus", "text.txt", ".hidden/x.wav")
    touch(tmp_path, "b/._1.mp3")
    (tmp_path / "a-loop").symlink_to(tmp_path)
    (tmp_path / "c" / "link").symlink_to(tmp_path / "b")
    found = find_audio([tmp_path, tmp_path / "a.flac", Path("gone.xyz")])
    inside = ["a.flac", "b/1.mp3", "b/2.WAV", "c/d/e.opus", "gone.xyz"]
    assert [str(file.inside) for file in found] == inside
    assert found == find_audio([tmp_path, tmp_path / "a.flac", Path("gone.xyz")])


def test_an_unreadable_folder_is_reported(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.wav", "b/2.wav", "c/3.wav")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    found = [(str(file.inside), file.error) for file in find_audio([tmp_path])]
    unreadable = "unreadable folder: Permission denied"
    assert found == [("a/1.wav", None), ("b", unreadable), ("c/3.wav", None)]


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.wav")
    with pytest.raises(ConfigError, match="A path to read is empty"):
        find_audio(["a.wav", ""])
    assert [file.name for file in find_audio(["."])] == ["a.wav"]


# Lists

NAMES = ["a b.wav", "fl\u00fbte/\u7434.mp3", "line\u2028end\x85tab\x0bpage\x0c.wav", " x "]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "utf-32"]
)
def test_encodings_and_line_ends(encoding, end):
    text = end.join(NAMES[:2]) + end + end + end.join(NAMES[2:]) + end
    if encoding.endswith("-bom"):
        content = ("\ufeff" + text).encode(encoding[:-4])
    else:
        content = text.encode(encoding)
    assert read_path_list("list.txt", content) == (NAMES, ())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark(encoding):
    assert read_path_list("-", "a.wav\nb.wav\n".encode(encoding))[0] == ["a.wav", "b.wav"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "text", ["\u4e00.wav\n\u7434/\u4e00.wav\n", "\u7434\u3000.mp3", "a.wav\r"]
)
def test_wide_text_without_a_mark_in_other_scripts(encoding, text):
    # Ideographs have NUL bytes in either half, and a list of one path may have no line end.
    assert read_path_list("-", text.encode(encoding))[0] == text.splitlines()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_joined_lists_and_line_ends_of_old_systems(mark):
    text = f"{mark}a.wav\r\n{mark}b.wav\r\n"
    assert read_path_list("-", text.encode())[0] == ["a.wav", "b.wav"]
    assert read_path_list("-", b"a.wav\rb c.wav\r")[0] == ["a.wav", "b c.wav"]


def test_paths_in_quotation_marks_or_white_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a b.wav", "c.wav", "'d.wav'")
    text = "\"a b.wav\"\n'c.wav'\n\tc.wav \n'd.wav'\n\"e.wav\"\n"
    names = ["a b.wav", "c.wav", "c.wav", "'d.wav'", '"e.wav"']
    assert read_path_list("list.txt", text.encode())[0] == names
    paths, _ = read_path_list(tmp_path / "list.m3u8", text.encode())
    assert paths == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize(
    "first", ['#EXTM3U url-tvg="x"', "#extm3u", "#EXTM3U8", "\ufeff#EXTM3U\r"]
)
def test_first_lines_of_playlists(tmp_path, first):
    text = f"{first}\n#EXTINF:1,x\n \t# note\na.wav\n\ufeff#EXTM3U\nb.wav\n"
    paths, _ = read_path_list(tmp_path / "list.txt", text.encode())
    assert paths == [f"{tmp_path}/a.wav", f"{tmp_path}/b.wav"]


def test_playlists_of_the_form_pls(tmp_path):
    touch(tmp_path, "b c.wav")
    text = (
        "[Playlist]\r\nNumberOfEntries=3\r\nFile1=a.wav\r\nTitle1=x\r\nFile2 = b%20c.wav\r\n"
        "file3=http://radio.example\r\n"
    )
    paths, notes = read_path_list(tmp_path / "list.pls", text.encode())
    assert paths == [f"{tmp_path}/a.wav", f"{tmp_path}/b c.wav"]
    assert notes == ("left out 1 address in a playlist: http://radio.example",)


def test_what_is_no_list_is_refused():
    with pytest.raises(ConfigError, match="list.xspf is XML"):
        read_path_list("list.xspf", b"\xef\xbb\xbf<?xml version='1.0'?>\n<playlist/>\n")
    with pytest.raises(ConfigError, match="song.WAV is an audio file by its suffix"):
        read_path_list("song.WAV", b"RIFF\0\0")


def test_nul_separated_paths_keep_their_line_breaks():
    content = b"./a.wav\0./line\nbreak.wav\0./fl\xfbte.wav\0# 1.wav\0"
    names = ["./a.wav", "./line\nbreak.wav", "./fl\udcfbte.wav", "# 1.wav"]
    assert read_path_list("-", content)[0] == names
    assert read_path_list("-", content[:-1])[0] == names
    assert read_path_list("-", b"a\0b\0")[0] == ["a", "b"]


def test_bytes_that_are_not_utf8_are_kept():
    paths, _ = read_path_list("list.txt", b"fl\xfbte.wav\n")
    assert os.fsencode(paths[0]) == b"fl\xfbte.wav"


def test_a_plain_list_has_no_comments():
    assert read_path_list("list.txt", b"#1 hit.wav\nb.wav")[0] == ["#1 hit.wav", "b.wav"]


def test_text_that_is_not_utf16_after_its_mark():
    with pytest.raises(ConfigError, match="list.txt starts as UTF-16-LE text but is not"):
        read_path_list("list.txt", b"\xff\xfea")


def test_an_empty_list():
    assert read_path_list("list.txt", b"") == read_path_list("-", b"\n\r\n\n") == ([], ())


@pytest.mark.parametrize("name", ["list.m3u", "list.M3U8", "list.txt"])
def test_playlists(tmp_path, name):
    touch(tmp_path, "x/a b.wav", "x/\u7434.wav", "x/c.wav", "x/100%25.wav")
    text = (
        "\ufeff#EXTM3U\r\n#EXTINF:123,Artist - Title\r\nx/a b.wav\r\n\r\n"
        f"file://{tmp_path}/x/a%20b.wav\r\nfile://localhost{tmp_path}/x/%E7%90%B4.wav\r\n"
        "/abs/d.wav\r\nx\\c.wav\r\nhttp://radio.example/stream\r\nx/%E7%90%B4.wav\r\n"
        "x/100%25.wav\r\nHTTPS://radio.example/2\r\nmissing.wav"
    )
    paths, notes = read_path_list(tmp_path / name, text.encode())
    folder = str(tmp_path)
    assert paths == [
        f"{folder}/x/a b.wav",
        f"{folder}/x/a b.wav",
        f"{folder}/x/\u7434.wav",
        "/abs/d.wav",
        f"{folder}/x/c.wav",
        f"{folder}/x/\u7434.wav",
        f"{folder}/x/100%25.wav",
        f"{folder}/missing.wav",
    ]
    assert notes == (
        "left out 2 addresses in a playlist: http://radio.example/stream, "
        "HTTPS://radio.example/2",
    )


def test_old_playlists_in_the_encoding_of_windows(tmp_path):
    touch(tmp_path, "fl\u00fbte.wav")
    paths, _ = read_path_list(tmp_path / "list.m3u", "fl\u00fbte.wav\n".encode("cp1252"))
    assert paths == [str(tmp_path / "fl\u00fbte.wav")]
    (tmp_path / os.fsdecode(b"fl\xfbte.wav")).touch()
    paths, _ = read_path_list(tmp_path / "list.m3u", b"fl\xfbte.wav\n")
    assert os.fsencode(paths[0]).endswith(b"/fl\xfbte.wav")


def test_a_file_url_in_a_plain_list():
    assert read_path_list("-", b"file:///a/b%20c.wav\n")[0] == ["/a/b c.wav"]
    assert read_path_list("-", b"gs://bucket/a.wav\n")[0] == ["gs://bucket/a.wav"]


def test_what_several_folders_leave_out_is_counted_together(tmp_path):
    for root in (tmp_path / "1", tmp_path / "2"):
        touch(root, "a.wav", ".b.wav", "c.txt", "@eaDir/d.wav")
        (root / "loop").symlink_to(root)
    notes = []
    assert inside(find_audio([tmp_path / "1", tmp_path / "2"], notes.append)) == ["a.wav"] * 2
    said = " ".join(notes)
    assert "left out 2 hidden files" in said
    assert "left out 2 folders of the operating system" in said
    assert "left out 2 links to folders that have already been read" in said
