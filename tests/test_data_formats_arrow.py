"""Pictures in folders that `datasets` saved."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shard_files import CAPTIONS, PICTURES, png, shades, write_saved
from unicross.data.load import load_items
from unicross.errors import DataError


def test_a_folder_and_one_with_splits(tmp_path: Path) -> None:
    image = [{"bytes": p, "path": None} for p in PICTURES]
    parts: list[dict[str, Any]] = [
        {"image": image, "caption": CAPTIONS},
        {"image": image[:1], "caption": ["x"]},
    ]
    alone = write_saved(tmp_path / "alone", parts)
    items = load_items(alone).items
    assert shades(items) == [1, 2, None, 4, 5, 1]
    assert shades([items[5], items[3]]) == [1, 4]
    write_saved(tmp_path / "both" / "train", parts)
    write_saved(tmp_path / "both" / "test", parts[1:])
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert shades(load_items(tmp_path / "both", "test").items) == [1]
    assert len(load_items(tmp_path / "both", "train").items) == 6


def test_damage(tmp_path: Path) -> None:
    root = write_saved(tmp_path / "x", [{"caption": ["a"]}, {"caption": ["b"]}])
    file = root / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"00001-of-00002\.arrow: damaged shard"):
        load_items(root)
    assert len(load_items(root, on_error="skip").items) == 1
    (root / "state.json").write_text("{}")
    with pytest.raises(DataError, match="not a folder that `datasets` saved"):
        load_items(root)


def test_as_datasets_writes_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = pa.table({"image": [{"bytes": png(k), "path": None} for k in range(3)], "text": list("abc")})
    datasets.disable_progress_bars()
    data = datasets.Dataset(table).select([2, 0])
    data.save_to_disk(tmp_path / "x")
    items = load_items(tmp_path / "x").items
    assert (shades(items), [item.captions for item in items]) == ([2, 0], [("c",), ("a",)])
