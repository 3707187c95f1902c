"""Serving below a path of another server: `https://example.org/photos/` instead of an address of its own."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def without_root(path: str, root: str) -> str:
    """`/photos/search` -> `/search` with the root `/photos`; other paths as they are."""
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


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
        if (below := without_root(path, self.root)) != path:
            scope = {**scope, "path": below, "raw_path": None}
        await self.app(scope, receive, send)
