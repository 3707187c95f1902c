"""Who is let in: named keys from a file, host names; and who comes when too many do, or says half a thing."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fake_model import FakeModel
from serving import Slow, make_store, png, refusal

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import uvicorn
from fastapi.testclient import TestClient

from unicross.commands.serve import serve
from unicross.errors import StoreError
from unicross.serve import connections, keys
from unicross.serve.app import create_app
from unicross.serve.connections import configuration
from unicross.serve.keys import Keys, read_keys
from unicross.serve.service import Settings
from unicross.store import Store

ANN, BOB = "a" * 20, "b" * 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of two keys; changes to it are seen at once, and wrong keys wait a moment."""
    monkeypatch.setattr(keys, "LOOK_S", 0)
    monkeypatch.setattr(keys, "FIRST_DELAY_S", 0.001)
    path = tmp_path / "keys"
    path.write_text(f"# who may\nann {ANN}\nbob\t{BOB}  # until May\n\n")
    return path


def test_named_keys_come_and_go_without_a_restart(store: Store, file: Path) -> None:
    app = create_app(FakeModel(), store, Settings(keys=file))
    with TestClient(app, base_url="http://localhost") as client:

        def asked(key: str) -> int:
            return client.get("/browse", headers={"X-API-Key": key}).status_code

        assert (asked(ANN), asked(BOB), asked("c" * 20), asked("")) == (200, 200, 401, 401)
        file.write_text(f"ann {ANN}\ncarl {'c' * 20}\n")
        assert (asked(ANN), asked(BOB), asked("c" * 20)) == (200, 401, 200)
        counted = client.get("/metrics", headers={"X-API-Key": ANN}).text
        assert 'unicross_key_requests_total{key="ann"} 3.0' in counted


def test_a_spoilt_file_of_keys_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = Keys(file)
    for text in ("ann short\n", "", None):
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        assert known.name_of([BOB.encode()]) == "bob"
    assert sum("stay as they were" in record.message for record in caplog.records) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ann\n", ":1: write NAME KEY"),
        ("ann aaaa\n", "with 16 characters or more"),
        (f"ann {ANN}\nann {BOB}\n", ":2: there are two keys of the name ann"),
        ("# nothing\n", "there is no key in it"),
    ],
)
def test_a_wrong_file_of_keys_gets_a_sentence_without_the_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(StoreError) as caught:
        read_keys(tmp_path / "keys")
    assert said in str(caught.value)
    assert ANN not in str(caught.value)
    with pytest.raises(StoreError, match="keys cannot be read"):
        read_keys(tmp_path / "none")


def test_keys_are_never_logged(store: Store, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = create_app(FakeModel(), store, Settings(keys=file, api_key="secret of one"))
    with TestClient(app, base_url="http://localhost") as client:
        for key in (ANN, "secret of one", "wrong of a stranger"):
            for path in ("/browse", "/items/nobody", "/search?where=nonsense"):
                client.get(path, headers={"X-API-Key": key})
                client.get(path, headers={"Authorization": f"Bearer {key}"})
        file.write_text(f"ann {'d' * 30}\n")
        client.get("/browse", headers={"X-API-Key": ANN})
    for secret in (ANN, BOB, "d" * 30, "secret of one", "wrong of a stranger"):
        assert secret not in caplog.text


def test_wrong_keys_wait_longer_each_time_by_address_and_right_ones_never(file: Path) -> None:
    known = Keys(file)
    delays = [known.delay_after_failure("10.0.0.1") for _ in range(40)]
    assert delays == sorted(delays)
    assert delays[3] == 8 * delays[0]
    assert delays[-1] == keys.LONGEST_DELAY_S
    assert known.delay_after_failure("10.0.0.2") == delays[0]
    for number in range(keys.MOST_ADDRESSES + 10):
        known.delay_after_failure(f"address {number}")
    assert len(known._failures) == keys.MOST_ADDRESSES


def test_a_wrong_key_is_answered_after_its_delay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("unicross.serve.middleware.asyncio.sleep", sleep)
    with TestClient(
        create_app(FakeModel(), store, Settings(api_key="k")), base_url="http://localhost"
    ) as client:
        assert client.get("/info").status_code == 401
        assert client.get("/info", headers={"X-API-Key": "k"}).status_code == 200
        assert slept == []
        assert "not known here" in refusal(client.get("/info", headers={"X-API-Key": "wrong"}))[1]
        assert slept == [keys.FIRST_DELAY_S]


def test_any_address_and_no_other_name_is_answered(store: Store) -> None:
    with TestClient(create_app(FakeModel(), store, Settings(hosts=("photos.example",)))) as client:
        for host in ("photos.example", "PHOTOS.example:80", "192.168.1.7:8080", "[fe80::1]:8080"):
            assert client.get("/info", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "", "1.2.3.4.evil.example", "localhost"):
            assert client.get("/info", headers={"Host": host}).status_code == 400, host


@pytest.mark.parametrize(("options", "warned"), [({}, True), ({"api_key": "k"}, False)])
def test_an_open_server_without_a_key_says_so(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    warned: bool,
) -> None:
    seen: list[Settings] = []

    def app_of(model: object, store: Store, settings: Settings) -> Any:
        del model, store
        seen.append(settings)
        return SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(start=lambda: None)))

    monkeypatch.setattr("unicross.store.open_store", lambda *_, **__: store)
    monkeypatch.setattr("unicross.search.open_model", lambda *_: FakeModel())
    monkeypatch.setattr("unicross.serve.app.create_app", app_of)
    monkeypatch.setattr("unicross.serve.connections.run", lambda *_: None)
    limits = {"port": 0, "max_upload_mb": 1, "max_megapixels": 1, "timeout": 1}
    serve("store", host="0.0.0.0", **limits, **options)  # type: ignore[arg-type]
    assert ("warning: whoever reaches" in capsys.readouterr().err) == warned
    assert socket.gethostname().lower() in seen[0].hosts
    serve("store", host="127.0.0.1", **limits)  # type: ignore[arg-type]
    assert "warning" not in capsys.readouterr().err


def test_a_full_queue_is_shed_at_once_and_health_is_told(store: Store) -> None:
    slow = Slow()
    app = create_app(slow, store, Settings(timeout_s=30, max_waiting=2))
    with TestClient(app, base_url="http://localhost") as client:
        statuses: list[int] = []
        asking = [
            threading.Thread(target=lambda: statuses.append(client.get("/search?q=red").status_code))
            for _ in range(2)
        ]
        for thread in asking:
            thread.start()
        while app.state.service._waiting < 2:
            time.sleep(0.01)
        for ask in (client.get, client.post):
            answer = ask("/search", params={"q": "red"})
            assert refusal(answer) == (503, "too many requests wait here: try again in a moment")
            assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert client.get("/search", params={"k": "many"}).status_code == 503  # before it is looked at
        assert client.get("/healthz").status_code == 200
        assert "unicross_shed_total 3.0" in client.get("/metrics").text
        slow.go_on.set()
        for thread in asking:
            thread.join()
        assert statuses == [200, 200]
        assert client.get("/search", params={"q": "red"}).status_code == 200


def ask(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by their small names, and body of an answer over a socket of its own."""
    connection = HTTPConnection("localhost", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


SHED = "/search", "/search?k=many", "/photos/search", "/nowhere", "/photos/images/1"
NEVER_SHED = "/healthz", "/photos/healthz", "/%68ealthz", "/photos/static/app.js", "/photos/", "/metrics"


def test_a_connection_sheds_what_the_application_would(store: Store) -> None:
    """A GET is answered before the application sees it, and a POST by the application: both alike."""
    with running(create_app(FakeModel(), store, Settings(max_waiting=0, root_path="/photos"))) as port:
        status, headers, body = ask(port, "/search")
        other_status, other_headers, other_body = ask(port, "/search", png("red"))
        assert (status, json.loads(body)) == (other_status, json.loads(other_body))
        assert headers.pop("connection") == "close"
        for each in (headers, other_headers):
            assert 1 <= int(each.pop("retry-after")) <= 30
            each.pop("date")
        assert headers == other_headers
        assert [ask(port, path)[0] for path in SHED] == [503] * len(SHED)
        assert [ask(port, path)[0] for path in NEVER_SHED] == [200] * len(NEVER_SHED)
        assert ask(port, "/search", Host="evil.example")[0] == 400
        counted = ask(port, "/metrics")[2].decode()
    assert "unicross_shed_total 7.0" in counted
    assert 'unicross_requests_total{route="other",status="503"} 7.0' in counted


def test_keys_are_asked_for_and_counted_where_too_many_wait(store: Store, file: Path) -> None:
    with running(create_app(FakeModel(), store, Settings(max_waiting=0, keys=file))) as port:
        ann = {"X-API-Key": ANN}
        assert [ask(port, "/search")[0], ask(port, "/search", **ann)[0]] == [401, 503]
        assert b'unicross_key_requests_total{key="ann"} 2.0' in ask(port, "/metrics", **ann)[2]
        assert b'unicross_key_requests_total{key="ann"} 3.0' in ask(port, "/metrics", **ann)[2]


@pytest.mark.parametrize("body", [b"", b"Content-Length: 5\r\n\r\nhello"])
def test_what_follows_a_request_that_is_shed_is_not_answered(store: Store, body: bytes) -> None:
    asked = b"GET /search HTTP/1.1\r\nHost: localhost\r\n" + (body or b"\r\n")
    with (
        running(create_app(FakeModel(), store, Settings(max_waiting=0))) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(3 * asked)
        client.settimeout(60)
        received = b""
        while part := client.recv(4096):
            received += part
    assert received.startswith(b"HTTP/1.1 503 ")
    assert received.count(b"HTTP/1.1") == 1


def test_uploads_beyond_what_memory_is_meant_for_are_shed(store: Store) -> None:
    app = create_app(FakeModel(), store, Settings(max_reading=0))
    with TestClient(app, base_url="http://localhost") as client:
        assert refusal(client.post("/search", content=png("red")))[0] == 503


def test_a_store_that_was_moved_away_is_one_sentence_everywhere(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    id = next(row.id for row in store.scan() if row.kind == "image")
    app = create_app(FakeModel(), store, Settings(timeout_s=600))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        shutil.move(tmp_path / "store", tmp_path / "elsewhere")
        answers = {
            path: client.get(path)
            for path in (
                *("/search?q=red", "/browse", "/info", "/healthz", "/metrics", f"/search?like={id}"),
                *(f"/items/{id}", f"/images/{id}", f"/images/{id}/thumbnail", "/browse?where=album=a"),
            )
        }
        answers["POST"] = client.post("/search", content=png("red"))
    said = {path: refusal(answer) for path, answer in answers.items() if answer.status_code != 200}
    assert set(said.values()) == {(503, "the store does not answer: the server's log says why")}
    assert len(said) >= len(answers) - 1


@contextmanager
def running(app: Any) -> Iterator[int]:
    """A real server in a thread; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(configuration(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("before", [b"", HEAD[:20], HEAD, HEAD + b"\r\n" + HEAD[:20]])
def test_a_client_that_says_half_a_thing_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    monkeypatch.setattr(connections, "IDLE_S", 0.3)  # counts where the head came with the request before
    with (
        running(create_app(FakeModel(), store)) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.settimeout(60)
        client.sendall(before)
        received = b""
        while part := client.recv(4096):
            received += part
        assert received.startswith(b"HTTP/1.1 200") == (b"\r\n\r\n" in before)


def test_a_client_that_speaks_in_time_is_answered_again_and_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 20)
    with (
        running(create_app(FakeModel(), store)) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.settimeout(60)
        for _ in range(3):
            client.sendall(HEAD[:10])
            client.sendall(HEAD[10:] + b"\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("head", [b"GET /?", HEAD, HEAD + b"X-Long: "], ids=["address", "fields", "a field"])
def test_a_head_without_end_is_refused(store: Store, head: bytes) -> None:
    more = b"X-A: b\r\n" if head == HEAD else b"a"
    with (
        running(create_app(FakeModel(), store)) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.settimeout(60)
        client.sendall(head)
        with contextlib.suppress(ConnectionError):  # it hangs up before all is sent
            for _ in range(1000):
                client.sendall(more * (65536 // len(more)))
            pytest.fail("65 MB of a head were read")
