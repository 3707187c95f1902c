"""Pictures in and out: uploads, originals, thumbnails, and nothing from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fake_model import INFO, FakeModel, paint
from layouts import LAYOUTS
from serving import make_store, png, refusal
from shard_files import png as shaded
from shard_files import write_parquet

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi.testclient import TestClient

from unicross.contact_sheet import render
from unicross.data.images import load_square
from unicross.data.preparation import ExactResize, PictureRules
from unicross.data.records import ReadOptions
from unicross.serve.app import create_app
from unicross.serve.pictures import stored_picture
from unicross.serve.service import Settings
from unicross.store import Hit, Store, open_store
from unicross.store.index import index
from unicross.store.sources import AS_FOUND, Reading


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(
        create_app(FakeModel(), store, Settings(timeout_s=300)), base_url="http://localhost"
    ) as client:
        yield client


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
    with TestClient(
        create_app(FakeModel(), store, Settings(timeout_s=300)), base_url="http://localhost"
    ) as client:
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
    with TestClient(
        create_app(FakeModel(), store, Settings(timeout_s=300)), base_url="http://localhost"
    ) as client:
        for name in ("red.png", "blue.png", "white.png"):
            for url in (f"/images/{rows[name].id}", f"/images/{rows[name].id}/thumbnail"):
                answer = client.get(url)
                assert answer.status_code in (404, 415), (name, url)
                assert b"secret" not in answer.content
        for path in ("../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", str(secret), "%00"):
            assert client.get(f"/images/{path}").status_code == 404
            assert client.get(f"/static/{path}").status_code == 404


@pytest.mark.parametrize("name", ["shards", "shards_with_dots", "parquet", "arrow", "own column"])
def test_pictures_in_shards_are_served_from_where_they_lie(name: str, tmp_path: Path) -> None:
    reading = AS_FOUND
    if name == "own column":
        photos, masks = ([shaded(shade + number) for number in range(3)] for shade in (10, 20))
        write_parquet(
            tmp_path / "data" / "0.parquet", mask=masks, photo=photos, caption=["one", "two", "three"]
        )
        reading = Reading(options=ReadOptions(images=("photo",)))
    else:
        LAYOUTS[name][1](tmp_path / "data")
    store = open_store(str(tmp_path / "store"), INFO)
    assert index(FakeModel(), tmp_path / "data", store, reading=reading).added == 6
    rows = [row for row in store.scan() if row.kind == "image"]
    with TestClient(create_app(FakeModel(), store), base_url="http://localhost") as client:
        for row in rows:
            whole = client.get(f"/images/{row.id}")
            small = client.get(f"/images/{row.id}/thumbnail")
            assert (whole.status_code, small.status_code) == (200, 200)
            assert Image.open(io.BytesIO(whole.content)).format == "PNG"
        served = {client.get(f"/images/{row.id}").content for row in rows}
        assert len(served) == len(rows)
        assert name != "own column" or served == set(photos)
        assert "cannot be read" not in render("hits", [Hit(row, 0.5) for row in rows])
        for file in (tmp_path / "data").rglob("*.*"):
            file.unlink()
        assert client.get(f"/images/{rows[0].id}").status_code == 404


def test_a_shard_outside_the_indexed_folders_is_not_read(tmp_path: Path) -> None:
    LAYOUTS["shards"][1](tmp_path / "data")
    store = open_store(str(tmp_path / "store"), INFO)
    index(FakeModel(), tmp_path / "data", store)
    path = next(row.path for row in store.scan() if row.kind == "image")
    assert stored_picture(path, [str(tmp_path / "data")]) is not None
    assert stored_picture(path, [str(tmp_path / "other")]) is None
    assert stored_picture(f"{path}x", [str(tmp_path / "data")]) is None


class Exact(FakeModel):
    """Prepares pictures as a pretrained pair does, and keeps those that it sees."""

    picture_rules = PictureRules(16, ExactResize(16, 16, keeps_proportions=False), (0.5,) * 3, (0.5,) * 3)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen = pixels
        return super().encode_pixels(pixels)


def test_an_upload_is_prepared_as_the_same_picture_was_for_the_index(store: Store, tmp_path: Path) -> None:
    """Where a pair has a way of its own, a picture that was reduced before would have other pixels."""
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (300, 410, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    model = Exact()
    with TestClient(create_app(model, store), base_url="http://localhost") as client:
        assert client.post("/search", content=path.read_bytes()).status_code == 200
    np.testing.assert_array_equal(model.seen[0], load_square(path, 16, model.picture_rules.resize))


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
