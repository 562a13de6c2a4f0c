"""The page of rave app in a real browser: heard, downloaded, stopped, and nothing leaves."""

import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from browser import OPTIONS, chromium
from test_app import run_shown

pytest.importorskip("gradio", reason="the extra [app] is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from diffwave.app import server  # noqa: E402
from diffwave.app.workshop import Workshop  # noqa: E402

WAIT_MS = 60_000
# Root mean square of the audio that a player of a result would play, and its length.
HEARD = """async (player) => {
  const content = await (await fetch(player.currentSrc)).arrayBuffer();
  const audio = await new OfflineAudioContext(1, 1, 22050).decodeAudioData(content);
  const samples = audio.getChannelData(0);
  const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
  return { rms: Math.sqrt(power), seconds: audio.duration, playable: player.duration };
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def address(instrument, tmp_path_factory):
    """The page's address; its folder is `rave-app` in the working directory."""
    chromium()
    folder = tmp_path_factory.mktemp("app")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    connected = watch_connections(patch)
    blocks, address = server.start(Workshop(Path("rave-app"), *instrument[:2], "cpu"))
    yield address
    blocks.close(verbose=False)
    patch.undo()
    assert set(connected) == {"127.0.0.1"}  # gradio looks whether it is up itself


def watch_connections(patch):
    """Return the hosts that this process connects to from now on."""
    hosts = []
    connect = socket.socket.connect

    def noted(self, place):
        if isinstance(place, tuple):
            hosts.append(place[0])
        return connect(self, place)

    patch.setattr(socket.socket, "connect", noted)
    return hosts


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        path = chromium()
        browser = driver.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page, opened; whatever it asks another host for fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    asked, errors = [], []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#do-generate")
    page.locator("#steps input[type=number]").fill("4")
    yield page
    context.close()
    parts = [urllib.parse.urlsplit(url) for url in asked]
    foreign = {part.netloc for part in parts if part.scheme not in ("data", "blob")}
    assert foreign == {urllib.parse.urlsplit(address).netloc}
    assert errors == []


def load(page, instrument, where="sound"):
    page.locator(f"#{where} input[type=file]").first.set_input_files(str(instrument[2]))
    page.wait_for_selector("#seen .timeline polyline")


def made(page, count=1):
    """Wait for the newest result, and return it."""
    page.wait_for_function(
        "count => document.querySelectorAll('article.clip').length === count", arg=count
    )
    newest = page.locator("article.clip").first
    page.wait_for_function("() => document.querySelector('article.clip audio').readyState > 0")
    return newest


def told(page, text):
    """Wait until the page says something."""
    page.wait_for_function(
        "text => document.querySelector('#status').innerText.includes(text)", arg=text
    )


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def test_a_sound_is_varied_heard_downloaded_and_made_again(page, instrument, tmp_path):
    load(page, instrument)
    open_tab(page, "Vary")
    page.locator("#seed input").fill("7")
    page.click("#do-vary")
    result = made(page)
    heard = result.locator("audio").evaluate(HEARD)
    assert heard["rms"] > 1e-4
    assert heard["seconds"] == pytest.approx(1.0, abs=0.1)
    assert heard["playable"] == pytest.approx(heard["seconds"], abs=0.1)
    assert "seed 7" in result.inner_text()
    with page.expect_download() as download:
        result.locator("a[download]").click()
    downloaded = Path(download.value.path()).read_bytes()
    audio = [
        path for path in run_shown(result.locator("pre").inner_text()) if path.suffix == ".wav"
    ]
    assert [path.read_bytes() for path in audio] == [downloaded]


def test_music_is_generated_following_a_sound_and_taken_as_the_next(page, instrument):
    load(page, instrument)
    page.get_by_label("loudness").check()
    page.locator("#do-generate").click()
    result = made(page)
    assert "New, following loudness" in result.inner_text()
    assert "--follow loudness" in result.locator("pre").inner_text()
    assert result.locator("audio").evaluate(HEARD)["rms"] > 1e-4
    page.click("#reuse")
    told(page, "Ready.")
    open_tab(page, "Bend")
    page.get_by_label("Axis 0: offset").locator("visible=true").first.wait_for()
    page.click("#do-bend")
    made(page, 2)
    assert "generated_000, through the codec" in page.locator("article.clip").first.inner_text()


def test_a_span_is_drawn_on_the_spectrogram_and_made_anew(page, instrument):
    load(page, instrument)
    open_tab(page, "Inpaint")
    box = page.locator("#region .timeline").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.25 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=4)
    page.mouse.up()
    assert float(page.input_value("#from input")) == pytest.approx(0.25, abs=0.02)
    assert float(page.input_value("#to input")) == pytest.approx(0.5, abs=0.02)
    page.locator("#region .region").wait_for(state="visible")
    page.wait_for_function(
        "wanted => Math.abs(document.querySelector('#region .region').offsetWidth - wanted) < 8",
        arg=box["width"] / 4,
    )
    page.click("#do-inpaint")
    assert "anew from 0.25 s to 0.5 s" in made(page).inner_text()


def test_stop_stops_and_the_page_goes_on(page, instrument):
    page.locator("#steps input[type=number]").fill("200")
    page.get_by_label("number input for Length in seconds").fill("60")
    page.click("#do-generate")
    page.wait_for_function("() => /left/.test(document.querySelector('#status').innerText)")
    page.click("#stop")
    told(page, "Stopped. Nothing was kept of it.")
    assert page.locator("article.clip").count() == 0
    page.locator("#steps input[type=number]").fill("2")
    page.get_by_label("number input for Length in seconds").fill("1")
    page.click("#do-generate")
    made(page)


def test_errors_are_sentences_on_the_page(page, instrument, tmp_path):
    open_tab(page, "Vary")
    page.click("#do-vary")
    told(page, "Record or drop a sound first.")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound at all")
    page.locator("#sound input[type=file]").first.set_input_files(str(broken))
    told(page, "'broken.wav'")
    assert "Traceback" not in page.content()


def test_everything_is_reached_by_keyboard(page, instrument):
    load(page, instrument)
    page.locator("#ways").get_by_role("tab").first.focus()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => { const e = document.activeElement; "
                "return e.closest('[id^=do-], #seed, #anew, #steps, #stop')?.id ?? ''; }"
            )
        )
    assert {"do-generate", "seed", "anew", "steps", "stop"} <= reached
    page.focus("#do-generate")
    outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    result = made(page)
    result.locator("audio").focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('article.clip audio').currentTime > 0")


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_page_fits_its_window(page, instrument, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    load(page, instrument)
    assert page.evaluate(OVERFLOW) == 0
    text, back = (
        page.evaluate(f"() => getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert text != back


def status_of(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def test_no_file_outside_the_folder_is_served(address, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    own = Path("rave-app").resolve()
    climbing = f"{own}/../../{secret.relative_to(tmp_path.parents[0])}"
    for path in (secret, "/etc/passwd", Path(server.__file__), climbing):
        assert status_of(f"{address}gradio_api/file={path}")[0] in (403, 404)


def test_a_path_that_a_browser_makes_up_is_not_opened(address, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    with urllib.request.urlopen(f"{address}config", timeout=10) as answer:
        functions = json.load(answer)["dependencies"]
    number = next(each["id"] for each in functions if each["api_name"] == "_take")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    content = {"data": [given], "fn_index": number, "session_hash": "made-up"}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(
        f"{address}gradio_api/queue/join", json.dumps(content).encode(), headers
    )
    before = sorted(Path("rave-app").iterdir())
    urllib.request.urlopen(request, timeout=10).close()
    with urllib.request.urlopen(
        f"{address}gradio_api/queue/data?session_hash=made-up", timeout=10
    ) as answer:
        ended = time.monotonic() + 10
        while time.monotonic() < ended:
            line = answer.readline().decode()
            if "process_completed" in line:
                break
    assert '"success":false' in line.replace(" ", "")
    assert sorted(Path("rave-app").iterdir()) == before


def test_other_names_of_this_machine_are_not_answered_and_other_hosts_not_asked(address):
    status, headers = status_of(address)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert status_of(address, Host="elsewhere.example")[0] == 403
    assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
