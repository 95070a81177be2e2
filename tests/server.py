"""A server of one file on 127.0.0.1, which can misbehave."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Server:
    """What is served and how; ``requests`` are the Range headers seen, ``sent`` the bytes that went out."""

    files: dict[str, bytes]
    ranges: bool = True
    etags: bool = True
    lengths: bool = True
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers breaks off."""
    requests: list[str | None] = field(default_factory=list)
    sent: int = 0
    base: str = ""

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"


@contextmanager
def serving(files: dict[str, bytes], **how: Any) -> Iterator[Server]:
    state = Server(files, **how)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append(wanted)
            content = state.files.get(self.path.removeprefix("/"))
            if content is None:
                self.send_error(404)
                return
            tag = f'"{sha256(content).hexdigest()}"'
            start = 0
            if wanted and state.ranges and self.headers.get("If-Range") in (None, tag):
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            if state.etags:
                self.send_header("ETag", tag)
            if state.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            body = content[start:]
            if state.cuts:
                body = body[: state.cuts.pop(0)]
            self.wfile.write(body)
            state.sent += len(body)
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
