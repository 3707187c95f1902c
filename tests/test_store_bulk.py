"""Embedding folders without a store: in this process, and over Ray Data on a cluster of two nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fake_model import INFO, FakeModel, gallery, paint
from shard_files import png, write_parquet, write_tar
from unicross.data.records import ReadOptions
from unicross.store import open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.bulk import _in_shards, _Worker, embed_source
from unicross.store.index import index
from unicross.store.sources import Reading, read_rows

RUN = """
import json, sys
from pathlib import Path
import ray
from fake_model import FakeModel
from ray.cluster_utils import Cluster
from unicross.store import StoreInfo
from unicross.store.bulk import embed_source_ray

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
nodes = len([node for node in ray.nodes() if node["Alive"]])
model = FakeModel()
info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16)
steps, reports = [], []
folder, out, captions, shards = map(Path, sys.argv[1:])
for place, texts in ((folder, captions), (folder, captions), (shards, None), (shards, None)):
    report = embed_source_ray(
        FakeModel, info, place, out, captions=texts,
        on_progress=lambda done, total: steps.append((done, total)), workers=2,
    )
    reports.append([report.added, report.unchanged, [failure.reason for failure in report.failed]])
print(json.dumps({"nodes": nodes, "reports": reports, "last": steps[-1]}))
ray.shutdown()
cluster.shutdown()
"""


def test_two_folders_in_one_archive(tmp_path: Path) -> None:
    photos, other = gallery(tmp_path / "photos"), tmp_path / "other"
    paint(other / "pink.png", (250, 100, 150))
    for folder in (photos, other):
        embed_source(FakeModel(), INFO, folder, tmp_path / "out", captions=None, on_progress=lambda *_: None)
    archive = EmbeddingArchive(tmp_path / "out")
    assert archive.info.roots == (str(photos.resolve()), str(other.resolve()))
    assert sum(map(len, archive.replay())) == 7


def shop(folder: Path) -> Path:
    """A table of pictures with a column of its own, in which one is missing."""
    gallery(folder)
    (folder / "shop.csv").write_text("image,caption,year\nred.png,a red one,1999\ngone.png,nothing,1\n")
    return folder / "shop.csv"


def shards(folder: Path) -> Path:
    bad = {"c.png": b"no picture", "c.txt": "three"}
    write_tar(folder / "0.tar", {"a.png": png(1), "a.txt": "one", "b.png": png(2), **bad})
    return folder


def parquet(folder: Path) -> Path:
    image = [png(1), png(2), b"no picture"]
    return write_parquet(folder / "0.parquet", image=image, caption=["one", "two", "three"])


@pytest.mark.parametrize("make", [shop, shards, parquet])
def test_what_is_indexed_is_embedded_to_the_same_rows(make: Callable[[Path], Path], tmp_path: Path) -> None:
    place, model = make(tmp_path / "data"), FakeModel()
    archive = EmbeddingArchive(tmp_path / "out")
    store = open_store(str(tmp_path / "store"), INFO)
    indexed = index(model, place, store)
    model.pictures = 0
    first, second = (
        embed_source(model, INFO, place, archive.folder, captions=None, on_progress=lambda *_: None)
        for _ in range(2)
    )
    assert (first.added, first.failed) == (indexed.added, indexed.failed)
    assert all(failure.reason.startswith(("not an image", "missing image")) for failure in first.failed)
    assert (second.added, second.unchanged, model.pictures) == (0, first.added, first.added // 2)
    rebuilt = open_store(str(tmp_path / "rebuilt"), INFO)
    for rows in archive.replay():
        rebuilt.upsert(rows)
    assert archive.info.roots == store.info.roots
    assert sorted(rebuilt.scan(vectors=False), key=lambda row: row.id) == sorted(
        store.scan(vectors=False), key=lambda row: row.id
    )


def test_columns_of_other_names_are_embedded_here_and_by_a_worker(tmp_path: Path) -> None:
    place = write_parquet(tmp_path / "0.parquet", photo=[png(1), png(2)], title=["one", "two"])
    options = ReadOptions(images=("photo",), captions=("title",))
    embed_source(
        FakeModel(),
        INFO,
        place,
        tmp_path / "out",
        captions=None,
        reading=Reading(options=options),
        on_progress=lambda *_: None,
    )
    rows = [row for part in EmbeddingArchive(tmp_path / "out").replay() for row in part]
    assert sorted((row.kind, row.caption) for row in rows) == [
        *(("image", "one"), ("image", "two")),
        *(("text", "one"), ("text", "two")),
    ]
    assert {image.read() for image in _in_shards(rows).values()} == {png(1), png(2)}


@pytest.mark.parametrize("make", [shop, shards, parquet])
def test_a_worker_finds_the_pictures_where_they_lie(make: Callable[[Path], Path], tmp_path: Path) -> None:
    place = make(tmp_path / "data")
    embed_source(FakeModel(), INFO, place, tmp_path / "here", captions=None, on_progress=lambda *_: None)
    catalog = read_rows(place, None)
    rows = [*catalog.images.values(), *(catalog.texts or {}).values()]
    EmbeddingArchive(tmp_path / "there").describe(INFO)
    _Worker(FakeModel, str(tmp_path / "there"), 1)({"row": [json.dumps(asdict(row)) for row in rows]})
    here, there = (
        {row.id: row for part in EmbeddingArchive(tmp_path / name).replay() for row in part}
        for name in ("here", "there")
    )
    assert {id: row.digest for id, row in there.items()} == {id: row.digest for id, row in here.items()}
    for id, row in here.items():
        np.testing.assert_array_equal(there[id].vector, row.vector)


@pytest.mark.slow
def test_two_nodes_embed_what_one_process_does(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    photos = gallery(tmp_path / "photos")
    for number in range(30):
        paint(photos / "many" / f"{number}.png", (number * 8, 255 - number * 8, 90))
    (photos / "bad.png").write_bytes(b"no picture")
    (tmp_path / "captions.csv").write_text("image,caption,year\nred.png,a red wall,2020\n")
    for number in range(2):
        write_tar(
            tmp_path / "shards" / f"{number}.tar", {"a.png": png(9), "a.txt": "one", "b.png": b"broken"}
        )
    places = ("photos", "out", "captions.csv", "shards")
    result = subprocess.run(
        [sys.executable, "-c", RUN, *(str(tmp_path / name) for name in places)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "300",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    reason = "not an image, or of a kind that Pillow does not know: replace it or remove it"
    assert said["nodes"] == 2
    assert said["reports"] == [
        [37, 0, [reason]],
        [0, 37, [reason]],
        [4, 0, [reason] * 2],
        [0, 4, [reason] * 2],
    ]
    rows = {row.id: row for part in EmbeddingArchive(tmp_path / "out").replay() for row in part}
    assert len(rows) == 41
    in_shards = {row.path for row in rows.values() if row.kind == "image" and row.caption == "one"}
    assert in_shards == {f"{tmp_path}/shards/{number}.tar/a" for number in range(2)}
    (red,) = [row for row in rows.values() if row.path.endswith("/red.png") and row.kind == "image"]
    assert red.extra == {"year": 2020}
    assert all(row.extra == {} for row in rows.values() if not row.path.endswith("/red.png"))
    np.testing.assert_allclose(red.vector, FakeModel().encode_texts(["red"])[0], atol=1e-6)
