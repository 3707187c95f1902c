"""What the tests of the page share: a server in a thread, a browser, and a page that tells its errors."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_model import FakeModel
from milvus_server import free_port
from serving import make_store

pytest.importorskip("playwright", reason="playwright is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import uvicorn
from playwright.sync_api import Page, Request, expect, sync_playwright

from unicross.serve.app import create_app
from unicross.serve.service import Settings
from unicross.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=20_000)  # ms; the machine may be busy

MARKS = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


class Server(uvicorn.Server):
    """Uvicorn in a thread of this process."""

    def __init__(self, store: Store, settings: Settings | None = None) -> None:
        self.port = free_port()
        super().__init__(
            uvicorn.Config(create_app(FakeModel(), store, settings), port=self.port, log_level="error")
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.run)

    def __enter__(self) -> Server:
        self._thread.start()
        while not self.started:
            assert self._thread.is_alive()
        return self

    def __exit__(self, *error: object) -> None:
        self.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("page"), more=90)


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[Server]:
    with Server(store) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Open]:
    """Opens the page; in the end no script error and no request to elsewhere must have happened."""
    problems: list[str] = []
    contexts = []

    def open_page(path: str = "/", url: str = server.url, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1200, "height": 800}, **options)
        contexts.append(context)
        page: Page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))

        def watch(request: Request) -> None:
            if not request.url.startswith((url, "blob:", "data:")):
                problems.append(request.url)

        page.on("request", watch)
        page.goto(url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def tiles(page: Page) -> Any:
    return page.locator("a.tile")
