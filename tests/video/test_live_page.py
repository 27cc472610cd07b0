"""The live page: what a browser is sent, who is let in, and that nobody who looks holds up the run."""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from video_stand_ins import CLASSES, HANG_LIMIT_S, ScriptedSource, brightness_segmenter, grey_frame, result_of

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import LivePage, Overlay, live_server, newest_result, run_pipeline
from dlv3deploy.video.live_page import PageAddress, parse_page_address
from dlv3deploy.video.live_server import MOST_CLIENTS, MOST_CONNECTIONS
from dlv3deploy.video.newest_result import THUMBNAIL
from dlv3deploy.video.sink import FrameWork, Segmented

LOOPBACK = PageAddress("127.0.0.1", 0)
STAGES = {"preprocessing": 0.001, "inference": 0.01, "postprocessing": 0.002}


@pytest.fixture
def page() -> Iterator[LivePage]:
    with LivePage(LOOPBACK, CLASSES, Overlay(CLASSES), {"model": "a <b>bold</b> name"}) as page:
        yield page


@contextmanager
def asked(page: LivePage, path: str, host: str = "") -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=HANG_LIMIT_S)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        yield connection.getresponse()
    finally:
        connection.close()


def worked_on(index: int, value: int = 200) -> Segmented:
    result = replace(result_of(index, grey_frame(value)), picture=None)
    return replace(result, work=FrameWork(STAGES, result.frame.time_s + 0.05, dropped=3))


def next_picture(response: http.client.HTTPResponse) -> Any:
    while not (line := response.readline()).startswith(b"Content-Length"):
        assert line, "the stream ended"
    response.readline()
    return cv2.imdecode(np.frombuffer(response.read(int(line.split(b":")[1])), np.uint8), cv2.IMREAD_COLOR)


def next_event(response: http.client.HTTPResponse) -> tuple[str, dict[str, Any]]:
    kind = "message"
    while line := response.readline().decode():
        if line.startswith("event:"):
            kind = line.split(":", 1)[1].strip()
        if line.startswith("data:"):
            return kind, json.loads(line.split(":", 1)[1])
    raise AssertionError("the stream ended")


def test_the_page_needs_nothing_from_elsewhere(page: LivePage) -> None:
    with asked(page, "/") as response:
        text = response.read().decode()
        policy = response.headers["Content-Security-Policy"]
    assert response.status == 200 and "<html" in text
    assert not re.search(r"(?:src|href)=\"?https?:", text)
    assert "default-src 'none'" in policy


def test_facts_and_classes_are_sent_as_they_are(page: LivePage) -> None:
    with asked(page, "/about") as response:
        about = json.loads(response.read())
    assert about["facts"] == {"model": "a <b>bold</b> name"}
    assert about["classes"] == list(CLASSES.names) and about["palette"][2] == list(CLASSES.palette[2])


def test_the_picture_moves_and_is_the_frame_with_its_classes_over_it(page: LivePage) -> None:
    page.sinks[0].write(worked_on(0, 0))
    with asked(page, "/picture") as response:
        for value in (0, 100, 200):
            if value:
                page.sinks[0].write(worked_on(value, value))
            picture = next_picture(response)
            expected = Overlay(CLASSES)(grey_frame(value), np.zeros((48, 64), np.uint8))
            assert picture.shape == (48, 64, 3)
            assert np.abs(picture.astype(int) - expected).mean() < 4


def test_large_pictures_are_sent_smaller(page: LivePage) -> None:
    page.sinks[0].write(
        replace(worked_on(0), frame=result_of(0, grey_frame(50, 1440, 2560)).frame, mask=np.zeros((1440, 2560), np.uint8))
    )
    with asked(page, "/picture") as response:
        assert next_picture(response).shape == (720, 1280, 3)


def test_the_figures_are_those_of_the_frame(page: LivePage) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[:12] = 2
    page.sinks[0].write(worked_on(6))
    page.sinks[0].write(replace(worked_on(7), mask=mask))
    with asked(page, "/figures") as response:
        kind, figures = next_event(response)
        page.close()
        assert next_event(response) == ("ended", {})
    assert kind == "message"
    assert (figures["frame"], figures["frames"], figures["dropped"], figures["size"]) == (7, 2, 3, "64×48")
    assert figures["shares"] == [0.75, 0.0, 0.25]
    assert figures["delay_ms"] == pytest.approx(50, abs=0.1)
    assert figures["stages_ms"] == pytest.approx({name: 1000 * seconds for name, seconds in STAGES.items()})
    assert figures["took_ms"]["p50"] == pytest.approx(13)
    assert figures["frames_per_second"] > 0


def test_nothing_is_drawn_for_nobody(page: LivePage) -> None:
    class Refuses(Overlay):
        def __call__(self, frame: Any, mask: Any) -> Any:
            raise AssertionError("was drawn")

    with LivePage(LOOPBACK, CLASSES, Refuses(CLASSES), {}) as unwatched:
        unwatched.sinks[0].write(worked_on(0))
    assert not page.sinks[0].wants_overlay


def test_who_does_not_read_holds_up_nobody(page: LivePage) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    stuck = socket.create_connection(("127.0.0.1", page.port))
    stuck.sendall(b"GET /picture HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with asked(page, "/picture") as response:
        for index in range(60):  # 60 such pictures are far more than a socket buffers
            page.sinks[0].write(replace(worked_on(index), frame=result_of(index, noise).frame, mask=noise[:, :, 0] % 3))
            assert next_picture(response).shape == noise.shape
    page.close()
    stuck.close()


def test_closing_ends_all_who_wait(page: LivePage) -> None:
    ends: list[bytes] = []
    with asked(page, "/picture") as picture, asked(page, "/figures") as figures:
        readers = [threading.Thread(target=lambda r=r: ends.append(r.read())) for r in (picture, figures)]
        for reader in readers:
            reader.start()
        page.close()
        page.close()
        for reader in readers:
            reader.join(HANG_LIMIT_S)
    assert sorted(ends) == [b"", b"event: ended\ndata: {}\n\n"]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", page.port))


def test_no_more_clients_than_can_be_served(page: LivePage) -> None:
    waiting = [http.client.HTTPConnection("127.0.0.1", page.port, timeout=HANG_LIMIT_S) for _ in range(MOST_CLIENTS)]
    responses = []
    for connection in waiting:
        connection.request("GET", "/figures")
        responses.append(connection.getresponse())
    deadline_s = time.monotonic() + HANG_LIMIT_S
    status = 200
    while status == 200 and time.monotonic() < deadline_s:  # the last one is counted just after it got its headers
        with asked(page, "/figures") as response:
            status = response.status
    assert status == 503
    with asked(page, "/about") as response:
        assert response.status == 200
    for connection in waiting:
        connection.close()


@pytest.mark.parametrize("path", ["/picture", "/figures"])
def test_clients_that_have_gone_are_noticed_though_no_frame_comes(
    path: str, page: LivePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many, one after the other, as may look on at once."""
    monkeypatch.setattr(newest_result, "WAKE_EVERY_S", 0.02)
    page.sinks[0].write(worked_on(0))
    deadline_s, served = time.monotonic() + HANG_LIMIT_S, 0
    while served < 2 * MOST_CLIENTS:
        with asked(page, path) as response:
            served += response.status == 200 and bool(response.readline())
        assert time.monotonic() < deadline_s, served


def test_connections_are_limited_whoever_makes_them(page: LivePage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_server.Handler, "timeout", 2 * HANG_LIMIT_S)  # none let in is given up meanwhile
    with ExitStack() as connections:
        address = ("127.0.0.1", page.port)
        idle = [connections.enter_context(socket.create_connection(address)) for _ in range(3 * MOST_CONNECTIONS)]
        deadline_s = time.monotonic() + HANG_LIMIT_S
        refused = 0
        while refused < 2 * MOST_CONNECTIONS and time.monotonic() < deadline_s:
            readable, _, _ = select.select(idle, [], [], 1.0)  # those that were closed; the others say nothing
            refused = len(readable)
        assert refused == 2 * MOST_CONNECTIONS
    status = 0
    while status != 200 and time.monotonic() < deadline_s:  # their places are free again
        with suppress(OSError, http.client.HTTPException), asked(page, "/about") as response:
            status = response.status
    assert status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8080", 200), ("[::1]:9", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403)],
)
def test_on_loopback_only_this_machine_s_names_are_answered(page: LivePage, host: str, status: int) -> None:
    with asked(page, "/about", host) as response:
        assert response.status == status


def test_an_address_that_others_reach_asks_for_its_token(capsys: pytest.CaptureFixture[str]) -> None:
    with LivePage(PageAddress("0.0.0.0", 0), CLASSES, Overlay(CLASSES), {}) as page:
        (token,) = re.findall(r"\?token=([\w-]{20,})", capsys.readouterr().err)
        assert f"token={token}" in page.url
        for path in ("/", "/about", "/picture", "/figures", "/thumbnail", "/nowhere"):
            for query in ("", "?token=", "?token=wrong", "?stream=0", f"?token={token[:-1]}"):
                with asked(page, path + query) as response:
                    assert response.status == 403
        with asked(page, f"/about?token={token}", "jetson.local") as response:
            assert response.status == 200
        with asked(page, f"/nowhere?token={token}") as response:
            assert response.status == 404


def test_each_of_several_streams_has_its_picture_its_figures_and_its_end() -> None:
    with LivePage(LOOPBACK, CLASSES, Overlay(CLASSES), {}, ["front", "back"]) as page:
        front, back = page.sinks
        with asked(page, "/thumbnail?stream=1") as response:
            assert response.status == 200 and response.read() == b""  # no frame yet
        front.write(worked_on(4, 0))
        back.write(
            replace(worked_on(7), frame=result_of(7, grey_frame(220, 300, 800)).frame, mask=np.zeros((300, 800), np.uint8))
        )
        with asked(page, "/about") as response:
            assert json.loads(response.read())["streams"] == ["front", "back"]
        for stream, frame, size in ((0, 4, "64×48"), (1, 7, "800×300")):
            with asked(page, f"/figures?stream={stream}") as response:
                _, figures = next_event(response)
            assert (figures["frame"], figures["size"]) == (frame, size)
            with asked(page, f"/picture?stream={stream}") as response:
                width, height = size.split("×")
                assert next_picture(response).shape == (int(height), int(width), 3)
        with asked(page, "/thumbnail?stream=1") as response:
            small = cv2.imdecode(np.frombuffer(response.read(), np.uint8), cv2.IMREAD_COLOR)
        assert small.shape == (90, THUMBNAIL, 3)
        for path in ("/figures?stream=2", "/thumbnail?stream=-1", "/picture?stream=one", "/thumbnail?stream=01"):
            with asked(page, path) as response:
                assert response.status == 404
        front.close()
        with asked(page, "/figures?stream=0") as response:
            assert [next_event(response)[0] for _ in range(2)] == ["message", "ended"]
        with asked(page, "/figures?stream=1") as response:
            assert next_event(response)[1]["frame"] == 7
        back.close()
        with pytest.raises(OSError), asked(page, "/about"):
            pass


def test_a_port_that_is_taken_is_an_error(page: LivePage) -> None:
    with pytest.raises(UserError, match=rf"port {page.port} cannot be served.*in use.*choose another"):
        LivePage(PageAddress("127.0.0.1", page.port), CLASSES, Overlay(CLASSES), {})


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("8080", "127.0.0.1", 8080, True),
        ("localhost:0", "localhost", 0, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::1]:8080", "::1", 8080, True),
        ("[::]:8080", "::", 8080, False),
        ("jetson.local:8080", "jetson.local", 8080, False),
    ],
)
def test_addresses(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = parse_page_address(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)


@pytest.mark.parametrize("text", ["", "host", "1:2:3", "70000", "http://x:80", ":8080", "host:", "::1:80"])
def test_what_is_no_address_is_told_what_works(text: str) -> None:
    with pytest.raises(UserError, match=r"no PORT or HOST:PORT.*0\.0\.0\.0:8080"):
        parse_page_address(text)


def test_a_run_feeds_it(page: LivePage) -> None:
    with asked(page, "/figures") as response:
        run_pipeline(ScriptedSource(frames=5, live=False), brightness_segmenter(), page.sinks[0], Overlay(CLASSES))
        events = []
        while (event := next_event(response))[0] != "ended":
            events.append(event[1])
    assert events[-1]["frame"] == 4
    assert set(events[-1]["stages_ms"]) == {"preprocessing", "inference", "postprocessing"}
