"""Download files of pretrained weights, over https only, of a limited size."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError
from rfkeras.utils.progress import ProgressBar

TIMEOUT_SECONDS = 60.0  # without an answer
MAX_BYTES = 2_000_000_000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BLOCK_BYTES = 1 << 20


def fetch(url: str, aside: Path, path: Path) -> None:
    """Write what is at an address into a file, with a progress bar.

    `keras.utils.get_file` and pooch follow redirects to http:// and have no size limit, so
    neither can replace this function.

    Args:
        url: https:// address; http:// only for this machine.
        aside: File to write.
        path: Place of the file when it is complete, for messages.

    Raises:
        CheckpointError: The download fails, or the content is too large.
    """
    _check_address(url)
    opener = urllib.request.build_opener(_HttpsRedirects)
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer, aside.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            label = f"Downloading {url.rpartition('/')[2]}"
            bar = ProgressBar(label, size or None, unit="MB", show=lambda n: f"{n / 1e6:.1f}")
            with bar:
                while block := answer.read(_BLOCK_BYTES):
                    file.write(block)
                    bar.advance(len(block))
                    if file.tell() > MAX_BYTES:
                        raise CheckpointError(
                            f"{url} is larger than {MAX_BYTES:,} bytes, the limit for weights."
                        )
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise CheckpointError(
            f"{url} cannot be downloaded: {getattr(error, 'reason', error)}. Without a "
            f"connection, copy the file to {path}."
        ) from error


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to allowed addresses."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    """Reject an address whose content could be read or changed in transit.

    Raises:
        CheckpointError: It is neither https:// nor http:// on this machine.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise CheckpointError(f"Weights are only downloaded over https://. Received: {url!r}.")
