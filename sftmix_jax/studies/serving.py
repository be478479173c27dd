"""The report of a workdir as a live page: a small server that only reads."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from sftmix_jax.analysis.report import files, render
from sftmix_jax.machine import escaping, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies import live
from sftmix_jax.studies.reporting import ability_of, chosen

_KEPT = 10.0  # seconds that a page is shown again before it is made anew
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data: blob:; connect-src 'self'; form-action 'none'",
}


def page(workdir: epath.Path, study: str) -> str:
    """The report as it would be written now, with what is going on above it."""
    try:
        found = files.read(workdir, chosen(workdir, study), ability_of)
        if found.is_empty:
            raise UserError("nothing is trained or scored yet")
        record = found.document().record()
    except (UserError, OSError) as error:
        record = {"title": workdir.name, "lead": [str(error)], "sections": [], "missing": [], "not_measured": ""}
    return render.page(record, live=live.state(workdir)["version"])


def app(workdir: epath.Path, study: str, hosts: Sequence[str]) -> Any:
    """GET / (the page), /live.json (`live.state`) and plotly's script; any other request is refused.

    A request must name one of `hosts` as its host: else a page on the web could read this one through a name of its own
    that leads here. Raises UserError where starlette is missing.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse, JSONResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise UserError("a live page needs starlette and uvicorn: pip install 'sftmix-jax[live]'") from None

    made: dict[str, tuple[float, str]] = {}

    def index(_: Any) -> Response:
        if "page" not in made or time.monotonic() - made["page"][0] > _KEPT:
            made["page"] = (time.monotonic(), page(workdir, study))
        return HTMLResponse(made["page"][1], headers=_HEADERS)

    def now(_: Any) -> Response:
        return JSONResponse(_shown(live.state(workdir)), headers=_HEADERS)

    def script(_: Any) -> Response:
        return Response(render.plotly_source(), media_type="text/javascript", headers=_HEADERS)

    routes = [Route("/", index), Route("/live.json", now), Route(f"/{render.SCRIPT}", script)]
    return Starlette(
        routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)]
    )


def _shown(value: Any) -> Any:
    """Texts with their control characters as escapes, as the report shows them; None for numbers that JSON lacks."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return escaping.visible(value)
        case dict():
            return {_shown(key): _shown(item) for key, item in value.items()}
        case list():
            return [_shown(item) for item in value]
    return value


def serve(workdir: epath.Path, study: str, address: str, port: int, hosts: Sequence[str]) -> None:
    """Serves until it is interrupted. Raises UserError for an address that cannot be listened on."""
    import socket

    made = app(workdir, study, [*hosts, address, "127.0.0.1", "localhost"])
    import uvicorn

    if ":" in address:
        raise UserError(f"--address {address}: an IPv6 address; name an IPv4 address or a host name")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
        listening.listen()  # whoever reads the address may connect, and waits until it is answered
    except OSError as error:
        raise UserError(
            f"--serve {port}: cannot listen on {address} ({error.strerror}); choose another port, or an address "
            "of this machine"
        ) from None
    if not workdir.exists():
        terminal.err(f"warning: {workdir} is not there yet; the page is empty until something is trained in it")
    terminal.out(f"http://{address}:{listening.getsockname()[1]}/")
    config = uvicorn.Config(made, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
