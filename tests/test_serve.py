from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_model import FakeModel

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from serving import Slow, make_store, png, refusal
from unicross.commands.serve import serve
from unicross.errors import StoreError
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


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [Path(hit["path"]).stem for hit in answer.json()["hits"]]


def test_search_by_words(client: TestClient) -> None:
    answer = client.get("/search", params={"q": "red", "k": 3})
    assert names(answer)[0] == "red"
    hit = answer.json()["hits"][0]
    assert hit["score"] == pytest.approx(1, abs=1e-5)
    assert hit["path"] == "red.png"  # never the server's own folders
    assert hit["caption"] == "a red wall in the sun"
    assert hit["columns"] == {"author": "ann", "year": 2020}
    assert hit["picture"] == hit["id"]
    assert answer.json()["more"] is True


def test_search_by_picture_and_both(client: TestClient) -> None:
    assert names(client.post("/search", params={"k": 1}, content=png("blue"))) == ["blue"]
    both = client.post(
        "/search", params={"k": 1, "q": "yellow", "weight": 0.1}, content=png("blue", kind="JPEG")
    )
    assert names(both) == ["yellow"]
    texts = client.post("/search", params={"k": 1, "kind": "text"}, content=png("blue")).json()["hits"]
    assert texts[0]["caption"] == "the blue sea"
    assert client.get(f"/images/{texts[0]['picture']}").status_code == 200


def test_more_like_this_filters_and_pages(client: TestClient) -> None:
    red = client.get("/search", params={"q": "red", "k": 1}).json()["hits"][0]["id"]
    others = client.get("/search", params={"like": red, "k": 50})
    assert len(names(others)) == 5
    assert others.json()["more"] is False
    assert "red" not in names(others)
    ann = client.get("/search", params=[("q", "blue"), ("where", "author=ann"), ("where", "year>=2021")])
    assert names(ann) == ["white"]
    everything = names(client.get("/search", params={"q": "red", "k": 6}))
    assert names(client.get("/search", params={"q": "red", "k": 2, "offset": 3})) == everything[3:5]
    browsed = names(client.get("/browse", params={"k": 4})) + names(
        client.get("/browse", params={"offset": 4})
    )
    assert sorted(browsed) == ["black", "blue", "green", "red", "white", "yellow"]


def test_info_tells_what_can_be_filtered(client: TestClient) -> None:
    info = client.get("/info").json()
    assert info["rows"] == {"image": 6, "text": 3}
    assert dict(map(tuple, info["values"]["album"])) == {"photos": 1, "a": 2, "a/deep": 1, "b": 2}
    assert info["columns"]["year"] == "int"
    assert "a red wall in the sun" in info["examples"]


@pytest.mark.parametrize(
    ("params", "status", "message"),
    [
        ({"q": " "}, 400, "search text is empty"),
        ({}, 400, "search text is empty"),
        ({"q": "x" * 1001}, 422, "q: String should have at most 1000"),
        ({"q": "red", "k": "0"}, 422, "k: Input should be greater"),
        ({"q": "red", "k": "many"}, 422, "k: Input should be a valid integer"),
        ({"q": "red", "offset": "10000"}, 422, "offset"),
        ({"q": "red", "where": "colour=red"}, 400, "no column 'colour'"),
        ({"q": "red", "where": "nonsense"}, 400, "COLUMN=VALUE"),
        ({"q": "red", "kind": "sound"}, 422, "kind"),
        ({"q": "red", "colour": "red"}, 422, "colour: Extra inputs"),
        ({"q": "red", "minus": "red", "weight": "nan"}, 422, "weight"),
        ({"q": "red", "like": "x"}, 400, "not both"),
        ({"q": "red", "near": "0.9"}, 400, "ask for fold too"),
        ({"q": "red", "fold": "true", "near": "2"}, 422, "near: Input should be less"),
        ({"q": "red", "mode": "text", "min_score": "0.2"}, 400, "mode text finds what has the words"),
        ({"like": "nobody"}, 404, "no such id"),
    ],
)
def test_a_wrong_request_gets_a_sentence(
    client: TestClient, params: dict[str, str], status: int, message: str
) -> None:
    got, said = refusal(client.get("/search", params=params))
    assert (got, message in said) == (status, True), said


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    static = Path(__file__).parents[1] / "src" / "unicross" / "serve" / "static"
    for file in static.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
        assert client.get(f"/static/{file.name}").status_code == 200
        # a proxy may show the page below a path of its own, which it takes off
        assert not re.search(r"""(href|src|from|fetch\(|ask\()=? ?["'`]/""", text), file.name


def test_below_a_path_that_a_proxy_leaves_on(store: Store) -> None:
    app = create_app(FakeModel(), store, Settings(root_path="/photos", api_key="k"))
    with TestClient(app, base_url="http://localhost") as client:
        for prefix in ("/photos", ""):
            assert client.get(f"{prefix}/").status_code == 200
            assert client.get(f"{prefix}/static/app.js").status_code == 200
            assert refusal(client.get(f"{prefix}/search", params={"q": "red"}))[0] == 401
            answer = client.get(f"{prefix}/search", params={"q": "red"}, headers={"X-API-Key": "k"})
            assert names(answer)[0] == "red"
        assert client.get("/photosearch").status_code == 401
        redirect = client.get("/photos", follow_redirects=False)
        assert (redirect.status_code, redirect.headers["location"]) == (307, "/photos/")


def test_a_root_path_that_is_none_is_refused() -> None:
    for path in ("photos", "/photos/", "/a?b"):
        with pytest.raises(ValueError, match="pattern"):
            Settings(root_path=path)


def test_what_takes_too_long_is_given_up(store: Store) -> None:
    slow = Slow()
    app = create_app(slow, store, Settings(timeout_s=0.2))
    with TestClient(app, base_url="http://localhost") as client:
        status, message = refusal(client.get("/search", params={"q": "red"}))
        assert (status, "too long" in message) == (503, True)
        slow.go_on.set()
        assert client.get("/search", params={"q": "red"}).status_code == 200


def test_forms_are_told_to_send_the_picture_itself(client: TestClient) -> None:
    forms: list[dict[str, Any]] = [{"files": {"file": png("red")}}, {"json": {"q": "red"}}]
    for form in forms:
        status, said = refusal(client.post("/search", **form))
        assert status == 415
        assert "send the picture's bytes as they are" in said


def test_a_port_that_is_taken_is_a_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unicross.store.open_store", lambda _, **options: store)  # noqa: ARG005
    monkeypatch.setattr("unicross.search.open_model", lambda *_: FakeModel())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"cannot listen on 127.0.0.1, port {port}: .*another --port"):
            serve("store", port=port, max_upload_mb=1, max_megapixels=1, timeout=1)


def test_one_hit_for_each_value_of_a_column(client: TestClient) -> None:
    everything = client.get("/browse").json()["hits"]
    for path in ("/search?q=red", "/browse?"):
        hits = client.get(f"{path}&by=author").json()["hits"]
        authors = [hit["columns"].get("author") for hit in hits]
        assert sorted(authors, key=str) == [None, None, None, "ann", "bob"]  # who has none stands alone
        (ann,) = (hit for hit in hits if hit["columns"].get("author") == "ann")
        assert [other["columns"]["author"] for other in ann["others"]] == ["ann"]
        assert sum(1 + len(hit["others"]) for hit in hits) == len(everything)
        assert refusal(client.get(f"{path}&by=nothing"))[0] == 400
