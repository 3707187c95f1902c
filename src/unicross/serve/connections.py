"""The server's HTTP connections: a client that does not finish its request's head holds none, nor memory."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unicross.serve.middleware import Access

HEAD_S = 10.0
"""Longest time for the head of a request to come in, in seconds."""
LONGEST_HEAD = 64 * 1024
"""Bytes of a request's head, about: a whole read is looked at before it is counted."""
IDLE_S = 10
"""Longest time between two requests of a connection."""
MOST_CONNECTIONS = 1000
"""At one time; who comes then is answered with 503 at once."""
FINISH_S = 10
"""How long requests may take to finish when the server is asked to stop."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, closed where a request's head is not there in time, or has no end.

    uvicorn itself waits for ever for the first request, and for the rest of a head of which a byte came, and
    keeps all that comes of it. httptools reads a request sooner than h11 does, and reading is much of what a
    crowd waits for that is refused. A GET that is shed is answered where its head was read, and its
    connection closed: a task, and the application's layers, take longer than all the rest of a refusal.
    """

    access: Access
    """Who is let in."""
    _deadline: asyncio.TimerHandle | None = None
    _head: int | None = None
    """Bytes since a head began that has not ended."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > LONGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")
        if self._is_between_requests():
            self._expect_head()
        else:
            self._forget_deadline()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        self._head = None
        if not self._is_shed():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:  # else the first request was shed
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _is_shed(self) -> bool:
        """Answer a request where too many wait. Not uploads, which the end of the connection would cut off
        before their sender reads the answer."""
        if self.transport.is_closing():
            return True
        if not self._is_between_requests() or self.parser.get_method() != b"GET":
            return False
        path = unquote(httptools.parse_url(self.url).path.decode("ascii"))
        answer = self.access.shed(path, self.headers, self.server_state.default_headers)
        if answer is None:
            return False
        self.transport.write(answer)
        self.transport.close()
        return True

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._give_up)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()


def run(app: FastAPI, sockets: list[socket.socket] | None = None, **options: Any) -> None:
    """Serve an application of `create_app` until it is told to stop."""
    gc.collect()
    gc.freeze()  # what is there by now stays, and takes a third of a second each time it is looked through
    uvicorn.Server(configuration(app, **options)).run(sockets=sockets)


def configuration(app: FastAPI, **options: Any) -> uvicorn.Config:
    """How uvicorn serves an application of `create_app`: connections and their limits as above."""
    return uvicorn.Config(
        app,
        http=type("Connection", (Connection,), {"access": app.state.access}),
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=FINISH_S,
        limit_concurrency=MOST_CONNECTIONS,
        **options,
    )
