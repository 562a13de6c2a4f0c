"""The page of rave app in a real browser: heard, pressed, downloaded, stopped, found again."""

import socket
import sys
import time
from pathlib import Path

import pytest
from audio_files import sine, write
from browser import OPTIONS, app_server, chromium, copy_newest, visit
from test_app import run_shown

pytest.importorskip("gradio", reason="the extra [app] is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright import sync_api as playwright

from diffwave.app import server
from diffwave.app import session as module
from diffwave.app.commands import Job
from diffwave.app.session import Session

# Gradio 6.31 asks pandas for what pandas 3 no longer needs (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:.*no_silent_downcasting")
WAIT_MS = 60_000
# Root mean square of the audio that a player of a result would play, and its length.
HEARD = """async (player) => {
  const content = await (await fetch(player.currentSrc)).arrayBuffer();
  const audio = await new OfflineAudioContext(1, 1, 22050).decodeAudioData(content);
  const samples = audio.getChannelData(0);
  const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
  return { rms: Math.sqrt(power), seconds: audio.duration, playable: player.duration };
}"""
NEWEST = "() => document.querySelector('article.clip audio')?.getAttribute('src') ?? ''"
HTML = "(all) => all.map((each) => each.outerHTML.replace(/ open=.*?>/, '>'))"
THREE_FRAMES = """async () => {
  for (let n = 0; n < 3; n++) await new Promise((done) => requestAnimationFrame(done));
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def address(instrument, tmp_path_factory):
    """The page's address; its folder is `rave-app` in the working directory."""
    chromium()
    with app_server(tmp_path_factory.mktemp("app"), instrument) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        path = chromium()
        browser = driver.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    """What all pages share: a cookie and what was fetched before."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context, address):
    with visit(context, address) as page:
        yield page


@pytest.fixture(scope="module")
def kept_page(context, address):
    with visit(context, address) as page:
        yield page


@pytest.fixture
def loaded(kept_page, instrument):
    """A page with a sound, as the test before left it."""
    if not kept_page.locator("#seen .timeline polyline").count():
        load(kept_page, instrument)
    return kept_page


@pytest.fixture
def slow_steps(monkeypatch):
    """Let long work take longer than any machine needs to stop it, and no machine's time."""
    watch = Job.watch

    def slow(self, done, total):
        time.sleep(0.05 if total > 1000 else 0)
        watch(self, done, total)

    monkeypatch.setattr(Job, "watch", slow)


def load(page, instrument, where="sound"):
    page.locator(f"#{where} input[type=file]").first.set_input_files(str(instrument[2]))
    page.wait_for_selector("#seen .timeline polyline")


def made(page, press):
    """Press a button, wait for the result that it makes, and return it."""
    former = page.evaluate(NEWEST)
    page.keyboard.press("Enter") if press == "Enter" else page.click(press)
    page.wait_for_function(f"former => ({NEWEST})() !== former", arg=former)
    page.wait_for_function("() => document.querySelector('article.clip audio').readyState > 0")
    return page.locator("article.clip").first


def told(page, text):
    """Wait until the page says something."""
    page.wait_for_function(
        "text => document.querySelector('#status').innerText.includes(text)", arg=text
    )


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def test_a_sound_is_varied_heard_downloaded_and_made_again(loaded):
    page = loaded
    open_tab(page, "Vary")
    page.locator("#seed input").fill("7")
    result = made(page, "#do-vary")
    heard = result.locator("audio").evaluate(HEARD)
    assert heard["rms"] > 1e-4
    assert heard["seconds"] == pytest.approx(1.0, abs=0.1)
    assert heard["playable"] == pytest.approx(heard["seconds"], abs=0.1)
    assert "seed 7" in result.inner_text()
    with page.expect_download() as download:
        result.locator("a[download]").click()
    name = download.value.suggested_filename
    assert name.endswith("_1_varied_by_0.5_seed_7.wav")
    assert name in result.inner_text()
    downloaded = Path(download.value.path()).read_bytes()
    audio = run_shown(result.locator("pre").inner_text())
    assert [path.read_bytes() for path in audio] == [downloaded]


def test_a_span_is_drawn_on_the_spectrogram_and_made_anew(loaded):
    page = loaded
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
    assert "inpainted from 0.25 s to 0.5 s" in made(page, "#do-inpaint").inner_text()


def test_everything_is_reached_by_keyboard(loaded):
    page = loaded
    open_tab(page, "Generate")
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
    result = made(page, "Enter")
    result.locator("audio").focus()
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('article.clip audio').currentTime > 0")


def test_music_is_generated_following_a_sound_and_taken_as_the_next(loaded):
    page = loaded
    open_tab(page, "Generate")
    page.locator("#seed input").fill("0")
    page.get_by_label("loudness").check()
    result = made(page, "#do-generate")
    assert "New music, following loudness" in result.inner_text()
    assert "--follow loudness" in result.locator("pre").inner_text()
    assert result.locator("audio").evaluate(HEARD)["rms"] > 1e-4
    page.click("#reuse")
    told(page, "Ready.")
    open_tab(page, "Bend")
    page.get_by_label("Axis 0: offset").locator("visible=true").first.wait_for()
    following = made(page, "#do-bend").inner_text()
    assert "New_music_following_loudness_seed_0, through the codec" in following


def test_results_are_on_the_page_after_a_reload_newest_first_with_what_was_warned_of(
    loaded, monkeypatch
):
    page = loaded
    open_tab(page, "Bend")
    monkeypatch.setattr(module, "decode_folder", warned(module.decode_folder))
    for seed in range(3):
        page.locator("#seed input").fill(str(seed))
        made(page, "#do-bend")
        if seed == 0:
            copy_newest(4)
    shown = page.locator("article.clip").evaluate_all(HTML)
    assert len(shown) == 6
    page.reload()
    page.wait_for_selector("article.clip")
    assert page.locator("article.clip").evaluate_all(HTML) == shown
    seeds = page.locator("article.clip .facts").all_text_contents()
    newest = [2, 1, 0, 0, 0, 0]
    assert all(f"seed {seed} " in text for seed, text in zip(newest, seeds, strict=True))
    assert page.locator("article.clip .warning").first.inner_text() == "it is <hot>"
    made(page, "#do-generate")
    page.click("#reuse")
    page.wait_for_selector("#seen .timeline polyline")


def warned(run):
    def run_with_a_warning(*places, **options):
        print("rave decode: warning: 1.npy: it is <hot>", file=sys.stderr)
        return run(*places, **options)

    return run_with_a_warning


def test_stop_stops_and_the_page_goes_on(page, slow_steps):
    former = page.evaluate(NEWEST)
    begin_long_work(page)
    told(page, "left")
    page.click("#stop")
    told(page, "Stopped. Nothing was saved.")
    assert page.evaluate(NEWEST) == former
    page.locator("#steps input[type=number]").fill("2")
    page.get_by_label("number input for Length in seconds").fill("1")
    made(page, "#do-generate")


def begin_long_work(page):
    page.locator("#steps input[type=number]").fill("200")
    page.get_by_label("number input for Length in seconds").fill("60")
    page.click("#do-generate")


def test_stop_ends_what_its_own_tab_began_and_what_closed_tabs_left(page, address, slow_steps):
    begin_long_work(page)
    told(page, "left")
    other = page.context.new_page()
    other.goto(address)
    other.click("#do-generate")
    told(other, "waiting for other work")
    other.click("#stop")
    told(other, "Stopped. Nothing was saved.")
    told(page, "left")  # not ended
    other.click("#do-generate")
    told(other, "waiting for other work")
    page.click("#stop")
    told(page, "Stopped. Nothing was saved.")
    told(other, "Done.")
    begin_long_work(page)
    told(page, "left")
    page.close()
    other.wait_for_timeout(500)  # until the server knows
    other.click("#do-generate")
    told(other, "waiting for other work")
    other.click("#stop")
    told(other, "Stopped. Nothing was saved.")
    other.click("#stop")
    made(other, "#do-generate")


def test_a_click_on_a_picture_plays_from_there_and_only_one_plays(page, instrument):
    load(page, instrument)
    page.get_by_label("number input for Length in seconds").fill("9")
    made(page, "#do-generate")
    made(page, "#do-generate")
    page.locator("#results summary").get_by_text("Earlier").click()
    second, first = page.locator("article.clip").all()[:2]
    playing = "() => [...document.querySelectorAll('.clip audio')].map((each) => !each.paused)"
    for clip in (first, second):
        clip.locator(".timeline img").click(position={"x": 200, "y": 20})
        width = clip.locator(".timeline img").bounding_box()["width"]
        page.wait_for_function(f"({playing})().filter(Boolean).length === 1")
        audio = clip.locator("audio")
        assert audio.evaluate("(each) => !each.paused")
        assert -0.1 < audio.evaluate("(each) => each.currentTime") - 9 * 200 / width < 3
    page.locator("#sound").get_by_label("Play", exact=True).click()  # its player is not in the page
    page.wait_for_function(f"!({playing})().includes(true)")
    first.locator("audio").evaluate("(each) => each.play()")
    page.locator("#sound").get_by_label("Play", exact=True).wait_for()  # no longer "Pause"


def test_errors_and_numbers_out_of_bounds_are_sentences_on_the_page(page, tmp_path, capfd):
    for given, sentence in {
        "-5": "The seed is -5; 0 to 4294967295 is needed.",
        "4294967296": "The seed is 4294967296; 0 to 4294967295 is needed.",
        "2.5": "The seed is 2.5; a whole number is needed.",
        "": "The seed is missing; 0 to 4294967295 is needed.",
    }.items():
        page.locator("#seed input").fill(given)
        page.click("#do-generate")
        told(page, sentence)
    assert page.locator(".toast-body").count() == 0
    assert "Traceback" not in capfd.readouterr().err
    page.locator("#seed input").fill("0")
    open_tab(page, "Vary")
    page.click("#do-vary")
    told(page, "Record or drop a sound first.")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound at all")
    page.locator("#sound input[type=file]").first.set_input_files(str(broken))
    told(page, "'broken.wav'")
    assert "Traceback" not in page.content()


# Controls that are not what lies at their own centre once they are scrolled into view.
COVERED = """(place) => {
  const seen = (each) => each.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && each.offsetWidth > 2 && !each.disabled && !each.closest("[aria-hidden=true]");
  const controls = [...document.querySelectorAll(
    "button, input, textarea, a[href], audio, summary, .clip .timeline, .choose .timeline")];
  return controls.filter(seen).map((each) => {
    each.scrollIntoView({ block: place });
    const { left, top, width, height } = each.getBoundingClientRect();
    const hit = document.elementFromPoint(left + width / 2, top + height / 2);
    const label = each.closest("label");
    const name = each.id || each.ariaLabel || each.innerText || each.tagName;
    return [name, each.contains(hit) || Boolean(label && label.contains(hit))];
  });
}"""


def test_every_control_can_be_pressed_at_every_width(loaded):
    page = loaded
    open_tab(page, "Generate")
    made(page, "#do-generate")
    for width in (360, 390, 760, 1280, 1920):
        page.emulate_media(color_scheme="dark" if width in (390, 1280) else "light")
        page.set_viewport_size({"width": width, "height": 844})
        page.evaluate(THREE_FRAMES)  # the row of tabs is laid out anew
        check_controls(page, width)
        text, back = (
            page.evaluate(f"() => getComputedStyle(document.body).{name}")
            for name in ("color", "backgroundColor")
        )
        assert text != back, width


def check_controls(page, width):
    """Check that every control of every tab lies free, and that nothing is wider than the page."""
    pressed = set()
    tabs = ("Generate", "Vary", "Inpaint", "Continue", "Bend", "Mix")
    for tab in tabs:
        found = page.locator("#ways").get_by_role("tab", name=tab)
        if not found.is_visible():  # behind the button of tabs that have no room
            page.locator("#ways .overflow-menu > button").click()
            found = page.locator("#ways .overflow-dropdown").get_by_text(tab)
        found.click()
        page.locator(f"#do-{tab.lower()}").wait_for()
        for place in ("nearest", "center"):
            controls = page.evaluate(COVERED, place)
            assert [name for name, is_free in controls if not is_free] == [], width
            pressed |= {name for name, _ in controls}
        assert page.evaluate(OVERFLOW) == 0, width
    assert pressed >= {"stop", "anew", "reuse", *(f"do-{tab.lower()}" for tab in tabs)}


def test_with_a_codec_alone_a_tab_is_open_and_too_large_a_file_is_refused(
    browser, instrument, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 100 * 1024)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session = Session(tmp_path / "kept", instrument[0], None, "cpu")
    with server.serving(session, port) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#do-bend")
        assert page.get_by_role("tab", selected=True).all_inner_texts() == ["Bend"]
        large = write(tmp_path / "large.wav", sine(440, 44100, 2.0), 44100)
        page.locator("#sound input[type=file]").first.set_input_files(str(large))
        page.get_by_text('maximum allowed size of 100.0 Kb: "large.wav"').wait_for()
        page.get_by_label("Clear").first.click()
        load(page, instrument)
        assert "through the codec" in made(page, "#do-bend").inner_text()
        page.close()
