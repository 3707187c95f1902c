"""Memory of large data sets: 100,000 and 1,000,000 synthetic pictures (16×16 JPEG) in each kind of source.

    python benchmarks/data_memory.py [--sizes 100000 1000000] [--kinds parquet tar arrow] [--group 100]

For each source and size, in a process of its own: seconds to open it the first time and again (a tar's
index is made the first time), seconds to tokenise the captions, seconds of the digest that resuming
compares, pictures decoded a second in random order, and the process's resident memory in MB after each
(`anonymous` leaves out pages of mapped files, which the system takes back when it needs them). One JSON line
each. The data are written to a temporary folder and removed: about 1 GB a source at 1,000,000.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PER_FILE = 50_000
TEXT = "a the red blue green small large dog cat tree house on under beside sky sea"
WORDS = TEXT.split()


def pictures(count: int) -> list[bytes]:
    """Different small JPEG files."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        data = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(data, "JPEG")
        found.append(data.getvalue())
    return found


def samples(count: int) -> Iterator[tuple[str, list[bytes], list[str]]]:
    """Numbers, pictures and captions (about 50 characters) of one file after another."""
    drawn = pictures(500)
    for start in range(0, count, PER_FILE):
        rows = range(start, min(start + PER_FILE, count))
        captions = [" ".join(WORDS[(row * 7 + k * (row % 13 + 1)) % 16] for k in range(10)) for row in rows]
        yield f"{start // PER_FILE:05}", [drawn[row % 500] for row in rows], captions


def write(kind: str, folder: Path, count: int, group: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    names = []
    for name, images, captions in samples(count):
        names.append(f"{name}.{kind}")
        if kind == "tar":
            with tarfile.open(folder / names[-1], "w") as file:
                for row, pair in enumerate(zip(images, captions, strict=True)):
                    for suffix, data in (("jpg", pair[0]), ("txt", pair[1].encode())):
                        info = tarfile.TarInfo(f"{name}{row:06}.{suffix}")
                        info.size = len(data)
                        file.addfile(info, io.BytesIO(data))
            continue
        image = pa.array([{"bytes": data, "path": None} for data in images])
        table = pa.table({"image": image, "caption": captions})
        if kind == "parquet":
            pq.write_table(table, folder / names[-1], row_group_size=group)
        else:
            with pa.ipc.new_stream(str(folder / names[-1]), table.schema) as stream:
                stream.write_table(table, max_chunksize=1000)
    if kind == "arrow":
        state = {"_data_files": [{"filename": name} for name in names]}
        (folder / "state.json").write_text(json.dumps(state))


def resident() -> dict[str, float]:
    """MB of this process: all of it, without mapped files, and the most so far."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    keys = {"all": "VmRSS", "anonymous": "RssAnon", "peak": "VmHWM"}
    return {name: round(int(status[key].split()[0]) / 1024, 1) for name, key in keys.items()}


def measure(folder: Path, access: int) -> dict[str, Any]:
    from unicross.data.load import load_items
    from unicross.data.pixels import LazyPixels
    from unicross.data.tokens import CaptionTokens
    from unicross.model.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(WORDS, 300)
    memory, seconds = {"imports": resident()}, {}
    began = time.perf_counter()

    def done(what: str) -> None:
        nonlocal began
        seconds[what] = round(time.perf_counter() - began, 2)
        memory[what] = resident()
        began = time.perf_counter()

    items = load_items(folder).items
    done("open")
    items.digest()
    done("digest")
    captions = CaptionTokens(items, tokenizer, 24)
    done("captions")
    pixels = LazyPixels.build(items, 16, "squash", workers=2)
    asked = np.random.default_rng(0).integers(0, len(items), access)
    for start in range(0, access, 128):
        pixels[asked[start : start + 128]]
    done("random access")
    speed = round(access / seconds["random access"])
    return {
        "items": len(items),
        "captions": len(captions),
        "seconds": seconds,
        "items/s": speed,
        "MB": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["parquet", "tar", "arrow"])
    parser.add_argument("--group", type=int, default=100, help="rows in a Parquet row group")
    parser.add_argument("--access", type=int, default=20_000, help="pictures read at random")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # a data set, in a process of its own
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.access)))
        return
    for kind in arguments.kinds:
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
                write(kind, Path(home) / "data", size, arguments.group)
                command = [sys.executable, __file__, "--measure", f"{home}/data"]
                command += ["--access", str(arguments.access)]
                for turn in ("first", "again") if kind == "tar" else ("first",):
                    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    print(json.dumps({"kind": kind, "turn": turn, **json.loads(out)}), flush=True)


if __name__ == "__main__":
    main()
