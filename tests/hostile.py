"""Malformed and hostile HTTP requests, the same for the same seed."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
from PIL import Image

TEXTS = [
    "",
    " ",
    "red",
    "\x00",
    "a\x00b",
    "' OR 1=1 --",
    '"; DROP TABLE rows; --',
    "<script>alert(1)</script>",
    "\u202egnp.exe",
    "e\u0301" * 300,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 50,
    "\ufeff\uffff\ufffe",
    "x" * 999,
    "x" * 5000,
    "%s%n%x",
    "${jndi:ldap://x}",
    "../../etc/passwd",
    "nan",
    "-1",
    "1e999",
    "9" * 400,
    "true",
    "red" * 300,
]
PATHS = [
    "/../../../etc/passwd",
    "/static/../../app.py",
    "/static/..%2f..%2fapp.py",
    "/static/%2e%2e/%2e%2e/app.py",
    "/static//etc/passwd",
    "/images/..%2f..%2f..%2fetc%2fpasswd",
    "/images/%00",
    "/images/%ff%fe",
    "/images/" + "a" * 3000,
    "/images//thumbnail",
    "/images/x/thumbnail?side=1000000",
    "/images/x/thumbnail?side=-1",
    "//evil.example/search?q=red",
    "/search/../../x",
    "/%",
    "/%zz",
    "/items/%F0%9F%92%A9",
    "/openapi.json?x=" + "y" * 2000,
    "/metrics/../search",
    "*",
]
COLUMNS = [
    "album",
    "size",
    "mtime",
    "year",
    "author",
    "kind",
    "id",
    "vector",
    "_rowid",
    "nothing",
    "path",
    "1",
]
PARAMETERS = ["q", "like", "minus", "where", "kind", "weight", "k", "offset", "colour", "q[]", ""]


def requests(count: int, seed: int = 0) -> Iterator[bytes]:
    """Whole requests as bytes on the wire, each asking for the connection to be closed."""
    rng = random.Random(seed)
    pictures = list(_pictures())
    for _ in range(count):
        match rng.randrange(10):
            case 0:
                yield _request(rng, "GET", rng.choice(PATHS))
            case 1 | 2 | 3:
                yield _request(rng, "GET", "/search?" + _query(rng))
            case 4:
                yield _request(rng, "GET", rng.choice(["/browse?", "/info?", "/healthz?"]) + _query(rng))
            case 5 | 6:
                yield _request(
                    rng, "POST", "/search?" + _query(rng, gentle=True), _damaged(rng, rng.choice(pictures))
                )
            case 7:
                yield _request(rng, "POST", "/search", rng.choice(pictures))
            case 8:
                yield _request(
                    rng, rng.choice(["PUT", "DELETE", "TRACE", "OPTIONS", "BREW", "HEAD"]), "/search?q=red"
                )
            case _:
                yield _broken_http(rng)


def _query(rng: random.Random, *, gentle: bool = False) -> str:
    parts = []
    for _ in range(rng.randrange(1, 4)):
        name, value = rng.choice(PARAMETERS), rng.choice(TEXTS)
        if name == "where" or rng.random() < 0.2:
            value = rng.choice(COLUMNS) + rng.choice(["=", "!=", "<", ">=", "~", ""]) + value
        parts.append(f"{name}={quote(value, safe='')}" if rng.random() < 0.9 else f"{name}=%ff%C0%AF{name}%")
    if gentle:
        parts = [part for part in parts if not part.startswith(("q[]", "colour", "="))]
    return "&".join(parts)[:6000]


def _request(rng: random.Random, method: str, target: str, body: bytes | None = None) -> bytes:
    host = (
        "localhost" if rng.random() < 0.97 else rng.choice(["evil.example", "", "[::1", "localhost:99999999"])
    )
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    if rng.random() < 0.1:
        lines.append(
            rng.choice(
                ["Cookie: unicross_key=\xff;;=;", 'If-None-Match: "', "Range: bytes=5-1", "X: " + "y" * 4000]
            )
        )
    if body is not None:
        kind = rng.choice(
            ["image/jpeg", "multipart/form-data", "application/json; charset=\xff", "x" * 200, ""]
        )
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def _broken_http(rng: random.Random) -> bytes:
    post = b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    return rng.choice(
        [
            b"GET\r\n\r\n",
            rng.randbytes(200) + b"\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /search?q=red HTTP/1.1\r\nConnection: close\r\n\r\n",
            post + b"Content-Length: -5\r\n\r\n",
            post + b"Content-Length: 99999999999999\r\n\r\nx",
            post + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            chunked + b"ZZ\r\n",
            chunked + b"5\r\nhello\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
            b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /search?q=\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ]
    )


def _pictures() -> Iterator[bytes]:
    """Good ones, bombs, liars and other files."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        yield _encode(Image.fromarray(pixels), kind)
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"):
        kind = "PNG" if mode not in ("CMYK", "F") else "TIFF"
        yield _encode(Image.new(mode, (33, 21)), kind)
    yield _encode(Image.new("1", (6000, 6000)), "PNG")  # 36 megapixels in a few kilobytes
    yield png_claiming(100_000, 100_000)
    yield png_claiming(2**31 - 1, 2**31 - 1)
    yield png_claiming(0, 0)
    yield _encode(Image.new("RGB", (1, 20_000)), "PNG")
    yield b""
    yield b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) (r) file\n"
    yield b"\xff\xd8\xff\xe0" + bytes(500)
    yield b"\x89PNG\r\n\x1a\n" + bytes(500)
    yield b"GIF89a" + b"\xff" * 500
    yield b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(100)
    yield b"PK\x03\x04" + bytes(100)
    yield zlib.compress(bytes(10_000_000))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _encode(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _damaged(rng: random.Random, picture: bytes) -> bytes:
    data = bytearray(picture)
    if data and rng.random() < 0.6:
        for _ in range(rng.randrange(1, 30)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.4:
        del data[rng.randrange(len(data) + 1) :]
    return bytes(data)
