"""A web server on this machine whose files come whole, late, short, by a detour or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """What the server has, and how it hands it out."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # from one path to another
    cut_at: int | None = None  # bytes after which the connection ends
    stalls_at: int | None = None  # bytes after which nothing comes any more
    announces: bool = True  # a Content-Length
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def file_server() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            if self.path in served.moved:
                self.send_response(302)
                self.send_header("Location", served.moved[self.path])
                self.end_headers()
            elif self.path in served.files:
                self.hand_out(served.files[self.path])
            else:
                self.send_error(404)

        def hand_out(self, content: bytes) -> None:
            self.send_response(200)
            if served.announces:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            stops = [place for place in (served.cut_at, served.stalls_at) if place is not None]
            self.wfile.write(content[: min(stops, default=len(content))])
            self.wfile.flush()
            if served.stalls_at is not None:
                served.released.wait(30)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
