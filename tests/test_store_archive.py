"""Embeddings as Parquet: the last word on an id counts, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_model import INFO, FakeModel
from unicross.errors import StoreError
from unicross.store import Row, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.copy import rebuild


def row(id: str, caption: str = "", **extra: str | int) -> Row:
    vector = FakeModel().encode_texts([id])[0]
    return Row(id, "image", f"/p/{id}.jpg", 7, 1.5, caption, "album", extra, vector)


def rows_of(archive: EmbeddingArchive) -> dict[str, Row]:
    return {row.id: row for rows in archive.replay() for row in rows}


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows = [row("a", "Ünï", year=2020), row("b")]
    EmbeddingArchive(tmp_path).append(rows)
    again = rows_of(EmbeddingArchive(tmp_path))
    for old in rows:
        assert replace(again[old.id], vector=None) == replace(old, vector=None)
        np.testing.assert_array_equal(again[old.id].vector, old.vector)
    (bare,) = EmbeddingArchive(tmp_path).replay(vectors=False)
    assert [row.vector for row in bare] == [None, None]


def test_the_last_word_on_an_id_counts(tmp_path: Path) -> None:
    first = EmbeddingArchive(tmp_path)
    first.append([row("a", "old"), row("b", "old"), row("c", "old")])
    first.append([row("a", "new")])
    second = EmbeddingArchive(tmp_path)  # a later run
    second.forget(["b", "a"])
    second.append([row("b", "back")])
    assert {id: row.caption for id, row in rows_of(second).items()} == {"b": "back", "c": "old"}


def test_several_processes_write_in_one_run(tmp_path: Path) -> None:
    driver = EmbeddingArchive(tmp_path)
    for id in "abc":
        EmbeddingArchive(tmp_path, driver.run).append([row(id)])
    assert rows_of(driver).keys() == {"a", "b", "c"}
    assert EmbeddingArchive(tmp_path).run == driver.run + 1


def test_the_columns_of_a_part_are_what_they_always_were(tmp_path: Path) -> None:
    """Archives outlive versions of this package: each must read those of the others."""
    EmbeddingArchive(tmp_path).append([row("a", year=2020)])
    (part,) = tmp_path.glob("*.parquet")
    schema = pq.read_schema(part)
    assert {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)} == {
        "id": "string",
        "kind": "string",
        "path": "string",
        "size": "int64",
        "mtime": "double",
        "caption": "string",
        "album": "string",
        "extra": "string",
        "vector": "fixed_size_list<element: float>[16]",
    }
    assert pq.read_table(part)["extra"].to_pylist() == ['{"year": 2020}']


def test_an_archive_belongs_to_one_model(tmp_path: Path) -> None:
    archive = EmbeddingArchive(tmp_path / "archive")
    archive.describe(INFO.model_copy(update={"roots": ("/one",)}))
    archive.describe(INFO.model_copy(update={"roots": ("/two",)}))
    assert archive.info.roots == ("/one", "/two")
    other = INFO.model_copy(update={"fingerprint": "other-1"})
    with pytest.raises(StoreError, match="filled by another model"):
        archive.describe(other)
    with pytest.raises(StoreError, match="filled by another model"):
        rebuild(archive, open_store(str(tmp_path / "other"), other))


def test_what_is_no_archive_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no archive of embeddings"):
        EmbeddingArchive(tmp_path).info  # noqa: B018
    (tmp_path / "00000001-aaaaaaaa-000000.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match="remove it and index again"):
        list(EmbeddingArchive(tmp_path).replay())
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "nonsense.parquet")  # of somebody else: left alone
    assert EmbeddingArchive(tmp_path).run == 2
