"""Writing files and folders so that a kill or a power cut leaves the old one or the new one, never a half.

What is written stands beside its place under a hidden name until all of it is on disk; then it is renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unicross.reading import read_text

MANIFEST = "manifest.json"


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; it takes `path`'s place when the block ends without an error.

    Raises OSError.
    """
    partial = _partial(path)
    try:
        yield partial
        _sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it is renamed to `path`, which must not exist, in the same way.

    Raises OSError.
    """
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)  # of a process with our number that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        readable = partial.stat().st_mode & 0o666  # safetensors makes files that nobody else can read
        for file in partial.rglob("*"):
            if file.is_file():
                file.chmod(readable)
                _sync_file(file)
        sync_folder(partial)
        partial.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with beside(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all. Raises OSError."""
    write_bytes(path, text.encode("utf-8"))


def write_manifest(folder: Path) -> None:
    """Note in a folder the digest of every file in it, as the last thing that is written there. Raises
    OSError."""
    write_text(folder / MANIFEST, json.dumps(_digests(folder), indent=1))


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that `write_manifest` sealed, naming the file; None where nothing is."""
    try:
        sealed = json.loads(read_text(folder / MANIFEST))
        if not isinstance(sealed, dict):
            raise ValueError("it holds no digests")
        digests = _digests(folder)
    except (OSError, ValueError) as error:
        return f"{folder / MANIFEST}: cannot be read ({error})"
    changed = [name for name in {**sealed, **digests} if sealed.get(name) != digests.get(name)]
    return f"{folder / changed[0]}: not as it was written" if changed else None


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def replace_link(link: Path, target: Path) -> None:
    """Let `link` point at `target`, at the old one or at the new one at every moment. Raises OSError."""
    partial = _partial(link)
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk. Raises OSError."""
    if os.name != "posix":  # other systems cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
