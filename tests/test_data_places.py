"""Data from elsewhere: the hub by its cache and a server, object storage by fsspec and a local S3."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants as hub
import pytest
from typer.testing import CliRunner

from data_files import write
from fake_hub import hub_with
from fake_model import FakeModel
from layouts import CAPTIONS, LAYOUTS
from shard_files import png, write_parquet, write_tar
from unicross.cli import app
from unicross.data import places
from unicross.data.load import load_items
from unicross.data.places import local_copy
from unicross.errors import DataError
from unicross.store import open_store
from unicross.store.index import index


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and no waiting between tries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "WAIT_S", 0.0)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def in_hub_cache(cache: Path, name: str, make: Any, revision: str = "main") -> Path:
    """A data set as the hub's cache has it: links in a snapshot to files among the blobs."""
    repository = cache / f"datasets--{name.replace('/', '--')}"
    write(repository / "refs" / revision).write_text("a" * 40)
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    make(snapshot)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        blob = repository / "blobs" / str(number)
        path.rename(blob)
        path.symlink_to(blob)
    return snapshot


def parquet_splits(root: Path) -> None:
    (root / "data").mkdir()
    for number, split in enumerate(("train", "test")):
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, image=[{"bytes": png(number + 1), "path": "x.png"}], words=[CAPTIONS[number]])
    write(root / "README.md", "# A card")


def test_a_data_set_of_the_hub_that_is_cached(cache: Path) -> None:
    in_hub_cache(cache, "me/pictures", parquet_splits)
    result = CliRunner().invoke(app, ["data", "hf://me/pictures", "data.caption=words"])
    assert result.exit_code == 0, result.output
    assert "2 pairs" in result.output
    assert "to train: unicross train clip data.root=hf://me/pictures data.caption=words" in result.output
    with pytest.raises(DataError, match="no caption column"):
        load_items("hf://me/pictures")
    assert local_copy("hf://datasets/me/pictures/data").name == "data"


@pytest.mark.parametrize("name", ["imagefolder", "shards", "csv_table"])
def test_other_layouts_of_the_hub(name: str, cache: Path) -> None:
    in_hub_cache(cache, "me/pictures", LAYOUTS[name][1])
    items = load_items("hf://me/pictures").items
    assert sorted(text for item in items for text in item.captions) == sorted(CAPTIONS)


def test_pictures_of_the_hub_are_indexed_where_serving_finds_them(cache: Path, tmp_path: Path) -> None:
    from fake_model import INFO
    from unicross.serve.pictures import inside

    in_hub_cache(cache, "me/pictures", LAYOUTS["csv_table"][1])
    store = open_store(str(tmp_path / "store"), INFO)
    report = index(FakeModel(), local_copy("hf://me/pictures"), store, thumbnails=64)
    assert (report.added, report.thumbnails) == (6, 3)
    for row in store.scan():
        assert inside(row.path, store.info.roots) is not None


def test_a_data_set_that_is_not_cached_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match="hf download --repo-type dataset me/pictures --revision v2"):
        local_copy("hf://me/pictures@v2")
    with pytest.raises(DataError, match="hf://OWNER/NAME"):
        local_copy("hf://me/pic tures")


def test_revisions_and_folders(cache: Path) -> None:
    in_hub_cache(cache, "me/pictures", parquet_splits, "refs/convert/parquet")
    assert load_items("hf://me/pictures@~parquet/data", "test", options=places_options()).items
    with pytest.raises(DataError, match="no folder 'other'"):
        local_copy("hf://me/pictures@~parquet/other")


def places_options() -> Any:
    from unicross.data.records import ReadOptions

    return ReadOptions(captions=("words",))


def test_a_data_set_is_downloaded_once(tmp_path: Path) -> None:
    LAYOUTS["csv_table"][1](tmp_path / "source")
    script = (
        "from unicross.data.places import local_copy\n"
        "print(local_copy('hf://me/pictures'))\n"
        "try: local_copy('hf://me/other')\n"
        "except Exception as error: print(error)"
    )
    with hub_with("datasets/me/pictures", tmp_path / "source") as (address, _):
        called = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env=os.environ
            | {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"},
            check=True,
        )
    assert called.stdout.splitlines()[0].startswith(str(tmp_path / "hub"))
    assert "the hub has no data set 'me/other' that you may read" in called.stdout
    assert len(load_items("hf://me/pictures").items) == 3  # from the cache, when the hub is gone


@pytest.fixture
def bucket() -> Iterator[Any]:
    """A bucket in memory with two shards and a hidden object."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


def put_shards(system: Any, tmp_path: Path) -> None:
    for k in range(2):
        file = tmp_path / f"{k}.tar"
        write_tar(file, {f"{k}.png": png(k + 1), f"{k}.txt": CAPTIONS[k]})
        system.pipe(f"/bucket/train/{k}.tar", file.read_bytes())
    system.pipe("/bucket/train/.hidden", b"x")


def test_objects_are_copied_once_and_kept_in_step(bucket: Any, tmp_path: Path, monkeypatch: Any) -> None:
    put_shards(bucket, tmp_path)
    fetched: list[str] = []
    fetch = type(bucket).get_file
    monkeypatch.setattr(
        type(bucket), "get_file", lambda self, a, b, **more: (fetched.append(a), fetch(self, a, b, **more))
    )
    assert [item.captions[0] for item in load_items("memory://bucket/train").items] == list(CAPTIONS[:2])
    assert len(fetched) == 2
    load_items("memory://bucket/train/")
    assert len(fetched) == 2
    bucket.rm("/bucket/train/0.tar")
    write_tar(tmp_path / "1.tar", {"1.png": png(7), "1.txt": "another caption"})
    bucket.pipe("/bucket/train/1.tar", (tmp_path / "1.tar").read_bytes())
    assert [item.captions[0] for item in load_items("memory://bucket/train").items] == ["another caption"]


def test_one_object_is_a_source(bucket: Any, tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", image=[png(1)], caption=["one"])
    bucket.pipe("/bucket/x.parquet", (tmp_path / "x.parquet").read_bytes())
    assert load_items("memory://bucket/x.parquet").items[0].captions == ("one",)


def test_reads_are_tried_again_and_a_vanished_object_is_a_sentence(
    bucket: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    put_shards(bucket, tmp_path)
    fetch, failures = type(bucket).get_file, [TimeoutError("slow"), TimeoutError("slow")]

    def shaky(self: Any, *arguments: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        fetch(self, *arguments, **more)

    monkeypatch.setattr(type(bucket), "get_file", shaky)
    assert len(load_items("memory://bucket/train").items) == 2
    put_shards(bucket, tmp_path)
    failures += [TimeoutError("too slow")] * 100
    with pytest.raises(
        DataError, match=r"memory://bucket/train/\d.tar: cannot be read, tried 4 times: too slow"
    ):
        load_items("memory://bucket/train")
    failures[:] = [FileNotFoundError()] * 100
    with pytest.raises(DataError, match=r"train/\d.tar: not there \(any more\)"):
        load_items("memory://bucket/train")


def test_addresses_that_cannot_be_read(bucket: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(DataError, match="look at the address"):
        load_items("memory://bucket/nothing")
    with pytest.raises(DataError, match="not fetched from web pages"):
        load_items("https://example.org/x.tar")
    with pytest.raises(DataError, match="bogus:// cannot be read"):
        load_items("bogus://x")
    put_shards(bucket, tmp_path)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: type("usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"GB would be copied to .* where 0\.0 GB are free"):
        load_items("memory://bucket/train")


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Install gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(DataError, match=r"pip install 'unicross\[gcs\]'"):
        load_items("gs://bucket/train")


@pytest.mark.slow
def test_a_bucket_of_a_local_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        system = fsspec.filesystem("s3")
        system.mkdir("pictures")
        write_tar(tmp_path / "0.tar", {"0.png": png(1), "0.txt": CAPTIONS[0]})
        system.put_file(str(tmp_path / "0.tar"), "pictures/train/0.tar")
        items = load_items("s3://pictures/train").items
        assert [item.captions for item in items] == [(CAPTIONS[0],)]
        assert items[0].images[0].read() == png(1)
        with pytest.raises(DataError, match="s3://nowhere/train"):
            load_items("s3://nowhere/train")
    finally:
        server.stop()


def test_training_and_the_command_take_addresses(bucket: Any, tmp_path: Path) -> None:
    put_shards(bucket, tmp_path)
    result = CliRunner().invoke(app, ["data", "memory://bucket/train"])
    assert "2 pairs" in result.output
    assert "to train: unicross train clip data.root=memory://bucket/train" in result.output
