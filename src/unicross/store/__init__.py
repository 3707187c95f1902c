"""Vector stores behind one small protocol, chosen by address: a folder is LanceDB, a URL is Milvus."""

from __future__ import annotations

from unicross.errors import NoStoreError
from unicross.store.base import Hit, Kind, Row, Store, StoreInfo, in_folder, make_id
from unicross.store.filters import ColumnTypes, Condition, Where, parse_where

__all__ = [
    "ColumnTypes",
    "Condition",
    "Hit",
    "Kind",
    "Row",
    "Store",
    "StoreInfo",
    "Where",
    "make_id",
    "open_store",
    "parse_where",
    "stored_info",
]


def stored_info(address: str) -> StoreInfo | None:
    """What the store at an address remembers about itself; None where there is none. Raises StoreError."""
    try:
        store = open_store(address)
    except NoStoreError:
        return None
    info = store.info
    store.close()
    return info


def open_store(address: str, create: StoreInfo | None = None, *, in_memory: bool = False) -> Store:
    """Open the store at an address: a folder, `http://host:port/collection` or `file.db/collection`.

    Where there is none it is made if `create` is given; where there is one, `create` must have its
    fingerprint, and its checkpoint path is remembered in place of the old one. With `in_memory`, a store in a
    folder loads its vectors for many searches to come (see `memory.py`). Raises StoreError.
    """
    address = str(address)
    store: Store
    if not in_folder(address):
        from unicross.store.milvus import MilvusStore

        store = MilvusStore(address, create)
    elif in_memory:
        from unicross.store.memory import MemoryStore

        store = MemoryStore(address, create)
    else:
        from unicross.store.lance import LanceStore

        store = LanceStore(address, create)
    if create is not None:
        store.info.check(create.fingerprint, address=address)
        if store.info.checkpoint != create.checkpoint:
            store.remember(checkpoint=create.checkpoint)
    return store
