"""What every request passes: allowed hosts, the API keys, security headers, counting."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import unquote_to_bytes

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unicross.serve.keys import Keys

COOKIE = "unicross_key"
OPEN_PATHS = frozenset({"/", "/healthz"})
"""What is answered without a key; the page itself must load to ask for one."""
NEVER_SHED = OPEN_PATHS | {"/metrics"}
"""What is answered whatever else waits."""

NO_KEY = 401, "an API key is needed: send it as the header X-API-Key"
WRONG_KEY = 401, "this API key is not known here: send one that is as the header X-API-Key"
FULL = 503, "too many requests wait here: try again in a moment"

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
        self.keys = Counter(
            "unicross_key_requests_total",
            "Requests by the name of their key.",
            ("key",),
            registry=self.registry,
        )
        self.shed = Counter(
            "unicross_shed_total", "Requests refused at once, as too many waited.", registry=self.registry
        )
        self.rows = Gauge("unicross_rows", "Rows in the store.", registry=self.registry)


@dataclass
class AccessMiddleware:
    """ASGI middleware. `hosts`: the names under which it answers, besides any IP address.

    `is_full` says whether too many requests wait; who comes then is told so before anything else is done for
    it, and to come back after `retry_after` seconds.
    """

    app: ASGIApp
    metrics: Metrics
    hosts: tuple[str, ...]
    keys: Keys
    is_full: Callable[[], bool]
    retry_after: Callable[[], int]

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
                headers: tuple[tuple[bytes, bytes], ...] = ()
                if refusal is WRONG_KEY:
                    await asyncio.sleep(self.keys.delay_after_failure((scope.get("client") or ("",))[0]))
                elif refusal is FULL:
                    self.metrics.shed.inc()
                    headers = ((b"retry-after", str(self.retry_after()).encode()),)
                await _refuse(send_with_headers, *refusal, headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: MutableMapping[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), value)
        host = _host(headers.get(b"host", b""))
        if host not in self.hosts and not _is_address(host):
            return 400, "this host name is not served here (--host, --allow-host)"
        path = scope["path"]
        is_static = path.startswith("/static/")
        full = FULL if not is_static and path not in NEVER_SHED and self.is_full() else None
        if not self.keys.are_wanted or path in OPEN_PATHS or is_static:
            return full
        given = [key for key in _keys(headers) if key]
        name = self.keys.name_of(given)
        if name is None:
            return WRONG_KEY if given else NO_KEY
        self.metrics.keys.labels(name).inc()
        return full


def _is_address(host: str) -> bool:
    """Whether it is an IP address: a page elsewhere can point a name of its own here, but no address."""
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


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


async def _refuse(send: Any, status: int, message: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    body = json.dumps({"error": {"status": status, "message": message}}).encode()
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*about, *headers]})
    await send({"type": "http.response.body", "body": body})
