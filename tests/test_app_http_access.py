"""Who is let in to the page of rave app, and what may lie behind it."""

import asyncio
import os
import time

import pytest

from diffwave.app import http_access
from diffwave.app.http_access import FILE, AccessControl, make_room, private_folder

TOKEN = "the-token"
KEY = {"cookie": f"other=1; rave-app-7911={TOKEN}"}
LENGTH = {"content-length": "10"}
AT_HOME = {"host": "127.0.0.1:7911"}


def ask(tmp_path, path, method="GET", query="", kind="http", port=7911, answer=(), **headers):
    """Return status, headers and text of an answer, and the scope that was let through."""
    told, passed = [], []

    async def app(scope, receive, send):
        passed.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [*answer]})
        await send({"type": "http.response.body", "body": b"secret"})

    async def send(message):
        told.append(message)

    given = {**AT_HOME, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "server": ("127.0.0.1", port),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    asyncio.run(AccessControl(app, TOKEN, tmp_path, 1000)(scope, None, send))
    if kind == "websocket":
        return told, passed
    start, body = told
    return start["status"], dict(start["headers"]), body["body"].decode(), passed


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7911.evil.example",
        "evil.example",
        "evil.example:7911",
        "user@127.0.0.1:7911",
        "127.0.0.1:7911@evil.example",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:80",
        "127.0.0.1:7911, evil.example",
        "[::1]:7911",
        "[127.0.0.1]:7911",
        "localhost.:7911",
        "",
    ],
)
def test_a_host_is_compared_whole(tmp_path, host):
    status, _, text, passed = ask(tmp_path, "/", **KEY, host=host)
    assert (status, passed) == (403, [])
    assert text == "This page works only on this machine, at http://127.0.0.1:7911/."
    assert ask(tmp_path, "/", **KEY, host="localhost:7911")[0] == 200
    cookie = f"rave-app-80={TOKEN}"
    assert ask(tmp_path, "/", port=80, host="127.0.0.1", cookie=cookie)[0] == 200


OTHERS = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "http://localhost:7911"},
    {"origin": "https://127.0.0.1:7911"},
    {"origin": "http://127.0.0.1:7911.evil.example"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "document"},
]


@pytest.mark.parametrize("other", OTHERS)
def test_what_another_page_asks_for_is_refused_even_with_the_cookie(tmp_path, other):
    for path, method in (("/", "GET"), ("/gradio_api/upload", "POST"), (f"{FILE}/a.wav", "GET")):
        status, _, text, passed = ask(tmp_path, path, method, **KEY, **LENGTH, **other)
        assert (status, passed) == (403, [])
        assert text == "Refused: another page sent this request."


def test_another_page_may_open_the_page_but_nothing_else(tmp_path):
    visit = {
        "sec_fetch_site": "cross-site",
        "sec_fetch_mode": "navigate",
        "sec_fetch_dest": "document",
    }
    assert ask(tmp_path, "/", query=f"token={TOKEN}", **visit)[0] == 200
    assert ask(tmp_path, "/", **visit)[0] == 403  # a browser sends it no SameSite cookie
    assert ask(tmp_path, f"{FILE}/a.wav", **KEY, **visit)[0] == 403
    assert ask(tmp_path, "/", "POST", **KEY, **LENGTH, **visit)[0] == 403


@pytest.mark.parametrize(
    ("query", "cookie"),
    [
        ("", ""),
        ("token=", "rave-app-7911="),
        ("token=wrong", "rave-app-7911=wrong"),
        (f"token={TOKEN}x", f"rave-app-7911={TOKEN}x"),
        (f"token={TOKEN}&token=wrong", f"rave-app-7912={TOKEN}"),
        ("token=%F0%9F%8E%B9", f"x-rave-app-7911={TOKEN}"),
    ],
)
def test_nothing_is_answered_without_the_token(tmp_path, query, cookie):
    for path in ("/", "/assets/index.js", f"{FILE}/a.wav", "/nowhere", "/gradio_api/app_id"):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
            status, headers, text, passed = ask(tmp_path, path, method, query, cookie=cookie)
            assert (status, passed) == (403, [])
            assert text.startswith("Open the address that rave app printed in its terminal")
            assert b"set-cookie" not in headers


def test_the_token_in_the_address_becomes_a_cookie_that_only_this_page_sends(tmp_path):
    status, headers, _, passed = ask(tmp_path, "/", query=f"a=1&token={TOKEN}&b=2")
    assert status == 200
    cookie = f"rave-app-7911={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert headers[b"set-cookie"].decode() == cookie
    assert b"set-cookie" not in ask(tmp_path, "/", **KEY)[1]
    assert ask(tmp_path, f"{FILE}/a.wav", query=f"token={TOKEN}")[0] == 403
    passed += ask(tmp_path, "/assets/a.js", **KEY)[3]
    assert TOKEN not in str(passed)  # what stands behind never has it
    assert passed[0]["query_string"] == b"a=1&b=2"


def test_only_the_routes_of_the_page_are_there(tmp_path):
    for path in ("/", "/assets/a.js", "/gradio_api/heartbeat/a1", f"{FILE}/a.wav"):
        assert ask(tmp_path, path, **KEY)[0] == 200
    for path in (
        "/config",
        "/docs",
        "/openapi.json",
        "/monitoring",
        "/gradio_api/info",
        "/gradio_api/proxy=http://evil.example/",
        f"{FILE}http://evil.example/a.wav",
        f"{FILE}HTTPS://evil.example/a.wav",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/upload",
    ):
        status, _, _, passed = ask(tmp_path, path, **KEY)
        assert (status, passed) == (404, [])
    for method in ("POST", "PUT", "OPTIONS"):
        assert ask(tmp_path, f"{FILE}/a.wav", method, **KEY, **LENGTH)[0] == 404


def test_a_web_socket_is_always_closed(tmp_path):
    told, passed = ask(tmp_path, "/", kind="websocket", **KEY)
    assert ([each["type"] for each in told], passed) == (["websocket.close"], [])


@pytest.mark.parametrize(
    "kind", ["text/html", "image/svg+xml", "application/pdf", "text/plain", ""]
)
def test_a_file_that_is_neither_audio_nor_a_picture_is_for_saving_and_cannot_run(tmp_path, kind):
    answer = [(b"Content-Type", kind.encode()), (b"content-disposition", b"inline")]
    headers = ask(tmp_path, f"{FILE}/a", answer=answer, **KEY)[1]
    assert headers[b"content-type"] == b"application/octet-stream"
    assert headers[b"content-disposition"] == b"attachment"
    assert b"Content-Type" not in headers
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"sandbox" in headers[b"content-security-policy"]


def test_audio_and_pictures_are_shown_and_cannot_run(tmp_path):
    for kind in (b"audio/x-wav", b"image/png"):
        headers = ask(tmp_path, f"{FILE}/a", answer=[(b"content-type", kind)], **KEY)[1]
        assert headers[b"content-type"] == kind
        assert b"content-disposition" not in headers
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert b"sandbox" in headers[b"content-security-policy"]
    headers = ask(tmp_path, "/", **KEY)[1]
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 411),
        ({"content-length": "-1"}, 411),
        ({"content-length": "1_0"}, 411),
        ({"content-length": "10", "transfer-encoding": "chunked"}, 411),
        ({"content-length": str(http_access.MAX_FORM_BYTES + 1001)}, 413),
        ({"content-length": str(http_access.MAX_FORM_BYTES + 1000)}, 200),
    ],
)
def test_each_upload_is_bounded_before_it_is_read(tmp_path, monkeypatch, headers, status):
    assert ask(tmp_path, "/gradio_api/upload", "POST", **KEY, **headers)[0] == status
    length = {"content-length": str(http_access.MAX_FORM_BYTES + 1)}
    assert ask(tmp_path, "/gradio_api/queue/join", "POST", **KEY, **length)[0] == 413


def uploaded(folder, name, age_s):
    path = folder / name / "sound.wav"
    path.parent.mkdir()
    path.write_bytes(bytes(1000))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_uploads_together_are_bounded_and_the_oldest_go_first(tmp_path):
    files = [uploaded(tmp_path, str(age_s), age_s) for age_s in range(50, 0, -10)]
    ask(tmp_path, "/gradio_api/upload", "POST", **KEY, **LENGTH)  # 4,000 bytes with those 10
    assert [each.exists() for each in files] == [False, False, True, True, True]


def test_uploads_do_not_grow_old_and_what_was_cut_off_goes(tmp_path):
    old, new = uploaded(tmp_path, "old", http_access.MAX_UPLOAD_S + 9), uploaded(tmp_path, "new", 9)
    (tmp_path / "tmpcutoff").write_bytes(b"half")
    make_room(tmp_path, 10**9)
    assert [each.name for each in tmp_path.iterdir() if [*each.glob("*")]] == ["new"]
    assert (old.exists(), new.exists()) == (False, True)


def test_uploads_are_private_and_go_at_the_end_and_those_of_a_killed_app_at_the_start(tmp_path):
    killed = tmp_path / ".uploads-killed"
    killed.mkdir()
    (killed / "sound.wav").write_bytes(b"left")
    with private_folder(tmp_path) as own:
        assert not killed.exists()
        assert own.stat().st_mode & 0o777 == 0o700
        (own / "sound.wav").write_bytes(b"mine")
        with private_folder(tmp_path) as other:  # a second app beside it
            assert (own / "sound.wav").exists()
            assert other != own
    assert [*tmp_path.iterdir()] == []
