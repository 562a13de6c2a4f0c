"""Serve the page to this machine only, without any request to another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diffwave.app.http_access import HOST, AccessControl, private_folder
from diffwave.app.session import MAX_FILE_GB, Session
from diffwave.pages.markup import escape

MAX_UPLOAD_BYTES = MAX_FILE_GB * 2**30
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
FIXED_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


@contextlib.contextmanager
def serving(session: Session, port: int | None = None) -> Iterator[str]:
    """Serve in the background, and yield the page's address with its token.

    Args:
        session: The session of the page.
        port: Port; the first free one from 7860 if None.

    Raises:
        OSError: If the port is taken.
    """
    with private_folder(session.folder) as uploads:
        # Read when gradio is imported: it would ask for its newest version, keep files elsewhere.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        from gradio.http_server import start_server

        # Without a running loop gradio makes one for each of its locks, and closes none. In a
        # thread, because the caller may have a loop that runs.
        with ThreadPoolExecutor(1) as pool:
            app = pool.submit(asyncio.run, _application(session)).result()
        token = secrets.token_urlsafe()
        access = AccessControl(app, token, uploads, MAX_UPLOAD_BYTES)
        try:
            _, _, address, server = start_server(access, HOST, port)
        except OSError as error:
            where = "7860 to 7959" if port is None else str(port)
            raise OSError(
                f"Port {where} is in use. Choose another with --port, or stop its program."
            ) from error
        try:
            yield f"{address}?token={token}"
        finally:
            app.routes[-1].app.stop_event.set()  # gradio's streams, which have no other end
            server.close()


async def _application(session: Session) -> Any:
    """Return the ASGI application of the page."""
    import gradio
    from fastapi import FastAPI

    from diffwave.app.page import Page

    page = Page(session).build().queue(max_size=8)
    page.has_launched = True  # or gradio takes paths that no upload gave
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        "/",
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD_BYTES,
        run_history=False,
        **_looks(),
    )


def _looks() -> dict[str, Any]:
    """Return theme, style and script."""
    import gradio

    folder = Path(__file__).parent
    theme = gradio.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=FONTS,
        font_mono=FIXED_FONTS,
        radius_size="lg",
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
    )
    return {
        "theme": theme,
        "css": (folder / "page.css").read_text(),
        "head": f"<script>{(folder / 'page.js').read_text()}</script>",
    }


def serve(
    folder: Path,
    codec: Path,
    diffusion: Path | None,
    device: str,
    port: int | None,
    is_opening: bool,
) -> str:
    """Serve the page until Ctrl-C, and return its address.

    Args:
        folder: Folder of sounds and results.
        codec: Run folder, or a .ts file.
        diffusion: Run folder, or None.
        device: Device: auto, cpu, cuda, cuda:N or mps.
        port: Port; the first free one from 7860 if None.
        is_opening: Open a browser.

    Raises:
        ValueError: If the models cannot be used.
        OSError: If the port is taken.
    """
    with serving(Session(folder, codec, diffusion, device), port) as address:
        print(f"rave app: {address}   (Ctrl-C stops it)", file=sys.stderr, flush=True)
        with private_folder(folder) as private, contextlib.suppress(KeyboardInterrupt):
            if is_opening:
                open_browser(address, private / "open.html")
            threading.Event().wait()
    return address.partition("?")[0]


def open_browser(address: str, page: Path) -> None:
    """Open a browser by a file: all users of a machine see the words of a command line.

    Args:
        address: Address with the token.
        page: File to write, in a folder that only this user can read.
    """
    import webbrowser

    url = escape(address)
    page.write_text(
        f'<meta http-equiv="refresh" content="0; url={url}"><a href="{url}">rave app</a>'
    )
    webbrowser.open(page.resolve().as_uri())
