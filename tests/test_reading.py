"""Files that are no files: pipes, devices, and sizes that nobody means. Linux and macOS have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

import tiny
from data_files import write
from fake_model import paint
from unicross import reading
from unicross.data.formats import arrow, imagefolder, parquet, photos, table, tar_members
from unicross.data.formats.rows import read_text
from unicross.data.records import BY_NAME
from unicross.errors import CheckpointError, DataError, RecipeError, UnicrossError
from unicross.model import TwoTower
from unicross.recipe import load_recipe
from unicross.result import Result

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")

PIPE = "no regular file but a pipe, a socket or a device"


@pytest.fixture(autouse=True)
def never_waits() -> Iterator[None]:
    """Whoever opens a pipe waits for ever: after a while that is a failure."""

    def fail(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def sparse(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("what", ["pipe", "device", "link to a device", "folder", "too large"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "file"
    match what:
        case "pipe":
            pipe(path)
        case "device":
            path = Path("/dev/zero")
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "too large":
            sparse(path, 1001)
    for open_ in (reading.open_file, reading.read_bytes, reading.check_file):
        with pytest.raises(OSError) as caught:
            open_(path, 1000)  # type: ignore[operator]
        refusals = (PIPE, "a folder, where a file should be", "1001 bytes, above the limit of 1000")
        assert caught.value.strerror in refusals


def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", "x" * 2000)
    monkeypatch.setattr(reading, "why_not", lambda *_: None)
    with pytest.raises(OSError, match="more than the limit of 1000 bytes"):
        reading.read_bytes(path, 1000)


LOOK = """
import json, sys
from pathlib import Path
from unicross.data.load import load_items
from unicross.embed import find_pictures
root = Path(sys.argv[1])
files, failures = find_pictures(root)
print(json.dumps([[file.path.name for file in files], {Path(f.path).name: f.reason for f in failures}]))
"""


def test_a_folder_with_pipes_devices_and_giants_lists_them_and_gives_the_others(tmp_path: Path) -> None:
    paint(tmp_path / "good.png", "red")
    pipe(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    sparse(tmp_path / "giant.jpg", 3 * 2**30)
    answer = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    found, failures = json.loads(answer.stdout)
    assert found == ["good.png"]
    assert failures == {
        "pipe.jpg": PIPE,
        "zero.jpg": PIPE,
        "giant.jpg": f"{3 * 2**30} bytes, above the limit of {reading.LARGEST_PICTURE}",
    }


def test_data_with_pipes_devices_and_giants_names_them(tmp_path: Path) -> None:
    good = paint(tmp_path / "good.png", "red")
    bad = [pipe(tmp_path / "pipe.jpg"), tmp_path / "zero.jpg", sparse(tmp_path / "giant.jpg", 3 * 2**30)]
    bad[1].symlink_to("/dev/zero")
    lines = "".join(f"{path.name},a thing\n" for path in [good, *bad])
    write(tmp_path / "captions.csv", f"image,caption\n{lines}")
    script = "import sys; from unicross.cli import main; sys.argv = ['unicross', 'data', sys.argv[1]]; main()"
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    said = answer.stdout + answer.stderr
    assert said.count(PIPE) == 2, said
    assert f"above the limit of {reading.LARGEST_PICTURE}" in " ".join(said.split())


def opens(name: str) -> Callable[[Path], object]:
    """What opens a file of a name, for the test below."""
    return {
        "captions.txt": lambda path: read_text(path),
        "metadata.csv": lambda path: imagefolder._file_name(path) or read_text(path),
        "a.xmp": lambda path: refuse(photos._sidecar, path),
        "a.jpg.json": lambda path: refuse(photos._description, path),
        "table.parquet": lambda path: table.read_table(path),
        "shard.parquet": lambda path: parquet._ParquetFile(path),
        "data.arrow": lambda path: arrow._ArrowFile(path),
        "state.json": lambda path: arrow.read(path.parent, BY_NAME),
        "recipe.yaml": lambda path: load_recipe(path),
        "result.json": lambda path: Result.load(path),
    }[name]


def refuse(read: Callable[..., object], path: Path) -> None:
    """Raise what a reader lists."""
    problems: list[object] = []
    read(path, problems)
    raise DataError(str(problems[0]))


@pytest.mark.parametrize(
    "name",
    [
        *("captions.txt", "metadata.csv", "a.xmp", "a.jpg.json", "table.parquet", "shard.parquet"),
        *("data.arrow", "state.json", "recipe.yaml", "result.json"),
    ],
)
def test_no_reader_waits_for_a_pipe(tmp_path: Path, name: str) -> None:
    with pytest.raises((UnicrossError, OSError)) as caught:
        opens(name)(pipe(tmp_path / name))
    assert isinstance(caught.value, DataError | RecipeError | OSError)


def test_a_shard_that_became_a_pipe_or_claims_giants_is_a_problem(tmp_path: Path) -> None:
    assert "pipe" in problems_of(pipe(tmp_path / "pipe.tar"))
    header = tarfile.TarInfo("a.txt")
    header.size = 2**31
    claims = tmp_path / "claims.tar"
    with sparse(claims, 2**31 + 4096).open("r+b") as file:
        file.write(header.tobuf())
    assert "above the limit" in problems_of(claims)
    header.type, header.name = tarfile.XHDTYPE, "PaxHeaders/a"
    with claims.open("r+b") as file:
        file.write(header.tobuf())
    assert f"a header of {2**31} bytes" in problems_of(claims)


def problems_of(shard: Path) -> str:
    problems: list[object] = []
    tar_members.scan_shard(shard, None, None, problems)  # type: ignore[arg-type]
    return "; ".join(map(str, problems))


def test_a_long_name_in_a_shard_is_still_read(tmp_path: Path) -> None:
    name = "x" * 300
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo(f"{name}.txt")
        member.size = 3
        file.addfile(member, BytesIO(b"cat"))
    problems: list[object] = []
    scanned, _ = tar_members.scan_shard(tmp_path / "a.tar", None, None, problems)  # type: ignore[arg-type]
    assert (scanned["key"].to_pylist(), problems) == ([name], [])


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "image/config.json"])
def test_a_checkpoint_with_a_pipe_in_it_gets_a_sentence(tmp_path: Path, name: str) -> None:
    tiny.model().save(tmp_path)
    pipe(tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        TwoTower.load(tmp_path)
    assert "\n" not in str(caught.value)
