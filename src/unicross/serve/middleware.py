"""What every request passes: allowed hosts, the API keys, security headers, counting.

Most that are shed pass it in the connection (`connections.py`), before a task is made for them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import unquote_to_bytes

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unicross.serve.below import without_root
from unicross.serve.keys import Keys

COOKIE = "unicross_key"
OPEN_PATHS = frozenset({"/", "/healthz"})
"""What is answered without a key; the page itself must load to ask for one."""
NEVER_SHED = OPEN_PATHS | {"/metrics"}
"""What is answered whatever else waits."""

NO_KEY = 401, "an API key is needed: send it as the header X-API-Key"
WRONG_KEY = 401, "this API key is not known here: send one that is as the header X-API-Key"
OTHER_HOST = 400, "this host name is not served here (--host, --allow-host)"
FULL = 503, "too many requests wait here: try again in a moment"

Headers = Iterable[tuple[bytes, bytes]]
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
class Access:
    """Who is let in. `hosts`: the names under which the server answers, besides any IP address.

    `is_full` says whether too many requests wait; who comes then is told so before anything else is done for
    it, and to come back after `retry_after` seconds. `root_path` comes before the paths of requests where a
    proxy leaves it on.
    """

    metrics: Metrics
    hosts: tuple[str, ...]
    keys: Keys
    is_full: Callable[[], bool]
    retry_after: Callable[[], int]
    root_path: str = ""

    def refusal(self, path: str, headers: Headers) -> tuple[tuple[int, str] | None, str | None]:
        """Why a request is refused, None where it is not; and the name of its key, where it needs one."""
        named: MutableMapping[bytes, bytes] = {}
        for name, value in headers:
            named.setdefault(name.lower(), value)
        host = _host(named.get(b"host", b""))
        if host not in self.hosts and not _is_address(host):
            return OTHER_HOST, None
        is_static = path.startswith("/static/")
        full = FULL if not is_static and path not in NEVER_SHED and self.is_full() else None
        if not self.keys.are_wanted or path in OPEN_PATHS or is_static:
            return full, None
        given = [key for key in _keys(named) if key]
        key = self.keys.name_of(given)
        if key is None:
            return (WRONG_KEY if given else NO_KEY), None
        return full, key

    def shed(self, path: str, headers: Headers, more: Headers) -> bytes | None:
        """The whole answer, `more` headers in it, to a request that comes where too many wait; None where it
        is not shed."""
        if not self.is_full():
            return None
        started = time.perf_counter()
        refusal, key = self.refusal(without_root(path, self.root_path), headers)
        if refusal is not FULL:
            return None
        self.count_key(key)
        status, body, about = self.answer_to(refusal)
        lines = [*more, *about, *HEADERS.items(), (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        self.count("other", status, started)
        return b"HTTP/1.1 503 Service Unavailable\r\n%b\r\n%b" % (head, body)

    def answer_to(self, refusal: tuple[int, str]) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Status, body and headers that tell a refusal."""
        status, message = refusal
        body = json.dumps({"error": {"status": status, "message": message}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refusal is FULL:
            self.metrics.shed.inc()
            headers.append((b"retry-after", str(self.retry_after()).encode()))
        return status, body, headers

    def count_key(self, key: str | None) -> None:
        """A request came with a key of that name, or needed none."""
        if key is not None:
            self.metrics.keys.labels(key).inc()

    def count(self, route: str, status: int, started: float) -> None:
        """A request that came at `started` was answered."""
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - started)


@dataclass
class AccessMiddleware:
    """ASGI middleware."""

    app: ASGIApp
    access: Access

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
            refusal, key = self.access.refusal(scope["path"], scope["headers"])
            self.access.count_key(key)
            if refusal is None:
                await self.app(scope, receive, send_with_headers)
                return
            if refusal is WRONG_KEY:
                client = (scope.get("client") or ("",))[0]
                await asyncio.sleep(self.access.keys.delay_after_failure(client))
            code, body, headers = self.access.answer_to(refusal)
            await send_with_headers({"type": "http.response.start", "status": code, "headers": headers})
            await send_with_headers({"type": "http.response.body", "body": body})
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.access.count(route, status, started)


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
