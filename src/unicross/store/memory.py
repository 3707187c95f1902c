"""A LanceDB store that answers searches from memory: for a server, which asks one table again and again.

A search of LanceDB costs 5 ms of planning before it looks at a vector, whatever it asks for. Here all
vectors lie in a faiss index and all columns in an Arrow table, both of one version of the table on the
disk. Until they are loaded, and from when another version is seen until that is loaded, the table on the
disk answers, so what is found is never older than `LanceStore` promises. N is a number of rows, D the size
of a vector.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unicross.errors import StoreError
from unicross.store.base import Hit, Row, StoreInfo, Vector, check_depth
from unicross.store.cached import Cached
from unicross.store.filters import Condition, Where, check_where
from unicross.store.lance import MAX_STALENESS_S, LanceStore

EXACT_UP_TO = 20_000
"""Rows up to which every vector is compared; that takes 0.5 ms at D = 256."""

LARGEST_BYTES = 2_000_000_000
"""Of vectors that are held; a larger table answers from the disk."""

PROBED = 32
"""Cells of the index that a search looks into where no filter narrows it; more find more and take longer."""

TRAINED_ON = 64
"""Vectors per cell from which the cells are made."""

REST = 10
"""After a load that took s seconds the next one waits REST * s: what changes all the time stays on the
disk."""

Mask = tuple[NDArray[np.uint8], int]
"""The rows that meet conditions, a bit each, and how many they are."""

log = logging.getLogger(__name__)


class MemoryStore(LanceStore):
    """The store in a folder, for many searches. It may be written too, like any other."""

    def __init__(self, address: str, create: StoreInfo | None = None) -> None:
        super().__init__(address, create)
        self._version = Cached(self._read_version, MAX_STALENESS_S)
        self._copy: _Copy | None = None
        self._loading = threading.Lock()
        self._not_before = 0.0  # time.monotonic()
        self._thread: threading.Thread | None = None

    def search(
        self, vector: Vector, k: int, *, offset: int = 0, where: Where = (), vectors: bool = False
    ) -> list[Hit]:
        check_depth(k, offset)
        copy = self._current()
        if copy is None:
            return super().search(vector, k, offset=offset, where=where, vectors=vectors)
        check_where(where, self.columns)
        asked = np.asarray(vector, dtype=np.float32)
        return copy.search(asked, offset + k, tuple(where), vectors)[offset:]

    def load(self) -> None:
        """Hold the table as it is now, where that is not too much. Raises StoreError."""
        started = time.monotonic()
        version = self._read_version()
        with self._errors():
            rows = self._table.count_rows()
            fits = 4 * rows * self.info.dim <= LARGEST_BYTES
            table = self._table.to_arrow() if fits and rows else None
        copy = _Copy(table, version) if table is not None else None
        self._not_before = time.monotonic() + REST * (time.monotonic() - started)
        self._copy = copy
        self._version.expire()

    @property
    def holds_latest(self) -> bool:
        """Whether searches are answered from memory now."""
        return self._copy is not None and self._copy.version == self._version.get()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        super().close()

    def _changed(self) -> None:
        super()._changed()
        self._version.expire()

    def _read_version(self) -> int:
        with self._errors():
            return int(self._table.version)

    def _current(self) -> _Copy | None:
        """What is held, if it is of the table's version; else None, and loading begins."""
        copy = self._copy
        if copy is not None and copy.version == self._version.get():
            return copy
        if time.monotonic() >= self._not_before and self._loading.acquire(blocking=False):
            self._thread = threading.Thread(target=self._load, name="store in memory", daemon=True)
            self._thread.start()
        return None

    def _load(self) -> None:
        try:
            self.load()
        except StoreError as error:  # whoever searches gets the same from the disk
            log.warning("%s", error)
            self._not_before = time.monotonic() + REST
        finally:
            self._loading.release()


class _Copy:
    """Rows and vectors of one version of a table. Threads may share it."""

    def __init__(self, table: pa.Table, version: int) -> None:
        self.version = version
        column = table["vector"].combine_chunks()
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)  # [N, D]
        self._columns = table.drop_columns(["vector"]).combine_chunks()
        self._index = _build(vectors)
        self._mask = lru_cache(maxsize=64)(self._find_mask)

    def search(self, vector: Vector, k: int, where: tuple[Condition, ...], vectors: bool) -> list[Hit]:
        mask = self._mask(where) if where else None
        matches = len(self._columns) if mask is None else mask[1]
        k = min(k, matches)
        if not k:
            return []
        selector = None if mask is None else faiss.IDSelectorBitmap(len(mask[0]), faiss.swig_ptr(mask[0]))
        scores, places = self._index.search(vector[np.newaxis], k, params=self._parameters(selector, matches))
        found = places[0][places[0] >= 0]  # the cells looked into may hold less than k
        cells = self._columns.take(found).to_pylist()
        own = self._index.reconstruct_batch(found) if vectors else [None] * len(found)  # [k, D]
        hits = [
            Hit(Row.from_cells(row, vector), score)
            for row, vector, score in zip(cells, own, scores[0].tolist()[: len(found)], strict=True)
        ]
        hits.sort(key=lambda hit: (-hit.score, hit.row.id))
        return hits

    def _parameters(self, selector: Any, matches: int) -> Any:
        """How the index is asked: the fewer rows meet the conditions, the more cells are looked into."""
        if not isinstance(self._index, faiss.IndexIVF):
            return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        probed = min(self._index.nlist, -(-PROBED * len(self._columns) // matches))
        return faiss.SearchParametersIVF(sel=selector, nprobe=probed)  # type: ignore[call-arg]

    def _find_mask(self, where: tuple[Condition, ...]) -> Mask:
        meets = np.ones(len(self._columns), bool)
        for condition in where:
            meets &= pc.fill_null(_compare(self._columns[condition.column], condition), False).to_numpy()
        return np.packbits(meets, bitorder="little"), int(meets.sum())


def _build(vectors: NDArray[np.float32]) -> Any:
    """An index of vectors [N, D] by inner product, with all of them in it."""
    count, size = vectors.shape
    index: Any = faiss.IndexFlatIP(size)
    if count > EXACT_UP_TO:
        cells = int(count**0.5)
        index = faiss.IndexIVFFlat(index, size, cells, faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).choice(count, min(count, TRAINED_ON * cells), replace=False)
        index.train(vectors[np.sort(sample)])
    index.add(vectors)
    if count > EXACT_UP_TO:
        index.make_direct_map()  # to give vectors back
    return index


def _compare(column: Any, condition: Condition) -> Any:
    """Whether each value of an Arrow column meets a condition; null where there is no value."""
    value = condition.value
    match condition.operator:
        case "in":
            meets = pc.is_in(column, pa.array(value, column.type))
            return pc.and_(meets, pc.is_valid(column))
        case "=":
            return pc.equal(column, value)
        case "!=":
            return pc.not_equal(column, value)
        case "<":
            return pc.less(column, value)
        case "<=":
            return pc.less_equal(column, value)
        case ">":
            return pc.greater(column, value)
        case ">=":
            return pc.greater_equal(column, value)
