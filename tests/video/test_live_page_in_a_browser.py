"""The live page as a user sees it: Chromium without a screen, a run behind it."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from video_stand_ins import CLASSES, HANG_LIMIT_S, brightness_segmenter

from dlv3deploy.video import LivePage, Overlay, PageAddress, Stream, open_source, parse_source, run_pipeline, run_streams

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver")
SEVERAL = ((2, "48x64"), (3, "64x96"))  # seeds and sizes
QUIET = "no-first-run disable-background-networking disable-component-update disable-sync disable-gpu"


@pytest.fixture
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in f"headless no-sandbox window-size=1400,1000 {QUIET}".split():
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def until(holds: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + HANG_LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.1)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_picture_moves_the_figures_are_right_and_the_console_is_silent(browser: Any, host: str) -> None:
    source = open_source(parse_source("test://2?live=yes&fps=20&seconds=600&size=48x64"))
    page = LivePage(PageAddress(host, 0), CLASSES, Overlay(CLASSES), {"model": "<script>alert(1)</script>"})
    url = re.sub(r"//[^/:]+:", "//127.0.0.1:", page.url)
    run = threading.Thread(target=run_pipeline, args=(source, brightness_segmenter(), page.sinks[0], Overlay(CLASSES)))
    run.start()
    try:
        browser.get(url)
        text = lambda name: browser.find_element("id", name).text  # noqa: E731 (four words that are said often)
        until(lambda: re.fullmatch(r"frame \d+, 64×48", text("state")))
        until(lambda: browser.execute_script("return document.getElementById('picture').naturalWidth") == 64)
        picture = browser.find_element("id", "picture")
        first = picture.screenshot_as_base64
        until(lambda: picture.screenshot_as_base64 != first)
        until(lambda: float(text("rate")) > 0 and text("took").endswith("ms") and text("dropped").isdecimal())
        assert text("facts").splitlines() == ["model", "<script>alert(1)</script>"]
        shares = [float(share) for share in re.findall(r"([\d.]+) %", text("shares"))]
        assert sum(shares) == pytest.approx(100, abs=0.5)
        pixels = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        drawn = f"const c = document.getElementById('plot'); return {pixels}.some(v => v)"
        assert browser.execute_script(drawn)
        source.close()
        run.join(HANG_LIMIT_S)
        until(lambda: text("state") == "the run has ended")
        assert browser.get_log("browser") == []
    finally:
        source.close()
        run.join(HANG_LIMIT_S)


def test_of_several_streams_one_is_shown_in_full_and_any_can_be_chosen(browser: Any) -> None:
    sources = [open_source(parse_source(f"test://{seed}?live=yes&fps=10&seconds=600&size={size}")) for seed, size in SEVERAL]
    names = ["front <b>", "back"]
    page = LivePage(PageAddress("127.0.0.1", 0), CLASSES, Overlay(CLASSES), {"model": "tiny"}, names)
    streams = [Stream(source, sink) for source, sink in zip(sources, page.sinks, strict=True)]
    run = threading.Thread(target=run_streams, args=(streams, brightness_segmenter(), Overlay(CLASSES)))
    run.start()
    try:
        browser.get(page.url)
        state = lambda: browser.find_element("id", "state").text  # noqa: E731 (a word that is said often)
        width = "return document.getElementById('picture').naturalWidth"
        until(lambda: re.fullmatch(r"frame \d+, 64×48", state()) and browser.execute_script(width) == 64)
        buttons = browser.find_elements("css selector", "#streams button")
        assert [button.text for button in buttons] == ["0: front <b>", "1: back"]
        small = "return [...document.querySelectorAll('#streams img')].map((picture) => picture.naturalWidth)"
        until(lambda: browser.execute_script(small) == [64, 96])
        first = buttons[0].screenshot_as_base64
        until(lambda: buttons[0].screenshot_as_base64 != first)
        buttons[1].click()
        until(lambda: re.fullmatch(r"frame \d+, 96×64", state()) and browser.execute_script(width) == 96)
        assert [button.get_attribute("aria-pressed") for button in buttons] == ["false", "true"]
        for source in sources:
            source.close()
        run.join(HANG_LIMIT_S)
        until(lambda: state() == "the run has ended")
        assert not any(button.is_enabled() for button in buttons)
        sent = [entry for entry in browser.get_log("browser") if "thumbnail" not in entry["message"]]
        assert sent == []  # but for small pictures that were asked for when the server had gone
    finally:
        for source in sources:
            source.close()
        run.join(HANG_LIMIT_S)
