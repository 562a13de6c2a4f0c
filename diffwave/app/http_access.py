"""Access to the page over HTTP: which requests and uploads are allowed; headers of the answers.

Independent of gradio, whose server gets neither the token nor the cookie.
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
# All routes that the page of gradio 6 requests. A file is named by its path, not by an address.
ROUTES = {
    "GET": re.compile(
        r"/|/(assets|static)/.+|/theme\.css|/favicon\.ico|"
        r"/gradio_api/(heartbeat/\w+|app_id|queue/data|upload_progress|file=(?!\w\w+:).+)"
    ),
    "POST": re.compile(r"/gradio_api/(run/predict|queue/join|upload)"),
}
# The browser contacts no other host.
PAGE_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'; object-src 'none'"
)
FILE_POLICY = "default-src 'none'; sandbox"
HEADERS = {
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
}
MAX_FORM_BYTES = 1_000_000  # of a button's request, and of an upload without its file
MAX_UPLOADS = 4  # number of the largest files that fit together
MAX_UPLOAD_S = 24 * 3600.0
UPLOADS = ".uploads-"


class AccessControl:
    """ASGI middleware that passes only requests of this page, and sets headers of the answers.

    Args:
        app: The ASGI application.
        token: Secret that a request needs, in its address or as a cookie.
        uploads: Folder of the application's uploads.
        max_file_bytes: Size limit of an uploaded file.
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
        if scope["type"] != "http":  # the page uses no WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": self._with_headers(scope, message.get("headers", ())),
                }
            await send(message)

        is_upload = (scope["method"], scope["path"]) == ("POST", UPLOAD)
        limit = MAX_FORM_BYTES + is_upload * self._max_file_bytes
        refused = refusal(scope, self._token) or refused_body(scope, limit)
        if refused is not None:
            status, sentence = refused
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send_on({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": sentence.encode()})
            return
        headers = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        behind = {**scope, "headers": headers, "query_string": _without_token(scope)}
        async with self._upload if is_upload else contextlib.nullcontext():
            if is_upload:
                most = MAX_UPLOADS * self._max_file_bytes - int(header(scope, b"content-length"))
                make_room(self._uploads, most)
            await self._app(behind, receive, send_on)

    def _with_headers(self, scope: Any, headers: Any) -> list[tuple[bytes, bytes]]:
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        added = answer_headers(scope["path"], kind.decode("latin-1"))
        kept = [pair for pair in headers if pair[0].lower() not in added]
        if _is_token(_query_token(scope), self._token):
            value = f"{cookie_name(scope)}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            kept.append((b"set-cookie", value.encode()))
        return [*kept, *added.items()]


def header(scope: Any, name: bytes) -> str:
    """Return a header of a request; one that occurs twice is joined, and so matches nothing."""
    return ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def cookie_name(scope: Any) -> str:
    """Return the cookie's name, with the port: a browser shares the cookies of all ports."""
    return f"rave-app-{scope['server'][1]}"


def refusal(scope: Any, token: str) -> tuple[int, str] | None:
    """Return status and message for a request that is refused, or None.

    A request needs the exact host name; this origin, unless a browser opens the page; the token;
    and a route of the page.

    Args:
        scope: Scope of ASGI, of type http.
        token: The secret.
    """
    port = scope["server"][1]
    names = [name if port == HTTP_PORT else f"{name}:{port}" for name in (HOST, "localhost")]
    host, origin, site, mode, target = (
        header(scope, name)
        for name in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
    )
    is_opening = (scope["method"], scope["path"]) == ("GET", "/")
    if host not in names:
        return 403, f"This page works only on this machine, at http://{names[0]}/."
    is_visit = is_opening and (mode, target) == ("navigate", "document")
    if origin not in ("", f"http://{host}") or not (
        site in ("", "none", "same-origin") or is_visit
    ):
        return 403, "Refused: another page sent this request."
    cookies = [each.strip().partition("=") for each in header(scope, b"cookie").split(";")]
    values = [value for name, _, value in cookies if name == cookie_name(scope)]
    if is_opening:
        values.append(_query_token(scope))
    if not any(_is_token(each, token) for each in values):
        return 403, "Open the address that rave app printed in its terminal, with its token."
    routes = ROUTES.get("GET" if scope["method"] == "HEAD" else scope["method"])
    if routes is None or not routes.fullmatch(scope["path"]):
        return 404, "Not found."
    return None


def refused_body(scope: Any, max_bytes: int) -> tuple[int, str] | None:
    """Return status and message for a request whose body is too long or of unknown length."""
    if scope["method"] != "POST":
        return None
    length = header(scope, b"content-length")
    if header(scope, b"transfer-encoding") or not re.fullmatch(r"\d{1,18}", length, re.ASCII):
        return 411, "Content-Length is required."
    if int(length) > max_bytes:
        return 413, f"The request has {length} bytes; the limit is {max_bytes}."
    return None


def answer_headers(path: str, content_type: str) -> dict[bytes, bytes]:
    """Return the headers of an answer.

    A browser shows only audio and pictures; it saves all other files, SVG too, and runs none.
    """
    headers = {**HEADERS, b"content-security-policy": PAGE_POLICY.encode()}
    if path.startswith(FILE):
        headers[b"content-security-policy"] = FILE_POLICY.encode()
        if not re.match(r"(audio|image)/(?!svg)", content_type, re.IGNORECASE):
            headers[b"content-type"] = b"application/octet-stream"
            headers[b"content-disposition"] = b"attachment"
    return headers


def make_room(uploads: Path, max_bytes: int) -> None:
    """Remove uploads until at most `max_bytes` are left: incomplete and old ones, then the oldest.

    Call it while no upload runs. The page has copied the files that it uses.
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

    Folders that killed apps left are removed first.

    Raises:
        OSError: If it cannot be made.
    """
    for left in parent.glob(f"{UPLOADS}*"):
        with contextlib.suppress(ValueError, OSError):  # of a running app
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


def _is_token(value: str, token: str) -> bool:
    return hmac.compare_digest(value.encode(), token.encode())


def _query_token(scope: Any) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]


def _without_token(scope: Any) -> bytes:
    parts: list[bytes] = scope["query_string"].split(b"&")
    return b"&".join(part for part in parts if not part.startswith(b"token="))
