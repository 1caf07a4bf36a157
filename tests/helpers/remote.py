"""Servers on this machine for tests of remote files: S3, and HTTP with faults."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "S3_USE_HTTPS": "0",
    "S3_VERIFY_SSL": "0",
}


@contextlib.contextmanager
def s3_server():
    """Run moto's S3 server in a process and yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    try:
        while True:
            assert process.poll() is None, "the S3 server ended"
            with contextlib.suppress(ConnectionError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


class Bucket:
    """A bucket of an S3 server, filled and inspected without the code under test."""

    def __init__(self, server, name):
        import boto3

        self.name = name
        self.url = f"s3://{name}"
        self.server = server
        self._client = boto3.client(
            "s3",
            endpoint_url=server,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self._client.create_bucket(Bucket=name, ACL="public-read")

    def put(self, key, content):
        self._client.put_object(Bucket=self.name, Key=key, Body=content, ACL="public-read")

    def put_folder(self, folder, prefix):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def get(self, key):
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def names(self, prefix=""):
        found = self._client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def close(self):
        self._client.close()


class HttpServer:
    """A server of a folder, with faults that tests switch on.

    Attributes:
        url: Its address.
        requests: (method, path, range) of each request.
        ranges: Whether requests for parts are answered with parts.
        break_after: Bytes after which the connection breaks, one for each broken request.
        stall_after: Bytes after which the server stops sending, one for each such request.
        statuses: Status of the next requests instead of an answer.
    """

    def __init__(self, folder):
        self.requests, self.ranges = [], True
        self.break_after, self.stall_after, self.statuses = [], [], []
        self._end = threading.Event()
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                outer._note(self)
                if outer.statuses:
                    return self.send_error(outer.statuses.pop(0))
                return super().do_HEAD()

            def do_GET(self):
                part = outer._note(self)
                if outer.statuses:
                    return self.send_error(outer.statuses.pop(0))
                path = self.translate_path(self.path)
                try:
                    with open(path, "rb") as file:  # noqa: PTH123
                        content = file.read()
                except OSError:
                    return super().do_GET()
                first, last = 0, len(content)
                if part and outer.ranges:
                    start, _, end = part.removeprefix("bytes=").partition("-")
                    first, last = int(start), min(int(end or last) + 1, last)
                    if first >= len(content):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header(
                        "Content-Range", f"bytes {first}-{last - 1}/{len(content)}"
                    )
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(last - first))
                self.end_headers()
                body = content[first:last]
                if outer.break_after:
                    self.wfile.write(body[: outer.break_after.pop(0)])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return None
                if outer.stall_after:
                    self.wfile.write(body[: outer.stall_after.pop(0)])
                    self.wfile.flush()
                    outer._end.wait(30)
                    return None
                self.wfile.write(body)
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _note(self, request):
        part = request.headers.get("Range")
        self.requests.append((request.command, request.path, part))
        return part

    def close(self):
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
