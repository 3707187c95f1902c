"""Shards, Parquet files and saved data sets written for tests."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unicross.data.items import Item


def png(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 30, 30)).save(data, "PNG")
    return data.getvalue()


def write_tar(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, group: int = 2, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def write_saved(folder: Path, parts: Sequence[dict[str, Any]]) -> Path:
    """What `datasets.Dataset.save_to_disk` leaves."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        table = pa.table(part)
        with pa.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def shades(items: Sequence[Item]) -> list[int | None]:
    """The red of each item's picture."""
    return [
        None if not item.images else Image.open(io.BytesIO(item.images[0].read())).getpixel((0, 0))[0]
        for item in items
    ]


PICTURES = [png(1), png(2), None, png(4), png(5)]
CAPTIONS = ["one", "two", "three", None, "five"]
"""Columns of five rows, one without a picture and one without a caption."""
