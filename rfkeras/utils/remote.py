"""Files at URLs, through fsspec: listed, read from local copies, written by uploading.

`to_path` turns a URL into a `RemotePath`, which can be read, looked up and listed like any
other path. Libraries that need a file on this machine get a local copy (`local_copy`). The
copies of a process share a temporary folder of limited size. fsspec is imported when the first
URL is met.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import socket
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

from rfkeras.errors import ConfigError, install_extra

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "webhdfs", "http", "https")
CACHE_VARIABLE = "RFKERAS_REMOTE_CACHE_GB"
_CACHE_GB = 10.0
_TIMEOUT_S = 60.0  # without any data, for connecting and for reading
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # between attempts
_BLOCK_BYTES = 1 << 23
_SUFFIX = re.compile(r"\.[A-Za-z]\w{1,4}")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_HINT = "check the URL and the credentials in the environment, see docs/remote.md"

T = TypeVar("T")

if TYPE_CHECKING:
    _LocalPath = Path
else:  # Path itself cannot have subclasses before Python 3.12
    _LocalPath = type(Path())


def is_remote(path: object) -> bool:
    """Return whether a path is a URL of one of `SCHEMES`."""
    scheme, found, _ = str(path).partition("://")
    return bool(found) and scheme.lower() in SCHEMES


def to_path(path: str | Path) -> Path:
    """Return a path, which for a URL is a `RemotePath`."""
    return RemotePath(path) if is_remote(path) else Path(path)


class RemotePath(_LocalPath):
    """A URL with the methods of a path that reading and listing need.

    The methods raise FileNotFoundError, PermissionError or another OSError with the URL.
    """

    __slots__ = ()

    def __str__(self) -> str:
        # A path collapses slashes: s3:/bucket/key.
        scheme, _, rest = super().__str__().replace(os.sep, "/").partition(":/")
        return f"{scheme.lower()}://{rest}"

    def joined(self, relative: str) -> RemotePath:
        """Return the URL of a file below; its name is quoted where URLs need that."""
        return self / (quote(relative) if self._is_http else relative)

    def relative_to(self, other: Any, *more: Any, **options: Any) -> Path:  # type: ignore[override]
        """Return the local form of the path relative to a folder."""
        text = PurePosixPath(str(self)).relative_to(PurePosixPath(str(other))).as_posix()
        return Path(unquote(text) if self._is_http else text)

    def exists(self, **options: Any) -> bool:
        """Return whether a file or folder is there."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **options: Any) -> bool:
        """Return whether a file is there."""
        with suppress(FileNotFoundError):
            return stat.S_ISREG(self.stat().st_mode)
        return False

    def is_dir(self, **options: Any) -> bool:
        """Return whether a folder is there; at http(s)://, a page that lists files."""
        with suppress(FileNotFoundError):
            return stat.S_ISDIR(self.stat().st_mode)
        return False

    def stat(self, **options: Any) -> os.stat_result:
        """Return the kind, the size and the time of the last change (0 if unknown)."""
        info = self._call(lambda system, name: system.info(name))
        is_page = self._is_http and info.get("mimetype") == "text/html"
        # An error page in the place of a file is no folder.
        is_page = is_page and (len(self.parts) == 2 or not _SUFFIX.fullmatch(self.suffix))
        is_folder = is_page or info["type"] == "directory"
        seconds = _modified(info)
        values = (stat.S_IFDIR if is_folder else stat.S_IFREG, *[0] * 5, info.get("size") or 0)
        times = {"st_mtime_ns": int(seconds * 1e9)}
        return os.stat_result((*values, *[int(seconds)] * 3), times)

    def scandir(self) -> list[RemoteEntry]:
        """Return the entries of a folder, sorted by name."""
        found = {}
        for info in self._call(lambda system, name: system.ls(name, detail=True)):
            name = info["name"].rstrip("/").rpartition("/")[2]
            is_marker = info["name"].rstrip("/").endswith(str(self).partition("://")[2])
            if name and not is_marker and not (self._is_http and "?" in name):
                found[name] = RemoteEntry(name, info["type"] == "directory")
        return sorted(found.values(), key=lambda entry: entry.name)

    def prepare_lookups(self) -> None:
        """List a folder, so that looking up its files needs no further requests."""
        if not self._is_http:  # pages without a list of files are common
            with suppress(FileNotFoundError):
                self.scandir()

    def iterdir(self) -> Iterator[RemotePath]:  # type: ignore[override]
        """Yield the files and folders in a folder."""
        return (self / entry.name for entry in self.scandir())

    def open(self, mode: str = "r", *options: Any, **more: Any) -> IO[Any]:  # type: ignore[override]
        """Open a local copy for reading."""
        if mode.strip("bt") != "r":
            raise ConfigError(
                f"{self} can only be written as a whole. Received: mode {mode!r}."
            )
        with local_copy(self) as copy:
            return copy.open(mode, *options, **more)

    def read_bytes(self) -> bytes:
        """Return the content."""
        with self.open("rb") as file:
            content: bytes = file.read()
        return content

    def mkdir(self, *mode: Any, **options: Any) -> None:
        """Do nothing: folders exist as long as they have files."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file."""
        if missing_ok and not self.exists():
            return
        self._call(lambda system, name: system.rm_file(name))
        self._call(lambda system, name: system.invalidate_cache())

    def upload(self, local: Path) -> None:
        """Write the content of a local file; the old content stays until all is there.

        Raises:
            ConfigError: The address is http(s)://, which can only be read.
            OSError: The upload failed, or arrived with another size.
        """
        self.check_writable()
        size = local.stat().st_size

        def put(system: Any, name: str) -> None:
            # These systems show a file while it is being written.
            aside = self._scheme in ("hdfs", "webhdfs")
            target = f"{name}.{uuid.uuid4().hex}.partial" if aside else name
            system.put_file(str(local), target)
            if aside:
                with suppress(FileNotFoundError):
                    system.rm_file(name)
                system.mv(target, name)
            system.invalidate_cache()
            stored = system.info(name)["size"]
            if stored != size:
                raise EOFError(f"{stored} bytes were stored instead of {size}")

        self._call(put)

    def check_writable(self) -> None:
        """Reject addresses that can only be read.

        Raises:
            ConfigError: The address is http(s)://.
        """
        if self._is_http:
            raise ConfigError(
                f"{self} cannot be written, because http:// and https:// can only be read. Use "
                "a local path or s3://, gs://, az:// or hdfs://."
            )

    def download(self, local: Path) -> None:
        """Write the content to a local file, continuing after broken connections."""
        self._call(lambda system, name: self._get(system, name, local))

    def _get(self, system: Any, name: str, local: Path) -> None:
        """Make one attempt to download, from where the one before broke off."""
        expected = system.info(name).get("size")
        have = local.stat().st_size if local.exists() else 0
        # The other file systems continue by themselves.
        if self._is_http and expected is not None and 0 < have < expected:
            with local.open("ab") as file:
                while have < expected:
                    last = min(have + _BLOCK_BYTES, expected)
                    block = system.cat_file(name, start=have, end=last)
                    if len(block) != last - have:  # the server sends whole files only
                        file.truncate(0)
                        raise EOFError("the connection broke")
                    file.write(block)
                    have = last
        elif expected != 0 or not local.exists():
            system.get_file(name, str(local))
        received = local.stat().st_size
        if expected is not None and received != expected:
            system.invalidate_cache()  # the file may have changed since it was listed
            raise EOFError(f"{received} of {expected} bytes arrived")

    @property
    def _scheme(self) -> str:
        return str(self).partition("://")[0]

    @property
    def _is_http(self) -> bool:
        return self._scheme.startswith("http")

    def _call(self, action: Callable[[Any, str], T]) -> T:
        """Call a function of (file system, name), again after a broken connection."""
        system, name = file_system(self)
        for pause in (*_PAUSES_S, None):
            try:
                return action(system, name)
            except Exception as error:
                if pause is None or not _is_transient(error):
                    raise _os_error(error, str(self)) from error
            time.sleep(pause)
        raise AssertionError


@dataclass(frozen=True)
class RemoteEntry:
    """An entry of a folder, with the methods of os.DirEntry."""

    name: str
    folder: bool

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.folder

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return not self.folder

    def is_symlink(self) -> bool:
        """Return False."""
        return False


def _modified(info: dict[str, Any]) -> float:
    """Return the time of the last change in seconds since 1970; 0 if it is unknown."""
    from email.utils import parsedate_to_datetime  # slow to import

    for key in ("LastModified", "last_modified", "mtime", "updated", "Last-Modified"):
        value = info.get(key)
        with suppress(ValueError, TypeError):
            if isinstance(value, str) and key == "Last-Modified":
                value = parsedate_to_datetime(value)
            elif isinstance(value, str):
                value = datetime.fromisoformat(value)
            if isinstance(value, datetime):
                return value.timestamp()
            if isinstance(value, int | float):
                return float(value)
    return 0.0


# File systems and their errors

_systems: dict[tuple[int, type, str], Any] = {}


def file_system(path: RemotePath) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the name of the file in it.

    Raises:
        ConfigError: fsspec or the package for this kind of URL is missing.
    """
    url = str(path)
    scheme = url.partition("://")[0]
    options: dict[str, Any] = {}
    try:
        import fsspec

        if scheme in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=_TIMEOUT_S, sock_read=_TIMEOUT_S
            )
            options["client_kwargs"] = {"timeout": timeout}
        elif scheme in ("s3", "s3a"):
            options["config_kwargs"] = {
                "connect_timeout": _TIMEOUT_S,
                "read_timeout": _TIMEOUT_S,
            }
            if "S3_ENDPOINT" in os.environ:  # as tensorflow-io reads it
                options["endpoint_url"] = _endpoint(os.environ["S3_ENDPOINT"])
        elif scheme == "az" and ".blob.core.windows.net/" in url:  # as tensorflow-io writes it
            account, _, rest = url.removeprefix("az://").partition(".blob.core.windows.net/")
            options["account_name"] = account
            url = f"az://{rest}"
        system, name = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise ConfigError(
            f"{url} needs packages that are not installed ({error}). Install them: "
            f"{install_extra('remote')}{' pyarrow' if scheme == 'hdfs' else ''}."
        ) from error
    except Exception as error:
        raise _os_error(error, url, attempts=1) from error
    if system.async_impl:
        # Older versions of fsspec make one for each thread, which list folders separately.
        key = (os.getpid(), type(system), repr(system.storage_options))
        system = _systems.setdefault(key, system)
    return system, name


def _endpoint(text: str) -> str:
    secure = os.environ.get("S3_USE_HTTPS", "1") not in ("0", "false")
    return text if "://" in text else f"http{'s' if secure else ''}://{text}"


def _cause(error: Exception) -> BaseException:
    """Return the error behind the FileNotFoundError that HTTP raises for every failure."""
    cause = error.__cause__
    is_network = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    return cause if cause and is_network and isinstance(error, FileNotFoundError) else error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status in an error of any of the packages; None if it has none."""
    found = (getattr(error, name, None) for name in ("status", "code", "status_code"))
    return next((value for value in found if isinstance(value, int)), None)


def _is_transient(error: Exception) -> bool:
    cause = _cause(error)
    status = _status(cause)
    if status is not None and status >= 400:
        return status in (408, 425, 429) or status >= 500
    if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
        return False
    permanent = (
        FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError,
        TypeError, ImportError, AttributeError, NotImplementedError,
    )  # fmt: skip
    return not isinstance(cause, permanent) and "Credential" not in type(cause).__name__


def _os_error(error: Exception, url: str, attempts: int | None = None) -> Exception:
    """Return the OSError for the user: which URL, what happened, what to check."""
    cause = _cause(error)
    status = _status(cause)
    if isinstance(cause, ConfigError) or (
        isinstance(cause, OSError) and cause.errno in _DISK_ERRORS
    ):
        return error
    if isinstance(cause, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "not found", url)
    lines = str(cause).strip().splitlines() or [""]
    described = f"{type(cause).__name__}: {lines[0]}".rstrip(": ")
    denied = isinstance(cause, PermissionError) or status in (401, 403)
    if denied or "Credential" in type(cause).__name__:
        return PermissionError(errno.EACCES, f"access denied ({described}); {_HINT}", url)
    attempts = attempts or (len(_PAUSES_S) + 1 if _is_transient(error) else 1)
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    text = f"the connection failed{tried} ({described}); {_HINT}"
    return OSError(errno.ECONNABORTED, text, url)


# Local copies


@dataclass
class _Copy:
    path: Path
    users: int = 0
    bytes: int | None = None  # None before the file is complete
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Copies:
    """Local copies of remote files in a temporary folder of limited size.

    If the files do not fit, those to remove are drawn at random: when a data set is read again
    and again in full, removing the oldest would remove each file before its next use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[str, _Copy] = {}

    @contextmanager
    def use(self, path: RemotePath) -> Iterator[Path]:
        """Provide the local copy of a file, which stays at least until the block ends."""
        url = str(path)
        with self._lock:
            copy = self._copies.get(url)
            if copy is None:
                copy = self._copies[url] = _Copy(scratch_path(path.name))
            copy.users += 1
        try:
            with copy.lock:
                if copy.bytes is None:
                    path.download(copy.path)
                    copy.bytes = copy.path.stat().st_size
            yield copy.path
        finally:
            with self._lock:
                copy.users -= 1
                if copy.bytes is None and not copy.users:  # the download failed
                    self._remove(url)
                self._shrink()

    def _shrink(self) -> None:
        total = sum(copy.bytes or 0 for copy in self._copies.values())
        limit = _cache_bytes()
        if total <= limit:
            return
        unused = [url for url, copy in self._copies.items() if not copy.users]
        random.shuffle(unused)
        while total > limit and unused:
            total -= self._remove(unused.pop())

    def _remove(self, url: str) -> int:
        copy = self._copies[url]
        try:
            copy.path.unlink(missing_ok=True)
        except OSError:  # Windows does not remove open files
            return 0
        del self._copies[url]
        return copy.bytes or 0


_copies = _Copies()
_folder_lock = threading.Lock()
_folders: dict[int, tempfile.TemporaryDirectory[str]] = {}


def _cache_bytes() -> int:
    """Return the limit on local copies: at most what is free on the disk."""
    text = os.environ.get(CACHE_VARIABLE, str(_CACHE_GB))
    try:
        wanted = float(text)
    except ValueError:
        raise ConfigError(f"{CACHE_VARIABLE} must be a number. Received: {text!r}.") from None
    return min(int(wanted * 1e9), shutil.disk_usage(_folder()).free)


def _folder() -> Path:
    """Return the temporary folder of this process, which its end removes."""
    with _folder_lock:
        if os.getpid() not in _folders:
            stem = f"rfkeras-{socket.gethostname()}-"
            _remove_abandoned(stem)
            _folders[os.getpid()] = tempfile.TemporaryDirectory(
                prefix=f"{stem}{os.getpid()}-", ignore_cleanup_errors=True
            )
        return Path(_folders[os.getpid()].name)


def _remove_abandoned(stem: str) -> None:
    """Remove the folders of processes of this machine that were killed."""
    if os.name != "posix":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{stem}*-*"):
        number = folder.name.removeprefix(stem).partition("-")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):  # another user's
            continue


def scratch_path(name: str) -> Path:
    """Return a new path in the temporary folder of this process, with the suffix of a name."""
    return _folder() / f"{uuid.uuid4().hex}{PurePosixPath(name).suffix[:16]}"


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Provide a path to the content on this machine; for a local path, itself.

    Raises:
        OSError: The file cannot be fetched.
    """
    if not isinstance(path, RemotePath):
        yield path
        return
    with _copies.use(path) as copy:
        yield copy


@contextmanager
def uploading(path: RemotePath, suffix: str = "") -> Iterator[Path]:
    """Provide a local path whose content is uploaded when the block ends.

    If the block raises, nothing is uploaded.
    """
    path.check_writable()
    aside = scratch_path(path.name + suffix)
    try:
        yield aside
        path.upload(aside)
    finally:
        aside.unlink(missing_ok=True)
