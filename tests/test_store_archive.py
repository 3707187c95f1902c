"""Embeddings as Parquet: the last word on an id counts, whoever wrote it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake_model import INFO, FakeModel, gallery, paint
from unicross.errors import StoreError
from unicross.store import Row, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.copy import rebuild
from unicross.store.index import IndexReport, index


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
        "digest": "string",
        "extra": "string",
        "vector": "fixed_size_list<element: float>[16]",
    }
    assert pq.read_table(part)["extra"].to_pylist() == ['{"year": 2020}']


def test_archives_of_before_there_were_digests_are_read(tmp_path: Path) -> None:
    EmbeddingArchive(tmp_path).append([replace(row("a"), digest="d")])
    (part,) = tmp_path.glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["digest"]), part)
    for listed in tmp_path.glob("*.json"):
        listed.unlink()
    assert rows_of(EmbeddingArchive(tmp_path))["a"].digest == ""


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
    with pytest.raises(StoreError, match=r"not readable.*index or embed once more"):
        list(EmbeddingArchive(tmp_path).replay())
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "nonsense.parquet")  # of somebody else: left alone
    assert EmbeddingArchive(tmp_path).run == 2


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


@pytest.mark.parametrize("harm", ["flip", "remove part", "remove list", "spoil list"])
def test_an_archive_that_is_not_as_it_was_written_is_not_rebuilt_from(tmp_path: Path, harm: str) -> None:
    archive = EmbeddingArchive(tmp_path / "archive")
    archive.describe(INFO)
    archive.append([row("a"), row("b")])
    later = EmbeddingArchive(archive.folder)
    later.append([row("a", "newer"), row("c")])
    first = parts(archive.folder)[0]
    match harm:
        case "flip":
            flip(first)
        case "remove part":
            first.unlink()
        case "remove list":
            first.unlink()
            archive._own_list.unlink()
        case "spoil list":
            archive._own_list.write_text("[]")
    target = open_store(str(tmp_path / "store"), INFO)
    with pytest.raises(StoreError, match=r"not as it was written|lacks it now|not readable"):
        rebuild(EmbeddingArchive(archive.folder), target)
    assert target.count() == 0
    mended = EmbeddingArchive(archive.folder)
    problems, ids = mended.mend()
    assert len(problems) >= 1
    assert EmbeddingArchive(archive.folder).mend() == ([], ids)
    kept = {"a", "b", "c"} if harm == "spoil list" else {"a", "c"}
    assert rows_of(EmbeddingArchive(archive.folder)).keys() == ids == kept


def test_an_archive_without_rows_is_not_rebuilt_from(tmp_path: Path) -> None:
    archive = EmbeddingArchive(tmp_path / "archive")
    archive.describe(INFO)
    with pytest.raises(StoreError, match="holds no rows"):
        rebuild(archive, open_store(str(tmp_path / "store"), INFO))


def test_a_part_in_no_list_as_a_kill_leaves_is_taken_and_listed(tmp_path: Path) -> None:
    archive = EmbeddingArchive(tmp_path)
    archive.append([row("a")])
    archive._own_list.unlink()
    assert EmbeddingArchive(tmp_path).mend() == ([], {"a"})
    flip(parts(tmp_path)[0])
    with pytest.raises(StoreError, match="not as it was written"):
        rows_of(EmbeddingArchive(tmp_path))


def test_nothing_that_is_not_finite_is_archived(tmp_path: Path) -> None:
    bad = replace(row("a"), vector=np.full(16, np.nan, np.float32))
    with pytest.raises(StoreError, match="not finite"):
        EmbeddingArchive(tmp_path).append([row("b"), bad])
    assert parts(tmp_path) == []


@pytest.mark.parametrize("harm", ["deleted", "flipped", "newest lost", "removal lost"])
def test_indexing_fills_what_the_archive_of_a_store_lacks(tmp_path: Path, harm: str) -> None:
    """Whatever was lost, after `index` the archive rebuilds to just what the store holds."""
    folder = gallery(tmp_path / "photos")
    store = open_store(str(tmp_path / "store"), INFO)
    home = tmp_path / "store" / "embeddings"

    def run(**options: bool) -> IndexReport:
        return index(FakeModel(), folder, store, archive=EmbeddingArchive(home), **options)

    run()
    next(folder.rglob("*.png")).unlink()
    paint(next(folder.rglob("*.png")), "purple", (99, 98))
    run(prune=True)
    match harm:
        case "deleted":
            shutil.rmtree(home)
        case "flipped":
            flip(parts(home)[0])
        case "newest lost":
            changed = [path for path in parts(home) if "vector" in pq.read_schema(path).names]
            changed[-1].unlink()
        case "removal lost":
            next(path for path in parts(home) if "vector" not in pq.read_schema(path).names).unlink()
    report = run()
    assert report.unchanged == store.count()
    assert bool(report.archive_problems) == (harm != "deleted")
    assert (report.archived > 0) == (harm != "removal lost")
    assert (run().archived, run().archive_problems) == (0, [])
    again = open_store(str(tmp_path / "again"), INFO)
    rebuild(EmbeddingArchive(home), again)
    expected = {row.id: row for row in store.scan(vectors=True)}
    rebuilt = {row.id: row for row in again.scan(vectors=True)}
    assert rebuilt.keys() == expected.keys()
    for id, one in rebuilt.items():
        assert replace(one, vector=None) == replace(expected[id], vector=None)
        np.testing.assert_array_equal(one.vector, expected[id].vector)


def test_an_archive_of_several_stores_loses_nothing_by_indexing_into_one(tmp_path: Path) -> None:
    shared = EmbeddingArchive(tmp_path / "shared")
    shared.describe(INFO)
    shared.append([row("of another store")])
    store = open_store(str(tmp_path / "store"), INFO)
    index(FakeModel(), gallery(tmp_path / "photos"), store, archive=EmbeddingArchive(shared.folder))
    assert "of another store" in rows_of(EmbeddingArchive(shared.folder))
