"""A store that was carried away from its pictures: the server shows the thumbnails that it keeps."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fake_model import INFO, FakeModel, paint
from layouts import LAYOUTS
from serving import make_store, png

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from unicross.serve.app import create_app
from unicross.serve.service import Settings
from unicross.store import Row, Store, open_store
from unicross.store.base import make_id
from unicross.store.index import index


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = make_store(tmp_path)
    index(FakeModel(), tmp_path / "photos", store, thumbnails=64)
    return store


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    settings = Settings(timeout_s=300)
    with TestClient(create_app(FakeModel(), store, settings), base_url="http://localhost") as client:
        yield client


def images(store: Store) -> dict[str, Row]:
    return {Path(row.path).name: row for row in store.scan() if row.kind == "image"}


def test_the_original_as_long_as_it_can_be_read_then_the_thumbnail(
    client: TestClient, store: Store, tmp_path: Path
) -> None:
    rows = images(store)
    red, text = rows["red.png"], next(row for row in store.scan() if row.kind == "text" and "red" in row.path)
    original = client.get(f"/images/{red.id}")
    assert original.content == Path(red.path).read_bytes()
    Path(rows["blue.png"].path).write_bytes(png("blue")[:60])  # there but damaged
    paint(Path(rows["white.png"].path), "purple")
    assert client.get(f"/images/{rows['white.png'].id}").headers["content-type"] == "image/png"
    assert client.get(f"/images/{rows['blue.png'].id}/thumbnail").status_code == 200
    assert client.get(f"/items/{red.id}").json()["shown"] == "original"
    shutil.rmtree(tmp_path / "photos")
    assert client.get(f"/items/{red.id}").json()["shown"] == "thumbnail"
    for url in (f"/images/{red.id}", f"/images/{red.id}/thumbnail?side=160", f"/images/{text.id}"):
        answer = client.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["etag"] != original.headers["etag"]
        assert Image.open(io.BytesIO(answer.content)).size == (24, 20)
    hits = client.get("/search", params={"like": red.id}).json()["hits"]
    assert {client.get(f"/images/{hit['picture']}").status_code for hit in hits} == {200}


def test_none_is_shown_of_what_the_originals_would_not_be_shown_of(
    client: TestClient, store: Store, tmp_path: Path
) -> None:
    rows = images(store)
    secret = paint(tmp_path / "outside" / "secret.png", "black")
    Path(rows["red.png"].path).unlink()
    Path(rows["red.png"].path).symlink_to(secret)  # a link out of the indexed folder, then to nowhere
    assert client.get(f"/images/{rows['red.png'].id}").status_code == 404
    secret.unlink()
    assert client.get(f"/images/{rows['red.png'].id}").status_code == 404
    Path(rows["blue.png"].path).unlink()
    assert client.get(f"/images/{rows['blue.png'].id}").status_code == 200
    store.remember(without=store.info.roots)
    assert client.get(f"/items/{rows['blue.png'].id}").json()["shown"] is None
    assert client.get(f"/images/{rows['blue.png'].id}").status_code == 404


def test_not_of_a_picture_that_the_store_has_no_more(client: TestClient, store: Store) -> None:
    red = images(store)["red.png"]
    Path(red.path).unlink()
    store.delete([red.id])
    assert client.get(f"/images/{red.id}/thumbnail").status_code == 404
    changed = images(store)["green.jpg"]  # nor of one that was embedded anew without its thumbnail
    Path(changed.path).unlink()
    store.upsert([Row(**{**changed.built_in, "size": 7}, vector=FakeModel().encode_texts(["green"])[0])])
    assert client.get(f"/images/{changed.id}/thumbnail").status_code == 404


def test_pictures_of_shards_that_are_gone(tmp_path: Path) -> None:
    LAYOUTS["shards"][1](tmp_path / "data")
    store = open_store(str(tmp_path / "store"), INFO)
    index(FakeModel(), tmp_path / "data", store, thumbnails=64)
    shutil.rmtree(tmp_path / "data")
    with TestClient(create_app(FakeModel(), store), base_url="http://localhost") as client:
        ids = [row.id for row in store.scan() if row.kind == "image"]
        assert [client.get(f"/images/{id}").status_code for id in ids] == 3 * [200]
        assert client.get(f"/images/{make_id('image', '/etc/passwd')}").status_code == 404
