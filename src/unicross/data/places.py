"""Data that lie elsewhere, as a local folder: data sets of the Hugging Face hub, and object storage.

    hf://OWNER/NAME[@REVISION][/FOLDER]    a data set's files, through huggingface_hub and its cache
    s3://BUCKET/FOLDER, gs://...           a copy of the objects, through fsspec

The hub's files are downloaded as they are and read by the formats of this package, so that its Parquet,
shards and imagefolders need no further library, and no script of a repository is ever run.

Objects are copied once, to `~/.cache/unicross/objects`, and again when their size or tag changes; what is
gone there is dropped here. Training reads everything in every epoch, and in any order, so a whole copy on
the disk is read far less often than parts would be. It has to fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from filelock import FileLock

from unicross.errors import DataError
from unicross.files import beside, write_text

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
HUB = re.compile(
    r"(?:datasets/)?(?P<name>[\w.-]+/[\w.-]+|[\w.-]+(?=@|$))(?:@(?P<revision>[^/]+))?(?P<folder>/.*)?"
)
PARQUET = {"~parquet": "refs/convert/parquet"}
"""The revision in which the hub keeps data sets of any kind converted to Parquet, and its short name."""

TRIES = 4
"""How often a read of an object is tried."""
WAIT_S = 0.5
"""Seconds between the first two tries; twice as many between each two that follow."""
THREADS = 8
"""Objects that are copied at a time."""
LISTING = ".objects.json"
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that reads a protocol."""

T = TypeVar("T")


def is_address(root: Path | str) -> bool:
    """Whether a `data.root` is an address rather than a path."""
    return isinstance(root, str) and ADDRESS.match(root) is not None


def local_copy(root: Path | str) -> Path:
    """The folder or file with the data of a `data.root`, downloaded first where it is an address.

    Raises DataError where it cannot be had.
    """
    match = ADDRESS.match(root) if isinstance(root, str) else None
    if match is None:
        return Path(root)
    protocol, rest = match.groups()
    if protocol == "hf":
        return _hub(str(root), rest)
    if protocol in ("http", "https"):
        raise DataError(f"{root}: data are not fetched from web pages: download them and give their folder")
    return _objects(str(root), protocol, rest)


def _hub(root: str, rest: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match = HUB.fullmatch(rest.rstrip("/"))
    if match is None:
        raise DataError(
            f"{root}: write a data set of the hub as hf://OWNER/NAME, perhaps with @REVISION and /FOLDER"
        )
    name, folder = match["name"], (match["folder"] or "").strip("/")
    revision = match["revision"] and PARQUET.get(match["revision"], unquote(match["revision"]))
    try:
        copy = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision,
            allow_patterns=f"{folder}/*" if folder else None,
        )
    except (RepositoryNotFoundError, HFValidationError):
        raise DataError(
            f"{root}: the hub has no data set {name!r} that you may read: look at its name, or log in with "
            "`hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise DataError(f"{root}: the data set has no revision {revision!r}") from None
    except LocalEntryNotFoundError:
        at = f" --revision {revision}" if revision else ""
        raise DataError(
            f"{root}: the hub cannot be reached, and it is not in the Hugging Face cache. Where there is "
            f"a network: hf download --repo-type dataset {name}{at}; then copy the cache, or give a folder"
        ) from None
    except OSError as error:
        raise DataError(f"{root}: cannot be downloaded: {error}") from error
    place = Path(copy) / folder
    if not place.exists():
        raise DataError(f"{root}: the data set has no folder {folder!r}")
    return place


def home_of(folder: Path) -> Path:
    """The folder that a copy's files really lie in: the hub's cache links them from elsewhere."""
    for parent in (folder, *folder.parents):
        if parent.name == "snapshots" and parent.parent.name.startswith("datasets--"):
            return parent.parent
    return folder


def _objects(root: str, protocol: str, rest: str) -> Path:
    """The up-to-date copy of the objects at an address."""
    import fsspec

    try:
        system = fsspec.filesystem(protocol)
    except (ImportError, ValueError, TypeError) as error:  # a TypeError where it wants more than an address
        extra = EXTRAS.get(protocol)
        advice = f"pip install 'unicross[{extra}]'" if extra else "give a folder, hf://, s3:// or gs://"
        raise DataError(f"{root}: {protocol}:// cannot be read ({error}): {advice}") from error
    rest = rest.rstrip("/")
    hashed = hashlib.sha256(f"{protocol}://{rest}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unicross" / "objects" / hashed
    copy = cache / Path(rest).name
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):  # processes that train together copy once
        _mirror(root, system, protocol, rest, cache, copy)
    return copy


def _mirror(root: str, system: Any, protocol: str, rest: str, cache: Path, copy: Path) -> None:
    """Bring a copy in step with the objects below an address."""
    system.invalidate_cache()
    found: Mapping[str, Any] = _tried(root, lambda: system.find(rest, detail=True))
    tags = {_below(name, rest): _tag(info) for name, info in found.items()}
    tags = {name: tag for name, tag in tags.items() if not _is_hidden(name)}
    if not tags:
        raise DataError(f"{root}: there is nothing: look at the address")
    before = _noted(cache)
    there = {name: tag for name, tag in before.items() if tags.get(name) == tag and (copy / name).is_file()}
    changed = [name for name in tags if name not in there]
    _require_room(root, cache, sum(tags[name][0] for name in changed))

    def fetch(name: str) -> None:
        source, target = (f"{rest}/{name}", copy / name) if name else (rest, copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside(target) as partial:
            _tried(f"{protocol}://{source}", lambda: system.get_file(source, str(partial)))
        there[name] = tags[name]

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, changed))
    finally:
        write_text(cache / LISTING, json.dumps(there))
    for name in before.keys() - tags.keys():
        (copy / name).unlink(missing_ok=True)


def _is_hidden(name: str) -> bool:
    """Whether a part of an object's name hides it, as in a folder, or would lead out of the copy."""
    return any(part.startswith(".") for part in name.split("/"))


def _tried(name: str, read: Callable[[], T]) -> T:
    """What a read gives, tried again where it fails. Raises DataError in the end."""
    for attempt in range(1, TRIES + 1):
        try:
            return read()
        except FileNotFoundError:
            raise DataError(f"{name}: not there (any more): look at the address, or begin again") from None
        except PermissionError as error:
            raise DataError(f"{name}: you may not read it ({error}): check the credentials") from error
        except Exception as error:  # clients of object storage raise anything
            if attempt == TRIES:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DataError(f"{name}: cannot be read, tried {TRIES} times: {reason}") from error
            time.sleep(WAIT_S * 2 ** (attempt - 1))
    raise AssertionError("the last try returns or raises")


def _below(name: str, rest: str) -> str:
    """An object's name below the address; empty where the address is the object's."""
    plain = rest.strip("/")
    return name.strip("/").removeprefix(plain).strip("/")


def _tag(info: Mapping[str, Any]) -> tuple[int, str]:
    """The size of an object and what else differs once it does."""
    stamp = next(
        (info[key] for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created") if key in info),
        "",
    )
    return int(info.get("size") or 0), str(stamp)


def _noted(cache: Path) -> dict[str, tuple[int, str]]:
    """The objects of the copy as they were when it was made."""
    try:
        noted = json.loads((cache / LISTING).read_text(encoding="utf-8"))
        return {name: (int(size), str(stamp)) for name, (size, stamp) in noted.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _require_room(root: str, cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise DataError(
            f"{root}: {needed / 1e9:.1f} GB would be copied to {cache}, where {free / 1e9:.1f} GB are free: "
            "make room, set XDG_CACHE_HOME to a larger disk, or give a part of it"
        )
