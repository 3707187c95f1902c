"""What every request passes: allowed hosts, the API key, security headers, counting."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import unquote_to_bytes

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "unicross_key"
OPEN_PATHS = frozenset({"/", "/healthz"})
"""What is answered without a key; the page itself must load to ask for one."""

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": (
        b"default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
        b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}


class Metrics:
    """What `/metrics` tells, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "unicross_requests_total", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "unicross_request_seconds", "Time to answer.", ("route",), registry=self.registry
        )
        self.batch = Histogram(
            "unicross_encode_batch_size",
            "Queries in one forward of the model.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.rows = Gauge("unicross_rows", "Rows in the store.", registry=self.registry)


@dataclass
class AccessMiddleware:
    """ASGI middleware. `hosts` empty: under any host name; `key` None: without a key."""

    app: ASGIApp
    metrics: Metrics
    hosts: tuple[str, ...] = ()
    key: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS.items()]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self.app(scope, receive, send_with_headers)
            else:
                await _refuse(send_with_headers, *refusal)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: MutableMapping[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), value)
        if self.hosts and _host(headers.get(b"host", b"")) not in self.hosts:
            return 400, "this host name is not served here (--host, --allow-host)"
        path = scope["path"]
        if self.key is None or path in OPEN_PATHS or path.startswith("/static/"):
            return None
        if any(hmac.compare_digest(given, self.key.encode()) for given in _keys(headers)):
            return None
        return 401, "an API key is needed: send it as the header X-API-Key"


def _host(header: bytes) -> str:
    """`localhost:8000` -> `localhost`, `[::1]:8000` -> `[::1]`."""
    text = header.decode("latin-1").lower()
    return text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]


def _keys(headers: MutableMapping[bytes, bytes]) -> list[bytes]:
    keys = [headers.get(b"x-api-key", b"")]
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        keys.append(token.strip())
    try:
        cookies: SimpleCookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        cookies = SimpleCookie()
    if COOKIE in cookies:
        keys.append(unquote_to_bytes(cookies[COOKIE].value))  # the page writes it percent-encoded
    return keys


async def _refuse(send: Any, status: int, message: str) -> None:
    body = json.dumps({"error": {"status": status, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
