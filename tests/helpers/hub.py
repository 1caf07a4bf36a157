"""A small Hugging Face Hub on this machine, for huggingface_hub."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The content of the server.

    Attributes:
        url: Address of the server.
        files: Content by (repository, revision, name).
        created: Requests to create a repository.
        asked: Paths of all requests.
        refuses: Whether nobody may write.
    """

    def __init__(self, url):
        self.url = url
        self.files = {}
        self.created = []
        self.asked = []
        self.refuses = False


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, content=b"", **headers):
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
                headers["Content_Type"] = "application/json"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self):
            hub.asked.append(self.path)
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                return self.answer(200, {"id": "/".join(parts[2:4]), "xetEnabled": False})
            if len(parts) != 5 or parts[2] != "resolve":
                return self.answer(404, {"error": self.path})
            repository, revision, name = "/".join(parts[:2]), parts[3], parts[4]
            mine = {key[1:] for key in hub.files if key[0] == repository}
            if not mine:
                return self.answer(401, X_Error_Code="RepoNotFound")
            if revision not in {key[0] for key in mine} | {COMMIT}:
                return self.answer(404, X_Error_Code="RevisionNotFound")
            if (revision, name) not in mine:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            content = hub.files[repository, revision, name]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

        def do_POST(self):
            hub.asked.append(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self.read_chunks()
            if hub.refuses:
                return self.answer(401, {"error": "Invalid username or password."})
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[1:] == ["repos", "create"]:
                hub.created.append(json.loads(body))
                name = hub.created[-1]
                repository = f"{name['organization']}/{name['name']}"
                return self.answer(200, {"url": f"{hub.url}/{repository}"})
            if parts[1:] == ["validate-yaml"]:
                return self.answer(200, {"errors": [], "warnings": []})
            repository, action, revision = "/".join(parts[2:4]), parts[4], parts[5]
            if action == "preupload":
                names = [file["path"] for file in json.loads(body)["files"]]
                files = [
                    {"path": name, "uploadMode": "regular", "shouldIgnore": False}
                    for name in names
                ]
                return self.answer(200, {"files": files})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    content = base64.b64decode(value["content"])
                    hub.files[repository, revision, value["path"]] = content
            page = f"{hub.url}/{repository}/commit/{COMMIT}"
            return self.answer(200, {"commitOid": COMMIT, "commitUrl": page, "success": True})

        def read_chunks(self):
            """Return a body in chunks, as HTTP clients send what they generate."""
            content = b""
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

    return Handler


@contextmanager
def serving():
    """Serve an empty Hub within the block."""
    hub = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(monkeypatch, url, cache):
    """Let huggingface_hub use a server and an empty cache."""
    from huggingface_hub import constants

    from zoo.pretrained import hub_model

    hub_model.cache_clear()
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    # Unlike the variable HF_HOME, which is read when huggingface_hub is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
