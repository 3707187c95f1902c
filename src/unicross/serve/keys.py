"""Keys that let clients in: one from the command line, or several with names from a file.

The file has a line `NAME KEY` for each; what follows a `#` is a comment. It is read again when it changes, so
keys come and go without a restart. Keys are held as digests, compared in constant time, and never logged; a
client that gives wrong ones waits longer each time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from unicross.errors import StoreError
from unicross.reading import read_text

SHORTEST = 16
"""Characters of a key in a file; `openssl rand -hex 16` makes 32."""
LOOK_S = 1.0
"""Between two looks whether the file changed, in seconds."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0
"""How long an answer to a wrong key waits: the first time, doubled each time, and at most."""
FORGOTTEN_S = 300.0
"""After so many seconds without a wrong key an address begins anew."""
MOST_ADDRESSES = 10_000

log = logging.getLogger(__name__)


class Keys:
    """The keys that are let in. Threads may share it."""

    def __init__(self, file: Path | None = None, key: str | None = None) -> None:
        """`key` is one without a file, named `key`. Raises StoreError for a file that cannot be used."""
        self._file = file
        self._fixed = {"key": _digest(key.encode())} if key else {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._of_file: dict[str, bytes] = {}
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        if file is not None:
            self._of_file = read_keys(file)
            self._stamp = _stamp(file)

    @property
    def are_wanted(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._fixed) or self._file is not None

    def name_of(self, given: Iterable[bytes]) -> str | None:
        """The name of the first key among those given; None where none is known."""
        self._look()
        digests = [_digest(key) for key in given if key]
        found = None
        for name, digest in (*self._fixed.items(), *self._of_file.items()):
            for one in digests:
                if hmac.compare_digest(one, digest):  # goes on: the time tells nothing of which
                    found = found or name
        return found

    def delay_after_failure(self, address: str) -> float:
        """Note that a wrong key came from an address; how long its answer has to wait, in seconds."""
        now = time.monotonic()
        with self._lock:
            count, last = self._failures.pop(address, (0, now))
            count = 1 if now - last > FORGOTTEN_S else count + 1
            self._failures[address] = count, now
            if len(self._failures) > MOST_ADDRESSES:
                self._failures.popitem(last=False)
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(count - 1, 20))

    def _look(self) -> None:
        """Read the file again if it changed; one that cannot be used is logged, and the keys stay as they
        are."""
        if self._file is None:
            return
        with self._lock:
            now = time.monotonic()
            if now - self._looked < LOOK_S:
                return
            self._looked = now
            stamp = _stamp(self._file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._of_file = read_keys(self._file)
                log.warning("%s: %d keys from now on", self._file, len(self._of_file))
            except StoreError as error:
                log.error("%s: the keys stay as they were", error)


def read_keys(path: Path) -> dict[str, bytes]:
    """The digests of the keys in a file, by name. Raises StoreError, which tells the line and no key."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StoreError(f"{path}: keys cannot be read: {reason}") from None
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or len(words[1]) < SHORTEST:
            raise StoreError(f"{path}:{number}: write NAME KEY, the key with {SHORTEST} characters or more")
        if words[0] in keys:
            raise StoreError(f"{path}:{number}: there are two keys of the name {words[0]}: rename one")
        keys[words[0]] = _digest(words[1].encode())
    if not keys:
        raise StoreError(f"{path}: there is no key in it: write one a line, NAME KEY")
    return keys


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
