"""What the routes of the server share: limits, the parameters of a search, and answers as plain data."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from unicross import __version__
from unicross.data.image_source import ImageSource
from unicross.data.lookup import lies_in
from unicross.embed import Encoder
from unicross.errors import DataError, StoreError
from unicross.folding import cell
from unicross.query import Query
from unicross.search import OTHERS, Searcher
from unicross.serve.batching import BatchedEncoder
from unicross.serve.crowd import Crowd
from unicross.serve.middleware import FULL, Metrics
from unicross.serve.parameters import SearchParameters
from unicross.serve.pictures import PictureError, PictureFiles, Served, Uploads, relative, stored_picture
from unicross.store import Condition, Hit, Kind, Row, Store, Where, make_id, parse_where
from unicross.store.cached import Cached
from unicross.store.thumbnails import kept_picture

T = TypeVar("T")

FACETS_S = 60.0
"""How long counted values of columns are kept."""
FACET_VALUES = 200
"""Most values of a column that are offered as filters."""
UNFILTERED = frozenset({"id", "kind", "path", "caption", "size"})
"""Built-in columns whose values are not offered: nearly every row has its own, or the page asks otherwise."""


class Settings(BaseModel):
    """Limits and access of a server.

    >>> Settings(hosts=("photos.example",), api_key="SECRET", timeout_s=5)
    """

    model_config = ConfigDict(frozen=True)

    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Host names under which the server may be asked (against DNS rebinding), besides IP addresses."""
    api_key: str | None = None
    """Answer only requests that have it, or one of `keys`; all where there is neither."""
    keys: Path | None = None
    """A file of named keys; see `keys.py`."""
    root_path: str = Field("", pattern=r"^(/[^/?#]+)*$")
    """The path of another server below which this one stands, such as `/photos`."""
    max_upload_bytes: int = 20_000_000
    """Of a picture that is sent in, as its file is."""
    max_pixels: int = 50_000_000
    """Of a picture that is sent in, width times height."""
    timeout_s: float = 20.0
    """Longest time for an answer, and for taking an upload, in seconds."""
    max_waiting: int = 64
    """Requests that are worked on or wait; who comes then is refused at once."""
    max_reading: int = 16
    """Uploads that come in at one time, each of which takes memory."""
    decode_s: float = 10.0
    """Longest time for decoding one picture, in seconds; then its decoder is ended."""


def first_of_each(rows: Iterable[Row], by: str) -> Iterator[Row]:
    """The first row of each value of a column, and every row that has none."""
    seen = set()
    for row in rows:
        value = cell(row, by)
        if value not in seen:
            yield row
        if value not in (None, ""):
            seen.add(value)


def is_gone(address: str) -> bool:
    """Whether a store was a folder that is not there any more."""
    return "://" not in address and not Path(address).is_dir() and not Path(address).parent.is_file()


class Service:
    """What the routes share: the store, one searcher whose queries share forwards, and the limits."""

    def __init__(self, model: Encoder, store: Store, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.store = store
        self._encoder = BatchedEncoder(model, metrics.batch.observe)
        self.searcher = Searcher(self._encoder, store)
        limits = {"seconds": settings.decode_s, "wait_s": settings.timeout_s / 2}
        self.uploads = Uploads(max_pixels=settings.max_pixels, **limits)
        self.pictures = PictureFiles(**limits)
        self.drawing = anyio.CapacityLimiter(os.cpu_count() or 1)  # thumbnails leave room for searches
        self.watching = anyio.CapacityLimiter(1)  # health is told whatever else waits
        self._waiting = self._reading = 0
        self._crowd = Crowd(settings.max_waiting)
        self._facets = Cached(self._count_facets, FACETS_S)

    def start(self) -> None:
        """Have decoders ready, so that the first pictures do not wait for their start."""
        self.uploads.decoders.start()
        self.pictures.decoders.start()

    def close(self) -> None:
        self._encoder.close()
        self.uploads.decoders.close()
        self.pictures.decoders.close()

    async def run(self, work: Callable[[], T], limiter: anyio.CapacityLimiter | None = None) -> T:
        """Work in a thread, given up on after the time-out; refused at once where too many wait."""
        if limiter is not self.watching:
            self.shed()
        self._waiting += 1
        started, waiting = time.perf_counter(), self._waiting
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await anyio.to_thread.run_sync(
                    lambda: self._told(work), limiter=limiter, abandon_on_cancel=True
                )
        except TimeoutError:
            raise HTTPException(503, "this took too long: try again, or ask for less") from None
        finally:
            self._waiting -= 1
            if limiter is not self.watching:
                self._crowd.answered(time.perf_counter() - started, waiting)

    def retry_after(self) -> int:
        """When a client that is refused now may come back, in seconds; each has a turn of its own."""
        return self._crowd.turn(self._waiting)

    def is_full(self) -> bool:
        """Whether as many requests wait as may; the middleware tells most who come then (`FULL`)."""
        return self._waiting >= self.settings.max_waiting

    def shed(self) -> None:
        """Raise HTTPException where too many requests wait, which they may not have when this one came."""
        if self.is_full():
            self._refuse()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While an upload comes in. Raises HTTPException where too many do already, or wait."""
        self.shed()
        if self._reading >= self.settings.max_reading:
            self._refuse()
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    def _refuse(self) -> NoReturn:
        self.metrics.shed.inc()
        raise HTTPException(*FULL)

    def _told(self, work: Callable[[], T]) -> T:
        """The work, with whatever it raises as StoreError where the store itself is gone."""
        try:
            return work()
        except (HTTPException, PictureError, StoreError, DataError):
            raise
        except Exception as error:
            if isinstance(error, OSError) or is_gone(self.store.address):
                raise StoreError(f"{self.store.address}: {error}") from error
            raise

    def count(self) -> int:
        """Rows of the store. Raises StoreError, also where an engine would still tell them from memory."""
        if is_gone(self.store.address):
            raise StoreError(f"{self.store.address}: the store is not there any more")
        return self.store.count()

    def search(self, parameters: SearchParameters, upload: bytes | None) -> dict[str, Any]:
        started = time.perf_counter()
        hits = self.searcher.find(self._query(parameters, upload))
        return {
            "hits": [self._hit(hit) for hit in hits[: parameters.k]],
            "offset": parameters.offset,
            "more": len(hits) > parameters.k,
            "took_ms": round(1000 * (time.perf_counter() - started), 1),
        }

    def _hit(self, hit: Hit) -> dict[str, Any]:
        likelihood = None if hit.likelihood is None else round(hit.likelihood, 4)
        others = [self._hit(other) for other in hit.others]
        return {
            "score": round(hit.score, 6),
            "likelihood": likelihood,
            **self.item(hit.row),
            "others": others,
        }

    def _query(self, parameters: SearchParameters, upload: bytes | None) -> Query:
        rules = self.searcher.model.picture_rules
        # What a pretrained pair does to a picture is exact only with every pixel.
        enough = 2 * rules.side if isinstance(rules.resize, str) else None
        return Query(
            parameters.q or None,
            image=None if upload is None else self.uploads.read(upload, at_least=enough),
            like=parameters.like or None,
            minus=parameters.minus,
            where=parse_where(parameters.where, self.store.columns),
            kind=parameters.kind,
            weight=parameters.weight,
            mode=parameters.mode,
            fold=parameters.fold,
            near=parameters.near,
            by=parameters.by or None,
            k=parameters.k + 1,  # one more tells whether there are more
            offset=parameters.offset,
            min_score=parameters.min_score,
        )

    def browse(self, kind: Kind, where: list[str], by: str, k: int, offset: int) -> dict[str, Any]:
        """Pictures in the store's own order, for when nothing is asked for; with `by` one of each value."""
        conditions = [Condition("kind", "=", kind), *parse_where(where, self.store.columns)]
        rows = self.store.scan(conditions)
        if by:
            self.searcher.check_column(by)
            rows = first_of_each(rows, by)
        page = list(islice(rows, offset, offset + k + 1))
        others = self._others(page[:k], by, conditions) if by else {}
        shown = {"score": None, "likelihood": None}
        return {
            "hits": [
                {
                    **shown,
                    **self.item(row),
                    "others": [{**shown, **self.item(other)} for other in others.get(row.id, ())],
                }
                for row in page[:k]
            ],
            "offset": offset,
            "more": len(page) > k,
        }

    def _others(self, page: Sequence[Row], by: str, conditions: Where) -> dict[str, list[Row]]:
        """For each row of a page, by its id: other rows with its value in a column."""
        values = tuple(value for row in page if (value := cell(row, by)) not in (None, ""))
        if not values:
            return {}
        groups: dict[object, list[Row]] = {}
        rows = self.store.scan([*conditions, Condition(by, "in", values)])
        for row in islice(rows, (OTHERS + 1) * len(values)):
            groups.setdefault(cell(row, by), []).append(row)
        return {
            row.id: [other for other in groups.get(cell(row, by), ()) if other.id != row.id] for row in page
        }

    def item(self, row: Row) -> dict[str, Any]:
        """A row as JSON; `picture` is the id under which its picture is served, null for a text alone."""
        picture = row.id if row.kind == "image" else make_id("image", row.path) if row.path else None
        shown = {**row.built_in, "path": relative(row.path, self.store.info.roots)}
        return {**shown, "columns": dict(row.extra), "picture": picture}

    def one(self, id: str) -> dict[str, Any]:
        """A row as JSON; `shown` says what its picture is: the "original", the kept "thumbnail", or null."""
        row = self.searcher.row(id)
        if stored_picture(row.path, self.store.info.roots) is not None:
            return {**self.item(row), "shown": "original"}
        return {**self.item(row), "shown": "thumbnail" if self._kept(row) else None}

    def _kept(self, row: Row) -> ImageSource | None:
        """The kept thumbnail of a row whose picture may be shown."""
        return kept_picture(self.store, row) if lies_in(row.path, self.store.info.roots) else None

    def show(self, id: str, send: Callable[[ImageSource], Served]) -> Served:
        """A row's picture as `send` sends it: the original, or the kept thumbnail where that cannot be sent.

        Raises PictureError.
        """
        row, roots = self.searcher.row(id), self.store.info.roots
        picture = stored_picture(row.path, roots)
        try:
            if picture is None:
                raise PictureError(404, "the picture's file is not in an indexed folder any more")
            return send(picture)
        except PictureError as error:
            kept = self._kept(row) if error.status != 503 else None
            if kept is None:
                raise
            return send(kept)

    def info(self) -> dict[str, Any]:
        return {"version": __version__, **self._facets.get()}

    def _count_facets(self) -> dict[str, Any]:
        """What the store holds, the values to filter by, and a few texts to try."""
        columns = self.store.columns
        images, texts = [Condition("kind", "=", "image")], [Condition("kind", "=", "text")]
        offered = [name for name, kind in columns.items() if kind is not float and name not in UNFILTERED]
        values = {name: self.store.values(name, FACET_VALUES + 1, images) for name in offered}
        some_texts = islice(self.store.scan(texts), 400)
        return {
            "rows": dict(self.store.values("kind", 2)),
            "columns": {name: kind.__name__ for name, kind in columns.items()},
            "likelihood": self.store.info.calibration is not None,
            "values": {name: counts for name, counts in values.items() if len(counts) <= FACET_VALUES},
            "examples": [row.caption for row in some_texts if len(row.caption) < 60][::67][:5],
        }
