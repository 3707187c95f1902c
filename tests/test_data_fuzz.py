"""Readers and damaged files: a sentence or items, never a traceback; rows are read or counted."""

import random
import warnings
from pathlib import Path

import pytest

from layouts import LAYOUTS
from unicross.data.load import load_items
from unicross.errors import DataError

NAMES = sorted(LAYOUTS)
WORDS = (
    b"",
    b"\0",
    b"\xff\xfe",
    b'"',
    b"\n",
    b",",
    b"{",
    b"]",
    b"9" * 5000,
    b"null",
    b"caption",
    b"\\u d800",
    b"../",
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a piece cut off, taken out, doubled, overwritten or a word put in."""
    if not data:
        return rng.choice(WORDS)
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    b = min(b, a + rng.choice((1, 4, 64, 10_000)))
    match rng.randrange(5):
        case 0:
            return data[:a]
        case 1:
            return data[:a] + data[b:]
        case 2:
            return data[:b] + data[a:]
        case 3:
            return data[:a] + rng.randbytes(b - a) + data[b:]
        case _:
            return data[:a] + rng.choice(WORDS) + data[a:]


def check(name: str, root: Path, seed: int) -> None:
    """Write a layout, damage one file of it, and read it."""
    rng = random.Random(seed)
    LAYOUTS[name][1](root)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".jpg")
    path = rng.choice(files)
    path.write_bytes(mutate(path.read_bytes(), rng))
    for format in (None, LAYOUTS[name][0]):
        try:
            loaded = load_items(root, format=format, on_error="skip")
        except DataError:
            continue  # any other exception fails the test
        for item in loaded.items:
            assert bool(item.images) or item.captions
            assert all(text.strip() for text in item.captions)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    for seed in range(12):
        check(name, tmp_path / str(seed), seed)


@pytest.mark.slow
def test_two_thousand_damaged_files(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(2000):
            check(NAMES[seed % len(NAMES)], tmp_path / str(seed), 1000 + seed)


@pytest.mark.parametrize("seed", range(30))
def test_rows_of_a_table_are_read_or_counted(seed: int, tmp_path: Path) -> None:
    """One byte of one row is damaged: the others are read, and it is read too or a problem."""
    rng = random.Random(seed)
    lines = [f'{{"image_id": "{k}", "caption": "text {k}"}}' for k in range(20)]
    bad = rng.randrange(20)
    at = rng.randrange(len(lines[bad]))
    lines[bad] = lines[bad][:at] + rng.choice('{}[]",:x') + lines[bad][at + 1 :]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    loaded = load_items(tmp_path, on_error="skip")
    captions = sum(len(item.captions) for item in loaded.items)
    bad_lines = [problem for problem in loaded.problems if problem.stops or "columns" in problem.what]
    assert captions + len([problem for problem in bad_lines if problem.stops]) >= 19
    assert captions == 20 or bad_lines
