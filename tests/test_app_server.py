"""What rave app serves: no file but its own, to this machine alone, to who has its address."""

import http.cookiejar
import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import app_server

pytest.importorskip("gradio", reason="the extra [app] is not installed")

from diffwave.app import server


@pytest.fixture(scope="module")
def printed(instrument, tmp_path_factory):
    """The address that is printed; the folder is `rave-app` in the working directory."""
    with app_server(tmp_path_factory.mktemp("app"), instrument) as address:
        yield address


@pytest.fixture(scope="module")
def address(printed):
    return printed.partition("?")[0]


@pytest.fixture(scope="module")
def browser(printed):
    """What opens addresses with the cookie that the printed address gave."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    opener.open(printed, timeout=10).close()
    return opener


def answer_of(opener, url, content=None, **headers):
    """Return status, headers and content of an answer."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with opener.open(urllib.request.Request(url, content, headers), timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def upload(opener, address, name, content, **headers):
    form = (
        f'--cut\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n--cut--\r\n"
    )
    kind = "multipart/form-data; boundary=cut"
    return answer_of(opener, f"{address}gradio_api/upload", form, content_type=kind, **headers)


def test_no_file_outside_the_folder_is_served_nor_inside_what_the_page_does_not_show(
    address, browser, tmp_path
):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    own = Path("rave-app").resolve()
    (own / "notes.wav").write_bytes(b"not a result")
    climbing = f"{own}/../../{secret.relative_to(tmp_path.parents[0])}"
    for path in (secret, "/etc/passwd", Path(server.__file__), climbing, own / "notes.wav"):
        assert answer_of(browser, f"{address}gradio_api/file={path}")[0] in (403, 404)
    (own / "notes.wav").unlink()


def test_a_path_that_a_browser_makes_up_is_not_opened(address, browser, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    page = answer_of(browser, address)[2].decode()
    config = page.partition("window.gradio_config = ")[2]
    functions = json.JSONDecoder().raw_decode(config)[0]["dependencies"]
    number = next(each["id"] for each in functions if each["api_name"] == "_add_sound")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    content = {"data": [given], "fn_index": number, "session_hash": "made-up"}
    before = sorted(Path("rave-app").iterdir())
    joined = answer_of(
        browser,
        f"{address}gradio_api/queue/join",
        json.dumps(content).encode(),
        content_type="application/json",
    )
    assert joined[0] == 200
    with browser.open(f"{address}gradio_api/queue/data?session_hash=made-up", timeout=10) as answer:
        ended = time.monotonic() + 10
        while time.monotonic() < ended:
            line = answer.readline().decode()
            if "process_completed" in line:
                break
    assert '"success":false' in line.replace(" ", "")
    assert sorted(Path("rave-app").iterdir()) == before


def test_other_names_and_other_pages_and_other_users_are_refused(printed, address, browser):
    status, headers, _ = answer_of(browser, address)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert urllib.parse.urlsplit(printed).hostname == "127.0.0.1"
    host = urllib.parse.urlsplit(printed).netloc
    for other in ("elsewhere.example", f"{host}.evil.example"):
        assert answer_of(browser, address, Host=other)[0] == 403
    stranger = urllib.request.build_opener()
    for path in ("", "theme.css", "gradio_api/app_id", "gradio_api/startup-events", "config"):
        assert answer_of(stranger, f"{address}{path}")[0] == 403
    uploads = [*Path("rave-app").glob(".uploads-*/*")]
    assert upload(browser, address, "a.wav", b"flood", Origin="http://evil.example")[0] == 403
    assert upload(stranger, address, "a.wav", b"flood")[0] == 403
    assert [*Path("rave-app").glob(".uploads-*/*")] == uploads


def test_an_upload_is_never_shown_as_a_page_of_this_origin(address, browser):
    for name in ("evil.html", "evil.svg", "evil.txt", "evil.json", "evil.xhtml", "evil"):
        status, _, content = upload(browser, address, name, b"<script>alert(1)</script>")
        assert status == 200
        path = urllib.parse.quote(json.loads(content)[0])
        for range_header in ({}, {"Range": "bytes=0-5"}):
            url = f"{address}gradio_api/file={path}"
            status, headers, content = answer_of(browser, url, **range_header)
            assert status in (200, 206)
            assert content.startswith(b"<scrip")
            headers = {key.lower(): value for key, value in headers.items()}
            assert headers["content-type"] == "application/octet-stream"
            assert headers["content-disposition"].startswith("attachment")
            assert headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in headers["content-security-policy"]
            assert "cookie" not in headers  # gradio repeats a request's headers


def test_a_browser_is_opened_without_the_token_on_a_command_line_and_nothing_is_left(
    instrument, tmp_path, monkeypatch, capsys
):
    opened = []

    def see(url):
        page = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
        opened.append((url, page.read_text(), page.parent.stat().st_mode & 0o777))

    def press_ctrl_c():
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", see)
    stub = SimpleNamespace(Event=lambda: SimpleNamespace(wait=press_ctrl_c))
    monkeypatch.setattr(server, "threading", stub)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    closed = server.serve(tmp_path, instrument[0], None, "cpu", port, is_opening=True)
    url, page, mode = opened[0]
    token = capsys.readouterr().err.partition("?token=")[2].split()[0]
    assert len(token) > 30
    assert f"?token={token}" in page
    assert mode == 0o700
    assert token not in url + closed
    assert [*tmp_path.iterdir()] == []
