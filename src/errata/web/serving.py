"""The server: on loopback, or behind a password; the browser fetches nothing from anywhere else."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from errata.errors import MissingExtra, SettingsError
from errata.facts import Fact
from errata.web.stored import Stored

if TYPE_CHECKING:
    from fastapi import FastAPI

    from errata.web.session import Session

HOST, PORT = "127.0.0.1", 7860
LARGEST_UPLOAD = "50mb"
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""What the browser may fetch: the page's own files. (Gradio writes scripts into its page, hence 'unsafe-inline'.)"""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
}
"""Set before Gradio is imported: it reports nothing, and shares nothing."""


def check_gradio() -> None:
    """Raise where there can be no page.

    Raises:
        MissingExtra: Gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise MissingExtra("The page is made with Gradio: pip install 'errata[web]'.")
    os.environ.update(QUIET)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, password: str | None) -> None:
    """Refuse to be reached from elsewhere without a password.

    Raises:
        SettingsError: the address is not loopback, and there is no password; or it is empty.
    """
    if password is not None and not password:
        raise SettingsError("The password is empty. Give one, or leave --password out.")
    if not is_loopback(host) and password is None:
        raise SettingsError(
            f"--host {host} lets others reach this page, who could then edit and read. Give a --password (or set "
            f"ERRATA_WEB_PASSWORD), or leave --host out: the page is then on {HOST}, for this machine alone."
        )


def bind(host: str, port: int) -> socket.socket:
    """Take the address; port 0 is any free one.

    Raises:
        SettingsError: it is taken, or not this machine's.
    """
    taken: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        if taken is not None:
            taken.close()
        raise SettingsError(
            f"The page cannot be at {host}, port {port}: {error.strerror or error}. Choose another: --port 0 takes "
            "any that is free."
        ) from error
    return taken


def make_app(
    session: Session | None,
    examples: Sequence[Fact] = (),
    stored: Stored | None = None,
    *,
    host: str = HOST,
    password: str | None = None,
) -> FastAPI:
    """The program that answers requests.

    Raises:
        SettingsError: as `check_host`.
        MissingExtra: Gradio is not installed.
    """
    check_host(host, password)
    check_gradio()
    import gradio as gr

    from errata.web import page, parts

    return gr.mount_gradio_app(
        _bare_app(host),
        page.make_page(session, examples, stored),
        path="",
        server_name=host,
        footer_links=[],
        auth=None if password is None else _door(password),
        auth_message="Any name, and the password that errata web was started with.",
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        theme=parts.theme(),
        css_paths=parts.CSS,
    )


def _bare_app(host: str) -> FastAPI:
    """A program without a page: it answers requests for this host alone, with `HEADERS` on every answer."""
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if is_loopback(host):  # a page elsewhere whose name is made to point here is not answered
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[", host])
    app.add_middleware(_Headers)
    return app


def serve(app: FastAPI, taken: socket.socket) -> None:
    """Answer until Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none")
    uvicorn.Server(config).run(sockets=[taken])


def _door(password: str) -> Callable[[str, str], bool]:
    def is_right(name: str, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8"), password.encode("utf-8"))

    return is_right


class _Headers:
    """Puts `HEADERS` on every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, with_headers)
