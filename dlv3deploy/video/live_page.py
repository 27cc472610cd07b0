"""A live page for machines without a screen: the overlay as it is made, latency, class shares and facts, to any browser."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.sink import Segmented, Sink
from dlv3deploy.video.timing import Times

PAGE = Path(__file__).parent / "live_page.html"
WORKS = "write it as 8080, 127.0.0.1:8080 or 0.0.0.0:8080"
ADDRESS = re.compile(r"(?:(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>\d{1,5})")
WIDEST = 1280  # pixels of the picture that is sent
JPEG_QUALITY = 80
FIGURES_EVERY_S = 0.2
WAKE_EVERY_S = 1.0  # a client that waits for a frame looks this often whether the run goes on
SECONDS_OF_RATE = 3.0
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


@dataclass(frozen=True)
class PageAddress:
    """Where the page is served. Port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or (_is_ip(self.host) and ip_address(self.host).is_loopback)


def parse_page_address(text: str) -> PageAddress:
    """PORT, on this machine alone, or HOST:PORT. Raises UserError for anything else."""
    found = ADDRESS.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise UserError(f"--serve {text}", "is no PORT or HOST:PORT", WORKS)
    return PageAddress((found["host"] or "127.0.0.1").strip("[]"), int(found["port"]))


class LivePage(Sink):
    """Serves the newest result; whoever is slow misses some, and nobody holds up the run.

    The overlay is drawn here, and only while somebody looks. An address that other machines reach asks for the token that is
    printed with it. Of one that they do not reach, requests that name another host are refused, so that no page of the web can
    read it through this machine's browser. Raises UserError when the address cannot be served.
    """

    def __init__(self, address: PageAddress, classes: Classes, overlay: Overlay, facts: Mapping[str, str]) -> None:
        self._newest = _Newest(overlay)
        token = "" if address.is_loopback else secrets.token_urlsafe(16)
        about = {"facts": dict(facts), "classes": classes.names, "palette": [list(colour) for colour in classes.palette]}
        try:
            self._server: _Server | None = _Server(address, self._newest, about, token)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            rule = f"port {address.port} cannot be served at {address.host} ({reason})"
            raise UserError("--serve", rule, "choose another port or host, or 0 for any free port") from error
        self.port: int = self._server.server_address[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        shown = socket.gethostname() if address.host in ("0.0.0.0", "::") else host
        self.url = f"http://{shown}:{self.port}/" + (f"?token={token}" if token else "")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="live page", daemon=True)
        self._thread.start()
        say(f"live page: {self.url}")

    def write(self, result: Segmented) -> None:
        self._newest.put(result)

    def close(self) -> None:
        self._newest.end()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            self._thread.join()


class _Newest:
    """The newest result, for many readers, and what came before it in figures."""

    def __init__(self, overlay: Overlay) -> None:
        self.ended = False
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._overlay = overlay
        self._count = 0
        self._result: Segmented | None = None
        self._jpeg: tuple[int, bytes] = 0, b""
        self._times_s: deque[float] = deque()
        self._took = Times()

    def put(self, result: Segmented) -> None:
        with self._changed:
            self._count += 1
            self._result = result
            now_s = time.monotonic()
            self._times_s.append(now_s)
            while now_s - self._times_s[0] > SECONDS_OF_RATE:
                self._times_s.popleft()
            if result.work is not None:
                self._took.collect(sum(result.work.stages_s.values()))
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def after(self, count: int) -> tuple[int, Segmented | None]:
        """The count and the result of the newest frame once it is later than `count`, or of none after a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > count or self.ended, WAKE_EVERY_S)
            return (self._count, self._result) if self._count > count else (count, None)

    def jpeg(self, count: int, result: Segmented) -> bytes:
        """The picture of `result`, encoded once for all who look."""
        import cv2

        with self._encoding:
            if self._jpeg[0] < count:
                picture = self._overlay(result.frame.pixels, result.mask) if result.picture is None else result.picture
                if picture.shape[1] > WIDEST:
                    height = max(1, round(picture.shape[0] * WIDEST / picture.shape[1]))
                    picture = np.asarray(cv2.resize(picture, (WIDEST, height), interpolation=cv2.INTER_AREA), np.uint8)
                _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                self._jpeg = count, data.tobytes()
            return self._jpeg[1]

    def figures(self, result: Segmented, classes: int) -> dict[str, Any]:
        """What the page shows beside the picture; times in ms, shares 0 to 1 by class id."""
        with self._changed:
            times, took, frames = list(self._times_s), self._took.percentiles(), self._count
        gap_s = times[-1] - times[0] if len(times) > 1 else 0.0
        counts = np.bincount(result.mask.ravel(), minlength=classes)[:classes]
        found: dict[str, Any] = {
            "frame": result.frame.index,
            "frames": frames,
            "frames_per_second": (len(times) - 1) / gap_s if gap_s else None,
            "size": f"{result.frame.pixels.shape[1]}×{result.frame.pixels.shape[0]}",
            "shares": [round(int(n) / result.mask.size, 4) for n in counts],
        }
        if result.work is not None and took is not None:
            found["stages_ms"] = {name: round(1000 * seconds, 2) for name, seconds in result.work.stages_s.items()}
            found["delay_ms"] = round(1000 * (result.work.ended_s - result.frame.time_s), 1)
            found["dropped"] = result.work.dropped
            found["took_ms"] = {"p50": took.p50, "p90": took.p90, "p99": took.p99}
        return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MOST_CONNECTIONS  # with Python's 5 a burst of clients loses packets and waits seconds

    def __init__(self, address: PageAddress, newest: _Newest, about: Mapping[str, Any], token: str) -> None:
        self.newest, self.about, self.token = newest, about, token
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self.watching = threading.BoundedSemaphore(MOST_CLIENTS)
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((address.host, address.port), _Handler)

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


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SEND_LIMIT_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        answers = {"/": self._page, "/about": self._about, "/picture": self._pictures, "/figures": self._figures}
        self.close_connection = True
        if not self._is_allowed(parse_qs(parts.query).get("token", [""])[0]):
            rule = "the token of the address that run printed is missing or another"
            self.send_error(HTTPStatus.FORBIDDEN, rule if self.server.token else "this page is for the machine that serves it")
        elif parts.path not in answers:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif parts.path not in ("/picture", "/figures"):
            answers[parts.path]()
        elif self.server.watching.acquire(blocking=False):
            try:
                answers[parts.path]()
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
        return host == "localhost" or (_is_ip(host) and ip_address(host).is_loopback)

    def _begin(self, kind: str, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _page(self) -> None:
        self._send(PAGE.read_bytes(), "text/html; charset=utf-8")

    def _about(self) -> None:
        self._send(json.dumps(self.server.about).encode(), "application/json")

    def _send(self, data: bytes, kind: str) -> None:
        self._begin(kind, len(data))
        self.wfile.write(data)

    def _pictures(self) -> None:
        self._begin(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        data = b""
        for count, result in self._results():
            data = data if result is None else self.server.newest.jpeg(count, result)
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n" if data else b"\r\n")

    def _figures(self) -> None:
        self._begin("text/event-stream")
        for _, result in self._results():
            if result is None:
                self.wfile.write(b": no frame yet\n\n")
                continue
            event = json.dumps(self.server.newest.figures(result, len(self.server.about["classes"])))
            self.wfile.write(f"data: {event}\n\n".encode())
            time.sleep(FIGURES_EVERY_S)
        self.wfile.write(b"event: ended\ndata: {}\n\n")

    def _results(self) -> Iterator[tuple[int, Segmented | None]]:
        """The newest result whenever there is another, None after a while without, until the run ends.

        Whoever asks writes something either way, and so learns of a client that has gone.
        """
        count, result = self.server.newest.after(0)
        while result is not None or not self.server.newest.ended:
            yield count, result
            count, result = self.server.newest.after(count)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
