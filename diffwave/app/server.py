"""Serve the page on this machine, to this machine, with no request to any other."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffwave.app.workshop import MAX_FILE_GB, Workshop

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"
MAX_UPLOAD = f"{MAX_FILE_GB}gb"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
FIXED_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
UPLOADS = ".uploads"
# A browser asks no other host, whatever a page or a library says.
CONTENT_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; form-action 'self'; "
    "frame-ancestors 'self'; object-src 'none'"
)


class LocalOnly:
    """Forbid the browser to ask another host, and answer none that was asked under another name.

    A page elsewhere may let its own name point to this machine; what it asks has that name.

    Args:
        app: The ASGI application behind.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", [])]
                headers += [
                    (b"content-security-policy", CONTENT_POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
                message = {**message, "headers": headers}
            await send(message)

        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").rpartition(":")[0]
            if host not in (HOST, "localhost"):
                await send({"type": "http.response.start", "status": 403, "headers": []})
                await send({"type": "http.response.body", "body": b"Only for this machine."})
                return
        await self._app(scope, receive, send_with_policy)


def start(shop: Workshop, port: int | None = None) -> tuple[gradio.Blocks, str]:
    """Start serving in the background, and return the page and its address.

    Args:
        shop: What the page plays with.
        port: The first free one from 7860 if None.

    Raises:
        OSError: If the port is taken.
    """
    # Read when gradio is imported: it would ask for its newest version, and keep files elsewhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(shop.folder / UPLOADS)
    from starlette.middleware import Middleware

    from diffwave.app.page import Page

    blocks = Page(shop).build()
    try:
        _, address, _ = blocks.queue(max_size=8).launch(
            server_name=HOST,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            ssr_mode=False,
            footer_links=[],
            enable_monitoring=False,
            allowed_paths=[str(shop.folder)],
            max_file_size=MAX_UPLOAD,
            app_kwargs={"middleware": [Middleware(LocalOnly)], "docs_url": None, "redoc_url": None},
            **_looks(),
        )
    except OSError as error:
        where = "7860 to 7959" if port is None else str(port)
        raise OSError(
            f"Port {where} is taken. Choose another with --port, or end what uses it."
        ) from error
    return blocks, address


def _looks() -> dict[str, Any]:
    """Return theme, style and script, as `launch` takes them."""
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
        folder: Keeps sounds and results.
        codec: Run folder, or a .ts file.
        diffusion: Run folder, or None.
        device: As for the commands.
        port: The first free one from 7860 if None.
        is_opening: Open a browser.

    Raises:
        ValueError: If the models cannot be used.
        OSError: If the port is taken.
    """
    blocks, address = start(Workshop(folder, codec, diffusion, device), port)
    print(f"rave app: {address}   (Ctrl-C ends it)", file=sys.stderr, flush=True)
    if is_opening:
        import webbrowser

        webbrowser.open(address)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        blocks.close(verbose=False)
        shutil.rmtree(folder / UPLOADS, ignore_errors=True)
    return address
