"""Files fetched once into the cache, and used only with the right checksum."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError
from rfkeras.files import replacing

TIMEOUT_SECONDS = 60.0  # without an answer
MAX_BYTES = 2_000_000_000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CHUNK = 1 << 20
CACHED = "weights"  # sub-folder of the cache


def fetch(url: str, sha256: str, name: str) -> Path:
    """A file of the cache, downloaded if it is not there yet.

    Args:
        url: https:// address; http:// of this machine alone.
        sha256: Checksum of the content.
        name: Name of the file in the cache.

    Raises:
        CheckpointError: It cannot be fetched, or is not what the checksum says.
    """
    from rfkeras.data.sources.gm_instruments.generate import default_cache_dir

    path = default_cache_dir() / CACHED / f"{sha256[:12]}-{name}"
    if path.is_file() and sha256_of(path) == sha256:
        return path
    with replacing(path) as aside:
        _download(url, aside, path)
        check_sha256(aside, sha256, url)
    return path


def _check_address(url: str) -> None:
    """Refuse an address that others on the way could read and change.

    Raises:
        CheckpointError: It is neither https:// nor http:// of this machine.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise CheckpointError(f"Weights are fetched by https:// alone. Received: {url!r}.")


class _Careful(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to an address that would have been refused."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_sha256(path: Path, sha256: str, source: str | None = None) -> None:
    """Refuse a file with another checksum.

    Raises:
        CheckpointError: It is damaged, or another file of that name.
    """
    found = sha256_of(path)
    if found != sha256:
        raise CheckpointError(
            f"{source or path} is damaged, or another file than it should be: its SHA-256 is "
            f"{found}, that of the weights {sha256}. Fetch it, or install rfkeras, anew."
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, aside: Path, path: Path) -> None:
    from rich.console import Console
    from rich.progress import wrap_file

    _check_address(url)
    try:
        with urllib.request.build_opener(_Careful).open(url, timeout=TIMEOUT_SECONDS) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            console = Console(stderr=True)
            label = f"Fetching {url.rpartition('/')[2]}"
            shown = wrap_file(answer, size, description=label, console=console, transient=True)
            with shown as source, aside.open("wb") as file:
                while block := source.read(_CHUNK):
                    file.write(block)
                    if file.tell() > MAX_BYTES:
                        raise CheckpointError(
                            f"{url} has more than {MAX_BYTES:,} bytes; no weights have."
                        )
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise CheckpointError(
            f"{url} cannot be fetched: {getattr(error, 'reason', error)}. With no connection, "
            f"put it at {path} by hand."
        ) from error
