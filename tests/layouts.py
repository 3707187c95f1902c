"""Small data sets in the layouts in which users have them, for tests: each is three pairs."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_files import entry, karpathy, picture, write
from shard_files import png, write_parquet, write_saved, write_tar

CAPTIONS = ("a red box", "two cats", "a dog, brown")


def csv_rows(folder: str = "", suffix: str = "jpg") -> list[str]:
    return [f'{folder}{k}.{suffix},"{text}"' for k, text in enumerate(CAPTIONS)]


def pictures(folder: Path) -> None:
    for k in range(3):
        picture(folder / f"{k}.jpg")


def flickr8k(root: Path) -> None:
    pictures(root / "Images")
    write(root / "Flickr8k.token.txt", *(f"{k}.jpg#0\t{text}" for k, text in enumerate(CAPTIONS)))


def karpathy_json(root: Path) -> None:
    pictures(root / "images")
    entries = (entry(f"{k}.jpg", "train", text) for k, text in enumerate(CAPTIONS))
    karpathy(root / "dataset_flickr8k.json", *entries)


def csv_table(root: Path) -> None:
    pictures(root / "images")
    write(root / "captions.csv", "image,caption", *csv_rows())


def semicolons_with_a_mark(root: Path) -> None:
    pictures(root)
    rows = [f'{k}.jpg;"{text}"' for k, text in enumerate(CAPTIONS)]
    (root / "c.csv").write_text("image;caption\r\n" + "\r\n".join(rows), encoding="utf-8-sig", newline="")


def kaggle_results(root: Path) -> None:
    """With the row that lacks a separator."""
    pictures(root / "flickr30k_images")
    write(
        root / "results.csv",
        "image_name| comment_number| comment",
        f"0.jpg| 0| {CAPTIONS[0]}",
        f"1.jpg| 4   {CAPTIONS[1]}",
        f"2.jpg| 0| {CAPTIONS[2]}",
    )


def windows_paths(root: Path) -> None:
    pictures(root / "pics")
    rows = [f'C:\\Users\\me\\pics\\{k}.jpg,"{text}"' for k, text in enumerate(CAPTIONS[:2])]
    write(root / "c.csv", "image,caption", *rows, f'pics\\2.jpg,"{CAPTIONS[2]}"')


def jsonl(root: Path) -> None:
    pictures(root)
    write(root / "x.jsonl", *(json.dumps({"image": f"{k}.jpg", "text": t}) for k, t in enumerate(CAPTIONS)))


def json_array(root: Path) -> None:
    pictures(root)
    (root / "x.json").write_text(
        json.dumps([{"image": f"{k}.jpg", "captions": [t]} for k, t in enumerate(CAPTIONS)])
    )


def json_by_picture(root: Path) -> None:
    pictures(root)
    (root / "x.json").write_text(json.dumps({f"{k}.jpg": t for k, t in enumerate(CAPTIONS)}))


def split_tables(root: Path) -> None:
    pictures(root / "images")
    for k, split in enumerate(("train", "val", "test")):
        write(root / f"{split}.csv", "filepath,title", f'images/{k}.jpg,"{CAPTIONS[k]}"')


def tables_in_split_folders(root: Path) -> None:
    for k, split in enumerate(("train", "val", "test")):
        picture(root / split / "same.jpg")
        write(root / split / "captions.csv", "image,caption", f'same.jpg,"{CAPTIONS[k]}"')


def coco(root: Path) -> None:
    for split, of in (("train", (0, 1)), ("val", (2,))):
        for k in of:
            picture(root / f"{split}2017" / f"{k}.jpg")
        content = {
            "images": [{"id": 10 + k, "file_name": f"{k}.jpg"} for k in of],
            "annotations": [{"id": k, "image_id": 10 + k, "caption": CAPTIONS[k]} for k in of],
        }
        file = write(root / "annotations" / f"captions_{split}2017.json")
        file.write_text(json.dumps(content))


def imagefolder(root: Path) -> None:
    for split, of in (("train", (0, 1)), ("test", (2,))):
        for k in of:
            picture(root / split / f"{k}.jpg")
        rows = [json.dumps({"file_name": f"{k}.jpg", "text": CAPTIONS[k]}) for k in of]
        write(root / split / "metadata.jsonl", *rows)


def imagefolder_csv(root: Path) -> None:
    pictures(root)
    write(root / "metadata.csv", "file_name,text", *csv_rows())


def imagefolder_parquet(root: Path) -> None:
    pictures(root / "sub")
    names = [f"sub/{k}.jpg" for k in range(3)]
    pq.write_table(pa.table({"file_name": names, "text": list(CAPTIONS)}), root / "metadata.parquet")


def texts_beside(root: Path) -> None:
    for k, suffix in enumerate((".txt", ".jpg.txt", ".caption")):
        picture(root / f"{k}.jpg")
        write(root / f"{k}{suffix}", CAPTIONS[k])


def images_and_captions(root: Path) -> None:
    for k, text in enumerate(CAPTIONS):
        picture(root / "images" / "sub" / f"{k}.jpg")
        write(root / "captions" / "sub" / f"{k}.txt", text)


def img2dataset_files(root: Path) -> None:
    rows = []
    for k, text in enumerate(CAPTIONS):
        picture(root / "00000" / f"{k:09d}.jpg")
        write(root / "00000" / f"{k:09d}.txt", text)
        write(root / "00000" / f"{k:09d}.json", json.dumps({"caption": text, "key": f"{k:09d}"}))
        rows.append({"url": f"http://x/{k}.jpg", "caption": text, "key": f"{k:09d}", "status": "success"})
    rows.append(
        {"url": "http://x/3.jpg", "caption": "gone", "key": f"{3:09d}", "status": "failed_to_download"}
    )
    pq.write_table(pa.Table.from_pylist(rows), root / "00000.parquet")


def img2dataset_parquet(root: Path) -> None:
    write_parquet(
        root / "00000.parquet",
        jpg=[png(1), png(2), png(3), None],
        caption=[*CAPTIONS, "gone"],
        url=["http://x/1.jpg"] * 4,
        key=list("0123"),
        status=["success"] * 3 + ["failed_to_download"],
    )


def shards(root: Path) -> None:
    members: dict[str, bytes | str] = {}
    for k, text in enumerate(CAPTIONS):
        members |= {f"{k}.png": png(k), f"{k}.txt": text}
    write_tar(root / "00000.tar", members)


def shards_with_dots(root: Path) -> None:
    members: dict[str, bytes | str] = {}
    for k, text in enumerate(CAPTIONS):
        members |= {f"2021.05.{k}.png": png(k), f"2021.05.{k}.txt": text}
    write_tar(root / "00000.tar", members)


def parquet(root: Path) -> None:
    write_parquet(root / "x.parquet", image=[png(1), png(2), png(3)], caption=list(CAPTIONS))


def arrow(root: Path) -> None:
    write_saved(root / "saved", [{"image": [png(1), png(2), png(3)], "caption": list(CAPTIONS)}])
    for file in (root / "saved").iterdir():
        file.rename(root / file.name)
    (root / "saved").rmdir()


def label_studio(root: Path) -> None:
    pictures(root / "images")
    tasks = []
    for k, text in enumerate(CAPTIONS):
        value = {"from_name": "caption", "to_name": "image", "type": "textarea", "value": {"text": [text]}}
        annotations = [{"result": [value]}, {"was_cancelled": True, "result": [value]}]
        prefix = ("/data/upload/3/0123abcd-", "/data/local-files/?d=images/", "")[k]
        tasks.append({"id": k, "data": {"image": f"{prefix}{k}.jpg"}, "annotations": annotations})
    (root / "export.json").write_text(json.dumps(tasks))


LAYOUTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    make.__name__: (format, make)
    for format, make in (
        ("flickr", flickr8k),
        ("karpathy", karpathy_json),
        ("table", csv_table),
        ("table", semicolons_with_a_mark),
        ("table", kaggle_results),
        ("table", windows_paths),
        ("table", jsonl),
        ("table", json_array),
        ("table", json_by_picture),
        ("table", split_tables),
        ("table", tables_in_split_folders),
        ("coco", coco),
        ("imagefolder", imagefolder),
        ("imagefolder", imagefolder_csv),
        ("imagefolder", imagefolder_parquet),
        ("folder", texts_beside),
        ("folder", images_and_captions),
        ("folder", img2dataset_files),
        ("parquet", img2dataset_parquet),
        ("tar", shards),
        ("tar", shards_with_dots),
        ("parquet", parquet),
        ("arrow", arrow),
        ("label_studio", label_studio),
    )
}
"""By name: the format that each is of, and what writes it into a folder."""


def photo(path: Path, description: str) -> None:
    """A picture with an EXIF description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x010E] = description
    Image.new("RGB", (8, 6), (200, 30, 30)).save(path, exif=exif)
