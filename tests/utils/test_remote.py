"""Files at URLs, read from and written to servers on this machine."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfkeras.errors import ConfigError
from rfkeras.utils import remote
from rfkeras.utils.files import atomic_write, write_text
from rfkeras.utils.remote import RemotePath, is_remote, local_copy, to_path

URLS = ("s3://a/b", "gs://a/b", "az://a/b", "abfs://a/b", "hdfs://a/b", "https://a/b")


def test_urls_are_recognised():
    for url in URLS:
        assert is_remote(url)
        assert isinstance(to_path(url), RemotePath)
    for path in ("/a/b", "a/b", "s3/a", "./http:/a", "ftp://a/b", "c:/a", "s3:/a/b"):
        assert not is_remote(path)
        assert to_path(path) == Path(path)


def test_urls_have_the_parts_of_paths():
    path = to_path("S3://bucket/a folder/sóng 1.wav")
    assert str(path) == os.fspath(path) == "s3://bucket/a folder/sóng 1.wav"
    assert (path.name, path.suffix) == ("sóng 1.wav", ".wav")
    assert str(path.parent) == "s3://bucket/a folder"
    assert str(path.parent / "b" / "c.wav") == "s3://bucket/a folder/b/c.wav"
    assert str(path.with_name("x.csv")) == "s3://bucket/a folder/x.csv"
    assert path.relative_to(to_path("s3://bucket")) == Path("a folder/sóng 1.wav")
    assert pickle.loads(pickle.dumps(path)) == path
    assert str(pickle.loads(pickle.dumps(path))) == str(path)
    page = to_path("http://host/set")
    assert str(page.joined("a b/100%.wav")) == "http://host/set/a%20b/100%25.wav"
    assert page.joined("a b/100%.wav").relative_to(page) == Path("a b/100%.wav")


def test_importing_the_library_does_not_import_fsspec():
    code = (
        "import sys, rfkeras.audio.find, rfkeras.utils.files, rfkeras.audio.decode;"
        "print([n for n in ('fsspec', 's3fs', 'aiohttp') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize(("url", "module"), [("s3://a/b", "s3fs"), ("http://a/b", "aiohttp")])
def test_a_missing_package_is_named_with_the_line_that_brings_it(monkeypatch, url, module):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("s3", "s3a"):  # the classes that other tests have loaded
        registry = sys.modules["fsspec.registry"]
        monkeypatch.delitem(registry._registry, name, raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'rfkeras\[remote\]'"):
        to_path(url).exists()


def test_without_fsspec_the_error_names_the_line_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"s3://a/b needs .*'rfkeras\[remote\]'"):
        to_path("s3://a/b").read_bytes()


@pytest.fixture
def quick(monkeypatch):
    """Make attempts and time limits short."""
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01, 0.01, 0.01))


# HTTP


@pytest.fixture
def content():
    return os.urandom(300_000)


def test_a_download_continues_where_the_connection_broke(http, content, quick):
    (http.folder / "a b.wav").write_bytes(content)
    http.break_after = [100_000, 50_000]
    assert to_path(f"{http.url}/a b.wav").read_bytes() == content
    parts = [part for method, _, part in http.requests if method == "GET"]
    assert parts == [None, "bytes=100000-299999", "bytes=100000-299999"]


def test_a_download_restarts_at_a_server_that_sends_whole_files(http, content, quick):
    (http.folder / "a.wav").write_bytes(content)
    http.break_after, http.ranges = [100_000], False
    assert to_path(f"{http.url}/a.wav").read_bytes() == content


def test_an_answer_that_stops_is_continued(http, content, quick, monkeypatch):
    monkeypatch.setattr(remote, "_TIMEOUT_S", 0.3)
    (http.folder / "a.wav").write_bytes(content)
    http.stall_after = [200_000]
    start = time.monotonic()
    assert to_path(f"{http.url}/a.wav").read_bytes() == content
    assert time.monotonic() - start < 5


def test_a_truncated_answer_without_an_end_is_an_error(http, content, quick):
    (http.folder / "a.wav").write_bytes(content)
    http.break_after = [10] * 9
    with pytest.raises(OSError, match=r"failed after 4 attempts .*a\.wav") as caught:
        to_path(f"{http.url}/a.wav").read_bytes()
    assert "docs/remote.md" in str(caught.value)
    http.break_after = []
    assert to_path(f"{http.url}/a.wav").read_bytes() == content  # nothing partial was kept


def test_busy_servers_are_asked_again(http, content, quick):
    (http.folder / "a.wav").write_bytes(content)
    http.statuses = [503, 503, 429, 429]  # HEAD and then GET, twice
    assert to_path(f"{http.url}/a.wav").read_bytes() == content


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (404, FileNotFoundError, "not found"),
        (403, PermissionError, "access denied .*403.* credentials"),
        (401, PermissionError, "access denied .*401.* credentials"),
    ],
)
def test_refusals_are_final_and_clear(http, quick, status, kind, text):
    http.statuses = [status] * 20
    with pytest.raises(kind, match=rf"{text}.*{http.url}/a\.wav"):
        to_path(f"{http.url}/a.wav").read_bytes()
    assert len(http.requests) == 2  # HEAD, and GET in case HEAD is not supported


def test_a_server_that_does_not_answer_is_an_error(http, quick):
    http.close()
    with pytest.raises(OSError, match=r"the connection failed after 4 attempts"):
        to_path(f"{http.url}/a.wav").exists()


def test_a_page_that_lists_files_is_a_folder(http):
    (http.folder / "rock music").mkdir()
    (http.folder / "rock music" / "ä #1.wav").write_bytes(b"sound")
    (http.folder / "empty").mkdir()
    root = to_path(http.url + "/")
    assert root.is_dir()
    [empty, rock] = root.scandir()
    assert (empty.name, rock.name) == ("empty", "rock%20music")
    assert empty.is_dir()
    assert rock.is_dir()
    assert to_path(f"{http.url}/empty").scandir() == []
    [song] = (root / rock.name).iterdir()
    assert song.relative_to(root) == Path("rock music/ä #1.wav")
    assert song.read_bytes() == b"sound"
    assert song.is_file()


def test_http_is_only_read(http, tmp_path):
    with pytest.raises(ConfigError, match="http:// and https:// can only be read"):
        write_text(to_path(f"{http.url}/a.txt"), "text")
    with pytest.raises(ConfigError, match="can only be written as a whole"):
        to_path(f"{http.url}/a.txt").open("w")


# Local copies


def test_local_copies_are_fetched_once_and_stay_within_the_limit(http, monkeypatch):
    monkeypatch.setenv(remote.CACHE_VARIABLE, "0.00003")  # 30,000 bytes
    paths = []
    for number in range(10):
        (http.folder / f"{number}.wav").write_bytes(bytes([number]) * 10_000)
        paths.append(to_path(f"{http.url}/{number}.wav"))
    with local_copy(paths[0]) as first:
        for path in paths:
            with local_copy(path) as copy:
                assert copy.read_bytes()[:1] == bytes([int(path.stem)])
                assert copy.suffix == ".wav"
        assert first.read_bytes() == bytes(10_000)  # in use, so it stays
        gets = [path for method, path, _ in http.requests if method == "GET"]
        assert gets == [f"/{number}.wav" for number in range(10)]
        mine = [copy for url, copy in remote._copies._copies.items() if http.url in url]
        assert sum(copy.bytes for copy in mine) <= 30_000
        assert all(copy.path.exists() for copy in mine)
    monkeypatch.setenv(remote.CACHE_VARIABLE, "0")
    with local_copy(paths[0]) as first:
        assert first.exists()
    assert not first.exists()


def test_folders_of_killed_processes_are_removed(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from rfkeras.utils.remote import scratch_path\n"
        "print(scratch_path('a').parent, flush=True)\n"
        "if sys.argv[1] == 'kill': os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    def folder(ending):
        run = subprocess.run(
            [sys.executable, "-c", code, ending],
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        return Path(run.stdout.strip())

    killed = folder("kill")
    assert killed.is_dir()
    assert not folder("end").exists()
    assert not killed.exists()


# S3


def test_s3_files_are_read_listed_and_written(bucket):
    bucket.put("a folder/söng 1.wav", b"sound")
    bucket.put("a folder/", b"")  # what consoles store for an empty folder
    bucket.put("a folder/deep/2.wav", b"2")
    folder = to_path(f"{bucket.url}/a folder")
    assert folder.is_dir()
    assert not folder.is_file()
    assert [(entry.name, entry.is_dir()) for entry in folder.scandir()] == [
        ("deep", True),
        ("söng 1.wav", False),
    ]
    song = folder / "söng 1.wav"
    assert song.read_bytes() == b"sound"
    assert song.stat().st_size == 5
    assert abs(song.stat().st_mtime_ns / 1e9 - time.time()) < 3600
    assert not (folder / "absent").exists()
    write_text(folder / "new.txt", "Grüße")
    assert bucket.get("a folder/new.txt").decode() == "Grüße"
    assert (folder / "new.txt").exists()
    (folder / "new.txt").unlink()
    assert "a folder/new.txt" not in bucket.names()


def test_a_failed_block_publishes_nothing(bucket):
    bucket.put("kept.txt", b"old")

    def fail():
        with atomic_write(f"{bucket.url}/kept.txt") as aside:
            asides.append(aside)
            aside.write_text("half")
            raise ValueError("on purpose")

    asides = []
    with pytest.raises(ValueError, match="on purpose"):
        fail()
    [aside] = asides
    assert bucket.get("kept.txt") == b"old"
    assert not aside.exists()


def test_s3_errors_name_the_url_and_the_cause(bucket, quick):
    with pytest.raises(FileNotFoundError, match=r"not found: 's3://absent-bucket/a'"):
        to_path("s3://absent-bucket/a").read_bytes()
    with pytest.raises(FileNotFoundError, match="absent-bucket"):
        write_text(to_path("s3://absent-bucket/a"), "text")


def test_errors_of_other_systems_are_sorted():
    class Refused(Exception):
        def __init__(self, code):
            super().__init__("refused")
            self.code = code

    class NoCredentialsError(Exception):
        pass

    assert remote._is_transient(Refused(500))
    assert remote._is_transient(TimeoutError())
    assert not remote._is_transient(Refused(403))
    assert not remote._is_transient(NoCredentialsError())
    full = OSError(28, "No space left on device", "/tmp/x")
    assert not remote._is_transient(full)
    assert remote._os_error(full, "s3://a/b") is full
    for error in (Refused(401), NoCredentialsError(), PermissionError("Forbidden")):
        assert isinstance(remote._os_error(error, "gs://a/b"), PermissionError)


def test_azure_urls_with_an_account_reach_it(monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    seen = []
    system = fsspec.AbstractFileSystem()

    def url_to_fs(url, **options):
        seen.append((url, options))
        return system, ""

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    remote.file_system(RemotePath("az://me.blob.core.windows.net/box/a.wav"))
    remote.file_system(RemotePath("az://box/a.wav"))
    assert seen == [("az://box/a.wav", {"account_name": "me"}), ("az://box/a.wav", {})]
