"""The browser that tests look at pages with, and the page of rave app."""

import contextlib
import shutil
import socket
import urllib.parse
from pathlib import Path

import pytest

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
)


def chromium():
    """The browser's path, or a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium is installed")


@contextlib.contextmanager
def browser():
    """Yield Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright is installed")
    path = chromium()
    with api.sync_playwright() as playwright:
        options = [*OPTIONS, "--autoplay-policy=no-user-gesture-required"]
        opened = playwright.chromium.launch(executable_path=path, args=options)
        yield opened
        opened.close()


@contextlib.contextmanager
def open_page(browser, address, **options):
    """Yield a page, of nothing that earlier pages knew, that keeps what it asks for in `requests`.

    `options` are those of Playwright's new_page, such as `viewport` and `color_scheme`.
    """
    page = browser.new_page(**options)
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    yield page
    page.close()


@contextlib.contextmanager
def visit(context, address):
    """Yield the page of rave app; whatever it asks another host for fails the test."""
    asked, errors, others = [], [], context.pages

    def note(request):
        asked.append(request.url)

    context.on("request", note)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#do-generate")
    if [*Path("rave-app").glob("*/made.json")]:
        page.wait_for_selector("article.clip")  # what earlier tests made
    page.locator("#steps input[type=number]").fill("4")
    yield page
    for each in context.pages:
        if each not in others:
            each.close()
    context.remove_listener("request", note)
    parts = [urllib.parse.urlsplit(url) for url in asked]
    foreign = {part.netloc for part in parts if part.scheme not in ("data", "blob")}
    assert foreign == {urllib.parse.urlsplit(address).netloc}
    assert errors == []


@contextlib.contextmanager
def app_server(folder, instrument):
    """Serve rave app from `folder`, the working directory meanwhile, and yield its address.

    Whatever this process connects to beside itself fails the test.
    """
    from diffwave.app import server
    from diffwave.app.session import Session

    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    hosts = []
    connect = socket.socket.connect

    def noted(self, place):
        if isinstance(place, tuple):
            hosts.append(place[0])
        return connect(self, place)

    patch.setattr(socket.socket, "connect", noted)
    with server.serving(Session(Path("rave-app"), *instrument[:2], "cpu")) as address:
        yield address
    patch.undo()
    assert set(hosts) <= {"127.0.0.1"}  # that may be what a test asks it


def copy_newest(count):
    """Copy the newest result of rave app so many times, as if it had been made again."""
    newest = max(path.parent for path in Path("rave-app").glob("*/made.json"))
    number, name = newest.name.split("-", 1)
    for each in range(1, count + 1):
        shutil.copytree(newest, newest.with_name(f"{int(number) + each:03d}-{name}"))
