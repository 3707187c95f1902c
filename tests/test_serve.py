from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_model import COLOURS, FakeModel, paint

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from serving import make_store
from unicross.commands.serve import serve
from unicross.errors import StoreError
from unicross.serve.app import create_app
from unicross.serve.batching import BatchedEncoder
from unicross.serve.service import Settings
from unicross.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(FakeModel(), store), base_url="http://localhost") as client:
        yield client


def png(colour: str, size: tuple[int, int] = (30, 20), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [Path(hit["path"]).stem for hit in answer.json()["hits"]]


def refusal(answer: Any) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error["status"] == answer.status_code
    return answer.status_code, error["message"]


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


def test_pictures_and_thumbnails(client: TestClient, store: Store) -> None:
    ids = {Path(row.path).name: row.id for row in store.scan() if row.kind == "image"}
    whole = client.get(f"/images/{ids['red.png']}")
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    red_file = next(row.path for row in store.scan() if row.id == ids["red.png"])
    assert whole.content == Path(red_file).read_bytes()
    again = client.get(f"/images/{ids['red.png']}", headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    small = client.get(f"/images/{ids['red.png']}/thumbnail", params={"side": 160})
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (24, 20)  # never enlarged


def test_thumbnails_are_small_upright_and_follow_the_file(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    big = next(row for row in store.scan() if row.path.endswith("green.jpg") and row.kind == "image")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1200, 800), "green").save(big.path, exif=exif)
    with TestClient(create_app(FakeModel(), store), base_url="http://localhost") as client:
        first = client.get(f"/images/{big.id}/thumbnail")
        assert Image.open(io.BytesIO(first.content)).size == (320, 480)
        paint(Path(big.path), "purple", (900, 900))
        second = client.get(f"/images/{big.id}/thumbnail")
        assert Image.open(io.BytesIO(second.content)).size == (320, 320)
        assert first.headers["etag"] != second.headers["etag"]


def test_only_pictures_inside_the_indexed_folders_are_served(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    secret = paint(tmp_path / "outside" / "secret.png", "black")
    rows = {Path(row.path).name: row for row in store.scan() if row.kind == "image"}
    inside = Path(rows["red.png"].path)
    inside.unlink()
    inside.symlink_to(secret)  # a link out of the indexed folder
    Path(rows["blue.png"].path).write_text("no picture any more: a secret text")
    Path(rows["white.png"].path).unlink()
    with TestClient(create_app(FakeModel(), store), base_url="http://localhost") as client:
        for name in ("red.png", "blue.png", "white.png"):
            for url in (f"/images/{rows[name].id}", f"/images/{rows[name].id}/thumbnail"):
                answer = client.get(url)
                assert answer.status_code in (404, 415), (name, url)
                assert b"secret" not in answer.content
        for path in ("../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", str(secret), "%00"):
            assert client.get(f"/images/{path}").status_code == 404
            assert client.get(f"/static/{path}").status_code == 404


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
        ({"like": "nobody"}, 404, "no such id"),
    ],
)
def test_a_wrong_request_gets_a_sentence(
    client: TestClient, params: dict[str, str], status: int, message: str
) -> None:
    got, said = refusal(client.get("/search", params=params))
    assert (got, message in said) == (status, True), said


def test_a_wrong_upload_gets_a_sentence(store: Store) -> None:
    limits = Settings(max_upload_bytes=5000, max_pixels=10_000)
    with TestClient(create_app(FakeModel(), store, limits), base_url="http://localhost") as client:
        for body, status, message in [
            (b"", 422, "empty"),
            (b"GIF89a", 415, "no picture"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no picture"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no picture"),
            (png("red")[:60], 422, "damaged"),
            (png("red", (101, 100)), 413, "101×100 pixels"),
            (bytes(5001), 413, "more than 5000 bytes"),
        ]:
            got, said = refusal(client.post("/search", content=body))
            assert (got, message in said) == (status, True), (said, got)
        chunks = (bytes(1000) for _ in range(10))  # no length declared
        assert refusal(client.post("/search", content=chunks))[0] == 413


def test_limits_of_uploads_are_none_of_stored_pictures(store: Store) -> None:
    with TestClient(
        create_app(FakeModel(), store, Settings(max_pixels=100)), base_url="http://localhost"
    ) as client:
        id = client.get("/search", params={"q": "red", "k": 1}).json()["hits"][0]["id"]
        assert client.get(f"/images/{id}/thumbnail").status_code == 200
        assert refusal(client.post("/search", content=png("red")))[0] == 413


def test_an_api_key_guards_everything_but_the_page(store: Store) -> None:
    app = create_app(FakeModel(), store, Settings(api_key="open sésame; 1"))
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


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    static = Path(__file__).parents[1] / "src" / "unicross" / "serve" / "static"
    for file in static.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
        assert client.get(f"/static/{file.name}").status_code == 200


class Slow(FakeModel):
    """Waits in its first forward until told to go on; fails on the word `bang`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def encode_texts(self, texts: Any) -> Any:
        self.batches.append(len(texts))
        if len(self.batches) == 1:
            self.entered.set()
            assert self.go_on.wait(10)
        if "bang" in texts:
            raise RuntimeError("bang")
        return super().encode_texts(texts)


def test_concurrent_queries_share_a_forward() -> None:
    model = Slow()
    encoder = BatchedEncoder(model)
    results: dict[str, Any] = {}

    def ask(word: str) -> None:
        results[word] = encoder.encode_texts([word])[0]

    threads = [threading.Thread(target=ask, args=("red",))]
    threads[0].start()
    assert model.entered.wait(10)
    threads += [threading.Thread(target=ask, args=(word,)) for word in ("blue", "green", "white", "black")]
    for thread in threads[1:]:
        thread.start()
    while encoder._queue.qsize() < 4:
        pass
    model.go_on.set()
    for thread in threads:
        thread.join()
    assert model.batches == [1, 4]
    for word, vector in results.items():
        np.testing.assert_array_equal(vector, FakeModel().encode_texts([word])[0])
    encoder.close()


def test_a_failing_forward_reaches_who_asked_and_nobody_else() -> None:
    model = Slow()
    model.go_on.set()
    encoder = BatchedEncoder(model)
    with pytest.raises(RuntimeError, match="bang"):
        encoder.encode_texts(["bang"])
    assert encoder.encode_texts(["red"]).shape == (1, 16)
    encoder.close()


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
    monkeypatch.setattr("unicross.store.open_store", lambda _: store)
    monkeypatch.setattr("unicross.search.open_model", lambda *_: FakeModel())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StoreError, match=f"cannot listen on 127.0.0.1, port {port}: .*another --port"):
            serve("store", port=port, max_upload_mb=1, max_megapixels=1, timeout=1)
