"""A live page for machines without a screen: the overlay as it is made, latency, class shares and facts, to any browser."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.progress import say
from dlv3deploy.video.live_server import Server, is_ip
from dlv3deploy.video.newest_result import NewestResult
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.sink import Segmented, Sink

if TYPE_CHECKING:
    from typing_extensions import Self

GOODBYE_S = 0.5  # what those who look on have to be told of the end
WORKS = "write it as 8080, 127.0.0.1:8080 or 0.0.0.0:8080"
ADDRESS = re.compile(r"(?:(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>\d{1,5})")


@dataclass(frozen=True)
class PageAddress:
    """Where the page is served. Port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or (is_ip(self.host) and ip_address(self.host).is_loopback)


def parse_page_address(text: str) -> PageAddress:
    """PORT, on this machine alone, or HOST:PORT. Raises UserError for anything else."""
    found = ADDRESS.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise UserError(f"--serve {text}", "is no PORT or HOST:PORT", WORKS)
    return PageAddress((found["host"] or "127.0.0.1").strip("[]"), int(found["port"]))


class LivePage:
    """Serves the newest result of each stream; whoever is slow misses some, and nobody holds up the run.

    `streams` are what the sources are called; what is written to the sink of each is shown, of several one in full and all as
    small pictures. Overlays are drawn here, and only while somebody looks. An address that other machines reach asks for the
    token that is printed with it. Of one that they do not reach, requests that name another host are refused, so that no page
    of the web can read it through this machine's browser. When all sinks are closed the page is. Raises UserError when the
    address cannot be served.
    """

    def __init__(
        self,
        address: PageAddress,
        classes: Classes,
        overlay: Overlay,
        facts: Mapping[str, str],
        streams: Sequence[str] = ("",),
    ) -> None:
        newest = [NewestResult(overlay) for _ in streams]
        token = "" if address.is_loopback else secrets.token_urlsafe(16)
        palette = [list(colour) for colour in classes.palette]
        about = {"facts": dict(facts), "classes": classes.names, "palette": palette, "streams": list(streams)}
        try:
            self._server: Server | None = Server(address.host, address.port, newest, about, token)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            rule = f"port {address.port} cannot be served at {address.host} ({reason})"
            raise UserError("--serve", rule, "choose another port or host, or 0 for any free port") from error
        self.sinks = tuple(PageSink(self, each) for each in newest)
        self.port: int = self._server.server_address[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        shown = socket.gethostname() if address.host in ("0.0.0.0", "::") else host
        self.url = f"http://{shown}:{self.port}/" + (f"?token={token}" if token else "")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="live page", daemon=True)
        self._thread.start()
        say(f"live page: {self.url}")

    def close(self) -> None:
        for sink in self.sinks:
            sink.newest.end()
        server, self._server = self._server, None
        if server is not None:
            server.see_off(GOODBYE_S)
            server.shutdown()
            server.server_close()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class PageSink(Sink):
    """One stream's place on a page."""

    def __init__(self, page: LivePage, newest: NewestResult) -> None:
        self._page, self.newest = page, newest

    def write(self, result: Segmented) -> None:
        self.newest.put(result)

    def close(self) -> None:
        self.newest.end()
        if all(sink.newest.ended for sink in self._page.sinks):
            self._page.close()
