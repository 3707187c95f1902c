"""Indexing what one can train on: the same rows as of a folder, and their columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_model import INFO, FakeModel, gallery
from shard_files import png, write_parquet, write_tar
from unicross.store import Store, open_store
from unicross.store.index import index


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), INFO)


def test_a_table_with_its_columns(tmp_path: Path, store: Store) -> None:
    photos = gallery(tmp_path / "photos")
    table = photos / "shop.csv"
    table.write_text(
        "image,caption,year\nred.png,a red one,1999\ngone.png,nothing,1\na/deep/yellow.png,sun,2001\n"
    )
    model = FakeModel()
    report = index(model, table, store)
    assert (report.added, len(report.failed), model.pictures) == (4, 1, 2)
    assert "missing image" in report.failed[0].reason
    rows = {(row.kind, Path(row.path).name): row for row in store.scan()}
    assert (rows["image", "red.png"].caption, rows["image", "red.png"].extra) == ("a red one", {"year": 1999})
    assert rows["text", "yellow.png"].caption == "sun"
    assert (index(model, table, store).unchanged, model.pictures) == (4, 2)


def test_own_columns_named_as_those_of_items_are_not_lost(tmp_path: Path, store: Store) -> None:
    photos = gallery(tmp_path / "photos")
    table = photos / "shop.csv"
    table.write_text(
        "item_id,image,caption,item,Item,item_\n"
        "shoe,red.png,a red shoe,sku7,x,y\n"
        "shoe,a/blue.png,the same,sku7,x,y\n"
        "hat,a/deep/yellow.png,a hat,sku8,z,w\n"
    )
    index(FakeModel(), table, store)
    extras = {Path(row.path).name: dict(row.extra) for row in store.scan() if row.kind == "image"}
    own = {"item_id": "shoe", "item_": "sku7", "item__": "x", "item___": "y"}
    assert extras["red.png"] == extras["blue.png"] == {"item": "shoe", **own}
    assert extras["yellow.png"]["item"] == "hat"
    assert all(row.extra["item"] in ("shoe", "hat") for row in store.scan())


def test_without_items_such_a_column_keeps_its_name(tmp_path: Path, store: Store) -> None:
    photos = gallery(tmp_path / "photos")
    (photos / "shop.csv").write_text("image,caption,item\nred.png,a red one,sku7\n")
    index(FakeModel(), photos / "shop.csv", store)
    assert {row.extra["item"] for row in store.scan()} == {"sku7"}


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_are_indexed_and_gone_on_with(kind: str, tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "shards"
    if kind == "tar":
        members: dict[str, bytes | str] = {"a.png": png(1), "a.txt": "one", "b.png": png(2)}
        write_tar(folder / "0.tar", members | {"b.json": json.dumps({"caption": "two"})})
    else:
        write_parquet(folder / "0.parquet", image=[png(1), png(2)], caption=["one", "two"])
    model = FakeModel()
    assert index(model, folder, store).added == 4
    images = [row for row in store.scan() if row.kind == "image"]
    assert sorted(row.caption for row in images) == ["one", "two"]
    assert all(row.path.startswith(str(folder / f"0.{kind}/")) for row in images)
    assert (index(model, folder, store, prune=True).unchanged, model.pictures) == (4, 2)
