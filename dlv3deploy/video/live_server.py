"""The server of the live page: who is let in, and what each address answers."""

from __future__ import annotations

import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dlv3deploy.video.newest_result import NewestResult
from dlv3deploy.video.sink import Segmented

PAGE = Path(__file__).parent / "live_page.html"
FIGURES_EVERY_S = 0.2
MOST_CLIENTS = 16  # that look on
MOST_CONNECTIONS = 40  # of any kind, let in or not
SEND_LIMIT_S = 10.0  # what a client may take to accept a picture
BOUNDARY = "frame"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "frame-ancestors 'none'"
    ),
}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MOST_CONNECTIONS  # with Python's 5 a burst of clients loses packets and waits seconds

    def __init__(self, host: str, port: int, streams: Sequence[NewestResult], about: Mapping[str, Any], token: str) -> None:
        self.streams, self.about, self.token = streams, about, token
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.watching = threading.BoundedSemaphore(MOST_CLIENTS)
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((host, port), Handler)

    def see_off(self, limit_s: float) -> None:
        """Wait until those who look on were told that it is over."""
        deadline_s = time.monotonic() + limit_s
        for _ in range(MOST_CLIENTS):
            self.watching.acquire(timeout=max(0.0, deadline_s - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is nothing to say."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = SEND_LIMIT_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        at_once = {"/": self._page, "/about": self._about, "/thumbnail": self._thumbnail}
        as_it_goes = {"/picture": self._pictures, "/figures": self._figures}
        stream = query.get("stream", ["0"])[0]
        self.close_connection = True
        if not self._is_allowed(query.get("token", [""])[0]):
            rule = "the token of the address that run printed is missing or another"
            self.send_error(HTTPStatus.FORBIDDEN, rule if self.server.token else "this page is for the machine that serves it")
        elif parts.path not in {**at_once, **as_it_goes} or stream not in map(str, range(len(self.server.streams))):
            self.send_error(HTTPStatus.NOT_FOUND)
        elif parts.path in at_once:
            at_once[parts.path](self.server.streams[int(stream)])
        elif self.server.watching.acquire(blocking=False):
            try:
                as_it_goes[parts.path](self.server.streams[int(stream)])
            finally:
                self.server.watching.release()
        else:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the line of the run's progress stays whole."""

    def _is_allowed(self, token: str) -> bool:
        if self.server.token:
            return hmac.compare_digest(token.encode(), self.server.token.encode())
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        return host == "localhost" or (is_ip(host) and ip_address(host).is_loopback)

    def _begin(self, kind: str, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _page(self, _stream: NewestResult) -> None:
        self._send(PAGE.read_bytes(), "text/html; charset=utf-8")

    def _about(self, _stream: NewestResult) -> None:
        self._send(json.dumps(self.server.about).encode(), "application/json")

    def _thumbnail(self, stream: NewestResult) -> None:
        """Nothing, of the type of a picture, where there is none yet."""
        self._send(stream.thumbnail(), "image/jpeg")

    def _send(self, data: bytes, kind: str) -> None:
        self._begin(kind, len(data))
        self.wfile.write(data)

    def _pictures(self, stream: NewestResult) -> None:
        self._begin(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        data = b""
        for count, result in _results(stream):
            data = data if result is None else stream.jpeg(count, result)
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n" if data else b"\r\n")

    def _figures(self, stream: NewestResult) -> None:
        self._begin("text/event-stream")
        for _, result in _results(stream):
            if result is None:
                self.wfile.write(f"event: quiet\ndata: {json.dumps(stream.quiet_s())}\n\n".encode())
                continue
            event = json.dumps(stream.figures(result, len(self.server.about["classes"])))
            self.wfile.write(f"data: {event}\n\n".encode())
            stream.rest(FIGURES_EVERY_S)
        self.wfile.write(b"event: ended\ndata: {}\n\n")


def _results(stream: NewestResult) -> Iterator[tuple[int, Segmented | None]]:
    """The newest result whenever there is another, None after a while without, until the stream ends.

    Whoever asks writes something either way, and so learns of a client that has gone.
    """
    count, result = stream.after(0)
    while result is not None or not stream.ended:
        yield count, result
        count, result = stream.after(count)


def is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
