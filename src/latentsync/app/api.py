"""Serves the page, and the same jobs as a gradio API, to requests with a known host name."""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from latentsync.app.engine import Engine
from latentsync.app.page import build_page
from latentsync.extras import needed_parts

with needed_parts():
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.requests import HTTPConnection
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Receive, Scope, Send


def serve(
    engine: Engine,
    *,
    host: str,
    port: int | None = None,
    wait: bool = True,
    allowed_hosts: Iterable[str] = (),
) -> gr.Blocks:
    """Serve the page; with `wait` until it is interrupted. Its address is `local_url`.

    `allowed_hosts`: host names to accept besides localhost and `host`.
    """
    page = build_page(engine)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        # Set explicitly, whatever the environment says: gradio's Node server has leaked tokens in
        # the past.
        ssr_mode=False,
        quiet=not wait,
        prevent_thread_lock=not wait,
        allowed_paths=[str(engine.jobs_dir)],
        app_kwargs={"middleware": [Middleware(KnownHosts, host=host, more=tuple(allowed_hosts))]},
    )
    return page


class KnownHosts:
    """Rejects requests whose Host header is not a known name of this page.

    Protects against DNS rebinding: another site can let its own name resolve to this machine, and a
    browser would then let it read the responses. IP addresses are safe: a page that listens on all
    addresses accepts any of them.
    """

    def __init__(self, app: ASGIApp, *, host: str, more: Iterable[str] = ()) -> None:
        self.app = app
        self.names = {"localhost", "127.0.0.1", "::1", host.lower(), *map(str.lower, more)}
        self.any_address = host in ("0.0.0.0", "::")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            asked = HTTPConnection(scope).headers.get("host", "")
            if not self.knows(asked):
                message = f"{asked!r} is no name of this page; --allowed-host adds one\n"
                await PlainTextResponse(message, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def knows(self, asked: str) -> bool:
        """Whether a Host header, with or without a port, is a known name of this page."""
        try:
            parts = urlsplit(f"//{asked}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.netloc != asked or "@" in asked:
            return False
        return name in self.names or (self.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
