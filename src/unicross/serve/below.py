"""Serving below a path of another server: `https://example.org/photos/` instead of an address of its own."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class BelowPath:
    """ASGI middleware: takes `root` off the paths of requests.

    A proxy may take it off itself or leave it on. The page's own addresses are relative, so it needs no root.
    """

    app: ASGIApp
    root: str
    """Such as `/photos`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path == self.root:
            await RedirectResponse(f"{self.root}/")(scope, receive, send)  # relative addresses need the slash
            return
        if path.startswith(f"{self.root}/"):
            scope = {**scope, "path": path[len(self.root) :], "raw_path": None}
        await self.app(scope, receive, send)
