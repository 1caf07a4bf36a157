"""Downloads use HTTPS only, and the serving example is not exposed."""

import contextlib
import http.server
import threading

import pytest
import yaml

from rfkeras.errors import CheckpointError
from tests.helpers.processes import ROOT
from zoo import pretrained


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Run a local server that responds with the contents of `answers`."""
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path / "cache"))
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, content = answers[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may stop early
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", answers
        running.shutdown()
        thread.join()


def fetch(url):
    return pretrained.download(url, "0" * 64, "w.keras")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/w",
        "ftp://example.org/w",
        "file:///etc/hosts",
        "http://127.0.0.1.org/w",
    ],
)
def test_weights_are_downloaded_over_https_only(url):
    with pytest.raises(CheckpointError, match="only downloaded over https://"):
        fetch(url)


@pytest.mark.parametrize("place", ["http://example.org/w", "file:///etc/hosts"])
def test_redirections_away_from_https_are_rejected(server, place):
    url, answers = server
    answers["/w"] = (302, {"Location": place}, b"")
    with pytest.raises(CheckpointError, match=r"over https://|cannot be downloaded"):
        fetch(f"{url}/w")


def test_a_download_that_is_too_large_is_stopped(server, monkeypatch, tmp_path):
    url, answers = server
    monkeypatch.setattr(pretrained, "MAX_BYTES", 1000)
    answers["/w"] = (200, {}, bytes(5_000_000))
    with pytest.raises(CheckpointError, match="larger than 1,000 bytes"):
        fetch(f"{url}/w")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_serving_example_listens_on_localhost_only():
    text = (ROOT / "examples/serving/docker-compose.yml").read_text(encoding="utf-8")
    ports = yaml.safe_load(text)["services"]["tagger"]["ports"]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
