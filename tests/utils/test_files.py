"""Atomic writes, safe reads and locks."""

import errno
import io
import json
import os
import re
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.utils import files


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("old")

    def write_half():
        with files.atomic_write(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_changes_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with files.atomic_write(target, ".csv") as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".csv"
        assert temporary.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "whole"


@pytest.mark.parametrize(
    "stem", ["song", "\u97f3" * 77, "\u97f3" * 84, "x" * 255, "\udcff" * 250]
)
def test_names_too_long_for_a_file_system_are_shortened(stem, tmp_path):
    name = files.fit_name(stem, ".tags.json")
    assert name == files.fit_name(stem, ".tags.json")
    assert len(os.fsencode(name)) <= 255
    assert name.endswith(".tags.json")
    assert name[:3] == stem[:3] or "\udcff" in stem
    fits = len(os.fsencode(stem)) <= 245
    assert (name == f"{stem}.tags.json") == fits
    assert files.fit_name(stem, ".tags.JSON") != name
    assert fits or files.fit_name(stem[:-1] + "y", ".tags.json") != name
    files.write_text(tmp_path / name, "whole")  # the temporary name fits too
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("stem", "kept"),
    [
        ("resnet_rf_small:gm_instruments", "resnet_rf_small_gm_instruments"),
        ('What? <live> "1|2" a\\b*.ogg', "What_ _live_ _1_2_ a_b_.ogg"),
        ("CON.wav", "_CON.wav"),
        ("lpt1", "_lpt1"),
        ("tab\t", "tab_"),
    ],
)
def test_names_that_windows_refuses_are_changed_there(stem, kept):
    name = files.fit_name(stem, ".tags.json", windows=True)
    assert re.fullmatch(re.escape(kept) + r"~[0-9a-f]{12}\.tags\.json", name)
    assert files.fit_name(stem, ".tags.json", windows=False) == f"{stem}.tags.json"
    assert files.fit_name(kept, ".tags.json", windows=True) == f"{kept}.tags.json"


def test_names_that_windows_accepts_stay():
    for stem in ("01 song", "console.wav", "com10.wav", "\u97f3\u697d", ".hidden"):
        assert files.fit_name(stem, ".png", windows=True) == f"{stem}.png"


def test_a_file_that_another_process_has_open_is_replaced_a_moment_later(tmp_path, monkeypatch):
    target, refusals = tmp_path / "report.json", [PermissionError(13, "in use")] * 2
    original = files.Path.replace
    target.write_text("old")

    def replace(self, path):
        if refusals:
            raise refusals.pop()
        original(self, path)

    monkeypatch.setattr(files.Path, "replace", replace)
    monkeypatch.setattr(files, "_POLL_SECONDS", 0)
    with pytest.raises(PermissionError):  # final on this system
        files.write_text(target, "new")
    assert target.read_text() == "old"
    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    files.write_text(target, "new")
    assert (target.read_text(), refusals) == ("new", [])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError()])
def test_a_full_disk_is_reported_with_the_name_of_the_file(error, tmp_path):
    error.args += (f"HDF5: {os.strerror(errno.ENOSPC)}",)
    with pytest.raises(OSError) as caught, files.naming_write_errors(tmp_path / "x"):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(KeyError), files.naming_write_errors(tmp_path / "x"):
        raise KeyError("x")


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    kept = tmp_path / "a.txt"
    kept.write_text("a")
    (tmp_path / f".a.txt.7{files.PARTIAL}").write_text("half")
    (tmp_path / f".b.7{files.PARTIAL}").mkdir()
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_is_read_as_written(compressed, tmp_path):
    arrays = {"scores": np.arange(6.0).reshape(2, 3), "keys": np.array(["a", "b"])}
    files.write_npz(tmp_path / "a.npz", arrays, compressed=compressed)
    with files.open_npz(tmp_path / "a.npz") as archive:
        assert archive.files == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(archive[name], array)
        with pytest.raises(ValueError, match="no array 'mask'"):
            archive["mask"]


def test_text_may_have_a_byte_order_mark_and_has_a_limit(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbftag")
    assert files.read_text(path) == "tag"
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        files.read_text(path, 5)
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        files.read_text(path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, ""])
def test_bad_json_is_a_value_error(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="."):
        files.read_json(tmp_path / "a.json")


def test_json_is_parsed(tmp_path):
    files.write_text(tmp_path / "a.json", json.dumps({"a": [1]}))
    assert files.read_json(tmp_path / "a.json") == {"a": [1]}


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"not an array"])
def test_damaged_arrays_are_value_errors(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="."):
        files.load_npy(tmp_path / "a.npy")


def test_pickled_objects_are_rejected(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        files.load_npy(tmp_path / "a.npy")


def test_an_archive_that_would_unpack_to_far_more_is_rejected(monkeypatch):
    monkeypatch.setattr(files, "_BOMB_BYTES", 10_000)
    for size, is_bomb in ((9_000, False), (1_000_000, True)):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(size))
        if is_bomb:
            with pytest.raises(ValueError, match="would unpack to 1,000,000 bytes"):
                files.check_archive(file)
        else:
            files.check_archive(file)


def test_a_lock_has_one_holder_which_the_error_names(tmp_path):
    holder = f"{os.getpid()} on {socket.gethostname()}"
    with files.try_exclusive(tmp_path / "lock") as first:
        assert first is None
        with files.try_exclusive(tmp_path / "lock") as second:
            assert re.fullmatch(rf"{holder} \(since 20\d\d-\d\d-\d\d [\d:]{{8}} UTC\)", second)
        with (
            pytest.raises(ConfigError, match=rf"Process {holder} \(.*\) is writing to runs/a"),
            files.sole_writer(tmp_path / "lock", "runs/a"),
        ):
            pass
    with files.sole_writer(tmp_path / "new" / "lock", "runs/a"):
        pass


def test_a_waiting_process_gets_the_lock_when_it_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_POLL_SECONDS", 0)
    with files.try_exclusive(tmp_path / "lock") as holder:
        assert holder is None
        waiting = []

        class Waited(Exception):
            pass

        def on_wait(name):
            waiting.append(name)
            raise Waited

        with pytest.raises(Waited), files.exclusive(tmp_path / "lock", on_wait):
            pass
    with files.exclusive(tmp_path / "lock", waiting.append):
        assert waiting[0].startswith(f"{os.getpid()} on {socket.gethostname()} (since ")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_a_lock_that_cannot_be_created_is_an_error():
    with (
        pytest.raises(OSError, match=r"/proc/\.lock"),
        files.try_exclusive(Path("/proc/.lock")),
    ):
        raise AssertionError("held a lock that cannot exist")
