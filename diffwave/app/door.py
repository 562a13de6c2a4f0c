"""The door of the page: who may ask, and for what; what may be uploaded; how answers are marked.

Nothing here knows gradio: its server stands behind, and gets neither the token nor the cookie.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from rave.jobs.journal import FolderLock

HOST = "127.0.0.1"
HTTP_PORT = 80
FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
# All that the page of gradio 6 asks for. A file is named by its path, not by an address.
ROUTES = {
    "GET": re.compile(
        r"/|/(assets|static)/.+|/theme\.css|/favicon\.ico|"
        r"/gradio_api/(heartbeat/\w+|app_id|queue/data|upload_progress|file=(?!\w\w+:).+)"
    ),
    "POST": re.compile(r"/gradio_api/(run/predict|queue/join|upload)"),
}
# A browser asks no other host, whatever a page or a library says.
PAGE_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'; object-src 'none'"
)
FILE_POLICY = "default-src 'none'; sandbox"
MARKS = {
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
}
MAX_FORM_BYTES = 1_000_000  # of what a button sends, and of what is around a file
MAX_UPLOADS = 4  # the largest files that fit together
MAX_UPLOAD_S = 24 * 3600.0
UPLOADS = ".uploads-"


class Door:
    """Let only this page's own requests through, and mark what is answered.

    Args:
        app: The ASGI application behind.
        token: Whoever has it, in the address or as a cookie, is let in.
        uploads: Where the application puts what is uploaded.
        max_file_bytes: Largest file that may be uploaded.
    """

    def __init__(self, app: Any, token: str, uploads: Path, max_file_bytes: int) -> None:
        self._app, self._token = app, token
        self._uploads, self._max_file_bytes = uploads, max_file_bytes
        self._upload = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no use for a WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._marked(scope, message.get("headers", ()))}
            await send(message)

        is_upload = (scope["method"], scope["path"]) == ("POST", UPLOAD)
        limit = MAX_FORM_BYTES + is_upload * self._max_file_bytes
        refused = refusal(scope, self._token) or refused_body(scope, limit)
        if refused is not None:
            status, sentence = refused
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send_marked({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": sentence.encode()})
            return
        headers = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        behind = {**scope, "headers": headers, "query_string": _without_token(scope)}
        async with self._upload if is_upload else contextlib.nullcontext():
            if is_upload:
                most = MAX_UPLOADS * self._max_file_bytes - int(header(scope, b"content-length"))
                make_room(self._uploads, most)
            await self._app(behind, receive, send_marked)

    def _marked(self, scope: Any, headers: Any) -> list[tuple[bytes, bytes]]:
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        marks = marks_of(scope["path"], kind.decode("latin-1"))
        kept = [pair for pair in headers if pair[0].lower() not in marks]
        if _is_token(_query_token(scope), self._token):
            value = f"{cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            kept.append((b"set-cookie", value.encode()))
        return [*kept, *marks.items()]


def header(scope: Any, name: bytes) -> str:
    """Return a header of a request; one that is there twice is no longer what is compared to."""
    return ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def cookie_name(scope: Any) -> str:
    """Return the cookie's name: a browser keeps one set of cookies for all ports of a host."""
    return f"rave-app-{scope['server'][1]}"


def refusal(scope: Any, token: str) -> tuple[int, str] | None:
    """Return status and sentence for a request that is not let in, or None.

    It needs the name that is served, whole; a page of this origin behind it, or nothing but a
    browser that opens the page; the token; and a route that the page has.

    Args:
        scope: Of ASGI, of type http.
        token: As printed.
    """
    port = scope["server"][1]
    names = [name if port == HTTP_PORT else f"{name}:{port}" for name in (HOST, "localhost")]
    host, origin, site, mode, target = (
        header(scope, name)
        for name in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
    )
    is_opening = (scope["method"], scope["path"]) == ("GET", "/")
    if host not in names:
        return 403, f"This page is for this machine only, at http://{names[0]}/."
    is_visit = is_opening and (mode, target) == ("navigate", "document")
    if origin not in ("", f"http://{host}") or not (
        site in ("", "none", "same-origin") or is_visit
    ):
        return 403, "Another page asked for this; only the page of rave app may."
    cookies = [each.strip().partition("=") for each in header(scope, b"cookie").split(";")]
    given = [value for name, _, value in cookies if name == cookie_name(scope)]
    if is_opening:
        given.append(_query_token(scope))
    if not any(_is_token(each, token) for each in given):
        return 403, "Open the address that rave app printed in its terminal, token included."
    routes = ROUTES.get("GET" if scope["method"] == "HEAD" else scope["method"])
    if routes is None or not routes.fullmatch(scope["path"]):
        return 404, "The page has no such part."
    return None


def refused_body(scope: Any, max_bytes: int) -> tuple[int, str] | None:
    """Return status and sentence for a request whose body is too long or of no stated length."""
    if scope["method"] != "POST":
        return None
    length = header(scope, b"content-length")
    if header(scope, b"transfer-encoding") or not re.fullmatch(r"\d{1,18}", length, re.ASCII):
        return 411, "The length of what is sent is needed."
    if int(length) > max_bytes:
        return 413, f"{length} bytes were sent; at most {max_bytes} are taken."
    return None


def marks_of(path: str, content_type: str) -> dict[bytes, bytes]:
    """Return the headers that an answer must have.

    Of files only audio and pictures are shown; all others, SVG too, are for saving. None runs.
    """
    marks = {**MARKS, b"content-security-policy": PAGE_POLICY.encode()}
    if path.startswith(FILE):
        marks[b"content-security-policy"] = FILE_POLICY.encode()
        if not re.match(r"(audio|image)/(?!svg)", content_type, re.IGNORECASE):
            marks[b"content-type"] = b"application/octet-stream"
            marks[b"content-disposition"] = b"attachment"
    return marks


def make_room(uploads: Path, max_bytes: int) -> None:
    """Remove uploads until `max_bytes` are left: cut-off and old ones, then the oldest.

    None is under way meanwhile. What the page has taken in it has copied.
    """
    for path in uploads.glob("tmp*"):  # an upload is moved out of here at its end
        path.unlink(missing_ok=True)
    files = sorted((each.stat().st_mtime, each) for each in uploads.glob("*/*"))
    total, oldest_s = sum(each.stat().st_size for _, each in files), time.time() - MAX_UPLOAD_S
    for written_s, path in files:
        if total <= max_bytes and written_s > oldest_s:
            break
        total -= path.stat().st_size
        path.unlink()


@contextlib.contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder that only this user can read, and remove it at the end.

    Those of apps that ended otherwise are removed first.

    Raises:
        OSError: If it cannot be made.
    """
    for left in parent.glob(f"{UPLOADS}*"):
        with contextlib.suppress(ValueError, OSError):  # of an app that runs
            lock = FolderLock(left)
            shutil.rmtree(left, ignore_errors=True)
            lock.release()
    folder = Path(tempfile.mkdtemp(prefix=UPLOADS, dir=parent))
    lock = FolderLock(folder)
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _is_token(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _query_token(scope: Any) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]


def _without_token(scope: Any) -> bytes:
    parts: list[bytes] = scope["query_string"].split(b"&")
    return b"&".join(part for part in parts if not part.startswith(b"token="))
