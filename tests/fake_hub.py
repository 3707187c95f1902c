"""As much of the Hugging Face hub as one model or data set needs, on this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

COMMIT = "b" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers for one repository; every other name is not known."""

    path_of: ClassVar[str]
    """Of the repository in the API, `models/me/pair` or `datasets/me/pictures`."""
    files: ClassVar[Mapping[str, bytes]]
    asked: ClassVar[list[str]]
    """Every request, `GET /path`."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_POST(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        here = f"/{self.path_of.removeprefix('models/')}/resolve/"
        api = f"/api/{self.path_of}"
        known = path == api or path.startswith((f"{api}/tree/", f"{api}/revision/"))
        if "/tree/" in path and known:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0"}
                for name, content in self.files.items()
            ]
            data = json.dumps(tree).encode()
        elif known:
            siblings = [{"rfilename": name} for name in self.files]
            data = json.dumps({"id": "me/here", "sha": COMMIT, "siblings": siblings}).encode()
        else:
            name = path.removeprefix(here).partition("/")[2] if path.startswith(here) else ""
            data, known = self.files.get(name, b""), name in self.files
        self.send_response(200 if known else 404)
        if not known:
            missing = "EntryNotFound" if path.startswith(here) else "RepoNotFound"
            self.send_header("X-Error-Code", missing)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub_with(path_of: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that has a folder's files as one repository, and what it is asked for."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    asked: list[str] = []
    handler = type("OneRepository", (Hub,), {"path_of": path_of, "files": files, "asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
