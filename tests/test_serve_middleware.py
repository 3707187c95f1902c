"""Who is let in, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fake_model import FakeModel
from serving import make_store, refusal

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from unicross.serve.app import create_app
from unicross.serve.service import Settings
from unicross.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(FakeModel(), store), base_url="http://localhost") as client:
        yield client


def test_an_api_key_guards_everything_but_the_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unicross.serve.keys.FIRST_DELAY_S", 0.0)
    app = create_app(FakeModel(), store, Settings(api_key="open sésame; 1", timeout_s=300))
    key = "open sésame; 1".encode()
    with TestClient(app, base_url="http://localhost") as client:
        id = next(iter(store.scan())).id
        for path in (
            "/search?q=red",
            "/browse",
            "/info",
            "/metrics",
            f"/images/{id}",
            f"/items/{id}",
            "/openapi.json",
        ):
            assert refusal(client.get(path))[0] == 401
            assert client.get(path, headers={"X-API-Key": "wrong"}).status_code == 401
            assert client.get(path, headers={b"X-API-Key": key}).status_code == 200
        assert client.get("/", headers={}).status_code == 200
        assert client.get("/static/app.js").status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.get("/info", headers={b"Authorization": b"Bearer " + key}).status_code == 200
        cookie = "unicross_key=open%20s%C3%A9same%3B%201"
        assert client.get("/info", headers={"Cookie": cookie}).status_code == 200


def test_other_host_names_are_refused(store: Store) -> None:
    with TestClient(create_app(FakeModel(), store)) as client:
        assert refusal(client.get("/info", headers={"Host": "evil.example:8080"}))[0] == 400
        assert client.get("/info", headers={"Host": "127.0.0.1:8080"}).status_code == 200
        assert client.get("/info", headers={"Host": "[::1]:8080"}).status_code == 200


def test_metrics_count_requests_by_route(client: TestClient) -> None:
    client.get("/items/nobody")
    text = client.get("/metrics").text
    assert 'unicross_requests_total{route="/items/{id}",status="404"}' in text
    assert "unicross_rows 9.0" in text
    assert "unicross_encode_batch_size_count" in text
